"""MySQL and MariaDB as sources and sinks, by PyMySQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Reader, Session, Writer

if TYPE_CHECKING:
    from sqlalchemy import URL


def open_reader(url: URL, session: Session, settings: Any) -> Reader:
    """Connect to a server that is read."""
    from .mysql_reader import MysqlReader

    return MysqlReader(url, session, settings)


def open_writer(url: URL, session: Session, settings: Any) -> Writer:
    """Connect to a server that is written."""
    from .mysql_writer import MysqlWriter

    return MysqlWriter(url, session, settings)
