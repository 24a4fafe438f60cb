"""Moves a query in parts: cut once and kept in the ledger, each part loaded once; whoever loads the last one ends the load."""

from __future__ import annotations

import base64
import json
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

from ..errors import Cancelled, TaskFailed, near
from ..run import split as shared_out
from .base import Counts, Gone, Job, Part, Query, Reader, Refused, Session, Writer
from .config import Sink, Source
from .incremental import PLACEHOLDER
from .move import Moved, Order, bounded, cancelled_by, move, prepare, refuse_itself, repeated
from .quality import Quality
from .split import Split
from .types import Schema

PLAN = "(plan)"
"""The part under which the ledger has how a run was cut; its job is the task with the run."""

END = "(end)"
"""The part that ends a load whose other parts are committed one by one."""

WHOLE = "all"
_NOTHING = "1 = 0"
_ALONE = ("sqlite", "duckdb")
"""Sinks that one writes at a time: parts take turns, so that none waits for a lock in vain."""

_LONG = 40_000
_KEPT_DAYS = 7
_RENEWALS = 3
_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Cut:
    """What was decided before the first part was read: the same in each attempt of a run.

    `query` has the bounds of an incremental load; `before` is the state that it goes on from, `state` the one that it leaves.
    """

    query: Query
    parts: tuple[Part, ...]
    before: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] | None = None
    cursor: str | None = None


def cut(order: Order, split: Split, reader: Reader, writer: Writer) -> Cut:
    """Decide the parts; nothing is written.

    Raises:
        Refused: the source cannot be cut so, or its columns do not go into the table.
    """
    query, before, state, cursor = order.query, {}, None, None
    if order.incremental is not None:
        before = dict(writer.state(_job(order.name, order)))
        found = bounded(order, order.incremental, reader, before)
        query, state = found.query, found.state
        cursor = None if found.low is None else reader.literal(found.low)
    schema = reader.describe(query)
    if split.by is not None and split.by not in schema:
        hint = near(split.by, schema.names) or "name one of its columns"
        raise Refused(f"`split` names the column '{split.by}', which the query does not give; {hint}")
    parts = reader.parts(query, schema, split.asked(reader.dialect))
    return Cut(query, tuple(replace(one, snapshot=None) for one in parts), before, state, cursor)


def stage_of(order: Order) -> tuple[str | None, str]:
    """The table that takes the parts of a run before all are there."""
    digest = blake2b(f"{order.name}\0{order.run_key}\0{order.table[1]}".encode(), digest_size=8).hexdigest()
    return order.table[0], f"_rainbow_split_{digest}"


def orders(order: Order, split: Split, made: Cut) -> list[Order]:
    """What is moved, part by part, for `explain` and for the load itself."""
    return [_of_part(order, split, made, one) for one in made.parts]


# -- what is kept of it


def _plan_name(order: Order) -> str:
    return f"{order.name} split {order.run_key}"


def _digest(order: Order, split: Split) -> str:
    said = (order.query, order.table, order.mode, order.keys, split.by, split.method, split.every, split.atomic)
    return blake2b(repr(said).encode(), digest_size=12).hexdigest()


def _dumped(made: Cut, order: Order, split: Split) -> dict[str, Any]:
    """As JSON that the ledger takes; the query itself, which may have secrets in it, is not there."""
    data = {
        "split": _digest(order, split),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "where": list(made.query.where),
        "cursor": made.cursor,
        "before": dict(made.before),
        "state": None if made.state is None else dict(made.state),
        "parts": [[one.name, list(one.where), one.partition] for one in made.parts],
    }
    text = json.dumps(data, ensure_ascii=False)
    if len(text.encode()) <= _LONG:
        return data
    packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    if len(packed) > _LONG + _LONG // 2:
        raise Refused(f"`split` makes {len(made.parts)} parts, more than the ledger keeps; make fewer or longer ones")
    return {"packed": packed}


def _loaded(kept: Mapping[str, Any], order: Order, split: Split) -> Cut:
    data: Mapping[str, Any] = kept
    if "packed" in kept:
        data = json.loads(zlib.decompress(base64.b64decode(kept["packed"])))
    if data["split"] != _digest(order, split):
        raise Refused("the task was changed after this run had cut its parts; start a new run")
    query = replace(order.query, where=tuple(data["where"]))
    if query.sql is not None and data["cursor"] is not None:
        query = replace(query, sql=PLACEHOLDER.sub(lambda _: str(data["cursor"]), query.sql))
    parts = tuple(Part(name, tuple(where), partition=partition) for name, where, partition in data["parts"])
    return Cut(query, parts, data["before"], data["state"], data["cursor"])


# -- what is open while the parts run


class Held:
    """The cut of a run, and the session whose snapshot its parts read, in this process.

    `is_late`: some parts were loaded as of another snapshot, which is gone.
    """

    def __init__(self, made: Cut) -> None:
        self.cut = made
        self.snapshot: str | None = None
        self.is_late = False
        self.turn = threading.Lock()
        self._reader: Reader | None = None
        self._lock = threading.Lock()

    def hold(self, reader: Reader) -> None:
        """Keep a session open when others can read as of its snapshot; else end it."""
        self.close()
        self.snapshot = reader.snapshot()
        if self.snapshot is None:
            reader.close()
        else:
            self._reader = reader

    def renew(self, gone: str | None, source: Source, session: Session, *, is_late: bool) -> None:
        """A new snapshot in the place of one that is gone, unless another part did it already."""
        with self._lock:
            if self.snapshot == gone:
                self.hold(source.open(session))
                self.is_late = self.is_late or is_late

    def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()


_HELD: dict[tuple[str, str], Held] = {}
"""By run and task."""


def begin(order: Order, split: Split, source: Source, sink: Sink, session: Session) -> Held:
    """Decide the parts of a run, or learn how they were decided, and open the snapshot that they read.

    Raises:
        Refused: it cannot be done; nothing was written.
        Passing: a fault that may pass did not.
    """
    return repeated(lambda attempt: _begun(order, split, source, sink, session), session)


def _begun(order: Order, split: Split, source: Source, sink: Sink, session: Session) -> Held:
    forget(order.run_key, order.name.rpartition("/")[2])
    kept = _kept(order, sink, session)
    if kept:
        held = Held(_loaded(kept, order, split))
        with _open(sink, session) as writer:
            done = set(writer.loaded(_job(order.name, order)))
        parts = {one.name for one in held.cut.parts}
        if parts - done:
            held.hold(source.open(session))
            held.is_late = held.snapshot is not None and bool(parts & done)
    else:
        held = _new(order, split, source, sink, session)
    _HELD[order.run_key, order.name] = held
    return held


def _new(order: Order, split: Split, source: Source, sink: Sink, session: Session) -> Held:
    if refuse_itself(order, source, sink, session) and not _is_looked_at(sink):
        raise Refused("one file of DuckDB cannot be read and written in parts; remove `split`")
    reader = source.open(session)
    try:
        looks = replace(session, only_looks=_is_looked_at(sink))
        with _open(sink, looks) as writer, cancelled_by(session, reader, writer):
            made = cut(order, split, reader, writer)
            prepare(_whole(order, made), reader, writer)
            stale = _stale(order, writer)
        held = Held(made)
        held.hold(reader)
    except BaseException:
        reader.close()
        raise
    try:
        plan = _plan_order(order, split, made)
        if move(plan, source, sink, session).skipped:
            held.cut = _loaded(_kept(order, sink, session), order, split)
        with _open(sink, session) as writer:
            for table in stale:
                writer.drop(table)
    except BaseException:
        held.close()
        raise
    return held


def forget(run_key: str, task: str) -> None:
    """End what is open for the parts of a task of a run in this process."""
    for key in [one for one in _HELD if one[0] == run_key and one[1].rpartition("/")[2] == task]:
        _HELD.pop(key).close()


def _is_looked_at(sink: Sink) -> bool:
    """DuckDB refuses to open a file in two ways at once."""
    return not str(getattr(sink, "url", "")).startswith("duckdb")


def _kept(order: Order, sink: Sink, session: Session) -> Mapping[str, Any]:
    with _open(sink, session) as writer:
        return dict(writer.state(_job(_plan_name(order), order)))


def _stale(order: Order, writer: Writer) -> list[tuple[str | None, str]]:
    """The stages of older runs of this task that failed and were not tried again."""
    start = f"{order.name} split "
    oldest = (datetime.now(UTC) - timedelta(days=_KEPT_DAYS)).isoformat()
    found = []
    for job, begun in writer.jobs(_job(order.name, order), PLAN):
        if job.startswith(start) and begun < oldest:
            table = stage_of(replace(order, run_key=job.removeprefix(start)))
            if writer.describe(table) is not None:
                found.append(table)
    return found


@contextmanager
def _open(sink: Sink, session: Session) -> Iterator[Writer]:
    writer = sink.open(session)
    try:
        yield writer
    finally:
        writer.close()


def _job(name: str, order: Order) -> Job:
    return Job(name, order.run_key, order.table, "append", Schema(()))


# -- the orders


def _of_part(order: Order, split: Split, made: Cut, part: Part, snapshot: str | None = None) -> Order:
    query = replace(made.query, where=(*made.query.where, *part.where), partition=part.partition)
    bare = replace(
        order, query=query, part=part.name, incremental=None, full_refresh=False, span=None, snapshot=snapshot
    )
    if split.is_whole(order.mode):
        return replace(bare, table=stage_of(order), mode="append", keys=(), quality=Quality(order.quality.shape))
    return replace(bare, quality=replace(order.quality, pre=(), post=()))


def _plan_order(order: Order, split: Split, made: Cut) -> Order:
    """A load of no rows that makes the table, or the stage, and keeps the cut."""
    bare = _of_part(order, split, made, Part(PLAN, (_NOTHING,)))
    quality = bare.quality
    if not split.is_whole(order.mode):
        checks = order.quality.checks
        quality = replace(order.quality, checks=checks.of_rows() if checks is not None else None, post=(), deletes=None)
    return replace(
        bare,
        name=_plan_name(order),
        mode="append",
        quality=quality,
        before={},
        state=_dumped(made, order, split),
    )


def _whole(order: Order, made: Cut) -> Order:
    """The load of all rows, which leaves the state."""
    before = made.before if order.incremental is not None else None
    return replace(
        order,
        query=made.query,
        part=WHOLE,
        incremental=None,
        full_refresh=False,
        span=None,
        before=before,
        state=made.state,
    )


def _end_order(order: Order, made: Cut) -> Order:
    """A load of no rows after all parts: the statements that come last, and the state."""
    whole = _whole(order, made)
    query = replace(made.query, where=(*made.query.where, _NOTHING))
    quality = Quality(order.quality.shape, order.quality.contract, post=order.quality.post)
    return replace(whole, query=query, part=END, mode="append", quality=quality)


# -- the parts


@dataclass
class Shared:
    """What a slice did: its parts, and the end of the load when it was the one that did it."""

    parts: list[Moved]
    end: Moved | None = None

    def as_dict(self, order: Order) -> dict[str, Any]:
        """As JSON data: the output of the slice."""
        counts = [one.counts for one in self.parts]
        whole = Moved(
            ".".join(one for one in order.table if one),
            order.mode,
            ", ".join(dict.fromkeys(one.engine for one in self.parts if one.engine)),
            part=", ".join(one.part for one in self.parts),
            attempt=max((one.attempt for one in self.parts), default=1),
            skipped=bool(self.parts) and all(one.skipped for one in self.parts),
            seconds=sum(one.seconds for one in self.parts),
            counts=Counts(
                sum(one.read for one in counts),
                sum(one.written for one in counts),
                _sum([one.inserted for one in counts]),
                _sum([one.updated for one in counts]),
                _sum([one.deleted for one in counts]),
                sum(one.quarantined for one in counts),
                sum(one.size_bytes for one in counts),
            ),
            ddl=[text for one in self.parts for text in one.ddl],
            warnings=list(dict.fromkeys(text for one in self.parts for text in one.warnings)),
        )
        parts = [
            {"part": one.part, "rows": one.counts.written, "skipped_as_duplicate": one.skipped} for one in self.parts
        ]
        return {**whole.as_dict(), "parts": parts, "end": None if self.end is None else self.end.as_dict()}


def _sum(numbers: Sequence[int | None]) -> int | None:
    known = [one for one in numbers if one is not None]
    return sum(known) if known else None


def share(
    order: Order, split: Split, source: Source, sink: Sink, session: Session, *, index: int = 0, count: int = 1
) -> Shared:
    """Load the parts of one slice of so many, and end the load when all parts of all slices are there.

    Raises:
        Refused, BadValue, Passing: as `move` does; parts that were committed stay so.
    """
    held = _HELD.get((order.run_key, order.name)) or begin(order, split, source, sink, session)
    mine = shared_out(held.cut.parts, count)[index]
    done = _done(order, sink, session)
    shared = Shared([])
    for part in mine:
        if part.name in done:
            session.say(f"part '{part.name}' of this run is loaded already; nothing to do")
            shared.parts.append(Moved(".".join(filter(None, order.table)), order.mode, part=part.name, skipped=True))
        else:
            shared.parts.append(_load(order, split, held, part, source, sink, session))
    shared.end = _ended(order, split, held, source, sink, session)
    return shared


def _done(order: Order, sink: Sink, session: Session) -> Mapping[str, int]:
    def look(attempt: int) -> Mapping[str, int]:
        with _open(sink, session) as writer:
            return writer.loaded(_job(order.name, order))

    return repeated(look, session)


def _load(order: Order, split: Split, held: Held, part: Part, source: Source, sink: Sink, session: Session) -> Moved:
    with _turn(held, sink, session):
        for attempt in range(_RENEWALS):
            snapshot = held.snapshot
            late = _late(split, held, part)
            if late:
                session.say(f"warning: {late}")
            try:
                moved = move(_of_part(order, split, held.cut, part, snapshot), source, sink, session)
            except Gone:
                if attempt == _RENEWALS - 1:
                    raise
                is_late = bool({one.name for one in held.cut.parts} & set(_done(order, sink, session)))
                held.renew(snapshot, source, session, is_late=is_late)
                continue
            moved.warnings += [late] if late else []
            if not moved.skipped:
                session.say(f"part '{part.name}': {moved.counts.written} of {moved.counts.read} rows")
            return moved
    raise AssertionError("the last attempt returns or raises")


def _late(split: Split, held: Held, part: Part) -> str:
    """What is to be said when a part is read as of another moment than those before.

    Raises:
        Refused: rows would be lost or doubled.
    """
    if not held.is_late:
        return ""
    if split.method == "ctid":
        raise Refused(
            "the snapshot in which other parts were read is gone, and rows that changed since then stand in other places "
            "(ctid); start a new run, or split `by` a column"
        )
    key = f"`{split.by}`" if split.by else "the partition"
    return (
        f"the snapshot in which other parts were read is gone: part '{part.name}' is read as of now; a row of which {key} "
        "changed in between may be in two parts or in none"
    )


@contextmanager
def _turn(held: Held, sink: Sink, session: Session) -> Iterator[None]:
    if not str(getattr(sink, "url", "")).startswith(_ALONE):
        yield
        return
    while not held.turn.acquire(timeout=_LOOK_SECONDS):
        if session.stop.is_set():
            raise Cancelled("cancelled; nothing was written")
    try:
        yield
    finally:
        held.turn.release()


# -- the end


def _ended(order: Order, split: Split, held: Held, source: Source, sink: Sink, session: Session) -> Moved | None:
    """End the load when all parts are there and nobody has; what it did then."""
    made = held.cut
    with _turn(held, sink, session):
        done = _done(order, sink, session)
        if any(one.name not in done for one in made.parts):
            return None
        if not split.is_whole(order.mode):
            if END in done or (order.incremental is None and not order.quality.post):
                return None
            return _or_nothing(move(_end_order(order, made), source, sink, session))
        moved = None
        if WHOLE not in done:
            rows = sum(done[one.name] for one in made.parts)
            whole = replace(_whole(order, made), stage=stage_of(order), stage_rows=rows)
            moved = _or_nothing(move(whole, source, sink, session))
        try:
            with _open(sink, session) as writer:
                writer.drop(stage_of(order))
        except TaskFailed as error:  # the load is done; the next ones remove it
            session.say(f"warning: the stage {stage_of(order)[1]} could not be removed: {error.message}")
        return moved


def _or_nothing(moved: Moved) -> Moved | None:
    return None if moved.skipped else moved
