"""YAML text to data by the events of PyYAML's parser, with every problem that it, or the text, has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
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

from .document import Float, List, Map
from .errors import Mark, Problem
from .syntax import explained

MAX_DEPTH = 100
"""How deep mappings and lists may be nested, aliases followed; what comes later may recurse."""

MAX_ALIASED = 250_000
"""How many values all aliases of a file may add to it."""


def read(text: str, *, shown: str) -> tuple[Map | None, list[Problem]]:
    """The data of a text, and all that is wrong with it."""
    builder = _Builder(text, shown)
    data = builder.build()
    return data, builder.problems


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
    return Float.of(value, text) if isinstance(value, float) else value


@lru_cache(maxsize=8192)
def plain_value(text: str) -> Any:
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
                    self.plain[text] = plain_value(text)
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
