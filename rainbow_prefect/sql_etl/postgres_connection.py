"""Sessions of PostgreSQL: UTF-8, UTC, ISO dates and exact floats on every one, whatever the server, role or machine says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra
from .base import Refused, Session
from .postgres_errors import told

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import URL

_CONNECT_SECONDS = 15
_SETTINGS = {
    "client_encoding": "UTF8",
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "xmloption": "content",
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "6",
}


def connect(url: URL, session: Session, settings: Any = None) -> psycopg.Connection[tuple[Any, ...]]:
    """A session in autocommit: who wants a transaction says BEGIN.

    Raises:
        Passing: nobody answers.
        Refused: the settings or the login are wrong.
    """
    try:
        import psycopg
    except ImportError:
        raise MissingExtra("PostgreSQL", "postgres") from None
    shown = url.render_as_string(hide_password=True)
    try:
        connection = psycopg.connect(**_arguments(url, session, settings), autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        raise told(_without(url, error), f"the server of {shown} cannot be reached") from None
    except (TypeError, ValueError) as error:
        raise Refused(f"the server of {shown} cannot be reached: `connect_args` are wrong: {error}") from None
    try:
        _set(connection, session, settings)
    except psycopg.Error as error:
        connection.close()
        raise told(error, f"the session at {shown}") from None
    return connection


def _arguments(url: URL, session: Session, settings: Any) -> dict[str, Any]:
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

    known: Any = PGDialect_psycopg  # it has no types
    _, arguments = known().create_connect_args(url)
    own = {
        "connect_timeout": _CONNECT_SECONDS,
        "application_name": session.name,
        "fallback_application_name": "rainbow",
    }
    return {**own, **arguments, **(getattr(settings, "connect_args", None) or {})}


def _set(connection: psycopg.Connection[tuple[Any, ...]], session: Session, settings: Any) -> None:
    values = dict(_SETTINGS)
    server = connection.info.server_version
    values["extra_float_digits"] = "1" if server >= 120000 else "3"
    if server >= 140000:
        values["client_connection_check_interval"] = "5s"
    seconds = getattr(settings, "statement_timeout_seconds", None) or session.statement_timeout_seconds
    values["statement_timeout"] = str(round((seconds or 0) * 1000))
    listed = ", ".join(f"set_config('{name}', %s, false)" for name in values)
    connection.execute(f"select {listed}".encode(), list(values.values()))


def _without(url: URL, error: psycopg.Error) -> psycopg.Error:
    """The error without the password, should the driver ever show it."""
    if url.password and url.password in str(error):
        error.args = (str(error).replace(url.password, "***"),)
    return error
