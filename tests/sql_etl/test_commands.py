"""The commands about SQL tasks, and blocks, with other databases than SQLite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rainbow_prefect import cli
from rainbow_prefect.sql_etl.probe import probe
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink, SqlSource
from tests.commands.sql import Shop
from tests.conftest import Done

Tell = Callable[..., Done]


@pytest.fixture(params=["duckdb", "postgres", "mariadb"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    """A shop in SQLite whose sink is another database."""
    if request.param == "duckdb":
        return Shop(tmp_path, sink="duckdb:///mart.duckdb")
    return Shop(tmp_path, sink=request.getfixturevalue(request.param))


@pytest.fixture
def tell(shop: Shop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Tell:
    """`rainbow ARGS` in the folder of the shop, in this process."""
    monkeypatch.chdir(shop.folder)

    def run(*args: str, code: int = 0) -> Done:
        capfd.readouterr()
        status = cli._call([*args])
        out, err = capfd.readouterr()
        assert status == code, f"exit status {status}\n{out}\n{err}"
        return Done(status, out, err)

    return run


KINDS = """
    create table kinds (id integer primary key, day date, price decimal(10, 4), b blob, t text, ok boolean, f double);
    insert into kinds values
        (1, '2024-02-29', 1.5, x'00ff', 'é😀', 1, 0.1),
        (2, null, null, null, null, null, null),
        (3, '1001-01-01', -0.0001, x'', '', 0, -1e300);
"""


def test_rows_are_equal_whatever_a_database_calls_its_types(shop: Shop, tell: Tell) -> None:
    shop.do("shop", KINDS)
    shop.write("select * from kinds", keys="[id]", mode="upsert")
    assert tell("etl", "diff", code=1).out == "the table orders does not exist\n"
    assert list(shop.folder.glob("mart*")) == []
    shop.load()

    assert tell("etl", "diff").out == "equal: the query gives 3 rows, the table orders has 3\n"

    shop.do("shop", "update kinds set price = 1.5001, f = 0.2 where id = 1")
    assert tell("etl", "diff", "--json", code=1).json["differences"] == [
        {
            "kind": "changed",
            "key": {"id": 1},
            "query": {"price": "1.5001", "f": 0.2},
            "table": {"price": "1.5", "f": 0.1},
        }
    ]


def test_explain_writes_nothing(shop: Shop, tell: Tell) -> None:
    first = tell("explain", "--json").json
    second = tell("explain", "--json").json

    assert first == second
    assert first["sink"]["exists"] is False
    assert first["ddl"][0].upper().startswith("CREATE TABLE")
    assert first["statements"]
    assert tell("etl", "diff", code=1).out == "the table orders does not exist\n"


def test_state_is_shown_and_reset(shop: Shop, tell: Tell) -> None:
    shop.write("select id, day from orders", incremental="{cursor: id}")
    assert tell("etl", "state", "reset", "--yes", "--json").json["reset"] is False
    shop.load()

    assert tell("etl", "state", "show").out == "cursor  4\n"
    assert tell("etl", "state", "reset", "--yes", "--json").json["reset"] is True
    assert tell("etl", "state", "show", "--json").json["state"] == {}
    assert len(tell("etl", "preview", "--json").json["rows"]) == 4


# -- whether it answers


def test_postgres_says_what_it_is_and_what_may_be_done(postgres: str) -> None:
    assert " answers; it can be read" in probe(SqlSource(url=postgres))
    told = probe(SqlSink(url=postgres))
    assert told.startswith("PostgreSQL ")
    assert told.endswith(" answers; tables can be made in schema 'public'")
    assert probe(SqlSink(url=postgres, schema="nix")).endswith(" answers; there is no schema 'nix'")
    assert probe(SqlSink(url=postgres, schema="pg_catalog")).endswith("in schema 'pg_catalog'")


def test_mariadb_says_what_it_is_and_what_may_be_done(mariadb: str) -> None:
    told = probe(SqlSink(url=mariadb))

    assert told.startswith("MariaDB ")
    assert " answers; tables can be made in database '" in told
    assert " answers; it can be read" in probe(SqlSource(url=mariadb))


def test_duckdb_says_what_it_is(tmp_path: Path) -> None:
    assert probe(SqlSink(url=f"duckdb:///{tmp_path}/a.duckdb")).startswith("DuckDB ")
    assert list(tmp_path.iterdir()) == []


# -- from PostgreSQL to PostgreSQL


@pytest.fixture
def copied(postgres: str, tmp_path: Path) -> Shop:
    """A shop whose source and sink are one database of PostgreSQL, with a table of a million rows."""
    import psycopg

    with psycopg.connect(postgres, autocommit=True) as db:
        db.execute(
            "create table big as select i as id, i * 1.5::numeric(20, 4) as amount, now() as at from generate_series(1, 1000000) i"
        )
    shop = Shop(tmp_path, sink=postgres)
    shop.write("select * from big", keys="[id]", mode="upsert")
    file = tmp_path / "rainbow.yml"
    file.write_text(file.read_text().replace("sqlite:///shop.db", postgres))
    return shop


def in_folder(folder: Path, *args: str) -> Done:
    import subprocess

    from tests.conftest import RAINBOW

    done = subprocess.run([str(RAINBOW), *args], cwd=folder, capture_output=True, text=True, timeout=300)
    return Done(done.returncode, done.stdout, done.stderr)


def test_explain_tells_the_fastest_way_and_preview_reads_few_rows(copied: Shop) -> None:
    told = in_folder(copied.folder, "explain", "--json")
    assert (told.code, told.json["lane"], told.json["others"]) == (0, "pg_binary", []), told.err
    assert any("ON CONFLICT" in one.upper() for one in told.json["statements"])

    seen = in_folder(copied.folder, "etl", "preview", "--rows", "3", "--json")

    assert [row[:2] for row in seen.json["rows"]] == [[1, "1.5000"], [2, "3.0000"], [3, "4.5000"]]
    assert [one["type"] for one in seen.json["columns"]][:2] == ["integer", "numeric"]


def test_diff_of_a_large_table_finds_the_one_row(copied: Shop) -> None:
    import psycopg

    with psycopg.connect(copied.sink, autocommit=True) as db:
        db.execute("create table orders (like big)")
        db.execute("insert into orders select * from big where id <= 300000")
        db.execute("delete from big where id > 300000")
        db.execute("update orders set amount = amount + 0.0001 where id = 123456")
        db.execute("delete from orders where id = 7")

    found = in_folder(copied.folder, "etl", "diff", "--json")

    assert (found.code, found.json["missing"], found.json["extra"], found.json["changed"]) == (1, 1, 0, 1), found.err
    assert [one["key"] for one in found.json["differences"]] == [{"id": 7}, {"id": 123456}]
