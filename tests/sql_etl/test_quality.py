"""What a task asks of its rows and its table: contract, checks, bad rows put aside, transforms; between files of SQLite."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from rainbow_prefect.sql_etl import contract
from rainbow_prefect.sql_etl.base import BadValue, Query, Refused, Session
from rainbow_prefect.sql_etl.checks import AnyChecks
from rainbow_prefect.sql_etl.contract import Contract
from rainbow_prefect.sql_etl.move import Moved, Order, move
from rainbow_prefect.sql_etl.quality import Quality
from rainbow_prefect.sql_etl.shape import Dedupe, Shape
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink, SqlSource
from rainbow_prefect.sql_etl.types import Type, fit

ORDERS = """
    create table orders (id integer, day date, country text, amount decimal(10,2), email text, at datetime);
    insert into orders values
        (1, '2024-05-01', 'PL', 10.5, 'a@x', '2024-05-01 10:00:00'), (2, '2024-05-01', 'DE', 20, 'b@x', null),
        (3, '2024-05-02', 'PL', 5, null, '2024-05-02 10:00:00'), (3, '2024-05-03', 'FR', 9, 'c', '2024-05-03 10:00:00');
"""
ALL = "select id, country, amount from orders"


def checks(**more: Any) -> Any:
    return TypeAdapter(AnyChecks).validate_python(more)


class Shop:
    """A source and a sink, each a file of SQLite."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.runs = 0
        self.do("source", ORDERS)

    def do(self, name: str, script: str) -> None:
        with sqlite3.connect(self.folder / f"{name}.db") as db:
            db.executescript(script)
        db.close()

    def rows(self, sql: str = "select * from t order by 1", name: str = "sink") -> list[Any]:
        db = sqlite3.connect(self.folder / f"{name}.db")
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()

    def tables(self) -> list[str]:
        return [one for (one,) in self.rows("select name from sqlite_master where type = 'table' order by 1")]

    def __call__(self, sql: str = ALL, *, of: dict[str, Any] | None = None, **more: Any) -> Moved:
        self.runs += 1
        order = Order(
            **{"name": "a/p/t", "run_key": f"run-{self.runs}", "query": Query(sql), "table": (None, "t"), **(of or {})},
            quality=Quality(**more),
        )
        session = Session(root=self.folder, say=self.said.append)
        return move(order, SqlSource(url="sqlite:///source.db"), SqlSink(url="sqlite:///sink.db"), session)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def refused(call: Callable[[], Any], kind: type[Exception] = BadValue) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return str(caught.value)


# -- contract


def test_a_new_column_ends_the_load_unless_it_may_be_added(shop: Shop) -> None:
    shop("select id from orders where id < 3")

    told = refused(lambda: shop("select id, country from orders where id = 3"), Refused)

    assert told == (
        "the table 't' has no column 'country' (columns: id); nothing was written: change the query or the table"
    )
    assert shop.rows() == [(1,), (2,)]


def test_evolve_adds_a_column_and_says_so(shop: Shop) -> None:
    shop("select id from orders where id < 3")

    moved = shop("select id, country from orders where id = 3", contract=Contract(columns="evolve"))

    assert shop.rows() == [(1, None), (2, None), (3, "PL"), (3, "FR")]
    assert moved.ddl == ['ALTER TABLE "t" ADD "country" TEXT']


def test_an_added_column_is_gone_again_when_the_load_fails(shop: Shop) -> None:
    shop("select id from orders where id < 3")

    refused(lambda: shop(contract=Contract(columns="evolve"), checks=checks(rows={"min": 9})))

    assert shop.rows() == [(1,), (2,)]


def test_discard_column_leaves_out_what_the_table_has_not(shop: Shop) -> None:
    shop("select id, country from orders where id = 1")

    moved = shop(
        "select amount, country, id, day from orders where id = 2", contract=Contract(columns="discard_column")
    )

    assert shop.rows() == [(1, "PL"), (2, "DE")]
    assert moved.warnings == ["left out, since the table has no such column: amount, day"]


def test_keys_cannot_be_left_out(shop: Shop) -> None:
    shop("select country from orders where id = 1")

    told = refused(
        lambda: shop(of={"mode": "upsert", "keys": ("id",)}, contract=Contract(columns="discard_column")), Refused
    )

    assert told == "the table 't' does not have the keys id, which cannot be left out; change the query or the table"


def test_freeze_of_tables_makes_none(shop: Shop) -> None:
    told = refused(lambda: shop("select id from orders", contract=Contract(tables="freeze")), Refused)

    assert told == (
        "the table 't' does not exist, and `contract: {tables: freeze}` makes none; "
        'create it: CREATE TABLE "t" ( "id" INTEGER )'
    )
    assert "t" not in shop.tables()


@pytest.mark.parametrize(
    ("one", "other", "wide"),
    [
        (Type("int", bits=32), Type("int", bits=64), Type("int", bits=64)),
        (Type("int", bits=32, unsigned=True), Type("int", bits=32), Type("int", bits=64)),
        (Type("int", bits=64, unsigned=True), Type("int", bits=64), Type("decimal", precision=20, scale=0)),
        (Type("decimal", precision=10, scale=2), Type("decimal", precision=8, scale=4), Type("decimal", precision=12, scale=4)),
        (Type("decimal", precision=4, scale=2), Type("int", bits=32), Type("decimal", precision=12, scale=2)),
        (Type("text", length=3), Type("text", length=9), Type("text", length=9)),
        (Type("text", length=3), Type("text"), Type("text")),
        (Type("enum", labels=("ab", "c")), Type("text", length=1), Type("text", length=2)),
        (Type("float", bits=32), Type("float", bits=64), Type("float", bits=64)),
        (Type("date"), Type("int", bits=32), None),
        (Type("timestamp"), Type("timestamptz"), None),
    ],
)  # fmt: skip
def test_the_wider_type_holds_both(one: Type, other: Type, wide: Type | None) -> None:
    assert contract.wider(one, other) == contract.wider(other, one) == wide
    assert wide is None or (fit(one, wide) and fit(other, wide))


# -- checks


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"email": {"not_null": True}}, "column 'email' has no value in 1 row"),
        ({"id": {"unique": True}}, "column 'id' comes more than once in 2 rows, e.g. 3, 3"),
        ({"amount": {"ge": 9.5}}, "column 'amount' is less than 9.5 in 2 rows, e.g. 5, 9"),
        ({"amount": {"gt": 9}}, "column 'amount' is not more than 9 in 2 rows, e.g. 5, 9"),
        ({"amount": {"le": 10}}, "column 'amount' is more than 10 in 2 rows, e.g. 10.5, 20"),
        ({"day": {"lt": "2024-05-03"}}, "column 'day' is not less than 2024-05-03 in 1 row, e.g. 2024-05-03"),
        ({"country": {"in": ["PL", "DE"]}}, "column 'country' is none of PL, DE in 1 row, e.g. FR"),
        ({"email": {"regex": "^.+@"}}, "column 'email' does not match ^.+@ in 1 row, e.g. c"),
        ({"rows": {"min": 5}}, "4 rows came, at least 5 must (`rows: {min: 5}`)"),
        ({"rows": {"max": 3}}, "4 rows came, at most 3 may (`rows: {max: 3}`)"),
        (
            {"sql": "select country, count(*) from {staged} group by 1 having count(*) > 1;"},
            "`select country, count(*) from {staged} group by 1 having count(*) > 1;` gave 1 row, e.g. (PL, 2)",
        ),
        (
            {"id": [{"gt": 2}, {"le": 2}], "rows": {"min": 9}},
            "4 rows came, at least 9 must (`rows: {min: 9}`); column 'id' is not more than 2 in 2 rows, e.g. 1, 2; "
            "column 'id' is more than 2 in 2 rows, e.g. 3, 3",
        ),
    ],
)
@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_check_that_does_not_hold_leaves_the_sink_as_it_was(
    shop: Shop, asked: dict[str, Any], told: str, mode: str
) -> None:
    shop.do("sink", f"attach '{shop.folder}/source.db' as s; create table t as select * from s.orders where id = 1")
    shop.do("sink", "update t set id = 9, email = null, country = 'XX', amount = -1, day = '2030-01-01'")
    before = shop.rows()

    found = refused(lambda: shop("select * from orders order by amount + 0", of={"mode": mode}, checks=checks(**asked)))

    assert found == f"the rows for the table 't' do not hold: {told}; nothing was written"
    assert shop.rows() == before


def test_checks_that_hold_let_the_rows_pass(shop: Shop) -> None:
    asked = checks(
        id={"not_null": True, "ge": 1, "le": 3},
        email={"regex": "."},
        country={"in": ["PL", "DE", "FR"]},
        rows={"min": 4, "max": 4, "drift": "10%"},
        sql=["select 1 from {staged} where id > 3"],
    )

    for _ in range(2):
        shop("select * from orders", checks=asked)

    assert len(shop.rows()) == 8
    assert shop.said == []


def test_a_warning_is_told_and_the_rows_are_written(shop: Shop) -> None:
    moved = shop(checks=checks(id={"unique": True, "on_fail": "warn"}))

    assert len(shop.rows()) == 4
    assert moved.warnings == ["column 'id' comes more than once in 2 rows, e.g. 3, 3"]
    assert shop.said == ["warning: column 'id' comes more than once in 2 rows, e.g. 3, 3"]
    assert moved.as_dict()["warnings"] == moved.warnings


def test_unique_looks_at_the_table_too_when_rows_are_added(shop: Shop) -> None:
    asked = checks(id={"unique": True})
    shop("select id from orders where id < 3", checks=asked)

    told = refused(lambda: shop("select id from orders where id = 2", checks=asked))

    assert told == (
        "the rows for the table 't' do not hold: column 'id' is in the table already in 1 row, e.g. 2; nothing was written"
    )


def test_a_foreign_key_looks_into_another_table(shop: Shop) -> None:
    shop.do("sink", "create table lands (code text); insert into lands values ('PL'), ('DE')")
    asked = checks(country={"foreign_key": {"table": "lands", "column": "code"}})

    shop("select * from orders where id < 3", checks=asked)
    told = refused(lambda: shop("select * from orders", checks=asked))

    assert "column 'country' is not in lands.code in 1 row, e.g. FR" in told
    assert len(shop.rows()) == 2


def test_old_rows_are_told(shop: Shop) -> None:
    asked = checks(at={"max_age": "1d"})

    told = refused(lambda: shop("select * from orders", checks=asked))
    shop("select id, datetime('now') as at from orders", checks=asked)

    assert "the latest 'at' is 2024-05-03 10:00:00, " in told
    assert told.endswith(" d ago, more than 1 d; nothing was written")


def test_the_number_of_rows_is_held_against_the_loads_before(shop: Shop) -> None:
    asked = checks(rows={"drift": 0.5})
    for _ in range(3):
        shop(checks=asked, of={"mode": "replace"})

    told = refused(lambda: shop(f"{ALL} where id = 1", checks=asked, of={"mode": "replace"}))

    assert told == (
        "the rows for the table 't' do not hold: 1 row came, 4 in the mean of the last 3 loads, more than 50% away "
        "(`rows: {drift: 50%}`); nothing was written"
    )
    assert len(shop.rows()) == 4


def test_checks_of_an_upsert_see_what_came_only(shop: Shop) -> None:
    shop("select 9 as id, -1 as amount", of={"mode": "upsert", "keys": ("id",)})

    shop(
        "select id, amount from orders where id < 3",
        of={"mode": "upsert", "keys": ("id",)},
        checks=checks(amount={"ge": 0}),
    )

    assert [row[0] for row in shop.rows()] == [1, 2, 9]


def test_a_check_of_a_column_that_does_not_come_is_told(shop: Shop) -> None:
    told = refused(lambda: shop(checks=checks(amout={"ge": 0})), Refused)

    assert told == (
        "`checks` names 'amout', which the query does not give (columns: id, country, amount); did you mean 'amount'?"
    )


# -- bad rows


def test_rows_that_fail_a_check_are_put_aside(shop: Shop) -> None:
    moved = shop(checks=checks(id={"unique": True}, amount={"le": 15}, rows={"max": 1}), on_bad_row="quarantine")

    assert shop.rows() == [(1, "PL", 10.5)]
    assert (moved.counts.read, moved.counts.written, moved.counts.quarantined) == (4, 1, 3)
    kept = shop.rows('select run, part, ordinal, "column", error, sqlstate, row from t__rejected order by error, row')
    assert [one[:6] for one in kept] == [
        ("run-1", "all", None, "amount", "column 'amount' is more than 15", None),
        ("run-1", "all", None, "id", "column 'id' comes more than once", None),
        ("run-1", "all", None, "id", "column 'id' comes more than once", None),
    ]
    assert sorted(json.loads(one[6])["country"] for one in kept) == ["DE", "FR", "PL"]


@pytest.mark.parametrize("mode", ["append", "replace"])
@pytest.mark.parametrize("asked", [None, {"country": {"in": ["PL", "DE", "IT"]}}])
def test_rows_that_the_table_refuses_are_put_aside(shop: Shop, mode: str, asked: Any) -> None:
    shop.do("sink", "create table t (id integer primary key, country text, amount integer check (amount < 15))")

    moved = shop(of={"mode": mode}, on_bad_row="quarantine", checks=checks(**asked) if asked else None)

    assert shop.rows() == [(1, "PL", 10.5), (3, "PL", 5)]
    assert (moved.counts.written, moved.counts.quarantined) == (2, 2)
    kept = shop.rows('select "column", error, sqlstate, row from t__rejected')
    assert {json.loads(one[3])["country"] for one in kept} == {"DE", "FR"}
    assert any("CHECK constraint failed" in one[1] for one in kept)
    if asked is None:
        assert [one for one in kept if one[0] == "id"][0][2] == "23000"


def test_more_bad_rows_than_allowed_end_the_load(shop: Shop) -> None:
    shop.do("sink", "create table t (id integer primary key, country text, amount integer check (amount < 1))")

    told = refused(lambda: shop(on_bad_row="quarantine", max_bad_rows=2))
    again = refused(lambda: shop(on_bad_row="quarantine", max_bad_rows=1, checks=checks(amount={"lt": 9})))

    assert told.startswith("more than 2 bad rows (`max_bad_rows`), e.g. ")
    assert told.endswith("CHECK constraint failed: amount < 1; nothing was written")
    assert "more bad rows than `max_bad_rows` lets pass" in again
    assert (shop.rows(), shop.tables()) == ([], ["t"])


def test_many_bad_rows_among_many_are_found(shop: Shop) -> None:
    shop.do("sink", "create table t (id integer check (id % 97 <> 0))")
    numbers = "with recursive n(id) as (select 1 union all select id + 1 from n where id < 5000) select id from n"

    moved = shop(numbers, on_bad_row="quarantine")

    assert moved.counts.quarantined == 5000 // 97
    assert shop.rows("select count(*), sum(id % 97 = 0) from t") == [(5000 - 5000 // 97, 0)]
    assert shop.rows("select sum(ordinal = json_extract(row, '$.id')), count(*) from t__rejected") == [
        (5000 // 97, 5000 // 97)
    ]


# -- transforms


def test_columns_are_chosen_named_cast_and_made(shop: Shop) -> None:
    shape = Shape(
        select=("id", "amount", "double", "country"),
        rename={"country": "land", "double": "twice"},
        cast={"amount": "integer"},
        columns={"double": "id * 2"},
        filter=("id < 3", "country <> 'DE'"),
    )

    shop("select * from orders", shape=shape)

    assert shop.rows("select id, amount, twice, land from t") == [(1, 10, 2, "PL")]
    assert [row[1:3] for row in shop.rows("pragma table_info(t)")] == [
        ("id", "INTEGER"),
        ("amount", "INTEGER"),
        ("twice", "INTEGER"),
        ("land", "TEXT"),
    ]


@pytest.mark.parametrize(
    ("dedupe", "kept"),
    [
        (Dedupe(by="day"), [(1, "PL"), (2, "DE"), (3, "FR")]),
        (Dedupe(by="day", keep="first"), [(1, "PL"), (2, "DE"), (3, "PL")]),
        (Dedupe(by="at", keys="day"), [(1, "PL"), (3, "FR"), (3, "PL")]),
        (Dedupe(by="at", keys="day", keep="first"), [(2, "DE"), (3, "FR"), (3, "PL")]),
    ],
)
def test_one_row_of_those_with_the_same_keys_is_kept(shop: Shop, dedupe: Dedupe, kept: list[Any]) -> None:
    shape = Shape(select=("id", "country", "day"), dedupe=dedupe, keys=("id",))

    shop("select * from orders", shape=shape, of={"mode": "append"})

    assert sorted(row[:2] for row in shop.rows()) == kept


def test_values_are_masked_by_the_source(shop: Shop) -> None:
    shape = Shape(rename={"email": "mail"}, mask={"mail": "hash", "country": "redact"}, salt="it's salt")

    shop("select id, email, country from orders where id <> 2", shape=shape)

    hashed = [hashlib.sha256(f"it's salt{one}".encode()).hexdigest() for one in ("a@x", "c")]
    assert sorted(shop.rows(), key=str) == sorted(
        [(1, hashed[0], "***"), (3, None, "***"), (3, hashed[1], "***")], key=str
    )


def test_a_sample_is_a_part(shop: Shop) -> None:
    numbers = "with recursive n(id) as (select 1 union all select id + 1 from n where id < 20000) select id from n"

    shop(numbers, shape=Shape(sample=0.1))

    assert 1500 < len(shop.rows()) < 2500


def test_names_that_are_not_there_are_told_at_once(shop: Shop) -> None:
    shape = Shape(select=("idd",), rename={"x": "y"}, mask={"country": "redact", "z": "redact"})

    told = refused(lambda: shop(shape=shape), Refused)

    assert told == (
        "`select` names 'idd'; `rename` names 'x'; `mask` names 'z', which the query does not give "
        "(columns: id, country, amount)"
    )


# -- statements around a load


def test_statements_of_the_sink_are_part_of_the_transaction(shop: Shop) -> None:
    shop.do("sink", "create table log (what text)")

    shop(pre=("insert into log values ('before')",), post=("insert into log select count(*) from t",))
    refused(lambda: shop(pre=("insert into log values ('again')",), post=("insert into nowhere values (1)",)), Refused)

    assert shop.rows("select * from log") == [("before",), ("4",)]
    assert len(shop.rows()) == 4
