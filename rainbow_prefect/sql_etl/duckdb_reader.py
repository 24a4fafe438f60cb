"""Reads DuckDB as Arrow: types from its catalogue, values that Arrow would change as text or not at all."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from . import arrow_types
from .base import Part, Query, Reader, Refused, Rows, Session
from .duckdb import asked, quoted, told
from .duckdb_types import DIALECT, read_as, type_of
from .types import Column, Schema

if TYPE_CHECKING:
    import pyarrow
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

BATCH_ROWS = 20_480  # ten vectors of DuckDB: its unit of work
_NEVER = {"date": 2**31 - 1, "timestamp": 2**63 - 1, "timestamptz": 2**63 - 1}
"""What DuckDB stores for infinity."""

_END = re.compile(r";(?:\s|;|--[^\n]*|/\*.*?\*/)*\Z", re.DOTALL)
_METHODS = ("range", "hash")


class DuckReader(Reader):
    """One read-only session in one transaction, so that all it reads is of one moment."""

    dialect = DIALECT

    def __init__(self, connect: Callable[[], DuckDBPyConnection], session: Session) -> None:
        self._connection = connect()
        self._session = session
        asked(self._connection, "BEGIN TRANSACTION READ ONLY", "the source cannot be opened")

    # -- columns

    def describe(self, query: Query) -> Schema:
        relation = self._relation(query)
        comments, keys, strict = self._facts(query)
        return Schema(
            tuple(
                Column(
                    name,
                    type_of(str(spelling), comments.get(name, "")),
                    nullable=name not in strict,
                    comment=comments.get(name, "") if "rainbow.type " not in comments.get(name, "") else "",
                )
                for name, spelling in zip(relation.columns, relation.types, strict=True)
            ),
            keys if set(keys) <= set(relation.columns) else (),
        )

    def _facts(self, query: Query) -> tuple[dict[str, str], tuple[str, ...], set[str]]:
        """Comments, primary key and columns without NULL of a table."""
        if query.table is None or query.columns:
            return {}, (), set()
        return facts(self._connection, query.table)

    def _relation(self, query: Query) -> DuckDBPyRelation:
        """The query, not run yet.

        Raises:
            Refused: it is no single statement that gives rows.
        """
        import duckdb

        sql = query.sql
        if sql is None:
            if query.table is None:
                raise Refused("there is neither a query nor a table to read")
            sql = f"SELECT * FROM {quoted(*query.table)}"
        try:
            statements = self._connection.extract_statements(sql)
            if len(statements) != 1:
                raise Refused(f"the query is {len(statements)} statements; write one that gives rows")
            if statements[0].type != duckdb.StatementType.SELECT:
                raise Refused("the query gives no rows; write one SELECT")
            found = self._connection.sql(self._without_end(sql))
            for condition in query.where:
                found = found.filter(condition)
            if query.columns:
                found = found.project(", ".join(f"{sql} AS {quoted(name)}" for name, sql in query.columns))
            if query.most is not None:
                found = found.limit(query.most)
        except duckdb.Error as error:
            raise told(error, "the query cannot be read") from None
        if found is None:
            raise Refused("the query gives no rows; write one SELECT")
        return found

    def _without_end(self, sql: str) -> str:
        """One statement without the `;` at its end and the comments after it, which DuckDB takes for its middle."""
        import duckdb

        cut = _END.sub("", sql)
        try:
            return cut if len(self._connection.extract_statements(cut)) == 1 else sql
        except duckdb.ParserException:  # that was within quotes
            return sql

    # -- rows

    def lanes(self) -> tuple[Any, ...]:
        return ("arrow", "rows")

    def batches(self, query: Query, schema: Schema) -> Iterator[pyarrow.RecordBatch]:
        target = arrow_types.arrow_schema(schema)
        first = 1
        for batch in self._batches(query, schema):
            for array, column in zip(batch.columns, schema.columns, strict=True):
                _refuse_odd(array, column, first)
            yield arrow_types.conformed(batch, schema, target, first)
            first += batch.num_rows

    def rows(self, query: Query, schema: Schema) -> Iterator[Rows]:
        odd = [number for number, one in enumerate(schema.columns) if one.type.kind in _NEVER]
        for batch in self._batches(query, schema):
            endless = {number: _endless(batch.column(number), schema.columns[number]) for number in odd}
            endless = {number: found for number, found in endless.items() if found}
            at = 0
            for some in arrow_types.rows_of([batch], schema):
                yield [_with(row, at + n, endless) for n, row in enumerate(some)] if endless else some
                at += len(some)

    def _batches(self, query: Query, schema: Schema) -> Iterator[Any]:
        """Record batches as DuckDB makes them, some columns as their text."""
        import duckdb

        expressions = [f"{read_as(one, quoted(one.name))} AS {quoted(one.name)}" for one in schema.columns]
        try:
            relation = self._relation(query).project(", ".join(expressions))
            reader = relation.to_arrow_reader(BATCH_ROWS)
            while not self._session.stop.is_set():
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return
                yield batch
        except duckdb.Error as error:
            raise told(error, "the query cannot be read") from None
        except OSError as error:  # as Arrow tells what failed within a stream
            raise told(duckdb.IOException(str(error)), "the query cannot be read") from None

    # -- parts and values

    def parts(self, query: Query, schema: Schema, split: Mapping[str, Any]) -> list[Part]:
        """`{by: COLUMN, parts: N, method: range | hash}`; of a range the bounds are quantiles, so that parts are alike.

        Source: quantile_disc and hash of DuckDB's documentation.
        """
        by, number, method = (
            split.get("by"),
            int(split.get("parts") or split.get("executors") or 1),
            split.get("method"),
        )
        if split.get("every") or split.get("ctid") or split.get("partitions"):
            raise Refused("a source of DuckDB is split in ranges or hashes of a column; write `split: {by: COLUMN}`")
        if by is None or by not in schema:
            raise Refused(f"`split: {{by: {by}}}` is no column of the query (columns: {', '.join(schema.names)})")
        if method not in (None, *_METHODS):
            raise Refused(f"`split: {{method: {method}}}` is unknown here; known: {', '.join(_METHODS)}")
        name = quoted(by)
        if method == "hash":
            return [Part(f"hash-{n + 1}-of-{number}", (f"hash({name}) % {number} = {n}",)) for n in range(number)]
        import duckdb

        wanted = ", ".join(str(Decimal(n) / number) for n in range(1, number))
        try:
            bounds = self._quantiles(query, name, wanted) if wanted else []
        except duckdb.Error as error:
            raise told(error, f"column '{by}' cannot be split by range") from None
        edges = [None, *sorted(set(bounds)), None]
        return [
            Part(f"range-{n + 1}-of-{len(edges) - 1}", (self._between(name, low, high),))
            for n, (low, high) in enumerate(pairwise(edges))
        ]

    def _quantiles(self, query: Query, name: str, wanted: str) -> list[Any]:
        relation = self._relation(query)
        found = relation.query("q", f"SELECT quantile_disc({name}, [{wanted}]) FROM q")
        rows = found.fetchall() if found is not None else []
        return (rows[0][0] or []) if rows else []

    def _between(self, name: str, low: Any, high: Any) -> str:
        """Rows above `low` up to `high`; the first part also has those without a value."""
        bounds = [f"{name} > {self.literal(low)}"] if low is not None else []
        bounds += [f"{name} <= {self.literal(high)}"] if high is not None else []
        text = " AND ".join(bounds) or "true"
        return f"({text} OR {name} IS NULL)" if low is None else f"({text})"

    def value(self, sql: str) -> Any:
        rows = asked(self._connection, sql, "the value cannot be read")
        return rows[0][0] if rows else None

    def literal(self, value: Any) -> str:
        match value:
            case None:
                return "NULL"
            case bool():
                return "true" if value else "false"
            case float():
                return f"CAST('{value!r}' AS DOUBLE)"
            case int() | Decimal():
                return str(value)
            case datetime():
                kind = "TIMESTAMP" if value.tzinfo is None else "TIMESTAMPTZ"
                return f"{kind} '{value.isoformat(' ')}'"
            case date():
                return f"DATE '{value.isoformat()}'"
            case time():
                return f"TIME '{value.isoformat()}'"
            case bytes():
                return f"from_hex('{value.hex()}')"
            case _:
                return "'" + str(value).replace("'", "''") + "'"

    def estimate(self, query: Query) -> int | None:
        if query.table is None or query.where:
            return None
        schema, name = query.table
        rows = asked(
            self._connection,
            "SELECT estimated_size FROM duckdb_tables() WHERE table_name = ? AND schema_name = coalesce(?, current_schema())"
            " AND database_name = current_database()",
            "the table cannot be looked at",
            [name, schema],
        )
        return int(rows[0][0]) if rows else None

    def cancel(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.interrupt()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.close()


def facts(
    connection: DuckDBPyConnection, table: tuple[str | None, str]
) -> tuple[dict[str, str], tuple[str, ...], set[str]]:
    """Comments, primary key and columns without NULL of a table, from the catalogue."""
    where = "table_name = ? AND schema_name = coalesce(?, current_schema()) AND database_name = current_database()"
    given = [table[1], table[0]]
    columns = asked(
        connection,
        f"SELECT column_name, comment, is_nullable FROM duckdb_columns() WHERE {where}",
        "the table cannot be looked at",
        given,
    )
    keys = asked(
        connection,
        f"SELECT constraint_column_names FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY' AND {where}",
        "the table cannot be looked at",
        given,
    )
    return (
        {name: comment for name, comment, _ in columns if comment},
        tuple(keys[0][0]) if keys else (),
        {name for name, _, nullable in columns if not nullable},
    )


def _endless(array: Any, column: Column) -> dict[int, str]:
    """The rows of an array where DuckDB has infinity."""
    import pyarrow
    import pyarrow.compute

    if pyarrow.types.is_string(array.type):  # of a file, to be read as the type of the table
        return {}
    stored = pyarrow.int32() if column.type.kind == "date" else pyarrow.int64()
    numbers = array.cast(stored)
    never = _NEVER[column.type.kind]
    found: dict[int, str] = {}
    for value, text in ((never, "infinity"), (-never, "-infinity")):
        at = pyarrow.compute.indices_nonzero(pyarrow.compute.equal(numbers, value)).to_pylist()
        found |= dict.fromkeys(at, text)
    return found


def _with(row: tuple[Any, ...], at: int, endless: Mapping[int, Mapping[int, str]]) -> tuple[Any, ...]:
    if not any(at in found for found in endless.values()):
        return row
    return tuple(endless[n][at] if n in endless and at in endless[n] else value for n, value in enumerate(row))


def _refuse_odd(array: Any, column: Column, first: int) -> None:
    """Infinity and 24:00:00, which are no dates and times of Arrow."""
    if column.type.kind in _NEVER:
        found = _endless(array, column)
        if found:
            at = min(found)
            raise arrow_types.bad(column.name, first + at, found[at], f"cannot be {array.type}: Arrow has no infinity")
    elif column.type.kind == "time":
        import pyarrow
        import pyarrow.compute

        if pyarrow.types.is_string(array.type):
            return
        day = 86_400 * (10**6 if array.type.unit == "us" else 10**9)
        late = pyarrow.compute.indices_nonzero(pyarrow.compute.equal(array.cast(pyarrow.int64()), day)).to_pylist()
        if late:
            raise arrow_types.bad(column.name, first + late[0], "24:00:00", f"cannot be {array.type}: the day is over")
