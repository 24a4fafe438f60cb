"""What open sources and sinks can do, and what a load is told; no database and no Prefect here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import TaskFailed
from .ledger import NAME as LEDGER

if TYPE_CHECKING:
    import pyarrow

    from ..run import Progress
    from .deletes import Deletes
    from .history import Versions
    from .types import Column, Schema

Lane = Literal["pg_binary", "pg_text", "csv", "arrow", "rows"]
"""The form in which rows go from a source to a sink, the fastest first.

`pg_binary`, `pg_text`: the bytes of PostgreSQL's COPY, passed through. `csv`: bytes as PostgreSQL's COPY csv writes them
(UTF-8, a header never, NULL is an empty field and an empty text is `""`). `arrow`: record batches. `rows`: tuples.
"""

Mode = Literal["append", "insert_new", "upsert", "delete_insert", "replace", "scd2", "fail"]
"""What a load does to the rows that are there; `fail` wants a table that does not exist yet."""

MODES: tuple[Mode, ...] = ("append", "insert_new", "upsert", "delete_insert", "replace", "scd2", "fail")

Rows = list[tuple[Any, ...]]
"""Some rows; a value is None, bool, int, float, Decimal, str, bytes, or one of `datetime`'s.

Of the types `interval`, `json`, `array` and `other` it is the text of its database, as are dates and times which Python cannot
hold (`infinity`, `0044-03-15 BC`, `24:00:00`): a sink that cannot hold one either refuses it.
"""


class BadValue(TaskFailed):
    """A value that the sink cannot hold or refuses."""


class Passing(TaskFailed):
    """A fault that may be gone a moment later: a lost connection, a deadlock, a lock that was not free in time."""


class Gone(Passing):
    """The snapshot that the parts of a read share has ended."""


class Refused(TaskFailed):
    """What is asked for cannot be done; found out before anything was written."""


@dataclass(frozen=True)
class Session:
    """What a source or a sink is told when it is opened.

    `name` says who it is to a server (application_name); `root` is the folder that relative paths start from; `stop`
    is set when the run is cancelled: whoever waits for a server must end within two seconds then. `say` takes one line
    for the log, `progress` how far it has come. `only_looks` is true for commands that write nothing: a sink is not made by
    opening it, nor locked. `is_same`: source and sink are one database, which is read while it is written.
    """

    name: str = "rainbow"
    root: Path = Path()
    stop: threading.Event = field(default_factory=threading.Event)
    say: Callable[[str], None] = lambda text: None
    progress: Callable[[Progress], None] = lambda progress: None
    statement_timeout_seconds: float | None = None
    lock_timeout_seconds: float = 30.0
    only_looks: bool = False
    is_same: bool = False


@dataclass(frozen=True)
class Query:
    """What is read: a statement that gives rows, or a table (schema or None, name), whole or where `where` holds.

    `where` and `columns` (names with their expressions, in order; empty: all) are SQL of the source. `literal` of the open source
    writes values for them. Of a table only `partition` may be read, by sources that call one by its name.
    `most` rows are enough, for who only looks: a source need not heed it.
    """

    sql: str | None = None
    table: tuple[str | None, str] | None = None
    where: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    partition: str | None = None
    most: int | None = None


@dataclass(frozen=True)
class Part:
    """One of the parts that a query was cut into: `name` is the same in each attempt, `where` is SQL of the source.

    It may be a `partition` of the table instead.
    """

    name: str = "all"
    where: tuple[str, ...] = ()
    snapshot: str | None = None
    partition: str | None = None


@dataclass(frozen=True)
class Job:
    """One load of one part into a table, as a sink is told.

    `run_key` and `part` are the same in each attempt, so that a part is loaded once. `serial` wants loads of this name
    one after the other, from the claim to the commit, whatever their run. `schema` is what comes: names as in the sink.
    `where` is the part's predicate in SQL of the sink, for `delete_insert` without keys.

    With `stage` the rows come into a stage first, also for `append`, so that checks can tell them from those that are there.
    So many rows as `most_rejected` says are left out when the sink refuses them, and kept in `Writer.rejected`, by sinks
    that can. Checks ask of the columns `asks`, which is for sinks that are no database. `deletes` are rows that the load
    deletes, `versions` how `scd2` keeps them.
    """

    name: str
    run_key: str
    table: tuple[str | None, str]
    mode: Mode
    schema: Schema
    part: str = "all"
    attempt: int = 1
    keys: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    force: bool = False
    serial: bool = False
    stage: bool = False
    most_rejected: int = 0
    asks: tuple[str, ...] = ()
    deletes: Deletes | None = None
    versions: Versions | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def refuse_existing(job: Job, existing: Schema | None) -> None:
    """After the claim: the table that `mode: fail` finds may be the one that an earlier attempt of the same run has made.

    Raises:
        Refused: it is not.
    """
    if job.mode == "fail" and existing is not None:
        shown = ".".join(one for one in job.table if one)
        raise Refused(f"the table '{shown}' exists already and `mode: fail` wants none; choose another mode or table")


@dataclass(frozen=True)
class Rejected:
    """A row that was put aside, and why; `ordinal` counts the rows of the part from 1, None when nobody knows it."""

    row: Mapping[str, Any]
    error: str
    column: str | None = None
    sqlstate: str | None = None
    ordinal: int | None = None


@dataclass
class Counts:
    """What a load did."""

    read: int = 0
    written: int = 0
    inserted: int | None = None
    updated: int | None = None
    deleted: int | None = None
    quarantined: int = 0
    discarded: int = 0
    size_bytes: int = 0


@dataclass(frozen=True)
class Constraint:
    """What the rows of a table must keep: a condition (`sql`), columns that are unique, or those of a row of another table.

    `columns` are those it is about; `table` and `others` are what they refer to.
    """

    name: str
    columns: tuple[str, ...]
    sql: str | None = None
    table: tuple[str | None, str] | None = None
    others: tuple[str, ...] = ()


class Reader:
    """An open source: one read-only session, in one snapshot of its data where it can.

    Not for two threads at once, but for `cancel`.
    """

    dialect: str = ""
    count: int | None = None
    """How many rows the source says that it gave, once all of `rows`, `chunks` or `batches` came; None when it does not say."""
    takes_sql: bool = True
    """Whether it takes a statement, and expressions in `Query.where` and `Query.columns`; else DuckDB does that."""
    reads_once: bool = False
    """Whether its rows can be read a single time."""
    through: str = ""
    """By what its rows go, and why, where something else does what is asked of them; for `explain`."""
    passed: int | None = None
    """How many rows are in the `chunks` that came until now; None when it does not count them."""

    def at(self, part: Part) -> None:
        """Read as of the snapshot of a part, in which other open sources read its other parts; first of all calls.

        Raises:
            Gone: the session that keeps the snapshot has ended.
        """

    def snapshot(self) -> str | None:
        """A name under which other open sources read as of the same moment, while this one is open; None: there is none."""
        return None

    def describe(self, query: Query) -> Schema:
        """The columns of a query from the catalogue or the statement's description, never from the data.

        Raises:
            Refused: it is no single statement that gives rows, or may not be read; the text is the database's, with the place.
        """
        raise TypeError(f"{type(self).__name__} does not implement describe()")

    def lanes(self) -> tuple[Lane, ...]:
        """The forms it can give, the fastest first; the last is `rows`."""
        return ("rows",)

    def rows(self, query: Query, schema: Schema) -> Iterator[Rows]:
        """The rows, some at a time (about 4 MiB), through a server-side cursor."""
        raise TypeError(f"{type(self).__name__} does not implement rows()")

    def chunks(self, query: Query, schema: Schema, lane: Lane) -> Iterator[bytes]:
        """The rows as bytes of a lane, in pieces of 128 KiB and more."""
        raise TypeError(f"{type(self).__name__} does not implement chunks()")

    def batches(self, query: Query, schema: Schema) -> Iterator[pyarrow.RecordBatch]:
        """The rows as Arrow; the default makes them of `rows`."""
        raise TypeError(f"{type(self).__name__} does not implement batches()")

    def parts(self, query: Query, schema: Schema, split: Mapping[str, Any]) -> list[Part]:
        """The parts that `split` asks for, all of one snapshot.

        Raises:
            Refused: it cannot be cut so.
        """
        raise Refused(f"a source of type {self.dialect} cannot be split")

    def value(self, sql: str) -> Any:
        """The one value that a statement gives, None for no row."""
        raise TypeError(f"{type(self).__name__} does not implement value()")

    def literal(self, value: Any) -> str:
        """A value as this source's SQL writes it."""
        raise TypeError(f"{type(self).__name__} does not implement literal()")

    def quoted(self, name: str) -> str:
        """A name as this source's SQL writes it, always quoted."""
        return '"' + name.replace('"', '""') + '"'

    def estimate(self, query: Query) -> int | None:
        """About how many rows there will be, for the time that is left; None when nobody knows."""
        return None

    def cancel(self) -> None:
        """End what the server does for it, from another thread, within two seconds."""

    def close(self) -> None:
        """End the session; never raises."""


class Writer:
    """An open sink: one transaction (or what comes nearest), in which the claim, the data and the state are one.

    Order of the calls: `describe`, `plan`, `begin`, then one of `write_*` (once), checks, `finish`, `commit`; or `rollback` at
    any time. `rejected` are the rows that it left out, see `Job.most_rejected`.
    """

    dialect: str = ""
    rejected: Sequence[Rejected] = ()
    is_database: bool = True
    """Whether its tables are asked and changed by SQL; else only `query` and `staged` work, for the rows of `Job.asks`."""
    finds_bad_rows: bool = False
    """Whether it heeds `Job.most_rejected`; else NULL and doubled keys are looked for by checks before it would refuse them."""

    def describe(self, table: tuple[str | None, str]) -> Schema | None:
        """The columns of a table, None when it does not exist."""
        raise TypeError(f"{type(self).__name__} does not implement describe()")

    def lanes(self) -> tuple[Lane, ...]:
        """The forms it can take, the fastest first; the last is `rows`."""
        return ("rows",)

    def type_of(self, column: Column) -> str:
        """The type that a new table gives a column: the own spelling of the same type, else the best that loses nothing.

        Raises:
            Refused: this sink has no type that holds all its values.
        """
        raise TypeError(f"{type(self).__name__} does not implement type_of()")

    def ddl(self, job: Job) -> list[str]:
        """The statements that make the table of the job."""
        raise TypeError(f"{type(self).__name__} does not implement ddl()")

    def plan(self, job: Job, existing: Schema | None) -> list[str]:
        """The statements of the load as people read them, for `explain`; nothing is done."""
        return []

    def begin(self, job: Job, existing: Schema | None, changes: Sequence[str] = ()) -> bool:
        """Open the transaction, claim the part, do `changes` (DDL), prepare the table or its stage.

        False: this part of this run was loaded before, and nothing is to be done.

        Raises:
            Refused: a right is missing, the keys have no column, ...; nothing was changed.
        """
        raise TypeError(f"{type(self).__name__} does not implement begin()")

    def write_rows(self, rows: Iterable[Rows]) -> int:
        """Take all rows; gives how many came."""
        raise TypeError(f"{type(self).__name__} does not implement write_rows()")

    def write_chunks(self, chunks: Iterable[bytes], lane: Lane) -> int:
        """Take bytes of a lane; gives how many rows came."""
        raise TypeError(f"{type(self).__name__} does not implement write_chunks()")

    def write_batches(self, batches: Iterable[pyarrow.RecordBatch]) -> int:
        """Take Arrow; gives how many rows came."""
        raise TypeError(f"{type(self).__name__} does not implement write_batches()")

    def take(self, table: tuple[str | None, str]) -> int:
        """Take all rows of a table of this sink, which has the columns of the job; gives how many came."""
        raise Refused(f"a sink of type {self.dialect} takes no parts into a stage")

    def finish(self, counts: Counts) -> Counts:
        """Bring the rows from the stage to the table, where there is a stage; check the keys.

        Raises:
            BadValue: keys that occur twice or are empty, with the keys.
        """
        return counts

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask something within the transaction, for checks."""
        raise TypeError(f"{type(self).__name__} does not implement query()")

    def staged(self) -> str:
        """The quoted name under which checks see the rows of this load before the commit: the stage, else the table."""
        raise TypeError(f"{type(self).__name__} does not implement staged()")

    def do(self, sql: str) -> int:
        """Do something within the transaction; gives how many rows it was done to."""
        raise Refused(f"a sink of type {self.dialect} takes no statements")

    def alter(self, job: Job, added: Sequence[Column], widened: Sequence[Column]) -> list[str]:
        """The statements that give the table of the job these columns, which may be NULL, and these columns these types.

        Raises:
            Refused: this sink cannot.
        """
        raise Refused(f"the columns of a sink of type {self.dialect} cannot be changed; change the table yourself")

    def quoted(self, name: str) -> str:
        """A name as this sink's SQL writes it, always quoted."""
        mark = "`" if self.dialect in ("mysql", "mariadb") else '"'
        return mark + name.replace(mark, mark * 2) + mark

    def literal(self, value: Any) -> str:
        """A value as this sink's SQL writes it."""
        if value is None:
            return "NULL"
        if isinstance(value, bool) and self.dialect not in ("sqlite", "mssql", "oracle"):
            return "TRUE" if value else "FALSE"
        if isinstance(value, int | float | Decimal):
            return str(int(value) if isinstance(value, bool) else value)
        text = str(value).replace("'", "''")
        return f"'{text.replace(chr(92), chr(92) * 2) if self.dialect in ('mysql', 'mariadb') else text}'"

    def constraints(self, table: tuple[str | None, str]) -> Sequence[Constraint]:
        """What the rows of a table must keep beside its types and its primary key; empty when it is not known."""
        return ()

    def matches(self, column: str, pattern: str) -> str:
        """Whether a regular expression is found in the text of a column, as SQL.

        Raises:
            Refused: this sink knows none.
        """
        match self.dialect:
            case "postgresql":
                return f"CAST({column} AS text) ~ {self.literal(pattern)}"
            case "sqlite" | "mysql" | "mariadb":
                return f"{column} REGEXP {self.literal(pattern)}"
            case "duckdb":
                return f"regexp_matches(CAST({column} AS VARCHAR), {self.literal(pattern)})"
            case _:
                raise Refused(f"a sink of type {self.dialect} knows no regular expressions; use `checks: {{sql: ...}}`")

    def deletion(self, table: str, where: str) -> str:
        """The statement that deletes the rows `s` of a table for which something holds."""
        if self.dialect in ("mysql", "mariadb"):
            return f"DELETE s FROM {table} AS s WHERE {where}"
        return f"DELETE FROM {table} AS s WHERE {where}"

    def state(self, job: Job) -> Mapping[str, Any]:
        """What the last committed load of this task left in the ledger: `{'cursor': ...}`; empty at first."""
        return {}

    def loaded(self, job: Job) -> Mapping[str, int]:
        """The parts of a run of this task that are committed, each with the rows that it wrote; outside of a load."""
        mine = f"job = {self.literal(job.name)} AND run_key = {self.literal(job.run_key)} AND committed IS NOT NULL"
        rows = self._of_ledger(job, f"part, rows_written FROM {{}} WHERE {mine}")
        return {str(part): int(written or 0) for part, written in rows}

    def jobs(self, job: Job, part: str) -> list[tuple[str, str]]:
        """All jobs of which the ledger has this part, and when it began (UTC, ISO); outside of a load."""
        rows = self._of_ledger(job, f"job, begun FROM {{}} WHERE part = {self.literal(part)}")
        return [(str(name), str(begun)) for name, begun in rows]

    def _of_ledger(self, job: Job, wanted: str) -> list[tuple[Any, ...]]:
        table = (job.table[0], LEDGER)
        if self.describe(table) is None:
            return []
        return self.query(f"SELECT {wanted.format('.'.join(self.quoted(one) for one in table if one))}")

    def drop(self, table: tuple[str | None, str]) -> None:
        """Remove a table that was a stage, where it is there; outside of a load."""
        raise Refused(f"a sink of type {self.dialect} has no stages")

    def forget(self, job: Job) -> int:
        """Delete the states of this task from the ledger, so that the next load begins anew; gives how many there were.

        What was loaded stays known, so that no part of a run is loaded twice.
        """
        raise Refused(f"a sink of type {self.dialect} keeps no state")

    def commit(self, counts: Counts, state: Mapping[str, Any] | None = None) -> None:
        """Write the end into the ledger with the state, and commit.

        An unknown end (the connection was lost on the way) is looked up in the ledger on a new connection.
        """
        raise TypeError(f"{type(self).__name__} does not implement commit()")

    def rollback(self) -> None:
        """Leave the sink as it was; never raises."""

    def cancel(self) -> None:
        """End what the server does for it, from another thread, within two seconds."""

    def close(self) -> None:
        """End the session; never raises."""
