"""PostgreSQL as a source and a sink: what `sqlalchemy` opens for URLs of this dialect, whichever driver they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Reader, Session, Writer

if TYPE_CHECKING:
    from sqlalchemy import URL


def open_reader(url: URL, session: Session, settings: Any = None) -> Reader:
    """An open source of this dialect."""
    from .postgres_reader import PostgresReader

    return PostgresReader(_plain(url), session, settings)


def open_writer(url: URL, session: Session, settings: Any = None) -> Writer:
    """An open sink of this dialect."""
    from .postgres_writer import PostgresWriter

    return PostgresWriter(_plain(url), session, settings)


def _plain(url: URL) -> URL:
    """The URL for psycopg, whatever driver it was written for; `ssl` of asyncpg is `sslmode`."""
    query = dict(url.query)
    if "ssl" in query:
        query.setdefault("sslmode", query.pop("ssl"))
    return url.set(drivername="postgresql+psycopg", query=query)
