"""Statements without a sink: all or none, read only unless they may write, rows as JSON data; in each database."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect.errors import Cancelled, TaskFailed
from rainbow_prefect.sql_etl.base import Passing, Refused, Session
from rainbow_prefect.sql_etl.sqlalchemy import SqlSource
from rainbow_prefect.sql_etl.statements import Done, run_statements

Run = Callable[..., Done]


@pytest.fixture(params=["sqlite", "duckdb", "postgres", "mariadb"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Run]:
    files = {"sqlite": f"sqlite:///{tmp_path}/a.db", "duckdb": f"duckdb:///{tmp_path}/a.duckdb"}
    url = files.get(request.param) or request.getfixturevalue(request.param)

    def made(*statements: str, writes: bool = False, gives: bool = False, stop: threading.Event | None = None) -> Done:
        session = Session(root=tmp_path, stop=stop or threading.Event())
        return run_statements(statements, SqlSource(url=url), session, writes=writes, gives=gives)

    made("create table t (a integer, b varchar(9))", writes=True)
    yield made


def told(call: Callable[[], Any]) -> str:
    with pytest.raises(TaskFailed) as caught:
        call()
    return caught.value.message


def test_all_are_run_and_the_rows_of_the_last_one_given(run: Run) -> None:
    done = run(
        "insert into t values (1, '100%'), (2, ':x {y}');",
        "select a, b, 1.5 as c from t order by a",
        writes=True,
        gives=True,
    )

    assert done.rows is not None
    assert [(one["a"], one["b"], float(one["c"])) for one in done.rows] == [(1, "100%", 1.5), (2, ":x {y}", 1.5)]
    assert done.statements == 2
    assert run("select count(*) as n from t", gives=True).rows == [{"n": 2}]


def test_one_that_fails_takes_back_those_before(run: Run) -> None:
    text = told(lambda: run("insert into t values (1, 'x')", "insert into nowhere values (1)", writes=True))

    assert text.startswith("statement 2 of 2: ")
    assert "nowhere" in text
    assert run("select * from t", gives=True).rows == []


def test_nothing_is_changed_without_leave(run: Run) -> None:
    text = told(lambda: run("insert into t values (1, 'x')"))

    assert text.endswith("; to let it change the database write `writes: true`")
    assert run("select * from t", gives=True).rows == []


def test_rows_are_json_data(run: Run) -> None:
    rows = run(
        "select cast('2024-02-29' as date) as d, null as n, cast(a as decimal(10,2)) as m from t", gives=True
    ).rows

    assert rows == []


def test_too_many_rows_are_refused(run: Run) -> None:
    digits = "(select 0 as d union all select 1 union all select 2 union all select 3 union all select 4)"
    cross = " cross join ".join(f"{digits} as d{number}" for number in range(7))

    text = told(
        lambda: run(f"select d0.d as a, 'a text that is not short at all, for a row' as b from {cross}", gives=True)
    )

    assert "the rows are more than 1 MiB as JSON" in text
    assert text.endswith("write them to a table: add `sink` and `table`")


def test_a_last_statement_without_rows_is_told(tmp_path: Path) -> None:
    source = SqlSource(url="sqlite:///new.db")
    (tmp_path / "new.db").touch()

    text = told(lambda: run_statements(["create table u (a)"], source, Session(root=tmp_path), writes=True, gives=True))

    assert text == "the last statement gives no rows, which `output: rows` wants; make it a SELECT"


def test_a_cancel_ends_what_the_server_does(run: Run, request: pytest.FixtureRequest) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    endless = (
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 2000000000) select count(*) from n"
    )
    is_mariadb = request.node.callspec.params["run"] == "mariadb"  # which ends a recursion by itself
    begun = time.monotonic()

    with pytest.raises(Cancelled):
        run("select sleep(60)" if is_mariadb else endless, stop=stop)

    assert time.monotonic() - begun < 30


def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    source = SqlSource(url="sqlite:///no.db")

    with pytest.raises((Refused, Passing)):
        run_statements(["select 1"], source, Session(root=tmp_path), writes=False, gives=True)
