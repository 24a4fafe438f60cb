"""Whether a source or a sink answers, what it is, and what it may be used for, in one line without its URL."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..errors import TaskFailed
from ..masking import Masker, secret_values
from .base import Session
from .config import Sink, Source

Ask = Callable[[str], Any]
"""Gives the one value of a statement."""

_VERSIONS = {
    "sqlite": ("SQLite", "SELECT sqlite_version()"),
    "postgresql": ("PostgreSQL", "SELECT current_setting('server_version')"),
    "mysql": ("MySQL", "SELECT version()"),
    "mariadb": ("MariaDB", "SELECT version()"),
    "duckdb": ("DuckDB", "SELECT version()"),
}
_MYSQL_MAY_CREATE = """
    SELECT count(*) FROM (
        SELECT privilege_type FROM information_schema.user_privileges WHERE privilege_type = 'CREATE'
        UNION ALL SELECT privilege_type FROM information_schema.schema_privileges
        WHERE privilege_type = 'CREATE' AND table_schema = database()
    ) q
"""


def probe(store: Source | Sink, session: Session | None = None) -> str:
    """Connect, ask `select 1`, and tell what answered: `PostgreSQL 15.4 answers; tables can be made in schema 'mart'`.

    Raises:
        RunError: nobody answers, or the settings are wrong.
    """
    session = session or Session(name="rainbow test_connection", only_looks=True)
    try:
        return _of_source(store, session) if isinstance(store, Source) else _of_sink(store, session)
    except TaskFailed as error:
        mask = Masker(secret_values(store.model_dump(mode="json"))).mask
        raise type(error)(mask(error.message)) from None


def _of_source(source: Source, session: Session) -> str:
    reader = source.open(session)
    try:
        return f"{_answer(reader.dialect, reader.value)}; it can be read"
    finally:
        reader.close()


def _of_sink(sink: Sink, session: Session) -> str:
    writer = sink.open(session)

    def ask(sql: str) -> Any:
        rows = writer.query(sql)
        return rows[0][0] if rows else None

    try:
        return f"{_answer(writer.dialect, ask)}; {_rights(sink, writer.dialect, ask, session)}"
    finally:
        writer.close()


def _answer(dialect: str, ask: Ask) -> str:
    if ask("SELECT 1") != 1:
        raise TaskFailed("what answers is no database: `SELECT 1` does not give 1")
    name, version = _VERSIONS.get(dialect, (dialect, ""))
    told = str(ask(version)) if version else ""
    if "MariaDB" in told:
        name, told = "MariaDB", told.partition("-")[0]
    return f"{name} {told.removeprefix('v')}".strip() + " answers"


def _rights(sink: Sink, dialect: str, ask: Ask, session: Session) -> str:
    """Whether tables can be made, which is what most loads begin with."""
    schema = getattr(sink, "schema_name", None)
    match dialect:
        case "postgresql":
            return _postgres_rights(schema, ask)
        case "mysql" | "mariadb":
            return _can(bool(ask(_MYSQL_MAY_CREATE)), f"in database '{schema or ask('SELECT database()')}'")
        case "sqlite":
            return _can(_is_writable(sink, session))
        case _:
            return "what it may do is not known"


def _postgres_rights(schema: str | None, ask: Ask) -> str:
    shown = schema or ask("SELECT current_schema()")
    if not shown:
        return "no schema is named, and there is none by default; write `schema`"
    quoted = str(shown).replace("'", "''")
    if not ask(f"SELECT count(*) FROM pg_namespace WHERE nspname = '{quoted}'"):
        return f"there is no schema '{shown}'"
    return _can(bool(ask(f"SELECT has_schema_privilege('{quoted}', 'CREATE')")), f"in schema '{shown}'")


def _is_writable(sink: Sink, session: Session) -> bool:
    from sqlalchemy.engine import make_url

    database = make_url(getattr(sink, "url", "")).database
    if not database or database == ":memory:":
        return True
    file = session.root / database
    return os.access(file if file.exists() else file.parent, os.W_OK)


def _can(may: bool, where: str = "") -> str:
    return f"tables can{'' if may else 'not'} be made {where}".strip()
