"""Plain YAML to data, line by line, in a third of the parser's time; any other YAML is left to the parser.

Plain is what most files are made of: `key: value` and `- item`, one a line, with quoted or unquoted text and with
lists and mappings in brackets that end on their line. What is read here is read as the parser does, to the last mark;
a line that may be anything else, a mistake above all, ends the attempt.
"""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import Any

from .document import Float, List, Map

_DEEPEST = 40

# A colon before a space ends a text, `#` behind one begins a comment; what is in doubt is not plain. No pattern goes
# back over what it has seen, so that none takes long on any line.
_KEY = r"[A-Za-z_][A-Za-z0-9_.-]{0,100}+"
_TEXT = r"(?:[A-Za-z0-9_./~(+$]|-(?=[A-Za-z0-9.]))(?:[^ :#]++|:(?=[^ :#])| ++(?=[^ :#]))*+"
_SINGLE, _DOUBLE = r"'[^']*+(?:''[^']*+)*+'", r"\"[^\"\\]*+\""
_LINE = re.compile(
    rf"( *+)(- ++)?+(?:({_KEY}):(?: ++(?=[^ #])|(?= |$)))?"
    rf"(?:({_SINGLE}|{_DOUBLE})|([\[{{].*[\]}}])|({_TEXT}))?"
    r"(?: ++#.*| *+)$"
)
_COMMENT = re.compile(" *+#")
_FLOW_WORD = r"[A-Za-z0-9_./*+-]"
_FLOW_TEXT = (
    rf"(?:[A-Za-z0-9_./]|-(?=[0-9])){_FLOW_WORD}*+"
    rf"(?:(?: ++(?={_FLOW_WORD})|:(?=[A-Za-z0-9_/])){_FLOW_WORD}++)*+"
)
_FLOW_ITEM = rf"(?:('[^']*+'|{_DOUBLE})|({_FLOW_TEXT})) *+([,\]}}]) *+"
_IN_MAP = re.compile(rf"(?:'([^']*+)'|\"([^\"\\]*+)\"|({_KEY})): ++(?:{_FLOW_ITEM}|(?=[\[{{]))")
_IN_LIST = re.compile(rf"{_FLOW_ITEM}|(?=[\[{{])")

_WORDS: dict[str, bool | None] = {
    **{form: True for word in ("yes", "true", "on") for form in (word, word.title(), word.upper())},
    **{form: False for word in ("no", "false", "off") for form in (word, word.title(), word.upper())},
    **dict.fromkeys(("~", "null", "Null", "NULL")),
}
_WHOLE = re.compile(r"0|[1-9][0-9]{0,17}")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,14})\.[0-9]{1,15}")
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_NUMBER_OR_TIME = re.compile(r"[-+.0-9][-+.:0-9A-Za-z_ ]*")

_BLANK, _BARE, _VALUE, _FLOW = range(4)
_Line = tuple[int, int, int, str | None, int, Any]
"""A line in parts: what kind of value it has (the line is blank, it has none, a text, a bracket), the columns of its
dash (-1: none) and of what is behind that, the key, the column of the value, the value. Columns count from 0."""


class _Other(Exception):
    """This may be something else than plain YAML."""


def read(text: str, *, shown: str) -> Map | None:
    """The data of a text of plain YAML without a mistake; None when it is anything else."""
    if not text.replace("\n", "").isprintable():
        return None
    starts = text.startswith("---\n")
    try:
        return _Reader(shown).read(text[4 * starts :].split("\n"), 1 + starts)
    except _Other:
        return None


@lru_cache(maxsize=8192)
def value_of(text: str) -> Any:
    """What an unquoted text stands for, by YAML 1.1; most are plain to see without loading the parser."""
    if text in _WORDS:
        return _WORDS[text]
    if not _NUMBER_OR_TIME.fullmatch(text):
        return text
    if _WHOLE.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        return Float.of(float(text), text)
    try:
        if found := _DATE.fullmatch(text):
            return date(*map(int, found.groups()))
        from .parsing import plain_value

        return plain_value(text)
    except (ValueError, TypeError):
        raise _Other from None


def _split(line: str) -> _Line:
    if not line or _COMMENT.match(line):
        return _BLANK, -1, 0, None, 0, None
    found = _LINE.match(line)
    if found is None:
        raise _Other
    indent, dash, key, quoted, flow, text = found.groups()
    at = len(indent) if dash else -1
    start = len(indent) + len(dash or "")
    parts: _Line = _BARE, at, start, key, 0, None
    if quoted is not None:
        parts = _VALUE, at, start, key, found.start(4), _unquoted(quoted)
    elif flow is not None:
        parts = _FLOW, at, start, key, found.start(5), flow
    elif text is not None:
        parts = _VALUE, at, start, key, found.start(6), value_of(text)
    if key is None and (dash is None) == (parts[0] != _BARE):
        raise _Other  # a text that goes on, an item that begins on the next line
    return parts if key or dash else (_BLANK, -1, 0, None, 0, None)


def _unquoted(text: str) -> str:
    return text[1:-1].replace("''", "'") if text[0] == "'" else text[1:-1]


class _Reader:
    """Reads the lines of one text; `inner`, at `column`, is the innermost of the mappings and lists that may go on."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.inner: Any = Map(shown)
        self.column = 0
        self.outer: list[tuple[Any, int]] = []
        self.waiting: tuple[str, int, int] | None = None
        """A key whose value is not seen yet, its line and column."""

    def read(self, lines: list[str], first: int) -> Map | None:
        root: Map = self.inner
        shown = self.shown
        known: dict[str, _Line] = {}
        for number, line in enumerate(lines, first):
            parts = known.get(line)
            if parts is None:
                parts = known[line] = _split(line)
            kind, dash, column, key, at, value = parts
            if kind == _BLANK:
                continue
            if self.waiting is not None:
                self.value_below(number, dash, column)
            if kind == _FLOW:
                value = self.flow(line, at, at + len(value), number)
            if dash >= 0:
                self.close(dash, List)
                if key is None:
                    self.inner.put(value, (shown, number, at + 1))
                    continue
                self.begin(Map(shown, number, column + 1), column)
            elif key is None:
                raise _Other
            elif column != self.column or type(self.inner) is List:
                self.close(column, Map)
            inner = self.inner
            if key in inner:
                raise _Other
            if kind == _BARE:
                self.waiting = key, number, column
                continue
            inner[key] = value
            inner.marks[key] = (shown, number, column + 1, number, at + 1)
        if self.waiting is not None:
            self.value_below(0, -1, -1)
        if not root:
            return None
        root.line = next(iter(root.marks.values()))[1]
        return root

    def value_below(self, number: int, dash: int, column: int) -> None:
        """Give the waiting key what begins in this line, or nothing."""
        assert self.waiting is not None
        key, line, at = self.waiting
        self.waiting = None
        value: Any = None
        start = dash if dash >= 0 else column
        if dash >= self.column:
            value = List(self.shown, number, start + 1)
        elif dash < 0 and column > self.column:
            value = Map(self.shown, number, start + 1)
        if value is None:
            self.inner.put(key, None, (self.shown, line, at + 1, line, at + len(key) + 2))
        else:
            self.inner.put(key, value, (self.shown, line, at + 1, number, start + 1))
            self.push(value, start)

    def begin(self, item: Map, column: int) -> None:
        """Add a mapping to the list, and go on in it."""
        self.inner.put(item, (self.shown, item.line, item.column))
        self.push(item, column)

    def push(self, value: Any, column: int) -> None:
        if len(self.outer) > _DEEPEST:
            raise _Other
        self.outer.append((self.inner, self.column))
        self.inner, self.column = value, column

    def close(self, column: int, kind: type[Map] | type[List]) -> None:
        """Go back to the list or mapping at this column; a list may be at the column of the mapping it is in."""
        while self.column > column or (self.column == column and kind is Map and type(self.inner) is List):
            self.inner, self.column = self.outer.pop()
        if self.column != column or type(self.inner) is not kind:
            raise _Other

    def flow(self, line: str, start: int, end: int, number: int) -> Any:
        """The list or mapping in brackets from `start` to `end`."""
        value, after = self.bracket(line, start, number)
        if line[start:after].rstrip(" ") != line[start:end]:
            raise _Other
        return value

    def bracket(self, line: str, start: int, number: int, depth: int = 0) -> tuple[Any, int]:
        """The list or mapping whose bracket is at `start`, and the column behind it and the spaces there."""
        if depth > _DEEPEST:
            raise _Other
        is_map = line[start] == "{"
        close = "}" if is_map else "]"
        result: Any = (Map if is_map else List)(self.shown, number, start + 1)
        at = _behind(line, start + 1)
        if line.startswith(close, at):
            return result, _behind(line, at + 1)
        add = self.pair if is_map else self.element
        following = ","
        while following == ",":
            at, following = add(result, line, at, number, depth)
        if following != close:
            raise _Other
        return result, at

    def pair(self, result: Map, line: str, start: int, number: int, depth: int) -> tuple[int, str]:
        """Add one pair of a mapping in brackets; the column behind it and the comma or bracket that ended it."""
        found = _IN_MAP.match(line, start)
        if found is None:
            raise _Other
        single, double, bare, quoted, text, following = found.groups()
        key = bare or single or double or ""
        if key in result:
            raise _Other
        end = found.end()
        if text is not None:
            at, value = found.start(5), value_of(text)
        elif quoted is not None:
            at, value = found.start(4), _unquoted(quoted)
        else:
            at = end
            value, end, following = self.inside(line, at, number, depth)
        result[key] = value
        result.marks[key] = (self.shown, number, start + 1, number, at + 1)
        return end, following

    def element(self, result: List, line: str, start: int, number: int, depth: int) -> tuple[int, str]:
        """The same for one item of a list in brackets."""
        found = _IN_LIST.match(line, start)
        if found is None:
            raise _Other
        quoted, text, following = found.groups()
        end = found.end()
        if text is not None:
            value = value_of(text)
        elif quoted is not None:
            value = _unquoted(quoted)
        else:
            value, end, following = self.inside(line, start, number, depth)
        result.put(value, (self.shown, number, start + 1))
        return end, following

    def inside(self, line: str, start: int, number: int, depth: int) -> tuple[Any, int, str]:
        value, at = self.bracket(line, start, number, depth + 1)
        following = line[at : at + 1]
        if following not in (",", "]", "}"):
            raise _Other
        return value, _behind(line, at + 1), following


def _behind(line: str, at: int) -> int:
    """The column of what comes behind spaces."""
    while line.startswith(" ", at):
        at += 1
    return at
