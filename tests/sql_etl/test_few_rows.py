"""Who only looks asks for few rows: the database is told, so that a preview of a large query is cheap."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from rainbow_prefect.sql_etl.base import Query, Session
from rainbow_prefect.sql_etl.sqlalchemy import SqlSource


@pytest.fixture(params=["postgres", "mariadb", "sqlite", "duckdb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the table `n` of 500 rows."""
    if request.param in ("postgres", "mariadb"):
        where = str(request.getfixturevalue(request.param))
    else:
        where = f"{request.param}:///{tmp_path}/n.db"
    if request.param == "duckdb":
        import duckdb

        with duckdb.connect(f"{tmp_path}/n.db") as db:
            db.execute("create table n as select range as id from range(500)")
        return where
    engine = create_engine(where)
    with engine.begin() as db:
        db.execute(text("create table n (id integer)"))
        db.execute(text("insert into n values (:id)"), [{"id": one} for one in range(500)])
    engine.dispose()
    return where


@pytest.mark.parametrize(
    ("query", "most"),
    [
        (Query(table=(None, "n")), 3),
        (Query(sql="select id from n -- all of them\n;"), 3),
        (Query(sql="select id from n", where=("id >= 10",), columns=(("twice", "id * 2"),)), 5),
        (Query(sql="select id from n"), 1000),
    ],
)
def test_the_database_gives_no_more(url: str, query: Query, most: int) -> None:
    reader = SqlSource(url=url).open(Session(only_looks=True))
    try:
        schema = reader.describe(query)
        few = Query(query.sql, query.table, query.where, query.columns, most=most)
        found = [row for some in reader.rows(few, schema) for row in some]
    finally:
        reader.close()

    assert len(found) == min(most, 500)
    assert len(schema.names) == len(found[0])


def test_the_order_of_a_query_stays(url: str) -> None:
    reader = SqlSource(url=url).open(Session(only_looks=True))
    try:
        query = Query(sql="select id from n order by id desc", most=2)
        schema = reader.describe(Query(sql=query.sql))
        found = [row for some in reader.rows(query, schema) for row in some]
    finally:
        reader.close()

    assert found[:2] == [(499,), (498,)]
