"""Statements without a sink: run one by one in one transaction of a database; the rows of the last one are given back."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, time
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled, TaskFailed
from .base import Refused, Session
from .config import Source

if TYPE_CHECKING:
    from sqlalchemy import URL

MOST_BYTES = 1 << 20
"""So much JSON may be the output of a task."""

_AT_ONCE = 500
_LOOK_SECONDS = 0.2
_READ_ONLY = re.compile(r"read[- ]?only", re.IGNORECASE)


@dataclass(frozen=True)
class Done:
    """What became of the statements: how many there were, the rows that the last one touched, and those that it gave."""

    statements: int
    touched: int | None
    rows: list[dict[str, Any]] | None


@dataclass(frozen=True)
class _Open:
    """A session in a transaction: `run` gives the cursor or result of a statement, `told` an error of it for people."""

    run: Callable[[str], Any]
    commit: Callable[[], object]
    cancel: Callable[[], object]
    close: Callable[[], object]
    told: Callable[[Exception, str], TaskFailed]


def run_statements(statements: Sequence[str], source: Source, session: Session, *, writes: bool, gives: bool) -> Done:
    """Run them all, or none; without `writes` they may not change anything, `gives` asks for the rows of the last one.

    Raises:
        Refused, BadValue, Passing: one failed; nothing is changed, but for DDL where the database commits it by itself.
        Cancelled: `session.stop` was set.
    """
    opened = _opened(source, session, writes=writes)
    doing = ""
    try:
        with _watched(session, opened):
            touched, rows = None, None
            for number, sql in enumerate(statements, 1):
                doing = f"statement {number} of {len(statements)}"
                result = opened.run(sql.strip().removesuffix(";"))
                touched = result.rowcount if result.rowcount >= 0 else None
                if gives and number == len(statements):
                    rows = _rows(result)
            doing = "the end of the transaction"
            if session.stop.is_set():
                raise Cancelled("cancelled; nothing was changed")
            opened.commit()
            return Done(len(statements), touched, rows)
    except TaskFailed:
        raise
    except Exception as error:
        found = opened.told(error, doing)
        if not writes and _READ_ONLY.search(found.message):
            raise Refused(f"{found.message}; to let it change the database write `writes: true`") from None
        raise found from None
    finally:
        with contextlib.suppress(Exception):
            opened.close()


def _rows(result: Any) -> list[dict[str, Any]]:
    description = getattr(result, "description", None) or getattr(getattr(result, "cursor", None), "description", None)
    if not description:
        raise Refused("the last statement gives no rows, which `output: rows` wants; make it a SELECT")
    names = [str(one[0]) for one in description]
    twice = [one for one in names if names.count(one) > 1]
    if twice:
        raise Refused(f"the last statement gives the column '{twice[0]}' twice; name each column once with AS")
    rows: list[dict[str, Any]] = []
    size = 0
    while some := result.fetchmany(_AT_ONCE):
        for values in some:
            row = {name: _as_json(value) for name, value in zip(names, values, strict=True)}
            size += len(json.dumps(row, ensure_ascii=False).encode()) + 2
            rows.append(row)
        if size > MOST_BYTES:
            raise Refused(
                f"the rows are more than {MOST_BYTES >> 20} MiB as JSON (after {len(rows)} rows), too much for the output of a "
                "task; write them to a table: add `sink` and `table`"
            )
    return rows


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _as_json(one) for key, one in value.items()}
    return str(value)


# -- sessions


def _opened(source: Source, session: Session, *, writes: bool) -> _Open:
    from .sqlalchemy import SqlSource, parsed

    if not isinstance(source, SqlSource):
        raise Refused(f"a source of type '{source.type}' runs no statements; name a database")
    url = parsed(source.url)
    match url.get_backend_name():
        case "postgresql" | "postgres":
            return _postgres(url, session, source, writes=writes)
        case "duckdb":
            return _duckdb(url, session, source, writes=writes)
        case _:
            return _generic(url, session, source, writes=writes)


def _postgres(url: URL, session: Session, settings: Any, *, writes: bool) -> _Open:
    from .postgres_connection import connect
    from .postgres_errors import told

    connection = connect(url, session, settings)
    import psycopg

    connection.execute(f"SET lock_timeout = {round(settings.lock_timeout_seconds * 1000)}".encode())
    connection.execute(b"BEGIN" if writes else b"BEGIN READ ONLY")
    return _Open(
        lambda sql: connection.execute(sql.encode()),
        lambda: connection.execute(b"COMMIT"),
        lambda: connection.cancel_safe(timeout=2.0),
        connection.close,
        lambda error, doing: told(error, doing) if isinstance(error, psycopg.Error) else _unknown(error),
    )


def _duckdb(url: URL, session: Session, settings: Any, *, writes: bool) -> _Open:
    from .duckdb import connected, told

    connection = connected(url, session, settings, read_only=not writes)
    import duckdb

    connection.execute("BEGIN TRANSACTION")
    return _Open(
        connection.execute,
        lambda: connection.execute("COMMIT"),
        connection.interrupt,
        connection.close,
        lambda error, doing: told(error, doing) if isinstance(error, duckdb.Error) else _unknown(error),
    )


def _generic(url: URL, session: Session, settings: Any, *, writes: bool) -> _Open:
    from sqlalchemy import exc

    from .generic import engine_of, told

    engine = engine_of(url, session, settings, writes=writes)
    try:
        connection = engine.connect().execution_options(no_parameters=True)
        if not writes and engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA query_only = ON")
        elif not writes and engine.dialect.name in ("mysql", "mariadb"):
            connection.exec_driver_sql("START TRANSACTION READ ONLY")
    except exc.SQLAlchemyError as error:
        raise told(error, "the source cannot be opened") from None

    def cancel() -> None:
        raw: Any = connection.connection.dbapi_connection
        if engine.dialect.name in ("mysql", "mariadb"):
            with engine.connect() as other:
                other.exec_driver_sql(f"KILL QUERY {raw.thread_id()}")
            return
        for name in ("interrupt", "cancel", "close"):
            if hasattr(raw, name):
                getattr(raw, name)()
                return

    def close() -> None:
        connection.close()
        engine.dispose()

    return _Open(
        connection.exec_driver_sql,
        connection.commit if writes else connection.rollback,
        cancel,
        close,
        lambda error, doing: told(error, doing) if isinstance(error, exc.SQLAlchemyError) else _unknown(error),
    )


def _unknown(error: Exception) -> TaskFailed:
    """What is no error of the database is ours."""
    raise error


@contextlib.contextmanager
def _watched(session: Session, opened: _Open) -> Iterator[None]:
    """End what the server does as soon as the run is cancelled."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(_LOOK_SECONDS):
            if session.stop.is_set():
                with contextlib.suppress(Exception):
                    opened.cancel()
                return

    thread = threading.Thread(target=watch, name="sql-cancel", daemon=True)
    thread.start()
    try:
        yield
    except Exception:
        if session.stop.is_set():
            raise Cancelled("cancelled; nothing was changed") from None
        raise
    finally:
        is_over.set()
        thread.join()
