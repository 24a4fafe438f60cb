"""Reads from PostgreSQL: one read-only transaction, whose snapshot all parts of a split share; bytes by COPY."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ..errors import Cancelled, TaskFailed, near
from . import postgres_stream as stream
from .base import BadValue, Gone, Lane, Part, Query, Reader, Refused, Rows, Session
from .postgres_connection import connect
from .postgres_errors import short, told
from .types import Column, Schema

if TYPE_CHECKING:
    import psycopg
    import pyarrow
    from psycopg.pq.abc import PGresult
    from sqlalchemy import URL

_LANES: tuple[Lane, ...] = ("pg_binary", "pg_text", "csv", "arrow", "rows")
_COPY_OPTIONS: dict[Lane, str] = {"pg_binary": "FORMAT binary", "pg_text": "FORMAT text", "csv": "FORMAT csv"}
_CANCEL_SECONDS = 1.5
_MOST_ENDS = 20
_CUT_NAME = "42622"
_DENIED = re.compile(r"permission denied for (?P<kind>[a-z ]*?(?:table|view|schema|sequence|function)) (?P<name>.+)")
_RIGHTS = {"schema": "USAGE ON SCHEMA", "function": "EXECUTE ON FUNCTION", "sequence": "SELECT ON SEQUENCE"}
_NOT_ALLOWED = "42501"


class PostgresReader(Reader):
    """A database of PostgreSQL. Who stops in the middle of rows closes it."""

    dialect = "postgresql"

    def __init__(self, url: URL, session: Session, settings: Any = None) -> None:
        self._session, self._settings = session, settings
        self._name = url.database or url.username or "postgresql"
        self._is_cancelled = False
        self._bodies: dict[str, str] = {}
        self._tables: dict[tuple[str | None, str], tuple[str, str]] = {}
        self._notices: list[tuple[str | None, str]] = []
        self._connection = connect(url, session, settings)
        self._connection.add_notice_handler(self._noticed)
        try:
            with self._telling("the session of the source"):
                self._set()
                self._begin()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"PostgresReader({self._name})"

    # -- the session

    def _set(self) -> None:
        lock_seconds = getattr(self._settings, "lock_timeout_seconds", None) or self._session.lock_timeout_seconds
        values = {
            "default_transaction_read_only": "on",
            "lock_timeout": str(round(lock_seconds * 1000)),
            "idle_in_transaction_session_timeout": "0",  # a slow sink, or other parts, keep it waiting
            "row_security": "off" if getattr(self._settings, "strict_rls", True) else "on",
            "client_min_messages": "notice",
        }
        schema = getattr(self._settings, "schema_name", None)
        if schema:
            path = self._connection.execute("select current_setting('search_path')").fetchone()
            values["search_path"] = ", ".join([self.quoted(schema), *(path or ())])
        listed = ", ".join(f"set_config('{name}', %s, false)" for name in values)
        self._connection.execute(f"select {listed}".encode(), list(values.values()))

    def _begin(self, snapshot: str | None = None) -> None:
        self._connection.execute("begin isolation level repeatable read read only")
        if snapshot is not None:
            self._connection.execute(f"set transaction snapshot {self.literal(snapshot)}".encode())

    def at(self, part: Part) -> None:
        if part.snapshot is None:
            return
        import psycopg

        with self._telling("the snapshot of the parts"):
            self._connection.execute("rollback")
            try:
                self._begin(part.snapshot)
            except (psycopg.errors.InvalidParameterValue, psycopg.errors.UndefinedObject):
                raise Gone(
                    "the snapshot of the parts is gone: the session that made them has ended; read them all again"
                ) from None

    def cancel(self) -> None:
        self._is_cancelled = True
        try:
            self._connection.cancel_safe(timeout=_CANCEL_SECONDS)
        except Exception:  # nobody answers: let whoever waits for the server see an end
            with contextlib.suppress(Exception), socket.socket(fileno=os.dup(self._connection.fileno())) as ours:
                ours.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.close()

    # -- columns

    def describe(self, query: Query) -> Schema:
        with self._telling("the query of the source"):
            statement = self.statement(query)
            found = self._prepared(statement, "the query of the source")
            own = self._own_columns(query)
            columns = self._columns(found, own)
            _refuse_twice(columns)
            self._refuse_denied(statement)
        names = {one.name for one in columns}
        keys = own.keys if own is not None and set(own.keys) <= names and not _renamed(query, own.keys, self) else ()
        return Schema(tuple(columns), keys, own.comment if own is not None else "")

    def statement(self, query: Query) -> str:
        """The whole statement that is sent, without an end, so that it can stand within another one.

        Raises:
            Refused: it is no single statement that gives rows; the table is not there, or may not be read.
        """
        if query.most is not None:
            return f"SELECT * FROM ({self.statement(replace(query, most=None))}\n) AS few LIMIT {query.most}"
        if query.sql is not None:
            body = self._body(query.sql)
            if not query.where and not query.columns:
                return body
            source = f"({body}\n) AS q"
        else:
            source = ".".join(self.quoted(one) for one in self.table(query))
        columns = ", ".join(f"{sql} AS {self.quoted(name)}" for name, sql in query.columns) or "*"
        where = " AND ".join(f"({one}\n)" for one in query.where)
        return f"SELECT {columns} FROM {source}{f' WHERE {where}' if where else ''}"

    def _body(self, sql: str) -> str:
        """The statement without the `;` at its end; whether it is one, and where it ends, the server says."""
        if sql not in self._bodies:
            if not sql.strip():
                raise Refused("the query of the source is empty; write one SELECT")
            if "\0" in sql:
                raise Refused("the query of the source has a NUL character, which PostgreSQL cannot read; take it out")
            found = self._prepared(sql, "the query of the source", places=True)
            if found.nparams:
                raise Refused(
                    f"the query of the source has {found.nparams} parameters ($1), which nobody fills; write their values"
                )
            if not found.nfields:
                raise Refused("the query of the source gives no rows; write a SELECT")
            self._bodies[sql] = self._embeddable(sql)
        return self._bodies[sql]

    def _embeddable(self, sql: str) -> str:
        """Take `;` away from the end until the statement can stand in parentheses; more of them are in comments."""
        import psycopg

        text, at = sql, len(sql)
        for _ in range(_MOST_ENDS):
            try:
                with self._trying():
                    stream.describe(self._connection, f"({text}\n)")
            except psycopg.errors.SyntaxError:
                at = sql.rfind(";", 0, at)
                if at < 0:
                    break
                text = text[:at] + " " + text[at + 1 :]
            else:
                return text
        raise Refused(
            "the query of the source is no SELECT, VALUES or TABLE, which alone can be read here; write a SELECT"
        )

    def _prepared(self, sql: str, what: str, *, places: bool = False) -> PGresult:
        """The columns of a statement; with `places` an error says where in it."""
        import psycopg

        self._notices.clear()
        try:
            with self._trying():
                found = stream.describe(self._connection, sql)
        except psycopg.Error as error:
            position = int(error.diag.statement_position or 0)
            raise self._told(error, _placed(what, sql, position) if position and places else what) from None
        for state, text in self._notices:
            if state == _CUT_NAME:
                raise Refused(f"{what}: {text}; PostgreSQL takes 63 bytes: shorten the name")
        return found

    def _columns(self, found: PGresult, own: Schema | None) -> list[Column]:
        from .postgres_types import types

        places = [(found.ftype(n), found.fmod(n)) for n in range(found.nfields)]
        known = types(self._connection, set(places))
        names = self._own_names(found) if own is not None else {}
        columns = []
        for n, place in enumerate(places):
            column = Column((found.fname(n) or b"").decode(), known[place])
            of = names.get((found.ftable(n), found.ftablecol(n)))
            if own is not None and of is not None and of in own:
                column = replace(column, nullable=own[of].nullable, comment=own[of].comment)
            columns.append(column)
        return columns

    def _own_names(self, found: PGresult) -> dict[tuple[int, int], str]:
        """The names of the columns of a table, by its OID and their numbers."""
        tables = list({found.ftable(n) for n in range(found.nfields)} - {0})
        sql = "select attrelid, attnum, attname::text from pg_attribute where attrelid = any(%s::oid[])"
        return {(row[0], row[1]): row[2] for row in self._connection.execute(sql, [tables])}

    def _own_columns(self, query: Query) -> Schema | None:
        """The columns of the table that is read, at their own numbers; None when it is a statement."""
        if query.table is None:
            return None
        from .postgres_types import table_schema

        own = table_schema(self._connection, *self.table(query))
        assert own is not None
        return own

    def table(self, query: Query) -> tuple[str, str]:
        """The schema and name of the table that is read, which is there and may be read.

        Raises:
            Refused: it is not.
        """
        assert query.table is not None, "a query has a statement or a table"
        if query.table not in self._tables:
            self._tables[query.table] = self._found(*query.table)
        return self._tables[query.table]

    def _found(self, schema: str | None, name: str) -> tuple[str, str]:
        shown = ".".join(one for one in (schema, name) if one)
        row = self._row(_FIND, {"schema": schema, "name": name})
        if row is None:
            raise Refused(f"the source has no table '{shown}'{self._near(schema, name)}")
        schema, may_look, may_read, role = str(row[0]), row[1], row[2], row[3]
        if not may_look:
            raise Refused(
                f"the table '{shown}' may not be read; run: GRANT USAGE ON SCHEMA {self.quoted(schema)} TO {role}"
            )
        if not may_read:
            table = f"{self.quoted(schema)}.{self.quoted(name)}"
            raise Refused(f"the table '{shown}' may not be read; run: GRANT SELECT ON {table} TO {role}")
        return schema, name

    def _near(self, schema: str | None, name: str) -> str:
        rows = self._connection.execute(_TABLES.encode(), {"schema": schema}).fetchall()
        hint = near(name, [row[0] for row in rows])
        return f"; {hint}" if hint else ""

    def _refuse_denied(self, statement: str) -> None:
        """Open the statement, which reads nothing yet, to learn what may not be read or is no plain reading."""
        import psycopg

        try:
            with self._trying():
                stream.ask(self._connection, f"DECLARE rainbow_probe NO SCROLL CURSOR FOR {statement}")
        except psycopg.Error as error:
            raise self._told(error, "the query of the source") from None

    def _told(self, error: psycopg.Error, doing: str) -> TaskFailed:
        """The error, with what to grant when it is about a right."""
        made = told(error, doing)
        return Refused(made.message + self._grant(error)) if error.sqlstate == _NOT_ALLOWED else made

    def _grant(self, error: psycopg.Error) -> str:
        role = (self._row("select quote_ident(current_user)", {}) or ("",))[0]
        text = error.diag.message_primary or ""
        if "row-level security" in text:
            return f"; its policies hide rows from the role; run: ALTER ROLE {role} BYPASSRLS, or read as its owner"
        found = _DENIED.search(text)
        if found is None:
            return ""
        return f"; run: GRANT {_RIGHTS.get(found['kind'], 'SELECT ON')} {found['name']} TO {role}"

    # -- rows

    def lanes(self) -> tuple[Lane, ...]:
        return _LANES

    def chunks(self, query: Query, schema: Schema, lane: Lane) -> Iterator[bytes]:
        yield from self._copied(query, lane)

    def batches(self, query: Query, schema: Schema) -> Iterator[pyarrow.RecordBatch]:
        from .postgres_csv import BLOCK_BYTES, batches

        yield from batches(self._copied(query, "csv", size=BLOCK_BYTES), schema)

    def _copied(self, query: Query, lane: Lane, *, size: int = stream.CHUNK_BYTES) -> Iterator[bytes]:
        self.count, self.passed = None, 0
        with self._telling("reading the source"):
            sql = f"COPY ({self.statement(query)}\n) TO STDOUT ({_COPY_OPTIONS[lane]})"
            is_binary = lane == "pg_binary"
            self.count = yield from stream.copied(
                self._connection, sql, self._is_stopped, is_binary=is_binary, size=size, passed=self._pass
            )

    def _pass(self, rows: int) -> None:
        self.passed = (self.passed or 0) + rows

    def rows(self, query: Query, schema: Schema) -> Iterator[Rows]:
        self.count = None
        count = 0
        with self._telling("reading the source"):
            for some in stream.fetched(self._connection, self.statement(query), schema, self._is_stopped):
                count += len(some)
                yield some
        self.count = count

    # -- questions

    def value(self, sql: str) -> Any:
        with self._telling("the source was asked"), self._trying():
            result = stream.ask(self._connection, sql)
            if not result.ntuples or not result.nfields:
                return None
            return stream.Values(self._connection).rows(result)[0][0]

    def literal(self, value: Any) -> str:
        match value:
            case None:
                return "NULL"
            case bool():
                return "TRUE" if value else "FALSE"
            case int():
                return str(value) if value >= 0 else f"({value})"
            case float():
                return f"'{value!r}'::double precision" if math.isfinite(value) else f"'{value}'::double precision"
            case Decimal():
                return f"'{value}'::numeric"
            case bytes() | bytearray() | memoryview():
                return f"'\\x{bytes(value).hex()}'::bytea"
            case datetime():
                return f"'{value.isoformat(' ')}'::timestamp{'' if value.tzinfo is None else 'tz'}"
            case date():
                return f"'{value.isoformat()}'::date"
            case time():
                return f"'{value.isoformat()}'::time{'' if value.tzinfo is None else 'tz'}"
            case timedelta():
                return f"'{value // timedelta(microseconds=1)} microseconds'::interval"
            case UUID():
                return f"'{value}'::uuid"
            case str():
                return _text(value)
            case _:
                raise BadValue(f"a value of type {type(value).__name__} cannot be written as SQL: {short(value)}")

    def estimate(self, query: Query) -> int | None:
        with contextlib.suppress(TaskFailed), self._telling("the plan of the query"), self._trying():
            result = stream.ask(self._connection, f"EXPLAIN (FORMAT JSON) {self.statement(query)}")
            plan = json.loads(b"".join(result.get_value(n, 0) or b"" for n in range(result.ntuples)))
            return int(plan[0]["Plan"]["Plan Rows"])
        return None

    def parts(self, query: Query, schema: Schema, split: Mapping[str, Any]) -> list[Part]:
        from .postgres_parts import parts

        with self._telling("the parts of the query"):
            made = parts(self, query, schema, split)
        snapshot = self.snapshot()
        return [replace(one, snapshot=snapshot) for one in made]

    def snapshot(self) -> str | None:
        with self._telling("the snapshot of the parts"):
            answer = stream.ask(self._connection, "select pg_export_snapshot()")  # which no savepoint may be around
            return (answer.get_value(0, 0) or b"").decode()

    def all(self, sql: str) -> Rows:
        """All rows of a small answer."""
        with self._telling("the source was asked"), self._trying():
            return stream.Values(self._connection).rows(stream.ask(self._connection, sql))

    # -- pieces

    def _is_stopped(self) -> bool:
        return self._is_cancelled or self._session.stop.is_set()

    def _noticed(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        self._notices.append((diagnostic.sqlstate, diagnostic.message_primary or ""))

    def _row(self, sql: str, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        return self._connection.execute(sql.encode(), values).fetchone()

    @contextlib.contextmanager
    def _trying(self) -> Iterator[None]:
        """What fails here leaves the transaction, and with it the snapshot, as it was."""
        self._connection.execute("savepoint rainbow")
        try:
            yield
        finally:
            with contextlib.suppress(Exception):
                self._connection.execute("rollback to savepoint rainbow")
                self._connection.execute("release savepoint rainbow")

    @contextlib.contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        """Errors of the server as those of a load."""
        import psycopg

        try:
            yield
        except Cancelled:  # also when `cancel` came before the server had begun
            with contextlib.suppress(Exception):
                self._connection.cancel_safe(timeout=_CANCEL_SECONDS)
            self._connection.close()  # a server that waits for somebody to read its rows does not look at a cancel
            raise
        except psycopg.Error as error:
            if self._is_stopped():
                raise Cancelled("cancelled; nothing was written") from None
            raise told(error, doing) from None


_FIND = """
select n.nspname::text, has_schema_privilege(n.oid, 'USAGE'),
    has_table_privilege(c.oid, 'SELECT') or has_any_column_privilege(c.oid, 'SELECT'), quote_ident(current_user)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relname = %(name)s and c.relkind in ('r', 'p', 'v', 'm', 'f')
and (n.nspname = %(schema)s or %(schema)s::text is null and pg_table_is_visible(c.oid))
"""

_TABLES = """
select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname not in ('pg_catalog', 'information_schema')
and (n.nspname = %(schema)s or %(schema)s::text is null and pg_table_is_visible(c.oid)) limit 1000
"""


def _text(value: str) -> str:
    if "\0" in value:
        raise BadValue(f"text of PostgreSQL cannot hold U+0000: {short(value)}")
    return "'" + value.replace("'", "''") + "'"


def _placed(what: str, sql: str, position: int) -> str:
    """With line and column, from 1, of the character at this position, from 1."""
    before = sql[: position - 1]
    return f"{what}, line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"


def _refuse_twice(columns: list[Column]) -> None:
    """Two columns of one name could not be told apart in a table.

    Raises:
        Refused: there are such.
    """
    seen: dict[str, int] = {}
    for number, one in enumerate(columns, 1):
        if one.name in seen:
            raise Refused(
                f"the columns {seen[one.name]} and {number} of the query are both named '{one.name}'; name each once with AS"
            )
        seen[one.name] = number


def _renamed(query: Query, keys: tuple[str, ...], reader: Reader) -> bool:
    """Whether a name of the key is that of another expression."""
    given = dict(query.columns)
    return any(one in given and given[one] not in (one, reader.quoted(one)) for one in keys)
