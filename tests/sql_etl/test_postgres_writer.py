"""Loads into a real PostgreSQL: each mode, each lane, what is refused, and how errors are told."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from datetime import time as clock
from decimal import Context, Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from rainbow_prefect.sql_etl import postgres_arrow
from rainbow_prefect.sql_etl.base import BadValue, Counts, Job, Passing, Query, Refused, Rows, Session
from rainbow_prefect.sql_etl.postgres import open_reader
from rainbow_prefect.sql_etl.postgres_ledger import lock_key
from rainbow_prefect.sql_etl.postgres_writer import PostgresWriter
from rainbow_prefect.sql_etl.types import Column, Schema, Type

INT = Type("int", bits=32, native="integer", dialect="postgresql")
BIG = Type("int", bits=64, native="bigint", dialect="postgresql")
TEXT = Type("text", native="text", dialect="postgresql")
NUMERIC = Type("decimal", native="numeric", dialect="postgresql")

ID_X = Schema((Column("id", INT, nullable=False), Column("x", TEXT)))
FIRST: Rows = [(1, "a"), (2, "b"), (3, None)]
SECOND: Rows = [(2, "b"), (3, "c"), (4, "")]


class Settings:
    schema_name: str | None = None
    lock_timeout_seconds = 30.0
    statement_timeout_seconds: float | None = None
    connect_args: dict[str, Any] = {}

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class Sink:
    """A database of a test: `load` is a whole load, `rows` what a table holds."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.admin = psycopg.connect(url, autocommit=True)
        self.opened: list[PostgresWriter] = []

    def writer(self, *, role: str | None = None, session: Session | None = None, **settings: Any) -> PostgresWriter:
        if role:
            settings["connect_args"] = {"options": f"-c role={role}"}
        made = PostgresWriter(make_url(self.url), session or Session(name="rainbow test"), Settings(**settings))
        self.opened.append(made)
        return made

    def load(self, job: Job, rows: Rows, **settings: Any) -> Counts | None:
        """None: it was loaded before."""
        writer = self.writer(**settings)
        if not writer.begin(job, writer.describe(job.table)):
            return None
        read = writer.write_rows(iter([rows] if rows else []))
        counts = writer.finish(Counts(read=read))
        writer.commit(counts)
        return counts

    def run(self, sql: str) -> None:
        self.admin.execute(sql.encode())

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.admin.execute(sql.encode()).fetchall()

    def table(self, name: str = "t") -> list[tuple[Any, ...]]:
        return self.rows(f"select * from {name} order by 1, 2")

    def ledger(self) -> list[tuple[Any, ...]]:
        return self.rows(
            "select run_key, part, number, attempt, rows_read, rows_written, committed is not null"
            " from _rainbow_etl_ledger order by number, part"
        )

    def chunks(self, sql: str, form: str = "binary") -> list[bytes]:
        with self.admin.cursor().copy(f"copy ({sql}) to stdout (format {form})".encode()) as copy:
            return [bytes(one) for one in copy]


@pytest.fixture
def sink(postgres: str) -> Iterator[Sink]:
    made = Sink(postgres)
    yield made
    for one in made.opened:
        one.close()
    made.admin.close()


def job(mode: str = "append", run_key: str = "r1", *, table: str = "t", schema: Schema = ID_X, **more: Any) -> Job:
    if mode in ("upsert", "insert_new", "delete_insert"):
        more.setdefault("keys", ("id",))
    return Job("nightly.orders", run_key, (None, table), mode, schema, **more)  # type: ignore[arg-type]


def wait_until(is_so: Callable[[], bool], *, within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not is_so():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


# -- modes: first run, second run, the same run again, no rows

AFTER = {
    "append": [(1, "a"), (2, "b"), (2, "b"), (3, "c"), (3, None), (4, "")],
    "insert_new": [(1, "a"), (2, "b"), (3, None), (4, "")],
    "upsert": [(1, "a"), (2, "b"), (3, "c"), (4, "")],
    "delete_insert": [(1, "a"), (2, "b"), (3, "c"), (4, "")],
    "replace": [(2, "b"), (3, "c"), (4, "")],
}
COUNTED = {
    "append": (3, 3, None, None),
    "insert_new": (1, 1, None, None),
    "upsert": (2, 1, 1, None),
    "delete_insert": (3, 3, None, 2),
    "replace": (3, 3, None, None),
}


@pytest.mark.parametrize("mode", AFTER)
@pytest.mark.parametrize("has_key", [True, False])
def test_mode(sink: Sink, mode: str, has_key: bool) -> None:
    key = " primary key" if has_key and mode != "append" else ""
    sink.run(f"create table t (id int{key}, x text)")

    first = sink.load(job(mode), FIRST)
    again = sink.load(job(mode, attempt=2), SECOND)
    after_first = sink.table()
    second = sink.load(job(mode, "r2"), SECOND)
    after_second = sink.table()
    empty = sink.load(job(mode, "r3"), [])

    assert first is not None and (first.written, first.inserted) == (3, 3)
    assert again is None
    assert after_first == [(1, "a"), (2, "b"), (3, None)]
    assert second is not None
    assert (second.written, second.inserted, second.updated, second.deleted) == (
        COUNTED[mode] if has_key or mode != "upsert" else (2, 1, 1, None)
    )
    assert after_second == AFTER[mode]
    assert empty is not None and empty.written == 0
    assert sink.table() == ([] if mode == "replace" else AFTER[mode])
    assert sink.ledger() == [
        ("r1", "all", 1, 1, 3, 3, True),
        ("r2", "all", 2, 1, 3, second.written, True),
        ("r3", "all", 3, 1, 0, 0, True),
    ]


@pytest.mark.parametrize("mode", [*AFTER, "fail"])
def test_mode_makes_the_table(sink: Sink, mode: str) -> None:
    first = sink.load(job(mode, keys=("id",)), FIRST)
    again = sink.load(job(mode, keys=("id",), attempt=2), FIRST)

    assert first is not None and first.written == 3
    assert again is None
    assert sink.table() == [(1, "a"), (2, "b"), (3, None)]
    assert sink.rows("select conname, contype::text from pg_constraint where conrelid = 't'::regclass") == [
        ("t_pkey", "p")
    ]


def test_fail_wants_no_table(sink: Sink) -> None:
    sink.run("create table t (id int, x text)")

    with pytest.raises(Refused) as error:
        sink.load(job("fail"), FIRST)

    assert str(error.value) == (
        "table public.t exists, and mode fail wants a new one; use another mode or another table; nothing was written"
    )
    assert sink.table() == []
    assert sink.ledger() == []


# -- again, with force


@pytest.mark.parametrize("mode", AFTER)
def test_force_replaces_what_was_loaded(sink: Sink, mode: str) -> None:
    keys = ("id",) if mode != "replace" else ()
    sink.run("create table t (id int primary key, x text)")
    sink.load(job(mode, keys=keys), FIRST)

    again = sink.load(job(mode, keys=keys, force=True, attempt=2), [(1, "z"), (2, "b"), (3, None)])

    assert again is not None
    assert sink.table() == [(1, "a" if mode == "insert_new" else "z"), (2, "b"), (3, None)]
    assert [one[:4] for one in sink.ledger()] == [("r1", "all", 2, 2)]


def test_force_of_a_part_replaces_its_predicate(sink: Sink) -> None:
    sink.run("create table t (id int, x text)")
    sink.load(job(part="high", where=("id > 1",)), SECOND)

    sink.load(job(part="high", where=("id > 1",), force=True), [(5, "e")])

    assert sink.table() == [(5, "e")]


def test_force_without_keys_cannot_tell_rows(sink: Sink) -> None:
    sink.run("create table t (id int, x text)")
    sink.load(job(), FIRST)

    with pytest.raises(Refused) as error:
        sink.load(job(force=True), FIRST)

    assert str(error.value) == (
        "table public.t: this part of this run was loaded before, and nothing tells its rows from others: give `keys`,"
        " or use mode delete_insert or replace; nothing was written"
    )
    assert len(sink.table()) == 3
    assert len(sink.ledger()) == 1


def test_force_of_what_is_new_is_a_plain_load(sink: Sink) -> None:
    sink.run("create table t (id int, x text)")

    counts = sink.load(job(force=True), FIRST)

    assert counts is not None and counts.inserted == 3


# -- the ledger


def test_state_is_that_of_the_last_commit(sink: Sink) -> None:
    writer = sink.writer()
    before = writer.state(job())
    for number, state in enumerate([{"cursor": "2024-01-01"}, None, {"cursor": "é'"}]):
        assert writer.begin(job(run_key=f"r{number}"), writer.describe((None, "t")))
        writer.commit(writer.finish(Counts(read=writer.write_rows(iter([FIRST])))), state)
    assert writer.begin(job(run_key="r9"), writer.describe((None, "t")))
    within = writer.state(job())
    writer.rollback()

    assert (before, within, writer.state(job())) == ({}, {"cursor": "é'"}, {"cursor": "é'"})
    assert writer.state(replace(job(), name="other")) == {}
    assert writer.forget(job()) == 2
    assert writer.state(job()) == {}
    assert len(sink.ledger()) == 3


def test_two_make_the_ledger_and_the_table_at_once(sink: Sink) -> None:
    counts: list[Counts | None] = []
    begun = threading.Barrier(6)

    def load(part: int) -> None:
        begun.wait(60)
        counts.append(sink.load(job(part=f"p{part}", mode="fail"), [(part, "x")]))

    threads = [threading.Thread(target=load, args=[one]) for one in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(120)

    assert [one and one.written for one in counts] == [1] * 6
    assert sink.table() == [(one, "x") for one in range(6)]


def test_fail_in_parts_still_wants_no_table(sink: Sink) -> None:
    sink.run("create table t (id int, x text)")

    with pytest.raises(Refused, match="exists, and mode fail wants a new one"):
        sink.load(job(mode="fail", part="p1"), FIRST)


@pytest.mark.parametrize(("field", "most"), [("name", 255), ("run_key", 100), ("part", 200)])
def test_keys_that_the_ledger_cannot_hold(sink: Sink, field: str, most: int) -> None:
    with pytest.raises(Refused) as error:
        sink.load(replace(job(), **{field: "x" * (most + 1)}), FIRST)

    assert str(error.value) == (
        f"the {field} of the load has {most + 1} characters, the ledger takes {most}; shorten it"
    )


# -- keys


@pytest.mark.parametrize("mode", ["upsert", "insert_new"])
@pytest.mark.parametrize("has_key", [True, False])
def test_keys_that_occur_twice_or_are_empty(sink: Sink, mode: str, has_key: bool) -> None:
    sink.run(f"create table t (id int {'unique' if has_key else ''}, x text)")
    sink.load(job(mode), FIRST)
    rows = [(one, "x") for one in (1, 1, 2, 2, 2, 3, 4, 4, 5, 5, 6, 6, 7, 7)] + [(None, "y")]

    with pytest.raises(BadValue) as error:
        sink.load(job(mode, "r2"), rows)

    assert str(error.value) == (
        "table public.t: 7 of the keys that came occur more than once or are empty: (id='1') 2 times, (id='2') 3 times,"
        " (id='4') 2 times, (id='5') 2 times, (id='6') 2 times, ...; leave the rows out in the query,"
        " or choose other `keys`; nothing was written"
    )
    assert sink.table() == FIRST
    assert len(sink.ledger()) == 1


@pytest.mark.parametrize("mode", ["upsert", "insert_new", "delete_insert"])
def test_empty_keys(sink: Sink, mode: str) -> None:
    sink.run("create table t (id int, x text)")

    with pytest.raises(BadValue) as error:
        sink.load(job(mode, keys=("id", "x")), [(1, "a"), (None, "secret")])

    assert "1 of the keys that came occur more than once or are empty: (id=NULL, x='secret');" in str(error.value)


def test_delete_insert_takes_many_rows_of_a_key(sink: Sink) -> None:
    sink.run("create table t (id int, x text)")
    sink.load(job(), [(1, "a"), (1, "b"), (2, "c")])

    counts = sink.load(job("delete_insert", "r2"), [(1, "d"), (1, "e"), (3, "f")])

    assert counts is not None and (counts.deleted, counts.inserted) == (2, 3)
    assert sink.table() == [(1, "d"), (1, "e"), (2, "c"), (3, "f")]


def test_delete_insert_of_a_predicate(sink: Sink) -> None:
    sink.run("create table t (id int, x text)")
    sink.load(job(), FIRST)

    counts = sink.load(job("delete_insert", "r2", keys=(), where=("id >= 2", "id < 9")), SECOND)

    assert counts is not None and (counts.deleted, counts.inserted) == (2, 3)
    assert sink.table() == [(1, "a"), (2, "b"), (3, "c"), (4, "")]


@pytest.mark.parametrize("mode", ["upsert", "insert_new", "delete_insert"])
def test_mode_without_keys(sink: Sink, mode: str) -> None:
    with pytest.raises(Refused, match=f"^table public.t: mode {mode} needs `keys`"):
        sink.load(job(mode, keys=()), FIRST)

    assert sink.rows("select to_regclass('t')") == [(None,)]


def test_keys_that_do_not_come(sink: Sink) -> None:
    sink.run("create table t (id int, x text, k int)")

    with pytest.raises(Refused) as error:
        sink.load(job("upsert", keys=("k",)), FIRST)

    assert str(error.value) == "table public.t: the keys k are no columns of the query (columns: id, x)"


@pytest.mark.parametrize("has_key", [True, False])
def test_upsert_writes_only_what_changed(sink: Sink, has_key: bool) -> None:
    sink.run(f"create table t (id int {'primary key' if has_key else ''}, n numeric, j json, kept text default 'own')")
    schema = Schema(
        (Column("id", INT), Column("n", NUMERIC), Column("j", Type("json", native="json", dialect="postgresql")))
    )
    rows: Rows = [(1, Decimal("1.0"), '{"a": 1}'), (2, None, None), (3, Decimal("NaN"), "null")]
    sink.load(job("upsert", schema=schema), rows)
    before = sink.rows("select id, xmin::text from t order by 1")
    sink.run("update t set kept = 'changed'")
    before = sink.rows("select id, ctid::text from t order by 1")

    same = sink.load(job("upsert", "r2", schema=schema), rows)
    unchanged = sink.rows("select id, ctid::text from t order by 1")
    other = sink.load(job("upsert", "r3", schema=schema), [(1, Decimal("1.00"), '{"a":1}'), (2, None, "null"), rows[2]])

    assert same is not None and (same.inserted, same.updated) == (0, 0)
    assert unchanged == before
    assert other is not None and (other.inserted, other.updated) == (0, 2)
    assert sink.rows("select id, n::text, j::text, kept from t order by 1") == [
        (1, "1.00", '{"a":1}', "changed"),
        (2, None, "null", "changed"),
        (3, "NaN", "null", "changed"),
    ]


# -- what is there and what is refused


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_columns_are_matched_by_name(sink: Sink, mode: str) -> None:
    sink.run("create table t (x text, more int default 7, id int primary key)")

    sink.load(job(mode), FIRST)

    assert sink.rows("select id, x, more from t order by id") == [(1, "a", 7), (2, "b", 7), (3, None, 7)]


def test_column_that_is_not_there(sink: Sink) -> None:
    sink.run("create table t (id int, email text)")
    schema = Schema((Column("id", INT), Column("emial", TEXT)))

    with pytest.raises(Refused) as error:
        sink.load(job(schema=schema), FIRST)

    assert str(error.value) == (
        "table public.t has no column 'emial' (columns: id, email); did you mean 'email'?; nothing was written"
    )


def test_column_that_wants_a_value(sink: Sink) -> None:
    sink.run("create table t (id int, x text, a int not null, b int not null default 1, c serial, d int)")

    with pytest.raises(Refused) as error:
        sink.load(job(), FIRST)

    assert str(error.value) == (
        "table public.t wants a value in 'a', which the query does not give; select it, or give the column a default;"
        " nothing was written"
    )
    assert sink.table() == []


@pytest.mark.parametrize(
    ("what", "given"),
    [
        ("table", {"table": "é" * 32}),
        ("column", {"schema": Schema((Column("id", INT), Column("é" * 32, TEXT)))}),
    ],
)
def test_names_that_are_too_long(sink: Sink, what: str, given: dict[str, Any]) -> None:
    with pytest.raises(Refused) as error:
        sink.load(job(**given), FIRST)

    assert str(error.value) == f"the name of the {what} '{'é' * 32}' has 64 bytes, PostgreSQL takes 63; shorten it"
    assert sink.rows("select relname from pg_class where relnamespace = 'public'::regnamespace") == []


@pytest.mark.parametrize("mode", ["insert_new", "upsert", "delete_insert", "replace"])
def test_odd_names(sink: Sink, mode: str) -> None:
    names = ['a"b', "select", "a b", "CamelCase", "é", "a.b", "%s", "'", "x" * 63]
    schema = Schema(tuple(Column(one, INT) for one in names))
    sink.run('create schema "S c"')
    odd = replace(job(mode, schema=schema, keys=(names[0], names[6])), table=("S c", 'Order "1" %'))

    sink.load(odd, [(1, 2, 3, 4, 5, 6, 7, 8, 9)])
    sink.load(replace(odd, run_key="r2"), [(1, 2, 3, 4, 5, 6, 8, 8, 10)])

    assert sink.rows('select * from "S c"."Order ""1"" %" order by 7')[-1] == (1, 2, 3, 4, 5, 6, 8, 8, 10)


def test_schema_that_is_missing(sink: Sink) -> None:
    nowhere = replace(job(), table=("mart", "t"))

    with pytest.raises(Refused) as error:
        sink.load(nowhere, FIRST)
    made = sink.load(replace(nowhere, options={"create_schema": True}), FIRST)

    assert str(error.value) == (
        "table mart.t: the schema 'mart' does not exist; run: CREATE SCHEMA \"mart\", or set `create_schema: true`"
    )
    assert made is not None
    assert sink.rows("select * from mart.t order by 1") == FIRST


def test_view_takes_no_rows(sink: Sink) -> None:
    sink.run("create view t as select 1 as id, 'a' as x")

    with pytest.raises(Refused, match="^table public.t is a view, which takes no rows here; name the table it shows$"):
        sink.load(job(), FIRST)


@pytest.fixture
def role(sink: Sink) -> Iterator[str]:
    """A role that may do nothing."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    sink.run(f"create role {name}; revoke all on schema public from public")
    sink.run("do $$ begin execute format('revoke temporary on database %I from public', current_database()); end $$")
    yield name
    for one in sink.opened:
        one.close()
    sink.run(f"drop owned by {name}; drop role {name}")


@pytest.mark.parametrize("mode", [*AFTER, "fail"])
def test_rights_are_told_until_the_load_is_done(sink: Sink, role: str, mode: str) -> None:
    """Each refusal says statements; once they were run, the load works."""
    if mode != "fail":
        sink.run("create table t (id int primary key, x text)")
    said = []
    for _ in range(4):
        try:
            counts = sink.load(job(mode, keys=("id",)), FIRST, role=role, schema_name="public")
            break
        except Refused as error:
            said.append(str(error))
            assert "; run: " in said[-1]
            for statement in said[-1].split("; run: ")[1].removesuffix("; nothing was written").split("; "):
                sink.run(statement)
    else:
        raise AssertionError(said)

    assert said[0] == f'table public.t: a right is missing; run: GRANT USAGE ON SCHEMA "public" TO {role}'
    assert len(said) == 2
    assert counts is not None and counts.inserted == 3
    assert sink.table() == FIRST
    has = sink.rows(f"select has_table_privilege('{role}', 't', 'TRUNCATE')")
    assert has == [(mode in ("fail",),)]


def test_standby_or_read_only_role(sink: Sink, role: str) -> None:
    sink.run("alter role postgres set default_transaction_read_only = off")
    writer = sink.writer(connect_args={"options": "-c default_transaction_read_only=on"})

    with pytest.raises(Refused) as error:
        writer.begin(job(), None)

    assert str(error.value) == (
        "table public.t: the role's transactions are read only; run: ALTER ROLE postgres"
        " SET default_transaction_read_only = off"
    )


def test_wrong_password_is_refused_without_it(sink: Sink) -> None:
    url = make_url(sink.url).set(password="s3cr3t-and-wrong")

    with pytest.raises(Refused) as error:
        PostgresWriter(url, Session(), Settings())

    assert "password authentication failed" in str(error.value)
    assert "s3cr3t" not in str(error.value)
    assert "s3cr3t" not in repr(error.value.__context__)


def test_nobody_listens(sink: Sink) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    url = make_url(sink.url).set(port=port)

    with pytest.raises(Passing, match="cannot be reached"):
        PostgresWriter(url, Session(), Settings())


# -- columns that the table fills


@pytest.mark.parametrize("mode", ["append", "insert_new", "upsert", "delete_insert", "replace"])
def test_identity_and_generated_columns(sink: Sink, mode: str) -> None:
    sink.run(
        "create table t (id int generated always as identity primary key, s serial, a int,"
        " twice int generated always as (a * 2) stored, at timestamptz not null default now())"
    )
    schema = Schema((Column("id", INT), Column("s", INT), Column("a", INT), Column("twice", INT)))
    load = job(mode, schema=schema, keys=("id",), options={"sync_sequences": True})

    sink.load(load, [(10, 100, 1, 0), (20, 200, 2, 0)])
    sink.load(replace(load, run_key="r2"), [(10, 100, 3, 0)] if mode in ("upsert", "delete_insert") else [])
    sink.run("insert into t (a) values (9)")

    rows = sink.rows("select id, s, a, twice, at is not null from t order by id")
    if mode == "replace":
        assert rows == [(21, 201, 9, 18, True)]
    else:
        first = 3 if mode in ("upsert", "delete_insert") else 1
        assert rows == [(10, 100, first, first * 2, True), (20, 200, 2, 4, True), (21, 201, 9, 18, True)]


def test_sequences_never_go_back(sink: Sink) -> None:
    sink.run("create table t (id serial primary key, x text)")
    sink.run("select setval('t_id_seq', 500)")

    sink.load(job(options={"sync_sequences": True}), FIRST)

    assert sink.rows("select nextval('t_id_seq')") == [(501,)]


# -- new tables


def test_table_is_made_as_it_came(sink: Sink) -> None:
    sink.run("create type mood as enum ('sad', 'it''s ok')")
    sink.run(
        "create table src (id bigint primary key, n numeric(38,10), v varchar(20), m mood, ms mood[], ts timestamptz(3),"
        " i interval, b bytea not null)"
    )
    sink.run("comment on table src is 'it''s all'; comment on column src.v is 'a \\ b'")
    sink.run("create schema mart")
    writer = sink.writer()
    schema = writer.describe((None, "src"))
    assert schema is not None
    made = replace(job(schema=schema, keys=("id",)), table=("mart", "t"))

    writer.begin(made, None)
    read = writer.write_chunks(iter(sink.chunks("select * from src")), "pg_binary")
    writer.commit(writer.finish(Counts(read=read)))

    found = writer.describe(("mart", "t"))
    assert found is not None
    assert [(one.name, one.nullable, one.comment) for one in found.columns] == [
        (one.name, one.nullable, one.comment) for one in schema.columns
    ]
    assert [str(one.type) for one in found.columns][:3] == ["bigint", "numeric(38,10)", "character varying(20)"]
    assert (str(found["m"].type), found["m"].type.labels) == ("mart.mood", ("sad", "it's ok"))
    assert (found.keys, found.comment) == (("id",), "it's all")


def test_enum_that_lacks_a_label(sink: Sink) -> None:
    sink.run("create schema a; create schema b")
    sink.run("create type a.mood as enum ('ok', 'new'); create type b.mood as enum ('ok')")
    sink.run("create table src (m a.mood); insert into src values ('ok'), ('new'); create table t (m b.mood)")
    writer = sink.writer()
    schema = writer.describe((None, "src"))
    assert schema is not None
    load = job(schema=schema)

    writer.begin(load, writer.describe((None, "t")))
    with pytest.raises(Refused, match="binary COPY needs equal types: column 'm' is a.mood and b.mood in the table"):
        writer.write_chunks(iter(sink.chunks("select * from src")), "pg_binary")
    with pytest.raises(BadValue) as error:
        sink.load(load, [("ok",), ("new",)])
    changed = sink.writer()
    changed.begin(load, changed.describe((None, "t")), ["ALTER TYPE b.mood ADD VALUE 'new'"])
    changed.commit(changed.finish(Counts(read=changed.write_rows(iter([[("ok",), ("new",)]])))))

    assert str(error.value) == (
        "table public.t: column 'm', row 2, value 'new': invalid input value for enum b.mood: \"new\" (SQLSTATE 22P02);"
        " cast it in the query; nothing was written"
    )
    assert sink.rows("select m::text from t") == [("ok",), ("new",)]


def test_changes_are_in_the_transaction(sink: Sink) -> None:
    sink.run("create table t (id int)")
    writer = sink.writer()
    add = ["ALTER TABLE t ADD COLUMN x text"]

    assert writer.begin(job(), writer.describe((None, "t")), add)
    writer.write_rows(iter([FIRST]))
    writer.rollback()
    without = writer.describe((None, "t"))
    assert writer.begin(job(attempt=2), without, add)
    writer.commit(writer.finish(Counts(read=writer.write_rows(iter([FIRST])))))

    assert without is not None and without.names == ("id",)
    assert sink.table() == FIRST


# -- lanes

EVERYTHING = """
create table src (
    id int primary key, b boolean, i2 smallint, i8 bigint, f4 real, f8 double precision, n numeric, n2 numeric(10,2), t text,
    v varchar(20), c char(5), y bytea, d date, tm time, tz timetz, ts timestamp, tt timestamptz, iv interval, u uuid,
    j json, jb jsonb, a int[], ta text[], r int4range, ip inet
);
insert into src values
    (1, true, -32768, 9223372036854775807, 1.1, 0.1, 12345678901234567890.123456789012345, 1.50, E'tab\\tnl\\ncr\\rbs\\\\',
     'é中😀', 'ab', '\\xdeadbeef00', '2024-02-29', '23:59:59.999999', '23:59:59+05:30', '2024-03-31 02:30:00.000001',
     '2024-02-29 12:34:56.123456+05:30', '1 year 2 mons 3 days 04:05:06.7', '00112233-4455-6677-8899-aabbccddeeff',
     '{"a":  1, "a": 2}', '{"b": [1.0]}', '{1,NULL,3}', '{"a,b",NULL,"NULL",""}', '[1,5)', '10.0.0.1/8'),
    (2, false, 0, 0, 'NaN', '-Infinity', 'NaN', -0.01, '', '', '', '', '0044-03-15 BC', '24:00:00', '00:00:00-12',
     'infinity', '-infinity', '-1 day', null, 'null', 'null', '{}', '{}', 'empty', '::1'),
    (3, null, null, null, null, null, null, null, '\\N', null, null, null, null, null, null, null, null, null, null, null,
     null, null, null, null, null),
    (4, null, null, null, -0.0, -0.0, '1e100', null, E'\\\\.', '"q"', ',', null, '9999-12-31', null, null,
     '0001-01-01', '9999-12-31 23:59:59.999999Z', '00:00:00', null, '"x"', '{}', '{{1,2},{3,4}}', null, '(,)', null)
"""


@pytest.mark.parametrize("lane", ["pg_binary", "pg_text", "csv", "rows"])
@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
def test_lanes_carry_every_value(sink: Sink, lane: str, mode: str) -> None:
    sink.run(EVERYTHING)
    sink.run("create table t (like src including all)")
    reader = open_reader(make_url(sink.url), Session(), Settings())
    query = Query(table=("public", "src"))
    schema = reader.describe(query)
    writer = sink.writer()

    assert writer.begin(job(mode, schema=schema, keys=("id",)), writer.describe((None, "t")))
    if lane == "rows":
        read = writer.write_rows(reader.rows(query, schema))
    else:
        read = writer.write_chunks(reader.chunks(query, schema, lane), lane)  # type: ignore[arg-type]
    writer.commit(writer.finish(Counts(read=read)))
    reader.close()

    assert read == 4
    assert sink.rows("select row(o.*)::text from src o order by id") == sink.rows(
        "select row(o.*)::text from t o order by id"
    )


PLAIN = """
create table src (
    id int primary key, b boolean, i2 smallint, i8 bigint, f4 real, f8 double precision, n numeric(38,10), t text,
    d date, tm time, ts timestamp, tt timestamptz
);
insert into src select i, i % 3 = 0, i % 32768, i * 9223372036854, i / 3.0, 1e300 / i, i * -123456789.0123456789,
    repeat('é"' || chr(10) || '\\', i % 5), '1999-12-31'::date + i * 37, '00:00:00'::time + i * interval '1.000001 s',
    '0001-01-01'::timestamp + i * interval '1.000001 day', '2024-01-01+00'::timestamptz - i * interval '1.000001 day'
    from generate_series(1, 5000) i;
insert into src (id) values (0);
"""


@pytest.mark.parametrize("extra", ["pgpq", "csv", "rows"])
def test_arrow_by_each_way(sink: Sink, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sink.run(PLAIN)
    if extra == "rows":
        sink.run(
            "alter table src add by bytea, add iv interval; update src set by = '\\x00ff', iv = '1 mon' where id % 2 = 0"
        )
    if extra != "pgpq":
        monkeypatch.setattr(postgres_arrow, "find_spec", lambda name: None)
    sink.run(
        "create table t (like src including all); alter table t alter n type numeric; alter table t alter i2 type int"
    )
    reader = open_reader(make_url(sink.url), Session(), Settings())
    query = Query(table=("public", "src"))
    schema = reader.describe(query)
    writer = sink.writer()
    batches = [part for one in reader.batches(query, schema) for part in (one.slice(0, 7), one.slice(7))]
    known = writer.describe((None, "t"))
    assert known is not None
    ways: list[str] = []
    monkeypatch.setattr(writer, "_copy", lambda lane, made, copy=writer._copy: (ways.append(lane), copy(lane, made))[1])

    assert writer.begin(job(schema=schema), known)
    read = writer.write_batches(iter(batches))
    writer.commit(writer.finish(Counts(read=read)))
    reader.close()

    assert ways == [{"pgpq": "pg_binary"}.get(extra, extra)]
    assert read == 5001
    assert sink.rows("select * from src except select * from t") == []


def test_arrow_columns_go_by_name(sink: Sink) -> None:
    pa = pytest.importorskip("pyarrow")
    sink.run("create table t (x text, id bigint)")
    writer = sink.writer()
    schema = Schema((Column("id", BIG), Column("x", TEXT)))

    assert writer.begin(job(schema=schema), writer.describe((None, "t")))
    read = writer.write_batches(iter([pa.record_batch({"x": ["a", "", None], "id": pa.array([1, 2, 3], pa.int8())})]))
    writer.commit(writer.finish(Counts(read=read)))
    assert writer.begin(job(schema=schema, run_key="r2"), writer.describe((None, "t")))
    with pytest.raises(Refused) as error:
        writer.write_batches(iter([pa.record_batch({"y": ["a"], "id": [1]})]))

    assert sink.rows("select id, x from t order by id") == [(1, "a"), (2, ""), (3, None)]
    assert str(error.value) == "table public.t: the batches have the columns y, id, not id, x; nothing was written"


def test_no_batches(sink: Sink) -> None:
    writer = sink.writer()

    assert writer.begin(job(), None)
    writer.commit(writer.finish(Counts(read=writer.write_batches(iter([])))))

    assert sink.table() == []


def test_binary_into_another_type_is_refused(sink: Sink) -> None:
    sink.run("create table t (id int, x date)")
    sink.run("create table src (id int, x int); insert into src values (1, 8766)")
    writer = sink.writer()
    schema = writer.describe((None, "src"))
    assert schema is not None

    assert writer.begin(job(schema=schema), writer.describe((None, "t")))
    with pytest.raises(Refused) as error:
        writer.write_chunks(iter(sink.chunks("select * from src")), "pg_binary")

    assert str(error.value) == (
        "table public.t: binary COPY needs equal types: column 'x' is integer and date in the table; use another engine"
    )
    assert sink.table() == []


def test_text_into_a_wider_type(sink: Sink) -> None:
    sink.run("create table t (id bigint, x text)")
    sink.run("create table src (id int, x varchar(3)); insert into src values (1, 'abc'), (-2147483648, null)")
    writer = sink.writer()
    schema = writer.describe((None, "src"))
    assert schema is not None

    assert writer.begin(job(schema=schema), writer.describe((None, "t")))
    read = writer.write_chunks(iter(sink.chunks("select * from src", "text")), "pg_text")
    writer.commit(writer.finish(Counts(read=read)))

    assert sink.table() == [(-2147483648, None), (1, "abc")]


# -- values that are refused

REFUSED: dict[str, tuple[str, Any, str]] = {
    "nul": (
        "text",
        "a\0b",
        "column 'x', row 1002, value 'a\\x00b': text of PostgreSQL cannot hold U+0000 (SQLSTATE 22021);"
        " take it out in the query; nothing was written",
    ),
    "surrogate": (
        "text",
        "\ud800",
        "column 'x', row 1002, value '\\ud800': it is no Unicode text (a lone surrogate); correct it in the query;"
        " nothing was written",
    ),
    "strange": (
        "text",
        {1},
        "column 'x', row 1002, value '{1}': a value of type set cannot be written; cast it in the query; nothing was written",
    ),
    "too long": (
        "varchar(3)",
        "abcd",
        "column 'x', row 1002, value 'abcd': value too long for type character varying(3) (SQLSTATE 22001);"
        " widen the column, or cut the text in the query; nothing was written",
    ),
    "too large": (
        "smallint",
        "32768",
        "column 'x', row 1002, value '32768': value \"32768\" is out of range for type smallint (SQLSTATE 22003);"
        " widen the column, or cast in the query; nothing was written",
    ),
    "jsonb with nul": (
        "jsonb",
        '"\\u0000"',
        "column 'x', row 1002, value '\"\\u0000\"': unsupported Unicode escape sequence (SQLSTATE 22P05);"
        " \\u0000 cannot be converted to text.; jsonb of PostgreSQL cannot hold it; take it out in the query, or use json;"
        " nothing was written",
    ),
    "check": (
        "text check (x <> 'no')",
        "no",
        'row 1002: new row for relation "t" violates check constraint "t_x_check" (SQLSTATE 23514);'
        " Failing row contains (1001, no).; leave the row out in the query, or change the constraint; nothing was written",
    ),
    "not null": (
        "text not null",
        None,
        'column \'x\', row 1002: null value in column "x" of relation "t" violates not-null constraint (SQLSTATE 23502);'
        " Failing row contains (1001, null).; fill it in the query, or allow NULL in the table; nothing was written",
    ),
    "unique": (
        "text unique",
        "7",
        'row 1002: duplicate key value violates unique constraint "t_x_key" (SQLSTATE 23505); Key (x)=(7) already exists.;'
        " use mode upsert or insert_new with these keys, or leave the row out in the query; nothing was written",
    ),
    "foreign key": (
        "text references parent",
        "nobody",
        'insert or update on table "t" violates foreign key constraint "t_x_fkey" (SQLSTATE 23503);'
        ' Key (x)=(nobody) is not present in table "parent".; load the rows it refers to first; nothing was written',
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_value_that_is_refused(sink: Sink, what: str) -> None:
    kind, value, told = REFUSED[what]
    sink.run("create table parent (x text primary key); insert into parent select generate_series(0, 3000)")
    sink.run(f"create table t (id int, x {kind})")
    rows: Rows = [(one, str(one)) for one in range(999)]
    writer = sink.writer()

    assert writer.begin(job(), writer.describe((None, "t")))
    with pytest.raises(BadValue) as error:
        read = writer.write_rows(
            iter([rows, [(999, "999"), (1000, "999" if kind.endswith("(3)") else "1000"), (1001, value)]])
        )
        writer.finish(Counts(read=read))

    assert str(error.value) == f"table public.t: {told}"
    assert sink.table() == []
    assert sink.ledger() == []


def test_domain_that_refuses(sink: Sink) -> None:
    sink.run("create domain posint as int check (value > 0); create table t (id posint, x text)")

    with pytest.raises(BadValue) as error:
        sink.load(job(), [(1, "a"), (0, "b")])

    assert str(error.value) == (
        "table public.t: column 'id', row 2, value '0': value for domain posint violates check constraint \"posint_check\""
        " (SQLSTATE 23514); leave the row out in the query, or change the constraint; nothing was written"
    )


def test_secret_values_are_not_told(sink: Sink) -> None:
    sink.run("create table t (id int, x varchar(3) unique)")
    hide = {"options": {"secret_columns": ("x",)}}
    told = []
    for rows in ([(1, "s3cr3t")], [(1, "s3c"), (2, "s3c")], [(1, "s3\0cr3t")]):
        with pytest.raises(BadValue) as error:
            sink.load(job(**hide), rows)
        told.append(str(error.value))
    with pytest.raises(BadValue) as error:
        sink.load(job("upsert", keys=("x",), **hide), [(1, "s3c"), (2, "s3c")])

    assert told[0] == (
        "table public.t: column 'x', row 1: column 'x' refused the value (SQLSTATE 22001); widen the column,"
        " or cut the text in the query; nothing was written"
    )
    assert "s3c" not in "".join([*told, str(error.value)])


# -- replace


def test_replace_by_itself_keeps_what_hangs_on_the_table(sink: Sink, role: str) -> None:
    ties = {
        "view": "create view v as select * from t",
        "materialised view": "create materialized view m as select * from t",
        "rule": "create rule r as on insert to t do also nothing",
        "trigger": "create trigger g before update on t for each row execute function suppress_redundant_updates_trigger()",
        "policy": "create policy p on t using (true)",
        "publication": "create publication pub for table t",
        "grant": f"grant select on t to {role}",
        "column grant": f"grant select (id) on t to {role}",
        "serial": "alter table t add s serial",
        "row type": "create table other (one t)",
        "own foreign key": "create table p (id int primary key); alter table t add foreign key (id) references p",
    }
    for what, sql in ties.items():
        sink.run(
            "drop table if exists t, other, p cascade; drop publication if exists pub; drop table if exists _rainbow_etl_ledger"
        )
        sink.run("create table t (id int primary key, x text)")
        sink.run(sql)
        sink.run("create table if not exists p (id int primary key); insert into p select generate_series(1, 4)")
        sink.load(job("append"), FIRST)
        before = sink.rows("select 't'::regclass::oid, relacl::text from pg_class where oid = 't'::regclass")

        sink.load(job("replace", "r2"), SECOND)

        after = sink.rows("select 't'::regclass::oid, relacl::text from pg_class where oid = 't'::regclass")
        assert (what, after) == (what, before)
        assert sink.rows("select id, x from t order by id") == SECOND, what
        if what == "view":
            assert sink.rows("select * from v order by id") == SECOND


def test_replace_by_itself_swaps_what_stands_alone(sink: Sink) -> None:
    sink.run(
        "create table t (id int primary key, x text default 'd' not null check (x <> 'no')) with (fillfactor = 70)"
    )
    sink.run(
        "create index named on t (lower(x)) where id > 0; create index on t (x desc); comment on table t is 'it''s'"
    )
    sink.run("comment on column t.x is 'c'; comment on index named is 'i'; alter table t alter x set statistics 7")
    shape = (
        "select pg_get_indexdef(indexrelid), obj_description(indexrelid) from pg_index where indrelid = 't'::regclass"
        " union all select conname, pg_get_constraintdef(oid) from pg_constraint where conrelid = 't'::regclass"
        " union all select reloptions::text, obj_description(oid) from pg_class where oid = 't'::regclass"
        " union all select col_description('t'::regclass, 2), pg_get_expr(adbin, adrelid) from pg_attrdef"
        " where adrelid = 't'::regclass union all select attname, attstattarget::text from pg_attribute"
        " where attrelid = 't'::regclass and attnum > 0 order by 1, 2"
    )
    before = sink.rows(shape)
    old = sink.rows("select 't'::regclass::oid")

    sink.load(job("replace"), [(1, "a"), (2, "b")])

    assert sink.rows("select 't'::regclass::oid") != old
    assert sink.rows(shape) == before
    assert sink.table() == [(1, "a"), (2, "b")]


def test_swap_that_is_asked_for_keeps_grants(sink: Sink, role: str) -> None:
    sink.run("create table t (id int primary key, x text)")
    sink.run(
        f"grant select, insert on t to {role} with grant option; grant select on t to public; grant update (x) on t to {role}"
    )
    sink.run(f"alter default privileges in schema public grant delete on tables to {role}")
    grants = (
        "select g.grantee::text, g.privilege_type, g.is_grantable from pg_class, aclexplode(relacl) g where oid = 't'::regclass"
        " union all select attname, g.privilege_type, g.is_grantable from pg_attribute, aclexplode(attacl) g"
        " where attrelid = 't'::regclass order by 1, 2"
    )
    before = sink.rows(grants)

    sink.load(job("replace", options={"replace_strategy": "swap"}), FIRST)

    assert sink.rows(grants) == before
    assert sink.table() == FIRST


def test_swap_that_would_break_a_view_is_refused(sink: Sink) -> None:
    sink.run("create table t (id int primary key, x text); create view v as select * from t")

    with pytest.raises(Refused) as error:
        sink.load(job("replace", options={"replace_strategy": "swap"}), FIRST)

    assert str(error.value) == "table public.t cannot be swapped, for it has view v; use replace_strategy truncate"


def test_replace_of_a_table_that_others_refer_to(sink: Sink) -> None:
    sink.run("create table t (id int primary key, x text); create table child (t int references t)")
    sink.load(job(), FIRST)

    counts = sink.load(job("replace", "r2"), SECOND)
    sink.run("insert into child values (4)")
    with pytest.raises(BadValue, match='violates foreign key constraint "child_t_fkey" on table "child"'):
        sink.load(job("replace", "r3"), FIRST)

    assert counts is not None and (counts.deleted, counts.inserted) == (3, 3)
    assert sink.table() == SECOND


@pytest.mark.parametrize("mode", AFTER)
def test_partitioned_table(sink: Sink, mode: str) -> None:
    sink.run("create table t (id int primary key, x text) partition by range (id)")
    sink.run("create table low partition of t for values from (0) to (3); create table high partition of t default")
    sink.load(job(mode), FIRST)

    counts = sink.load(job(mode, "r2"), SECOND if mode != "append" else [(4, "")])

    assert counts is not None
    assert sink.table() == (AFTER[mode] if mode != "append" else [*FIRST, (4, "")])


def test_replace_in_parts_is_refused(sink: Sink) -> None:
    sink.run("create table t (id int, x text)")

    with pytest.raises(Refused, match="mode replace loads a table as a whole, not in parts; use mode delete_insert$"):
        sink.load(job("replace", part="p1"), FIRST)


def test_strategy_that_is_not_known(sink: Sink) -> None:
    sink.run("create table t (id int, x text)")

    with pytest.raises(Refused) as error:
        sink.load(job("replace", options={"replace_strategy": "drop"}), FIRST)

    assert str(error.value) == "replace_strategy 'drop' is not known (known: auto, truncate, swap, delete)"


# -- what is told before


def test_plan_says_the_statements(sink: Sink) -> None:
    sink.run("create table t (id int primary key, x text)")
    writer = sink.writer()
    plans = {mode: writer.plan(job(mode), writer.describe((None, "t"))) for mode in AFTER}

    assert plans["append"][1:] == ['COPY "public"."t" ("id", "x") FROM STDIN (FORMAT binary)']
    assert [one.split(" ", 2)[:2] for one in plans["replace"]] == [
        ["SELECT", f"pg_advisory_xact_lock({lock_key('public', 't')})"],
        ["CREATE", "TABLE"],
        ["COPY", plans["replace"][2].split(" ")[1]],
        ["LOCK", "TABLE"],
        ["DROP", "TABLE"],
        ["ALTER", "TABLE"],
    ]
    assert plans["upsert"][1] == (
        'CREATE TEMPORARY TABLE pg_temp._rainbow_stage ON COMMIT DROP AS SELECT "id", "x" FROM "public"."t" WITH NO DATA'
    )
    assert sink.rows("select to_regclass('_rainbow_etl_ledger')") == [(None,)]
    assert writer.plan(job("upsert"), None)[0].startswith("SELECT pg_advisory_xact_lock")


def test_checks_see_the_rows_of_the_load(sink: Sink) -> None:
    sink.run("create table t (id int primary key, x text)")
    sink.load(job(), [(9, "old")])
    writer = sink.writer()
    seen = {}
    for mode in ("append", "upsert", "replace"):
        assert writer.begin(job(mode, f"of {mode}"), writer.describe((None, "t")))
        writer.finish(Counts(read=writer.write_rows(iter([FIRST]))))
        seen[mode] = writer.query(f"select count(*), 100 % 7 from {writer.staged()}")
        writer.rollback()

    assert seen == {"append": [(4, 2)], "upsert": [(3, 2)], "replace": [(3, 2)]}


def test_failed_transaction_is_not_taken_for_a_commit(sink: Sink) -> None:
    writer = sink.writer()
    assert writer.begin(job(), None)
    counts = writer.finish(Counts(read=writer.write_rows(iter([FIRST]))))
    with pytest.raises(Refused):
        writer.query("select 1 / nothing")

    with pytest.raises(Passing) as error:
        writer.commit(counts)

    assert str(error.value) == "table public.t: the transaction had failed and was rolled back; nothing was written"
    assert sink.rows("select to_regclass('t')") == [(None,)]


# -- any values, any way

_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
_VALUES: dict[str, tuple[Type, st.SearchStrategy[Any]]] = {
    "i": (BIG, st.integers(-(2**63), 2**63 - 1)),
    "f": (Type("float", bits=64, native="double precision", dialect="postgresql"), st.floats()),
    "n": (
        Type("decimal", precision=38, scale=10, native="numeric(38,10)", dialect="postgresql"),
        st.integers(-(10**38) + 1, 10**38 - 1).map(lambda one: Decimal(one).scaleb(-10, Context(prec=60))),
    ),
    "t": (TEXT, _TEXTS | st.sampled_from(["\\N", "\\.", "NULL", '""', ",", "\r\n", "\\"])),
    "y": (Type("bytes", native="bytea", dialect="postgresql"), st.binary(max_size=20)),
    "b": (Type("bool", native="boolean", dialect="postgresql"), st.booleans()),
    "d": (Type("date", native="date", dialect="postgresql"), st.dates()),
    "m": (Type("time", native="time without time zone", dialect="postgresql"), st.times()),
    "s": (Type("timestamp", native="timestamp without time zone", dialect="postgresql"), st.datetimes()),
    "z": (
        Type("timestamptz", native="timestamp with time zone", dialect="postgresql"),
        st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC)),
    ),
}


def _same(row: tuple[Any, ...]) -> str:
    """Equal for equal values only, with the sign of zero and the digits of decimals, whatever the zone is called."""
    shown = [one.astimezone(UTC) if isinstance(one, datetime) and one.tzinfo else one for one in row]
    return repr([one.replace(fold=0) if isinstance(one, datetime | clock) else one for one in shown])


_ROW = st.tuples(*(values | st.none() for _, values in _VALUES.values()))


@pytest.mark.parametrize("way", ["rows", "pgpq", "csv"])
def test_any_values_come_as_they_are(sink: Sink, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rainbow_prefect.sql_etl.arrow_types import batches_of

    kinds = {name: kind for name, (kind, _) in _VALUES.items() if way != "csv" or name != "y"}
    at = [list(_VALUES).index(name) for name in kinds]
    schema = Schema(tuple(Column(name, kind) for name, kind in kinds.items()))
    if way == "csv":
        monkeypatch.setattr(postgres_arrow, "find_spec", lambda name: None)
    writer = sink.writer()
    sink.run(f"create table t ({', '.join(f'{name} {kind}' for name, kind in kinds.items())})")

    @settings(max_examples=40, deadline=None, database=None, phases=[Phase.generate])
    @given(st.lists(_ROW, min_size=1, max_size=20))
    def check(rows: Rows) -> None:
        rows = [tuple(row[one] for one in at) for row in rows]
        load = job("replace", uuid.uuid4().hex, schema=schema, options={"replace_strategy": "truncate"})
        assert writer.begin(load, writer.describe((None, "t")))
        read = (
            writer.write_rows(iter([rows])) if way == "rows" else writer.write_batches(batches_of(iter([rows]), schema))
        )
        writer.commit(writer.finish(Counts(read=read)))

        assert sorted(map(_same, sink.rows("select * from t"))) == sorted(map(_same, rows))

    check()
