"""Loads into a real PostgreSQL: each mode, each lane, what is refused, and how errors are told."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from rainbow_prefect.sql_etl.base import BadValue, Counts, Job, Passing, Refused, Rows, Session
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
