"""`rainbow explain`: what a SQL task would do; nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rainbow_prefect import cli
from tests.commands.sql import Shop
from tests.conftest import Done

Tell = Callable[..., Done]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


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


def test_it_tells_columns_the_way_and_all_statements_and_writes_nothing(shop: Shop, tell: Tell) -> None:
    done = tell("explain", "-p", "nightly", "-t", "orders")

    assert done.out == (
        "source   shop (sqlite)\n"
        "sink     mart (sqlite), table orders, which does not exist yet and is made\n"
        "mode     upsert by id\n"
        "rows go  as rows\n"
        "         not pg_binary, pg_text, csv, arrow: the source does not give it\n"
        "\n"
        "column  source   sink\n"
        "id      INTEGER  INTEGER  not null\n"
        "day     date     date\n"
        "amount  REAL     REAL\n"
        "\n"
        "query\n"
        "  select id, day, amount from orders\n"
        "\n"
        "table\n"
        '  CREATE TABLE "orders" (\n'
        '    "id" INTEGER NOT NULL,\n'
        '    "day" date,\n'
        '    "amount" REAL,\n'
        '    PRIMARY KEY ("id")\n'
        "  )\n"
        "\n"
        "load\n"
        "  CREATE TEMPORARY TABLE _rainbow_stage (\n"
        '    "id" INTEGER,\n'
        '    "day" date,\n'
        '    "amount" REAL\n'
        "  )\n"
        '  INSERT INTO _rainbow_stage ("id", "day", "amount") VALUES (?, ?, ?)\n'
        '  UPDATE "orders" SET "day"=(SELECT _rainbow_stage."day"\n'
        "  FROM _rainbow_stage\n"
        '  WHERE "orders"."id" = _rainbow_stage."id"), "amount"=(SELECT _rainbow_stage."amount"\n'
        "  FROM _rainbow_stage\n"
        '  WHERE "orders"."id" = _rainbow_stage."id") WHERE EXISTS (SELECT 1\n'
        "  FROM _rainbow_stage\n"
        '  WHERE "orders"."id" = _rainbow_stage."id" AND '
        '("orders"."day" IS NOT _rainbow_stage."day" OR "orders"."amount" IS NOT _rainbow_stage."amount"))\n'
        '  INSERT INTO "orders" ("id", "day", "amount") '
        'SELECT _rainbow_stage."id", _rainbow_stage."day", _rainbow_stage."amount"\n'
        "  FROM _rainbow_stage\n"
        "  WHERE NOT (EXISTS (SELECT 1\n"
        '  FROM "orders"\n'
        '  WHERE "orders"."id" = _rainbow_stage."id"))\n'
    )
    assert sorted(one.name for one in shop.folder.iterdir()) == ["rainbow.yml", "shop.db"]


def test_it_tells_the_types_of_a_table_that_exists(shop: Shop, tell: Tell) -> None:
    shop.do("mart", "create table orders (id integer primary key, day text, amount real)")

    found = tell("explain", "--json").json

    assert found["sink"] == {"name": "mart", "dialect": "sqlite", "table": "orders", "exists": True}
    assert [(one["name"], one["source"], one["sink"]) for one in found["columns"]] == [
        ("id", "INTEGER", "INTEGER"),
        ("day", "date", "TEXT"),
        ("amount", "REAL", "REAL"),
    ]
    assert (found["lane"], found["ddl"]) == ("rows", [])
    assert not any(one.startswith("CREATE TABLE") for one in found["statements"])
    assert shop.rows("select name from sqlite_master") == [("orders",)]


def test_it_does_not_wait_for_a_load_that_holds_the_sink(shop: Shop, tell: Tell) -> None:
    import sqlite3

    shop.load()
    busy = sqlite3.connect(shop.folder / "mart.db", isolation_level=None)
    busy.execute("begin immediate")

    try:
        tell("explain", "--json")
    finally:
        busy.close()


def test_a_query_that_is_wrong_is_told_at_its_place(shop: Shop, tell: Tell) -> None:
    shop.write("select id from ordrs")

    done = tell("explain", code=2)

    assert done.err == (
        "rainbow.yml:9:17: pipeline 'nightly', task 'orders': the query is not accepted: no such table: ordrs\n"
    )


def test_a_source_that_is_not_there_is_told_at_its_place(shop: Shop, tell: Tell) -> None:
    (shop.folder / "shop.db").unlink()

    found = tell("explain", "--json", code=2).json

    (problem,) = found["problems"]
    assert (problem["line"], problem["path"]) == (8, "pipelines[0].tasks[0].source")
    assert problem["message"].endswith("task 'orders': the database shop.db does not exist; correct `url`")


def test_columns_that_do_not_fit_are_told(shop: Shop, tell: Tell) -> None:
    shop.do("mart", "create table orders (id integer primary key, day text)")

    done = tell("explain", code=2)

    assert "the table 'orders' has no column 'amount' (columns: id, day)" in done.err


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("-t", "ordrs"), "Error: there is no task 'ordrs'; did you mean 'orders'?\n"),
        (("-t", "say"), "Error: task 'say' is of type 'python'; this is for tasks of type sql_etl\n"),
        (("-t", "tidy"), "Error: task 'tidy' has no `sink`; this is for tasks that move rows\n"),
        (("-p", "nightl"), "Error: there is no pipeline 'nightl'; did you mean 'nightly'?\n"),
    ],
)
def test_a_task_that_is_not_there_is_told(shop: Shop, tell: Tell, args: tuple[str, ...], told: str) -> None:
    file = shop.folder / "rainbow.yml"
    more = ["{task: say, type: python, cmd: echo hello}", "{task: tidy, type: sql, source: shop, query: select 1}"]
    file.write_text(file.read_text() + "".join(f"      - {one}\n" for one in more))

    assert tell("explain", *args, code=2).err == told


def test_parameters_are_put_in(shop: Shop, tell: Tell) -> None:
    shop.write("select id from orders where day = '{{day}}'")
    file = shop.folder / "rainbow.yml"
    file.write_text(
        file.read_text().replace("    tasks:", "    parameters: [{name: day, default: '2024-01-01'}]\n    tasks:")
    )

    assert tell("explain", "--param", "day=2024-05-02", "--json").json["source"]["query"] == (
        "select id from orders where day = '2024-05-02'"
    )


def test_no_secret_is_shown(shop: Shop, tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SQL_KEY", "hunter2-Zz9")
    shop.write("select id, '{{secret.KEY}}' as k from orders", "secrets: [{secret: KEY, env: TEST_SQL_KEY}]")

    done = tell("explain")

    assert "hunter2-Zz9" not in done.out + done.err
    assert "select id, '********' as k from orders" in done.out


def test_a_password_is_not_shown_when_nobody_answers(shop: Shop, tell: Tell) -> None:
    from tests.conftest import free_port

    file = shop.folder / "rainbow.yml"
    url = f"postgresql://me:hunter2-Zz9@127.0.0.1:{free_port()}/x"
    file.write_text(file.read_text().replace("sqlite:///shop.db", url))

    done = tell("explain", code=1)

    assert "hunter2-Zz9" not in done.out + done.err
    assert done.err.startswith("Error: rainbow.yml:8:")


def test_it_tells_what_goes_through_duckdb(shop: Shop, tell: Tell) -> None:
    (shop.folder / "rainbow.yml").write_text("""\
name: shop
pipelines:
  - pipeline: nightly
    tasks:
      - task: orders
        type: sql_etl
        source: {type: files, path: orders.csv}
        sink: "sqlite:///mart.db"
        table: orders
        filter: amount <> '0'
        columns: {cents: cast(amount as integer) * 100}
""")
    (shop.folder / "orders.csv").write_text("id,amount\n1,0\n2,3\n")

    found = tell("explain", "--json").json

    assert found["through"] == "DuckDB, for `filter`, `columns`"
    assert [one["source"] for one in found["columns"]] == ["text", "text", "INTEGER"]
    assert "through  DuckDB, for `filter`, `columns`\nrows go  as rows\n" in tell("explain").out
    assert tell("etl", "preview").out.splitlines()[2] == "2     3       300"


def test_it_tells_the_parts_of_a_task_that_is_split(shop: Shop, tell: Tell) -> None:
    shop.write("select id, day, amount from orders", mode="replace", split="{by: id, executors: 2}")

    done = tell("explain")

    assert (
        'parts, 2 at once\n  id 1/2  "id" < 3 OR "id" IS NULL\n  id 2/2  "id" >= 3\n\neach part, into _rainbow_split_'
    ) in done.out
    assert "\nall rows, from _rainbow_split_" in done.out
    assert list(shop.folder.glob("mart*")) == []


def test_a_split_that_cannot_be_is_told_at_its_place(shop: Shop, tell: Tell) -> None:
    shop.write("select id, day, amount from orders", split="{by: idd}")

    done = tell("explain", code=2)

    assert done.err.startswith("rainbow.yml:")
    assert "`split` names the column 'idd', which the query does not give; did you mean 'id'?" in done.err
