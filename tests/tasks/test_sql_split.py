"""The key `split` of SQL tasks: what `rainbow check` says of it, and a run whose parts fail and are tried again."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.tasks.test_sql_etl import problems

GOOD = "type: sql_etl, source: 'sqlite:///a.db', sink: 'sqlite:///b.db', table: t"
HERE = "and each part is committed for itself; write `atomic: true` in `split`"


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("split: {by: k, executors: 4}", []),
        ("split: {by: at, every: 1 month}", []),
        ("split: {method: ctid}", []),
        ("split: {by: k}, mode: upsert, keys: [k, d]", []),
        ("split: {by: k}, rename: {k: id}, mode: upsert, keys: [id]", []),
        ("split: {by: k}, mode: replace, checks: {rows: {min: 1}}", []),
        ("split: {executors: 2}", ["nothing says what to cut by; add `by: COLUMN`, or write `method: ctid`"]),
        ("split: {by: k, executors: 0}", ["`executors` must be a whole number of at least 1, got 0"]),
        ("split: {by: hash(k)}", ["'hash(k)' is no column; write `{by: k, method: hash}`"]),
        ("split: {by: ctid}", ["`ctid` is no column, but a method; write `method: ctid` and no `by`"]),
        ("split: {by: k, method: partition}", ["`method: partition` goes by no column; remove `by`"]),
        (
            "split: {by: k, every: 1 fortnight}",
            ["'1 fortnight' is no length of a window; write e.g. 1h, 1d or 1 month"],
        ),
        ("split: {by: k, method: hash, every: 1d}", ["`every` makes ranges of a time, not `method: hash`; remove one"]),
        (
            "split: {method: ctid}, query: select 1",
            ["`method: ctid` cuts a table, not a query; read a `source_table` with `filter`, or split `by` a column"],
        ),
        (
            "split: {by: d}, mode: upsert, keys: [k]",
            [
                "parts by `d` may have rows with the same `keys`, which `mode: upsert` would not notice; "
                "split `by` one of the keys, or write `atomic: true`"
            ],
        ),
        (
            "split: {by: k}, columns: {k: k % 10}, mode: delete_insert, keys: [k]",
            [
                "parts by `k` may have rows with the same `keys`, which `mode: delete_insert` would delete of each other; "
                "split `by` one of the keys, or write `atomic: true`"
            ],
        ),
        (
            "split: {by: k}, incremental: {cursor: k}",
            [
                "parts that were added before the run failed would be added again by the next one, whose cursor is the old "
                "one; write `atomic: true`, or `mode: upsert` with `keys`"
            ],
        ),
        (
            "split: {by: k}, checks: {k: {unique: true}, v: {unique: true}, at: {max_age: 1d}, rows: {min: 1}}",
            [
                f"`rows` is about all rows, {HERE}",
                f"`unique` of 'v' is about all rows, {HERE}",
                f"`max_age` of 'at' is about all rows, {HERE}",
            ],
        ),
        (
            "split: {by: k}, dedupe: {by: at, keys: [v]}",
            [
                "parts by `k` may have rows with the same keys, of which each part would keep one; "
                "split `by` one of the keys of `dedupe`"
            ],
        ),
        ("split: {by: k}, on_failure: continue", ["a load that lacks a part is none; remove `on_failure`"]),
    ],
)
def test_check_tells_what_parts_cannot_do(tmp_path: Path, task: str, told: list[str]) -> None:
    found = [one.rstrip("; ") for one in problems(tmp_path, f"{GOOD}, {task}")]

    assert sorted(found) == sorted(told)


def test_files_have_no_stage(tmp_path: Path) -> None:
    root = "sinks: [{sink: lake, type: files, path: lake}]\nsources: [{source: in, type: files, path: in}]"
    task = "type: sql_etl, source: in, sink: lake, table: t, mode: replace, split: {by: k}"

    assert sorted(problems(tmp_path, task, root)) == [
        "a source of type files cannot be split; remove `split`",
        "files have no stage, which `mode: replace` needs for parts; write `mode: append` without `atomic`, or remove `split`",
    ]


YAML = """
name: shop
pipelines:
  - pipeline: nightly
    tasks:
      - task: orders
        type: sql_etl
        source: 'sqlite:///shop.db'
        source_table: orders
        sink: 'sqlite:///mart.db'
        table: orders
        split: {by: id, executors: 3}
"""


def test_parts_are_slices_and_a_retry_runs_those_that_failed(tmp_path: Path, prefect_api: str) -> None:
    from rainbow_prefect import engine, load

    (tmp_path / "rainbow.yml").write_text(YAML)
    with sqlite3.connect(tmp_path / "shop.db") as db:
        db.executescript(
            "create table orders (id integer, v text); insert into orders values (1, 'a'), (2, 'b'), (3, 'c')"
        )
    db.close()
    with sqlite3.connect(tmp_path / "mart.db") as db:
        db.executescript("create table orders (id integer, v text check (v <> 'b'))")
    db.close()
    plan = load(tmp_path).pipeline("nightly").plan()

    report = engine.run(plan)

    assert [(one.index, one.state) for one in report["orders"].partitions] == [
        (0, "completed"),
        (1, "failed"),
        (2, "completed"),
    ]
    assert "orders[1]" in report["orders"].message
    assert _rows(tmp_path) == [(1, "a"), (3, "c")]
    _mend(tmp_path)

    again = engine.retry(plan, report.flow_run_id)

    assert again.state == "completed"
    assert [one.message for one in again["orders"].partitions] == [
        "completed before; not run again",
        "",
        "completed before; not run again",
    ]
    assert _rows(tmp_path) == [(1, "a"), (2, "b"), (3, "c")]
    assert [one["part"] for one in again["orders"].output] == ["id 1/3", "id 2/3", "id 3/3"]


def _rows(folder: Path) -> list[Any]:
    db = sqlite3.connect(folder / "mart.db")
    try:
        return db.execute("select * from orders order by 1").fetchall()
    finally:
        db.close()


def _mend(folder: Path) -> None:
    """The table takes all values from now on."""
    with sqlite3.connect(folder / "mart.db") as db:
        db.executescript(
            "create table new (id integer, v text); insert into new select * from orders; drop table orders;"
            " alter table new rename to orders"
        )
    db.close()
