"""MariaDB and PostgreSQL as source and sink of each other, by the same engine as tasks: equal by each lane."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from rainbow_prefect.sql_etl.base import BadValue, Query, Session
from rainbow_prefect.sql_etl.move import Order, move
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink, SqlSource

from .mysql_tools import admin

PG_TABLE = """
create type mood as enum ('sad', 'it''s ok');
create table s (
  id int primary key, b boolean, i2 smallint, i8 bigint, r real, f double precision, n numeric(38,10), t text, v varchar(20), c char(5),
  y bytea, d date, ts timestamp, tz timestamptz, tm time, u uuid, j json, jb jsonb, e mood
);
insert into s values
  (1, true, -32768, -9223372036854775808, 0.1, 0.1::float8 + 0.2, 1234567890123456789012345678.0123456789, E'a\\tb\\n\\r\\\\N \\f\\v\\b é😀', 'w ', 'ab',
   '\\x00ff0a5c27', '0001-01-01', '9999-12-31 23:59:59.999999', '2024-02-29 12:34:56.123456+05:30', '24:00:00',
   '123e4567-e89b-12d3-a456-426614174000', '{"a": 1,  "a":2}', '{"b": null}', 'it''s ok'),
  (3, false, 0, 0, -1e-30, -1.7976931348623157e308, -0.0000000001, '', '', '', '', '9999-12-31', '1000-01-01', '1970-01-01 00:00:01+00', '00:00',
   '00000000-0000-0000-0000-000000000000', 'null', '[]', 'sad');
insert into s values (2);
"""
PG_TEXT = """select id, b::text, i2, i8, f, n::text, t, v, c::text, encode(y, 'hex'), d::text, ts::text,
  (tz at time zone 'UTC')::text, tm::text, u::text, j::text, jb::text, e::text from s order by id"""
MARIADB_TEXT = """select id, if(b is null, null, if(b, 'true', 'false')), i2, i8, f, cast(n as char), t, v, c, lower(hex(y)), cast(d as char), cast(ts as char),
  cast(tz as char), cast(tm as char), cast(u as char), j, jb, cast(e as char) from t order by id"""


def moved(source: str, sink: str, *, engine: Any = "auto", query: Query | None = None, **more: Any) -> Any:
    order = Order(f"task {engine}", "r1", query or Query(table=(None, "s")), (None, "t"), engine=engine, **more)
    return move(order, SqlSource(url=source), SqlSink(url=sink), Session())


def trimmed(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Without the zeros that one of the two adds to times, and the spaces that char has."""
    return [
        tuple(
            one.rstrip("0").rstrip(".") if isinstance(one, str) and "." in one and ":" in one else one.rstrip(" ") if at == 8 and isinstance(one, str) else one
            for at, one in enumerate(row)
        )
        for row in rows
    ]  # fmt: skip


@pytest.mark.parametrize(("engine", "lane"), [("auto", "pg_text"), ("rows", "rows")])
def test_postgres_to_mariadb_and_back(postgres: str, other_postgres: str, mariadb: str, engine: str, lane: str) -> None:
    with psycopg.connect(postgres, autocommit=True) as pg:
        pg.execute(PG_TABLE.encode())
        wanted = pg.execute(PG_TEXT.encode()).fetchall()

    there = moved(postgres, mariadb, engine=engine)
    back = moved(mariadb, other_postgres, engine=engine, query=Query(table=(None, "t")))

    assert (there.engine, there.counts.written, back.engine, back.counts.written) == (lane, 3, lane, 3)
    with admin(mariadb) as db:
        found = db.run(MARIADB_TEXT)
        assert db.run("select r from t where id <> 2 order by id") == [(0.1,), (-1e-30,)]
    assert trimmed(found) == trimmed(wanted)
    with psycopg.connect(other_postgres) as pg:
        again = pg.execute(
            PG_TEXT.replace("from s", "from t").replace("b::text", "(b = 1)::text", 1).encode()
        ).fetchall()
        assert pg.execute("select r from t where id <> 2 order by id").fetchall() == [
            (pytest.approx(0.1),),
            (pytest.approx(-1e-30),),
        ]
    assert trimmed(again) == trimmed(wanted)


@pytest.mark.parametrize("engine", ["auto", "rows"])
@pytest.mark.parametrize(
    "sql",
    [
        "select 'NaN'::numeric(10,2) as a",
        "select 'NaN'::float8 as a",
        "select '-Infinity'::float8 as a",
        "select date 'infinity' as a",
        "select date '0044-03-15 BC' as a",
        "select timestamp '294276-12-31 23:59:59' as a",
        "select timestamptz '-infinity' as a",
        "select timestamptz '0044-03-15 00:00:00+00 BC' as a",
        "select timestamptz '2300-01-01 00:00:00+00' as a",
    ],
)
def test_what_mariadb_cannot_hold_is_an_error_by_each_lane(postgres: str, mariadb: str, engine: str, sql: str) -> None:
    with pytest.raises(BadValue, match="table 't': "):
        moved(postgres, mariadb, engine=engine, query=Query(sql=sql))

    with admin(mariadb) as db:
        assert db.tables() == set()


@pytest.mark.parametrize("engine", ["auto", "rows"])
@pytest.mark.parametrize(
    "sql", ["select 'a\\0b' as a", "select cast('838:59:59' as time) as a", "select cast('-00:00:01' as time) as a"]
)
def test_what_postgres_cannot_hold_is_an_error_by_each_lane(postgres: str, mariadb: str, engine: str, sql: str) -> None:
    with pytest.raises(BadValue):
        moved(mariadb, postgres, engine=engine, query=Query(sql=sql))

    with psycopg.connect(postgres) as pg:
        assert pg.execute("select to_regclass('t')").fetchone() == (None,)


@pytest.mark.parametrize(("engine", "lane"), [("auto", "pg_text"), ("rows", "rows")])
def test_mariadb_to_mariadb(mariadb: str, other_mariadb: str, engine: str, lane: str) -> None:
    with admin(mariadb) as db:
        db.run(
            "create table s (id bigint unsigned primary key, t text, b bit(9), e enum('a','b'), z timestamp(6) null, y year)"
        )
        db.run(
            "insert into s select seq, concat('\\\\', char(9), seq), seq % 512, 'b', '2024-01-01 00:00:00.5', '0000' from seq_1_to_30000"
        )
        wanted = db.run("select * from s")

    done = moved(mariadb, other_mariadb, engine=engine, mode="upsert", keys=("id",))

    assert (done.engine, done.counts.read, done.counts.inserted) == (lane, 30000, 30000)
    with admin(other_mariadb) as db:
        assert sorted(db.run("select * from t")) == sorted(wanted)
