"""Reads from MySQL and MariaDB: one read-only session in one snapshot, rows as they come, nothing shifted or rounded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import near
from .base import BadValue, Lane, Part, Query, Reader, Refused, Rows, Session
from .mysql_catalogue import of_query, sql_of
from .mysql_link import Link, Row
from .mysql_parts import MOST_PARTS as _MOST_PARTS
from .mysql_parts import Cut
from .mysql_text import Values, ZeroDate, decoder, encoder, lines_of, literal
from .mysql_types import ticked
from .types import Schema

if TYPE_CHECKING:
    from sqlalchemy import URL

T = TypeVar("T")

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
        self.count = None
        count = 0
        for rows in self._link.stream(_exact(sql_of(self._link, query), schema)):
            yield rows
            count += len(rows)
        self.count = count
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
        """Parts by ranges (`by`, `executors`) or hashes (`hash`) of a column, windows of time (`by`, `every: 1 day`), or
        the partitions of a table (`partitions: true`).

        Each part is read in a snapshot of its own, since MySQL gives none to others: rows that change while the parts are
        read may be in two of them or in none. Every value, also NULL and what comes later, belongs to one part.
        """
        ways = [one for one in ("by", "hash", "partitions") if split.get(one)]
        if len(ways) != 1 or set(split) - {"by", "hash", "partitions", "every", "executors"}:
            raise Refused(
                "`split` of a MySQL source takes `by` (with `every`), `hash` or `partitions`;"
                f" it has {', '.join(split) or 'none'}"
            )
        if ways == ["partitions"]:
            return self._partitions(query)
        name = str(split[ways[0]])
        if name not in schema:
            hint = near(name, schema.names)
            raise Refused(
                f"`split` names the column '{name}', which the query does not give; {hint or 'name one of its columns'}"
            )
        count = split.get("executors", min(4, os.cpu_count() or 1))
        if not isinstance(count, int) or not 1 <= count <= _MOST_PARTS:
            raise Refused(f"`executors` of a split is a number from 1 to {_MOST_PARTS}, not {count!r}")
        cut = Cut(ticked(name), name, schema[name].type)
        if ways == ["hash"]:
            return cut.hashed(count)
        every = split.get("every")
        cut.refuse(every)
        low, high = (self._bound(query, one, name) for one in ("MIN", "MAX"))
        if low is None or high is None or isinstance(low, str) or isinstance(high, str):
            return [Part(f"{name} 1/1")]
        return cut.windows(low, high, str(every)) if every else cut.ranges(low, high, count)

    def _partitions(self, query: Query) -> list[Part]:
        rows = self._link.ask(
            "select distinct partition_name from information_schema.partitions"
            " where table_schema = coalesce(%s, database()) and table_name = %s and partition_name is not null order by 1",
            query.table or (None, ""),
        )
        if not rows:
            raise Refused("`partitions` cuts a partitioned table, and this is none; split `by` a column")
        return [Part(name, partition=name) for name in (str(row[0]) for row in rows)]

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
