"""Working directories: made for one slice, removed with it; those of dead runs are removed by the next start."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import itertools
import os
import shutil
import stat
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from ..errors import TaskFailed

SKIPPED = frozenset(
    {"__pycache__", ".git", ".hg", ".svn", ".venv", "venv", "node_modules", ".tox", ".nox"}
    | {".mypy_cache", ".pytest_cache", ".ruff_cache"}
)
"""What is no code: not copied."""

_COPY_BYTES = 1 << 30
_BEING_MADE_SECONDS = 60


class Slice(NamedTuple):
    """The folder of one slice: the working directory `work` with a copy of the code, `tmp`, and our own files."""

    path: Path
    work: Path

    @property
    def tmp(self) -> Path:
        return self.path / "tmp"

    def remove(self) -> None:
        """Remove it, also what its command made read-only."""
        remove(self.path)


def remove(path: Path) -> None:
    """Remove a folder and all in it; folders without permission are opened first."""
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        for folder, _, _ in os.walk(path):
            with contextlib.suppress(OSError):
                Path(folder).chmod(0o700)
        for folder, folders, _ in os.walk(path):
            for name in folders:
                with contextlib.suppress(OSError):
                    (Path(folder) / name).chmod(0o700)
        shutil.rmtree(path, ignore_errors=True)


class _Area:
    """The folder of this process below the shared one; its lock is held as long as the process lives."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        shared = _shared()
        _sweep(shared)
        self.path = Path(tempfile.mkdtemp(prefix=f"{self.pid}-", dir=shared))
        # It gets its name when it is locked: one that is found is held, or its process is gone.
        self.lock = os.open(self.path / "unlocked", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        (self.path / "unlocked").rename(self.path / "lock")
        self.numbers = itertools.count(1)


_lock = threading.Lock()
_area: _Area | None = None


@atexit.register
def close() -> None:
    """Remove the folder of this process when it ends."""
    global _area
    if _area is not None and _area.pid == os.getpid():
        remove(_area.path)
        os.close(_area.lock)
        _area = None


def area() -> Path:
    """The folder in which this process makes its working directories."""
    return _current().path


def make(name: str, source: Path | None) -> Slice:
    """A new folder for a slice, with a copy of `source` in its working directory.

    Raises:
        TaskFailed: the source is missing or cannot be read, or the disk is full.
    """
    current = _current()
    path = current.path / f"{next(current.numbers)}-{name}"
    work = path / (source.name if source is not None and source.name not in ("", "tmp", "..") else "work")
    try:
        work.mkdir(parents=True)
        (path / "tmp").mkdir()
        if source is not None:
            _copy(source, work, source.resolve())
    except OSError as error:
        remove(path)
        raise TaskFailed(_why(error, source)) from error
    return Slice(path, work)


def _current() -> _Area:
    global _area
    with _lock:
        if _area is None or _area.pid != os.getpid() or not _area.path.exists():
            _area = _Area()
        return _area


def _shared() -> Path:
    """`rainbow-UID` in the folder for temporary files; one of our own when that name is somebody else's."""
    path = Path(tempfile.gettempdir()) / f"rainbow-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
        if stat.S_IMODE(found.st_mode) & 0o077:
            path.chmod(0o700)
        return path
    return Path(tempfile.mkdtemp(prefix="rainbow-"))


def _sweep(shared: Path) -> None:
    """Remove the folders of processes that are gone: nobody holds their lock."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(shared)):
            if entry.is_dir(follow_symlinks=False) and entry.name != "kept":
                _sweep_one(Path(entry.path))


def _sweep_one(path: Path) -> None:
    try:
        lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > _BEING_MADE_SECONDS:
                remove(path)
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(path)
    except OSError:
        return
    finally:
        os.close(lock)


def keep(folder: Slice) -> Path:
    """Move the folder of a failed slice to where it stays until somebody removes it; gives its working directory."""
    kept = area().parent / "kept"
    kept.mkdir(mode=0o700, exist_ok=True)
    target = Path(tempfile.mkdtemp(prefix=f"{folder.path.name}-", dir=kept))
    folder.path.rename(target / "slice")
    return target / "slice" / folder.work.name


def _why(error: OSError, source: Path | None) -> str:
    if source is not None and not source.is_dir():
        what = "is not a folder" if source.exists() else "does not exist"
        return f"the source folder {source} {what}; correct `source`"
    name = f" ({error.filename})" if error.filename else ""
    return f"the working directory cannot be made: {error.strerror or error}{name}"


def _copy(source: Path | str, target: Path | str, root: Path) -> None:
    """Copy a folder: files by the kernel (shared blocks where the file system can), links as links, the rest not."""
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.name in SKIPPED:
                continue
            to = f"{target}/{entry.name}"
            if entry.is_symlink():
                _copy_link(entry.path, to, root)
            elif entry.is_dir():
                if _is_ours(entry.path) or os.path.exists(f"{entry.path}/pyvenv.cfg"):
                    continue
                os.mkdir(to)
                _copy(entry.path, to, root)
            elif entry.is_file():
                copy_file(entry.path, to)


def _is_ours(path: str) -> bool:
    return _area is not None and str(_area.path).startswith(os.path.realpath(path) + "/")


def _copy_link(path: str, to: str, root: Path) -> None:
    """A link that leads out of the source would lead astray from the copy: it becomes absolute."""
    link = os.readlink(path)
    if not link.startswith("/"):
        aim = Path(path).parent.joinpath(link).resolve()
        if not aim.is_relative_to(root):
            link = str(aim)
    os.symlink(link, to)


def copy_file(path: str | Path, to: str | Path) -> None:
    """Copy the content, mode and times of a file."""
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.fstat(source)
        target = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, stat.S_IMODE(found.st_mode) | 0o200)
        try:
            if found.st_size:
                _copy_bytes(source, target)
            os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy_bytes(source: int, target: int) -> None:
    if hasattr(os, "copy_file_range"):
        try:
            while os.copy_file_range(source, target, _COPY_BYTES):
                pass
            return
        except OSError as error:
            import errno

            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
                raise
            os.lseek(source, 0, os.SEEK_SET)
            os.ftruncate(target, 0)
            os.lseek(target, 0, os.SEEK_SET)
    while data := os.read(source, 1 << 20):
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]
