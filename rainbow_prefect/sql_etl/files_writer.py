"""Writes a table as files of a folder or bucket; its manifest says which count, and which parts of which runs are in them."""

from __future__ import annotations

import contextlib
import random
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import arrow_types, manifest
from .base import Counts, Job, Passing, Refused, Rows, Session, Writer, refuse_existing
from .csv_text import Csv
from .encoders import Compression, CsvEncoder, Encoder, Format, ParquetEncoder, encoder, extension
from .files_checks import STAGE, AskedRows
from .manifest import Claim, File, Load, Manifest
from .places import New, Place
from .types import Column, Schema

if TYPE_CHECKING:
    import pyarrow

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""The name of the folder of rows that have no value in the column, as Hive writes it."""

_MOST_OPEN = 64
_WAITING_BYTES = 64 << 20
_PAUSE_SECONDS = 0.05
_TRIES = 200
_TAKEN = "another attempt at this part took over; nothing was written"
_FOLDER_KINDS = frozenset(
    {"bool", "int", "decimal", "text", "date", "timestamp", "timestamptz", "time", "uuid", "enum"}
)
_DIALECTS = {"csv": "csv", "jsonl": "jsonl", "parquet": "arrow"}


class FilesWriter(Writer):
    """One folder for each table."""

    is_database = False

    def __init__(
        self,
        at: Callable[[tuple[str | None, str]], Place],
        session: Session,
        *,
        format: Format,
        compression: Compression,
        options: Csv,
        partition_by: Sequence[str] = (),
        lock_timeout_seconds: float | None = None,
    ) -> None:
        self.dialect = _DIALECTS[format]
        self._at = at
        self._session = session
        self._format, self._compression, self._options = format, compression, options
        self._partition_by = tuple(partition_by)
        self._waits = lock_timeout_seconds or session.lock_timeout_seconds
        self._job: Job | None = None
        self._asked: AskedRows | None = None
        self._open: dict[tuple[str | None, ...], tuple[Encoder, Any, New]] = {}
        self._new: list[New] = []
        self._files: list[File] = []
        self._row = 0
        self._counts: dict[tuple[str | None, ...], int] = {}

    # -- what is there

    def describe(self, table: tuple[str | None, str]) -> Schema | None:
        found = manifest.read(self._at(table).manifest()[0])
        if found.schema is None:
            return None
        return Schema(
            tuple(
                replace(one, type=replace(one.type, native=self._kind(one), dialect=self.dialect))
                for one in found.schema.columns
            )
        )

    def lanes(self) -> tuple[Any, ...]:
        is_plain = self._format == "csv" and self._options.is_plain and not self._partition_by
        return ("csv", "arrow", "rows") if is_plain else ("arrow", "rows")

    def type_of(self, column: Column) -> str:
        return self._kind(column)

    def _kind(self, column: Column) -> str:
        """The type of Arrow in Parquet; text files have the word for what the text is."""
        if self._format == "parquet":
            return str(arrow_types.field_of(column, intervals=False).type)
        return str(replace(column.type, native="", dialect=""))

    def ddl(self, job: Job) -> list[str]:
        columns = ", ".join(f"{one.name} {self._kind(one)}" for one in job.schema.columns)
        return [f"new {self._format} files of {_shown(job)} ({columns})"]

    def plan(self, job: Job, existing: Schema | None) -> list[str]:
        by = f" by {', '.join(self._partition_by)}" if self._partition_by else ""
        made = [] if existing is not None else self.ddl(job)
        old = {
            "replace": ["leave out all older files"],
            "delete_insert": [f"leave out the older files of the same{by[3:]}"],
        }
        return [*made, f"write {self._format} files of {_shown(job)}{by}", *old.get(job.mode, [])]

    # -- a load

    def begin(self, job: Job, existing: Schema | None, changes: Sequence[str] = ()) -> bool:
        self._refuse(job, existing)
        self._place = self._at(job.table)
        self._id, self._token = manifest.id_of(job), secrets.token_hex(6)
        self._row, self._open, self._new, self._files, self._counts = 0, {}, [], [], {}
        self._forget_asked()
        self._schema = existing if existing is not None and job.mode != "replace" else job.schema
        self._inner = Schema(tuple(one for one in self._schema.columns if one.name not in self._partition_by))
        self._target = arrow_types.arrow_schema(self._schema, intervals=False)
        if not self._claimed(job, existing):
            return False
        self._job = job
        self._place.sweep(self._known)
        if job.asks:
            self._asked = AskedRows(job.asks, arrow_types.arrow_schema(job.schema, intervals=False))
            self._asked.remember(job.table[0], manifest.read(self._place.manifest()[0]).loads)
        return True

    def _refuse(self, job: Job, existing: Schema | None) -> None:
        shown = _shown(job)
        if job.mode in ("upsert", "insert_new", "scd2"):
            raise Refused(
                f"`mode: {job.mode}` needs a database, files are never changed; "
                "use `mode: delete_insert` with `partition_by` in the sink, or `mode: replace`"
            )
        if job.mode == "delete_insert" and (
            not self._partition_by or job.where or set(job.keys) - set(self._partition_by)
        ):
            raise Refused(
                "`mode: delete_insert` replaces whole partitions of files; "
                f"write `partition_by` in the sink and no other `keys` (keys: {', '.join(job.keys) or 'none'})"
            )
        for name in self._partition_by:
            if name not in job.schema:
                raise Refused(f"`partition_by: {name}` is no column (columns: {', '.join(job.schema.names)})")
            if job.schema[name].type.kind not in _FOLDER_KINDS:
                raise Refused(f"column '{name}' is {job.schema[name].type}, which cannot be the name of a folder")
        if len(self._partition_by) == len(job.schema.columns):
            raise Refused("`partition_by` names all columns; leave one for the files")
        if existing is not None and job.mode != "replace":
            missing = [one for one in job.schema.names if one not in existing]
            if missing:
                raise Refused(
                    f"the files of '{shown}' have no column '{missing[0]}'; use `mode: replace` for new columns"
                )

    def _claimed(self, job: Job, existing: Schema | None) -> bool:
        """Put our claim into the manifest; False when the part is loaded. Another live attempt at it is waited for."""
        deadline = time.monotonic() + self._waits
        while True:
            data, version = self._place.manifest()
            found = manifest.read(data)
            if found.loaded(job) is not None and not job.force:
                return False
            refuse_existing(job, existing)
            self._refuse_layout(found, job)
            other = found.claims.get(self._id)
            if other is None or not self._is_waited_for(other, deadline):
                mine = manifest.claim(self._token)
                if self._place.swap(version, found.claimed(self._id, mine).dump()):
                    return True
            if self._session.stop.wait(_PAUSE_SECONDS * random.uniform(0.5, 1.5)):
                raise Passing("cancelled; nothing was written")

    def _is_waited_for(self, other: Claim, deadline: float) -> bool:
        """Whether another attempt may still be at work; nobody can tell of another machine, whose claim is taken in time.

        Raises:
            Passing: it is at work on this machine, and was waited for long enough.
        """
        if other.is_dead():
            return False
        if time.monotonic() < deadline:
            age = datetime.now(UTC).timestamp() - other.since
            return other.is_here() or 0 <= age < self._waits
        if other.is_here():
            raise Passing(f"this part is being written by process {other.pid} of this machine; end it or wait")
        return False

    def _refuse_layout(self, found: Manifest, job: Job) -> None:
        if found.schema is None:
            return
        same = (found.format, found.partition_by) == (self._format, self._partition_by)
        if not same and job.mode != "replace":
            by = f" by {', '.join(found.partition_by)}" if found.partition_by else ""
            raise Refused(
                f"the files of '{_shown(job)}' are {found.format}{by}; write the sink like that, or use `mode: replace`"
            )

    def _known(self) -> tuple[set[str], set[str]]:
        found = manifest.read(self._place.manifest()[0])
        return {one.name for one in found.files}, {one.token for one in found.claims.values()}

    # -- rows

    def write_rows(self, rows: Iterable[Rows]) -> int:
        assert self._job is not None, "a load has begun"
        target = arrow_types.arrow_schema(self._job.schema, intervals=False)
        return self.write_batches(arrow_types.batches_of(rows, self._job.schema, target=target))

    def write_batches(self, batches: Iterable[pyarrow.RecordBatch]) -> int:
        assert self._job is not None, "a load has begun"
        came = arrow_types.arrow_schema(self._job.schema, intervals=False)
        for batch in batches:
            self._look()
            first = self._row + 1
            fitting = arrow_types.conformed(batch, self._job.schema, came, first)
            self._row += batch.num_rows
            with self._telling():
                if self._asked is not None:
                    self._asked.take(fitting)
                for values, some in self._cut(self._placed(fitting, first)):
                    self._encoder(values).write(some)
                self._bound()
        return self._row

    def write_chunks(self, chunks: Iterable[bytes], lane: Any) -> int:
        assert self._job is not None, "a load has begun"
        if self._schema.names != self._job.schema.names:
            raise Refused("the columns are in another order than in the files; use `engine: arrow`")
        file = self._encoder(())
        assert isinstance(file, CsvEncoder), "only CSV takes bytes"
        for chunk in chunks:
            self._look()
            with self._telling():
                file.write_chunk(chunk)
        self._row = file.rows
        return self._row

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """What the disk says, such as that it is full, in words."""
        try:
            yield
        except OSError as error:
            raise self._place.told(error) from None

    def _look(self) -> None:
        if self._session.stop.is_set():
            raise Passing("cancelled; nothing was written")

    def _placed(self, batch: Any, first: int) -> Any:
        """The batch with the columns of the table, in its order; a column that did not come is NULL."""
        import pyarrow

        assert self._job is not None
        if self._schema is self._job.schema:
            return batch
        names = self._job.schema.names
        arrays, columns = [], []
        for one, field in zip(self._schema.columns, self._target, strict=True):
            if one.name in names:
                arrays.append(batch.column(names.index(one.name)))
                columns.append(self._job.schema[one.name])
            else:
                arrays.append(pyarrow.nulls(batch.num_rows, field.type))
                columns.append(one)
        fields = [pyarrow.field(one.name, array.type) for one, array in zip(columns, arrays, strict=True)]
        made = pyarrow.RecordBatch.from_arrays(arrays, schema=pyarrow.schema(fields))
        return arrow_types.conformed(made, self._schema, self._target, first)

    def _cut(self, batch: Any) -> Iterator[tuple[tuple[str | None, ...], Any]]:
        """The rows of each partition, without the columns that its folder names."""
        if not self._partition_by:
            yield (), batch
            return
        import pyarrow

        names = self._schema.names
        keys = [
            [
                None if one is None else arrow_types.text_of(one)
                for one in arrow_types.values_of(array, self._schema[name])
            ]
            for name, array in ((one, batch.column(names.index(one))) for one in self._partition_by)
        ]
        rows: dict[tuple[str | None, ...], list[int]] = {}
        for at, values in enumerate(zip(*keys, strict=True)):
            rows.setdefault(values, []).append(at)
        inner = batch.select(list(self._inner.names))
        for values, places in rows.items():
            some = inner if len(rows) == 1 else inner.take(pyarrow.array(places))
            yield values, some

    def _encoder(self, values: tuple[str | None, ...]) -> Encoder:
        if values in self._open:
            found = self._open.pop(values)
            self._open[values] = found  # the last used is the last
            return found[0]
        if len(self._open) >= _MOST_OPEN:
            self._finish_one(next(iter(self._open)))
        number = self._counts[values] = self._counts.get(values, -1) + 1
        file, new = self._place.create(self._name(values, number), self._token)
        self._new.append(new)
        made = encoder(file, self._inner, self._format, self._compression, self._options)
        self._open[values] = (made, file, new)
        return made

    def _name(self, values: tuple[str | None, ...], number: int) -> str:
        """`day=2024-02-29/PART.ID.parquet`: the same in each attempt, but for buckets."""
        assert self._job is not None
        folders = [
            f"{quote(name, safe='')}={NO_VALUE if value is None else quote(value, safe=' ')}"
            for name, value in zip(self._partition_by, values, strict=True)
        ]
        part = re.sub(r"[^A-Za-z0-9_-]+", "-", self._job.part)[:60].strip("-_") or "part"
        token = f"-{self._token}" if self._place.marks_attempts or self._job.force else ""
        more = f"-{number}" if number else ""
        return "/".join([*folders, f"{part}.{self._id}{token}{more}{extension(self._format, self._compression)}"])

    def _bound(self) -> None:
        """Keep what waits for its row group small, however many partitions there are."""
        waiting = [one[0] for one in self._open.values() if isinstance(one[0], ParquetEncoder)]
        if sum(one.waiting_bytes for one in waiting) > _WAITING_BYTES:
            for one in waiting:
                one.flush()

    def _finish_one(self, values: tuple[str | None, ...]) -> None:
        made, file, new = self._open.pop(values)
        assert self._job is not None
        made.end()
        self._place.finish(file)
        self._files.append(File(new.name, made.rows, self._job.run_key, self._id, values))

    # -- the end

    def finish(self, counts: Counts) -> Counts:
        job = self._job
        assert job is not None, "a load has begun"
        if not self._open and not self._files and not self._partition_by:
            found = manifest.read(self._place.manifest()[0])
            if job.mode == "replace" or not found.files:
                self._encoder(())
        with self._telling():
            for values in list(self._open):
                self._finish_one(values)
        counts.written = counts.inserted = self._row
        return counts

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        if self._asked is None:
            raise Refused("files cannot be asked by SQL; check the rows in the source, or load into DuckDB first")
        return self._asked.query(sql)

    def staged(self) -> str:
        return STAGE

    def matches(self, column: str, pattern: str) -> str:
        return f"regexp_matches(CAST({column} AS VARCHAR), {self.literal(pattern)})"

    def _forget_asked(self) -> None:
        if self._asked is not None:
            self._asked.close()
        self._asked = None

    def state(self, job: Job) -> Mapping[str, Any]:
        loads = manifest.read(self._at(job.table).manifest()[0]).loads
        mine = [one for one in loads if one.job == job.name and one.state is not None]
        return (mine[-1].state or {}) if mine else {}

    def loaded(self, job: Job) -> Mapping[str, int]:
        loads = manifest.read(self._at(job.table).manifest()[0]).loads
        return {one.part: one.rows for one in loads if (one.job, one.run_key) == (job.name, job.run_key)}

    def jobs(self, job: Job, part: str) -> list[tuple[str, str]]:
        loads = manifest.read(self._at(job.table).manifest()[0]).loads
        return [(one.job, one.committed) for one in loads if one.part == part]

    def forget(self, job: Job) -> int:
        at = self._at(job.table)
        for _ in range(_TRIES):
            data, version = at.manifest()
            found = manifest.read(data)
            mine = [one for one in found.loads if one.job == job.name and one.state is not None]
            loads = tuple(replace(one, state=None) if one in mine else one for one in found.loads)
            if not mine or at.swap(version, replace(found, loads=loads).dump()):
                return len(mine)
        raise Passing("the manifest is changed by others all the time; try again")

    def commit(self, counts: Counts, state: Mapping[str, Any] | None = None) -> None:
        job = self._job
        assert job is not None, "a load has begun"
        self._forget_asked()
        new, self._new = self._new, []  # from here on nobody knows whether they count, until the manifest is read
        for attempt in range(_TRIES):
            try:
                if self._is_committed(job, new, counts, state):
                    self._job = None
                    return
            except Passing as error:
                if attempt or error.message == _TAKEN:
                    raise
            time.sleep(_PAUSE_SECONDS * random.uniform(0.2, 1))
        raise Passing("the manifest is changed by others all the time; try again")

    def _is_committed(self, job: Job, new: Sequence[New], counts: Counts, state: Mapping[str, Any] | None) -> bool:
        """Try to put the new manifest in the place of the old; False when it was changed meanwhile."""
        data, version = self._place.manifest()
        found = manifest.read(data)
        done = found.loaded(job)
        if done is not None and done.token == self._token:
            return True  # the answer to the swap was lost
        claim = found.claims.get(self._id)
        if claim is None or claim.token != self._token:
            for one in new:
                self._place.discard(one)
            raise Passing(_TAKEN)
        old = manifest.dropped(found, job, self._files)
        if not self._place.swap(version, self._after(found, job, old, counts, state).dump(), new):
            return False
        counts.deleted = sum(one.rows for one in old)
        for file in old:
            with contextlib.suppress(Exception):  # the next load sweeps
                self._place.remove(file.name)
        return True

    def _after(
        self, found: Manifest, job: Job, old: Sequence[File], counts: Counts, state: Mapping[str, Any] | None
    ) -> Manifest:
        number = 1 + max((one.number for one in found.loads if one.job == job.name), default=0)
        load = Load(
            *(job.name, job.run_key, job.part, number, job.attempt, job.mode, counts.written),
            datetime.now(UTC).isoformat(),
            None if state is None else dict(state),
            self._token,
        )
        others = tuple(one for one in found.loads if one != found.loaded(job))
        kept = tuple(one for one in found.files if one not in old)
        return replace(
            found.claimed(self._id, None),
            format=self._format,
            partition_by=self._partition_by,
            schema=self._schema,
            files=(*kept, *self._files),
            loads=(*others, load),
        )

    def rollback(self) -> None:
        self._forget_asked()
        for _, file, _ in self._open.values():
            with contextlib.suppress(Exception):
                file.close()
        for new in self._new:
            with contextlib.suppress(Exception):
                self._place.discard(new)
        self._open, self._new, self._files = {}, [], []
        if self._job is not None:
            self._job = None
            with contextlib.suppress(Exception):
                self._unclaim()

    def _unclaim(self) -> None:
        for _ in range(_TRIES):
            data, version = self._place.manifest()
            found = manifest.read(data)
            claim = found.claims.get(self._id)
            if claim is None or claim.token != self._token:
                return
            left = found.claimed(self._id, None)
            if self._place.swap(version, None if left.is_empty else left.dump()):
                if left.is_empty:
                    self._place.leave()
                return

    def close(self) -> None:
        self.rollback()


def _shown(job: Job) -> str:
    return ".".join(one for one in job.table if one)
