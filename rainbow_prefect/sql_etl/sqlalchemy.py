"""The settings of databases as sources and sinks: an URL of SQLAlchemy; the open ones are made by the module of its dialect."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ..errors import near
from ..schema import Text
from .base import Reader, Refused, Session, Writer
from .config import Sink, Source, Wrong
from .stores import block_flaw, is_block

if TYPE_CHECKING:
    from sqlalchemy import URL

_MODULES = {
    "postgresql": "postgres",
    "postgres": "postgres",
    "mysql": "mysql",
    "mariadb": "mysql",
    "duckdb": "duckdb",
}
"""The dialects that have a module of their own here; every other one of SQLAlchemy takes the way of rows."""

_EXTRAS = {"postgres": ("psycopg", "postgres"), "mysql": ("pymysql", "mysql"), "duckdb": ("duckdb", "duckdb")}
_SCHEME = re.compile(r"(?P<dialect>[A-Za-z][A-Za-z0-9_]*)(?:\+(?P<driver>[A-Za-z0-9_]+))?://")


class SqlSource(Source):
    """A database that SQLAlchemy knows, read only."""

    type: Literal["sqlalchemy"] = "sqlalchemy"
    url: Text = Field(min_length=1, description="Its URL, e.g. `postgresql://user@host/db` or `{{secret.SHOP_URL}}`.")
    schema_name: Text | None = Field(
        default=None, alias="schema", description="The schema of tables that are named without one."
    )
    connect_args: dict[str, Any] = Field(
        default_factory=dict, description="More arguments of the driver, e.g. for SSL."
    )
    statement_timeout_seconds: float | None = Field(
        default=None, gt=0, description="Seconds after which the server ends a statement; absent: never."
    )
    lock_timeout_seconds: float = Field(default=30, gt=0, description="Seconds to wait for a lock.")
    strict_rls: bool = Field(
        default=True, description="PostgreSQL: fail where row-level security would hide rows, instead of reading fewer."
    )
    zero_date: Literal["error", "null"] = Field(
        default="error", description="MySQL: what becomes of dates such as 0000-00-00."
    )

    def flaws(self) -> Iterator[Wrong]:
        return _flaws(self.url, "source")

    def open(self, session: Session) -> Reader:
        made: Reader = _function(self.url, "open_reader")(parsed(self.url), session, self)
        return made


class SqlSink(Sink):
    """A database that SQLAlchemy knows, written in one transaction for each part."""

    type: Literal["sqlalchemy"] = "sqlalchemy"
    url: Text = Field(min_length=1, description="Its URL, e.g. `postgresql://user@host/db` or `{{secret.MART_URL}}`.")
    schema_name: Text | None = Field(
        default=None, alias="schema", description="The schema of tables that are named without one."
    )
    connect_args: dict[str, Any] = Field(
        default_factory=dict, description="More arguments of the driver, e.g. for SSL."
    )
    statement_timeout_seconds: float | None = Field(
        default=None, gt=0, description="Seconds after which the server ends a statement; absent: never."
    )
    lock_timeout_seconds: float = Field(default=30, gt=0, description="Seconds to wait for a lock.")

    def flaws(self) -> Iterator[Wrong]:
        return _flaws(self.url, "sink")

    def as_source(self) -> SqlSource:
        fields = self.model_fields_set & set(SqlSource.model_fields) - {"type"}
        return SqlSource.model_validate({name: getattr(self, name) for name in fields})

    def open(self, session: Session) -> Writer:
        made: Writer = _function(self.url, "open_writer")(parsed(self.url), session, self)
        return made


def _flaws(url: str, what: str) -> Iterator[Wrong]:
    """What is wrong with the text of an URL, or of a reference to a block."""
    if "{{" in url:
        return
    if is_block(url):
        found = block_flaw(url, what)
        if found is not None:
            yield "url", *found
        return
    flaw = url_flaw(url)
    if flaw is not None:
        yield "url", f"the `url` {flaw[0]}" if flaw[0].startswith("is ") else flaw[0], flaw[1], True


def url_flaw(url: str) -> tuple[str, str] | None:
    """What is wrong with the URL of a database, and how to mend it; None when its dialect and driver are here.

    Nothing of the URL but its scheme is in the text, for it may hold a password.
    """
    found = _SCHEME.match(url)
    if found is None:
        return (
            "is not the URL of a database",
            "write DIALECT://..., e.g. sqlite:///shop.db or postgresql://user@host/db",
        )
    dialect, driver = found["dialect"].lower(), found["driver"]
    if dialect == "sqlite" and driver in (None, "pysqlite"):
        return None
    module = _MODULES.get(dialect)
    if module is not None:
        name, extra = _EXTRAS[module]
        return None if _is_there(name) else _needs(dialect, name, extra)
    from sqlalchemy import exc
    from sqlalchemy.dialects import registry
    from sqlalchemy.engine import make_url

    try:
        kind = registry.load(f"{dialect}.{driver}" if driver else dialect)
        make_url(url)
        kind.import_dbapi()
    except exc.NoSuchModuleError:
        hint = near(dialect, [*_MODULES, "sqlite", "mssql", "oracle"])
        return f"'{dialect}' is no dialect that is known here", hint or "install the package that has it for SQLAlchemy"
    except exc.ArgumentError:
        return "is not the URL of a database", "write DIALECT://user@host:port/database"
    except ImportError as error:
        return f"the driver of '{dialect}' is not installed", f"pip install {error.name or driver or dialect}"
    return None


def _is_there(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def _needs(dialect: str, name: str, extra: str) -> tuple[str, str]:
    return f"'{dialect}' needs the package {name}", f"pip install 'rainbow-prefect[{extra}]'"


def parsed(url: str) -> URL:
    """The URL in its parts.

    Raises:
        Refused: it is none of a database, or its driver is missing; nothing of it but its scheme is told.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    flaw = url_flaw(url)
    if flaw is not None:
        raise Refused(f"the `url` {flaw[0]}; {flaw[1]}")
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise Refused("the `url` is not that of a database; write DIALECT://user@host:port/database") from None


def _function(url: str, name: str) -> Callable[..., Any]:
    found = _SCHEME.match(url)
    module = _MODULES.get(found["dialect"].lower(), "generic") if found else "generic"
    made: Callable[..., Any] = getattr(import_module(f"{__package__}.{module}"), name)
    return made


def is_same(one: str, other: str, root: Path) -> bool:
    """Whether two URLs are those of one database; files are relative to `root`."""
    return _database(one, root) == _database(other, root)


def _database(text: str, root: Path) -> tuple[Any, ...]:
    url = parsed(text)
    dialect = _MODULES.get(url.get_backend_name(), url.get_backend_name())
    if url.host is None and url.database and dialect in ("sqlite", "duckdb"):
        return dialect, (root / url.database).resolve() if url.database != ":memory:" else object()
    return dialect, url.host or "localhost", url.port, url.database
