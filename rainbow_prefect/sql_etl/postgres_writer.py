"""Writes into PostgreSQL: the claim, the rows and the state in one transaction, by COPY."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled, near
from . import postgres_ledger as ledger
from . import postgres_rights as rights
from .base import BadValue, Constraint, Counts, Job, Lane, Passing, Refused, Rows, Session, Writer
from .history import as_made
from .ledger import NAME as LEDGER
from .postgres_ddl import alter_table, create_table, refuse_long_names
from .postgres_errors import short, told
from .postgres_ledger import Claim, lock_key, quoted
from .postgres_load import KEYS_SHOWN, Load, Step, Strategy, Table, load, names, stage_of
from .postgres_replace import asked_strategy, carried, strategy
from .types import Column, Schema

if TYPE_CHECKING:
    import psycopg
    import pyarrow
    from sqlalchemy import URL

    Connection = psycopg.Connection[tuple[Any, ...]]

_LANES: tuple[Lane, ...] = ("pg_binary", "pg_text", "csv", "arrow", "rows")
_LOST = ("", "08", "57P")
_LOOK_UP_SECONDS = 30.0
_CANCEL_SECONDS = 2.0
_IDLE_MINUTES = 15
_ADD_LABEL = re.compile(r"\s*alter\s+type\s.+\sadd\s+value\s", re.IGNORECASE | re.DOTALL)
_TABLE_PART = "(table)"
"""The part under which the ledger knows who made the table, where parts of a run load it at once."""


class PostgresWriter(Writer):
    """A database of PostgreSQL."""

    dialect = "postgresql"

    def __init__(self, url: URL, session: Session, settings: Any = None) -> None:
        self._url, self._session, self._settings = url, session, settings
        self._connection = self._connect()
        self._is_cancelled = False
        self._is_begun = False
        self._job: Job | None = None
        self._table: Table | None = None
        self._load: Load | None = None
        self._claim: Claim | None = None
        self._schema = ""
        self._strategy: Strategy = "truncate"
        self._counts: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"PostgresWriter({self._url.render_as_string(hide_password=True)})"

    # -- what is there

    def describe(self, table: tuple[str | None, str]) -> Schema | None:
        with self._telling(_shown(table)):
            return self._described(self._schema_of(table), table[1])

    def lanes(self) -> tuple[Lane, ...]:
        return _LANES

    def type_of(self, column: Column) -> str:
        from .postgres_types import type_of

        return type_of(column)

    def ddl(self, job: Job) -> list[str]:
        refuse_long_names(job)
        return create_table(as_made(job, self.dialect), self._schema_of(job.table))

    def plan(self, job: Job, existing: Schema | None) -> list[str]:
        with self._telling(_shown(job.table)):
            schema = self._schema_of(job.table)
            table = self._table_of(job, schema, existing or job.schema, is_new=existing is None)
            chosen = self._chosen(job, table)
        return load(job, table, strategy=chosen).statements("pg_binary")

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with self._telling("the sink was asked"):
            return self._connection.execute(sql.encode()).fetchall()

    def staged(self) -> str:
        return self._begun_load().into

    def do(self, sql: str) -> int:
        with self._telling(str(self._table or "the sink")):
            return self._connection.execute(sql.encode()).rowcount

    def constraints(self, table: tuple[str | None, str]) -> list[Constraint]:
        with self._telling(_shown(table)):
            rows = self._connection.execute(
                _CONSTRAINTS.encode(), [quoted(self._schema_of(table), table[1])]
            ).fetchall()
        return [
            Constraint(name, tuple(columns), sql, (schema, other) if other else None, tuple(others or ()))
            for name, columns, sql, schema, other, others in rows
        ]

    def alter(self, job: Job, added: Sequence[Column], widened: Sequence[Column]) -> list[str]:
        with self._telling(_shown(job.table)):
            return alter_table(job, self._schema_of(job.table), added, widened)

    def state(self, job: Job) -> Mapping[str, Any]:
        with self._telling("the ledger"):
            return ledger.state(self._connection, self._schema_of(job.table), job)

    def forget(self, job: Job) -> int:
        with self._telling("the ledger"):
            return ledger.forget(self._connection, self._schema_of(job.table), job)

    # -- a load

    def begin(self, job: Job, existing: Schema | None, changes: Sequence[str] = ()) -> bool:
        self._job = job
        self._counts = {}
        ledger.refuse_long_keys(job)
        refuse_long_names(job)
        with self._telling(_shown(job.table)):
            self._schema = self._schema_of(job.table)
        with self._telling(_shown((self._schema, job.table[1]))):
            if existing is not None and changes:
                existing = self._described(self._schema, job.table[1])
            existing = self._ready(job, existing, changes)
            self._open()
            if job.serial:
                self._run(f"SELECT pg_advisory_xact_lock({lock_key(self._schema, LEDGER, job.name)})")
            self._claim = ledger.claim(self._connection, self._schema, job, f"{self._schema}.{job.table[1]}")
            if self._claim is None:
                self.rollback()
                return False
            for statement in changes:
                if not _ADD_LABEL.match(statement):
                    self._run(statement)
            self._table = self._made(job, existing, changes)
            _refuse_columns(job, self._table)
            self._load = load(job, self._table, strategy=self._strategy, is_again=self._claim.is_again)
            for lock in self._load.locks:
                self._run(lock)
            self._step(self._load.before)
        return True

    def _ready(self, job: Job, existing: Schema | None, changes: Sequence[str]) -> Schema | None:
        """Refuse what cannot be done, and do what no transaction of a load can hold."""
        where = _shown((self._schema, job.table[1]))
        self._run(f"SET lock_timeout = {round(self._lock_seconds() * 1000)}")
        rights.refuse_read_only(self._connection, where)
        if job.options.get("create_schema"):
            self._run(f"CREATE SCHEMA IF NOT EXISTS {quoted(self._schema)}")
        rights.refuse_missing_schema(self._connection, self._schema, where)
        table = None if existing is None else self._table_of(job, self._schema, existing)
        planned = None
        if table is not None:
            self._strategy = self._chosen(job, table)
            known = set(job.schema.names) <= set(table.columns.names)
            planned = load(job, table, strategy=self._strategy) if known else None
        rights.refuse_missing_rights(self._connection, job, self._schema, table, load=planned, strategy=self._strategy)
        ledger.create(self._connection, self._schema)
        for statement in changes:
            if _ADD_LABEL.match(statement):
                self._run(statement)
        if existing is None and job.part != "all":
            return self._made_apart(job)
        return existing

    def _made_apart(self, job: Job) -> Schema | None:
        """Make the table in a transaction of its own: other parts of the run load it at the same time."""
        with self._connection.transaction():
            self._run(f"SELECT pg_advisory_xact_lock({lock_key(self._schema, job.table[1], 'make')})")
            found = self._described(self._schema, job.table[1])
            if found is not None:
                return found
            own = replace(job, part=_TABLE_PART)
            if ledger.claim(self._connection, self._schema, own, f"{self._schema}.{job.table[1]}") is not None:
                ledger.close(self._connection, self._schema, own, Counts(), None)
            for statement in create_table(as_made(job, self.dialect), self._schema):
                self._run(statement)
            return self._described(self._schema, job.table[1])

    def _open(self) -> None:
        self._run("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
        self._is_begun = True
        self._run(f"SET LOCAL lock_timeout = {round(self._lock_seconds() * 1000)}")
        self._run(f"SET LOCAL idle_in_transaction_session_timeout = '{_IDLE_MINUTES}min'")
        # Keys of millions of rows are looked at once; in the few MiB of the default that goes through the disk.
        self._run(
            "SELECT set_config('work_mem', '64MB', true) WHERE pg_size_bytes(current_setting('work_mem')) < 67108864"
        )

    def _made(self, job: Job, existing: Schema | None, changes: Sequence[str]) -> Table:
        """The table as it is now, in the transaction; made when it is missing."""
        is_new = False
        if existing is None:
            self._run(f"SELECT pg_advisory_xact_lock({lock_key(self._schema, job.table[1], 'make')})")
            existing = self._described(self._schema, job.table[1])
            is_new = existing is None
            for statement in create_table(as_made(job, self.dialect), self._schema) if is_new else ():
                self._run(statement)
        if is_new or changes:
            existing = self._described(self._schema, job.table[1])
        assert existing is not None
        if job.mode == "fail" and not is_new and not self._is_ours(job):
            raise Refused(
                f"{_shown((self._schema, job.table[1]))} exists, and mode fail wants a new one;"
                " use another mode or another table; nothing was written"
            )
        return self._table_of(job, self._schema, existing, is_new=is_new)

    def _is_ours(self, job: Job) -> bool:
        """Whether this run made the table: an earlier load of this part, or another part of the same run."""
        if self._claim is not None and self._claim.is_again:
            return True
        row = self._connection.execute(
            f"select from {quoted(self._schema, LEDGER)} where job = %s and run_key = %s and part = %s".encode(),
            [job.name, job.run_key, _TABLE_PART],
        ).fetchone()
        return row is not None

    def write_rows(self, rows: Iterable[Rows]) -> int:
        from .postgres_text import lines

        job = self._begun_job()
        return self._copy("rows", lines(rows, job.schema.names, str(self._table), secret=self._secret()))

    def write_chunks(self, chunks: Iterable[bytes], lane: Lane) -> int:
        if lane == "pg_binary":
            with self._telling(str(self._table)):
                self._refuse_other_types()
        return self._copy(lane, _whole(chunks, lane))

    def write_batches(self, batches: Iterable[pyarrow.RecordBatch]) -> int:
        from .postgres_arrow import pieces

        assert self._table is not None
        with self._telling(str(self._table)):
            lane, made = pieces(batches, self._begun_job().schema.names, self._table, secret=self._secret())
        return self._copy(lane, made)

    def _copy(self, lane: Lane, pieces: Iterable[bytes]) -> int:
        unit = "line" if lane == "csv" else "row"
        self._refuse_ended()
        with self._telling(str(self._table), unit=unit, secret=self._secret()):
            cursor = self._connection.cursor()
            with cursor.copy(self._begun_load().copy(lane).encode()) as copy:
                for one in pieces:
                    self._refuse_cancelled()
                    copy.write(one)
            rows = int((cursor.statusmessage or "").rpartition(" ")[2])
        self._counts["copied"] = rows
        return rows

    def take(self, table: tuple[str | None, str]) -> int:
        made = self._begun_load()
        self._refuse_ended()
        columns = names(made.columns)
        stage = quoted(self._schema, table[1])
        with self._telling(str(self._table), secret=self._secret()):
            sql = f"INSERT INTO {made.into} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {stage}"
            rows = self._connection.execute(sql.encode()).rowcount
        self._counts["copied"] = rows
        return rows

    def drop(self, table: tuple[str | None, str]) -> None:
        with self._telling(_shown(table)):
            self._run(f"DROP TABLE IF EXISTS {quoted(self._schema_of(table), table[1])}")

    def _refuse_other_types(self) -> None:
        """PostgreSQL takes the bytes of one type for those of another of the same size.

        Raises:
            Refused: there are such columns.
        """
        from .postgres_types import is_binary_equal

        assert self._table is not None
        columns = self._table.columns
        wrong = [
            f"column '{one.name}' is {one.type} and {columns[one.name].type} in the table"
            for one in self._begun_job().schema.columns
            if not is_binary_equal(one, columns[one.name])
        ]
        if wrong:
            raise Refused(f"{self._table}: binary COPY needs equal types: {'; '.join(wrong)}; use another engine")

    def finish(self, counts: Counts) -> Counts:
        made = self._begun_load()
        self._refuse_ended()
        with self._telling(str(self._table), secret=self._secret()):
            if made.unwanted is not None:
                self._refuse_unwanted(made.unwanted)
            self._step(made.after)
            if not any(one.gives for one in made.after):
                self._counts["inserted"] = self._counts.get("copied", 0) - counts.quarantined
        found = self._counts
        written = found.get("inserted", 0) + found.get("updated", 0)
        return replace(
            counts,
            written=written,
            inserted=found.get("inserted"),
            updated=found.get("updated"),
            deleted=found.get("deleted"),
        )

    def _refuse_unwanted(self, sql: str) -> None:
        rows = self._connection.execute(sql.encode()).fetchall()
        if not rows:
            return
        keys = self._begun_job().keys
        secret = set(self._secret())
        shown = []
        for _, times, is_empty, *values in rows:
            key = ", ".join(
                f"{name}={'***' if name in secret else 'NULL' if value is None else short(value)}"
                for name, value in zip(keys, values, strict=True)
            )
            shown.append(f"({key})" + ("" if is_empty and times == 1 else f" {times} times"))
        more = ", ..." if rows[0][0] > KEYS_SHOWN else ""
        raise BadValue(
            f"{self._table}: {rows[0][0]} of the keys that came occur more than once or are empty: {', '.join(shown)}{more};"
            " leave the rows out in the query, or choose other `keys`; nothing was written"
        )

    def _step(self, steps: Iterable[Step]) -> None:
        for one in steps:
            cursor = self._connection.execute(one.sql.encode())
            row = cursor.fetchone() if cursor.description else (cursor.rowcount,)
            for name, number in zip(one.gives, row or (), strict=False):
                self._counts[name] = self._counts.get(name, 0) + number

    def commit(self, counts: Counts, state: Mapping[str, Any] | None = None) -> None:
        job = self._begun_job()
        self._refuse_ended()
        with self._telling(str(self._table), secret=self._secret()):
            self._swap()
            self._sync_sequences()
            ledger.close(self._connection, self._schema, job, counts, state)
            self._refuse_cancelled()
            self._commit(job)
        self._is_begun = False

    def _commit(self, job: Job) -> None:
        import psycopg

        try:
            ended = self._run("COMMIT")
        except psycopg.Error as error:
            if not (error.sqlstate or "").startswith(_LOST[1:]) and error.sqlstate:
                raise
            self._look_up(job, error)
            return
        if ended != "COMMIT":
            self._is_begun = False
            self._refuse_ended()

    def _look_up(self, job: Job, error: psycopg.Error) -> None:
        """Ask the ledger whether the load was committed, on a new connection, for a while when nobody answers.

        Raises:
            Passing: it was not, or nobody answers: the next attempt will find out.
        """
        import psycopg

        assert self._claim is not None
        deadline = time.monotonic() + _LOOK_UP_SECONDS
        while True:
            try:
                with contextlib.closing(self._connect()) as fresh:
                    fresh.execute(f"SET lock_timeout = {round(_LOOK_UP_SECONDS * 1000)}".encode())
                    if ledger.is_committed(fresh, self._schema, job, self._claim):
                        self._session.say(f"{self._table}: the connection was lost at the commit, which the ledger has")
                        return
                    raise Passing(f"{told(error, str(self._table)).message}; nothing was written")
            except (Passing, psycopg.Error) as lost:
                is_known = isinstance(lost, Passing) and "nothing was written" in lost.message
                if is_known or time.monotonic() > deadline or self._session.stop.wait(0.5):
                    raise lost if isinstance(lost, Passing) else told(lost, str(self._table)) from None

    def _swap(self) -> None:
        made, table, job = self._begun_load(), self._table, self._begun_job()
        if not made.last or table is None:
            return
        lock, *renames = made.last
        self._run(lock)
        later = carried(self._connection, table, quoted(self._schema, stage_of(job)))
        for statement in (*renames, *later):
            self._run(statement)

    def _sync_sequences(self) -> None:
        """Let the sequences of columns that were given go on after the highest value; never back."""
        job, table = self._begun_job(), self._table
        if not job.options.get("sync_sequences") or table is None:
            return
        for name in job.schema.names:
            if table.columns[name].generated not in ("always", "default", "serial"):
                continue
            column = quoted(name)
            self._connection.execute(
                f"select setval(s, m) from (select pg_get_serial_sequence(%s, %s)::regclass as s, max({column}) as m"
                f" from {table.quoted}) as found where m > coalesce(pg_sequence_last_value(s), 0)".encode(),
                [table.quoted, name],
            )

    def rollback(self) -> None:
        self._is_begun = False
        with contextlib.suppress(Exception):
            self._run("ROLLBACK")

    def cancel(self) -> None:
        self._is_cancelled = True
        with contextlib.suppress(Exception):
            self._connection.cancel_safe(timeout=_CANCEL_SECONDS)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.close()

    # -- pieces

    def _connect(self) -> Connection:
        from .postgres_connection import connect

        return connect(self._url, self._session, self._settings)

    def _lock_seconds(self) -> float:
        return float(getattr(self._settings, "lock_timeout_seconds", None) or self._session.lock_timeout_seconds)

    def _schema_of(self, table: tuple[str | None, str]) -> str:
        named = table[0] or getattr(self._settings, "schema_name", None)
        if named:
            return str(named)
        row = self._connection.execute("select current_schema()").fetchone()
        if row is None or row[0] is None:
            raise Refused(f"{_shown(table)}: no schema of the search path is there; name one with `schema`")
        return str(row[0])

    def _described(self, schema: str, name: str) -> Schema | None:
        from .postgres_types import table_schema

        return table_schema(self._connection, schema, name)

    def _table_of(self, job: Job, schema: str, columns: Schema, *, is_new: bool = False) -> Table:
        name = job.table[1]
        row = self._connection.execute(_SHAPE.encode(), [sorted(job.keys), quoted(schema, name)]).fetchone()
        kind, is_unique = row or ("r", bool(job.keys))
        if kind not in ("r", "p", "f"):
            raise Refused(f"table {schema}.{name} is a view, which takes no rows here; name the table it shows")
        return Table(schema, name, columns, is_unique and kind == "r", kind != "r", is_new)

    def _chosen(self, job: Job, table: Table) -> Strategy:
        asked = asked_strategy(job)
        if job.mode != "replace" or table.is_new:
            return "truncate"
        if job.part != "all":
            raise Refused(f"{table}: mode replace loads a table as a whole, not in parts; use mode delete_insert")
        return strategy(self._connection, table, asked)

    def _run(self, sql: str) -> str | None:
        return self._connection.execute(sql.encode()).statusmessage

    def _secret(self) -> tuple[str, ...]:
        return tuple(self._begun_job().options.get("secret_columns") or ())

    def _begun_job(self) -> Job:
        assert self._job is not None, "begin() comes first"
        return self._job

    def _begun_load(self) -> Load:
        assert self._load is not None, "begin() comes first"
        return self._load

    def _refuse_ended(self) -> None:
        """Outside of the transaction each statement would be one of its own."""
        if not self._is_begun:
            raise Passing(f"{self._table}: the transaction had failed and was rolled back; nothing was written")

    def _refuse_cancelled(self) -> None:
        if self._is_cancelled or self._session.stop.is_set():
            raise Cancelled("cancelled; nothing was written")

    @contextlib.contextmanager
    def _telling(self, doing: str, **more: Any) -> Iterator[None]:
        """Errors of the server as those of a load, which is rolled back."""
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            self._back()
            if error.sqlstate in (None, "57014"):
                self._refuse_cancelled()
            raise told(error, doing, **more) from None
        except BaseException:
            self._back()
            raise

    def _back(self) -> None:
        if self._is_begun:
            self.rollback()


_CONSTRAINTS = """
select conname::text, array(
        select a.attname::text from unnest(conkey) with ordinality k (n, at)
        join pg_attribute a on a.attrelid = conrelid and a.attnum = k.n order by k.at),
    case contype when 'c' then pg_get_expr(conbin, conrelid) end, ns.nspname::text, c.relname::text, array(
        select a.attname::text from unnest(confkey) with ordinality k (n, at)
        join pg_attribute a on a.attrelid = confrelid and a.attnum = k.n order by k.at)
from pg_constraint left join pg_class c on c.oid = confrelid left join pg_namespace ns on ns.oid = c.relnamespace
where conrelid = to_regclass(%s) and contype in ('c', 'f', 'u') and not condeferred order by contype, conname
"""

_SHAPE = """
select c.relkind::text, exists (
    select from pg_index i
    where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
    and %s::text[] = (
        select array_agg(a.attname::text order by a.attname::text collate "C")
        from pg_attribute a where a.attrelid = c.oid and a.attnum = any(i.indkey[0:i.indnkeyatts - 1]::int2[])
    )
) from pg_class c where c.oid = to_regclass(%s)
"""


def _shown(table: tuple[str | None, str]) -> str:
    return f"table {'.'.join(one for one in table if one)}"


def _refuse_columns(job: Job, table: Table) -> None:
    """Columns that are not there, or that must have a value and get none; by name, wherever they stand.

    Raises:
        Refused: there are such.
    """
    missing = [one for one in job.schema.names if one not in table.columns]
    if missing:
        hint = near(missing[0], table.columns.names, list_up_to=0)
        known = ", ".join(table.columns.names)
        listed = ", ".join(f"'{one}'" for one in missing)
        raise Refused(f"{table} has no column {listed} (columns: {known}); {hint or 'add it'}; nothing was written")
    needed = [
        one.name
        for one in table.columns.columns
        if one.name not in job.schema and not one.nullable and one.default is None and not one.generated
        if job.versions is None or one.name not in job.versions.names
    ]
    if needed:
        listed = ", ".join(f"'{one}'" for one in needed)
        raise Refused(
            f"{table} wants a value in {listed}, which the query does not give; select it, or give the column a default;"
            " nothing was written"
        )


def _whole(chunks: Iterable[bytes], lane: Lane) -> Iterator[bytes]:
    """The bytes as they come; a stream that ends before its end is no load, though the server would take it.

    Raises:
        Passing: it ended too early.
    """
    tail = b""
    for one in chunks:
        tail = (tail + bytes(one[-2:]))[-2:]
        yield one
    is_whole = tail == b"\xff\xff" if lane == "pg_binary" else tail[-1:] in (b"", b"\n")
    if not is_whole:
        raise Passing("the rows of the source ended in the middle; nothing was written")
