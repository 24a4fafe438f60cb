"""Placeholders: `{{ name }}` in texts, where their values come from and what is left for later; no YAML here.

{{ name }}                      the value of a variable; typed when it is the whole text
{{url-{{stage}}}}               nested: the inner one first
\\{{                             a literal `{{`
{{secret.NAME}}                 left in place until a task starts
{{prefect.variables.NAME}}      left in place until a run starts
{{a b}}, {{x|y}}                not a name: left alone
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from .document import Keys, List, Map, mark_of, path_text
from .errors import Mark, Problem, near
from .schema import kind_of

Lookup = Callable[[str], Any]

MAX_TEXT = 1_000_000
"""Characters that a text may have after its placeholders are replaced."""

MAX_CHARACTERS = 50_000_000
"""Characters of all such texts of one file."""

MAX_VALUES = 1_000_000
"""Values that placeholders may add to one file in all."""

MAX_CHAIN = 50
"""How many variables may lead to each other, and how deep placeholders may be nested."""

SECRET = "secret."  # noqa: S105  the word before a name, not a secret
PREFECT = "prefect.variables."

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
_NAME_AHEAD = re.compile(r"\s*[A-Za-z0-9_][A-Za-z0-9._-]{0,40}")
_TOKENS = re.compile(r"\\\{\{|\{\{+|\}\}+")
_LATER = re.compile(r"\{\{(?=\s*secret\.)")
_REVEAL = re.compile(r"(\\?)\{\{\s*secret\.([A-Za-z0-9._-]+)\s*\}\}")


def environment(name: str) -> str | None:
    """The environment variable `name`, None when it is not set."""
    return os.environ.get(name)


# -- a text as parts


@dataclass(frozen=True, slots=True)
class _Hole:
    """What stands between `{{` and `}}`; `name` when that is a name already."""

    parts: tuple[str | _Hole, ...]
    name: str | None = None


class _Open(str):
    """A `{{` that nothing closes: it stays as it is."""

    __slots__ = ()


Parts = tuple["str | _Hole", ...]


@lru_cache(maxsize=4096)
def _parse(text: str) -> Parts:
    """Cut a text into literal texts and holes.

    Raises:
        Flaw: nested too deep.
    """
    stack: list[list[str | _Hole]] = [[]]
    end = 0
    for token in _TOKENS.finditer(text):
        stack[-1].append(text[end : token.start()])
        end = token.end()
        if token[0][0] == "\\":
            # The second stage, `reveal`, takes the backslash of what it would replace.
            keep = _LATER.match(text, token.start() + 1)
            stack[-1].append("\\{{" if keep else "{{")
        elif token[0][0] == "{":
            pairs, odd = divmod(len(token[0]), 2)
            stack[-1].append("{" * odd)
            stack.extend([] for _ in range(pairs))
            if len(stack) > MAX_CHAIN:
                raise Flaw(f"placeholders are nested deeper than {MAX_CHAIN} levels", "name them one by one")
        else:
            left = len(token[0])
            while left >= 2 and len(stack) > 1:
                inner = tuple(part for part in stack.pop() if part)
                stack[-1].append(_Hole(inner, _static_name(inner)))
                left -= 2
            stack[-1].append("}" * left)
    stack[-1].append(text[end:])
    while len(stack) > 1:
        opened = stack.pop()
        stack[-1].extend([_Open("{{"), *opened])
    return tuple(part for part in stack[0] if part)


def _static_name(parts: Parts) -> str | None:
    if len(parts) == 1 and isinstance(parts[0], str) and _NAME.match(parts[0].strip()):
        return parts[0].strip()
    return None


def _names(parts: Parts) -> Iterator[str]:
    for part in parts:
        if isinstance(part, _Hole):
            if part.name is not None:
                yield part.name
            yield from _names(part.parts)


def placeholders(value: Any) -> set[str]:
    """The names in all placeholders of a value, however deep; of a nested one the inner names."""
    found: set[str] = set()
    for text in _texts(value):
        if "{{" in text:
            try:
                found.update(_names(_parse(text)))
            except Flaw:
                continue
    return found


@lru_cache(maxsize=4096)
def unclosed(text: str) -> str | None:
    """The start of a placeholder that is not closed, e.g. `{{name`; None when there is none."""
    try:
        parts = _parse(text)
    except Flaw:
        return None
    for opened, following in pairwise(parts):
        if isinstance(opened, _Open):
            if isinstance(following, _Hole):
                return "{{"
            if found := _NAME_AHEAD.match(following):
                return f"{{{{{found[0].strip()}"
    return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def whole(text: Any) -> str | None:
    """The name of the placeholder that is all of `text`, else None."""
    if not isinstance(text, str) or not text.startswith("{{"):
        return None
    try:
        parts = _parse(text)
    except Flaw:
        return None
    names = list(_names(parts))
    return names[0] if len(parts) == 1 and len(names) == 1 else None


def text_of(value: Any) -> str:
    """A value inside a longer text: `true`, `5`, `2024-05-01`, nothing for null."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value)


def reveal(value: Any, get: Callable[[str], str]) -> Any:
    """Replace each `{{secret.NAME}}` in a value by `get(NAME)`, however deep; other placeholders stay."""
    if isinstance(value, str):
        if SECRET not in value:
            return value
        return _REVEAL.sub(lambda found: found[0][1:] if found[1] else get(found[2]), value)
    if isinstance(value, Mapping):
        return {key: reveal(one, get) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [reveal(one, get) for one in value]
    return value


def render(value: Any, lookup: Lookup) -> Any:
    """Replace each placeholder that `lookup` knows (None: it does not), however deep; the others stay.

    Raises:
        ValueError: a mapping or a list stands inside a longer text.
    """
    scope = Scope([], lookup, keep_unknown=True)
    try:
        return scope.render(value)
    except Flaw as flaw:
        raise ValueError(str(flaw)) from None


# -- values of names


class Flaw(Exception):
    """A text cannot be rendered; `mark` and `name` tell the variable whose own text is wrong.

    `others` are further flaws of the same text.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.mark: Mark | None = None
        self.path = ""
        self.where = ""
        self.others: tuple[Flaw, ...] = ()

    @classmethod
    def joined(cls, flaws: Sequence[Flaw]) -> Flaw:
        """All flaws of one text as one."""
        first = flaws[0]
        each = {str(one): one for flaw in reversed(flaws) for one in (*flaw.others, flaw)}
        others = tuple(one for text, one in reversed(each.items()) if text != str(first))
        if others == first.others:
            return first
        flaw = cls(str(first), first.hint)
        flaw.mark, flaw.path, flaw.where = first.mark, first.path, first.where
        flaw.others = others
        return flaw


@dataclass(frozen=True, slots=True)
class Unbound:
    """A parameter without a value yet: as a whole value its stand-in, inside a text it stays."""

    name: str
    stand_in: Any


class Level(NamedTuple):
    """Names with values: `what` for messages; texts of a `literal` level are not rendered again."""

    what: str
    values: Mapping[str, Any]
    literal: bool = False
    path: str = "variables"


class Budget:
    """What placeholders may still add to one file."""

    def __init__(self) -> None:
        self.values = MAX_VALUES
        self.characters = MAX_CHARACTERS

    def write(self, characters: int) -> None:
        self.characters -= characters
        if self.characters < 0:
            message = f"the placeholders of this file write more than {MAX_CHARACTERS:,} characters"
            raise Flaw(message, "read long texts from a file")

    def spend(self, values: int) -> None:
        self.values -= values
        if self.values < 0:
            message = f"the placeholders of this file add more than {MAX_VALUES:,} values"
            raise Flaw(message, "use fewer lists of lists in `variables`")


class Scope:
    """Where the names of placeholders are looked up: the levels in their order, then `lookup`.

    `secrets` are the names that `{{secret.NAME}}` may have; None: any.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        lookup: Lookup,
        *,
        secrets: Collection[str] | None = None,
        keep_unknown: bool = False,
        budget: Budget | None = None,
    ) -> None:
        self.levels = [level for level in levels if level.values]
        self.lookup = lookup
        self.secrets = secrets
        self.keep_unknown = keep_unknown
        self.budget = budget or Budget()
        self._known: dict[tuple[int, str], Any] = {}
        self._sizes: dict[tuple[int, str], int] = {}
        self._open: list[tuple[int, str]] = []
        self._texts: dict[str, str] = {}
        self._hints: dict[str, str] = {}

    def inside(self, level: Level) -> Scope:
        """This scope with one more level before all others."""
        return Scope(
            [level, *self.levels],
            self.lookup,
            secrets=self.secrets,
            keep_unknown=self.keep_unknown,
            budget=self.budget,
        )

    def render(self, value: Any) -> Any:
        """A value with all placeholders replaced, however deep; the same object when there are none.

        Raises:
            Flaw: the first text that cannot be rendered.
        """
        if isinstance(value, str):
            return self.text(value) if "{{" in value else value
        if isinstance(value, Map):
            new = {key: self.render(one) for key, one in value.items()}
            return _changed_map(value, {key: one for key, one in new.items() if one is not value[key]})
        if isinstance(value, List):
            return rebuilt_list(value, [self.render(one) for one in value])
        if isinstance(value, Mapping):
            return {key: self.render(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.render(one) for one in value]
        return value

    def text(self, text: str) -> Any:
        """A text with its placeholders replaced; the typed value when it is one placeholder."""
        if self._open:  # inside a variable its own name means another
            return self._text(text)
        known = self._texts.get(text)
        if known is not None:
            return known
        value = self._text(text)
        # Many tasks hold the same text; mappings and lists are counted at each use.
        if type(value) is str and len(value) < 1000:
            self._texts[text] = value
        return value

    def _text(self, text: str) -> Any:
        parts = _parse(text)
        if len(parts) == 1 and isinstance(parts[0], _Hole):
            value = self._hole(parts[0])
            return value.stand_in if isinstance(value, Unbound) else value
        return self._joined(parts)

    def value(self, name: str) -> Any:
        """The value of a name, rendered; `Unbound` for a parameter without one.

        Raises:
            Flaw: it is not defined, is in a cycle or cannot be rendered.
        """
        own = self._open[-1] if self._open else (-1, "")
        for index, level in enumerate(self.levels):
            if name not in level.values:
                continue
            # `a: '{{a}}-x'` of a task means the `a` of the file.
            if own == (index, name) and index + 1 < len(self.levels) and self._below(index, name):
                continue
            return self._variable(index, name)
        return self._elsewhere(name)

    def value_at(self, index: int, name: str) -> Any:
        """The value of a name of one level, whatever the levels before it say."""
        return self._variable(index, name)

    def _below(self, index: int, name: str) -> bool:
        return any(name in level.values for level in self.levels[index + 1 :])

    def _elsewhere(self, name: str) -> Any:
        if name.startswith(SECRET) and not self.keep_unknown:
            self._check_secret(name.removeprefix(SECRET))
            return f"{{{{{name}}}}}"
        found = self.lookup(name)
        if found is not None:
            return _literal(found)
        if name.startswith(PREFECT) or self.keep_unknown:
            return f"{{{{{name}}}}}"
        raise self._undefined(name)

    def _check_secret(self, name: str) -> None:
        if self.secrets is not None and name not in self.secrets:
            hint = near(name, self.secrets, list_up_to=6) or "add it there with `env`, `local_path_file` or `block`"
            raise Flaw(f"secret '{name}' is not in the root `secrets`", hint)

    def _undefined(self, name: str) -> Flaw:
        looked = ", ".join([*(level.what for level in self.levels), "the environment"])
        if name not in self._hints:
            # Finding a near match takes a millisecond; after many of them nobody reads on.
            known = [key for level in self.levels for key in level.values] if len(self._hints) < 200 else []
            otherwise = "define it in `variables`, or write '\\{{' for literal braces"
            self._hints[name] = near(name, known, list_up_to=0) or otherwise
        hint = self._hints[name]
        return Flaw(f"variable '{name}' is not defined; looked in {looked}", hint)

    def _variable(self, index: int, name: str) -> Any:
        level, key = self.levels[index], (index, name)
        if key in self._known:
            known = self._known[key]
            if isinstance(known, Flaw):
                raise known.with_traceback(None)
            self.budget.spend(self._sizes.get(key, 0))
            return known
        value = level.values[name]
        if isinstance(value, Unbound):
            return value
        if level.literal:
            value = _literal(value)
        else:
            value = self._rendered(key, value)
        if isinstance(value, dict | list):
            self._sizes[key] = _size(value)
            self.budget.spend(self._sizes[key])
        self._known[key] = value
        return value

    def _rendered(self, key: tuple[int, str], value: Any) -> Any:
        level, name = self.levels[key[0]], key[1]
        if key in self._open:
            raise self._cycle(key)
        if len(self._open) >= MAX_CHAIN:
            raise Flaw(f"more than {MAX_CHAIN} variables lead to each other", "use fewer steps")
        self._open.append(key)
        try:
            if isinstance(value, str) and "{{" in value:
                parts = _parse(value)
                if len(parts) == 1 and isinstance(parts[0], _Hole):
                    return self._hole(parts[0])
                return self._joined(parts)
            return self.render(value)
        except Flaw as flaw:
            for one in (flaw, *flaw.others):
                if one.mark is None:
                    one.mark = mark_of(level.values, [name])
                    one.path = f"{level.path}.{name}"
                    one.where = f"variable '{name}'"
            self._known[key] = flaw
            raise
        finally:
            self._open.pop()

    def _cycle(self, key: tuple[int, str]) -> Flaw:
        members = self._open[self._open.index(key) :]
        # However one comes to it, it is the same cycle: it is told at the variable that is written first.
        first = min(members, key=lambda one: (mark_of(self.levels[one[0]].values, [one[1]]), one))
        start = members.index(first)
        chain = [name for _, name in [*members[start:], *members[:start], first]]
        flaw = Flaw(f"variables form a cycle: {' -> '.join(chain)}", "give one of them a value of its own")
        level = self.levels[first[0]]
        flaw.mark = mark_of(level.values, [first[1]])
        flaw.path = f"{level.path}.{first[1]}"
        flaw.where = f"variable '{first[1]}'"
        return flaw

    def _hole(self, hole: _Hole) -> Any:
        """The value of a hole; its text again when it holds no name."""
        if hole.name is not None:
            return self.value(hole.name)
        inner = self._joined(hole.parts)
        name = inner.strip()
        if not _NAME.match(name):
            return f"{{{{{inner}}}}}"
        return self.value(name)

    def _joined(self, parts: Parts) -> str:
        pieces: list[str] = []
        flaws: list[Flaw] = []
        length = 0
        for part in parts:
            try:
                piece = part if isinstance(part, str) else self._piece(part)
            except Flaw as flaw:
                flaws.append(flaw)
                continue
            length += len(piece)
            if length > MAX_TEXT:
                raise Flaw(f"grows beyond {MAX_TEXT:,} characters", "read long texts from a file")
            pieces.append(piece)
        if flaws:
            raise Flaw.joined(flaws)
        self.budget.write(length)
        return "".join(pieces)

    def _piece(self, hole: _Hole) -> str:
        value = self._hole(hole)
        if isinstance(value, Unbound):
            return f"{{{{{value.name}}}}}"
        if isinstance(value, dict | list):
            name = self._joined(hole.parts).strip()
            message = f"variable '{name}' is {kind_of(value)}; it cannot stand inside a longer text"
            raise Flaw(message, f"use it as the whole value: '{{{{{name}}}}}'")
        return text_of(value)


def _literal(value: Any) -> Any:
    """A value from outside, so that nothing in it is taken as a secret's placeholder later."""
    if isinstance(value, str):
        return _LATER.sub(r"\\{{", value) if "{{" in value else value
    if isinstance(value, Mapping):
        return {key: _literal(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_literal(one) for one in value]
    return value


def _size(value: Any) -> int:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_size, below))


def _changed_map(old: Map, changed: dict[str, Any]) -> Map:
    if not changed:
        return old
    result = old.same_place()
    result.update(old)
    result.update(changed)
    result.marks = old.marks
    return result


def rebuilt_list(old: List, new: list[Any]) -> List:
    """`old` with other items at the same places; `old` itself when they are the same."""
    if all(one is other for one, other in zip(old, new, strict=True)):
        return old
    result = old.same_place()
    result.extend(new)
    result.marks = old.marks
    return result


# -- a part of a file


class Renderer:
    """Renders parts of one file, `data`, and collects what is wrong with each text at its place.

    `plain`: there is not one placeholder in it, so nothing needs to be looked at.
    """

    def __init__(
        self, data: Map, problems: list[Problem], where: Callable[[Keys], str], *, plain: bool = False
    ) -> None:
        self.plain = plain
        self.data = data
        self.problems = problems
        self.where = where

    def render(self, value: Any, scope: Scope, keys: tuple[str | int, ...]) -> Any:
        """`value`, which is at `keys`, rendered; a text that cannot be is left as it is."""
        if self.plain:
            return value
        if isinstance(value, str):
            if "{{" not in value:
                return value
            try:
                return scope.text(value)
            except Flaw as flaw:
                self.note(flaw, keys)
                return value
        if isinstance(value, Map):
            return self._map(value, scope, keys)
        if isinstance(value, List):
            return self._list(value, scope, keys)
        return value

    def _map(self, value: Map, scope: Scope, keys: tuple[str | int, ...]) -> Map:
        new: dict[str, Any] = {}
        for key, one in value.items():
            kind = type(one)
            if kind is str:
                if "{{" not in one:
                    continue
            elif kind is not Map and kind is not List:
                continue
            rendered = self.render(one, scope, (*keys, key))
            if rendered is not one:
                new[key] = rendered
        return _changed_map(value, new)

    def _list(self, value: List, scope: Scope, keys: tuple[str | int, ...]) -> List:
        return rebuilt_list(value, [self.render(one, scope, (*keys, index)) for index, one in enumerate(value)])

    def note(self, flaw: Flaw, keys: Keys) -> None:
        """Add the problems of a flaw."""
        for one in (flaw, *flaw.others):
            if one.mark is None:
                mark = mark_of(self.data, keys)
                problem = Problem(mark, path_text(keys), str(one), one.hint, self.where(keys))
            else:
                problem = Problem(one.mark, one.path, str(one), one.hint, one.where)
            self.problems.append(problem)
