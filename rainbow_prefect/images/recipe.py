"""What one image is made of; imports little, for what is done most often: finding that nothing changed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_PYTHON = "3.11"

_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Recipe:
    """One image: `source` is the folder with its code as written, `folder` the same as a path; None: not ours to build."""

    image: str
    type: str = "python"
    app: str = ""
    source: str | None = None
    folder: Path | None = None
    base_image: str = f"python:{DEFAULT_PYTHON}-slim"
    no_cache: bool = False
    pip_conf: Path | None = None
    build_cmd: tuple[str, ...] = ()
    requirements: str | None = None
    dockerfile: Path | None = None
    build_args: Mapping[str, str] = field(default_factory=dict)
    platform: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    credentials: str | None = None
    service: Mapping[str, Any] | None = None
    kept_out: frozenset[str] = frozenset()
    """The real paths of files that hold secrets: they never enter an image."""

    @property
    def bases(self) -> list[str]:
        """The images it is built from."""
        if self.dockerfile is None:
            return [self.base_image]
        try:
            return _FROM.findall(self.dockerfile.read_text(errors="replace"))
        except OSError:
            return []


def tagged(image: str) -> str:
    """The name with its tag: `team/app` is `team/app:latest`."""
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"


def with_bases(recipes: Sequence[Recipe], images: Iterable[str]) -> list[Recipe]:
    """The recipes of these images and of those they are built from, in the order of `recipes`; unknown ones are left out."""
    by_name = {tagged(one.image): one for one in recipes}
    wanted: set[str] = set()
    waiting = [tagged(image) for image in images]
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in wanted:
            wanted.add(name)
            waiting += map(tagged, by_name[name].bases)
    return [one for name, one in by_name.items() if name in wanted]
