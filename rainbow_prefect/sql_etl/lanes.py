"""Which lane a load takes: the fastest that both sides have and whose types lose nothing, and why not a faster one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from .base import Lane, Refused
from .types import Column, Schema, Type, fit

Engine = Literal["auto", "copy", "arrow", "rows", "duckdb"]

_OF_ENGINE: dict[str, tuple[Lane, ...]] = {
    "auto": ("pg_binary", "pg_text", "csv", "arrow", "rows"),
    "copy": ("pg_binary", "pg_text", "csv"),
    "arrow": ("arrow",),
    "rows": ("rows",),
    "duckdb": ("arrow", "rows"),
}


@dataclass(frozen=True)
class Choice:
    """The lane that is taken; `others` says of each faster one why it is not."""

    lane: Lane
    others: tuple[tuple[Lane, str], ...] = ()

    @property
    def reason(self) -> str:
        """Why not a faster one, in one line; '' when it is the fastest."""
        return "; ".join(f"not {lane}: {why}" for lane, why in self.others)


def choose(
    came: Schema, target: Schema, gives: Sequence[Lane], takes: Sequence[Lane], *, engine: Engine = "auto"
) -> Choice:
    """The lane from a source that gives these forms to a sink that takes those.

    `came` are the columns of the query, `target` those of the table by the same names.

    Raises:
        Refused: `engine` leaves no lane; the text says why of each.
    """
    others: list[tuple[Lane, str]] = []
    for lane in _OF_ENGINE.get(engine, _OF_ENGINE["auto"]):
        why = _why_not(lane, came, target, gives, takes)
        if why is None:
            return Choice(lane, tuple(others))
        others.append((lane, why))
    told = "; ".join(f"{lane}: {why}" for lane, why in others)
    raise Refused(f"`engine: {engine}` cannot be used here ({told}); write `engine: auto`")


def _why_not(lane: Lane, came: Schema, target: Schema, gives: Sequence[Lane], takes: Sequence[Lane]) -> str | None:
    if lane not in gives:
        return "the source does not give it"
    if lane not in takes:
        return "the sink does not take it"
    for one in came.columns:
        why = _WHY[lane](one, target[one.name])
        if why is not None:
            return f"column '{one.name}' is {one.type} and {target[one.name].type} in the sink{why}"
    return None


def _binary(came: Column, target: Column) -> str | None:
    from .postgres_types import is_binary_equal

    return None if is_binary_equal(came, target) else ", not the same type"


_SAME_AS_CSV = frozenset({"int", "text", "date", "enum"})
_SAME_AS_TEXT = _SAME_AS_CSV | {"bool", "float", "decimal", "bytes", "time", "timestamp", "timestamptz", "uuid", "json"}
"""Of these the sinks that take COPY's text, PostgreSQL and MySQL, read what both sources write."""


def _lines(came: Column, target: Column) -> str | None:
    if came.type.kind in _SAME_AS_TEXT and fit(came.type, target.type):
        return None
    return _text(came, target)


def _text(came: Column, target: Column) -> str | None:
    if came.type.dialect == target.type.dialect:
        return None if fit(came.type, target.type) else ", which may not hold all its values"
    if came.type.kind in _SAME_AS_CSV and fit(came.type, target.type):
        return None
    return ", which is written in another way there"


_READ_ALIKE = frozenset({"int", "text", "enum", "uuid", "json", "float"})
"""Of these PostgreSQL takes no text of a file that it would round, cut or shift."""


def _csv(came: Column, target: Column) -> str | None:
    if target.type.dialect == "csv":
        is_written = came.type.dialect == "postgresql" or (came.type.dialect == "csv" and came.type.kind == "text")
        return None if is_written else ", whose text is not known to be that of COPY"
    if came.type.dialect == "csv":
        is_exact = came.type.kind in _READ_ALIKE and came.type.length is None
        return None if is_exact else ", whose text the sink would read more loosely"
    return _text(came, target)


def _as_arrow(came: Column, target: Column) -> str | None:
    return None


_WHY = {"pg_binary": _binary, "pg_text": _lines, "csv": _csv, "arrow": _as_arrow, "rows": _as_arrow}


def misfits(came: Schema, target: Schema) -> Iterator[tuple[Column, Type, str]]:
    """The columns whose values the table might not hold: the column, the table's type, why."""
    for one in came.columns:
        if one.name in target and fit(one.type, target[one.name].type) is None:
            yield one, target[one.name].type, "may not hold all its values"
