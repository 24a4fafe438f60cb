"""Types of a real PostgreSQL from its catalogue and back, and what binary COPY may carry."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainbow_prefect.sql_etl.base import Refused
from rainbow_prefect.sql_etl.postgres_types import is_binary_equal, table_schema, type_of
from rainbow_prefect.sql_etl.types import Column, Schema, Type, fit

SETUP = """
create schema mart; create schema "a.b";
create type mood as enum ('sad', 'ok'); create type mart.mood as enum ('sad', 'ok'); create type "a.b".mood as enum ('sad', 'ok', 'new');
create domain posint as int check (value > 0); create domain twice as posint; create domain cash as numeric(10,2);
create type pair as (a int, b text); create type mart.pair as (a int, b text); create type "a.b".pair as (a int, b varchar(3));
create type span as range (subtype = float8); create type mart.span as range (subtype = float8);
create extension if not exists citext with schema mart;
"""


@pytest.fixture(scope="module")
def connection(module_postgres: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(module_postgres, autocommit=True) as made:
        try:
            made.execute(SETUP.encode())
        except psycopg.errors.FeatureNotSupported:  # the machine has no citext
            made.execute("\n".join(line for line in SETUP.splitlines() if "citext" not in line).encode())
        yield made


def column(connection: psycopg.Connection, kind: str) -> Column:
    connection.execute(f"drop table if exists one; create table one (c {kind})".encode())
    schema = table_schema(connection, "public", "one")
    assert schema is not None
    return schema["c"]


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("bool", Type("bool", native="boolean")),
        ("int2", Type("int", bits=16, native="smallint")),
        ("oid", Type("int", bits=32, unsigned=True, native="oid")),
        ("numeric", Type("decimal", native="numeric")),
        ("numeric(38,10)", Type("decimal", precision=38, scale=10, native="numeric(38,10)")),
        ("numeric(3,-2)", Type("decimal", precision=3, scale=-2, native="numeric(3,-2)")),
        ("numeric(1000,1000)", Type("decimal", precision=1000, scale=1000, native="numeric(1000,1000)")),
        ("varchar", Type("text", native="character varying")),
        ("varchar(20)", Type("text", length=20, native="character varying(20)")),
        ("char(5)", Type("text", length=5, fixed=True, native="character(5)")),
        ('"char"', Type("other", native='"char"')),
        ("timestamp(3)", Type("timestamp", precision=3, native="timestamp(3) without time zone")),
        ("timestamptz", Type("timestamptz", native="timestamp with time zone")),
        ("interval(2)", Type("interval", precision=2, native="interval(2)")),
        ("interval day to second(3)", Type("other", native="interval day to second(3)")),
        ("interval year", Type("other", native="interval year")),
        ("bit(3)", Type("other", native="bit(3)")),
        ("int2vector", Type("other", native="int2vector")),
        ("posint", Type("int", bits=32, native="integer")),
        ("twice", Type("int", bits=32, native="integer")),
        ("cash", Type("decimal", precision=10, scale=2, native="numeric(10,2)")),
        ("mood", Type("enum", labels=("sad", "ok"), native="public.mood")),
        ('"a.b".mood', Type("enum", labels=("sad", "ok", "new"), native='"a.b".mood')),
    ],
    ids=str,
)
def test_type_is_the_catalogues(connection: psycopg.Connection, kind: str, wanted: Type) -> None:
    found = column(connection, kind).type

    assert (found.dialect, str(found)) == ("postgresql", wanted.native)
    assert [getattr(found, one) for one in _FACTS] == [getattr(wanted, one) for one in _FACTS]


_FACTS = ("kind", "bits", "unsigned", "precision", "scale", "length", "fixed", "labels", "native")


def test_arrays_ranges_and_composites_have_their_parts(connection: psycopg.Connection) -> None:
    array = column(connection, "cash[]").type
    assert (array.kind, array.native, array.item and array.item.native) == ("array", "numeric(10,2)[]", "numeric(10,2)")
    assert column(connection, "mood[]").type.native == "public.mood[]"
    span = column(connection, "mart.span").type
    assert (span.kind, span.native, span.item and span.item.native) == ("other", "mart.span", "double precision")
    pair = column(connection, '"a.b".pair').type
    assert (pair.native, [(name, one.native) for name, one in pair.fields]) == (
        '"a.b".pair',
        [("a", "integer"), ("b", "character varying(3)")],
    )


SPELLED = [
    "int8",
    "numeric(38,10)",
    "varchar(20)",
    "char(5)",
    '"char"',
    "timestamp(3)",
    "timetz",
    "interval(2)",
    "interval year",
]
SPELLED += [
    "mood",
    '"a.b".mood',
    "pair",
    "span",
    "int4[]",
    "cash[]",
    "bit(3)",
    "int4multirange",
    "name",
    "uuid[]",
    "money",
    "xml",
    "jsonb",
]


@pytest.mark.parametrize("kind", SPELLED)
def test_own_spelling_makes_the_same_type(connection: psycopg.Connection, kind: str) -> None:
    first = column(connection, kind)
    again = column(connection, type_of(first))

    assert again == first
    assert is_binary_equal(first, again)
    assert fit(first.type, again.type) == "same"


@pytest.mark.parametrize(
    ("source", "sink", "equal"),
    [
        ("int8", "int8", True),
        ("posint", "int4", True),
        ("int4", "twice", True),
        ("mood", "mart.mood", True),
        ("mood", '"a.b".mood', False),
        ("mood[]", "mart.mood[]", True),
        ("mood[]", '"a.b".mood[]', False),
        ("pair", "mart.pair", True),
        ("pair", '"a.b".pair', False),
        ("span", "mart.span", True),
        ("numeric(10,4)", "numeric(10,2)", False),
        ("numeric(10,2)[]", "numeric(10,4)[]", False),
        ("varchar(20)", "varchar(3)", False),
        ("varchar(20)", "text", False),
        ("char(5)", "varchar(5)", False),
        ("int8", "float8", False),
        ("float8", "int8", False),
        ("date", "int4", False),
        ("jsonb", "text", False),
        ("json", "jsonb", False),
        ("bytea", "text", False),
        ("timestamptz", "timestamp", False),
        ("timestamp(3)", "timestamp", False),
        ("int4", "int4[]", False),
        ("int4", "int8", False),
        ("regclass", "regclass", False),
        ("regtype[]", "regtype[]", False),
        ("aclitem", "aclitem", False),
    ],
)
def test_binary_only_where_the_bytes_mean_the_same(
    connection: psycopg.Connection, source: str, sink: str, equal: bool
) -> None:
    assert is_binary_equal(column(connection, source), column(connection, sink)) is equal


@pytest.mark.parametrize(
    ("source", "sink", "wanted"),
    [
        ("int4", "int8", "wider"),
        ("int8", "int4", None),
        ("numeric(10,2)", "numeric(12,4)", "wider"),
        ("numeric(10,4)", "numeric(10,2)", None),
        ("numeric(3,-2)", "numeric(5,0)", "wider"),
        ("varchar(20)", "text", "wider"),
        ("inet", "text", "wider"),
        ("pair", "varchar(3)", None),
        ("jsonb", "json", "same"),
        ("json", "jsonb", None),
        ("interval(2)", "interval", "wider"),
        ("interval", "interval(2)", None),
        ("interval", "interval year", None),
        ("mood", '"a.b".mood', "wider"),
        ('"a.b".mood', "mood", None),
        ("text", "name", None),
        ("oid", "int8", "wider"),
    ],
)
def test_text_only_where_all_values_fit(
    connection: psycopg.Connection, source: str, sink: str, wanted: str | None
) -> None:
    assert fit(column(connection, source).type, column(connection, sink).type) == wanted


def test_enum_of_the_same_name_with_other_labels_is_another(connection: psycopg.Connection, postgres: str) -> None:
    with psycopg.connect(postgres, autocommit=True) as other:
        other.execute("create type mood as enum ('ok', 'sad', 'late')")
        here, there = column(connection, "mood"), column(other, "mood")
        many = column(connection, "mood[]"), column(other, "mood[]")

    assert here.type.native == there.type.native
    assert not is_binary_equal(here, there)
    assert fit(here.type, there.type) == "wider"
    assert fit(there.type, here.type) is None
    assert fit(many[1].type, many[0].type) is None


OTHERS = [
    (Type("int", bits=8), "smallint"),
    (Type("int", bits=8, unsigned=True), "smallint"),
    (Type("int", bits=16, unsigned=True), "integer"),
    (Type("int", bits=32, unsigned=True), "bigint"),
    (Type("int", bits=64, unsigned=True), "numeric(20,0)"),
    (Type("float", bits=32), "real"),
    (Type("decimal", precision=65, scale=30), "numeric(65,30)"),
    (Type("decimal", precision=3, scale=-2), "numeric(5,0)"),
    (Type("decimal", precision=2, scale=5), "numeric(5,5)"),
    (Type("decimal", precision=2000, scale=5), "numeric"),
    (Type("text", length=20, fixed=True), "character varying(20)"),
    (Type("text", length=2**30), "text"),
    (Type("bytes", length=16), "bytea"),
    (Type("timestamp", precision=3), "timestamp(3) without time zone"),
    (Type("timestamptz"), "timestamp with time zone"),
    (Type("enum", labels=("a",)), "text"),
    (Type("array", item=Type("int", bits=64)), "bigint[]"),
    (Type("other", native="geometry", dialect="mysql"), "text"),
]


@pytest.mark.parametrize(("kind", "wanted"), OTHERS, ids=str)
def test_types_of_others_find_one_that_holds_them(connection: psycopg.Connection, kind: Type, wanted: str) -> None:
    assert type_of(Column("c", kind)) == wanted
    assert fit(kind, column(connection, wanted).type) == "wider" or kind.fixed


@pytest.mark.parametrize(
    "kind",
    [
        Type("timestamp", precision=9),
        Type("interval", precision=9),
        Type("array"),
        Type("other", native="record", dialect="postgresql"),
    ],
)
def test_type_without_one_that_holds_it_is_refused(kind: Type) -> None:
    with pytest.raises(Refused) as raised:
        type_of(Column("c", kind))

    assert raised.value.message == (
        f"column 'c' is {kind}, and PostgreSQL has no type that holds all its values; cast it in the query, e.g. to text"
    )


@given(st.integers(1, 1500), st.integers(-1100, 1100))
def test_any_decimal_has_a_numeric_that_holds_it(precision: int, scale: int) -> None:
    spelled = type_of(Column("c", Type("decimal", precision=precision, scale=scale)))
    if spelled != "numeric":
        digits, places = map(int, spelled.removeprefix("numeric(").rstrip(")").split(","))
        assert 0 <= places <= digits <= 1000
        assert digits - places >= precision - scale
        assert places >= scale


def test_table_has_all_that_the_catalogue_says(connection: psycopg.Connection) -> None:
    connection.execute(
        b'create table "All Of It" (gone int, id int generated always as identity, n serial, o int generated by default as identity,'
        b" two int generated always as (1 + 1) stored, t text not null default 'x''y', p posint, primary key (t, id));"
        b' alter table "All Of It" drop column gone; comment on table "All Of It" is \'about\'; comment on column "All Of It".t is \'the t\''
    )
    schema = table_schema(connection, "public", "All Of It")

    assert schema is not None
    assert (schema.keys, schema.comment) == (("t", "id"), "about")
    assert [(one.name, one.generated, one.nullable, one.comment, one.default) for one in schema.columns] == [
        ("id", "always", False, "", None),
        ("n", "serial", False, "", "nextval('\"All Of It_n_seq\"'::regclass)"),
        ("o", "default", False, "", None),
        ("two", "stored", True, "", "(1 + 1)"),
        ("t", "", False, "the t", "'x''y'::text"),
        ("p", "", True, "", None),
    ]


def test_no_table_is_none_and_no_columns_are_none(connection: psycopg.Connection) -> None:
    connection.execute("create table empty_one ()")

    assert table_schema(connection, "public", "nothing") is None
    assert table_schema(connection, "public", "empty_one") == Schema(())
