"""SQLite, and every other dialect of SQLAlchemy: rows by its cursors; the modules of single dialects know faster ways."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, exc
from sqlalchemy.pool import NullPool

from ..errors import TaskFailed
from .base import BadValue, Passing, Reader, Refused, Session, Writer

WRITES = "rainbow_writes"
"""The execution option of connections that write."""

_PASSING = ("database is locked", "database table is locked", "deadlock", "connection", "server closed", "timeout")


def open_reader(url: URL, session: Session, settings: Any) -> Reader:
    """An open source of this dialect."""
    from .generic_reader import GenericReader

    return GenericReader(engine_of(url, session, settings, writes=False), session)


def open_writer(url: URL, session: Session, settings: Any) -> Writer:
    """An open sink of this dialect."""
    from .generic_writer import GenericWriter

    return GenericWriter(engine_of(url, session, settings, writes=True), session)


def engine_of(url: URL, session: Session, settings: Any, *, writes: bool) -> Engine:
    """An engine whose connections are as a load needs them: for SQLite one that begins when it is told to."""
    arguments = dict(getattr(settings, "connect_args", {}) or {})
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite:
        url = _with_folder(url, session, writes=writes)
        arguments = {
            "timeout": getattr(settings, "lock_timeout_seconds", 30.0),
            "check_same_thread": False,
            **arguments,
        }
    engine = create_engine(url, poolclass=NullPool, connect_args=arguments, hide_parameters=True)
    if is_sqlite:
        event.listen(engine, "connect", _sqlite_connected)
        event.listen(engine, "begin", _sqlite_begins)
    return engine


def _with_folder(url: URL, session: Session, *, writes: bool) -> URL:
    """A file of SQLite is relative to the folder of the YAML; a source must be there, for SQLite would make it."""
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        return url
    file = session.root / url.database
    if not writes and not file.exists():
        raise Refused(f"the database {url.database} does not exist; correct `url`")
    if not file.parent.is_dir():
        raise Refused(f"the folder of the database {url.database} does not exist; make it, or correct `url`")
    if session.only_looks and not file.exists():
        return url.set(database=":memory:")
    return url.set(database=str(file))


def _sqlite_connected(connection: Any, _: Any) -> None:
    connection.isolation_level = None
    connection.create_function("rainbow_sha256", 1, _sha256, deterministic=True)


def _sha256(text: str | None) -> str | None:
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()


def _sqlite_begins(connection: Any) -> None:
    """A connection that will write takes the lock at once: two that read first could not both go on."""
    writes = connection.get_execution_options().get(WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def told(error: exc.SQLAlchemyError, doing: str) -> TaskFailed:
    """An error of the database for people: what was being done, and what it says, in one line."""
    origin = getattr(error, "orig", None)
    text = " ".join(str(origin or error).split())
    message = f"{doing}: {text}"
    if isinstance(error, exc.OperationalError | exc.InternalError) and any(one in text.lower() for one in _PASSING):
        return Passing(message)
    if isinstance(error, exc.IntegrityError | exc.DataError | exc.StatementError) and not isinstance(
        error, exc.OperationalError | exc.ProgrammingError
    ):
        return BadValue(message)
    return Refused(message)
