"""Source and Sink, what the open ones can do, and what a load is told; no database and no Prefect here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ..errors import TaskFailed
from ..registry import sinks, sources
from ..schema import Config, Name

if TYPE_CHECKING:
    import pyarrow

    from .types import Column, Schema

Lane = Literal["pg_binary", "pg_text", "csv", "arrow", "rows"]
"""The form in which rows go from a source to a sink, the fastest first.

`pg_binary`, `pg_text`: the bytes of PostgreSQL's COPY, passed through. `csv`: bytes as PostgreSQL's COPY csv writes them
(UTF-8, a header never, NULL is an empty field and an empty text is `""`). `arrow`: record batches. `rows`: tuples.
"""

Mode = Literal["append", "insert_new", "upsert", "delete_insert", "replace", "fail"]
"""What a load does to the rows that are there; `fail` wants a table that does not exist yet."""

MODES: tuple[Mode, ...] = ("append", "insert_new", "upsert", "delete_insert", "replace", "fail")

Rows = list[tuple[Any, ...]]
"""Some rows; a value is None, bool, int, float, Decimal, str, bytes, or one of `datetime`'s.

Of the types `interval`, `json`, `array` and `other` it is the text of its database, as are dates and times which Python cannot
hold (`infinity`, `0044-03-15 BC`, `24:00:00`): a sink that cannot hold one either refuses it.
"""


class BadValue(TaskFailed):
    """A value that the sink cannot hold or refuses."""


class Passing(TaskFailed):
    """A fault that may be gone a moment later: a lost connection, a deadlock, a lock that was not free in time."""


class Refused(TaskFailed):
    """What is asked for cannot be done; found out before anything was written."""


@dataclass(frozen=True)
class Session:
    """What a source or a sink is told when it is opened.

    `name` says who it is to a server (application_name); `root` is the folder that relative paths start from; `stop`
    is set when the run is cancelled: whoever waits for a server must end within two seconds then. `say` takes one line
    for the log.
    """

    name: str = "rainbow"
    root: Path = Path()
    stop: threading.Event = field(default_factory=threading.Event)
    say: Callable[[str], None] = lambda text: None
    statement_timeout_seconds: float | None = None
    lock_timeout_seconds: float = 30.0


@dataclass(frozen=True)
class Query:
    """What is read: a statement that gives rows, or a table (schema or None, name), whole or where `where` holds.

    `where` and `columns` (expressions with their names, in order; empty: all) are SQL of the source. `literal` of the open source
    writes values for them.
    """

    sql: str | None = None
    table: tuple[str | None, str] | None = None
    where: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Part:
    """One of the parts that a query was cut into: `name` is the same in each attempt, `where` is SQL of the source."""

    name: str = "all"
    where: tuple[str, ...] = ()
    snapshot: str | None = None


@dataclass(frozen=True)
class Job:
    """One load of one part into a table, as a sink is told.

    `run_key` and `part` are the same in each attempt, so that a part is loaded once. `schema` is what comes: names as in
    the sink. `where` is the part's predicate in SQL of the sink, for `delete_insert` without keys.
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
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Counts:
    """What a load did."""

    read: int = 0
    written: int = 0
    inserted: int | None = None
    updated: int | None = None
    deleted: int | None = None
    quarantined: int = 0
    size_bytes: int = 0


class Reader:
    """An open source: one read-only session, in one snapshot of its data where it can.

    Not for two threads at once, but for `cancel`.
    """

    dialect: str = ""

    def describe(self, query: Query) -> Schema:
        """The columns of a query from the catalogue or the statement's description, never from the data.

        Raises:
            Refused: it is no single statement that gives rows, or may not be read; the text is the database's, with the place.
        """
        raise NotImplementedError

    def lanes(self) -> tuple[Lane, ...]:
        """The forms it can give, the fastest first; the last is `rows`."""
        return ("rows",)

    def rows(self, query: Query, schema: Schema) -> Iterator[Rows]:
        """The rows, some at a time (about 4 MiB), through a server-side cursor."""
        raise NotImplementedError

    def chunks(self, query: Query, schema: Schema, lane: Lane) -> Iterator[bytes]:
        """The rows as bytes of a lane, in pieces of 128 KiB and more."""
        raise NotImplementedError

    def batches(self, query: Query, schema: Schema) -> Iterator[pyarrow.RecordBatch]:
        """The rows as Arrow; the default makes them of `rows`."""
        raise NotImplementedError

    def parts(self, query: Query, schema: Schema, split: Mapping[str, Any]) -> list[Part]:
        """The parts that `split` asks for, all of one snapshot.

        Raises:
            Refused: it cannot be cut so.
        """
        raise Refused(f"a source of type {self.dialect} cannot be split")

    def value(self, sql: str) -> Any:
        """The one value that a statement gives, None for no row."""
        raise NotImplementedError

    def literal(self, value: Any) -> str:
        """A value as this source's SQL writes it."""
        raise NotImplementedError

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

    Order of the calls: `describe`, `plan`, `begin`, then one of `write_*` (once), `finish`, `commit`; or `rollback` at any time.
    """

    dialect: str = ""

    def describe(self, table: tuple[str | None, str]) -> Schema | None:
        """The columns of a table, None when it does not exist."""
        raise NotImplementedError

    def lanes(self) -> tuple[Lane, ...]:
        """The forms it can take, the fastest first; the last is `rows`."""
        return ("rows",)

    def type_of(self, column: Column) -> str:
        """The type that a new table gives a column: the own spelling of the same type, else the best that loses nothing.

        Raises:
            Refused: this sink has no type that holds all its values.
        """
        raise NotImplementedError

    def ddl(self, job: Job) -> list[str]:
        """The statements that make the table of the job."""
        raise NotImplementedError

    def plan(self, job: Job, existing: Schema | None) -> list[str]:
        """The statements of the load as people read them, for `explain`; nothing is done."""
        return []

    def begin(self, job: Job, existing: Schema | None, changes: Sequence[str] = ()) -> bool:
        """Open the transaction, claim the part, do `changes` (DDL), prepare the table or its stage.

        False: this part of this run was loaded before, and nothing is to be done.

        Raises:
            Refused: a right is missing, the keys have no column, ...; nothing was changed.
        """
        raise NotImplementedError

    def write_rows(self, rows: Iterable[Rows]) -> int:
        """Take all rows; gives how many came."""
        raise NotImplementedError

    def write_chunks(self, chunks: Iterable[bytes], lane: Lane) -> int:
        """Take bytes of a lane; gives how many rows came."""
        raise NotImplementedError

    def write_batches(self, batches: Iterable[pyarrow.RecordBatch]) -> int:
        """Take Arrow; gives how many rows came."""
        raise NotImplementedError

    def finish(self, counts: Counts) -> Counts:
        """Bring the rows from the stage to the table, where there is a stage; check the keys.

        Raises:
            BadValue: keys that occur twice or are empty, with the keys.
        """
        return counts

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask something within the transaction, for checks."""
        raise NotImplementedError

    def staged(self) -> str:
        """The quoted name under which checks see the rows of this load before the commit: the stage, else the table."""
        raise NotImplementedError

    def state(self, job: Job) -> Mapping[str, Any]:
        """What the last committed load of this task left in the ledger: `{'cursor': ...}`; empty at first."""
        return {}

    def commit(self, counts: Counts, state: Mapping[str, Any] | None = None) -> None:
        """Write the end into the ledger with the state, and commit.

        An unknown end (the connection was lost on the way) is looked up in the ledger on a new connection.
        """
        raise NotImplementedError

    def rollback(self) -> None:
        """Leave the sink as it was; never raises."""

    def cancel(self) -> None:
        """End what the server does for it, from another thread, within two seconds."""

    def close(self) -> None:
        """End the session; never raises."""


class Source(Config):
    """Where rows come from: an entry of the root `sources`; a subclass has a `type`, its fields and `open`."""

    source: Name | None = Field(default=None, description="The name by which a task's `source` finds it.")
    type: str = Field(description="The type of the source.")

    def open(self, session: Session) -> Reader:
        """Connect.

        Raises:
            Passing: nobody answers.
            Refused: the settings are wrong.
        """
        raise NotImplementedError


class Sink(Config):
    """Where rows go: an entry of the root `sinks`; a subclass has a `type`, its fields and `open`."""

    sink: Name | None = Field(default=None, description="The name by which a task's `sink` finds it.")
    type: str = Field(description="The type of the sink.")

    def open(self, session: Session) -> Writer:
        """Connect.

        Raises:
            Passing: nobody answers.
            Refused: the settings are wrong.
        """
        raise NotImplementedError


AnySource = Annotated[Source, sources]
AnySink = Annotated[Sink, sinks]
