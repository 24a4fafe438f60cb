"""Compares the rows of a query with those of a table, in any two databases: by range of the key, then row by row."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Context, Decimal
from hashlib import blake2b
from typing import Any, Literal
from uuid import UUID

from ..errors import TaskFailed
from .base import Query, Reader
from .types import Schema

Row = tuple[Any, ...]

_RANGES = 1024
"""Into so many ranges the keys are cut: a range that differs is read again."""
_MOST_ROWS = 200_000
"""So many rows of ranges that differ are looked at, one by one, in memory."""


@dataclass(frozen=True)
class Side:
    """An open source, the query or the table in it, and its columns."""

    reader: Reader
    query: Query
    schema: Schema


@dataclass(frozen=True)
class Difference:
    """A row that the table does not have (`missing`), that the query does not give (`extra`), or that is another (`changed`).

    `key` has the columns that tell rows apart, `query` and `table` the others, those of a changed row only where they differ.
    """

    kind: Literal["missing", "extra", "changed"]
    key: Mapping[str, Any]
    query: Mapping[str, Any] = field(default_factory=dict)
    table: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Compared:
    """What was found; `is_all` is false when there are more differences than were counted and kept."""

    rows_query: int = 0
    rows_table: int = 0
    missing_columns: tuple[str, ...] = ()
    extra_columns: tuple[str, ...] = ()
    missing: int = 0
    extra: int = 0
    changed: int = 0
    is_all: bool = True
    differences: list[Difference] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """Whether the table has all that the query gives and no other rows; columns that only it has do not count."""
        return not (self.missing_columns or self.missing or self.extra or self.changed or not self.is_all)


def compare(came: Side, there: Side, keys: Sequence[str] = (), *, most: int = 20) -> Compared:
    """Compare the rows by the columns that both have; `most` differences are kept, with their values.

    Values are compared as the types of the query's columns say: `1.50` and `1.5` are one decimal, a time is one moment in
    every zone. Without `keys` a row is told from others by all of its columns.
    """
    common = [one for one in came.schema.names if one in there.schema]
    found = Compared(
        missing_columns=tuple(one for one in came.schema.names if one not in there.schema),
        extra_columns=tuple(one for one in there.schema.names if one not in came.schema),
    )
    named = tuple(keys) if keys and set(keys) <= set(common) else tuple(common)
    ours = Rows(came, common, came.schema, named)
    theirs = Rows(there, common, came.schema, named)
    cut = _cut(ours, theirs)
    first, second = ours.sums(cut.of), theirs.sums(cut.of)
    found.rows_query, found.rows_table = ours.count, theirs.count
    differing = sorted(one for one in first.keys() | second.keys() if first.get(one) != second.get(one))
    looked = _few(differing, first, second)
    found.is_all = len(looked) == len(differing)
    if looked:
        _look(found, ours, theirs, cut, frozenset(looked), most)
    return found


def _few(differing: Sequence[int], first: Mapping[int, Sum], second: Mapping[int, Sum]) -> list[int]:
    """As many of the ranges as have few enough rows together, one at least."""
    taken: list[int] = []
    rows = 0
    for one in differing:
        rows += first.get(one, Sum()).count + second.get(one, Sum()).count
        if taken and rows > _MOST_ROWS:
            break
        taken.append(one)
    return taken


@dataclass(frozen=True)
class Sum:
    """How many rows a range has, and the sum of their hashes, which does not depend on their order."""

    count: int = 0
    hashes: int = 0


class Rows:
    """The rows of one side, with their columns in the order of the other, and their values so that equal ones are equal."""

    def __init__(self, side: Side, common: Sequence[str], kinds: Schema, keys: Sequence[str]) -> None:
        self.side = side
        self.names = tuple(common)
        self.keys = tuple(keys)
        self.count = 0
        self._at = [side.schema.names.index(one) for one in common]
        self._keys_at = [self.names.index(one) for one in keys]
        self._same = [_SAME.get(kinds[one].type.kind, str) for one in common]

    def __iter__(self) -> Iterator[Row]:
        return self.read(())

    def read(self, where: tuple[str, ...]) -> Iterator[Row]:
        """The rows for which this holds in SQL of the side."""
        query = self.side.query
        if where:
            query = Query(query.sql, query.table, (*query.where, *where), query.columns)
        for some in self.side.reader.rows(query, self.side.schema):
            columns = list(zip(*some, strict=True))
            if columns:
                yield from zip(
                    *(_values(same, columns[at]) for at, same in zip(self._at, self._same, strict=True)), strict=True
                )

    def key(self, row: Row) -> Row:
        """What tells the row from others."""
        return tuple(row[at] for at in self._keys_at)

    def sums(self, range_of: Callable[[Row], int]) -> dict[int, Sum]:
        """Each range of keys with the sum of its rows."""
        counts: Counter[int] = Counter()
        hashes: Counter[int] = Counter()
        for row in self:
            one = range_of(self.key(row))
            counts[one] += 1
            hashes[one] = (hashes[one] + _hash(row)) & 0xFFFFFFFFFFFFFFFF
        self.count = counts.total()
        return {one: Sum(count, hashes[one]) for one, count in counts.items()}


def _hash(row: Row) -> int:
    return int.from_bytes(blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


# -- ranges


@dataclass(frozen=True)
class _Cut:
    """Keys cut into ranges: of numbers from `low`, each `width` wide, or by their hash where the first is no whole number."""

    low: int | None = None
    width: int = 1

    def of(self, key: Row) -> int:
        if self.low is None:
            return _hash(key) % _RANGES
        return (key[0] - self.low) // self.width if isinstance(key[0], int) else -1

    def where(self, ranges: frozenset[int], name: str, reader: Reader) -> tuple[str, ...]:
        """What holds for the keys of these ranges alone; nothing where SQL cannot say it."""
        if self.low is None or -1 in ranges:
            return ()
        quoted = reader.quoted(name)
        bounds = [(self.low + one * self.width, self.low + (one + 1) * self.width) for one in sorted(ranges)]
        return (" OR ".join(f"({quoted} >= {low} AND {quoted} < {high})" for low, high in _merged(bounds)),)


def _merged(bounds: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges that follow each other as one."""
    made: list[tuple[int, int]] = []
    for low, high in bounds:
        if made and made[-1][1] == low:
            made[-1] = (made[-1][0], high)
        else:
            made.append((low, high))
    return made


def _cut(ours: Rows, theirs: Rows) -> _Cut:
    """Ranges of the first key where it is a whole number on both sides, which both can tell the ends of."""
    if not ours.keys:
        return _Cut()
    name = ours.keys[0]
    if any(one.side.schema[name].type.kind != "int" for one in (ours, theirs)):
        return _Cut()
    ends: list[int] = []
    for side in (ours.side, theirs.side):
        try:
            ends += [
                int(one) for what in ("min", "max") if (one := side.reader.value(_end(what, name, side))) is not None
            ]
        except (TaskFailed, TypeError, ValueError):
            return _Cut()
    if not ends:
        return _Cut()
    return _Cut(min(ends), max(1, -(-(max(ends) - min(ends) + 1) // _RANGES)))


def _end(what: str, name: str, side: Side) -> str:
    reader, query = side.reader, side.query
    if query.sql is not None:
        taken = f"({query.sql.strip().removesuffix(';')}\n) AS q"
    else:
        assert query.table is not None, "a query has a statement or a table"
        taken = ".".join(reader.quoted(one) for one in query.table if one)
    where = " AND ".join(f"({one})" for one in query.where)
    return f"SELECT {what}({reader.quoted(name)}) FROM {taken}{f' WHERE {where}' if where else ''}"


# -- the rows that differ


def _look(found: Compared, ours: Rows, theirs: Rows, cut: _Cut, ranges: frozenset[int], most: int) -> None:
    left = _by_key(ours, cut, ranges)
    right = _by_key(theirs, cut, ranges)
    for key in sorted(left.keys() | right.keys(), key=_order):
        for one in _differences(ours, key, left.get(key, []), right.get(key, [])):
            match one.kind:
                case "missing":
                    found.missing += 1
                case "extra":
                    found.extra += 1
                case "changed":
                    found.changed += 1
            if len(found.differences) < most:
                found.differences.append(one)


def _order(key: Row) -> list[tuple[str, Any]]:
    """An order of keys of any types, those without a value first."""
    return [("" if one is None else type(one).__name__, one) for one in key]


def _by_key(rows: Rows, cut: _Cut, ranges: frozenset[int]) -> dict[Row, list[Row]]:
    found: dict[Row, list[Row]] = {}
    where = cut.where(ranges, rows.keys[0], rows.side.reader) if rows.keys else ()
    for row in rows.read(where):
        key = rows.key(row)
        if cut.of(key) in ranges:
            found.setdefault(key, []).append(row)
    return found


def _differences(rows: Rows, key: Row, ours: Sequence[Row], theirs: Sequence[Row]) -> Iterator[Difference]:
    """The differences of the rows of one key, which may be several on each side."""
    missing = list((Counter(ours) - Counter(theirs)).elements())
    extra = list((Counter(theirs) - Counter(ours)).elements())
    named = dict(zip(rows.keys, key, strict=True))
    both = min(len(missing), len(extra))
    for one, other in zip(missing[:both], extra[:both], strict=True):
        changed = [name for name, a, b in zip(rows.names, one, other, strict=True) if a != b]
        yield Difference("changed", named, _only(rows, one, changed), _only(rows, other, changed))
    for one in missing[both:]:
        yield Difference("missing", named, _only(rows, one))
    for one in extra[both:]:
        yield Difference("extra", named, {}, _only(rows, one))


def _only(rows: Rows, row: Row, names: Sequence[str] | None = None) -> dict[str, Any]:
    wanted = [one for one in rows.names if one not in rows.keys] if names is None else names
    return {one: row[rows.names.index(one)] for one in wanted}


# -- values: equal ones look the same, wherever they come from


_ODD = (ValueError, TypeError, ArithmeticError, LookupError)
"""What comes of a value that is none of its type: its text is compared then."""


def _values(same: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
    try:
        return [None if one is None else same(one) for one in values]
    except _ODD:
        return [None if one is None else _value(same, one) for one in values]


def _value(same: Callable[[Any], Any], value: Any) -> Any:
    try:
        return same(value)
    except _ODD:
        return str(value)


def _as_bool(value: Any) -> bool:
    if isinstance(value, str):
        return {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}[value.lower()]
    return bool(value)


_EXACT = Context(prec=200_000)
"""More digits than any database keeps in a number."""


def _as_decimal(value: Any) -> str:
    number = Decimal(repr(value) if isinstance(value, float) else str(value))
    if not number.is_finite():
        return str(number)
    text = f"{_EXACT.normalize(number):f}"
    return "0" if text == "-0" else text


def _as_float(value: Any) -> float | str:
    number = float(value)
    return number + 0.0 if math.isfinite(number) else str(number)  # there is one zero


def _as_bytes(value: Any) -> str:
    return bytes(value).hex() if not isinstance(value, str) else value.encode().hex()


def _as_date(value: Any) -> str:
    if isinstance(value, datetime):
        value = value.date()
    return (value if isinstance(value, date) else date.fromisoformat(value)).isoformat()


def _as_time(value: Any) -> str:
    return (value if isinstance(value, time) else time.fromisoformat(value)).isoformat()


def _as_moment(value: Any) -> str:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    return moment.isoformat(sep=" ")


def _as_json(value: Any) -> str:
    read = json.loads(value, parse_float=Decimal) if isinstance(value, str | bytes) else value
    return json.dumps(read, sort_keys=True, ensure_ascii=False, default=_as_decimal)


def _as_uuid(value: Any) -> str:
    return str(value if isinstance(value, UUID) else UUID(str(value)))


_SAME: dict[str, Callable[[Any], Any]] = {
    "bool": _as_bool,
    "int": int,
    "float": _as_float,
    "decimal": _as_decimal,
    "bytes": _as_bytes,
    "date": _as_date,
    "time": _as_time,
    "timetz": _as_time,
    "timestamp": _as_moment,
    "timestamptz": _as_moment,
    "uuid": _as_uuid,
    "json": _as_json,
}
