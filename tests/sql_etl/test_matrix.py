"""From every database to every other one, on every lane: the same values as text; and what real servers add to `move`."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect.sql_etl.base import Query, Session
from rainbow_prefect.sql_etl.incremental import Incremental
from rainbow_prefect.sql_etl.move import Moved, Order, move
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink, SqlSource

DIALECTS = ("postgresql", "mariadb", "sqlite", "duckdb")

MAKE = {
    "postgresql": """create table things (id bigint primary key, n integer, ok boolean, price numeric(15,2), weight double precision,
        name varchar(40), note text, data bytea, day date, stamp timestamp, part time)""",
    "mariadb": """create table things (id bigint primary key, n integer, ok boolean, price numeric(15,2), weight double,
        name varchar(40), note text, data blob, day date, stamp datetime(6), part time(6)) character set utf8mb4""",
    "sqlite": """create table things (id bigint primary key, n integer, ok boolean, price numeric(15,2), weight double,
        name varchar(40), note text, data blob, day date, stamp timestamp, part time)""",
    "duckdb": """create table things (id bigint primary key, n integer, ok boolean, price decimal(15,2), weight double,
        name varchar, note text, data blob, day date, stamp timestamp, part time)""",
}
ROWS: list[tuple[Any, ...]] = [
    (1, 7, True, "10.25", 0.1, "plain", "", b"\x00\xff", "2024-02-29", "2024-02-29 12:34:56.123456", "12:34:56"),
    (2, None, None, None, None, None, None, None, None, None, None),
    (
        3,
        -(2**31),
        False,
        "-0.01",
        -1.5e300,
        "tab\tand\nnewline",
        "\\N",
        b"",
        "0001-01-01",
        "1999-12-31 23:59:59",
        "00:00:00",
    ),
    (
        2**63 - 1,
        2**31 - 1,
        True,
        "1234567890123.45",
        1e-300,
        "é 😀 中",
        "null '\"\\ ,;",
        b"\n\t\\",
        "9999-12-31",
        "2024-01-01 00:00:00",
        "23:59:59",
    ),
]
NAMES = ("id", "n", "ok", "price", "weight", "name", "note", "data", "day", "stamp", "part")
Database = Callable[[str], str]


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """The URL of an empty database of this dialect, a new one each time for those that are files."""
    count = itertools.count()

    def made(dialect: str) -> str:
        if dialect in ("sqlite", "duckdb"):
            return f"{dialect}:///{tmp_path}/{dialect}{next(count)}.db"
        fixture = {"postgresql": "postgres", "mariadb": "mariadb"}[dialect]
        return str(request.getfixturevalue(fixture))

    return made


def sql(url: str, statement: str, rows: list[tuple[Any, ...]] | None = None) -> list[tuple[Any, ...]]:
    """Run one statement with the driver of the database itself; with rows once for each of them."""
    dialect = url.partition(":")[0].partition("+")[0]
    if dialect == "postgresql":
        import psycopg

        connection: Any = psycopg.connect(url, autocommit=True)
        mark = "%s"
    elif dialect in ("mysql", "mariadb"):
        import pymysql
        from sqlalchemy import make_url

        one = make_url(url)
        connection = pymysql.connect(
            host=one.host,
            port=one.port or 3306,
            user=one.username,
            password=one.password or "",
            database=one.database,
            autocommit=True,
        )
        mark = "%s"
    elif dialect == "sqlite":
        connection, mark = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None), "?"
    else:
        import duckdb

        connection, mark = duckdb.connect(url.removeprefix("duckdb:///")), "?"
    try:
        cursor = connection.cursor()
        if rows is None:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
        for row in rows:
            cursor.execute(statement.replace("?", mark), row)
        return []
    finally:
        connection.close()


def fill(url: str) -> None:
    sql(url, MAKE[url.partition(":")[0].partition("+")[0].replace("mysql", "mariadb")])
    sql(url, f"insert into things values ({', '.join('?' * len(NAMES))})", ROWS)


def shown(url: str) -> list[tuple[str | None, ...]]:
    """The rows of the sink in one writing for all databases."""
    return [
        tuple(map(_text, NAMES, row)) for row in sql(url, f"select {', '.join(NAMES)} from sink_things order by id")
    ]


def _text(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if name == "ok":
        return str(bool(value))
    if name == "data":
        return bytes(value).hex()
    if name in ("stamp", "part", "day"):
        text = str(value).replace("T", " ")
        text = f"0{text}" if name == "part" and len(text.split(":")[0]) == 1 else text
        return text.rstrip("0").rstrip(".") if "." in text else text
    if name == "price":
        return f"{float(value):.2f}" if isinstance(value, float) else str(value)
    return repr(float(value)) if name == "weight" else str(value)


WANTED = [tuple(map(_text, NAMES, row)) for row in ROWS]


def load(source: str, sink: str, **more: Any) -> Moved:
    order = {
        "name": "a/p/t",
        "run_key": "r1",
        "query": Query("select * from things"),
        "table": (None, "sink_things"),
        **more,
    }
    return move(Order(**order), SqlSource(url=source), SqlSink(url=sink), Session())


def pairs() -> list[Any]:
    made = []
    for source, sink in itertools.product(DIALECTS, DIALECTS):
        has_arrow = {source, sink} <= {"postgresql", "duckdb"} and "duckdb" in (source, sink)
        engines = ["auto", "rows", "arrow"] if has_arrow else ["auto", "rows"]
        made += [pytest.param(source, sink, engine, id=f"{source}-{sink}-{engine}") for engine in engines]
    return made


@pytest.mark.parametrize(("source", "sink", "engine"), pairs())
def test_the_same_values_come_out(database: Database, source: str, sink: str, engine: str) -> None:
    came = database(source)
    went = came if source == sink and source in ("postgresql", "mariadb") else database(sink)
    fill(came)

    moved = load(came, went, engine=engine)

    assert shown(went) == WANTED
    assert moved.counts.read == moved.counts.written == len(ROWS)


@pytest.mark.parametrize("dialect", ["postgresql", "mariadb"])
def test_runs_at_once_read_what_is_new_once(database: Database, dialect: str) -> None:
    url = database(dialect)
    fill(url)
    done: list[Moved] = []

    def work(number: int) -> None:
        done.append(load(url, url, run_key=f"r{number}", incremental=Incremental("id")))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert shown(url) == WANTED
    assert sorted(one.counts.read for one in done) == [0, 0, 0, 4]


@pytest.mark.parametrize("mode", ["append", "upsert", "insert_new", "delete_insert", "replace"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_mode_on_each_sink(database: Database, dialect: str, mode: Any, tmp_path: Path) -> None:
    source = f"sqlite:///{tmp_path}/shop.db"
    fill(source)
    sink = database(dialect)
    keys = () if mode in ("append", "replace") else ("id",)
    load(source, sink, mode=mode, keys=keys)
    sql(source, "update things set n = 8 where id = 1")
    sql(source, "delete from things where id = 2")

    moved = load(source, sink, mode=mode, keys=keys, run_key="r2")

    found = [(int(row[0]), None if row[1] is None else int(row[1])) for row in shown(sink)]
    old, largest = [(1, 7), (2, None), (3, -(2**31)), (2**63 - 1, 2**31 - 1)], (2**63 - 1, 2**31 - 1)
    assert (
        found
        == {
            "append": sorted([*old, (1, 8), (3, -(2**31)), largest], key=lambda one: one[0]),
            "upsert": [(1, 8), *old[1:]],
            "insert_new": old,
            "delete_insert": [(1, 8), *old[1:]],
            "replace": [(1, 8), *old[2:]],
        }[mode]
    )
    assert moved.counts.written == {"append": 3, "upsert": 1, "insert_new": 0, "delete_insert": 3, "replace": 3}[mode]
