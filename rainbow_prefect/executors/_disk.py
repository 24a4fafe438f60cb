"""Finds the slice that fills the disk, so that it ends and not the others: looked at once a second, cheap until then."""

from __future__ import annotations

import os
import threading
import time

LOOK_SECONDS = 1.0
LOW_BYTES = 256 << 20
LOW_SHARE = 0.02
"""The disk is low below the smaller of the two."""
LARGE_BYTES = 32 << 20
LARGE_SHARE = 0.1
"""Only a slice that has the smaller of the two can be the one that fills it."""

_lock = threading.Lock()
_folders: set[str] = set()
_looked = 0.0
_culprit: tuple[str, int] | None = None


def watch(folder: str) -> None:
    """A slice works in this folder from now on."""
    with _lock:
        _folders.add(folder)


def forget(folder: str) -> None:
    """It has ended."""
    with _lock:
        _folders.discard(folder)


def is_low(folder: str) -> bool:
    """Whether the disk of this folder is nearly full."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    total = found.f_blocks * found.f_frsize
    return found.f_bavail * found.f_frsize < min(LOW_BYTES, LOW_SHARE * total)


def filled_by(folder: str) -> int:
    """How many bytes are in this folder when its slice fills the disk more than any other, else 0."""
    global _looked, _culprit
    if not is_low(folder):
        return 0
    with _lock:
        now = time.monotonic()
        if now - _looked > LOOK_SECONDS or (_culprit is not None and _culprit[0] not in _folders):
            _looked = now
            sizes = {one: size(one) for one in _folders}
            largest = max(sizes, key=sizes.__getitem__, default=None)
            _culprit = None if largest is None else (largest, sizes[largest])
        if _culprit is None or _culprit[0] != folder:
            return 0
        found = os.statvfs(folder)
        is_large = _culprit[1] >= min(LARGE_BYTES, LARGE_SHARE * found.f_blocks * found.f_frsize)
        return _culprit[1] if is_large else 0


def size(folder: str) -> int:
    """The bytes that a folder takes on the disk."""
    total = 0
    todo = [folder]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
        except OSError:
            continue
    return total
