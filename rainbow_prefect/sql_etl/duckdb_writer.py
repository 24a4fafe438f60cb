"""Writes DuckDB in one transaction with the claim of the ledger: rows come as Arrow and go in batch by batch."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from . import arrow_types, history
from .base import BadValue, Constraint, Counts, Job, Mode, Passing, Refused, Rows, Session, Writer, refuse_existing
from .duckdb import asked, quoted, told
from .duckdb_reader import facts
from .duckdb_types import DIALECT, comment_of, spelled, type_of
from .ledger import NAME, ledger
from .types import Column, Schema

if TYPE_CHECKING:
    import pyarrow
    from duckdb import DuckDBPyConnection

STAGE = "_rainbow_stage"
_BATCH = "_rainbow_batch"
_SHOWN_KEYS = 5
_WITH_STAGE: tuple[Mode, ...] = ("insert_new", "upsert", "delete_insert", "scd2")


class DuckWriter(Writer):
    """One transaction: claim, data, state; a commit of DuckDB is all of it or nothing."""

    dialect = DIALECT

    def __init__(self, connection: DuckDBPyConnection, session: Session, schema: str | None = None) -> None:
        self._connection = connection
        self._session = session
        self._schema = schema
        self._job: Job | None = None
        self._existing: Schema | None = None
        self._row = 0

    # -- what is there

    def describe(self, table: tuple[str | None, str]) -> Schema | None:
        table = self._placed(table)
        columns = self._ask(
            "SELECT column_name, data_type, is_nullable, column_default FROM duckdb_columns() WHERE table_name = ?"
            " AND schema_name = coalesce(?, current_schema()) AND database_name = current_database() ORDER BY column_index",
            "the table cannot be looked at",
            [table[1], table[0]],
        )
        if not columns:
            return None
        comments, keys, _ = facts(self._connection, table)
        return Schema(
            tuple(
                Column(name, type_of(kind, comments.get(name, "")), bool(nullable), comments.get(name, ""), default)
                for name, kind, nullable, default in columns
            ),
            keys,
        )

    def _placed(self, table: tuple[str | None, str]) -> tuple[str | None, str]:
        return table[0] or self._schema, table[1]

    def lanes(self) -> tuple[Any, ...]:
        return ("arrow", "rows")

    def type_of(self, column: Column) -> str:
        return spelled(column)

    def ddl(self, job: Job) -> list[str]:
        job = history.as_made(job, self.dialect)
        table = quoted(*self._placed(job.table))
        columns = [
            f"{quoted(one.name)} {spelled(one)}{'' if one.nullable and one.name not in job.keys else ' NOT NULL'}"
            for one in job.schema.columns
        ]
        if job.keys:
            columns.append(f"PRIMARY KEY ({', '.join(map(quoted, job.keys))})")
        return [f"CREATE TABLE {table} ({', '.join(columns)})", *_comments(table, job.schema.columns)]

    def plan(self, job: Job, existing: Schema | None) -> list[str]:
        first = [] if existing is not None else self.ddl(job)
        table = quoted(*self._placed(job.table))
        if job.mode not in _WITH_STAGE:
            empty = [f"DELETE FROM {table}"] if job.mode == "replace" and existing is not None else []
            return [*first, *empty, f"INSERT INTO {table}"]
        if job.mode == "delete_insert" and job.where:
            return [*first, f"DELETE FROM {table} WHERE {' AND '.join(job.where)}", f"INSERT INTO {table}"]
        return [*first, f"INSERT INTO {STAGE}", *self._merging(job)]

    # -- a load

    def begin(self, job: Job, existing: Schema | None, changes: Sequence[str] = ()) -> bool:
        self._refuse(job, existing)
        self._job, self._existing, self._row = job, existing, 0
        self._make_ledger(job)
        try:
            self._ask("BEGIN TRANSACTION", "the load cannot begin")
            if not self._claim(job):
                self.rollback()
                return False
            refuse_existing(job, existing)
            for statement in [*changes, *([] if existing is not None else self.ddl(job))]:
                self._ask(statement, "the table cannot be made")
            if changes and existing is not None:
                self._existing = self.describe(job.table)
            self._prepare(job, existing)
        except BaseException:
            self.rollback()
            raise
        return True

    def _refuse(self, job: Job, existing: Schema | None) -> None:
        if job.mode in _WITH_STAGE and not job.keys and not (job.mode == "delete_insert" and job.where):
            raise Refused(f"`mode: {job.mode}` needs `keys`; name the columns that tell a row from others")
        if job.force and job.mode in ("append", "fail"):
            raise Refused(
                f"`mode: {job.mode}` cannot be forced: nothing tells the rows of that run; use replace or upsert"
            )
        lower: dict[str, str] = {}
        for one in job.schema.columns:
            other = lower.setdefault(one.name.lower(), one.name)
            if other != one.name:
                raise Refused(f"columns '{other}' and '{one.name}' differ in case only, which DuckDB does not see")

    def _ledger(self, job: Job) -> str:
        return quoted(self._placed(job.table)[0], NAME)

    def _make_ledger(self, job: Job) -> None:
        from sqlalchemy.dialects import postgresql
        from sqlalchemy.schema import CreateTable

        schema = self._placed(job.table)[0]
        known = self._ask(
            "SELECT 1 FROM duckdb_schemas() WHERE schema_name = coalesce(?, current_schema())"
            " AND database_name = current_database()",
            "the schema cannot be looked at",
            [schema],
        )
        if not known:
            raise Refused(f"there is no schema '{schema}'; make it: CREATE SCHEMA {quoted(schema)}")
        made = str(CreateTable(ledger(schema), if_not_exists=True).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
        self._ask(made, "the ledger cannot be made")

    def _claim(self, job: Job) -> bool:
        again = (
            "(job, run_key, part) DO UPDATE SET number = excluded.number, attempt = excluded.attempt, mode = excluded.mode,"
            " target = excluded.target, begun = excluded.begun, committed = NULL, state = NULL"
        )
        rows = self._ask(
            f"INSERT INTO {self._ledger(job)} (job, run_key, part, number, attempt, mode, target, begun)"
            f" SELECT ?, ?, ?, (SELECT coalesce(max(number), 0) + 1 FROM {self._ledger(job)} WHERE job = ?), ?, ?, ?, ?"
            f" ON CONFLICT {again if job.force else 'DO NOTHING'} RETURNING 1",
            "the part cannot be claimed",
            [
                *(job.name, job.run_key, job.part, job.name, job.attempt, job.mode),
                ".".join(one for one in job.table if one),
                _now(),
            ],
        )
        return bool(rows)

    def _prepare(self, job: Job, existing: Schema | None) -> None:
        table = quoted(*self._placed(job.table))
        if job.mode == "replace" and existing is not None:
            self._deleted = self._count(f"DELETE FROM {table}")
        elif job.mode == "delete_insert" and job.where and existing is not None:
            self._deleted = self._count(f"DELETE FROM {table} WHERE {' AND '.join(job.where)}")
        else:
            self._deleted = 0
        if self._has_stage(job):
            columns = ", ".join(f"{quoted(one.name)} {self._kind(one)}" for one in job.schema.columns)
            self._ask(f"CREATE OR REPLACE TEMP TABLE {STAGE} ({columns})", "the stage cannot be made")

    def _has_stage(self, job: Job) -> bool:
        if job.mode == "append":
            return job.stage
        return job.mode in _WITH_STAGE and not (job.mode == "delete_insert" and bool(job.where))

    def _kind(self, column: Column) -> str:
        """The type of a column in the table."""
        if self._existing is None or column.name not in self._existing:
            return spelled(column)
        return spelled(self._existing[column.name])

    def _count(self, sql: str) -> int:
        rows = self._ask(sql, "the table cannot be changed")
        return int(rows[0][0]) if rows else 0

    def _ask(self, sql: str, what: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        return asked(self._connection, sql, what, parameters)

    # -- rows

    def write_rows(self, rows: Iterable[Rows]) -> int:
        assert self._job is not None, "a load has begun"
        return self.write_batches(arrow_types.batches_of(rows, self._job.schema))

    def write_batches(self, batches: Iterable[pyarrow.RecordBatch]) -> int:
        job = self._job
        assert job is not None, "a load has begun"
        target = _taken(job.schema)
        names = ", ".join(map(quoted, job.schema.names))
        values = ", ".join(f"CAST({quoted(one.name)} AS {self._kind(one)})" for one in job.schema.columns)
        into = STAGE if self._has_stage(job) else quoted(*self._placed(job.table))
        statement = f"INSERT INTO {into} ({names}) SELECT {values} FROM {_BATCH}"
        for batch in batches:
            if self._session.stop.is_set():
                raise Passing("cancelled; nothing was written")
            fitting = arrow_types.conformed(batch, job.schema, target, self._row + 1)
            _refuse_nanoseconds(fitting, job.schema, self._row + 1)
            self._insert(statement, fitting)
            self._row += batch.num_rows
        return self._row

    def take(self, table: tuple[str | None, str]) -> int:
        job = self._job
        assert job is not None, "a load has begun"
        names = ", ".join(map(quoted, job.schema.names))
        self._row = self._count(
            f"INSERT INTO {self.staged()} ({names}) SELECT {names} FROM {quoted(*self._placed(table))}"
        )
        return self._row

    def drop(self, table: tuple[str | None, str]) -> None:
        self._ask(f"DROP TABLE IF EXISTS {quoted(*self._placed(table))}", "the stage cannot be removed")

    def _insert(self, statement: str, batch: Any) -> None:
        import duckdb
        import pyarrow

        try:
            self._connection.register(_BATCH, pyarrow.Table.from_batches([batch]))
            try:
                self._connection.execute(statement)
            finally:
                with contextlib.suppress(duckdb.Error):  # it cannot where the transaction has failed
                    self._connection.unregister(_BATCH)
        except duckdb.Error as error:
            last = self._row + batch.num_rows
            name = self._job.table[1] if self._job else ""
            raise told(error, f"the table '{name}' refuses one of the rows {self._row + 1} to {last}") from None

    # -- the end

    def finish(self, counts: Counts) -> Counts:
        job = self._job
        assert job is not None, "a load has begun"
        if not self._has_stage(job):
            counts.written = counts.inserted = self._row - counts.quarantined
            counts.updated, counts.deleted = 0, self._deleted
            return counts
        if job.mode in _WITH_STAGE:
            self._refuse_keys(job)
        done = {"DELETE": 0, "UPDATE": 0, "INSERT": 0}
        steps = history.steps(job, self, quoted(*self._placed(job.table)), STAGE) if job.mode == "scd2" else ()
        for sql, count in steps:
            done[{"deleted": "DELETE", "updated": "UPDATE", "inserted": "INSERT"}[count]] += self._count(sql)
        for statement in self._merging(job) if job.mode != "scd2" else ():
            done[statement.split()[0]] += self._count(statement)
        counts.inserted, counts.updated, counts.deleted = done["INSERT"], done["UPDATE"], done["DELETE"]
        counts.written = counts.inserted + counts.updated
        return counts

    def _merging(self, job: Job) -> list[str]:
        """The statements that bring the stage into the table: only what changed is written."""
        table = quoted(*self._placed(job.table))
        names = ", ".join(map(quoted, job.schema.names))
        every = f"INSERT INTO {table} ({names}) SELECT {names} FROM {STAGE}"
        if job.mode == "append":
            return [every]
        if job.mode == "scd2":
            return [sql for sql, _ in history.steps(job, self, table, STAGE)]
        same = " AND ".join(f"t.{quoted(one)} = s.{quoted(one)}" for one in job.keys)
        others = [quoted(one) for one in job.schema.names if one not in job.keys]
        unseen = f"INSERT INTO {table} ({names}) SELECT {names} FROM {STAGE} AS s WHERE NOT EXISTS"
        insert = f"{unseen} (SELECT 1 FROM {table} AS t WHERE {same})"
        if job.mode == "insert_new":
            return [insert]
        if job.mode == "delete_insert":
            return [f"DELETE FROM {table} AS t USING {STAGE} AS s WHERE {same}", every]
        if not others:
            return [insert]
        changed = " OR ".join(f"t.{one} IS DISTINCT FROM s.{one}" for one in others)
        values = ", ".join(f"{one} = s.{one}" for one in others)
        return [f"UPDATE {table} AS t SET {values} FROM {STAGE} AS s WHERE {same} AND ({changed})", insert]

    def _refuse_keys(self, job: Job) -> None:
        keys = ", ".join(map(quoted, job.keys))
        empty = " OR ".join(f"{quoted(one)} IS NULL" for one in job.keys)
        missing = self._count(f"SELECT count(*) FROM {STAGE} WHERE {empty}")
        if missing:
            raise BadValue(f"{missing} of the rows have no value in the keys {_listed(job.keys)}; nothing was written")
        if job.mode == "delete_insert":
            return
        doubled = self._ask(
            f"SELECT {keys}, count(*) FROM {STAGE} GROUP BY {keys} HAVING count(*) > 1 ORDER BY {keys}",
            "the keys cannot be looked at",
        )
        if doubled:
            shown = "; ".join(
                ", ".join(f"{name}={value}" for name, value in zip(job.keys, row, strict=False))
                for row in doubled[:_SHOWN_KEYS]
            )
            raise BadValue(f"{len(doubled)} keys occur more than once ({shown}); nothing was written: make them unique")

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return self._ask(sql, "the check cannot be done")

    def do(self, sql: str) -> int:
        rows = self._ask(sql, "a statement is refused")
        return rows[0][0] if rows and isinstance(rows[0][0], int) else 0

    def constraints(self, table: tuple[str | None, str]) -> list[Constraint]:
        schema, name = self._placed(table)
        rows = self._ask(
            "SELECT constraint_type, constraint_text, constraint_column_names, expression, referenced_table,"
            " referenced_column_names FROM duckdb_constraints() WHERE table_name = ?"
            " AND schema_name = coalesce(?, current_schema()) AND database_name = current_database()"
            " AND constraint_type IN ('CHECK', 'FOREIGN KEY', 'UNIQUE')",
            "the table cannot be looked at",
            [name, schema],
        )
        return [
            Constraint(
                text,
                tuple(columns),
                expression if kind == "CHECK" else None,
                (schema, other) if kind == "FOREIGN KEY" else None,
                tuple(others or ()) if kind == "FOREIGN KEY" else (),
            )
            for kind, text, columns, expression, other, others in rows
        ]

    def alter(self, job: Job, added: Sequence[Column], widened: Sequence[Column]) -> list[str]:
        table = quoted(*self._placed(job.table))
        return [
            *(f"ALTER TABLE {table} ADD COLUMN {quoted(one.name)} {spelled(one)}" for one in added),
            *(f"ALTER TABLE {table} ALTER COLUMN {quoted(one.name)} TYPE {spelled(one)}" for one in widened),
            *_comments(table, [*added, *widened]),
        ]

    def staged(self) -> str:
        assert self._job is not None, "a load has begun"
        return STAGE if self._has_stage(self._job) else quoted(*self._placed(self._job.table))

    def state(self, job: Job) -> Mapping[str, Any]:
        with contextlib.suppress(Refused):  # no ledger yet
            rows = self._ask(
                f"SELECT state FROM {self._ledger(job)} WHERE job = ? AND state IS NOT NULL AND committed IS NOT NULL"
                " ORDER BY number DESC LIMIT 1",
                "the state cannot be read",
                [job.name],
            )
            found: Mapping[str, Any] = json.loads(rows[0][0]) if rows else {}
            return found
        return {}

    def forget(self, job: Job) -> int:
        if not self.state(job):
            return 0
        rows = self._ask(
            f"UPDATE {self._ledger(job)} SET state = NULL WHERE job = ? AND state IS NOT NULL",
            "the state cannot be deleted",
            [job.name],
        )
        return int(rows[0][0]) if rows else 0

    def commit(self, counts: Counts, state: Mapping[str, Any] | None = None) -> None:
        job = self._job
        assert job is not None, "a load has begun"
        self._ask(
            f"UPDATE {self._ledger(job)} SET rows_read = ?, rows_written = ?, state = ?, committed = ?"
            " WHERE job = ? AND run_key = ? AND part = ?",
            "the ledger cannot be written",
            [
                *(
                    counts.read,
                    counts.written,
                    None if state is None else json.dumps(state, ensure_ascii=False),
                    _now(),
                ),
                *(job.name, job.run_key, job.part),
            ],
        )
        self._ask("COMMIT", "the load cannot be committed")
        self._job = None

    def rollback(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.rollback()

    def cancel(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.interrupt()

    def close(self) -> None:
        self.rollback()
        with contextlib.suppress(Exception):
            self._connection.close()


def _comments(table: str, columns: Sequence[Column]) -> list[str]:
    """What is said of columns, also what text holds that is no text."""
    texts = [(quoted(one.name), comment_of(one).replace("'", "''")) for one in columns]
    return [f"COMMENT ON COLUMN {table}.{name} IS '{text}'" for name, text in texts if text]


def _taken(schema: Schema) -> Any:
    """The Arrow schema that DuckDB takes: decimals of more than 38 digits come as text."""
    import pyarrow

    found = arrow_types.arrow_schema(schema)
    for number, field in enumerate(found):
        if pyarrow.types.is_decimal256(field.type):
            found = found.set(number, field.with_type(pyarrow.string()))
    return found


def _refuse_nanoseconds(batch: Any, schema: Schema, first: int) -> None:
    """An interval of DuckDB ends at microseconds."""
    for array, column in zip(batch.columns, schema.columns, strict=True):
        if column.type.kind != "interval":
            continue
        for at, one in enumerate(array.to_pylist()):
            if one is not None and one.nanoseconds % 1000:
                raise arrow_types.bad(
                    column.name, first + at, str(tuple(one)), "has nanoseconds, which DuckDB cannot hold"
                )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{one}'" for one in names)


def _now() -> str:
    return datetime.now(UTC).isoformat()
