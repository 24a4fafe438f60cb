"""YAML text to plain data that knows where each key and value was written; no variables, no inheritance here."""

from __future__ import annotations

import gc
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import Mark, Problem

MAX_BYTES = 64 * 1024 * 1024
Keys = Sequence[str | int]
Entry = tuple[str, int, int, int, int]
Place = tuple[str, int, int]


class Map(dict[str, Any]):
    """A YAML mapping that knows where it starts and, in `marks`, where each key and value was written.

    Shape: `marks[key]` is (file, line of the key, its column, line of the value, its column), all counted from 1.
    """

    __slots__ = ("column", "file", "line", "marks")

    def __init__(self, file: str = "", line: int = 1, column: int = 1) -> None:
        self.file = file
        self.line = line
        self.column = column
        self.marks: dict[str, Entry] = {}

    def put(self, key: str, value: Any, mark: Entry) -> None:
        """Set `key`, written at `mark`."""
        self[key] = value
        self.marks[key] = mark

    def same_place(self) -> Map:
        """An empty mapping that starts where this one does."""
        return Map(self.file, self.line, self.column)

    def shallow(self) -> Map:
        """A copy that shares the values."""
        result = Map(self.file, self.line, self.column)
        result.update(self)
        result.marks = dict(self.marks)
        return result


class List(list[Any]):
    """A YAML list that knows where it starts and, in `marks`, where each item was written: (file, line, column)."""

    __slots__ = ("column", "file", "line", "marks")

    def __init__(self, file: str = "", line: int = 1, column: int = 1) -> None:
        self.file = file
        self.line = line
        self.column = column
        self.marks: list[Place] = []

    def put(self, value: Any, mark: Place) -> None:
        """Append `value`, written at `mark`."""
        self.append(value)
        self.marks.append(mark)

    def same_place(self) -> List:
        """An empty list that starts where this one does."""
        return List(self.file, self.line, self.column)


class Float(float):
    """A number whose text says more than its value: `3.10` stays `3.10` where text is wanted."""

    text: str = ""

    def __str__(self) -> str:
        return self.text or float.__repr__(self)

    @classmethod
    def of(cls, value: float, text: str) -> float:
        """`value` itself when its text is the usual one, else one that remembers `text`."""
        if float.__repr__(value) == text:
            return value
        result = cls(value)
        result.text = text
        return result


@dataclass(frozen=True)
class Document:
    """One file as written: `shown` is its path as printed, relative to the searched folder; `digest` of its bytes.

    `has_placeholders` is False only when there is certainly none, `has_open` when there is certainly none left open.
    """

    file: Path
    shown: str
    data: Map
    digest: str
    has_placeholders: bool = True
    has_open: bool = True


def read(file: Path, *, shown: str) -> tuple[Document | None, list[Problem]]:
    """The document in `file` and all that is wrong with its YAML; no document when there is nothing to go on with."""
    try:
        raw = _bytes(file)
        text = _text(raw)
    except OSError as error:
        return None, [Problem(Mark(shown), "", f"cannot be read: {error.strerror or error}")]
    except _Unreadable as error:
        return None, [Problem(Mark(shown, error.line, error.column), "", str(error), error.hint)]
    data, problems = parse(text, shown=shown)
    if data is None:
        return None, problems
    digest = hashlib.sha256(raw).hexdigest()
    return Document(file, shown, data, digest, _may_have_placeholders(text), _may_have_open(text)), problems


def _may_have_placeholders(text: str) -> bool:
    # In double quotes `{` may be written `\\x7b`.
    return "{{" in text or "\\" in text


_MAY_BE_OPEN = re.compile(r"""\{\{(?![^{}\n'"]*\}\})|\\""")


def _may_have_open(text: str) -> bool:
    return _MAY_BE_OPEN.search(text) is not None


def parse(text: str, *, shown: str) -> tuple[Map | None, list[Problem]]:
    """As `read`, of a text; `shown` is the file name in marks."""
    from . import plain

    with without_gc():
        data = plain.read(text, shown=shown)
        if data is not None:
            return data, []
        from . import parsing

        data, problems = parsing.read(text, shown=shown)
    return data, sorted(problems, key=lambda problem: problem.mark)


def mark_of(data: Any, keys: Keys, *, on_key: bool = False) -> Mark:
    """Where the value at `keys` was written, or the deepest part of the way that exists; `on_key`: its key instead."""
    place: Place = (data.file, data.line, data.column) if isinstance(data, Map | List) else ("", 1, 1)
    last = len(keys) - 1
    for index, key in enumerate(keys):
        if isinstance(data, Map):
            entry = data.marks.get(str(key))
            if entry is None:
                break
            place = (entry[0], entry[1], entry[2]) if on_key and index == last else (entry[0], entry[3], entry[4])
            data = data[str(key)]
        elif isinstance(data, List) and isinstance(key, int) and 0 <= key < len(data.marks):
            place = data.marks[key]
            data = data[key]
        else:
            break
    return Mark(*place)


def path_text(keys: Keys) -> str:
    """A path of keys as `pipelines[0].tasks[2].type`."""
    parts = [f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys]
    return "".join(parts).removeprefix(".")


# -- bytes to text


class _Unreadable(Exception):
    def __init__(self, message: str, line: int = 1, column: int = 1, hint: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.column = column
        self.hint = hint


# What YAML 1.1 allows in a file (spec 5.1); compiling it takes 5 ms.
_UNPRINTABLE = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
_PRINTABLE = bytes([*b"\t\n\r", *range(0x20, 0x7F)])
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def _bytes(file: Path) -> bytes:
    state = os.stat(file)  # noqa: PTH116  half the time of Path.stat
    if not stat.S_ISREG(state.st_mode):  # a pipe or a device would block or never end
        raise _Unreadable("is not a regular file")
    if state.st_size > MAX_BYTES:
        raise _Unreadable(f"is larger than {MAX_BYTES // 1024 // 1024} MiB")
    return file.read_bytes()


def _text(raw: bytes) -> str:
    try:
        text = raw.decode("utf-16" if raw.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        line, column = _position(before, len(before))
        shown = f"byte 0x{raw[error.start]:02x}" if error.start < len(raw) else "the end"
        raise _Unreadable(f"is not UTF-8 text: {shown}", line, column, "save the file as UTF-8") from None
    is_usual = not raw.translate(None, _PRINTABLE) or text.replace("\n", "").isprintable()
    found = None if is_usual else re.search(_UNPRINTABLE, text)
    if found:
        line, column = _position(text, found.start())
        hint = "remove it" if found[0] != "\0" else "save the file as UTF-8 text"
        raise _Unreadable(f"the character U+{ord(found[0]):04X} is not allowed in YAML", line, column, hint)
    return text


def _position(text: str, offset: int) -> tuple[int, int]:
    before = text[:offset].replace("\r\n", "\n").replace("\r", "\n")
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


@contextmanager
def without_gc() -> Iterator[None]:
    """No garbage collection inside: reading makes very many small objects and no garbage, it would take twice as long."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
