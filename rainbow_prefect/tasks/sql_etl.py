"""The task type `sql_etl`: the rows of a query go from a source to a table of a sink, by configuration alone."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, WithJsonSchema

from ..errors import Cancelled, TaskFailed, TimedOut, near
from ..run import Written
from ..schema import Config, Duration, Name, Text, kind_of, wrong
from ..sql_etl.base import MODES, Mode, Query, Session
from ..sql_etl.config import AnySink, AnySource, Sink, Source
from ..sql_etl.deletes import DeleteMissing, Deletes
from ..sql_etl.shape import Listed
from ..sql_etl.split import Split
from ..sql_etl.stores import block_flaw, is_block, is_url, sink_of, source_of
from .base import Flaw, Place, Task
from .sql_quality import QualityKeys
from .sql_split import split_flaws

if TYPE_CHECKING:
    from ..run import Run
    from ..sql_etl.incremental import Incremental, Span
    from ..sql_etl.move import Order

_LOOK_SECONDS = 0.2
_TABLE = re.compile(r'(?:(?P<schema>"(?:[^"]|"")+"|[^".]+)\.)?(?P<name>"(?:[^"]|"")+"|[^"].*)\Z', re.DOTALL)


def _store(kind: Any) -> Any:
    """A name or an URL stays text; a mapping is an entry as `sources` or `sinks` has them."""

    def made(value: Any) -> Any:
        if isinstance(value, str | Source | Sink):
            return value
        if isinstance(value, Mapping):
            return TypeAdapter(kind).validate_python(dict(value))
        raise wrong(f"must be a name, an URL or a mapping, got {kind_of(value)}")

    return made


def _mode(value: Any) -> Any:
    if isinstance(value, str) and value not in MODES:
        hint = near(value, MODES)
        raise wrong(f"unknown mode '{value}'", hint=hint or f"write one of: {', '.join(MODES)}")
    return value


_EITHER = WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]})
_FROM = Annotated[str | AnySource, BeforeValidator(_store(AnySource)), _EITHER]
_TO = Annotated[str | AnySink, BeforeValidator(_store(AnySink)), _EITHER]


_OF_SINKS = (
    *("source_table", "table", "output_table", "mode", "keys", "engine", "incremental", "split"),
    *(one for one in QualityKeys.model_fields if one not in Task.model_fields),
)
"""The keys that say something of moved rows."""


_AGAIN = ("upsert", "insert_new", "delete_insert", "scd2")
"""The modes in which a row may come twice."""

_REFRESHED: Mapping[Mode, Mode] = {"append": "replace", "delete_insert": "replace", "insert_new": "upsert"}
"""How a load that begins anew writes; with keys, rows that the source no longer has are deleted."""


class Cursor(Config):
    """How a task reads only what is new: rows whose cursor is above that of the last load, up to the largest there is now."""

    cursor: Text = Field(min_length=1, description="The column that grows: a time, a date, a number or text.")
    initial: Any = Field(default=None, description="Where the first load begins; absent: it reads all.")
    lag: Duration = Field(
        default=0.0, description="What is read again each time, e.g. `1h`, for rows that come late; needs keys."
    )
    null_cursor: Literal["raise", "exclude", "include"] = Field(
        default="raise", description="What becomes of rows without a cursor: an error, never read, read each time."
    )


class SqlEtl(QualityKeys):
    """Moves the rows of a query from a source to a table of a sink, exactly once for each run.

    `source` and `sink` are names of the root sections `sources` and `sinks`, URLs, or mappings with the keys of an entry
    there. What the rows are is said by `query`, `query_file` or `source_table`; without any of them the table of the
    sink's name is read.

    With `type: sql` and no `sink` it runs `statements`, then the `query`, in one transaction of the source's database; with
    `output: rows` the rows of the last one are the output of the task. No ledger is kept: a retry runs them again.
    """

    type: Literal["sql_etl", "sql"] = Field(default="sql_etl", description="The type of the task.")
    source: _FROM = Field(description="Where the rows come from: a name of `sources`, an URL, or a mapping.")
    query: Text | None = Field(default=None, min_length=1, description="One statement that gives the rows.")
    query_file: Text | None = Field(
        default=None, min_length=1, description="The file with the statement, relative to this file."
    )
    source_table: Text | None = Field(default=None, min_length=1, description="The table to read, instead of a query.")
    sink: _TO | None = Field(
        default=None,
        description="Where they go: a name of `sinks`, an URL, or a mapping; absent with `type: sql`: nowhere, statements run.",
    )
    table: Text | None = Field(
        default=None,
        min_length=1,
        description='The table to write: NAME or SCHEMA.NAME; `"a.b"` in quotes is one name.',
    )
    output_table: Text | None = Field(default=None, min_length=1, description="The older spelling of `table`.")
    mode: Annotated[Mode, BeforeValidator(_mode)] = Field(
        default="append", description="What happens to the rows that are there."
    )
    keys: tuple[Name | Text, ...] = Field(default=(), description="The columns that tell a row from all others.")
    engine: Literal["auto", "copy", "arrow", "rows", "duckdb"] = Field(
        default="auto",
        description="How the rows go; `auto` takes the fastest way that loses nothing, `duckdb` reads files and functions "
        "through DuckDB.",
    )

    incremental: Cursor | None = Field(
        default=None, description="Read only what is new; `{{cursor}}` in the query is where the last load ended."
    )

    split: Split | None = Field(
        default=None, description="Move the rows in parts, in several slices at once: `{by: order_id, executors: 4}`."
    )

    statements: Listed = Field(default=(), description="Without a sink: statements to run before `query`, one by one.")
    writes: bool = Field(
        default=False, description="Without a sink: let the statements change the database; else they only read."
    )
    output: Literal["counts", "rows"] = Field(
        default="counts",
        description="Without a sink: the output of the task is how many rows were touched, or the rows of the last statement "
        "as a list of mappings, up to 1 MiB of JSON.",
    )

    # -- what is wrong with it

    def check(self, place: Place) -> Iterator[Flaw]:
        said = [key for key in ("query", "query_file", "source_table") if getattr(self, key) is not None]
        if len(said) > 1:
            yield Flaw((said[1],), f"'{said[0]}' and '{said[1]}' exclude each other", "keep one of them", on_key=True)
        yield from self._flaws_of_sink()
        if self.sink is not None and not said and self.table is None:
            yield Flaw((), "nothing says what to read", "add `query`, `query_file` or `source_table`")
        if self.sink is not None and self.table is None and self.output_table is None:
            yield Flaw((), "nothing says where to write", "add `table`")
        if self.table is not None and self.output_table is not None:
            yield Flaw(("output_table",), "'table' and 'output_table' are the same", "keep `table`", on_key=True)
        if self.query_file is not None and not (place.root / self.query_file).is_file():
            yield Flaw(("query_file",), f"the file {self.query_file} does not exist", "correct the path")
        if self.mode in ("upsert", "insert_new", "scd2") and not self.keys:
            yield Flaw(("mode",), f"`mode: {self.mode}` needs `keys`", "name the columns that tell a row from others")
        yield from self._flaws_of_incremental()
        yield from self.quality_flaws()
        if self.executors > 1 or self.split_input or self.split_size is not None:
            key = next(one for one in ("executors", "split_input", "split_size") if one in self.model_fields_set)
            hint = "write `split: {by: COLUMN, executors: 4}`" if self.sink is not None else "remove it"
            yield Flaw((key,), f"'{key}' is not for tasks of type '{self.type}'", hint, on_key=True)
        if self.split is not None and self.sink is not None:
            yield from split_flaws(self, self.split, place)
        yield from _flaws_of("source", self.source, [one.source for one in place.app.sources if one.source])
        if self.sink is not None:
            yield from _flaws_of("sink", self.sink, [one.sink for one in place.app.sinks if one.sink])

    def _flaws_of_sink(self) -> Iterator[Flaw]:
        """What does not go with a sink, or without one."""
        if self.sink is not None:
            for key in ("statements", "writes", "output"):
                if key in self.model_fields_set:
                    yield Flaw((key,), f"'{key}' is for tasks without a `sink`", "remove one of the two", on_key=True)
        elif self.type != "sql":
            yield Flaw((), "nothing says where the rows go", "add `sink`, or write `type: sql` to run statements")
        elif self.query is None and self.query_file is None and not self.statements:
            yield Flaw((), "nothing says what to run", "add `statements` or `query`, or a `sink`")
        else:
            odd = [key for key in _OF_SINKS if key in self.model_fields_set]
            if odd:
                listed = ", ".join(f"'{one}'" for one in odd)
                yield Flaw(("sink",), f"without a `sink` nothing is moved, and {listed} say nothing", "add `sink`")

    def _flaws_of_incremental(self) -> Iterator[Flaw]:
        one = self.incremental
        if one is None:
            return
        if (one.lag or one.null_cursor == "include") and self.mode not in _AGAIN:
            key = "lag" if one.lag else "null_cursor"
            yield Flaw(
                ("incremental", key),
                f"with `{key}` rows are read more than once, which `mode: {self.mode}` would double",
                "write `mode: upsert` and `keys`",
            )
        if self.mode in ("replace", "fail"):
            yield Flaw(
                ("incremental",), f"`mode: {self.mode}` keeps nothing of the loads before", "write `mode: append`"
            )

    # -- what it does

    @property
    def slice_count(self) -> int:
        return self.executors if self.split is None else self.split.executors

    def prepare(self, run: Run) -> None:
        if self.split is None or self.sink is None:
            return
        from ..sql_etl.parts import begin

        mine: SqlEtl = run.secrets.render(self)
        source, sink = mine.stores(run)
        with _told(run, "nothing was written"), _session(run) as session:
            begin(mine.order(run, source, sink), self.split, source, sink, session)

    def end(self, run_id: str) -> None:
        if self.split is not None:
            from ..sql_etl.parts import forget

            forget(run_id, self.task)

    def run(self, run: Run) -> Any:
        from ..sql_etl.assets import lineage
        from ..sql_etl.move import move

        mine: SqlEtl = run.secrets.render(self)
        if self.sink is None:
            return mine._run_statements(run)
        source, sink = mine.stores(run)
        if mine.split is not None:
            return mine._run_share(run, mine.split, source, sink)
        with _told(run, "nothing was written"), _session(run) as session:
            order = mine.order(run, source, sink)
            moved = move(order, source, sink, session)
        key, sources = lineage(order, source, sink, run.root)
        run.wrote(Written(key, sources, moved.as_dict()))
        counts = moved.counts
        if not moved.skipped:
            run.write(
                f"wrote {counts.written} of {counts.read} rows to {moved.table} ({moved.engine}, {moved.seconds:.1f} s)"
            )
        return moved.as_dict()

    def _run_share(self, run: Run, split: Split, source: Source, sink: Sink) -> Any:
        """One slice of a task that is split."""
        from ..sql_etl.assets import lineage
        from ..sql_etl.parts import share

        with _told(run, "parts that are committed stay"), _session(run) as session:
            order = self.order(run, source, sink)
            shared = share(order, split, source, sink, session, index=run.index, count=run.count)
        report = shared.as_dict(order)
        is_whole = split.is_whole(order.mode)
        if shared.end is not None or (shared.parts and not is_whole):
            key, sources = lineage(order, source, sink, run.root)
            run.wrote(Written(key, sources, shared.end.as_dict() if shared.end is not None and is_whole else report))
        if shared.end is not None and is_whole:
            counts = shared.end.counts
            run.write(f"wrote {counts.written} of {counts.read} rows to {shared.end.table} (all parts)")
        return report

    def stores(self, run: Run) -> tuple[Source, Sink]:
        """Where the rows come from and where they go, in this run, with their secrets.

        Raises:
            TaskFailed, RunError: one is not there, or cannot be read; the text says what to do.
        """
        if self.sink is None:
            raise TaskFailed(f"the task '{self.task}' has no `sink`: it moves no rows, it runs statements")
        return source_of(run.secrets.render(self.source), run), sink_of(run.secrets.render(self.sink), run)

    def _run_statements(self, run: Run) -> Any:
        from ..sql_etl.statements import run_statements

        source = source_of(self.source, run)
        statements = list(self.statements)
        if self.query is not None or self.query_file is not None:
            statements.append(self._query(run, source).sql or "")
        gives = self.output == "rows"
        with _session(run) as session:
            try:
                done = run_statements(statements, source, session, writes=self.writes, gives=gives)
            except Cancelled:
                if run.timed_out or run.remaining_seconds() == 0:
                    raise TimedOut("timed out; nothing was changed") from None
                raise
            except TaskFailed as error:
                raise type(error)(run.secrets.mask(error.message)) from None
        run.write(f"ran {done.statements} statement{'' if done.statements == 1 else 's'}")
        return done.rows if gives else {"statements": done.statements, "rows": done.touched}

    @property
    def is_incremental(self) -> bool:
        return self.incremental is not None and self.sink is not None

    def order(self, run: Run, source: Source, sink: Sink) -> Order:
        """What is to be moved, in this run.

        Raises:
            TaskFailed: it cannot be loaded again as the run asks.
        """
        from ..sql_etl.move import Order

        full, span = self._reloading(run)
        mode = _REFRESHED.get(self.mode, self.mode) if full else self.mode
        quality = self.quality()
        if full and mode == "upsert":
            quality = replace(quality, deletes=Deletes(DeleteMissing(allow_empty=True), flag=self._flag()))
        return Order(
            name=f"{run.app}/{run.pipeline}/{run.task}",
            run_key=run.run_id,
            query=self._query(run, source),
            table=_with_schema(table_name(self.table or self.output_table or ""), sink),
            mode=mode,
            keys=tuple(self.keys),
            engine=self.engine,
            incremental=self._incremental(),
            quality=quality,
            full_refresh=full,
            span=span,
        )

    def _flag(self) -> str | None:
        return self.deleted_flag.column if self.deleted_flag is not None else None

    def _reloading(self, run: Run) -> tuple[bool, Span | None]:
        """Whether the load begins anew, and the span that is read again, as the run's parameters say."""
        from ..sql_etl.base import Refused
        from ..sql_etl.incremental import Span

        if not self.is_incremental:
            return False, None
        full = run.parameters.get("full_refresh") is True
        low, high = (run.parameters.get(one) or None for one in ("load_from", "load_to"))
        if low is None and high is None:
            return full, None
        if full:
            raise Refused(
                "`full_refresh` reads all again, and `load_from` and `load_to` a part of it; give one of the two"
            )
        if self.mode not in _AGAIN:
            raise Refused(
                f"rows that are read again would be doubled by `mode: {self.mode}`; write `mode: upsert` and `keys`, or load "
                "all of it anew with `--full-refresh`"
            )
        return False, Span(low, high)

    def _incremental(self) -> Incremental | None:
        from ..sql_etl.incremental import Incremental

        one = self.incremental
        return None if one is None else Incremental(one.cursor, one.initial, one.lag, one.null_cursor)

    def _query(self, run: Run, source: Source) -> Query:
        if self.query is not None:
            return Query(sql=self.query)
        if self.query_file is not None:
            try:
                return Query(sql=(run.root / self.query_file).read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise TaskFailed(f"`query_file`: {self.query_file} cannot be read: {error}") from None
        return Query(table=_with_schema(table_name(self.source_table or self.table or ""), source))


def table_name(text: str) -> tuple[str | None, str]:
    """`NAME` or `SCHEMA.NAME`; a part in double quotes may have dots."""
    found = _TABLE.match(text.strip())
    if found is None:
        return None, text
    return _unquoted(found["schema"]), _unquoted(found["name"]) or text


def _unquoted(text: str | None) -> str | None:
    if text is not None and len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text


def _with_schema(table: tuple[str | None, str], store: Source | Sink) -> tuple[str | None, str]:
    schema, name = table
    return schema or getattr(store, "schema_name", None), name


def _flaws_of(key: str, value: Any, known: list[str]) -> Iterator[Flaw]:
    """What is wrong with a name, an URL or a mapping."""
    from ..sql_etl.sqlalchemy import url_flaw

    if isinstance(value, Source | Sink):
        for _, message, hint, is_sure in value.flaws():
            yield Flaw((key,), message, hint, "error" if is_sure else "warning")
    elif "{{" in value:
        return
    elif is_block(value):
        found = block_flaw(value, key)
        if found is not None:
            yield Flaw((key,), found[0], found[1], "error" if found[2] else "warning")
    elif not is_url(value):
        if value not in known:
            hint = near(value, known) or f"add it to the root section `{key}s`, or write an URL"
            yield Flaw((key,), f"unknown {key} '{value}'", hint)
    elif (flaw := url_flaw(value)) is not None:
        yield Flaw((key,), flaw[0], flaw[1])


@contextmanager
def _told(run: Run, left: str) -> Iterator[None]:
    """Errors without secrets; a cancel that came of the deadline is told as such."""
    try:
        yield
    except Cancelled:
        if run.timed_out or run.remaining_seconds() == 0:
            raise TimedOut(f"timed out; {left}") from None
        raise
    except TaskFailed as error:
        raise type(error)(run.secrets.mask(error.message)) from None


@contextmanager
def _session(run: Run) -> Iterator[Session]:
    """What source and sink are told; its `stop` is set when the run is cancelled and when its time is over."""
    stop, is_over = threading.Event(), threading.Event()

    def watch() -> None:
        while not is_over.wait(_LOOK_SECONDS):
            if run.stop.is_set() or run.remaining_seconds() == 0:
                stop.set()
                return

    thread = threading.Thread(target=watch, name="sql-stop", daemon=True)
    thread.start()
    try:
        name = f"rainbow {run.pipeline}/{run.task}"[:63]
        yield Session(name=name, root=run.root, stop=stop, say=run.write, progress=run.progress)
    finally:
        is_over.set()
        thread.join()
