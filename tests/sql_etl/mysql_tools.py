"""What the tests of MySQL and MariaDB share: sessions, loads, and tables as text."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pymysql
from sqlalchemy.engine import make_url

from rainbow_prefect.sql_etl.base import Counts, Job, Query, Session
from rainbow_prefect.sql_etl.mysql_reader import MysqlReader
from rainbow_prefect.sql_etl.mysql_writer import MysqlWriter
from rainbow_prefect.sql_etl.types import Column, Schema, Type


@dataclass
class Settings:
    schema_name: str | None = None
    lock_timeout_seconds: float = 120.0
    statement_timeout_seconds: float | None = None
    connect_args: Mapping[str, Any] = field(default_factory=dict)
    zero_date: str | None = None


SLOW = Settings(connect_args={"local_infile": False})
"""As of a server that allows no LOAD DATA LOCAL."""


class Admin:
    """A plain session of the driver, apart from ours."""

    def __init__(self, url: str) -> None:
        parts = make_url(url)
        self.client = pymysql.connect(
            host=parts.host,
            port=parts.port or 0,
            user="root",
            database=parts.database,
            charset="utf8mb4",
            autocommit=True,
        )
        self.run("set time_zone = '+00:00'")

    def run(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self.client.cursor() as cursor:
            cursor.execute(sql, tuple(values) or None)
            return list(cursor.fetchall() or ())

    def one(self, sql: str, values: Sequence[Any] = ()) -> Any:
        return self.run(sql, values)[0][0]

    def tables(self) -> set[str]:
        return {row[0] for row in self.run("show tables")} - {"_rainbow_etl_ledger"}


@contextlib.contextmanager
def admin(url: str) -> Iterator[Admin]:
    made = Admin(url)
    try:
        yield made
    finally:
        made.client.close()


@contextlib.contextmanager
def reader(url: str, settings: Settings | None = None, session: Session | None = None) -> Iterator[MysqlReader]:
    made = MysqlReader(make_url(url), session or Session(), settings or Settings())
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def writer(url: str, settings: Settings | None = None, session: Session | None = None) -> Iterator[MysqlWriter]:
    made = MysqlWriter(make_url(url), session or Session(), settings or Settings())
    try:
        yield made
    except BaseException:
        made.rollback()
        raise
    finally:
        made.close()


def read(url: str, query: Query | str, settings: Settings | None = None) -> list[tuple[Any, ...]]:
    asked = Query(sql=query) if isinstance(query, str) else query
    with reader(url, settings) as source:
        return [row for rows in source.rows(asked, source.describe(asked)) for row in rows]


def load(
    url: str,
    job: Job,
    rows: Sequence[tuple[Any, ...]] | Iterable[bytes],
    settings: Settings | None = None,
    *,
    changes: Sequence[str] = (),
    state: Mapping[str, Any] | None = None,
) -> Counts | None:
    """Load rows, or chunks of lines; None when that was done before."""
    with writer(url, settings) as sink:
        if not sink.begin(job, sink.describe(job.table), changes):
            return None
        taken = list(rows)
        if taken and isinstance(taken[0], bytes):
            count = sink.write_chunks(iter(taken), "pg_text")  # type: ignore[arg-type]
        else:
            count = sink.write_rows(iter([taken]))  # type: ignore[list-item]
        counts = sink.finish(Counts(read=count))
        sink.commit(counts, state)
        return counts


def schema(**columns: str | Type) -> Schema:
    """A schema of nullable columns, by kind: `schema(id="int", name="text")`."""
    made = {
        name: Type(one, bits=64 if one in ("int", "float") else 0) if isinstance(one, str) else one
        for name, one in columns.items()
    }  # type: ignore[arg-type]
    return Schema(tuple(Column(name, one) for name, one in made.items()))


def job(mode: str, columns: Schema, *, run: str = "r1", table: str = "t", **more: Any) -> Job:
    return Job("task", run, (None, table), mode, columns, **more)  # type: ignore[arg-type]
