"""Reads from a real PostgreSQL: types and values on each lane, queries and names, rights, faults, cancelling."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from rainbow_prefect.errors import Cancelled
from rainbow_prefect.sql_etl.base import BadValue, Lane, Passing, Query, Refused, Session
from rainbow_prefect.sql_etl.postgres import open_reader
from rainbow_prefect.sql_etl.postgres_reader import PostgresReader

BYTES: tuple[Lane, ...] = ("pg_binary", "pg_text", "csv")
FORMATS: dict[Lane, str] = {"pg_binary": "binary", "pg_text": "text", "csv": "csv"}

SETUP = """
create type mood as enum ('sad', 'ok', 'very happy');
create domain posint as int check (value > 0);
create type pair as (a int, b text);
"""

CELLS: list[tuple[str, str]] = [
    ("bool", "true"),
    ("int2", "'-32768'"),
    ("int4", "2147483647"),
    ("int8", "'-9223372036854775808'"),
    ("oid", "4294967295"),
    ("float4", "1.1"),
    ("float4", "'NaN'"),
    ("float8", "0.1"),
    ("float8", "1.7976931348623157e308"),
    ("float8", "'-Infinity'"),
    ("float8", "'NaN'"),
    ("numeric(38,10)", "1234567890123456789012345678.0123456789"),
    ("numeric(38,10)", "'-0.0000000001'"),
    ("numeric(38,10)", "9999999999999999999999999999.9999999999"),
    ("numeric(38,10)", "'NaN'"),
    ("numeric(15,2)", "0.10"),
    ("numeric(10,6)", "44.123456"),
    ("numeric(60,5)", "1234567890123456789012345678901234567890.12345"),
    ("numeric(3,-2)", "12300"),
    ("numeric(3,5)", "0.00123"),
    ("numeric", "12345678901234567890.123456789012345"),
    ("numeric", "1.12345678901234567890"),
    ("numeric", "1e100"),
    ("numeric", "'NaN'"),
    ("numeric", "'Infinity'"),
    ("text", "''"),
    ("text", r"'\N'"),
    ("text", "'NULL'"),
    ("text", r"'\.'"),
    ("text", "E'tab\\t lf\\n cr\\r crlf\\r\\n backslash\\\\ q'' dq\" comma, $$ %s :name {{ }}'"),
    ("text", "E'é e\\u0301 中 😀 \\u202e\\u200d\\ufeff'"),
    ("text", "E'\\ufeffstarts'"),
    ("text", "repeat('x', 1000000)"),
    ("varchar(20)", "'abc '"),
    ("char(5)", "'ab'"),
    ('"char"', "'x'"),
    ("name", "'pg'"),
    ("date", "'0001-01-01'"),
    ("date", "'0044-03-15 BC'"),
    ("date", "'infinity'"),
    ("date", "'9999-12-31'"),
    ("timestamp", "'2024-03-31 02:30:00.123456'"),
    ("timestamp(3)", "'2024-03-31 02:30:00.123'"),
    ("timestamp", "'294276-12-31 23:59:59'"),
    ("timestamptz", "'2024-02-29 12:34:56.123456+05:30'"),
    ("timestamptz", "'9999-12-31 23:59:59.999999Z'"),
    ("timestamptz", "'-infinity'"),
    ("time", "'23:59:59.999999'"),
    ("time", "'24:00:00'"),
    ("timetz", "'23:59:59+05:30'"),
    ("interval", "'1 year 2 mons 3 days 04:05:06.7'"),
    ("interval", "'100000 years 1 mon -1 days'"),
    ("interval(2)", "'1 day 00:00:01.25'"),
    ("json", """'{"a": 1,  "a":2}'"""),
    ("json", "'null'"),
    ("jsonb", """'{"a": [1, null]}'"""),
    ("jsonb", "'null'"),
    ("int[]", "'{1,NULL,3}'"),
    ("int[]", "'{}'"),
    ("int[]", "'{{1,2},{3,4}}'"),
    ("int[]", "'[5:6]={1,2}'"),
    ("text[]", """'{a,"b c",NULL,"NULL","",""}'"""),
    ("numeric(10,2)[]", "'{1.50,2.25}'"),
    ("mood[]", "'{sad,\"very happy\"}'"),
    ("mood", "'very happy'"),
    ("posint", "7"),
    ("pair", "'(1,\"x y\")'"),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"),
    ("bytea", r"'\xdeadbeef00'"),
    ("bytea", r"'\x'"),
    ("inet", "'10.0.0.1/8'"),
    ("cidr", "'10.0.0.0/8'"),
    ("macaddr", "'08:00:2b:01:02:03'"),
    ("xml", "'<a>x</a>'"),
    ("int4range", "'[1,5)'"),
    ("int4multirange", "'{[1,5),[7,9)}'"),
    ("money", "'12.34'"),
    ("bit(3)", "B'101'"),
    ("varbit", "B'10101'"),
    ("tsvector", "'a b'"),
    ("point", "'(1,2)'"),
    ("pg_lsn", "'16/B374D848'"),
]


class Settings:
    schema_name: str | None = None
    lock_timeout_seconds = 30.0
    statement_timeout_seconds: float | None = None
    connect_args: dict[str, Any] = {}

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class Source:
    """A database of a test, and the readers that were opened on it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.admin = psycopg.connect(url, autocommit=True)
        self.opened: list[PostgresReader] = []
        self.roles: list[str] = []

    def run(self, sql: str) -> None:
        self.admin.execute(sql.encode())

    def text(self, sql: str) -> Any:
        row = self.admin.execute(sql.encode()).fetchone()
        return row and row[0]

    def reader(self, session: Session | None = None, *, url: str | None = None, **values: Any) -> PostgresReader:
        made = open_reader(make_url(url or self.url), session or Session(name="rainbow test"), Settings(**values))
        assert isinstance(made, PostgresReader)
        self.opened.append(made)
        return made

    def role(self) -> tuple[str, str]:
        """A new role that may log in, and the URL it does it with."""
        name = f"reader_{uuid.uuid4().hex[:12]}"
        self.run(f"create role {name} login password 'Tops3cret'")
        self.roles.append(name)
        return name, make_url(self.url).set(username=name, password="Tops3cret").render_as_string(hide_password=False)

    def close(self) -> None:
        for one in self.opened:
            one.close()
        for name in self.roles:
            self.run(f"drop owned by {name}; drop role {name}")
        self.admin.close()


@pytest.fixture
def source(postgres: str) -> Iterator[Source]:
    made = Source(postgres)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(module_postgres: str) -> Iterator[Source]:
    """One database for tests that make no tables of the same name."""
    made = Source(module_postgres)
    made.run(SETUP)
    yield made
    made.close()


def rows(reader: PostgresReader, query: Query | str) -> list[tuple[Any, ...]]:
    asked = Query(sql=query) if isinstance(query, str) else query
    return [row for some in reader.rows(asked, reader.describe(asked)) for row in some]


def refusal(reader: PostgresReader, query: Query | str) -> str:
    with pytest.raises(Refused) as raised:
        reader.describe(Query(sql=query) if isinstance(query, str) else query)
    return raised.value.message


def wait_until(is_so: Callable[[], Any], *, within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not is_so():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


# -- values


def test_every_type_comes_through_bytes_as_it_was(shared: Source) -> None:
    columns = ", ".join(f"c{n} {kind}" for n, (kind, _) in enumerate(CELLS))
    values = ", ".join(f"{value}::{kind}" for kind, value in CELLS)
    shared.run(f"create table cells ({columns}); insert into cells select {values}; insert into cells default values")
    expected = shared.admin.execute("select t::text from cells t order by 1").fetchall()
    reader = shared.reader()
    query = Query(table=(None, "cells"))
    schema = reader.describe(query)

    for lane in BYTES:
        shared.run("drop table if exists copied; create table copied (like cells)")
        with shared.admin.cursor().copy(f"copy copied from stdin (format {FORMATS[lane]})".encode()) as copy:
            for chunk in reader.chunks(query, schema, lane):
                copy.write(chunk)
        assert reader.count == 2
        assert shared.admin.execute("select t::text from copied t order by 1").fetchall() == expected, lane


@pytest.mark.parametrize(("kind", "value"), CELLS, ids=[f"{kind} {value[:30]}" for kind, value in CELLS])
def test_rows_have_the_value_or_its_text(shared: Source, kind: str, value: str) -> None:
    reader = shared.reader()
    ((found, nothing),) = rows(reader, f"select {value}::{kind} as a, null::{kind} as b")
    reader.close()

    assert nothing is None
    assert isinstance(found, bool | int | float | Decimal | str | bytes | date | datetime | type(datetime.min.time()))
    shown = found.hex() if isinstance(found, bytes) else found
    back = f"encode(('\\x{shown}')::bytea, 'hex')" if isinstance(found, bytes) else f"(%s::{kind})::text"
    wanted = f"encode({value}::{kind}, 'hex')" if isinstance(found, bytes) else f"({value}::{kind})::text"
    values = [] if isinstance(found, bytes) else [found if isinstance(found, str) else str(found)]
    assert shared.admin.execute(f"select {back}".encode(), values).fetchone() == (shared.text(f"select {wanted}"),)


NOT_IN_ARROW = {
    ("numeric(38,10)", "'NaN'"): "column 'a', row 1: the value 'NaN' cannot be decimal128(38, 10)",
    ("date", "'infinity'"): "column 'a', row 1: the value 'infinity' cannot be date32[day]",
    ("timestamptz", "'-infinity'"): "column 'a', row 1: the value '-infinity' cannot be timestamp[us, tz=UTC]",
    (
        "timestamp",
        "'294276-12-31 23:59:59'",
    ): "column 'a', row 1: the value '294276-12-31 23:59:59' cannot be timestamp[us]",
    ("time", "'24:00:00'"): "column 'a', row 1: the value '24:00:00' cannot be time64[us]",
    ("int[]", "'{{1,2},{3,4}}'"): "column 'a', row 1: the value '{{1,2},{3,4}}' cannot be list<item: int32>",
    ("int[]", "'[5:6]={1,2}'"): "column 'a', row 1: the value '[5:6]={1,2}' cannot be list<item: int32>",
}


@pytest.mark.parametrize(("kind", "value"), CELLS, ids=[f"{kind} {value[:30]}" for kind, value in CELLS])
def test_arrow_has_the_same_values_as_rows(shared: Source, kind: str, value: str) -> None:
    from rainbow_prefect.sql_etl.arrow_types import batches_of

    reader = shared.reader()
    query = Query(sql=f"select {value}::{kind} as a, null::{kind} as b")
    schema = reader.describe(query)
    error = NOT_IN_ARROW.get((kind, value))

    if error is not None:
        with pytest.raises(BadValue) as raised:
            list(reader.batches(query, schema))
        assert raised.value.message.startswith(error)
    else:
        (found,) = reader.batches(query, schema)
        (wanted,) = batches_of(reader.rows(query, schema), schema)
        assert found.schema.equals(wanted.schema, check_metadata=True)
        assert found.equals(wanted) or "NaN" in value
        assert str(found.column(0)) == str(wanted.column(0))
    reader.close()


def test_arrow_of_many_rows_is_exact(shared: Source) -> None:
    sql = (
        "select i, (i / 7.0)::numeric(20,6) as d, case when i % 3 > 0 then 'a\n\"' || i end as t,"
        " timestamptz '2024-01-01 00:00Z' + i * interval '1.5 s' as z, i % 2 = 0 as b, ''::text as e"
        " from generate_series(1, 150000) i"
    )
    reader = shared.reader()
    query = Query(sql=sql)
    schema = reader.describe(query)
    batches = list(reader.batches(query, schema))

    assert len(batches) > 1
    assert sum(one.num_rows for one in batches) == reader.count == 150_000
    found = [tuple(row.values()) for one in batches for row in one.to_pylist()]
    assert found == [
        (i, d, t, z.replace(tzinfo=UTC), b, e)
        for i, d, t, z, b, e in (row for some in reader.rows(query, schema) for row in some)
    ]


def test_arrow_names_the_row_of_a_late_value(shared: Source) -> None:
    reader = shared.reader()
    query = Query(
        sql="select case i when 200000 then 'infinity' else date '2024-01-01' end as d from generate_series(1, 600000) i"
    )

    with pytest.raises(BadValue) as raised:
        list(reader.batches(query, reader.describe(query)))

    assert raised.value.message.startswith("column 'd', row 200000: the value 'infinity' cannot be date32[day]")


@pytest.mark.parametrize("lane", [*BYTES, "arrow", "rows"])
def test_no_rows_are_no_rows(shared: Source, lane: Lane) -> None:
    reader = shared.reader()
    query = Query(sql="select 1 as a, 'x'::text as b where false")
    schema = reader.describe(query)

    if lane == "rows":
        assert list(reader.rows(query, schema)) == []
    elif lane == "arrow":
        (batch,) = reader.batches(query, schema)
        assert (batch.num_rows, str(batch.schema.field("a").type)) == (0, "int32")
    else:
        made = b"".join(reader.chunks(query, schema, lane))
        assert made == (b"" if lane != "pg_binary" else b"PGCOPY\n\xff\r\n\0" + b"\0" * 8 + b"\xff\xff")
    assert reader.count == 0


@pytest.mark.parametrize("count", [1, 7, 8, 9, 999, 1000, 1001, 100_003])
def test_no_row_is_lost_or_doubled(shared: Source, count: int) -> None:
    reader = shared.reader()
    query = Query(sql=f"select i from generate_series(1, {count}) i")
    schema = reader.describe(query)

    assert [row[0] for some in reader.rows(query, schema) for row in some] == list(range(1, count + 1))
    assert b"".join(reader.chunks(query, schema, "pg_text")) == b"".join(b"%d\n" % i for i in range(1, count + 1))
    assert [i for one in reader.batches(query, schema) for i in one.column(0).to_pylist()] == list(range(1, count + 1))


def test_chunks_are_large_and_of_whole_rows(shared: Source) -> None:
    reader = shared.reader()
    query = Query(sql="select i, repeat('x', 100) from generate_series(1, 20000) i")
    chunks = list(reader.chunks(query, reader.describe(query), "pg_text"))

    assert min(map(len, chunks[:-1])) >= 128 * 1024
    assert all(one.endswith(b"\n") for one in chunks)


TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
VALUES = st.tuples(
    st.none() | TEXTS,
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.floats(),
    st.none() | st.decimals(allow_nan=False, allow_infinity=False, places=5, min_value=-(10**20), max_value=10**20),
    st.none() | st.binary(max_size=20),
    st.none() | st.datetimes(timezones=st.just(UTC)),
    st.none() | st.lists(st.none() | TEXTS, max_size=3),
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(VALUES, max_size=30))
def test_any_rows_are_the_same_on_every_lane(shared: Source, made: list[tuple[Any, ...]]) -> None:
    shared.run("drop table if exists made, other")
    columns = "n int, a text, b int8, c float8, d numeric(30,5), e bytea, f timestamptz, g text[]"
    shared.run(f"create table made ({columns}); create table other ({columns})")
    with shared.admin.cursor() as cursor:
        cursor.executemany(
            "insert into made values (%s,%s,%s,%s,%s,%s,%s,%s)", [(n, *row) for n, row in enumerate(made)]
        )
    expected = shared.admin.execute("select t::text from made t order by n").fetchall()
    with closing(shared.reader()) as reader:
        query = Query(table=(None, "made"))
        schema = reader.describe(query)

        for lane in BYTES:
            shared.run("truncate other")
            with shared.admin.cursor().copy(f"copy other from stdin (format {FORMATS[lane]})".encode()) as copy:
                for chunk in reader.chunks(query, schema, lane):
                    copy.write(chunk)
            assert shared.admin.execute("select t::text from other t order by n").fetchall() == expected, lane
        found = sorted(row for some in reader.rows(query, schema) for row in some)
        assert [row[:2] + row[2:3] + row[4:7] for row in found] == [
            (n, row[0], row[1], *row[3:6]) for n, row in enumerate(made)
        ]
        arrow = sorted(
            (tuple(one.values()) for batch in reader.batches(query, schema) for one in batch.to_pylist()),
            key=lambda row: row[0],
        )
        assert [(row[1], row[2], row[4], row[5], row[6], row[7]) for row in arrow] == [
            (row[0], row[1], row[3], row[4], row[5], row[6]) for row in made
        ]


# -- sessions


def test_time_zones_of_others_shift_nothing(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    database = make_url(source.url).database
    source.run(f"alter database {database} set timezone = 'Asia/Kolkata'")
    source.run(
        f"alter database {database} set datestyle = 'German, DMY'; alter database {database} set bytea_output = 'escape'"
    )
    source.run(
        f"alter database {database} set intervalstyle = 'iso_8601'; alter database {database} set extra_float_digits = 0"
    )
    monkeypatch.setenv("TZ", "Pacific/Apia")
    monkeypatch.setenv("PGTZ", "America/New_York")
    time.tzset()
    try:
        reader = source.reader()
        query = Query(
            sql="select timestamptz '2024-02-29 12:34:56.123456+05:30' as z, timestamp '2024-03-31 02:30' as n,"
            r" interval '1 day 2 hours' as i, '\x00ff'::bytea as b, 0.1::float8 + 0.2 as f"
        )
        schema = reader.describe(query)
        text = b"".join(reader.chunks(query, schema, "pg_text"))
        (row,) = rows(reader, query)
    finally:
        monkeypatch.undo()
        time.tzset()

    assert (
        text == b"2024-02-29 07:04:56.123456+00\t2024-03-31 02:30:00\t1 day 02:00:00\t\\\\x00ff\t0.30000000000000004\n"
    )
    assert row == (
        datetime(2024, 2, 29, 7, 4, 56, 123456, UTC),
        datetime(2024, 3, 31, 2, 30),
        "1 day 02:00:00",
        b"\x00\xff",
        0.30000000000000004,
    )


@pytest.mark.parametrize("driver", ["", "+psycopg", "+psycopg2", "+asyncpg", "+pg8000"])
def test_any_driver_in_the_url_will_do(shared: Source, driver: str) -> None:
    ssl = "?ssl=prefer" if driver == "+asyncpg" else "?sslmode=prefer&application_name=mine"
    reader = shared.reader(url=shared.url.replace("postgresql:", f"postgresql{driver}:") + ssl)

    assert reader.value("select current_setting('transaction_read_only')") == "on"
    reader.close()


def test_server_sees_who_it_is_and_the_limits(shared: Source) -> None:
    reader = shared.reader(
        Session(name="rainbow nightly.orders"), statement_timeout_seconds=1.5, lock_timeout_seconds=2
    )

    names = (
        "application_name",
        "statement_timeout",
        "lock_timeout",
        "transaction_isolation",
        "row_security",
        "timezone",
    )
    assert [reader.value(f"select current_setting('{one}')") for one in names] == [
        "rainbow nightly.orders",
        "1500ms",
        "2s",
        "repeatable read",
        "off",
        "UTC",
    ]
    with pytest.raises(Passing, match="statement timeout"):
        reader.value("select pg_sleep(30)")
    reader.close()


def test_ssl_that_the_server_has_not_is_told(shared: Source) -> None:
    with pytest.raises(Refused, match="does not support SSL") as raised:
        shared.reader(url=f"{shared.url}?sslmode=require")

    assert str(make_url(shared.url).password) not in raised.value.message


def test_nobody_answers_is_passing_and_shows_no_password() -> None:
    with pytest.raises(Passing) as raised:
        open_reader(make_url("postgresql://u:Tops3cret@127.0.0.1:1/db"), Session(), Settings())

    assert "Connection refused" in raised.value.message
    assert "Tops3cret" not in raised.value.message


def test_nothing_shows_the_password(shared: Source) -> None:
    reader = shared.reader()
    password = str(make_url(shared.url).password)

    assert password not in repr(reader)
    assert password not in refusal(reader, "select nothing")


def test_all_questions_see_one_snapshot(source: Source) -> None:
    source.run("create table t as select i from generate_series(1, 10) i")
    reader = source.reader()
    schema = reader.describe(query := Query(table=(None, "t")))
    source.run("insert into t values (11)")

    assert reader.value("select max(i) from t") == 10
    assert len(b"".join(reader.chunks(query, schema, "pg_text")).splitlines()) == 10
    assert len(rows(reader, query)) == 10


def test_schema_of_the_settings_comes_first(source: Source) -> None:
    source.run(
        'create schema "My Mart"; create table "My Mart".t as select 1 as a; create table t as select 2 as a; create table u as select 3 as a'
    )
    reader = source.reader(schema_name="My Mart")

    assert rows(reader, "select a from t") == [(1,)]
    assert rows(reader, Query(table=(None, "t"))) == [(1,)]
    assert rows(reader, Query(table=("public", "t"))) == [(2,)]
    assert rows(reader, "select a from u") == [(3,)]


# -- queries


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        ("select 'a%a' like '%a%', 5 % 3", (True, 2)),
        ("select '1'::text, '{\"a\": 1}'::jsonb @> '{}'::jsonb, '{\"a\": 1}'::jsonb ? 'a'", ("1", True, True)),
        ("select ':name', '{{ not.a.thing }}', '%(x)s', '$1', '?'", (":name", "{{ not.a.thing }}", "%(x)s", "$1", "?")),
        ("select 1;", (1,)),
        ("  select 1 ; \n -- the end; really\n", (1,)),
        ("select 1 /* a; b /* c; */ */ ; /* d; */", (1,)),
        ("-- first\nselect ';' as a -- last", (";",)),
        ("select $$;$$, E'\\';' ;", (";", "';")),
        ("with a as (select 1 as x) select x from a order by 1;", (1,)),
        ("values (1, 'a')", (1, "a")),
        ("select 1 union all select 2 limit 1", (1,)),
        ("(select 7);", (7,)),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_query_reaches_the_server_as_it_is(shared: Source, sql: str, wanted: tuple[Any, ...]) -> None:
    reader = shared.reader()
    query = Query(sql=sql)
    named = _named(reader.statement(query), len(wanted))

    assert [row for some in reader.rows(query, reader.describe(named)) for row in some] == [wanted]
    reader.close()


def _named(statement: str, count: int) -> Query:
    """The same with names for its columns, which the queries of the test have not."""
    names = ", ".join(f"c{n}" for n in range(count))
    return Query(sql=f"select * from ({statement}\n) as q ({names})")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("", "the query of the source is empty; write one SELECT"),
        (
            "select 1; drop table t",
            "the query of the source: cannot insert multiple commands into a prepared statement (SQLSTATE 42601)",
        ),
        (
            "select 1,\n  nothing from t",
            'the query of the source, line 2, column 3: column "nothing" does not exist (SQLSTATE 42703)',
        ),
        (
            "select '😀',\n  nothing from t",
            'the query of the source, line 2, column 3: column "nothing" does not exist (SQLSTATE 42703)',
        ),
        (
            "selec 1",
            'the query of the source, line 1, column 1: syntax error at or near "selec" (SQLSTATE 42601)',
        ),
        ("create table x (a int)", "the query of the source gives no rows; write a SELECT"),
        ("select a into u from t", "the query of the source gives no rows; write a SELECT"),
        (
            "insert into t values (3) returning a",
            "the query of the source is no SELECT, VALUES or TABLE, which alone can be read here; write a SELECT",
        ),
        (
            "show timezone",
            "the query of the source is no SELECT, VALUES or TABLE, which alone can be read here; write a SELECT",
        ),
        (
            "with x as (delete from t returning a) select a from x",
            "the query of the source: DECLARE CURSOR must not contain data-modifying statements in WITH (SQLSTATE 0A000)",
        ),
        (
            "select a from t for update",
            "the query of the source: cannot execute SELECT FOR UPDATE in a read-only transaction (SQLSTATE 25006)",
        ),
        (
            "select a from t where a = $1",
            "the query of the source has 1 parameters ($1), which nobody fills; write their values",
        ),
        (
            "select 1 as a, 2 as b, 3 as a",
            "the columns 1 and 3 of the query are both named 'a'; name each once with AS",
        ),
        (
            f'select 1 as "{"é" * 32}"',
            f'the query of the source: identifier "{"é" * 32}" will be truncated to "{"é" * 31}";'
            " PostgreSQL takes 63 bytes: shorten the name",
        ),
    ],
    ids=lambda value: value[:40],
)
def test_refused_query_says_why_and_where(source: Source, sql: str, message: str) -> None:
    source.run("create table t as select 1 as a")
    reader = source.reader()

    assert refusal(reader, sql) == message
    assert rows(reader, "select a from t") == [(1,)]  # the session goes on


def test_side_effects_are_refused(source: Source) -> None:
    source.run("create sequence s")
    reader = source.reader()
    query = Query(sql="select nextval('s') as n")

    with pytest.raises(Refused, match=r"cannot execute nextval\(\) in a read-only transaction"):
        rows(reader, query)
    assert source.text("select is_called from s") is False


NAMES = [
    "select",
    "user",
    "a b",
    'a"b',
    "a.b",
    "é",
    "CamelCase",
    "id",
    "ID",
    "x" * 63,
    "%s",
    "a:b",
    "?column?",
    "中" * 21,
]


def test_names_are_kept_exactly(source: Source) -> None:
    listed = ", ".join('{} as "{}"'.format(n, name.replace('"', '""')) for n, name in enumerate(NAMES))
    source.run(f'create table "Order" as select {listed}')
    reader = source.reader()

    for query in (Query(table=(None, "Order")), Query(sql='select * from "Order"')):
        schema = reader.describe(query)
        assert schema.names == tuple(NAMES)
        assert rows(reader, query) == [tuple(range(len(NAMES)))]
        (batch,) = reader.batches(query, schema)
        assert batch.schema.names == NAMES


def test_columns_and_where_are_sql_of_the_source(source: Source) -> None:
    source.run(
        "create table t (a int primary key, b text not null); comment on column t.b is 'the b'; insert into t values (1,'x'),(2,'y'),(3,'z')"
    )
    reader = source.reader()

    for base in ({"table": (None, "t")}, {"sql": "select * from t; -- all"}):
        query = Query(**base, where=("a > 1 -- not the first", "b <> 'z'"), columns=(("B", "upper(b)"), ("a", "a")))  # type: ignore[arg-type]
        assert rows(reader, query) == [("Y", 2)]
    table = reader.describe(Query(table=(None, "t"), columns=(("a", "a"), ("c", "b"))))
    assert [(one.name, one.nullable, one.comment) for one in table.columns] == [("a", False, ""), ("c", False, "the b")]
    assert table.keys == ("a",)
    assert reader.describe(Query(table=(None, "t"), columns=(("a", "a + 1"),))).keys == ()


def test_plain_table_has_its_keys_comments_and_nulls(source: Source) -> None:
    source.run(
        "create domain must as text not null; create table t (gone int, b text not null, a int, c must, primary key (a, b));"
        " alter table t drop column gone; comment on table t is 'the t'; comment on column t.c is 'the c'"
    )
    reader = source.reader()
    schema = reader.describe(Query(table=(None, "t")))

    assert (schema.keys, schema.comment) == (("a", "b"), "the t")
    assert [(one.name, str(one.type), one.nullable, one.comment) for one in schema.columns] == [
        ("b", "text", False, ""),
        ("a", "integer", False, ""),
        ("c", "text", False, "the c"),
    ]
    assert [one.nullable for one in reader.describe(Query(sql="select * from t")).columns] == [True, True, True]


def test_column_dropped_meanwhile_does_not_matter(source: Source) -> None:
    source.run("create table t (a int not null, b int, c text not null); alter table t drop column b")
    schema = source.reader().describe(Query(table=("public", "t")))

    assert [(one.name, one.nullable) for one in schema.columns] == [("a", False), ("c", False)]


def test_table_that_is_not_there_has_a_hint(source: Source) -> None:
    source.run("create table orders ()")
    reader = source.reader()

    assert refusal(reader, Query(table=(None, "order"))) == "the source has no table 'order'; did you mean 'orders'?"


# -- rights


def test_missing_rights_say_what_to_grant(source: Source) -> None:
    source.run("create schema mart; create table mart.orders (a int); create table public.plain (a int)")
    role, url = source.role()
    reader = source.reader(url=url)

    assert refusal(reader, Query(table=("mart", "orders"))) == (
        f"the table 'mart.orders' may not be read; run: GRANT USAGE ON SCHEMA \"mart\" TO {role}"
    )
    assert refusal(reader, "select * from mart.orders") == (
        "the query of the source, line 1, column 15: permission denied for schema mart (SQLSTATE 42501);"
        f" run: GRANT USAGE ON SCHEMA mart TO {role}"
    )
    source.run(f"grant usage on schema mart, public to {role}")
    assert refusal(reader, Query(table=("mart", "orders"))) == (
        f'the table \'mart.orders\' may not be read; run: GRANT SELECT ON "mart"."orders" TO {role}'
    )
    assert refusal(reader, "select * from plain") == (
        f"the query of the source: permission denied for table plain (SQLSTATE 42501); run: GRANT SELECT ON plain TO {role}"
    )
    source.run(f"grant select on mart.orders to {role}")
    assert reader.describe(Query(table=("mart", "orders"))).names == ("a",)


def test_policies_that_hide_rows_are_refused(source: Source) -> None:
    source.run("create table t as select i as a from generate_series(1, 3) i; alter table t enable row level security")
    source.run("create policy one on t using (a = 1)")
    role, url = source.role()
    source.run(f"grant select on t to {role}; grant usage on schema public to {role}")

    assert refusal(source.reader(url=url), "select a from t") == (
        'the query of the source: query would be affected by row-level security policy for table "t" (SQLSTATE 42501); its policies'
        f" hide rows from the role; run: ALTER ROLE {role} BYPASSRLS, or read as its owner"
    )
    assert rows(source.reader(url=url, strict_rls=False), "select a from t") == [(1,)]


# -- faults


ENDLESS = "select generate_series(1, 100000000) as i, repeat('x', 200) as t"


@pytest.mark.parametrize("lane", [*BYTES, "arrow", "rows"])
def test_killed_backend_in_mid_stream_is_passing(shared: Source, lane: Lane) -> None:
    with closing(shared.reader()) as reader:
        pieces = _pieces(reader, Query(sql=ENDLESS), lane)
        assert next(pieces)
        shared.admin.execute("select pg_terminate_backend(%s)", [_pid(reader)])

        with pytest.raises(Passing, match="terminat|lost"):
            for _ in pieces:
                pass
    assert reader.count is None


def _pieces(reader: PostgresReader, query: Query, lane: Lane) -> Iterator[Any]:
    schema = reader.describe(query)
    if lane == "rows":
        return reader.rows(query, schema)
    return reader.batches(query, schema) if lane == "arrow" else reader.chunks(query, schema, lane)


@pytest.mark.parametrize("lane", ["pg_binary", "rows"])
def test_error_in_mid_stream_is_no_end(shared: Source, lane: Lane) -> None:
    reader = shared.reader()

    with pytest.raises(BadValue, match="division by zero"):
        list(_pieces(reader, Query(sql="select 1 / (100000 - i) as a from generate_series(1, 200000) i"), lane))


def test_lock_that_is_not_free_is_passing(source: Source) -> None:
    source.run("create table t (a int)")
    with psycopg.connect(source.url) as other:
        other.execute("lock table t in access exclusive mode")

        with pytest.raises(Passing, match="lock timeout"):
            source.reader(lock_timeout_seconds=0.1).describe(Query(sql="select * from t"))


@pytest.mark.parametrize("sql", ["select pg_sleep(600) is null as a", ENDLESS])
@pytest.mark.parametrize("lane", ["pg_binary", "rows"])
def test_cancel_ends_the_server_side_within_seconds(shared: Source, sql: str, lane: Lane) -> None:
    reader = shared.reader()
    ended: list[BaseException] = []

    def read() -> None:
        try:
            for _ in _pieces(reader, Query(sql=sql), lane):
                pass
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    is_busy = f"select state = 'active' and query ~ 'pg_sleep|generate_series' from pg_stat_activity where pid = {_pid(reader)}"
    wait_until(lambda: shared.text(is_busy))
    begun = time.monotonic()
    reader.cancel()
    thread.join(60)

    assert not thread.is_alive()
    assert time.monotonic() - begun < 20
    assert [type(one) for one in ended] == [Cancelled]
    wait_until(lambda: not shared.text(is_busy))
    reader.close()


def test_cancel_before_the_server_has_begun_is_no_less(shared: Source) -> None:
    with closing(shared.reader()) as reader:
        reader.describe(query := Query(sql=ENDLESS))
        reader.cancel()

        with pytest.raises(Cancelled):
            list(reader.chunks(query, reader.describe(query), "pg_binary"))


@pytest.mark.parametrize("pause", [0, 1])
def test_stop_of_the_session_ends_a_stream(shared: Source, pause: float) -> None:
    session = Session()
    with closing(shared.reader(session)) as reader:
        pieces, pid = _pieces(reader, Query(sql=ENDLESS), "pg_binary"), _pid(reader)
        next(pieces)
        time.sleep(pause)  # the server is sending, or waits for a reader of what it sent
        session.stop.set()

        with pytest.raises(Cancelled, match="cancelled; nothing was written"):
            for _ in pieces:
                pass
        begun = time.monotonic()
        wait_until(lambda: not shared.text(f"select state = 'active' from pg_stat_activity where pid = {pid}"))
        assert time.monotonic() - begun < 20


def _pid(reader: PostgresReader) -> int:
    return reader._connection.info.backend_pid


def test_closed_reader_leaves_no_backend(shared: Source) -> None:
    reader = shared.reader()
    pieces = _pieces(reader, Query(sql=ENDLESS), "pg_binary")
    next(pieces)
    pid = _pid(reader)
    reader.close()

    wait_until(lambda: not shared.text(f"select true from pg_stat_activity where pid = {pid}"))


def test_bytes_of_an_undeclared_encoding_are_told(postgres_server: str) -> None:
    name = f"test_{uuid.uuid4().hex[:16]}"
    admin = psycopg.connect(postgres_server, autocommit=True)
    admin.execute(f"create database {name} template template0 encoding 'SQL_ASCII'".encode())
    try:
        reader = open_reader(make_url(f"{postgres_server.rpartition('/')[0]}/{name}"), Session(), Settings())
        assert isinstance(reader, PostgresReader)
        with pytest.raises(BadValue, match='invalid byte sequence for encoding "UTF8": 0xe9 '):
            rows(reader, "select convert_from('\\xe9'::bytea, 'SQL_ASCII') as a")
        reader.close()
    finally:
        with suppress(psycopg.errors.QueryCanceled):
            admin.execute("set statement_timeout = '20s'")
            admin.execute(f"drop database {name} with (force)".encode())
        admin.close()


# -- questions


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "text"),
        (True, "bool"),
        (-5, "int"),
        (0.1, "float8"),
        (float("inf"), "float8"),
        (Decimal("1.10"), "numeric"),
        ("a'b\\n:x %s", "text"),
        (b"\x00'", "bytea"),
        (date(2024, 2, 29), "date"),
        (datetime(2024, 1, 1, 2, 3, 4, 5), "timestamp"),
        (datetime(2024, 1, 1, tzinfo=UTC), "timestamptz"),
    ],
)
def test_literal_is_the_value(shared: Source, value: Any, kind: str) -> None:
    reader = shared.reader()

    assert reader.value(f"select 1 - 1 * 0, ({reader.literal(value)})::{kind}".replace("1 - 1 * 0, ", "")) == value
    if value is not None:
        assert (
            reader.value(f"select ({reader.literal(value)})::{kind} is not distinct from {reader.literal(value)}")
            is True
        )
    reader.close()


def test_literal_of_a_span_and_of_what_has_none(shared: Source) -> None:
    reader = shared.reader()

    assert reader.value(f"select {reader.literal(timedelta(days=1, seconds=1))}") == "24:00:01"
    with pytest.raises(BadValue, match="cannot hold U\\+0000"):
        reader.literal("a\0b")
    with pytest.raises(BadValue, match="of type object cannot be written"):
        reader.literal(object())


def test_value_of_no_row_is_none_and_a_wrong_one_breaks_nothing(shared: Source) -> None:
    reader = shared.reader()

    assert reader.value("select 1 where false") is None
    with pytest.raises(Refused):
        reader.value("select 1; select 2")
    assert reader.value("select 'infinity'::date") == "infinity"


def test_estimate_is_the_planners(source: Source) -> None:
    source.run("create table t as select i from generate_series(1, 5000) i; analyze t")
    reader = source.reader()

    assert reader.estimate(Query(table=(None, "t"))) == 5000
    assert reader.estimate(Query(sql="select no such")) is None


# -- snapshots that several share


def test_reader_at_a_part_sees_what_the_first_one_saw(source: Source) -> None:
    source.run("create table t as select i from generate_series(1, 10) i")
    first = source.reader()
    query = Query(table=(None, "t"))
    (part,) = first.parts(query, first.describe(query), {"by": "i", "executors": 1})
    source.run("update t set i = i + 1; insert into t values (99)")
    second = source.reader()
    second.at(part)

    assert sorted(rows(second, query)) == [(i,) for i in range(1, 11)]


def test_snapshot_that_is_gone_is_passing(source: Source) -> None:
    first = source.reader()
    query = Query(sql="select 1 as a")
    (part,) = first.parts(query, first.describe(query), {"by": "a", "executors": 1})
    pid = first._connection.info.backend_pid
    first.close()
    second = source.reader()
    wait_until(lambda: not source.text(f"select true from pg_stat_activity where pid = {pid}"))

    with pytest.raises(Passing, match="the snapshot of the parts is gone"):
        second.at(part)


# -- memory

MEMORY = """
import resource, sys
from sqlalchemy.engine import make_url
from rainbow_prefect.sql_etl.base import Query, Session
from rainbow_prefect.sql_etl.postgres import open_reader

url, lane = sys.argv[1:]
reader = open_reader(make_url(url), Session())


def peak(sql):
    query = Query(sql=sql)
    schema = reader.describe(query)
    size = 0
    for one in reader.rows(query, schema) if lane == "rows" else reader.chunks(query, schema, lane):
        size += len(one)
    assert size
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


few = peak("select n as i, repeat('x', 100) as t from (select generate_series(1, 50000) as n) as s")
many = peak("select n as i, repeat('x', 100) as t from (select generate_series(1, 1000000) as n) as s")
print(few, many, "pyarrow" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.parametrize("lane", ["pg_binary", "rows"])
def test_memory_does_not_grow_with_the_rows(shared: Source, lane: str) -> None:
    command = [sys.executable, "-c", MEMORY, shared.url, lane]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)

    assert done.returncode == 0, done.stderr
    few, many, has_arrow = done.stdout.split()
    assert int(many) - int(few) <= 16  # MiB
    assert has_arrow == "False"


@pytest.mark.slow
def test_large_values_are_not_gathered(shared: Source) -> None:
    large = (
        MEMORY.replace("repeat('x', 100)", "repeat('x', 1000000)")
        .replace("50000)", "50)")
        .replace("1000000) as n", "400) as n")
    )
    done = subprocess.run(
        [sys.executable, "-c", large, shared.url, "rows"], capture_output=True, text=True, timeout=280
    )

    assert done.returncode == 0, done.stderr
    few, many, _ = done.stdout.split()
    assert int(many) - int(few) <= 32  # MiB of 400
