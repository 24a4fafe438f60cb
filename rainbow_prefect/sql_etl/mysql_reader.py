"""Reads from MySQL and MariaDB: one read-only session in one snapshot, rows as they come, nothing shifted or rounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from .base import BadValue, Lane, Part, Query, Reader, Refused, Rows, Session
from .mysql_catalogue import of_query, sql_of
from .mysql_link import Link, Row
from .mysql_text import Values, ZeroDate, decoder, encoder, lines_of
from .mysql_types import ticked
from .types import Schema, Type

if TYPE_CHECKING:
    from sqlalchemy import URL

T = TypeVar("T")

_MOST_PARTS = 10_000
_LINES_ROWS = 2_000


class MysqlReader(Reader):
    """A MySQL or MariaDB that is read."""

    def __init__(self, url: URL, session: Session, settings: Any) -> None:
        self._link = Link(url, session, settings, doing="the source")
        self._is_zero_null = getattr(settings, "zero_date", None) == "null"
        self._zeros: dict[str, int] = {}
        self.dialect = self._link.dialect
        try:
            self._link.do("SET SESSION sql_mode = concat_ws(',', @@sql_mode, 'STRICT_ALL_TABLES')")
            self._link.do("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            self._link.do("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        except BaseException:
            self._link.close()
            raise

    # -- what it would give

    def describe(self, query: Query) -> Schema:
        return of_query(self._link, query, sql_of(self._link, query))

    def lanes(self) -> tuple[Lane, ...]:
        return ("pg_text", "rows")

    def value(self, sql: str) -> Any:
        query = Query(sql=sql)
        schema = self.describe(query)
        first: Any = None
        for rows in list(self.rows(query, schema)):
            first = rows[0][0] if first is None else first
        return first

    def literal(self, value: Any) -> str:
        return literal(value)

    def quoted(self, name: str) -> str:
        return ticked(name)

    def estimate(self, query: Query) -> int | None:
        if query.table is not None and not query.where:
            found = self._link.ask(
                "select table_rows from information_schema.tables"
                " where table_schema = coalesce(%s, database()) and table_name = %s",
                query.table,
            )
        else:
            found = [
                (row[8] if len(row) == 10 else row[9],)
                for row in self._link.ask(f"EXPLAIN {sql_of(self._link, query)}")[:1]
            ]
        return int(found[0][0]) if found and found[0][0] not in (None, "NULL") else None

    # -- the rows

    def rows(self, query: Query, schema: Schema) -> Iterator[Rows]:
        decoders = [decoder(one.type) for one in schema.columns]
        for rows in self._raw(query, schema):
            yield list(zip(*self._made(schema, decoders, rows), strict=True))

    def chunks(self, query: Query, schema: Schema, lane: Lane) -> Iterator[bytes]:
        encoders = [encoder(one.type) for one in schema.columns]
        for rows in self._raw(query, schema):
            for start in range(0, len(rows), _LINES_ROWS):
                piece = rows[start : start + _LINES_ROWS]
                try:
                    yield lines_of(piece, encoders)
                except ZeroDate:
                    yield lines_of(self._without_zeros(schema, piece), encoders)

    def _raw(self, query: Query, schema: Schema) -> Iterator[list[Row]]:
        yield from self._link.stream(_exact(sql_of(self._link, query), schema))
        for name, count in self._zeros.items():
            self._link.session.say(f"{count} zero dates of column '{name}' were read as NULL")
        self._zeros = {}

    def _made(
        self, schema: Schema, decoders: Sequence[Callable[[Values], Sequence[Any]]], rows: list[Row]
    ) -> list[Sequence[Any]]:
        try:
            return [make(values) for make, values in zip(decoders, zip(*rows, strict=True), strict=True)]
        except ZeroDate:
            return self._made(schema, decoders, self._without_zeros(schema, rows))

    def _without_zeros(self, schema: Schema, rows: list[Row]) -> list[Row]:
        """The rows with NULL in place of zero dates, when that is wanted.

        Raises:
            BadValue: it is not.
        """
        made = [list(row) for row in rows]
        for at, one in enumerate(schema.columns):
            if one.type.kind not in ("date", "timestamp", "timestamptz"):
                continue
            check = encoder(one.type)
            for row in made:
                try:
                    check([row[at]])
                except ZeroDate:
                    if not self._is_zero_null:
                        raise self._zero(one.name, row[at]) from None
                    row[at] = None
                    self._zeros[one.name] = self._zeros.get(one.name, 0) + 1
        return made

    def _zero(self, name: str, value: bytes | None) -> BadValue:
        shown = (value or b"").decode()
        return BadValue(
            f"{self._link.doing}: column '{name}' holds the zero date '{shown}', which is no date;"
            f" make it NULL in the query: nullif({name}, 0), or write `zero_date: null`"
        )

    # -- parts

    def parts(self, query: Query, schema: Schema, split: Mapping[str, Any]) -> list[Part]:
        """Parts by ranges or hashes of a column, or windows of time (`every`, seconds or timedelta).

        Each part is read in a snapshot of its own, since MySQL gives none to others: rows that change while the parts are
        read may be in two of them or none. Every value, also NULL and what comes later, is in one part.
        """
        by = str(split.get("by") or "")
        if by not in schema:
            raise Refused(f"`split` is by '{by}', which the query does not give (columns: {', '.join(schema.names)})")
        count = int(split.get("parts") or split.get("executors") or 1)
        if not 1 <= count <= _MOST_PARTS:
            raise Refused(f"`split` asks for {count} parts; from 1 to {_MOST_PARTS} are possible")
        cut = _Cut(ticked(by), schema[by].type)
        every = split.get("every")
        method = split.get("method") or ("window" if every else "range" if cut.is_ordered else "hash")
        if method == "hash":
            return cut.hashed(count)
        if not cut.is_ordered or (method == "window" and cut.kind.kind == "int"):
            raise Refused(
                f"`split` by {method} of column '{by}' is not possible, for it is {cut.kind}; use the method hash"
            )
        low, high = (self._bound(query, one, by) for one in ("MIN", "MAX"))
        if low is None or high is None or isinstance(low, str) or isinstance(high, str):
            return [Part()]
        if method == "window":
            return cut.windows(low, high, every)
        return cut.ranges(low, high, count)

    def _bound(self, query: Query, function: str, by: str) -> Any:
        inner = sql_of(self._link, query)
        return self.value(f"SELECT {function}({ticked(by)}) AS `bound` FROM (\n{inner}\n) AS `_rainbow`")

    # -- the end

    def cancel(self) -> None:
        self._link.cancel()

    def close(self) -> None:
        self._link.close()


def _exact(sql: str, schema: Schema) -> str:
    """The statement, with floats as doubles: a float is written with six digits only."""
    if not any(one.type.kind == "float" and one.type.bits == 32 for one in schema.columns):
        return sql
    shown = ", ".join(
        f"{ticked(one.name)} * 1e0 AS {ticked(one.name)}"
        if one.type.kind == "float" and one.type.bits == 32
        else ticked(one.name)
        for one in schema.columns
    )
    return f"SELECT {shown} FROM (\n{sql}\n) AS `_rainbow`"


def literal(value: Any) -> str:
    """A value as SQL of MySQL writes it, in whatever sql_mode."""
    match value:
        case None:
            return "NULL"
        case bool():
            return "1" if value else "0"
        case int():
            return str(value)
        case Decimal() if value.is_finite():
            return format(value, "f")
        case float() if math.isfinite(value):
            return f"{value!r}e0" if "e" not in repr(value) else repr(value)
        case bytes():
            return f"x'{value.hex()}'"
        case datetime():
            moment = value if value.tzinfo is None else _utc(value)
            return f"TIMESTAMP'{moment.isoformat(' ')}'"
        case date():
            return f"DATE'{value.isoformat()}'"
        case time():
            return f"TIME'{value.isoformat()}'"
        case str():
            if value.isascii() and "\\" not in value and "\0" not in value:
                return "'" + value.replace("'", "''") + "'"
            return f"CONVERT(x'{value.encode().hex()}' USING utf8mb4)"
    raise Refused(f"a value of type {type(value).__name__} cannot be written as SQL of MySQL")


def _utc(value: datetime) -> datetime:
    from datetime import UTC

    return value.astimezone(UTC).replace(tzinfo=None)


@dataclass(frozen=True)
class _Cut:
    """How a column is cut into parts; `name` is quoted."""

    name: str
    kind: Type

    @property
    def is_ordered(self) -> bool:
        return self.kind.kind in ("int", "date", "timestamp", "timestamptz")

    def hashed(self, count: int) -> list[Part]:
        text = f"IFNULL(CRC32({self.name}), 0)"
        return [Part(f"{at + 1} of {count}", (f"{text} MOD {count} = {at}",)) for at in range(count)]

    def ranges(self, low: Any, high: Any, count: int) -> list[Part]:
        """Ranges of equal width; the first has NULL and what is below, the last what is above."""
        bounds = sorted({_between(low, high, at, count) for at in range(1, count)} - {low})
        return self._open_ended(bounds, [f"{at + 1} of {len(bounds) + 1}" for at in range(len(bounds) + 1)])

    def windows(self, low: Any, high: Any, every: Any) -> list[Part]:
        """Windows that begin at whole multiples of `every` since 1970, named after their beginning."""
        step = every if isinstance(every, timedelta) else timedelta(seconds=float(every or 86_400))
        if step <= timedelta(0) or (self.kind.kind == "date" and step % timedelta(days=1)):
            raise Refused(
                f"`split` has windows of {step}; of dates they are whole days, and always longer than nothing"
            )
        zero = datetime(1970, 1, 1, tzinfo=getattr(low, "tzinfo", None))
        start = zero if isinstance(low, datetime) else zero.date()
        first = start + (low - start) // step * step
        count = (high - first) // step
        if count >= _MOST_PARTS:
            raise Refused(
                f"`split` would have {count + 1} windows; at most {_MOST_PARTS} are possible: make them longer"
            )
        begins = [first + at * step for at in range(count + 1)]
        return self._open_ended(begins[1:], [one.isoformat() for one in begins])

    def _open_ended(self, bounds: Sequence[Any], names: Sequence[str]) -> list[Part]:
        if not bounds:
            return [Part(names[0])]
        texts = [literal(one) for one in bounds]
        where = [f"{self.name} < {texts[0]} OR {self.name} IS NULL"]
        where += [f"{self.name} >= {low} AND {self.name} < {high}" for low, high in pairwise(texts)]
        where.append(f"{self.name} >= {texts[-1]}")
        return [Part(name, (one,)) for name, one in zip(names, where, strict=True)]


def _between(low: Any, high: Any, at: int, count: int) -> Any:
    if isinstance(low, int):
        return low + (high - low) * at // count
    return low + (high - low) * at / count
