"""Reads what a command left as its output: JSON, whatever else may be there."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TaskFailed
from ..run import LARGE_OUTPUT_BYTES, Large
from ._disk import is_low
from ._folders import copy_file

MAX_OUTPUT_BYTES = 1 << 30
"""A larger output is a failure: it belongs into a store, its address into the output."""

_CHECK = Path(__file__).with_name("_check_json.py")
_few = threading.BoundedSemaphore(os.cpu_count() or 1)
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells a file that was there before from one that was written."""

    inode: int
    size: int
    changed_ns: int


def stamp(path: Path) -> Stamp | None:
    """The stamp of a file, None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Stamp(found.st_ino, found.st_size, max(found.st_mtime_ns, found.st_ctime_ns))


def read(path: Path, *, shown: str, inside: Path | None, keep_as: Path) -> Any:
    """The JSON value in a file, `Large` (moved to `keep_as`) when it is more than 1 MiB.

    `shown` is how messages name the file; a link that leads out of `inside` is not followed.

    Raises:
        TaskFailed: it is no regular file, not readable, empty, too large or not JSON.
    """
    try:
        if inside is not None and not path.resolve().is_relative_to(inside.resolve()):
            raise TaskFailed(f"{shown} is a link to a place outside of the working directory; write the file itself")
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise TaskFailed(f"{shown} cannot be read: {error.strerror}") from error
    except RuntimeError:  # before Python 3.13
        raise TaskFailed(f"{shown} is a link to itself; write the file itself") from None
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        os.close(file)
        raise TaskFailed(f"{shown} is {_kind(found.st_mode)}, not a file; write JSON into a file")
    with os.fdopen(file, "rb") as data:
        if found.st_size > MAX_OUTPUT_BYTES:
            raise TaskFailed(
                f"{shown} has {_size(found.st_size)}; an output may have {_size(MAX_OUTPUT_BYTES)}: "
                "write large data to a store and give its address"
            )
        if found.st_size == 0 and is_low(str(path.parent)):
            raise TaskFailed(f"{shown} is empty, for the disk is full; free some space, or set TMPDIR to a larger disk")
        if found.st_size <= LARGE_OUTPUT_BYTES:
            return _small(data.read(LARGE_OUTPUT_BYTES + 1), shown)
        has_bom = data.read(len(_BOM)) == _BOM
    items = _check_large(path, shown)
    _move(path, keep_as, has_bom=has_bom)
    return Large(keep_as, keep_as.stat().st_size, items)


def _small(data: bytes, shown: str) -> Any:
    try:
        return parse(data)
    except ValueError as error:
        raise TaskFailed(f"{shown} {error}") from None


def parse(data: bytes) -> Any:
    """JSON as the standard has it: UTF-8, no NaN or Infinity, no halves of surrogate pairs.

    Raises:
        ValueError: what is wrong, to be put after the name of the file.
    """
    if not data.strip():
        raise ValueError("is empty; write JSON into it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text (byte {error.start}); write JSON as UTF-8") from None
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError("is not valid JSON: it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"is not valid JSON: {error}") from None
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("is not valid JSON: it holds half of a surrogate pair (\\ud800 to \\udfff)") from None
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON; write null or text instead")


def _check_large(path: Path, shown: str) -> int | None:
    """Check a large file in a process of its own: this one's memory stays as it is. Gives the length of a list."""
    with _few:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(_CHECK), str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise TaskFailed(f"{shown} is too large to be checked on this machine; write less") from None
    if "error" in answer:
        raise TaskFailed(f"{shown} {answer['error']}")
    items = answer["items"]
    return items if isinstance(items, int) else None


def _move(path: Path, target: Path, *, has_bom: bool) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if has_bom:
            with path.open("rb") as source, target.open("wb") as file:
                source.seek(len(_BOM))
                while data := source.read(1 << 20):
                    file.write(data)
            return
        try:
            path.resolve().replace(target)
        except OSError:
            copy_file(path, target)
    except OSError as error:
        raise TaskFailed(f"the output cannot be kept: {error.strerror} ({target.parent})") from error


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "something else"


def _size(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
