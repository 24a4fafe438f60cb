"""What tables are called among all data, and which ones a query reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from rainbow_prefect.sql_etl.assets import key, tables
from rainbow_prefect.sql_etl.base import Query
from rainbow_prefect.sql_etl.files import FilesSink
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink, SqlSource

ROOT = Path("/app")


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("select * from orders", [(None, "orders")]),
        ("SELECT * FROM raw.orders o JOIN raw.lines AS l ON o.id = l.id", [("raw", "orders"), ("raw", "lines")]),
        ("select * from a, b as two, c.d three where x = 1", [(None, "a"), (None, "b"), ("c", "d")]),
        ("with x as (select * from a), y (n) as (select 1) select * from x join y on true", [(None, "a")]),
        ("select * from x.y -- from z\n where t = 'from w' /* join v */", [("x", "y")]),
        ('select * from "a b"."c.d"', [("a b", "c.d")]),
        ("select * from `a b`", [(None, "a b")]),
        ("select * from generate_series(1, 3) n", []),
        ("select * from (select id from a) s left join b on s.id = b.id", [(None, "a"), (None, "b")]),
        ("select extract(year from day) from facts, lateral unnest(x) u", [(None, "facts")]),
        ("select 1", []),
        ("select $x$ from a $x$ from b", [(None, "b")]),
        ("select * from db.s.t", [("s", "t")]),
    ],
)
def test_tables_that_a_query_reads(sql: str, names: list[tuple[str | None, str]]) -> None:
    assert tables(Query(sql=sql)) == names


def test_a_key_tells_no_user_and_no_password() -> None:
    source = SqlSource(url="postgresql+psycopg://me:secret@db.example/shop?sslmode=require")

    assert key(source, ("public", "orders"), ROOT) == "postgresql://db.example:5432/shop/orders"
    assert key(source, ("raw", "a b/c"), ROOT) == "postgresql://db.example:5432/shop/raw/a_b_c"


def test_who_writes_and_who_reads_agree_on_the_key() -> None:
    url = "sqlite:///mart.db"

    assert key(SqlSink(url=url), (None, "t"), ROOT) == key(SqlSource(url=url), ("main", "t"), ROOT)
    assert key(SqlSink(url=url), (None, "t"), ROOT) == "sqlite:///app/mart.db/t"


def test_files_have_their_folder_as_the_key() -> None:
    assert key(FilesSink(type="files", path="lake"), (None, "t"), ROOT) == "file:///app/lake/t"
    assert key(FilesSink(type="files", path="s3://bucket/lake/"), (None, "t"), ROOT) == "s3://bucket/lake/t"


def test_a_long_key_is_cut_to_what_prefect_takes() -> None:
    assert len(key(SqlSink(url="sqlite:///x.db"), (None, "t" * 600), ROOT)) == 512
