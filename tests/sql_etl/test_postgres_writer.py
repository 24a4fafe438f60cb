"""Loads into a real PostgreSQL: each mode, each lane, what is refused, and how errors are told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from rainbow_prefect.sql_etl.base import Counts, Job, Refused, Rows, Session
from rainbow_prefect.sql_etl.postgres_writer import PostgresWriter
from rainbow_prefect.sql_etl.types import Column, Schema, Type

INT = Type("int", bits=32, native="integer", dialect="postgresql")
BIG = Type("int", bits=64, native="bigint", dialect="postgresql")
TEXT = Type("text", native="text", dialect="postgresql")
NUMERIC = Type("decimal", native="numeric", dialect="postgresql")

ID_X = Schema((Column("id", INT, nullable=False), Column("x", TEXT)))
FIRST: Rows = [(1, "a"), (2, "b"), (3, None)]
SECOND: Rows = [(2, "b"), (3, "c"), (4, "")]


class Settings:
    schema_name: str | None = None
    lock_timeout_seconds = 30.0
    statement_timeout_seconds: float | None = None
    connect_args: dict[str, Any] = {}

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class Sink:
    """A database of a test: `load` is a whole load, `rows` what a table holds."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.admin = psycopg.connect(url, autocommit=True)
        self.opened: list[PostgresWriter] = []

    def writer(self, *, role: str | None = None, session: Session | None = None, **settings: Any) -> PostgresWriter:
        if role:
            settings["connect_args"] = {"options": f"-c role={role}"}
        made = PostgresWriter(make_url(self.url), session or Session(name="rainbow test"), Settings(**settings))
        self.opened.append(made)
        return made

    def load(self, job: Job, rows: Rows, **settings: Any) -> Counts | None:
        """None: it was loaded before."""
        writer = self.writer(**settings)
        if not writer.begin(job, writer.describe(job.table)):
            return None
        read = writer.write_rows(iter([rows] if rows else []))
        counts = writer.finish(Counts(read=read))
        writer.commit(counts)
        return counts

    def run(self, sql: str) -> None:
        self.admin.execute(sql.encode())

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.admin.execute(sql.encode()).fetchall()

    def table(self, name: str = "t") -> list[tuple[Any, ...]]:
        return self.rows(f"select * from {name} order by 1, 2")

    def ledger(self) -> list[tuple[Any, ...]]:
        return self.rows(
            "select run_key, part, number, attempt, rows_read, rows_written, committed is not null"
            " from _rainbow_etl_ledger order by number, part"
        )

    def chunks(self, sql: str, form: str = "binary") -> list[bytes]:
        with self.admin.cursor().copy(f"copy ({sql}) to stdout (format {form})".encode()) as copy:
            return [bytes(one) for one in copy]


@pytest.fixture
def sink(postgres: str) -> Iterator[Sink]:
    made = Sink(postgres)
    yield made
    for one in made.opened:
        one.close()
    made.admin.close()


def job(mode: str = "append", run_key: str = "r1", *, table: str = "t", schema: Schema = ID_X, **more: Any) -> Job:
    if mode in ("upsert", "insert_new", "delete_insert"):
        more.setdefault("keys", ("id",))
    return Job("nightly.orders", run_key, (None, table), mode, schema, **more)  # type: ignore[arg-type]


def wait_until(is_so: Callable[[], bool], *, within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not is_so():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


# -- modes: first run, second run, the same run again, no rows

AFTER = {
    "append": [(1, "a"), (2, "b"), (2, "b"), (3, "c"), (3, None), (4, "")],
    "insert_new": [(1, "a"), (2, "b"), (3, None), (4, "")],
    "upsert": [(1, "a"), (2, "b"), (3, "c"), (4, "")],
    "delete_insert": [(1, "a"), (2, "b"), (3, "c"), (4, "")],
    "replace": [(2, "b"), (3, "c"), (4, "")],
}
COUNTED = {
    "append": (3, 3, None, None),
    "insert_new": (1, 1, None, None),
    "upsert": (2, 1, 1, None),
    "delete_insert": (3, 3, None, 2),
    "replace": (3, 3, None, None),
}


@pytest.mark.parametrize("mode", AFTER)
@pytest.mark.parametrize("has_key", [True, False])
def test_mode(sink: Sink, mode: str, has_key: bool) -> None:
    key = " primary key" if has_key and mode != "append" else ""
    sink.run(f"create table t (id int{key}, x text)")

    first = sink.load(job(mode), FIRST)
    again = sink.load(job(mode, attempt=2), SECOND)
    after_first = sink.table()
    second = sink.load(job(mode, "r2"), SECOND)
    after_second = sink.table()
    empty = sink.load(job(mode, "r3"), [])

    assert first is not None and (first.written, first.inserted) == (3, 3)
    assert again is None
    assert after_first == [(1, "a"), (2, "b"), (3, None)]
    assert second is not None
    assert (second.written, second.inserted, second.updated, second.deleted) == (
        COUNTED[mode] if has_key or mode != "upsert" else (2, 1, 1, None)
    )
    assert after_second == AFTER[mode]
    assert empty is not None and empty.written == 0
    assert sink.table() == ([] if mode == "replace" else AFTER[mode])
    assert sink.ledger() == [
        ("r1", "all", 1, 1, 3, 3, True),
        ("r2", "all", 2, 1, 3, second.written, True),
        ("r3", "all", 3, 1, 0, 0, True),
    ]


@pytest.mark.parametrize("mode", [*AFTER, "fail"])
def test_mode_makes_the_table(sink: Sink, mode: str) -> None:
    first = sink.load(job(mode, keys=("id",)), FIRST)
    again = sink.load(job(mode, keys=("id",), attempt=2), FIRST)

    assert first is not None and first.written == 3
    assert again is None
    assert sink.table() == [(1, "a"), (2, "b"), (3, None)]
    assert sink.rows("select conname, contype::text from pg_constraint where conrelid = 't'::regclass") == [
        ("t_pkey", "p")
    ]


def test_fail_wants_no_table(sink: Sink) -> None:
    sink.run("create table t (id int, x text)")

    with pytest.raises(Refused) as error:
        sink.load(job("fail"), FIRST)

    assert str(error.value) == (
        "table public.t exists, and mode fail wants a new one; use another mode or another table; nothing was written"
    )
    assert sink.table() == []
    assert sink.ledger() == []
