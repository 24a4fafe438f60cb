"""How far a load has come: what is told of rows on each way, and what is expected."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from rainbow_prefect.run import Progress
from rainbow_prefect.sql_etl import meter
from rainbow_prefect.sql_etl.base import Query, Session
from rainbow_prefect.sql_etl.lanes import Engine
from rainbow_prefect.sql_etl.move import Order, move
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink, SqlSource

ROWS = 30_000


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Progress]:
    monkeypatch.setattr(meter, "EVERY_SECONDS", 0.0)
    return []


def orders(url: str) -> str:
    import psycopg

    with psycopg.connect(url, autocommit=True) as db:
        db.execute("create table o (id int, note text)")
        db.execute("insert into o select n, repeat('x', 100) from generate_series(1, %s) n", [ROWS])
        db.execute("analyze o")
    return url


@pytest.mark.parametrize(("engine", "way"), [("copy", "pg_binary"), ("rows", "rows")])
def test_rows_bytes_and_the_total_are_told(
    postgres: str, tmp_path: Path, told: list[Progress], engine: Engine, way: str
) -> None:
    source, sink = SqlSource(url=orders(postgres)), SqlSink(url=postgres)
    order = Order("j", "r", Query(table=(None, "o")), (None, "t"), engine=engine)

    moved = move(order, source, sink, Session(root=tmp_path, progress=told.append))

    assert moved.engine == way
    assert len(told) > 1
    assert all(one.total_rows == ROWS for one in told)
    assert [one.rows for one in told] == sorted(one.rows for one in told)
    assert 0 < told[0].rows <= ROWS
    assert told[-1].rows == ROWS
    assert (told[-1].size_bytes > 100 * ROWS) is (way == "pg_binary")


def test_a_query_whose_size_nobody_knows_has_no_total(tmp_path: Path, told: list[Progress]) -> None:
    query = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000) select i from n"
    order = Order("j", "r", Query(sql=query), (None, "t"))
    source, sink = SqlSource(url="sqlite://"), SqlSink(url="sqlite:///b.db")

    move(order, source, sink, Session(root=tmp_path, progress=told.append))

    assert [one.total_rows for one in told[:-1]] == [None] * (len(told) - 1)
    assert (told[-1].rows, told[-1].total_rows) == (20000, 20000)


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(0, 0.0), "0 rows"),
        (Progress(1, 1.0), "1 row, 1 rows/s"),
        (Progress(10, 2.0, 999), "10 rows, 999 bytes, 5 rows/s"),
        (Progress(10, 2.0, 1_500_000_000, 10), "10 rows, 1.5 GB, 5 rows/s"),
        (Progress(100, 1.0, 0, 20_000), "100 rows, 100 rows/s, about 3 min 19 s left"),
        (Progress(100, 10.0, 25_000, 100_000), "100 rows, 25 kB, 10 rows/s, about 2 h 46 min left"),
        (Progress(100, 10.0, 0, 50), "100 rows, 10 rows/s"),
    ],
)
def test_progress_in_words(progress: Progress, text: str) -> None:
    assert str(progress) == text


def test_nothing_is_told_after_a_cancel(tmp_path: Path, told: list[Progress]) -> None:
    stop = threading.Event()
    session = Session(root=tmp_path, stop=stop)

    def tell(progress: Progress) -> None:
        told.append(progress)
        stop.set()

    with sqlite3.connect(tmp_path / "a.db") as db:
        db.execute("create table o (note text)")
        db.execute(
            "insert into o with recursive n(i) as (select 1 union all select i + 1 from n limit 100000) "
            "select printf('%0200d', i) from n"
        )
    db.close()
    order = Order("j", "r", Query(table=(None, "o")), (None, "t"))
    with pytest.raises(Exception, match="^cancelled; nothing was written$"):
        move(order, SqlSource(url="sqlite:///a.db"), SqlSink(url="sqlite:///b.db"), replace(session, progress=tell))

    assert told
    assert not any(one.total_rows for one in told)
