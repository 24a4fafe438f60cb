"""Sources and sinks that are saved in Prefect: registered, secret, tried, named by files, run."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

import rainbow_prefect.blocks
from rainbow_prefect import check, registry
from rainbow_prefect.blocks import store
from rainbow_prefect.blocks.sql import SINKS, SOURCES, SqlSink, SqlSource
from rainbow_prefect.errors import CallError, RunError
from rainbow_prefect.sql_etl import sqlalchemy as databases
from tests.blocks.conftest import Api, Named
from tests.conftest import Project, Rainbow, free_port

PASSWORD = "hunter2-Zz9"
BLOCKS: dict[str, type[Any]] = {**SOURCES, **SINKS}


def database(path: Path, script: str = "") -> str:
    """The URL of a file of SQLite, after this script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path)
    db.executescript(
        f"{script or 'create table orders (id integer, amount real); insert into orders values (1, 2.5)'};"
    )
    db.close()
    return f"sqlite:///{path}"


def rows(path: Path, table: str = "orders") -> list[Any]:
    db = sqlite3.connect(path)
    try:
        return db.execute(f"select * from {table} order by 1").fetchall()
    finally:
        db.close()


@pytest.mark.parametrize("slug", sorted(BLOCKS))
def test_a_block_has_the_fields_of_a_file_and_its_url_is_secret(slug: str) -> None:
    what = slug.removeprefix("sql-")
    plain = getattr(registry, f"{what}s")["sqlalchemy"]

    form = BLOCKS[slug].model_json_schema()

    names = {field.alias or name for name, field in plain.model_fields.items()}
    assert set(form["properties"]) == names - {what, "type"}
    assert form["secret_fields"] == ["url"]
    assert all(one.get("description") for one in form["properties"].values())
    assert getattr(rainbow_prefect.blocks, BLOCKS[slug].__name__) is BLOCKS[slug]


def test_a_block_is_saved_and_read_as_a_file_has_it(sql_api: Api, named: Named) -> None:
    name = named("shop")
    url = f"postgresql://me:{PASSWORD}@db.example/shop"
    SqlSource(url=url, schema="raw", lock_timeout_seconds=5).save(name, _sync=True)  # type: ignore[call-arg]

    assert store(f"sql-source/{name}", "source") == databases.SqlSource(url=url, schema="raw", lock_timeout_seconds=5)
    assert PASSWORD not in str(sql_api.read("sql-source", name))
    assert PASSWORD not in repr(SqlSource.load(name, _sync=True))  # type: ignore[call-arg]


def test_fields_that_the_form_left_empty_have_their_defaults(sql_api: Api, named: Named) -> None:
    name = named("form")
    sql_api.create("sql-sink", name, {"url": "sqlite:///a.db", "schema": None, "statement_timeout_seconds": None})

    assert store(f"sql-sink/{name}", "sink") == databases.SqlSink(url="sqlite:///a.db")


# -- whether it answers


def test_a_source_says_what_answers(tmp_path: Path) -> None:
    told = SqlSource(url=database(tmp_path / "shop.db")).test_connection()

    assert told == f"SQLite {sqlite3.sqlite_version} answers; it can be read"


def test_a_sink_says_what_it_may_do_and_makes_nothing(tmp_path: Path) -> None:
    told = SqlSink(url=f"sqlite:///{tmp_path}/mart.db").test_connection()

    assert told == f"SQLite {sqlite3.sqlite_version} answers; tables can be made"
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError) as told:
        SqlSource(url=f"sqlite:///{tmp_path}/none.db").test_connection()

    assert str(told.value) == f"the database {tmp_path}/none.db does not exist; correct `url`"


@pytest.mark.parametrize(
    "url", [f"nodb://me:{PASSWORD}@h/x", f"postgresql://me:{PASSWORD}@127.0.0.1:{{port}}/x", f"not {PASSWORD} an url"]
)
def test_what_is_wrong_is_told_without_the_password(url: str) -> None:
    for kind in (SqlSource, SqlSink):
        with pytest.raises(RunError) as told:
            kind(url=url.format(port=free_port())).test_connection()

        assert PASSWORD not in str(told.value)


# -- in a file

YAML = """
    name: shop
    {root}
    pipelines:
      - pipeline: nightly
        tasks:
          - {{task: orders, type: sql_etl, source: {source}, sink: {sink}, table: orders, mode: replace}}
"""


def saved(api: Api, named: Named, source: Any, sink: Any) -> tuple[str, str]:
    shop, mart = named("shop"), named("mart")
    api.create("sql-source", shop, source)
    api.create("sql-sink", mart, sink)
    return f"block:sql-source/{shop}", f"block:sql-sink/{mart}"


def test_a_task_names_blocks(sql_api: Api, named: Named, project: Project, tmp_path: Path) -> None:
    shop, mart = saved(
        sql_api, named, {"url": database(tmp_path / "shop.db")}, {"url": f"sqlite:///{tmp_path}/mart.db"}
    )
    folder = project({"rainbow.yml": YAML.format(root="", source=shop, sink=mart)})

    report = check.load(folder).pipeline("nightly").run()

    assert (report.state, rows(tmp_path / "mart.db")) == ("completed", [(1, 2.5)])


def test_an_entry_has_a_block_as_its_url_and_fields_of_its_own(
    sql_api: Api, named: Named, project: Project, tmp_path: Path
) -> None:
    shop, mart = saved(
        sql_api,
        named,
        {"url": database(tmp_path / "shop.db"), "schema": "nowhere"},
        {"url": f"sqlite:///{tmp_path}/mart.db", "schema": "nowhere"},
    )
    root = f"sources: [{{source: shop, url: {shop}, schema: main}}]\n    sinks: [{{sink: mart, url: {mart}, schema: main}}]"
    folder = project({"rainbow.yml": YAML.format(root=root, source="shop", sink="mart")})

    report = check.load(folder).pipeline("nightly").run()

    assert (report.state, rows(tmp_path / "mart.db")) == ("completed", [(1, 2.5)])


def test_a_secret_in_a_block_is_put_in(
    sql_api: Api, named: Named, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_URL", database(tmp_path / "shop.db"))
    shop, mart = saved(sql_api, named, {"url": "{{secret.SHOP}}"}, {"url": f"sqlite:///{tmp_path}/mart.db"})
    root = "secrets: [{secret: SHOP, env: SHOP_URL}]"
    folder = project({"rainbow.yml": YAML.format(root=root, source=shop, sink=mart)})

    assert check.load(folder).pipeline("nightly").run().state == "completed"


def test_a_block_that_is_not_there_is_told_when_the_task_starts(
    sql_api: Api, named: Named, project: Project, rainbow: Rainbow
) -> None:
    name = named("none")
    folder = project({"rainbow.yml": YAML.format(root="", source=f"block:sql-source/{name}", sink="'sqlite:///b.db'")})
    rainbow("check", folder)

    done = rainbow("run", folder, "--json", code=1)

    (task,) = done.json["tasks"]
    assert task["message"].startswith(
        f"the source 'block:sql-source/{name}': there is no block '{name}' of type 'sql-source'; "
    )
    assert task["log_tail"] == []


def test_no_run_shows_the_password_of_a_block(
    sql_api: Api, named: Named, project: Project, rainbow: Rainbow, tmp_path: Path
) -> None:
    source = {"url": f"postgresql://me:{PASSWORD}@127.0.0.1:{free_port()}/x?connect_timeout=2"}
    shop, mart = saved(sql_api, named, source, {"url": f"sqlite:///{tmp_path}/mart.db"})
    folder = project({"rainbow.yml": YAML.format(root="", source=shop, sink=mart)})

    done = rainbow("run", folder, "--json", code=1)

    assert PASSWORD not in done.out + done.err


def test_a_block_of_another_kind_is_told(prefect_api: str) -> None:
    with pytest.raises(CallError) as told:
        store("sql-sink/mart", "source")
    assert str(told.value) == (
        "the source 'block:sql-sink/mart': a block of type 'sql-sink' is no source; use one of type sql-source"
    )

    with pytest.raises(CallError) as told:
        store("process-executor/x", "sink")
    assert str(told.value) == (
        "the sink 'block:process-executor/x': a block of type 'process-executor' is no sink; use one of type sql-sink"
    )


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("block:sql-source/shop", []),
        ("block:snowflake/shop", []),
        ("block:sql-source", ["'block:sql-source' is not a reference to a block; write block:sql-source/NAME"]),
        ("block:sql-sink/x", ["a block of type 'sql-sink' is no source; name one of type 'sql-source'"]),
        ("block:sql-sorce/x", ["unknown block type 'sql-sorce'; did you mean 'sql-source'?"]),
    ],
)
def test_check_looks_at_references(project: Project, source: str, told: list[str]) -> None:
    folder = project({"rainbow.yml": YAML.format(root="", source=source, sink="'sqlite:///b.db'")})

    assert [f"{one.message}; {one.hint}" for one in check.check(folder).problems] == told
