"""The task type `sql_etl`: its keys, what `rainbow check` says of them, and a run from YAML."""

from __future__ import annotations

import sqlite3
import textwrap
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect import check
from rainbow_prefect.tasks.sql_etl import table_name


def problems(folder: Path, task: str, root: str = "") -> list[str]:
    text = f"name: shop\n{textwrap.dedent(root).strip()}\npipelines:\n  - pipeline: p\n    tasks:\n      - {{task: t, {task}}}\n"
    (folder / "rainbow.yml").write_text(text)
    return [f"{one.message}; {one.hint}" for one in check.check(folder).problems]


GOOD = "type: sql_etl, source: 'sqlite:///a.db', sink: 'sqlite:///b.db', table: t"


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (f"{GOOD}", []),
        (f"{GOOD}, query: select 1", []),
        (
            f"{GOOD}, query: select 1, source_table: x",
            ["'query' and 'source_table' exclude each other; keep one of them"],
        ),
        (f"{GOOD}, output_table: x", ["'table' and 'output_table' are the same; keep `table`"]),
        (
            "type: sql, source: 'sqlite:///a.db', sink: 'sqlite:///b.db'",
            [
                "nothing says where to write; add `table`",
                "nothing says what to read; add `query`, `query_file` or `source_table`",
            ],
        ),
        (f"{GOOD}, mode: upsert", ["`mode: upsert` needs `keys`; name the columns that tell a row from others"]),
        (f"{GOOD}, mode: upsertt", ["unknown mode 'upsertt'; did you mean 'upsert'?"]),
        (f"{GOOD}, query_file: no.sql", ["the file no.sql does not exist; correct the path"]),
        (
            f"{GOOD}, executors: 3",
            ["'executors' is not for tasks of type 'sql_etl'; write `split: {by: COLUMN, executors: 4}`"],
        ),
        (
            "type: sql, source: shopp, sink: 'sqlite:///b.db', table: t",
            ["unknown source 'shopp'; did you mean 'shop'?"],
        ),
        (
            "type: sql, source: shop, sink: lake, table: t",
            ["unknown sink 'lake'; add it to the root section `sinks`, or write an URL"],
        ),
        (
            "type: sql, source: shop, sink: 'sqlitee://x', table: t",
            ["'sqlitee' is no dialect that is known here; did you mean 'sqlite'?"],
        ),
        ("type: sql, source: shop, sink: '{{secret.MART}}', table: t", []),
        ("type: sql, source: {url: 'sqlite:///a.db'}, sink: {url: 'sqlite:///a.db'}, table: t", []),
        (
            "type: sql, source: {url: 'x'}, sink: {urll: 'sqlite:///a.db'}, table: t",
            [
                "the `url` is not the URL of a database; write DIALECT://..., e.g. sqlite:///shop.db or postgresql://user@host/db",
                "unknown key 'urll'; did you mean 'url'?",
            ],
        ),
    ],
)
def test_check_tells_what_is_wrong(tmp_path: Path, task: str, told: list[str]) -> None:
    root = "sources: [{source: shop, url: 'sqlite:///a.db'}]\nsecrets: [{secret: MART, env: MART}]"

    assert [one.rstrip("; ") for one in problems(tmp_path, task, root)] == told


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("orders", (None, "orders")),
        ("mart.orders", ("mart", "orders")),
        ('"a.b"', (None, "a.b")),
        ('"a.b"."c""d"', ("a.b", 'c"d')),
        ('mart."a b"', ("mart", "a b")),
        ("a.b.c", ("a", "b.c")),
    ],
)
def test_a_table_may_have_a_schema_and_quotes(text: str, name: tuple[str | None, str]) -> None:
    assert table_name(text) == name


def test_no_password_is_told(tmp_path: Path) -> None:
    told = problems(tmp_path, "type: sql, source: 'nodb://me:hunter2@h/x', sink: 'sqlite:///b.db', table: t")

    assert len(told) == 1
    assert "hunter2" not in told[0]


YAML = """
name: shop
variables: {day: '2024-05-01'}
secrets: [{secret: SHOP, env: TEST_SQL_SHOP}]
sources: [{source: shop, url: '{{secret.SHOP}}'}]
sinks: [{sink: mart, url: 'sqlite:///mart.db'}]
pipelines:
  - pipeline: nightly
    tasks:
      - task: daily
        type: sql_etl
        source: shop
        query_file: daily.sql
        sink: mart
        table: daily_sales
        mode: upsert
        keys: [country]
      - {task: again, type: sql, source: mart, sink: 'sqlite:///copy.db', table: daily_sales, mode: replace}
"""


def test_rows_go_from_source_to_sink_in_a_run(
    tmp_path: Path, prefect_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rainbow_prefect import load

    (tmp_path / "rainbow.yml").write_text(YAML.replace("source: mart", "source: 'sqlite:///mart.db'"))
    (tmp_path / "daily.sql").write_text("select country, sum(amount) as total from orders group by country;\n")
    with sqlite3.connect(tmp_path / "shop.db") as db:
        db.executescript(
            "create table orders (country text, amount real); insert into orders values ('PL', 2.5), ('PL', 1), ('DE', 3)"
        )
    db.close()
    monkeypatch.setenv("TEST_SQL_SHOP", f"sqlite:///{tmp_path}/shop.db")

    report = load(tmp_path).pipeline("nightly").run()

    assert report.state == "completed"
    assert report["daily"].output["rows"] == 2
    with sqlite3.connect(tmp_path / "copy.db") as db:
        assert db.execute("select * from daily_sales order by 1").fetchall() == [("DE", 3.0), ("PL", 3.5)]
    db.close()


@pytest.mark.parametrize(
    ("root", "told"),
    [
        (
            "sources: [{source: shop, url: 'sqlitee:///a.db'}]",
            ["'sqlitee' is no dialect that is known here; did you mean 'sqlite'?"],
        ),
        (
            "sources: [{source: shop, url: 'a.db'}]",
            [
                "the `url` is not the URL of a database; write DIALECT://..., "
                "e.g. sqlite:///shop.db or postgresql://user@host/db"
            ],
        ),
        (
            "sinks: [{sink: mart, url: 'block:sql-source/mart'}]",
            ["a block of type 'sql-source' is no sink; name one of type 'sql-sink'"],
        ),
        (
            "sources: [{source: shop, url: 'sqlite:///a.db'}, {source: shop, url: 'sqlite:///b.db'}]",
            ["duplicate source 'shop'; it is at line 2 already; use another name"],
        ),
        ("sinks: [{url: 'sqlite:///a.db'}]", ["a sink without a name can be used by no task; add `sink: NAME`"]),
        ("secrets: [{secret: S, env: S}]\nsources: [{source: shop, url: '{{secret.S}}'}]", []),
    ],
)
def test_check_tells_what_is_wrong_with_a_root_entry(tmp_path: Path, root: str, told: list[str]) -> None:
    assert problems(tmp_path, GOOD, root) == told
