"""Moving rows between SQLite files: modes, exactly once, columns that do not fit, cancels and faults that pass."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect.errors import Cancelled, TaskFailed
from rainbow_prefect.sql_etl import ledger
from rainbow_prefect.sql_etl.base import BadValue, Passing, Query, Reader, Refused, Session
from rainbow_prefect.sql_etl.config import Source
from rainbow_prefect.sql_etl.incremental import Incremental
from rainbow_prefect.sql_etl.move import Moved, Order, move
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink, SqlSource
from rainbow_prefect.sql_etl.types import Column, Schema, Type

ORDERS = """
    create table orders (id integer primary key, day date not null, country text, amount real, note text);
    insert into orders values
        (1, '2024-05-01', 'PL', 10.0, null), (2, '2024-05-01', 'DE', 20.5, ''),
        (3, '2024-05-02', 'PL', 5.0, 'a:b %s ''x'' é😀'), (4, '2024-05-01', 'PL', 7.5, 'null');
"""
ALL = [
    (1, "2024-05-01", "PL", 10.0, None),
    (2, "2024-05-01", "DE", 20.5, ""),
    (3, "2024-05-02", "PL", 5.0, "a:b %s 'x' é😀"),
    (4, "2024-05-01", "PL", 7.5, "null"),
]


class Shop:
    """A source and a sink, each a file of SQLite."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = SqlSource(url="sqlite:///source.db")
        self.sink = SqlSink(url="sqlite:///sink.db")
        self.said: list[str] = []
        self.stop = threading.Event()
        self.runs = 0
        self.do("source", ORDERS)

    def do(self, name: str, script: str) -> None:
        with sqlite3.connect(self.folder / f"{name}.db") as db:
            db.executescript(script)
        db.close()

    def rows(self, table: str = "orders") -> list[Any]:
        db = sqlite3.connect(self.folder / "sink.db")
        try:
            return db.execute(f"select * from {table} order by 1").fetchall()
        finally:
            db.close()

    def order(self, sql: str = "select * from orders", **more: Any) -> Order:
        self.runs += 1
        return Order(
            **{"name": "a/p/t", "run_key": f"run-{self.runs}", "query": Query(sql), "table": (None, "orders"), **more}
        )

    def __call__(self, sql: str = "select * from orders", *, source: Source | None = None, **more: Any) -> Moved:
        session = Session(root=self.folder, say=self.said.append, stop=self.stop)
        return move(self.order(sql, **more), source or self.source, self.sink, session)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


# -- modes


def test_rows_arrive_as_they_are_in_columns_of_the_same_types(shop: Shop) -> None:
    moved = shop()

    assert shop.rows() == ALL
    assert moved.as_dict() | {"seconds": 0} == {
        "rows": 4,
        "table": "orders",
        "mode": "append",
        "rows_read": 4,
        "rows_written": 4,
        "rows_inserted": None,
        "rows_updated": None,
        "rows_deleted": None,
        "rows_quarantined": 0,
        "rows_discarded": 0,
        "bytes": 0,
        "seconds": 0,
        "engine": "rows",
        "part": "all",
        "attempt": 1,
        "skipped_as_duplicate": False,
        "ddl": moved.ddl,
        "warnings": [],
    }
    assert moved.ddl == [
        'CREATE TABLE "orders" (\n\t"id" INTEGER, \n\t"day" date, \n\t"country" TEXT, \n\t"amount" REAL, \n\t"note" TEXT\n)'
    ]


def test_append_adds(shop: Shop) -> None:
    shop()
    shop("select * from orders where id = 1")

    assert len(shop.rows()) == 5


def test_replace_leaves_what_came_last(shop: Shop) -> None:
    shop()
    shop("select * from orders where id > 2", mode="replace")

    assert shop.rows() == ALL[2:]


def test_replace_by_nothing_empties(shop: Shop) -> None:
    shop()
    moved = shop("select * from orders where id > 9", mode="replace")

    assert (shop.rows(), moved.counts.written) == ([], 0)


def test_an_empty_result_makes_the_table_with_its_types(shop: Shop) -> None:
    shop("select id, day, amount, note from orders where id > 9", keys=("id",), mode="upsert")

    db = sqlite3.connect(shop.folder / "sink.db")
    assert [row[1:3] for row in db.execute("pragma table_info(orders)")] == [
        ("id", "INTEGER"),
        ("day", "date"),
        ("amount", "REAL"),
        ("note", "TEXT"),
    ]
    db.close()


def test_upsert_writes_what_is_new_or_changed_only(shop: Shop) -> None:
    shop()
    shop.do(
        "source",
        "update orders set amount = 6 where id = 3; insert into orders values (5, '2024-05-03', null, null, null)",
    )

    moved = shop(mode="upsert", keys=("id",))

    assert shop.rows() == [
        *ALL[:2],
        (3, "2024-05-02", "PL", 6.0, ALL[2][4]),
        ALL[3],
        (5, "2024-05-03", None, None, None),
    ]
    assert (moved.counts.inserted, moved.counts.updated, moved.counts.written) == (1, 1, 2)


def test_upsert_of_the_same_writes_nothing(shop: Shop) -> None:
    shop(mode="upsert", keys=("id",))
    moved = shop(mode="upsert", keys=("id",))

    assert (moved.counts.read, moved.counts.written) == (4, 0)


def test_insert_new_leaves_what_is_there(shop: Shop) -> None:
    shop("select * from orders where id < 3", mode="insert_new", keys=("id",))
    shop.do("source", "update orders set amount = 0")

    shop(mode="insert_new", keys=("id",))

    assert [row[3] for row in shop.rows()] == [10.0, 20.5, 0.0, 0.0]


def test_delete_insert_replaces_the_rows_with_the_keys_that_came(shop: Shop) -> None:
    shop()
    shop.do("source", "delete from orders where id = 1; update orders set note = 'new' where day = '2024-05-01'")

    shop("select * from orders where day = '2024-05-01'", mode="delete_insert", keys=("day",))

    assert [(row[0], row[4]) for row in shop.rows()] == [(2, "new"), (3, ALL[2][4]), (4, "new")]


def test_fail_wants_no_table(shop: Shop) -> None:
    shop(mode="fail")

    with pytest.raises(Refused) as caught:
        shop(mode="fail")

    assert caught.value.message == (
        "the table 'orders' exists already and `mode: fail` wants none; choose another mode or table"
    )
    assert shop.rows() == ALL


# -- exactly once


def test_the_same_part_of_the_same_run_is_loaded_once(shop: Shop) -> None:
    first = shop(run_key="r")
    second = shop(run_key="r")

    assert shop.rows() == ALL
    assert (first.skipped, second.skipped, second.counts.written) == (False, True, 0)
    assert shop.said == ["part 'all' of this run is loaded already; nothing to do"]


def test_another_part_of_the_same_run_is_another_load(shop: Shop) -> None:
    shop("select * from orders where id < 3", run_key="r", part="a")
    shop("select * from orders where id > 2", run_key="r", part="b")

    assert shop.rows() == ALL
    assert [row[2:4] for row in shop.rows(ledger.NAME)] == [("a", 1), ("b", 2)]


def test_two_workers_with_the_same_part_load_it_once(shop: Shop) -> None:
    found: list[Any] = []

    def work() -> None:
        found.append(shop(run_key="r"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert shop.rows() == ALL
    assert sorted(one.skipped for one in found) == [False, True, True, True]


# -- what is refused


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("select 1 as a, 2 as a", "the query gives the column 'a' twice; name each column once with AS"),
        ("", "the query is empty; write one SELECT"),
        ("select * from nowhere", "the query is not accepted: no such table: nowhere"),
        ("delete from orders", 'the query is not accepted: near "delete": syntax error'),
        ("select 1; select 2", "the query is not accepted: You can only execute one statement at a time."),
    ],
)
def test_a_query_that_gives_no_rows_is_refused(shop: Shop, sql: str, text: str) -> None:
    with pytest.raises(TaskFailed) as caught:
        shop(sql)

    assert caught.value.message == text
    assert not (shop.folder / "sink.db").exists() or shop.rows("sqlite_master") == []


def test_a_query_may_end_with_a_semicolon_and_hold_what_looks_like_parameters(shop: Shop) -> None:
    shop(
        "-- all: of them\nwith x as (select * from orders where note like '%s%' or note = ':a' or note = '?') select * from x ; "
    )

    assert shop.rows() == [ALL[2]]


def test_all_that_does_not_fit_is_told_at_once(shop: Shop) -> None:
    shop.do("sink", "create table orders (id integer, other text not null, amount real)")

    with pytest.raises(Refused) as caught:
        shop("select id, amount, day, note from orders")

    assert caught.value.message == (
        "the table 'orders' has no column 'day', 'note' (columns: id, other, amount); the table 'orders' needs a value in "
        "'other', which the query does not give; nothing was written: change the query or the table"
    )


def test_columns_go_by_name_and_never_by_position(shop: Shop) -> None:
    shop.do("sink", "create table orders (amount real, id integer)")

    shop("select id, amount from orders where id = 1")

    assert shop.rows() == [(10.0, 1)]


def test_keys_that_the_query_does_not_give_are_told(shop: Shop) -> None:
    with pytest.raises(Refused) as caught:
        shop(mode="upsert", keys=("id", "nr"))

    assert (
        caught.value.message
        == "`keys` names 'nr', which the query does not give (columns: id, day, country, amount, note)"
    )


def test_keys_that_occur_twice_are_told_and_nothing_is_written(shop: Shop) -> None:
    shop("select * from orders where id = 2")

    with pytest.raises(BadValue) as caught:
        shop(mode="upsert", keys=("day",))

    assert caught.value.message == (
        "1 keys (day) occur more than once, e.g. 2024-05-01; make them unique in the query; nothing was written"
    )
    assert shop.rows() == [ALL[1]]


def test_keys_without_a_value_are_told(shop: Shop) -> None:
    with pytest.raises(BadValue) as caught:
        shop(mode="upsert", keys=("note",))

    assert caught.value.message == (
        "1 rows have no value in a key (note); filter them in the query; nothing was written"
    )


def test_a_row_that_the_table_refuses_leaves_it_as_it_was(shop: Shop) -> None:
    shop.do("sink", "create table orders (id integer primary key, amount real check (amount < 20))")

    with pytest.raises(BadValue) as caught:
        shop("select id, amount from orders")

    assert caught.value.message.startswith("the table 'orders' refuses rows 1 to 4: CHECK constraint failed")
    assert shop.rows("sqlite_master where type = 'table'") != []
    assert shop.rows() == []
    assert shop.rows(f"sqlite_master where name = '{ledger.NAME}'") == []


# -- types


def test_values_that_are_not_of_the_declared_type_are_told(shop: Shop) -> None:
    shop.do("source", "create table odd (n integer, t text); insert into odd values (1, 'a'), ('many', 'b')")

    with pytest.raises(BadValue) as caught:
        shop("select n, t from odd")

    assert caught.value.message == "column 'n', row 2: 'many' is no whole number (INTEGER); cast it in the query"


def test_an_expression_has_the_type_of_its_values(shop: Shop) -> None:
    shop("select count(*) as n, sum(amount) as total, max(country) as c, null as nix, x'00ff' as b from orders")

    db = sqlite3.connect(shop.folder / "sink.db")
    assert [row[2] for row in db.execute("pragma table_info(orders)")] == ["INTEGER", "REAL", "TEXT", "TEXT", "BLOB"]
    assert db.execute("select * from orders").fetchall() == [(4, 43.0, "PL", None, b"\0\xff")]
    db.close()


def test_an_expression_of_several_types_is_told(shop: Shop) -> None:
    with pytest.raises(BadValue) as caught:
        shop("select case when id = 1 then 'one' else id end as x from orders")

    assert caught.value.message == (
        "column 'x' has values of several types (integer, text) and none is declared; cast it in the query: CAST(x AS TEXT) AS x"
    )


def test_names_are_kept_as_they_are(shop: Shop) -> None:
    shop('select id as "select", day as "a b", note as "a""b", country as "a.b", amount as "Ünï" from orders')

    db = sqlite3.connect(shop.folder / "sink.db")
    assert [row[1] for row in db.execute("pragma table_info(orders)")] == ["select", "a b", 'a"b', "a.b", "Ünï"]
    db.close()


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 150_000])
def test_no_row_is_lost_at_the_edges_of_batches(shop: Shop, count: int) -> None:
    moved = shop(
        f"with recursive n(i) as (select 1 union all select i + 1 from n where i < {count}) select i from n limit {count}"
    )

    assert (moved.counts.read, len(shop.rows())) == (count, count)


# -- a source of the test


class Memory(Source):
    """Gives these rows, with faults that the test asks for."""

    type: str = "memory"
    given: Any = ()
    columns: Any = ()
    faults: Any = None

    def open(self, session: Session) -> Reader:
        return MemoryReader(self, session)


class MemoryReader(Reader):
    dialect = "memory"

    def __init__(self, memory: Memory, session: Session) -> None:
        self.memory, self.session = memory, session

    def describe(self, query: Query) -> Schema:
        return Schema(tuple(Column(name, one) for name, one in self.memory.columns))

    def rows(self, query: Query, schema: Schema) -> Any:
        yield [tuple(one) for one in self.memory.given]
        if self.memory.faults:
            self.memory.faults(self.session)


def memory(*rows: tuple[Any, ...], faults: Callable[[Session], None] | None = None, **columns: Type) -> Memory:
    return Memory(given=rows, columns=list(columns.items()), faults=faults)


def test_a_fault_that_passes_is_tried_again(shop: Shop) -> None:
    faults = [Passing("the connection was lost"), Passing("the connection was lost")]

    def fail(_: Session) -> None:
        if faults:
            raise faults.pop()

    moved = shop(source=memory((1,), (2,), a=Type("int", bits=64), faults=fail))

    assert (shop.rows(), moved.attempt) == ([(1,), (2,)], 3)
    assert shop.said == [
        "the connection was lost; trying again in 0.5 s (attempt 2 of 5)",
        "the connection was lost; trying again in 1 s (attempt 3 of 5)",
    ]


def test_a_fault_in_mid_stream_leaves_nothing(shop: Shop) -> None:
    def fail(_: Session) -> None:
        raise BadValue("broken")

    with pytest.raises(BadValue, match="broken"):
        shop(source=memory((1,), a=Type("int", bits=64), faults=fail))

    assert shop.rows("sqlite_master where type = 'table' and name = 'orders'") == []


def test_a_cancel_ends_it_and_leaves_nothing(shop: Shop) -> None:
    def wait(session: Session) -> None:
        shop.stop.set()
        session.stop.wait(60)

    with pytest.raises(Cancelled) as caught:
        shop(source=memory((1,), a=Type("int", bits=64), faults=wait))

    assert caught.value.message == "cancelled; nothing was written"
    assert shop.rows("sqlite_master where type = 'table' and name = 'orders'") == []


def test_a_cancel_interrupts_a_query_that_runs_on(shop: Shop) -> None:
    timer = threading.Timer(1, shop.stop.set)
    timer.start()

    with pytest.raises(Cancelled):
        shop("with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) as c from n")


@pytest.mark.parametrize(
    ("kind", "value", "stored"),
    [
        (Type("decimal", precision=38, scale=10), Decimal("1234567890123456789012345678.0123456789"), None),
        (Type("decimal", precision=10, scale=0), Decimal("1234567890"), 1234567890),
        (Type("decimal"), Decimal("-0.00000000000000000000000000000001"), None),
        (Type("int", bits=64, unsigned=True), 2**64 - 1, str(2**64 - 1)),
        (Type("bool"), True, 1),
        (Type("timestamptz"), "2024-02-29 07:04:56.123456+00:00", "2024-02-29 07:04:56.123456+00:00"),
        (Type("json"), '{"a": 1,  "a":2}', '{"a": 1,  "a":2}'),
        (Type("float", bits=64), float("inf"), float("inf")),
    ],
)
def test_values_of_other_databases_are_kept_exactly(shop: Shop, kind: Type, value: Any, stored: Any) -> None:
    shop(source=memory((value,), a=kind))

    assert shop.rows() == [(f"{value:f}" if isinstance(value, Decimal) and stored is None else stored,)]


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (
            Type("float", bits=64),
            float("nan"),
            "column 'a', row 1: nan (NaN) is no number that SQLite holds; nothing was written",
        ),
        (
            Type("decimal"),
            Decimal("NaN"),
            "column 'a', row 1: Decimal('NaN') is no number that SQLite holds; nothing was written",
        ),
    ],
)
def test_what_sqlite_cannot_hold_is_told(shop: Shop, kind: Type, value: Any, text: str) -> None:
    with pytest.raises(BadValue) as caught:
        shop(source=memory((value,), a=kind))

    assert caught.value.message == text


# -- incremental


def grown(shop: Shop, sql: str = "select id, day, amount from orders", **more: Any) -> Moved:
    wanted = {"cursor": "id", **more.pop("incremental", {})}
    return shop(sql, incremental=Incremental(**wanted), **more)


def test_an_incremental_load_reads_what_is_new(shop: Shop) -> None:
    counts = [grown(shop).counts.read]
    shop.do("source", "insert into orders values (5, '2024-05-03', null, 1, null), (6, '2024-05-03', null, 2, null)")
    counts += [grown(shop).counts.read, grown(shop).counts.read]

    assert counts == [4, 2, 0]
    assert [row[0] for row in shop.rows()] == [1, 2, 3, 4, 5, 6]


def test_the_place_of_the_cursor_may_be_in_the_query(shop: Shop) -> None:
    sql = "select id, amount from orders where id > {{ cursor }} and amount > 6"
    first = grown(shop, sql, incremental={"initial": 1})
    shop.do("source", "insert into orders values (9, '2024-05-03', null, 11, null)")
    second = grown(shop, sql, incremental={"initial": 1})

    assert (first.counts.read, second.counts.read) == (2, 1)
    assert shop.rows() == [(2, 20.5), (4, 7.5), (9, 11.0)]


def test_a_query_with_a_place_for_the_cursor_needs_a_first_one(shop: Shop) -> None:
    with pytest.raises(Refused) as caught:
        grown(shop, "select id from orders where id > {{cursor}}")

    assert caught.value.message == "the query has {{cursor}} and there is none yet; add `initial` to `incremental`"


def test_a_load_that_fails_leaves_the_cursor_where_it_was(shop: Shop) -> None:
    shop.do("sink", "create table orders (id integer, day date, amount real check (amount < 20))")

    with pytest.raises(BadValue):
        grown(shop)
    shop.do("source", "update orders set amount = 1")

    assert grown(shop).counts.read == 4


def test_rows_that_come_late_are_read_with_a_lag(shop: Shop) -> None:
    shop.do("source", "create table events (at text, n integer); insert into events values ('2024-05-01 12:00:00', 1)")
    load = {
        "sql": "select at, n from events",
        "mode": "upsert",
        "keys": ("n",),
        "incremental": {"cursor": "at", "lag": 3600.0},
    }
    grown(shop, **load)
    shop.do("source", "insert into events values ('2024-05-01 11:30:00', 2), ('2024-05-01 10:30:00', 3)")

    moved = grown(shop, **load)

    assert (moved.counts.read, moved.counts.written) == (2, 1)
    assert [row[1] for row in shop.rows()] == [2, 1]


@pytest.mark.parametrize(("nulls", "counts"), [("exclude", [3, 0]), ("include", [4, 1])])
def test_rows_without_a_cursor(shop: Shop, nulls: Any, counts: list[int]) -> None:
    shop.do("source", "update orders set amount = null where id = 3")
    load = {"mode": "upsert", "keys": ("id",), "incremental": {"cursor": "amount", "nulls": nulls}}

    assert [grown(shop, **load).counts.read for _ in range(2)] == counts


def test_rows_without_a_cursor_are_told(shop: Shop) -> None:
    shop.do("source", "update orders set amount = null where id = 3")

    with pytest.raises(Refused) as caught:
        grown(shop, incremental={"cursor": "amount"})

    assert caught.value.message == (
        "1 rows have no value in the cursor 'amount', and would never be read; say what to do with them: "
        "`null_cursor: include` or `exclude`"
    )


def test_a_cursor_that_is_no_column_is_told(shop: Shop) -> None:
    with pytest.raises(Refused) as caught:
        grown(shop, incremental={"cursor": "at"})

    assert caught.value.message == "`cursor` names 'at', which the query does not give (columns: id, day, amount)"


def test_two_runs_at_once_read_a_row_once(shop: Shop) -> None:
    shop.do("sink", "pragma journal_mode = wal")
    threads = [threading.Thread(target=grown, args=(shop,)) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert [row[0] for row in shop.rows()] == [1, 2, 3, 4]


def test_an_expression_fits_a_table_by_its_values(shop: Shop) -> None:
    sql = "select id, amount * 2 as twice from orders where id > {} order by id"
    shop(sql.format(0))
    shop.do("source", "update orders set amount = 3")
    for first in (2, 9):
        shop(sql.format(first))
        shop(sql.format(first).replace("amount * 2", "6"))

    assert [row[1] for row in shop.rows()] == [20.0, 41.0, 10.0, 6.0, 6.0, 15.0, 6.0, 6.0]


def test_a_stream_that_ends_early_is_not_committed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rainbow_prefect.sql_etl.move._PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(MemoryReader, "count", 3)

    with pytest.raises(Passing) as caught:
        shop(source=memory((1,), (2,), a=Type("int", bits=64)))

    assert caught.value.message == "the source gave 3 rows and 2 came to the sink"
    assert shop.rows("sqlite_master where type = 'table' and name = 'orders'") == []


# -- one database


def test_a_file_may_be_source_and_sink(shop: Shop) -> None:
    shop.sink = SqlSink(url=f"sqlite:///{shop.folder}/source.db", lock_timeout_seconds=2)
    many = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 200000) select i, 'text of ' || i as t from n"

    shop(many, table=(None, "many"))
    moved = shop("select i, t from many where i > 100000", table=(None, "half"), mode="upsert", keys=("i",))

    assert moved.counts.written == 100_000
    assert shop.said == []


@pytest.mark.parametrize(
    "query",
    [{"sql": "select * from orders where id > 1"}, {"sql": 'select o.* from "orders" o'}, {"table": (None, "orders")}],
)
def test_a_table_is_not_replaced_by_what_is_read_of_it(shop: Shop, query: dict[str, Any]) -> None:
    shop.sink = SqlSink(url="sqlite:///source.db")

    with pytest.raises(Refused) as caught:
        shop(query=Query(**query), mode="replace")

    assert caught.value.message == (
        "the query reads the table 'orders' that it replaces; write into another table, or use `mode: upsert`"
    )


def test_a_file_of_duckdb_may_be_source_and_sink(shop: Shop) -> None:
    url = f"duckdb:///{shop.folder}/x.duckdb"
    shop.sink = SqlSink(url=url)
    source = SqlSource(url=url)
    given = memory(*((n, f"text of {n}") for n in range(50_000)), i=Type("int", bits=64), t=Type("text"))
    shop(source=given, table=(None, "many"))

    moved = shop(
        "select i, t from many where i >= 25000", source=source, table=(None, "half"), mode="upsert", keys=("i",)
    )
    again = shop("select i, upper(t) as t from half", source=source, table=(None, "half"), mode="upsert", keys=("i",))

    assert moved.counts.written == 25_000
    assert again.counts.updated == 25_000
    assert shop.said == []
