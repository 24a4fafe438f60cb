"""Incremental loads that begin anew, or read a span of their cursor again."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect.sql_etl.base import Query, Refused, Session
from rainbow_prefect.sql_etl.incremental import Incremental, Span
from rainbow_prefect.sql_etl.move import Moved, Order, move
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink, SqlSource
from tests.commands.conftest import call
from tests.commands.sql import Shop
from tests.conftest import Done

__all__ = ["call"]

Load = Callable[..., Moved]

EVENTS = """
    create table events (id integer primary key, at {time}, n integer);
    insert into events values (1, '2024-05-01 10:00:00', 1), (2, '2024-05-02 10:00:00', 2),
                              (3, '2024-05-03 00:00:00', 3), (4, '2024-05-04 10:00:00', 4);
"""
KEYED = {"mode": "upsert", "keys": ("id",)}


def do(url: str, folder: Path, script: str) -> None:
    """Run statements in any database."""
    from rainbow_prefect.sql_etl.statements import run_statements

    statements = [one for one in script.split(";") if one.strip()]
    run_statements(statements, SqlSource(url=url), Session(root=folder), writes=True, gives=False)


def rows(url: str, folder: Path, sql: str) -> list[tuple[Any, ...]]:
    writer = SqlSink(url=url).open(Session(root=folder))
    try:
        return [tuple(one) for one in writer.query(sql)]
    finally:
        writer.close()


class Events:
    """A database with events, and another table of it into which they are loaded by their time."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder, self.runs = url, folder, 0

    def do(self, script: str) -> None:
        do(self.url, self.folder, script)

    @property
    def loaded(self) -> list[tuple[Any, ...]]:
        return rows(self.url, self.folder, "select id, n from loaded order by id")

    def __call__(self, sql: str = "select * from events", **more: Any) -> Moved:
        self.runs += 1
        order = Order(
            **{
                "name": "a/p/t",
                "run_key": f"run-{self.runs}",
                "query": Query(sql),
                "table": (None, "loaded"),
                "incremental": Incremental("at"),
                **more,
            }
        )
        return move(order, SqlSource(url=self.url), SqlSink(url=self.url), Session(root=self.folder))


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def events(request: pytest.FixtureRequest, tmp_path: Path) -> Events:
    url = f"sqlite:///{tmp_path}/e.db" if request.param == "sqlite" else request.getfixturevalue(request.param)
    made = Events(url, tmp_path)
    made.do(EVENTS.format(time={"postgres": "timestamptz", "mariadb": "datetime"}.get(request.param, "timestamp")))
    return made


@pytest.mark.parametrize("engine", ["auto", "rows"])
def test_a_span_is_read_again_and_the_next_load_goes_on_where_it_would(events: Events, engine: Any) -> None:
    events(**KEYED, engine=engine)
    events.do("update events set n = n * 10; insert into events values (5, '2024-05-05 10:00:00', 5)")

    again = [
        events(**KEYED, engine=engine, span=Span("2024-05-02", "2024-05-03")).counts.read,
        events(**KEYED, engine=engine, span=Span("2024-05-02", "2024-05-03")).counts.written,
    ]
    seen = events.loaded
    after = events(**KEYED, engine=engine)

    assert again == [1, 0]
    assert seen == [(1, 1), (2, 20), (3, 3), (4, 4)]
    assert after.counts.read == 1
    assert events.loaded == [(1, 1), (2, 20), (3, 3), (4, 4), (5, 5)]


def test_a_span_may_be_open_at_either_end(events: Events) -> None:
    events(**KEYED)

    assert events(**KEYED, span=Span(low="2024-05-03")).counts.read == 2
    assert events(**KEYED, span=Span(high="2024-05-03")).counts.read == 2


def test_a_load_that_begins_anew_has_what_the_source_has_now(events: Events) -> None:
    events()
    events.do("delete from events where id = 4; update events set n = 0 where id = 1")

    moved = events(mode="replace", full_refresh=True)
    events.do("insert into events values (6, '2024-05-03 12:00:00', 6)")
    after = events()

    assert (moved.counts.read, after.counts.read) == (3, 1)
    assert events.loaded == [(1, 0), (2, 2), (3, 3), (6, 6)]


def test_a_load_that_begins_anew_and_finds_nothing_forgets_where_it_was(events: Events) -> None:
    events()
    events.do("delete from events")

    events(mode="replace", full_refresh=True)
    events.do("insert into events values (7, '2020-01-01 00:00:00', 7)")
    events()

    assert events.loaded == [(7, 7)]


def test_the_start_of_a_span_goes_to_the_place_in_the_query(events: Events) -> None:
    sql = "select * from events where at >= {{cursor}} and n < 4"
    first = Incremental("at", initial="2020-01-01")

    moved = events(sql, **KEYED, incremental=first, span=Span("2024-05-02 10:00:00"))

    assert moved.counts.read == 2


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (Span("yesterday"), "`--from yesterday` is no value of the cursor, which is "),
        (Span("2024-05-02", "2024-05-01"), "`--from 2024-05-02` is not before `--to 2024-05-01`; the second is the "),
    ],
)
def test_a_span_that_is_none_is_refused(events: Events, span: Span, text: str) -> None:
    with pytest.raises(Refused) as caught:
        events(**KEYED, span=span)

    assert caught.value.message.startswith(text)


# -- a run


def loaded(shop: Shop) -> list[Any]:
    return shop.rows("select id, amount from orders order by id")


def test_a_run_begins_anew_or_reads_again_and_says_so_in_its_parameters(
    tmp_path: Path, call: Callable[..., Done]
) -> None:
    shop = Shop(tmp_path)
    shop.write("select id, amount from orders", mode="upsert", keys="[id]", incremental="{cursor: id}")
    call("run")
    shop.do("shop", "update orders set amount = 0; delete from orders where id = 4")

    call("run", "--from", "2", "--to", "3")
    again = loaded(shop)
    call("run", "--full-refresh")

    assert again == [(1, 10.0), (2, 0.0), (3, 5.0), (4, 7.5)]
    assert loaded(shop) == [(1, 0.0), (2, 0.0), (3, 0.0)]
    seen = call("explain", "--json", "--param", "load_from=2").json
    assert seen["source"]["where"] == ['"id" >= 2']


@pytest.mark.parametrize(
    ("keys", "words", "text"),
    [
        (
            {"mode": "append"},
            ["--full-refresh"],
            "--full-refresh: no task of pipeline 'nightly' has `incremental`",
        ),
        (
            {"mode": "append", "incremental": "{cursor: id}"},
            ["--full-refresh", "--to", "2"],
            "--full-refresh reads all again, and --from and --to a part of it; give one of the two",
        ),
    ],
)
def test_options_that_say_nothing_are_refused(
    tmp_path: Path, call: Callable[..., Done], keys: dict[str, str], words: list[str], text: str
) -> None:
    shop = Shop(tmp_path)
    shop.write("select id, amount from orders", **keys)

    assert call("run", *words, code=2).err == f"Error: {text}\n"


def test_a_span_into_a_table_that_only_grows_is_refused(tmp_path: Path, call: Callable[..., Done]) -> None:
    shop = Shop(tmp_path)
    shop.write("select id, amount from orders", incremental="{cursor: id}")

    done = call("explain", "--param", "load_from=2", code=2)

    assert done.err.endswith(
        "rows that are read again would be doubled by `mode: append`; write `mode: upsert` and `keys`, or load all of it "
        "anew with `--full-refresh`\n"
    )


# -- what a cursor promises (case 24)


def test_rows_with_the_cursor_of_the_bound_are_read_once(events: Events) -> None:
    events.do("insert into events values (5, '2024-05-04 10:00:00', 5)")

    first = events()
    events.do("insert into events values (6, '2024-05-04 10:00:01', 6)")
    second = events()

    assert (first.counts.read, second.counts.read) == (5, 1)
    assert [row[0] for row in events.loaded] == [1, 2, 3, 4, 5, 6]


def test_rows_that_come_while_a_load_reads_are_for_the_next_one(
    events: Events, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is fixed before the first row is read, whatever the source gets meanwhile."""
    from rainbow_prefect.sql_etl import move as moving

    if events.url.startswith("sqlite"):  # else nobody writes into the file while it is read
        with contextlib.closing(sqlite3.connect(tmp_path / "e.db")) as db:
            db.execute("pragma journal_mode = wal")
    real = moving.bounded
    late = ["insert into events values (8, '2024-05-08 10:00:00', 8)"]

    def slow(*given: Any) -> Any:
        found = real(*given)
        if late:
            events.do(late.pop())
        return found

    monkeypatch.setattr(moving, "bounded", slow)

    counts = [events().counts.read, events().counts.read, events().counts.read]

    assert counts == [4, 1, 0]
    assert [row[0] for row in events.loaded] == [1, 2, 3, 4, 8]


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/New_York"])
def test_a_naive_cursor_is_of_no_zone(
    postgres: str, tmp_path: Path, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither that of the server nor that of the worker moves the bound."""
    import time

    name = postgres.rpartition("/")[2]
    do(postgres, tmp_path, f"alter database {name} set timezone = '{zone}'")
    monkeypatch.setenv("TZ", "Pacific/Apia")
    time.tzset()
    try:
        events = Events(postgres, tmp_path)
        events.do(EVENTS.format(time="timestamp"))
        counts = [events().counts.read]
        events.do("insert into events values (5, '2024-05-04 10:00:00.000001', 5)")
        counts.append(events().counts.read)
    finally:
        monkeypatch.undo()
        time.tzset()

    assert counts == [4, 1]
