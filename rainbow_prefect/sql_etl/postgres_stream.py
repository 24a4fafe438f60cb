"""What a server of PostgreSQL sends as it comes: the bytes of COPY, and rows as values of Python."""

from __future__ import annotations

import selectors
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled
from .base import Passing, Rows
from .types import Schema

if TYPE_CHECKING:
    import psycopg
    from psycopg.adapt import AdaptersMap
    from psycopg.pq.abc import PGconn, PGresult

    Connection = psycopg.Connection[tuple[Any, ...]]

CHUNK_BYTES = 256 << 10
ROWS_BYTES = 4 << 20
_CHUNK_ROWS = 8
"""Rows that libpq holds at once: a row may have many MiB, and larger chunks gain little."""

_LOOK_SECONDS = 0.5
_VALUE_BYTES = 40
_TRAILER = b"\xff\xff"
_LOADED = (
    *("bool", "int2", "int4", "int8", "oid", "float4", "float8", "numeric", "bytea"),
    *("date", "time", "timetz", "timestamp", "timestamptz"),
)
_MAYBE_TEXT = frozenset({"date", "time", "timetz", "timestamp", "timestamptz"})
_WIDE = frozenset({"text", "bytes", "json", "array", "other"})

Stopped = Callable[[], bool]


def ask(connection: Connection, sql: str) -> PGresult:
    """The result of one statement; more than one in the text is an error of the server's."""
    from psycopg import generators

    pgconn = connection.pgconn
    pgconn.send_query_params(sql.encode(), None)
    return good(connection.wait(generators.execute(pgconn))[-1])


def describe(connection: Connection, sql: str) -> PGresult:
    """The columns and parameters of one statement, which is not run."""
    from psycopg import generators

    pgconn = connection.pgconn
    pgconn.send_prepare(b"", sql.encode())
    good(connection.wait(generators.execute(pgconn))[-1])
    pgconn.send_describe_prepared(b"")
    return good(connection.wait(generators.execute(pgconn))[-1])


def good(result: PGresult) -> PGresult:
    """The same, when it is no error."""
    from psycopg import errors, pq

    if result.status in (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE):
        raise errors.error_from_result(result, encoding="utf-8")
    return result


# -- bytes


def copied(
    connection: Connection,
    sql: str,
    stopped: Stopped,
    *,
    is_binary: bool,
    size: int = CHUNK_BYTES,
    passed: Callable[[int], None] = lambda rows: None,
) -> Generator[bytes, None, int]:
    """The bytes of a COPY TO STDOUT in pieces of whole rows, a little over `size`; gives the number of rows at the end.

    `passed` is told of each piece how many rows are in it, about.

    Raises:
        Passing: the stream ended before its end was seen.
        Cancelled: `stopped()`.
    """
    pgconn = connection.pgconn
    take = pgconn.get_copy_data
    _refuse_stopped(stopped)
    pgconn.send_query_params(sql.encode(), None)
    pgconn.flush()
    pieces: list[Any] = []
    held = 0
    tail = b""
    with closing(selectors.DefaultSelector()) as selector:
        selector.register(pgconn.socket, selectors.EVENT_READ)
        _next(selector, pgconn, stopped)
        while True:
            length, data = take(1)
            if length > 0:
                pieces.append(data.obj)  # what the view is of, which is joined in half the time
                held += length
                if held >= size:
                    tail = _last(pieces)
                    passed(len(pieces))  # the server sends each row by itself
                    yield b"".join(pieces)
                    pieces.clear()
                    held = 0
                    _refuse_stopped(stopped)
            elif length == 0:
                _await(selector, pgconn, stopped)
            else:
                break
        ended = _next(selector, pgconn, stopped)
        assert ended is not None, "COPY ends with a result"
        while _next(selector, pgconn, stopped) is not None:
            pass
    if pieces:
        tail = _last(pieces)
        yield b"".join(pieces)
    if is_binary and tail != _TRAILER:
        raise Passing("the rows of the source ended in the middle: COPY sent no trailer")
    return ended.command_tuples or 0


def _last(pieces: list[Any]) -> bytes:
    return bytes(memoryview(pieces[-1])[-2:])


def _next(selector: selectors.BaseSelector, pgconn: PGconn, stopped: Stopped) -> PGresult | None:
    """The next result, which is no error, once it is there; None after the last one."""
    while pgconn.is_busy():
        _await(selector, pgconn, stopped)
    result = pgconn.get_result()
    return None if result is None else good(result)


def _await(selector: selectors.BaseSelector, pgconn: PGconn, stopped: Stopped) -> None:
    """Wait for more from the server, and take it in."""
    while not selector.select(_LOOK_SECONDS):
        _refuse_stopped(stopped)
    pgconn.consume_input()


def _refuse_stopped(stopped: Stopped) -> None:
    if stopped():
        raise Cancelled("cancelled; nothing was written")


# -- rows


def fetched(connection: Connection, sql: str, schema: Schema, stopped: Stopped) -> Iterator[Rows]:
    """The rows of one statement, in lists of about 4 MiB; few are held at a time."""
    from psycopg import capabilities, pq

    pgconn = connection.pgconn
    _refuse_stopped(stopped)
    pgconn.send_query_params(sql.encode(), None)
    if capabilities.has_stream_chunked():
        pgconn.set_chunked_rows_mode(_CHUNK_ROWS)
    else:
        pgconn.set_single_row_mode()
    pgconn.flush()
    wide = [n for n, one in enumerate(schema.columns) if one.type.kind in _WIDE]
    values = Values(connection)
    made: Rows = []
    held = 0
    with closing(selectors.DefaultSelector()) as selector:
        selector.register(pgconn.socket, selectors.EVENT_READ)
        while True:
            result = _next(selector, pgconn, stopped)
            if result is None:
                break
            if result.status == pq.ExecStatus.COMMAND_OK or not result.ntuples:
                continue
            some = values.rows(result)
            made += some
            held += len(some) * len(schema.columns) * _VALUE_BYTES + sum(
                len(row[n] or "") for row in some for n in wide
            )
            if held >= ROWS_BYTES:
                yield made
                made, held = [], 0
                _refuse_stopped(stopped)
    if made:
        yield made


class Values:
    """Makes values of results that all have the same columns; see `base.Rows` for which."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._fast: Any = None
        self._exact: Any = None

    def rows(self, result: PGresult) -> Rows:
        import psycopg

        if self._fast is None:
            self._fast = self._transformer(_fast(), result)
        self._fast.set_pgresult(result, set_loaders=False)
        try:
            return list(self._fast.load_rows(0, result.ntuples, tuple))
        except (psycopg.DataError, ValueError, OverflowError) as error:
            if isinstance(error, UnicodeError):
                raise
        if self._exact is None:
            self._exact = self._transformer(_exact(), result)
        self._exact.set_pgresult(result, set_loaders=False)
        return list(self._exact.load_rows(0, result.ntuples, tuple))

    def _transformer(self, adapters: AdaptersMap, result: PGresult) -> Any:
        from psycopg.adapt import Transformer

        made = Transformer(_Context(adapters, self._connection))
        made.set_pgresult(result)
        return made


class _Context:
    """What psycopg asks for adapters and for the encoding."""

    def __init__(self, adapters: AdaptersMap, connection: Connection) -> None:
        self.adapters, self.connection = adapters, connection


@lru_cache(maxsize=1)
def _fast() -> AdaptersMap:
    """Everything is text but what Python has a type for."""
    import psycopg
    from psycopg import pq
    from psycopg.adapt import AdaptersMap
    from psycopg.types.string import TextLoader

    made = AdaptersMap(types=psycopg.adapters.types)
    made.register_loader(0, TextLoader)
    for name in _LOADED:
        oid = psycopg.adapters.types.get_oid(name)
        loader = psycopg.adapters.get_loader(oid, pq.Format.TEXT)
        assert loader is not None
        made.register_loader(oid, loader)
    made.register_loader("text", TextLoader)
    return made


@lru_cache(maxsize=1)
def _exact() -> AdaptersMap:
    """As `_fast`, with text for dates and times which Python cannot hold."""
    from psycopg import pq
    from psycopg.adapt import AdaptersMap

    made = AdaptersMap(_fast())
    for name in _MAYBE_TEXT:
        oid = made.types.get_oid(name)
        loader = made.get_loader(oid, pq.Format.TEXT)
        assert loader is not None
        made.register_loader(oid, _or_text(loader))
    return made


def _or_text(of: Any) -> Any:
    from psycopg import DataError
    from psycopg.adapt import Loader

    class OrText(Loader):
        def __init__(self, oid: int, context: Any = None) -> None:
            super().__init__(oid, context)
            self._of = of(oid, context)

        def load(self, data: Any) -> Any:
            try:
                return self._of.load(data)
            except (DataError, ValueError, OverflowError):
                return bytes(data).decode()

    return OrText
