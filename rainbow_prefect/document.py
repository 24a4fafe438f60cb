"""YAML text to plain data that knows where each key and value was written; no variables, no inheritance here."""

from __future__ import annotations

import gc
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
    StreamStartEvent,
)
from yaml.nodes import ScalarNode
from yaml.resolver import Resolver

from .errors import Mark, Problem
from .syntax import explained

MAX_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 100
"""How deep mappings and lists may be nested, aliases followed; what comes later may recurse."""

MAX_ALIASED = 250_000
"""How many values all aliases of a file may add to it."""

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
    builder = _Builder(text, shown)
    with without_gc():
        data = builder.build()
    return data, sorted(builder.problems, key=lambda problem: problem.mark)


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


# What YAML 1.1 allows in a file (spec 5.1).
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
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
    found = _UNPRINTABLE.search(text) if raw.translate(None, _PRINTABLE) else None
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


# -- text to data


class _PythonParser(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser):
    """PyYAML without libyaml; slower, same events."""

    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)


_Parser: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else _PythonParser

_resolver = Resolver()
_constructor = SafeConstructor()
_TAG = "tag:yaml.org,2002:"
_SCALARS = {
    f"{_TAG}null": _constructor.construct_yaml_null,
    f"{_TAG}bool": _constructor.construct_yaml_bool,
    f"{_TAG}int": _constructor.construct_yaml_int,
    f"{_TAG}float": _constructor.construct_yaml_float,
    f"{_TAG}timestamp": _constructor.construct_yaml_timestamp,
}
# A plain text that starts with none of these is text: no need to try the patterns.
_FIRST = frozenset(first for first in Resolver.yaml_implicit_resolvers if first)
_NUL = re.compile(r"\\(?:0|x00|u0000|U00000000)")


def _typed(tag: str, text: str) -> Any:
    """The value of a text of a YAML type.

    Raises:
        ValueError: it is not one, e.g. the date 2024-02-30.
    """
    make = _SCALARS.get(tag)
    if make is None:
        return text
    node = ScalarNode(tag, text)
    try:
        value = make(node)
    except (ConstructorError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(str(error)) from None
    if isinstance(value, float) and float.__repr__(value) != text:
        value = Float(value)
        value.text = text
    return value


@lru_cache(maxsize=8192)
def _plain(text: str) -> Any:
    """The value of an unquoted text, by YAML 1.1 as PyYAML reads it."""
    return _typed(_resolver.resolve(ScalarNode, text, (True, False)), text)  # type: ignore[no-untyped-call]


class _Stop(Exception):
    """Nothing more can be read; the problem is noted."""


class _Builder:
    """Builds the data of one text from the parser's events: no node tree in between."""

    def __init__(self, text: str, shown: str) -> None:
        self.text = text
        self.shown = shown
        self.problems: list[Problem] = []
        self.anchors: dict[str, Any] = {}
        self.open: set[str] = set()
        self.measured: dict[int, tuple[Any, int, int]] = {}
        self.aliased = 0
        self.depth = 0
        self.plain: dict[str, Any] = {"": None}
        self.has_nul = bool(_NUL.search(text))
        self.next: Any = None

    def build(self) -> Map | None:
        try:
            self.next = _Parser(self.text).get_event
            return self.root()
        except _Stop:
            return None
        except yaml.YAMLError as error:
            self.problems = [*self.problems, explained(error, self.text, shown=self.shown)]
            return None

    def problem(self, mark: Any, message: str, hint: str = "") -> None:
        self.problems.append(Problem(Mark(self.shown, mark.line + 1, mark.column + 1), "", message, hint))

    def is_told(self, mark: Any) -> bool:
        """Whether the value here could not be read."""
        return any(one.mark == Mark(self.shown, mark.line + 1, mark.column + 1) for one in self.problems)

    def root(self) -> Map | None:
        event = self.next()
        while isinstance(event, StreamStartEvent | DocumentStartEvent):
            event = self.next()
        if isinstance(event, StreamEndEvent):
            self.problems.append(Problem(Mark(self.shown), "", "the file is empty", "write at least `name: NAME`"))
            return None
        mark = event.start_mark
        data = self.node(event)
        event = self.next()
        while isinstance(event, DocumentEndEvent):
            event = self.next()
        if not isinstance(event, StreamEndEvent):
            self.problem(event.start_mark, "a second YAML document starts here", "put it in a file of its own")
            while not isinstance(self.next(), StreamEndEvent):
                pass
        if not isinstance(data, Map):
            what = "a list" if isinstance(data, list) else "nothing" if data is None else "text"
            message = f"the root must be a mapping, got {what}"
            self.problem(mark, message, "write `name: NAME` and the other keys without leading dashes")
            return None
        return data

    def node(self, event: Any) -> Any:
        """The value that starts with `event`."""
        kind = type(event)
        if kind is ScalarEvent:
            value = self.scalar(event)
            if event.anchor:
                self.anchors[event.anchor] = value
            return value
        if kind is AliasEvent:
            return self.alias(event)
        anchor = event.anchor
        if anchor:
            self.open.add(anchor)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.problem(event.start_mark, f"nested deeper than {MAX_DEPTH} levels", "write it flatter")
            raise _Stop
        value = self.mapping(event) if kind is MappingStartEvent else self.sequence(event)
        self.depth -= 1
        if anchor:
            self.open.discard(anchor)
            self.anchors[anchor] = value
        return value

    def sequence(self, start: Any) -> List:
        if start.tag is not None and start.tag not in ("!", f"{_TAG}seq"):
            self.tag(start)
        shown, mark, following = self.shown, start.start_mark, self.next
        result = List(shown, mark.line + 1, mark.column + 1)
        marks, append = result.marks, result.append
        event = following()
        while type(event) is not SequenceEndEvent:
            mark = event.start_mark
            append(self.node(event))
            marks.append((shown, mark.line + 1, mark.column + 1))
            event = following()
        return result

    def mapping(self, start: Any) -> Map:
        if start.tag is not None and start.tag not in ("!", f"{_TAG}map"):
            self.tag(start)
        shown, mark, following, plain = self.shown, start.start_mark, self.next, self.plain
        result = Map(shown, mark.line + 1, mark.column + 1)
        marks = result.marks
        merges: list[tuple[Any, Any]] = []
        while True:
            event = following()
            kind = type(event)
            if kind is MappingEndEvent:
                break
            key = self.key(event, start) if kind is not ScalarEvent or event.anchor else event.value
            key_mark = event.start_mark
            value_event = following()
            mark = value_event.start_mark
            if type(value_event) is ScalarEvent and value_event.anchor is None and not self.has_nul:
                value = value_event.value
                implicit = value_event.implicit
                if implicit[0]:
                    if value in plain:
                        value = plain[value]
                    elif value[0] in _FIRST:
                        value = self.scalar(value_event)
                elif not implicit[1]:
                    value = self.scalar(value_event)
            else:
                value = self.node(value_event)
            if key is None:
                continue
            if key == "<<" and event.implicit[0]:
                merges.append((value, mark))
                if len(merges) == 1:
                    continue
                self.problem(key_mark, "duplicate key '<<'", "merge a list instead: `<<: [*one, *two]`")
            elif key in marks:
                message = f"duplicate key '{key}'; it is at line {marks[key][1]} already"
                self.problem(key_mark, message, "remove or rename one of them")
            else:
                result[key] = value
                marks[key] = (shown, key_mark.line + 1, key_mark.column + 1, mark.line + 1, mark.column + 1)
        for value, mark in merges:
            self.merge(result, value, mark)
        return result

    def key(self, event: Any, start: Any) -> str | None:
        """The text of a key; None, with its problem noted, when it is a mapping or a list."""
        if type(event) is AliasEvent:
            value = self.alias(event)
        elif type(event) is ScalarEvent:
            value = event.value
            self.anchors[str(event.anchor)] = value
        else:
            value = self.node(event)
        if isinstance(value, str):
            return value
        if not isinstance(value, dict | list):
            return "" if value is None else str(value)
        if isinstance(value, dict) and start.flow_style and event.start_mark.index == start.start_mark.index + 1:
            written = next(iter(value), "name")
            self.problem(start.start_mark, "a placeholder must be quoted", f"write '{{{{{written}}}}}' with quotes")
        else:
            what = "mapping" if isinstance(value, dict) else "list"
            self.problem(event.start_mark, f"a {what} cannot be a key", "write a text before the colon")
        return None

    def scalar(self, event: Any) -> Any:
        text: str = event.value
        if self.has_nul and "\0" in text:
            self.problem(event.start_mark, "the character U+0000 is not allowed", "remove it")
            text = text.replace("\0", "")
        tag = event.tag
        try:
            if event.implicit[0]:
                if text not in self.plain:
                    self.plain[text] = _plain(text)
                return self.plain[text]
            if tag in (None, "!", f"{_TAG}str"):
                return text
            if tag is not None and tag in _SCALARS:
                return _typed(tag, text)
        except (ValueError, TypeError) as error:
            short = text if len(text) <= 40 else f"{text[:40]}..."
            why = "too many digits" if len(text) > 1000 else str(error)
            self.problem(event.start_mark, f"'{short}' is not a valid value: {why}", "quote it when it is text")
            return text
        self.tag(event)
        return text

    def tag(self, event: Any) -> None:
        written = event.tag.replace(_TAG, "!!")
        self.problem(event.start_mark, f"the YAML tag '{written}' is not supported", "remove it")

    def alias(self, event: Any) -> Any:
        name = event.anchor
        if name in self.open:
            self.problem(event.start_mark, f"the anchor '{name}' contains itself", "write the values out")
            return None
        if name not in self.anchors:
            hint = "quote a text that starts with '*'"
            self.problem(event.start_mark, f"the alias '*{name}' has no anchor '&{name}' before it", hint)
            return None
        value = self.anchors[name]
        if isinstance(value, dict | list):
            size, depth = self.measure(value)
            self.aliased += size
            if self.aliased > MAX_ALIASED:
                message = f"the aliases of this file add more than {MAX_ALIASED:,} values"
                self.problem(event.start_mark, message, "write fewer aliases of aliases")
                raise _Stop
            if self.depth + depth > MAX_DEPTH:
                self.problem(event.start_mark, f"nested deeper than {MAX_DEPTH} levels", "write it flatter")
                raise _Stop
        return value

    def measure(self, value: Any) -> tuple[int, int]:
        """How many values and levels there are in a value, aliases followed."""
        if not isinstance(value, dict | list):
            return 1, 0
        known = self.measured.get(id(value))
        if known is None:
            below = [self.measure(one) for one in (value.values() if isinstance(value, dict) else value)]
            size = 1 + sum(size for size, _ in below)
            # The value is kept so that its id stays its own.
            known = self.measured[id(value)] = value, size, 1 + max((depth for _, depth in below), default=0)
        return known[1], known[2]

    def merge(self, result: Map, value: Any, mark: Any) -> None:
        """Add what `<<: value` gives; the mapping's own keys win, then the first of a list."""
        parts: Iterable[Any] = value if isinstance(value, list) else [value]
        for part in parts:
            if part is None and self.is_told(mark):
                return
            if not isinstance(part, Map):
                self.problem(mark, "`<<` needs a mapping or a list of mappings", "write `<<: *name` of an anchor")
                return
            for key, one in part.items():
                if key not in result:
                    result.put(key, one, part.marks[key])
