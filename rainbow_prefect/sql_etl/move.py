"""Moves the rows of one query into one table: looks, chooses the lane, pumps, commits; all that is tried again is here."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from queue import Empty, Full, Queue
from typing import Any, Generic, TypeVar

from ..errors import Cancelled, TaskFailed
from . import deletes, quality
from .base import Counts, Gone, Job, Mode, Part, Passing, Query, Reader, Refused, Session, Writer
from .config import Sink, Source
from .incremental import Incremental, Span, Window, spanned, window
from .lanes import Choice, Engine, choose, misfits
from .meter import Meter
from .sieve import Sieve, can_sift
from .through import around
from .types import Schema, settled

T = TypeVar("T")

QUEUE_CHUNKS = 8
QUEUE_BATCHES = 2
_LOOK_SECONDS = 0.2
_ATTEMPTS = 5
_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 10.0


@dataclass(frozen=True)
class Order:
    """What is to be moved: one query of a source into one table of a sink, in one part.

    `run_key` is the same in each attempt of a run. With `full_refresh` an incremental load begins anew, whatever the last one
    left; with `span` it reads those rows again and leaves the state as it is.

    An order that is one of several of a load (see `split`) may read in a `snapshot` that another session keeps; may leave a
    `state`, when the last load left `before`; and may take the rows, `stage_rows` of them, from a `stage`, a table of the sink
    that has those of the query already.
    """

    name: str
    run_key: str
    query: Query
    table: tuple[str | None, str]
    mode: Mode = "append"
    keys: tuple[str, ...] = ()
    part: str = "all"
    engine: Engine = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    incremental: Incremental | None = None
    quality: quality.Quality = field(default_factory=quality.Quality)
    full_refresh: bool = False
    span: Span | None = None
    snapshot: str | None = None
    before: Mapping[str, Any] | None = None
    state: Mapping[str, Any] | None = None
    stage: tuple[str | None, str] | None = None
    stage_rows: int = 0


@dataclass
class Moved:
    """What became of an order: rule R4 of its report.

    `seconds` is the time from opening the source to the commit; `attempt` the one that did it; `skipped` is True when an
    earlier attempt had loaded this part already.
    """

    table: str
    mode: Mode
    engine: str = ""
    reason: str = ""
    part: str = "all"
    attempt: int = 1
    skipped: bool = False
    seconds: float = 0.0
    counts: Counts = field(default_factory=Counts)
    ddl: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As JSON data: the output of the task."""
        counts = self.counts
        return {
            "rows": counts.written,
            "table": self.table,
            "mode": self.mode,
            "rows_read": counts.read,
            "rows_written": counts.written,
            "rows_inserted": counts.inserted,
            "rows_updated": counts.updated,
            "rows_deleted": counts.deleted,
            "rows_quarantined": counts.quarantined,
            "rows_discarded": counts.discarded,
            "bytes": counts.size_bytes,
            "seconds": round(self.seconds, 3),
            "engine": self.engine,
            "part": self.part,
            "attempt": self.attempt,
            "skipped_as_duplicate": self.skipped,
            "ddl": self.ddl,
            "warnings": self.warnings,
        }


@dataclass(frozen=True)
class Prepared:
    """What is known before anything is written: the columns on both sides, the lane, the statements.

    `query` is what is read, with the bounds of an incremental load; `before` the state that it goes on from, `state` the
    one that it leaves, None for no other. `changes` are those statements of `ddl` that change the table, `warnings` are for
    the report, `sieve` leaves out rows of one attempt.
    """

    query: Query
    came: Schema
    existing: Schema | None
    job: Job
    choice: Choice
    ddl: tuple[str, ...]
    statements: tuple[str, ...]
    before: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] | None = None
    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    sieve: Sieve | None = None


def move(order: Order, source: Source, sink: Sink, session: Session) -> Moved:
    """Do it, once: a part that this run loaded before is not loaded again.

    A fault that may pass is tried again with a pause, each time from the start; the sink is then as it was before.

    Raises:
        Refused, BadValue, Passing: as they are told; the sink is as it was.
        Cancelled: `session.stop` was set.
    """
    return repeated(lambda attempt: _once(order, source, sink, session, attempt), session)


def repeated(do: Callable[[int], T], session: Session) -> T:
    """Do something; a fault that may pass is tried again with a pause.

    Raises:
        Passing: it did not pass.
        Gone: the snapshot is gone, which no pause mends.
        Cancelled: `session.stop` was set.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return do(attempt)
        except Gone:
            raise
        except Passing as error:
            if session.stop.is_set():
                raise Cancelled("cancelled; nothing was written") from None
            if attempt == _ATTEMPTS:
                raise
            pause = min(_LONGEST_PAUSE_SECONDS, _PAUSE_SECONDS * 2 ** (attempt - 1))
            session.say(f"{error.message}; trying again in {pause:g} s (attempt {attempt + 1} of {_ATTEMPTS})")
            if session.stop.wait(pause):
                raise Cancelled("cancelled; nothing was written") from None
    raise AssertionError("the last attempt returns or raises")


def prepare(order: Order, reader: Reader, writer: Writer, *, attempt: int = 1) -> Prepared:
    """Look at both sides and choose the lane; nothing is written.

    Raises:
        Refused: the columns, keys or types of the two do not go together; all of it is told at once.
    """
    query = order.query
    before = dict(order.before or {})
    state = order.state
    if order.incremental is not None:
        before = dict(writer.state(Job(order.name, order.run_key, order.table, order.mode, Schema(()))))
        found = bounded(order, order.incremental, reader, before)
        query, state = found.query, found.state
    query, came = quality.described(order.quality, query, reader)
    _refuse_names(came)
    existing = writer.describe(order.table)
    came = settled(came, existing)
    job = Job(
        order.name,
        order.run_key,
        order.table,
        order.mode,
        came,
        part=order.part,
        attempt=attempt,
        keys=order.keys,
        serial=order.incremental is not None or order.before is not None,
        options=order.options,
    )
    _refuse_keys(job)
    agreed = quality.fitted(order.quality, query, job, existing, reader, writer)
    job, came, existing = agreed.job, agreed.job.schema, agreed.existing
    target = existing
    if existing is not None:
        _refuse_columns(job, existing, writer, sifts=order.quality.contract.types == "discard_row")
    else:
        target = _as_made(came, writer)
    assert target is not None
    sieve = quality.sieve_of(order.quality, job, target, writer)
    choice = _choice(order.engine, came, target, reader, writer, sieve, is_asked=bool(job.asks))
    ddl = (*agreed.changes, *(() if existing is not None else writer.ddl(job)))
    gone = (sql for sql, _ in deletes.steps(job, writer, deletes.named(job, writer), "_rainbow_stage"))
    statements = (*writer.plan(job, existing), *gone)
    return Prepared(
        agreed.query,
        came,
        existing,
        job,
        choice,
        ddl,
        statements,
        before,
        state,
        changes=agreed.changes,
        warnings=agreed.warnings,
        sieve=sieve,
    )


def bounded(order: Order, wanted: Incremental, reader: Reader, before: Mapping[str, Any]) -> Window:
    """What an incremental load reads, from the state that the last one left."""
    if order.span is not None:
        return spanned(order.query, wanted, reader, order.span)
    if not order.full_refresh:
        return window(order.query, wanted, reader, before)
    found = window(order.query, wanted, reader, {})
    return replace(found, state=found.state or {})  # without any row there is no cursor to go on from


def _choice(
    engine: Engine,
    came: Schema,
    target: Schema,
    reader: Reader,
    writer: Writer,
    sieve: Sieve | None,
    *,
    is_asked: bool,
) -> Choice:
    """The lane; rows of which bad ones are left out go one by one, those that checks see do not go as bytes."""
    if sieve is None:
        takes = [one for one in writer.lanes() if not is_asked or one in ("arrow", "rows")]
        return choose(came, target, reader.lanes(), takes, engine=engine)
    why = f"values of column '{sieve.names[min(sieve.fixes)]}' are looked at, to leave out bad rows"
    if engine not in ("auto", "rows"):
        raise Refused(f"`engine: {engine}` cannot be used here: {why}; write `engine: auto`")
    faster = [one for one in reader.lanes() if one in writer.lanes() and one != "rows"]
    return Choice("rows", tuple((one, why) for one in faster))


def _refuse_names(came: Schema) -> None:
    seen: set[str] = set()
    twice = [one for one in came.names if one in seen or seen.add(one)]  # type: ignore[func-returns-value]
    if twice:
        raise Refused(f"the query gives the column '{twice[0]}' twice; name each column once with AS")
    if any(not one for one in came.names):
        raise Refused("the query gives a column without a name; name it with AS")
    if not came.columns:
        raise Refused("the query gives no columns; write a SELECT")


def _refuse_keys(job: Job) -> None:
    missing = [one for one in job.keys if one not in job.schema]
    if missing:
        raise Refused(
            f"`keys` names {_listed(missing)}, which the query does not give (columns: {', '.join(job.schema.names)})"
        )


def _refuse_columns(job: Job, existing: Schema, writer: Writer, *, sifts: bool) -> None:
    """Tell at once all that keeps the rows from fitting into the table."""
    shown = ".".join(one for one in job.table if one)
    flaws = [
        f"the table '{shown}' has no column {_listed(new)} (columns: {', '.join(existing.names)})"
        for new in [[one for one in job.schema.names if one not in existing]]
        if new
    ]
    needed = [
        one.name
        for one in existing.columns
        if one.name not in job.schema and not one.nullable and one.default is None and not one.generated
        if job.versions is None or one.name not in job.versions.names
    ]
    if needed:
        flaws.append(f"the table '{shown}' needs a value in {_listed(needed)}, which the query does not give")
    flaws += [
        f"column '{column.name}' is {column.type} and {kind} in the table '{shown}', which {why}"
        for column, kind, why in misfits(job.schema, existing)
        if not _is_loose(writer.dialect) and not (sifts and can_sift(column.type, kind))
    ]
    if flaws:
        raise Refused(f"{'; '.join(flaws)}; nothing was written: change the query or the table")


def _is_loose(dialect: str) -> bool:
    """SQLite takes any value in any column; each value is looked at instead."""
    return dialect == "sqlite"


def _as_made(came: Schema, writer: Writer) -> Schema:
    """The columns of the table that will be made."""
    return Schema(
        tuple(
            replace(one, type=replace(one.type, native=writer.type_of(one), dialect=writer.dialect))
            for one in came.columns
        )
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{one}'" for one in names)


# -- one attempt


def _once(order: Order, source: Source, sink: Sink, session: Session, attempt: int) -> Moved:
    begun = time.monotonic()
    session = replace(session, is_same=refuse_itself(order, source, sink, session))
    reader = source.open(session)
    try:
        reader = around(reader, order, session)
        if order.snapshot is not None:
            reader.at(Part(order.part, snapshot=order.snapshot))
        writer = sink.open(session)
        try:
            with cancelled_by(session, reader, writer):
                return _loaded(order, reader, writer, session, attempt, begun)
        except BaseException:
            writer.rollback()
            raise
        finally:
            writer.close()
    finally:
        reader.close()


def refuse_itself(order: Order, source: Source, sink: Sink, session: Session) -> bool:
    """Whether source and sink are one database.

    Raises:
        Refused: they are, and it cannot do to itself what is asked.
    """
    is_same = _is_same(source, sink, session)
    if is_same:
        _refuse_itself(order)
    return is_same


def _is_same(source: Source, sink: Sink, session: Session) -> bool:
    urls = [getattr(one, "url", None) for one in (source, sink)]
    if not all(isinstance(one, str) for one in urls):
        return False
    from .sqlalchemy import is_same

    return is_same(str(urls[0]), str(urls[1]), session.root)


def _refuse_itself(order: Order) -> None:
    """What one database cannot do to itself: a table is not replaced by what is read of it, which would wait for its own lock."""
    shown = ".".join(one for one in order.table if one)
    name = re.escape(order.table[1])
    reads = order.query.table == order.table or re.search(rf"(?<!\w){name}(?!\w)", order.query.sql or "")
    if order.mode == "replace" and reads:
        raise Refused(
            f"the query reads the table '{shown}' that it replaces; write into another table, or use `mode: upsert`"
        )


def _loaded(order: Order, reader: Reader, writer: Writer, session: Session, attempt: int, begun: float) -> Moved:
    prepared = prepare(order, reader, writer, attempt=attempt)
    job, lane = prepared.job, prepared.choice.lane
    moved = Moved(
        ".".join(one for one in order.table if one), order.mode, lane, prepared.choice.reason, order.part, attempt
    )
    moved.ddl = list(prepared.ddl)
    if order.stage is not None:
        moved.engine, moved.reason = "stage", ""
    if not writer.begin(job, prepared.existing, prepared.changes):
        moved.skipped = True
        session.say(f"part '{order.part}' of this run is loaded already; nothing to do")
    else:
        if job.serial and dict(writer.state(job)) != prepared.before:
            _refuse_moved(order)
        quality.before(order.quality, writer)
        meter = Meter(session.progress, _expected(prepared, reader))
        counts = Counts(read=_come(order, prepared, reader, writer, session, meter))
        meter.end(counts.read)
        sieve = prepared.sieve
        left_out = sieve.count if sieve is not None else 0
        if reader.count is not None and reader.count != counts.read + left_out:
            raise Passing(f"the source gave {reader.count} rows and {counts.read} came to the sink")
        reader.close()  # SQLite commits when nobody reads, and no server is kept waiting
        counts.size_bytes = meter.size_bytes
        moved.counts, warnings = quality.finished(
            order.quality, job, prepared.existing, writer, counts, session.say, sieve
        )
        moved.warnings = [*prepared.warnings, *warnings]
        if session.stop.is_set():
            raise Cancelled("cancelled; nothing was written")
        writer.commit(moved.counts, prepared.state)
    moved.seconds = time.monotonic() - begun
    return moved


def _refuse_moved(order: Order) -> None:
    """The bounds of this load are those of another state."""
    text = "another run moved the cursor of this task meanwhile"
    raise Passing(text) if order.before is None else Refused(f"{text}; start a new run")


def _come(order: Order, prepared: Prepared, reader: Reader, writer: Writer, session: Session, meter: Meter) -> int:
    """Bring all rows to the sink, from the source or from where they are already; gives how many."""
    if order.stage is None:
        return _pumped(prepared, reader, writer, session, meter)
    rows = writer.take(order.stage)
    if rows != order.stage_rows:
        raise Refused(
            f"the stage '{order.stage[1]}' has {rows} rows and the parts of this run wrote {order.stage_rows}; start a new run"
        )
    return rows


def _expected(prepared: Prepared, reader: Reader) -> int | None:
    """About how many rows will come."""
    with suppress(TaskFailed):
        return reader.estimate(prepared.query)
    return None


def _pumped(prepared: Prepared, reader: Reader, writer: Writer, session: Session, meter: Meter) -> int:
    """Read in a thread of its own and write in this one, with few pieces between; gives the rows that were written."""
    lane, schema, query = prepared.choice.lane, prepared.came, prepared.query
    if lane == "rows":
        with _ahead(reader.rows(query, schema), QUEUE_BATCHES, session.stop, reader.cancel) as rows:
            sieve = prepared.sieve
            return writer.write_rows(meter.of_rows(sieve.passed(rows) if sieve is not None else rows))
    if lane == "arrow":
        with _ahead(reader.batches(query, schema), QUEUE_BATCHES, session.stop, reader.cancel) as batches:
            return writer.write_batches(meter.of_batches(batches))
    with _ahead(reader.chunks(query, schema, lane), QUEUE_CHUNKS, session.stop, reader.cancel) as chunks:
        return writer.write_chunks(meter.of_chunks(chunks, reader), lane)


class _End(Generic[T]):
    """What the reading thread puts last: why it ended, None when all was read."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


@contextmanager
def _ahead(pieces: Iterable[T], size: int, stop: threading.Event, cancel: Callable[[], None]) -> Iterator[Iterator[T]]:
    """The pieces, read ahead by a thread; it has ended when this ends, in whichever way."""
    queue: Queue[T | _End[T]] = Queue(size)
    given_up = threading.Event()

    def put(one: T | _End[T]) -> bool:
        while not given_up.is_set():
            try:
                queue.put(one, timeout=_LOOK_SECONDS)
                return True
            except Full:
                continue
        return False

    def read() -> None:
        error: BaseException | None = None
        try:
            for one in pieces:
                if stop.is_set() or not put(one):
                    break
        except BaseException as found:
            error = found
        finally:
            put(_End(error))

    def taken() -> Iterator[T]:
        while True:
            one = queue.get()
            if isinstance(one, _End):
                if one.error is not None:
                    raise one.error
                if stop.is_set():
                    raise Cancelled("cancelled; nothing was written")
                return
            yield one

    thread = threading.Thread(target=read, name="sql-reader", daemon=True)
    thread.start()
    try:
        yield taken()
    except BaseException:
        cancel()
        raise
    finally:
        given_up.set()
        while thread.is_alive():
            with_nothing(queue)
            thread.join(_LOOK_SECONDS)


def with_nothing(queue: Queue[Any]) -> None:
    """Empty a queue, so that whoever fills it sees that nobody takes any more."""
    try:
        while True:
            queue.get_nowait()
    except Empty:
        return


@contextmanager
def cancelled_by(session: Session, reader: Reader, writer: Writer) -> Iterator[None]:
    """End what the servers do as soon as the run is cancelled; an error that comes of it is told as the cancel that it is."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(_LOOK_SECONDS):
            if session.stop.is_set():
                reader.cancel()
                writer.cancel()
                return

    thread = threading.Thread(target=watch, name="sql-cancel", daemon=True)
    thread.start()
    try:
        yield
    except TaskFailed as error:
        if session.stop.is_set() and not isinstance(error, Cancelled):
            raise Cancelled("cancelled; nothing was written") from error
        raise
    finally:
        is_over.set()
        thread.join()
