"""Checks of rows that go into files: asked before the manifest names them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from rainbow_prefect.sql_etl.base import BadValue, Query, Refused, Session
from rainbow_prefect.sql_etl.checks import AnyChecks
from rainbow_prefect.sql_etl.files import FilesSink, FilesSource
from rainbow_prefect.sql_etl.move import Moved, Order, move
from rainbow_prefect.sql_etl.quality import Quality
from rainbow_prefect.sql_etl.sqlalchemy import SqlSource

Load = Callable[..., Moved]
SINKS = [
    {"format": "parquet"},
    {"format": "csv"},
    {"format": "jsonl"},
    {"format": "parquet", "partition_by": ["day"]},
]


def checks(**more: Any) -> Any:
    return TypeAdapter(AnyChecks).validate_python(more)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    db = sqlite3.connect(tmp_path / "s.db")
    db.execute("create table orders (id integer, day date, country text, amount decimal(10, 2))")
    rows = [(1, "2024-05-01", "PL", 10), (2, "2024-05-01", "DE", 20.5), (3, "2024-05-02", None, 5)]
    db.executemany("insert into orders values (?, ?, ?, ?)", rows)
    db.commit()
    db.close()
    runs = iter(range(100))

    def made(asked: Any, *, mode: Any = "replace", sink: Any = None, where: str = "1 = 1", **more: Any) -> Moved:
        order = Order(
            "a/p/t",
            f"run-{next(runs)}",
            Query(f"select * from orders where {where}"),
            (None, "t"),
            mode,
            quality=Quality(checks=checks(**asked), **more),
        )
        target = FilesSink(path="lake", **(sink or SINKS[0]))
        return move(order, SqlSource(url="sqlite:///s.db"), target, Session(root=tmp_path))

    return made


def stored(folder: Path, sink: Any) -> int:
    reader = FilesSink(path="lake", **sink).as_source().open(Session(root=folder))
    assert isinstance(FilesSource(path="lake"), FilesSource)
    try:
        query = Query(table=(None, "t"))
        return sum(map(len, reader.rows(query, reader.describe(query))))
    finally:
        reader.close()


@pytest.mark.parametrize("sink", SINKS, ids=["parquet", "csv", "jsonl", "partitions"])
def test_what_does_not_hold_publishes_no_file(load: Load, tmp_path: Path, sink: Any) -> None:
    good = {
        "id": {"unique": True, "not_null": True, "ge": 1},
        "country": {"in": ["PL", "DE"], "regex": "^[A-Z]+$"},
        "rows": {"min": 3},
        "sql": "select * from {staged} where amount > 100",
    }
    moved = load(good, sink=sink)
    before = sorted(one.name for one in (tmp_path / "lake").rglob("*") if one.is_file())

    with pytest.raises(BadValue) as caught:
        load(
            {"country": {"not_null": True}, "amount": {"lt": 20}, "sql": "select id from {staged} where id = 3"},
            sink=sink,
        )

    assert moved.counts.written == 3
    assert str(caught.value) == (
        "the rows for the table 't' do not hold: column 'country' has no value in 1 row; column 'amount' is not less than 20 "
        "in 1 row, e.g. 20.50; `select id from {staged} where id = 3` gave 1 row, e.g. (3); nothing was written"
    )
    assert sorted(one.name for one in (tmp_path / "lake").rglob("*") if one.is_file()) == before
    assert stored(tmp_path, sink) == 3


def test_a_warning_lets_the_files_be(load: Load, tmp_path: Path) -> None:
    moved = load({"country": {"not_null": True, "on_fail": "warn"}})

    assert moved.warnings == ["column 'country' has no value in 1 row"]
    assert stored(tmp_path, SINKS[0]) == 3


def test_the_number_of_rows_is_compared_with_the_last_loads(load: Load) -> None:
    asked = {"rows": {"drift": 0.5}}
    load(asked, mode="append")
    load(asked, mode="append")

    with pytest.raises(BadValue) as caught:
        load(asked, mode="append", where="id = 1")

    assert "1 row came, 3 in the mean of the last 2 loads" in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "more", "text"),
    [
        (
            {"id": {"foreign_key": {"table": "o", "column": "id"}}},
            {},
            "`checks: id: foreign_key` needs a sink that is a ",
        ),
        (
            {"id": {"unique": True}},
            {"mode": "append"},
            "`checks: id: unique` with `mode: append` would have to read all ",
        ),
        ({"id": {"ge": 2, "on_fail": "quarantine"}}, {}, "rows are put aside by a database only, not by files"),
        (
            {"id": {"max_age": "1d"}},
            {"on_bad_row": "quarantine"},
            "rows are put aside by a database only, not by files",
        ),
    ],
)
def test_what_files_cannot_be_asked_is_refused(load: Load, asked: Any, more: Any, text: str) -> None:
    load({})

    with pytest.raises(Refused) as caught:
        load(asked, **more)

    assert str(caught.value).startswith(text)
