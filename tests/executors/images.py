"""Images for the contract: the code of a folder in `/app` of the base image, built once for each content."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import Any

NAME = f"rainbow-test/code-{os.getpid()}"
"""Of this process alone: another worker may remove its images at any time."""


class Images:
    """Builds an image for each content of a folder that it is asked for, and removes them at the end."""

    def __init__(self, client: Any, base: str) -> None:
        self._client = client
        self._base = base
        self._made: set[str] = set()

    def of(self, source: Path | None) -> str:
        """The image with the code of a folder, an empty `/app` without one."""
        files = {} if source is None else {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
        digest = hashlib.blake2b(self._base.encode(), digest_size=9)
        for path, data in sorted(files.items()):
            digest.update(f"{path.relative_to(source)} {path.stat().st_mode} {len(data)}\n".encode() + data)
        return self.built(f"FROM {self._base}\nWORKDIR /app\nCOPY . .\n", source, tag=digest.hexdigest())

    def built(self, dockerfile: str, source: Path | None = None, *, tag: str = "") -> str:
        """The image of a Dockerfile; `source` is its context."""
        tag = tag or hashlib.blake2b(dockerfile.encode(), digest_size=9).hexdigest()
        if tag not in self._made:
            self._client.images.build(
                fileobj=_context(dockerfile, source), custom_context=True, tag=f"{NAME}:{tag}", rm=True, forcerm=True
            )
            self._made.add(tag)
        return f"{NAME}:{tag}"

    def remove(self) -> None:
        """Remove all that were made."""
        for tag in self._made:
            self._client.images.remove(f"{NAME}:{tag}", force=True)


def _context(dockerfile: str, source: Path | None) -> io.BytesIO:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as context:
        if source is not None:
            context.add(source, arcname=".")
        for name, text in (("Dockerfile", dockerfile), (".dockerignore", "Dockerfile\n.dockerignore\n")):
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            context.addfile(info, io.BytesIO(text.encode()))
    data.seek(0)
    return data
