"""A digest of each file of a source; those of files that did not change since are remembered, as git does it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..cache import folder as folder_of_checks
from ..errors import RunError
from .context import File

_CHUNK_BYTES = 1 << 20
_WORTH_FILES = 200
"""Fewer files are read as fast as what is remembered of them."""

_FRESH_NS = 2_000_000_000
"""A file that changed so shortly before it was looked at may change again without another time."""

_KEPT = 100


def digests(files: Collection[File], *, folder: Path | None = None) -> dict[str, str]:
    """A digest of each file: its bytes, whether it is executable, or where it leads.

    With `folder`, the source, what is remembered of it counts for files of the same size, times and place on the disk.

    Raises:
        RunError: a file cannot be read.
    """
    try:
        if folder is None or len(files) < _WORTH_FILES:
            return {one.path: _digest(one) for one in files}
        return _remembered(files, _file_of(folder))
    except OSError as error:
        raise RunError(f"the source cannot be read: {error}") from error


def _remembered(files: Collection[File], kept_in: Path) -> dict[str, str]:
    before = _read(kept_in)
    now = time.time_ns()
    found: dict[str, str] = {}
    kept: dict[str, list[Any]] = {}
    changed = False
    for one in files:
        if one.link:
            found[one.path] = _digest(one)
            continue
        state = _state(one)
        known = before.get(one.path)
        if known is not None and known[:-1] == state:
            found[one.path] = known[-1]
            kept[one.path] = known
            continue
        found[one.path] = _digest(one)
        changed = True
        if max(state[1], state[2]) < now - _FRESH_NS and _state(one) == state:
            kept[one.path] = [*state, found[one.path]]
    if changed or len(kept) < len(before):
        _write(kept_in, kept)
    return found


def _state(one: File) -> list[Any]:
    """What changes when a file does: its size, times and place on the disk, and whether it is executable."""
    seen = os.stat(one.real)  # noqa: PTH116  by the thousand
    return [seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino, one.executable]


def _digest(one: File) -> str:
    digest = hashlib.sha256(b"x" if one.executable else b"-")
    if one.link:
        digest.update(b"link " + os.fsencode(one.link))
    else:
        with Path(one.real).open("rb", buffering=0) as file:
            while data := file.read(_CHUNK_BYTES):
                digest.update(data)
    return digest.hexdigest()[:24]


def _file_of(folder: Path) -> Path:
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    return folder_of_checks().parent / "digests" / f"{name}.json"


def _read(file: Path) -> dict[str, list[Any]]:
    try:
        found = json.loads(file.read_bytes())
        return found if isinstance(found, dict) and all(len(one) == 6 for one in found.values()) else {}
    except (OSError, ValueError, TypeError):
        return {}


def _write(file: Path, kept: dict[str, list[Any]]) -> None:
    """A folder that cannot be written is no problem: the files are read again then."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        old = sorted(file.parent.glob("*.json"), key=lambda one: one.stat().st_mtime)
        for one in old[: max(0, len(old) - _KEPT)]:
            one.unlink(missing_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(kept))
        part.replace(file)
