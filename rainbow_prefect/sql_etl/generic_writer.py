"""Writes rows by SQLAlchemy in one transaction with the claim: SQLite exactly so, other dialects as far as they can."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    Column as SqlColumn,
)
from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    Table,
    and_,
    delete,
    exc,
    func,
    insert,
    inspect,
    null,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql import quoted_name

from . import history
from .base import BadValue, Counts, Job, Mode, Passing, Refused, Rejected, Rows, Session, Writer, refuse_existing
from .generic import WRITES, told
from .generic_types import sqlalchemy_type, type_from
from .ledger import ledger
from .types import Column, Schema

STAGE = "_rainbow_stage"
_SHOWN_KEYS = 5
_TAKEN_ROWS = 5_000
_PARAMETERS = {"sqlite": 32_766, "mssql": 2_100, "oracle": 65_535}
_MOST_COLUMNS = {"sqlite": 2_000, "mssql": 1_024, "oracle": 1_000}
_NEEDS_STAGE: tuple[Mode, ...] = ("insert_new", "upsert", "delete_insert", "scd2")
_NAMED = re.compile(r"(?:column '|constraint failed: (?:[^ ]*\.)?)(?P<column>[^',]+)")
"""Where an error names its column."""


class GenericWriter(Writer):
    """A database that SQLAlchemy knows."""

    finds_bad_rows = True

    def __init__(self, engine: Engine, session: Session) -> None:
        self._engine = engine
        self._session = session
        self.dialect = engine.dialect.name
        self._job: Job | None = None
        self._fixes: dict[str, Any] = {}
        self._ordinal = 0
        self.rejected: list[Rejected] = []
        try:
            self._connection: Connection = engine.connect().execution_options(**{WRITES: True})
            if self.dialect == "sqlite" and session.is_same:
                # What does not fit into the cache would be written now, for which nobody may read the file.
                raw: Any = self._connection.connection.dbapi_connection
                raw.execute("PRAGMA cache_spill = OFF")
        except exc.SQLAlchemyError as error:
            raise told(error, "the sink cannot be opened") from None

    # -- what is there

    def describe(self, table: tuple[str | None, str]) -> Schema | None:
        schema, name = table
        try:
            look = inspect(self._engine)
            if not look.has_table(name, schema):
                return None
            keys = tuple(look.get_pk_constraint(name, schema)["constrained_columns"])
            columns = tuple(self._column(one) for one in look.get_columns(name, schema))
        except exc.SQLAlchemyError as error:
            raise told(error, "the table cannot be looked at") from None
        return Schema(columns, keys)

    def _column(self, one: Mapping[str, Any]) -> Column:
        computed = one.get("computed")
        return Column(
            str(one["name"]),
            type_from(one["type"], self.dialect),
            bool(one["nullable"]),
            one.get("comment") or "",
            default=one.get("default"),
            generated="stored" if computed else "",
        )

    def type_of(self, column: Column) -> str:
        return sqlalchemy_type(column, self.dialect).compile(self._engine.dialect)

    def ddl(self, job: Job) -> list[str]:
        return [str(CreateTable(self._made(job)).compile(self._engine)).strip()]

    def plan(self, job: Job, existing: Schema | None) -> list[str]:
        made = [] if existing is not None else self.ddl(job)
        target = self._table(job)
        if job.mode not in _NEEDS_STAGE:
            emptied = [delete(target)] if job.mode == "replace" and existing is not None else []
            return [*made, *map(self._written, [*emptied, insert(target)])]
        stage = self._table(job, stage=True)
        if job.mode == "scd2":
            names = [self._engine.dialect.identifier_preparer.format_table(one) for one in (target, stage)]
            return [
                *made,
                *map(self._written, [CreateTable(stage), insert(stage)]),
                *(sql for sql, _ in history.steps(job, self, *names)),
            ]
        merging = [statement for _, statement in _merging(job, target, stage)]
        return [*made, *map(self._written, [CreateTable(stage), insert(stage), *merging])]

    def _written(self, statement: Any) -> str:
        """A statement as people read it."""
        return str(statement.compile(self._engine)).strip()

    def _made(self, job: Job) -> Table:
        """The table as it is when a load makes it."""
        return self._table(history.as_made(job, self.dialect))

    def _table(self, job: Job, *, stage: bool = False) -> Table:
        schema, name = job.table
        keys = set(job.keys) if not stage else set()
        columns = [
            SqlColumn(
                quoted_name(one.name, quote=True),
                sqlalchemy_type(one, self.dialect),
                primary_key=one.name in keys,
                nullable=stage or (one.nullable and one.name not in keys),
                autoincrement=False,
            )
            for one in job.schema.columns
        ]
        if stage:
            return Table(STAGE, MetaData(), *columns, prefixes=["TEMPORARY"])
        return Table(quoted_name(name, quote=True), MetaData(), *columns, schema=schema)

    # -- a load

    def begin(self, job: Job, existing: Schema | None, changes: Sequence[str] = ()) -> bool:
        self._job = job
        self._refuse(job, existing)
        self._target = self._table(job)
        self._fixes = {one.name: _fix(one, existing, self.dialect) for one in job.schema.columns}
        try:
            if self.dialect != "sqlite":
                self._make_ledger(job)
            self._connection.begin()
            if self.dialect == "sqlite":  # in the transaction: a commit would wait for a source in the same file
                ledger(job.table[0]).create(self._connection, checkfirst=True)
            if not self._claim(job):
                self._connection.rollback()
                return False
            refuse_existing(job, existing)
            for statement in changes:
                self._connection.exec_driver_sql(statement)
            if existing is None:
                self._made(job).create(self._connection)
            elif job.mode == "replace":
                self._connection.execute(delete(self._target))
            self._into = self._target
            if job.mode in _NEEDS_STAGE or (job.stage and existing is not None):
                self._into = self._table(job, stage=True)
                self._into.drop(self._connection, checkfirst=True)
                self._into.create(self._connection)
        except Refused:
            self.rollback()
            raise
        except exc.SQLAlchemyError as error:
            self.rollback()
            raise told(error, "the load cannot begin") from None
        return True

    def _refuse(self, job: Job, existing: Schema | None) -> None:
        if job.mode in _NEEDS_STAGE and not job.keys:
            raise Refused(f"`mode: {job.mode}` needs `keys`; name the columns that tell a row from others")
        most = _MOST_COLUMNS.get(self.dialect)
        if most is not None and len(job.schema.columns) > most:
            raise Refused(f"the query has {len(job.schema.columns)} columns and {self.dialect} takes {most}")
        if self.dialect != "sqlite" and existing is None:
            return
        lower: dict[str, str] = {}
        for one in job.schema.columns:
            other = lower.setdefault(one.name.lower(), one.name)
            if other != one.name:
                raise Refused(
                    f"columns '{other}' and '{one.name}' differ in case only, which {self.dialect} does not see"
                )

    def _make_ledger(self, job: Job) -> None:
        table = ledger(job.table[0])
        if inspect(self._engine).has_table(table.name, job.table[0]):
            return
        with self._engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
            try:
                table.create(connection, checkfirst=True)
            except exc.SQLAlchemyError:  # another load made it a moment before
                if not inspect(self._engine).has_table(table.name, job.table[0]):
                    raise

    def _claim(self, job: Job) -> bool:
        table = ledger(job.table[0])
        mine = and_(table.c.job == job.name, table.c.run_key == job.run_key, table.c.part == job.part)
        if self._connection.execute(select(table.c.committed).where(mine)).first() is not None:
            return False
        number = self._connection.execute(select(func.max(table.c.number)).where(table.c.job == job.name)).scalar()
        values = {
            "job": job.name,
            "run_key": job.run_key,
            "part": job.part,
            "number": (number or 0) + 1,
            "attempt": job.attempt,
            "mode": job.mode,
            "target": ".".join(one for one in job.table if one),
            "begun": _now(),
        }
        try:
            with self._connection.begin_nested():
                self._connection.execute(insert(table).values(values))
        except exc.IntegrityError:
            return False
        return True

    def write_rows(self, rows: Iterable[Rows]) -> int:
        assert self._job is not None, "a load has begun"
        names = self._job.schema.names
        size = max(1, _PARAMETERS.get(self.dialect, 2_000) // max(1, len(names)))
        statement = self._sqlite_insert(names) if self.dialect == "sqlite" else None
        fixes = [self._fixes[one] for one in names]
        for batch in rows:
            if self._job.most_rejected:
                self._insert_good(statement, batch, names, size, fixes)
            else:
                self._insert(statement, self._all_fixed(batch, fixes), names, size)
            self._ordinal += len(batch)
        self._index_stage(self._job)
        return self._ordinal

    def _index_stage(self, job: Job) -> None:
        """SQLite would look through all of the stage for each row of the table: 20,000 rows took minutes."""
        if self.dialect != "sqlite" or self._into is self._target or not job.keys:
            return
        keys = ", ".join(map(self._quoted, job.keys))
        self.do(f'CREATE INDEX temp."{STAGE}_keys" ON {self.staged()} ({keys})')

    def take(self, table: tuple[str | None, str]) -> int:
        """Row by row, since a column may keep less of a value than the stage does, and would change it without a word."""
        assert self._job is not None, "a load has begun"
        names = ", ".join(map(self._quoted, self._job.schema.names))
        stage = ".".join(self._quoted(one) for one in table if one)
        try:
            with contextlib.closing(
                self._connection.exec_driver_sql(f"SELECT {names} FROM {stage}")  # as they are stored
            ) as result:
                return self.write_rows(self._fetched(result))
        except exc.SQLAlchemyError as error:
            raise told(error, f"the stage '{table[1]}' cannot be read") from None

    @staticmethod
    def _fetched(result: Any) -> Iterator[Rows]:
        while rows := [tuple(one) for one in result.fetchmany(_TAKEN_ROWS)]:
            yield rows

    def loaded(self, job: Job) -> Mapping[str, int]:
        table = ledger(job.table[0])
        mine = and_(table.c.job == job.name, table.c.run_key == job.run_key, table.c.committed.is_not(None))
        rows = self._looked(job, select(table.c.part, table.c.rows_written).where(mine))
        return {str(part): int(written or 0) for part, written in rows}

    def jobs(self, job: Job, part: str) -> list[tuple[str, str]]:
        table = ledger(job.table[0])
        return [
            (str(name), str(begun))
            for name, begun in self._looked(job, select(table.c.job, table.c.begun).where(table.c.part == part))
        ]

    def _looked(self, job: Job, wanted: Any) -> list[tuple[Any, ...]]:
        """What the ledger has, asked without the lock of who writes."""
        try:
            if not inspect(self._engine).has_table(ledger(job.table[0]).name, job.table[0]):
                return []
            with self._engine.connect() as connection:
                return [tuple(one) for one in connection.execute(wanted)]
        except exc.SQLAlchemyError as error:
            raise told(error, "the ledger cannot be read") from None

    def drop(self, table: tuple[str | None, str]) -> None:
        gone = Table(quoted_name(table[1], quote=True), MetaData(), schema=table[0])
        try:
            with self._engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
                gone.drop(connection, checkfirst=True)
        except exc.SQLAlchemyError as error:
            raise told(error, f"the stage '{table[1]}' cannot be removed") from None

    def _all_fixed(self, batch: Rows, fixes: Sequence[Any]) -> Rows:
        if not any(fixes):
            return batch
        return [self._fixed(row, fixes, self._ordinal + n) for n, row in enumerate(batch, 1)]

    def _insert_good(self, statement: str | None, batch: Rows, names: Sequence[str], size: int, fixes: Any) -> None:
        """Insert what the table takes, and put the rest aside."""
        rows: list[tuple[int, tuple[Any, ...]]] = []
        for ordinal, row in enumerate(batch, self._ordinal + 1):
            try:
                rows.append((ordinal, self._fixed(row, fixes, ordinal) if any(fixes) else row))
            except BadValue as error:
                self._reject(dict(zip(names, row, strict=True)), error, ordinal, "22000")
        waiting = [rows]
        while waiting:
            some = waiting.pop()
            try:
                if some:
                    with self._connection.begin_nested():
                        self._insert(statement, [row for _, row in some], names, size)
            except BadValue as error:
                if len(some) == 1:
                    ordinal, row = some[0]
                    self._reject(dict(zip(names, row, strict=True)), error, ordinal, "23000")
                else:  # halves, until the bad ones stand alone
                    half = len(some) // 2
                    waiting += [some[half:], some[:half]]

    def _reject(self, row: Mapping[str, Any], error: BadValue, ordinal: int, sqlstate: str) -> None:
        assert self._job is not None
        text = error.message.partition("; the row is ")[0].removesuffix("; nothing was written")
        if len(self.rejected) >= self._job.most_rejected:
            raise BadValue(
                f"more than {self._job.most_rejected} bad rows (`max_bad_rows`), e.g. {text}; nothing was written"
            )
        named = _NAMED.search(text)
        column = named["column"] if named and named["column"] in row else None
        self.rejected.append(Rejected(row, text, column, sqlstate, ordinal))

    def _sqlite_insert(self, names: Sequence[str]) -> str:
        """The statement for the driver itself, which takes rows as they come."""
        table = self._engine.dialect.identifier_preparer.format_table(self._into)
        return f"INSERT INTO {table} ({', '.join(map(self._quoted, names))}) VALUES ({', '.join('?' * len(names))})"

    def _insert(self, statement: str | None, rows: Rows, names: Sequence[str], size: int) -> None:
        try:
            if statement is not None:
                self._connection.exec_driver_sql(statement, rows)
                return
            for start in range(0, len(rows), size):
                values = [dict(zip(names, row, strict=True)) for row in rows[start : start + size]]
                self._connection.execute(insert(self._into), values)
        except exc.SQLAlchemyError as error:
            raise self._bad(error, rows, names) from None

    def _bad(self, error: exc.SQLAlchemyError, rows: Rows, names: Sequence[str]) -> Exception:
        found = told(
            error, f"the table '{self._target.name}' refuses rows {self._ordinal + 1} to {self._ordinal + len(rows)}"
        )
        if not isinstance(found, BadValue):
            return found
        if len(rows) == 1:
            values = ", ".join(f"{name}={_shown(value)}" for name, value in zip(names, rows[0], strict=True))
            return BadValue(f"{found.message}; the row is {values[:400]}")
        return found

    def _fixed(self, row: tuple[Any, ...], fixes: Sequence[Any], ordinal: int) -> tuple[Any, ...]:
        made = list(row)
        for index, fix in enumerate(fixes):
            if fix is not None and made[index] is not None:
                try:
                    made[index] = fix(made[index])
                except ValueError as error:
                    assert self._job is not None
                    name = self._job.schema.names[index]
                    raise BadValue(
                        f"column '{name}', row {ordinal}: {_shown(row[index])} {error}; nothing was written"
                    ) from None
        return tuple(made)

    def finish(self, counts: Counts) -> Counts:
        assert self._job is not None, "a load has begun"
        counts.written = counts.read - counts.quarantined
        if self._into is self._target:
            return counts
        if self._job.mode in _NEEDS_STAGE:
            self._refuse_bad_keys(self._job)
        try:
            self._from_stage(self._job, counts)
        except exc.SQLAlchemyError as error:
            raise told(error, f"the table '{self._target.name}' refuses the rows") from None
        return counts

    def _refuse_bad_keys(self, job: Job) -> None:
        stage = self._into
        keys = [stage.c[one] for one in job.keys]
        shown = ", ".join(job.keys)
        empty = select(func.count()).select_from(stage).where(or_(*[one.is_(null()) for one in keys]))
        count = self._connection.execute(empty).scalar() or 0
        if count:
            raise BadValue(
                f"{count} rows have no value in a key ({shown}); filter them in the query; nothing was written"
            )
        if job.mode == "delete_insert":
            return  # they name what is replaced, not single rows
        twice = select(*keys).group_by(*keys).having(func.count() > 1)
        total = self._connection.execute(select(func.count()).select_from(twice.subquery())).scalar() or 0
        if total:
            first = self._connection.execute(twice.order_by(*keys).limit(_SHOWN_KEYS)).fetchall()
            named = "; ".join(", ".join(map(str, row)) for row in first)
            raise BadValue(
                f"{total} keys ({shown}) occur more than once, e.g. {named}; make them unique in the query; nothing was written"
            )

    def _from_stage(self, job: Job, counts: Counts) -> None:
        target, stage = self._target, self._into
        if job.mode not in _NEEDS_STAGE:
            self._append_stage(job, counts)
            return
        if job.mode == "scd2":
            names = [self._engine.dialect.identifier_preparer.format_table(one) for one in (target, stage)]
            self._do_history(job, counts, names)
            stage.drop(self._connection)
            return
        for count, statement in _merging(job, target, stage):
            setattr(counts, count, self._connection.execute(statement).rowcount)
        counts.written = (counts.inserted or 0) + (counts.updated or 0)
        stage.drop(self._connection)

    def _do_history(self, job: Job, counts: Counts, names: Sequence[str]) -> None:
        counts.inserted = counts.updated = counts.deleted = 0
        for sql, count in history.steps(job, self, *names):
            rows = self._connection.exec_driver_sql(sql).rowcount
            setattr(counts, count, (getattr(counts, count) or 0) + rows)
        counts.written = counts.inserted + counts.updated

    def _append_stage(self, job: Job, counts: Counts) -> None:
        """All at once; when the table refuses one and bad rows are put aside, row by row."""
        target, stage = self._target, self._into
        names = list(job.schema.names)
        wanted = select(*[stage.c[one] for one in names])
        before = len(self.rejected)
        try:
            with self._connection.begin_nested():
                counts.inserted = self._connection.execute(insert(target).from_select(names, wanted)).rowcount
        except exc.IntegrityError:
            if not job.most_rejected:
                raise
            rows = [tuple(one) for one in self._connection.execute(wanted)]
            self._into, self._ordinal = target, 0
            statement = self._sqlite_insert(names) if self.dialect == "sqlite" else None
            self._insert_good(statement, rows, names, max(1, 2_000 // len(names)), ())
            counts.inserted = len(rows) - (len(self.rejected) - before)
        counts.written = counts.inserted
        stage.drop(self._connection)

    def do(self, sql: str) -> int:
        try:
            return self._connection.exec_driver_sql(sql).rowcount
        except exc.SQLAlchemyError as error:
            raise told(error, "a statement is refused") from None

    def alter(self, job: Job, added: Sequence[Column], widened: Sequence[Column]) -> list[str]:
        table = self._engine.dialect.identifier_preparer.format_table(self._table(job))
        statements = [f"ALTER TABLE {table} ADD {self._quoted(one.name)} {self.type_of(one)}" for one in added]
        for one in widened:
            if self.dialect != "mssql":
                raise Refused(
                    f"the type of the column '{one.name}' would have to be {one.type}, which is not changed in "
                    f"{self.dialect}; change the table yourself"
                )
            null = "NULL" if one.nullable else "NOT NULL"
            statements.append(f"ALTER TABLE {table} ALTER COLUMN {self._quoted(one.name)} {self.type_of(one)} {null}")
        return statements

    def quoted(self, name: str) -> str:
        return self._quoted(name)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        try:
            return [tuple(one) for one in self._connection.execute(text(sql.replace(":", r"\:"))).fetchall()]
        except exc.SQLAlchemyError as error:
            raise told(error, "a check cannot be asked") from None

    def staged(self) -> str:
        return self._engine.dialect.identifier_preparer.format_table(self._into)

    def _quoted(self, name: str) -> str:
        return self._engine.dialect.identifier_preparer.quote_identifier(name)

    def state(self, job: Job) -> Mapping[str, Any]:
        table = ledger(job.table[0])
        last = select(table.c.state).where(table.c.job == job.name, table.c.state.is_not(None))
        last = last.order_by(table.c.number.desc()).limit(1)
        if self._connection.in_transaction():
            found = self._connection.execute(last).scalar()
        elif inspect(self._engine).has_table(table.name, job.table[0]):
            with self._engine.connect() as connection:
                found = connection.execute(last).scalar()
        else:
            return {}
        return json.loads(found) if found else {}

    def forget(self, job: Job) -> int:
        table = ledger(job.table[0])
        if not inspect(self._engine).has_table(table.name, job.table[0]):
            return 0
        mine = and_(table.c.job == job.name, table.c.state.is_not(None))
        try:
            with self._engine.begin() as connection:
                return connection.execute(update(table).where(mine).values(state=None)).rowcount
        except exc.SQLAlchemyError as error:
            raise told(error, "the state cannot be deleted") from None

    def commit(self, counts: Counts, state: Mapping[str, Any] | None = None) -> None:
        job = self._job
        assert job is not None, "a load has begun"
        table = ledger(job.table[0])
        mine = and_(table.c.job == job.name, table.c.run_key == job.run_key, table.c.part == job.part)
        values = {
            "rows_read": counts.read,
            "rows_written": counts.written,
            "committed": _now(),
            "state": None if state is None else json.dumps(state),
        }
        try:
            self._connection.execute(update(table).where(mine).values(values))
            self._connection.commit()
        except exc.SQLAlchemyError as error:
            if not self._was_committed(job):
                raise told(error, "the load could not be committed") from None

    def _was_committed(self, job: Job) -> bool:
        table = ledger(job.table[0])
        mine = and_(table.c.job == job.name, table.c.run_key == job.run_key, table.c.part == job.part)
        try:
            with self._engine.connect() as connection:
                return connection.execute(select(table.c.committed).where(mine)).scalar() is not None
        except exc.SQLAlchemyError as error:
            raise Passing(f"whether the load was committed is not known: {' '.join(str(error).split())}") from None

    def rollback(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.rollback()

    def cancel(self) -> None:
        with contextlib.suppress(Exception):
            raw = self._connection.connection.dbapi_connection
            if raw is not None and hasattr(raw, "interrupt"):
                raw.interrupt()

    def close(self) -> None:
        self.rollback()
        with contextlib.suppress(Exception):
            self._connection.close()
        with contextlib.suppress(Exception):
            self._engine.dispose()


def _merging(job: Job, target: Table, stage: Table) -> Iterator[tuple[str, Any]]:
    """The statements that bring the rows from the stage into the table, each with what its number of rows counts."""
    same = and_(*[target.c[one] == stage.c[one] for one in job.keys])
    there = select(1).select_from(target).where(same).correlate(stage).exists()
    others = [one for one in job.schema.names if one not in job.keys]
    if job.mode == "delete_insert":
        matched = select(1).select_from(stage).where(same).correlate(target).exists()
        yield "deleted", delete(target).where(matched)
    elif job.mode == "upsert" and others:
        differs = or_(*[target.c[one].is_distinct_from(stage.c[one]) for one in others])
        changed = select(1).select_from(stage).where(same, differs).correlate(target).exists()
        values = {one: select(stage.c[one]).where(same).correlate(target).scalar_subquery() for one in others}
        yield "updated", update(target).where(changed).values(values)
    names = list(job.schema.names)
    wanted = select(*[stage.c[one] for one in names])
    if job.mode != "delete_insert":
        wanted = wanted.where(~there)
    yield "inserted", insert(target).from_select(names, wanted)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:80]}..."


# -- values as a database takes them


def _fix(column: Column, existing: Schema | None, dialect: str) -> Any:
    """What makes a value one that the driver takes; None when it takes it as it is."""
    if dialect != "sqlite":
        return _for_others(column)
    target = existing[column.name].type.native if existing and column.name in existing else ""
    match column.type.kind:
        case "decimal":
            return _decimal_as_text if (target or "TEXT").upper() == "TEXT" else _decimal_as_number
        case "float":
            return _float
        case "int":
            return str if column.type.unsigned and column.type.bits == 64 else _int
        case "date" | "time" | "timestamp" | "timestamptz" | "timetz":
            return _temporal
        case "uuid":
            return str
        case "bool":
            return int
        case _:
            return None


def _for_others(column: Column) -> Any:
    match column.type.kind:
        case "date":
            return _parsed(date.fromisoformat)
        case "time":
            return _parsed(time.fromisoformat)
        case "timestamp" | "timestamptz":
            return _parsed(datetime.fromisoformat)
        case "uuid":
            return str
        case _:
            return None


def _parsed(read: Any) -> Any:
    def fix(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return read(value)
        except ValueError:
            raise ValueError("is no such date or time") from None

    return fix


def _decimal_as_text(value: Any) -> str:
    if isinstance(value, Decimal) and not value.is_finite():
        raise ValueError("is no number that SQLite holds")
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _decimal_as_number(value: Any) -> int | float:
    """The same number for a column with the affinity of numbers, which keeps 15 digits."""
    number = Decimal(str(value))
    if not number.is_finite():
        raise ValueError("is no number that SQLite holds")
    if number == number.to_integral_value() and abs(number) < 2**63:
        return int(number)
    if Decimal(repr(float(number))) != number:
        raise ValueError("has more digits than a number of SQLite keeps; make the column TEXT")
    return float(number)


def _float(value: Any) -> float:
    if math.isnan(value):
        raise ValueError("(NaN) is no number that SQLite holds")
    return float(value)


def _int(value: Any) -> int:
    if not -(2**63) <= value < 2**63:
        raise ValueError("is larger than an integer of SQLite")
    return int(value)


def _temporal(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            value = value.astimezone(UTC)
        return str(value.isoformat(sep=" "))
    return str(value.isoformat())
