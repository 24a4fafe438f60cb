"""Reads rows by SQLAlchemy's cursors, in a read-only transaction; SQLite's columns without a declared type are looked at."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, Engine, exc, text

from .base import BadValue, Part, Query, Reader, Refused, Rows, Session
from .generic import told
from .generic_types import sqlite_type, type_from
from .types import Column, Schema, Type

BATCH_BYTES = 4 << 20
FIRST_ROWS = 1000
_MOST_ROWS = 100_000
_EXACT_FLOAT = 2**53
_STORED: dict[str, Type] = {
    "integer": Type("int", bits=64, dialect="sqlite"),
    "real": Type("float", bits=64, dialect="sqlite"),
    "text": Type("text", dialect="sqlite"),
    "blob": Type("bytes", dialect="sqlite"),
}
"""What values are that have no declared type, which the empty `native` tells."""


class GenericReader(Reader):
    """A database that SQLAlchemy knows."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._engine = engine
        self._session = session
        self.dialect = engine.dialect.name
        try:
            self._connection: Connection = engine.connect()
            self._begin()
        except exc.SQLAlchemyError as error:
            raise told(error, "the source cannot be opened") from None

    def _begin(self) -> None:
        if self.dialect == "sqlite":
            self._connection.exec_driver_sql("PRAGMA temp_store = MEMORY")

    # -- columns

    def describe(self, query: Query) -> Schema:
        statement = self.statement(query)
        self._refuse_many(statement)
        if self.dialect == "sqlite":
            return self._described_sqlite(query, statement)
        if query.table is not None and not query.columns:
            return self._inspected(query.table)
        return self._described(statement)

    def statement(self, query: Query) -> str:
        """The whole statement that is sent."""
        if query.most is not None:
            whole = self.statement(replace(query, most=None))
            return f"SELECT * FROM ({whole}\n) AS few LIMIT {query.most}" if self.dialect == "sqlite" else whole
        if query.sql is not None:
            inner = _without_end(query.sql)
            if not query.where and not query.columns:
                return inner
            source = f"({inner}\n) AS q"
        else:
            assert query.table is not None, "a query has a statement or a table"
            source = ".".join(self.quoted(one) for one in query.table if one)
        columns = ", ".join(f"{sql} AS {self.quoted(name)}" for name, sql in query.columns) or "*"
        where = " AND ".join(f"({one})" for one in query.where)
        return f"SELECT {columns} FROM {source}{f' WHERE {where}' if where else ''}"

    def _refuse_many(self, statement: str) -> None:
        if not statement.strip():
            raise Refused("the query is empty; write one SELECT")

    def _described_sqlite(self, query: Query, statement: str) -> Schema:
        """By a temporary view, whose columns have the declared types of what they come from."""
        connection = self._connection
        view = self.quoted("_rainbow_described")
        try:
            connection.exec_driver_sql("PRAGMA query_only = OFF")
            connection.exec_driver_sql(f"DROP VIEW IF EXISTS temp.{view}")
            connection.exec_driver_sql(f"CREATE TEMP VIEW {view} AS {statement}")
            found = connection.exec_driver_sql("PRAGMA temp.table_info('_rainbow_described')").fetchall()
            _refuse_twice([str(one[1]) for one in found])
            columns = [self._sqlite_column(view, str(one[1]), str(one[2] or "")) for one in found]
            connection.exec_driver_sql(f"DROP VIEW temp.{view}")
            connection.exec_driver_sql("PRAGMA query_only = ON")
        except exc.SQLAlchemyError as error:
            raise told(error, "the query is not accepted") from None
        schema = Schema(tuple(columns))
        if query.table is None:
            return schema
        own = self._inspected(query.table)
        keys = own.keys if set(own.keys) <= set(schema.names) else ()
        named = {one.name: one for one in own.columns}
        return Schema(
            tuple(replace(one, nullable=named[one.name].nullable) if one.name in named else one for one in columns),
            keys,
        )

    def _sqlite_column(self, view: str, name: str, declared: str) -> Column:
        return Column(name, sqlite_type(declared) or self._stored(view, name))

    def _stored(self, view: str, name: str) -> Type:
        """The type of an expression: SQLite does not know it before its values are there, so they are looked at."""
        column = self.quoted(name)
        kinds = self._connection.exec_driver_sql(f"SELECT DISTINCT typeof({column}) FROM {view}").scalars()
        found = sorted(set(kinds) - {"null"})
        if not found:
            return Type("other", dialect="sqlite")
        if len(found) == 1:
            return _STORED[found[0]]
        if found == ["integer", "real"]:
            largest = self._connection.exec_driver_sql(
                f"SELECT max(abs({column})) FROM {view} WHERE typeof({column}) = 'integer'"
            ).scalar()
            if largest is not None and largest <= _EXACT_FLOAT:
                return _STORED["real"]
        raise BadValue(
            f"column '{name}' has values of several types ({', '.join(found)}) and none is declared; "
            f"cast it in the query: CAST({name} AS TEXT) AS {name}"
        )

    def _inspected(self, table: tuple[str | None, str]) -> Schema:
        from sqlalchemy import inspect

        schema, name = table
        try:
            look = inspect(self._connection)
            keys = tuple(look.get_pk_constraint(name, schema)["constrained_columns"])
            columns = [
                Column(
                    str(one["name"]),
                    type_from(one["type"], self.dialect),
                    bool(one["nullable"]),
                    one.get("comment") or "",
                )
                for one in look.get_columns(name, schema)
            ]
        except exc.NoSuchTableError:
            shown = ".".join(one for one in table if one)
            raise Refused(f"the source has no table '{shown}'; correct `source_table`") from None
        except exc.SQLAlchemyError as error:
            raise told(error, "the table cannot be looked at") from None
        return Schema(tuple(columns), keys)

    def _described(self, statement: str) -> Schema:
        """By the types that the driver tells of an empty result."""
        try:
            result = self._connection.execute(text(f"SELECT * FROM ({_escaped(statement)}\n) q WHERE 1 = 0"))
        except exc.SQLAlchemyError as error:
            raise told(error, "the query is not accepted") from None
        cursor = result.cursor
        described = cursor.description if cursor is not None else ()
        columns = [
            Column(str(one[0]), Type("other", native=str(one[1]), dialect=self.dialect)) for one in described or ()
        ]
        result.close()
        return Schema(tuple(columns))

    # -- rows

    def rows(self, query: Query, schema: Schema) -> Iterator[Rows]:
        statement = self.statement(query)
        fixes = [_fix(one) for one in schema.columns] if self.dialect == "sqlite" else []
        ordinal = 0
        try:
            with contextlib.closing(self._execute(statement)) as result:
                size = FIRST_ROWS
                while rows := [tuple(one) for one in result.fetchmany(size)]:
                    if any(fixes):
                        rows = [self._fixed(row, fixes, schema, ordinal + n) for n, row in enumerate(rows, 1)]
                    yield rows
                    ordinal += len(rows)
                    size = _next_size(rows)
        except exc.SQLAlchemyError as error:
            raise told(error, f"reading failed after {ordinal} rows") from None

    def _execute(self, statement: str) -> Any:
        if self.dialect == "sqlite":
            return self._connection.exec_driver_sql(statement)
        return self._connection.execution_options(stream_results=True).execute(text(_escaped(statement)))

    def _fixed(self, row: tuple[Any, ...], fixes: list[Any], schema: Schema, ordinal: int) -> tuple[Any, ...]:
        """The values as the types of their columns say; SQLite keeps any value in any column."""
        made = list(row)
        for index, fix in enumerate(fixes):
            if fix is not None and made[index] is not None:
                try:
                    made[index] = fix(made[index])
                except ValueError as error:
                    column = schema.columns[index]
                    raise BadValue(
                        f"column '{column.name}', row {ordinal}: {_shown(row[index])} {error} ({column.type}); "
                        f"cast it in the query"
                    ) from None
        return tuple(made)

    def value(self, sql: str) -> Any:
        try:
            if self.dialect == "sqlite":
                return self._connection.exec_driver_sql(sql).scalar()
            return self._connection.execute(text(_escaped(sql))).scalar()
        except exc.SQLAlchemyError as error:
            raise told(error, "the source does not answer") from None

    def literal(self, value: Any) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, bool):
            return "1" if value else "0"
        if isinstance(value, int | float | Decimal):
            return str(value)
        return "'" + str(value).replace("'", "''") + "'"

    def quoted(self, name: str) -> str:
        return self._engine.dialect.identifier_preparer.quote_identifier(name)

    def parts(self, query: Query, schema: Schema, split: Mapping[str, Any]) -> list[Part]:
        """Ranges (`by`, `executors`) with about equally many rows of SQLite; whatever has no order there has one by its class.

        Each part is read in a snapshot of its own.
        """
        if self.dialect != "sqlite":
            raise Refused(f"a source of '{self.dialect}' cannot be split; remove `split`")
        name, number = split.get("by"), int(split.get("executors") or 1)
        if not name or split.get("every"):
            raise Refused("a source of SQLite is split in ranges of a column; write `split: {by: COLUMN}` without more")
        column, source = self.quoted(str(name)), f"({self.statement(query)}\n) AS q"
        count = self.value(f"SELECT count({column}) FROM {source}")
        places = sorted({count * n // number for n in range(1, number)} - {0})
        bounds = [
            self.value(
                f"SELECT quote({column}) FROM {source} WHERE {column} IS NOT NULL ORDER BY {column} LIMIT 1 OFFSET {at}"
            )
            for at in places
        ]
        return _between(str(name), column, list(dict.fromkeys(bounds)))

    def cancel(self) -> None:
        with contextlib.suppress(Exception):
            raw = self._connection.connection.dbapi_connection
            if raw is not None and hasattr(raw, "interrupt"):
                raw.interrupt()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.close()
        with contextlib.suppress(Exception):
            self._engine.dispose()


def _between(name: str, column: str, bounds: Sequence[str]) -> list[Part]:
    """Ranges of which the first has NULL and all that is below, the last all that is above."""
    if not bounds:
        return [Part(f"{name} 1/1")]
    wheres = [f"{column} < {bounds[0]} OR {column} IS NULL"]
    wheres += [f"{column} >= {low} AND {column} < {high}" for low, high in pairwise(bounds)]
    wheres.append(f"{column} >= {bounds[-1]}")
    return [Part(f"{name} {n}/{len(wheres)}", (one,)) for n, one in enumerate(wheres, 1)]


def _refuse_twice(names: Sequence[str]) -> None:
    """A view of SQLite names the second column `a` of a query `a:1`."""
    for name in names:
        first, colon, number = name.rpartition(":")
        if colon and number.isdigit() and first in names:
            raise Refused(f"the query gives the column '{first}' twice; name each column once with AS")


def _without_end(sql: str) -> str:
    """The statement without the `;` at its end."""
    stripped = sql.strip()
    return stripped[:-1].rstrip() if stripped.endswith(";") else stripped


def _escaped(statement: str) -> str:
    """For `text()`, which would take `:name` for a parameter."""
    return statement.replace(":", r"\:")


def _next_size(rows: Rows) -> int:
    """How many rows to fetch now, to come near the size of a batch."""
    sample = rows[:: max(1, len(rows) // 20)]
    size = sum(sys.getsizeof(value) for row in sample for value in row) / len(sample)
    return max(1, min(_MOST_ROWS, int(BATCH_BYTES / max(size, 1))))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


# -- values of SQLite


def _fix(column: Column) -> Any:
    """What makes a value of SQLite one of its column's type, None when there is nothing to do."""
    return _FIXES.get(column.type.kind)


def _as_bool(value: Any) -> bool:
    if value in (0, 1) and not isinstance(value, float):
        return bool(value)
    raise ValueError("is neither 0 nor 1")


def _as_int(value: Any) -> int:
    if isinstance(value, int):
        return value
    raise ValueError("is no whole number")


def _as_float(value: Any) -> float:
    if isinstance(value, float):
        return value
    if isinstance(value, int) and abs(value) <= _EXACT_FLOAT:
        return float(value)
    raise ValueError("is no number that a float holds")


def _as_decimal(value: Any) -> Decimal:
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, float) and math.isfinite(value):
        return Decimal(repr(value))
    if isinstance(value, str):
        with contextlib.suppress(ArithmeticError):
            return Decimal(value)
    raise ValueError("is no decimal number")


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("is no text")


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    raise ValueError("is no blob")


_FIXES: dict[str, Any] = {
    "bool": _as_bool,
    "int": _as_int,
    "float": _as_float,
    "decimal": _as_decimal,
    "text": _as_text,
    "bytes": _as_bytes,
    "date": _as_text,
    "time": _as_text,
    "timestamp": _as_text,
}
