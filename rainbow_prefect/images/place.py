"""The folder in which an image is built: the same for each build of it, so that the builder takes over what it knows."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..executors import _folders


@contextmanager
def place(name: str) -> Iterator[Path]:
    """An empty folder that is removed at the end; one that is left behind is removed by the next start of a process.

    BuildKit asks for the files of a folder that changed since it saw the folder of this path, and for no others.
    While another process builds the same, the folder has a name of its own.
    """
    shared = _folders._shared()
    path = shared / f"build-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    lock = _taken(path)
    if lock is None:
        path = Path(tempfile.mkdtemp(prefix="build-", dir=shared))
        lock = _taken(path)
    try:
        work = path / "work"
        work.mkdir()
        yield work
    finally:
        _folders.remove(path)
        if lock is not None:
            os.close(lock)


def _taken(path: Path) -> int | None:
    """The lock that keeps the folder, emptied; None when somebody else has it."""
    path.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    _folders.remove(path / "work")
    return lock
