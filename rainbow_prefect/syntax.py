"""What a YAML syntax error means and which line caused it: a parser notices many mistakes only some lines later."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from .errors import Mark, Problem

_Loader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

_STARTS = (
    "while parsing a flow",
    "while scanning a quoted scalar",
    "while scanning a simple key",
    "while scanning a double-quoted",
    "while scanning a single-quoted",
)
"""Contexts whose start is where the mistake is: an open bracket or quote."""

_INDENT = "indent it as its neighbours"
_COLON = "write `key: value`, with a colon and a space"
_HINTS = (
    ("mapping values are not allowed", "indent it as its neighbours, or quote a text that contains ': '"),
    ("tab", "indent with spaces, not tabs"),
    ("did not find expected alphabetic or numeric character", "quote a text that starts with '*' or '&'"),
    ("could not find expected ':'", _COLON),
    ("did not find expected ',' or '}'", "close the brace, or put a comma between the keys"),
    ("did not find expected ',' or ']'", "close the bracket, or put a comma between the items"),
    ("did not find expected key", _INDENT),
    ("did not find expected '-' indicator", "start it with '- ' as its neighbours"),
    ("did not find expected <document start>", _INDENT),
    ("block sequence entries are not allowed", "put the list on the next line"),
    ("unexpected end of stream", "close the quote"),
    ("found unexpected ':'", "put a space after the colon, or quote a text that contains one"),
    ("unknown escape character", "double the backslash, or use single quotes"),
    ("undefined tag handle", "quote a text that starts with '!'"),
    ("cannot start any token", "quote it"),
)
_MISPLACED = ("did not find expected key", "did not find expected '-' indicator")
_PLACEHOLDER = re.compile(r"(?:[:\[,-]\s+|^\s*)\{\{")
_PAIR = re.compile(r"\s*(?:- +)*(?:'[^']*'|\"[^\"]*\"|[^\s'\"#{\[][^#]*?):(?:\s|$)")
_NO_SPACE = re.compile(r"\s*-[^\s-]")
_BLOCK_TEXT = re.compile(r"(?::|-)\s+[|>][+-]?\d?\s*(?:#.*)?$")


def explained(error: yaml.YAMLError, text: str, *, shown: str) -> Problem:
    """The problem that a YAML error is, at the line that is to be changed."""
    message = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).strip()
    context = getattr(error, "context", None) or ""
    said = f"not valid YAML: {context}, {message}" if context else f"not valid YAML: {message}"
    lines = _Lines(text)
    line, column = _noticed(error, context)
    is_clear = _PLACEHOLDER.search(lines.text(line)) or _NO_SPACE.match(lines.text(line))
    cause = None if is_clear else _cause(lines, message, line, column, error)
    if cause is not None:
        number, hint = cause
        said += f" at line {line + 1}"
        return Problem(Mark(shown, number + 1, lines.indent(number) + 1), "", said, hint)
    return Problem(Mark(shown, line + 1, column + 1), "", said, _hint(lines.text(line), message, column))


def _noticed(error: yaml.YAMLError, context: str) -> tuple[int, int]:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    start = getattr(error, "context_mark", None)
    if start is not None and context.startswith(_STARTS):
        mark = start
    return (mark.line, mark.column) if mark is not None else (0, 0)


def _hint(written: str, message: str, column: int) -> str:
    if "\t" in written[: column + 1].strip(" ")[:1] or "'\\t'" in message:
        return "indent with spaces, not tabs"
    if _NO_SPACE.match(written):
        return "write a space after the dash"
    if _PLACEHOLDER.search(written):
        return "quote a value that starts with a placeholder: '{{name}}'"
    return next((hint for part, hint in _HINTS if part in message), "")


# -- the line that caused it


class _Lines:
    """The lines of a text; blank ones and comments are passed over."""

    def __init__(self, text: str) -> None:
        self.whole = text
        self.all = text.splitlines()

    def text(self, number: int) -> str:
        return self.all[number] if 0 <= number < len(self.all) else ""

    def indent(self, number: int) -> int:
        text = self.text(number)
        return len(text) - len(text.lstrip(" "))

    def is_item(self, number: int) -> bool:
        return self.text(number).lstrip(" ").startswith("- ")

    def content(self, number: int) -> int:
        """The column of the first key of a line, after its dashes."""
        found = re.match(r" *(?:- +)*", self.text(number))
        return found.end() if found else 0

    def above(self, number: int) -> Iterator[int]:
        yield from (one for one in range(min(number, len(self.all)) - 1, -1, -1) if self._counts(one))

    def below(self, number: int) -> Iterator[int]:
        yield from (one for one in range(number + 1, len(self.all)) if self._counts(one))

    def _counts(self, number: int) -> bool:
        text = self.all[number].strip()
        return bool(text) and not text.startswith("#")


def _cause(lines: _Lines, message: str, line: int, column: int, error: yaml.YAMLError) -> tuple[int, str] | None:
    """The earlier line that is to be changed, with a hint; None when it is the line of the error itself."""
    quote = _open_quote(lines.whole, line, error)
    if quote is not None:
        return quote, "close the quote on this line"
    if "mapping values are not allowed" in message:
        return _without_colon(lines, line, column)
    if "<document start>" in message:
        first = next(lines.below(-1), line)
        return (first, _INDENT) if first < line and lines.indent(first) > lines.indent(line) else None
    if any(part in message for part in _MISPLACED):
        return _misplaced(lines, line)
    return None


def _open_quote(text: str, line: int, error: yaml.YAMLError) -> int | None:
    """The line of a quote that was closed only by the next quote, lines later."""
    if getattr(error, "problem_mark", None) is None:
        return None
    found = None
    try:
        for token in yaml.scan(text, Loader=_Loader):
            if token.start_mark.line > line:
                break
            is_quoted = isinstance(token, yaml.ScalarToken) and token.style in ("'", '"')
            if is_quoted and token.start_mark.line < token.end_mark.line == line:
                found = token.start_mark.line
    except yaml.YAMLError:
        pass
    return found


def _without_colon(lines: _Lines, line: int, column: int) -> tuple[int, str] | None:
    """`name web` above `owner: x`, or an item that is indented less than its other keys."""
    if ": " in lines.text(line)[:column] or lines.text(line)[column : column + 1] != ":":
        return None
    before = next(lines.above(line), None)
    if before is None:
        return None
    written = lines.text(before)
    is_odd = lines.content(before) == lines.content(line) or _agrees(lines, line, lines.indent(line))
    if not is_odd:
        return None
    if _NO_SPACE.match(written):
        return before, "write a space after the dash"
    return before, _INDENT if _PAIR.match(written) else _COLON


def _agrees(lines: _Lines, line: int, indent: int) -> bool:
    """Whether the next line that is not deeper is indented so too."""
    following = next((one for one in lines.below(line) if lines.indent(one) <= max(indent, lines.indent(line))), None)
    return following is not None and lines.indent(following) == indent


def _misplaced(lines: _Lines, line: int) -> tuple[int, str] | None:
    """A first line that is indented more or less than the others, or that lost its dash."""
    indent = lines.indent(line)
    before = next(lines.above(line), None)
    parent = next((one for one in lines.above(line) if lines.indent(one) < indent), None)
    first = next(lines.below(parent if parent is not None else -1), line)
    if before is None:
        return None
    agrees = _agrees(lines, line, indent)
    if first >= line:  # the line before is indented less
        is_alike = lines.is_item(before) == lines.is_item(line)
        is_between = lines.is_item(before) and indent < lines.content(before)
        return (before, _INDENT) if agrees and (is_alike or is_between) else None
    if parent is not None and _BLOCK_TEXT.search(lines.text(parent)):
        return (first, "indent all lines of the text alike") if agrees else None
    if lines.is_item(line) and not lines.is_item(first) and not (parent is not None and lines.is_item(parent)):
        return first, "start it with '- ' as its neighbours"
    return (first, _INDENT) if agrees and lines.indent(first) > indent else None
