"""Writing MariaDB: each mode, exact values or none, the table as it was after a failure; by LOAD DATA and by INSERT."""

from __future__ import annotations

import math
import struct
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as clock
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rainbow_prefect.errors import TaskFailed
from rainbow_prefect.sql_etl.base import BadValue, Counts, Job, Query, Refused
from rainbow_prefect.sql_etl.types import Column, Schema, Type, fit

from .mysql_tools import SLOW, Admin, Settings, admin, job, load, read, reader, schema, writer

IST = timezone(timedelta(hours=5, minutes=30))

CELLS: list[tuple[Type, str, Any, str, Any]] = [
    # what comes, the type that is made, a value, PostgreSQL's text of it, what is read back
    (Type("bool"), "tinyint(1)", True, "t", 1),
    (Type("bool"), "tinyint(1)", False, "f", 0),
    (Type("int", bits=16), "smallint(6)", -32768, "-32768", -32768),
    (Type("int", bits=32), "int(11)", 2**31 - 1, "2147483647", 2**31 - 1),
    (Type("int", bits=64), "bigint(20)", -(2**63), "-9223372036854775808", -(2**63)),
    (Type("int", bits=64, unsigned=True), "bigint(20) unsigned", 2**64 - 1, "18446744073709551615", 2**64 - 1),
    (Type("float", bits=64), "double", 0.1 + 0.2, "0.30000000000000004", 0.1 + 0.2),
    (Type("float", bits=64), "double", 5e-324, "5e-324", 5e-324),
    (Type("float", bits=32), "float", 16777217.0, "1.6777216e+07", 16777216.0),
    (Type("decimal", precision=38, scale=10), "decimal(38,10)", Decimal("1234567890123456789012345678.0123456789"), "1234567890123456789012345678.0123456789", Decimal("1234567890123456789012345678.0123456789")),
    (Type("decimal", precision=38, scale=10), "decimal(38,10)", Decimal("-1E-10"), "-0.0000000001", Decimal("-0.0000000001")),
    (Type("decimal", precision=10, scale=6), "decimal(10,6)", Decimal("44.123456"), "44.123456", Decimal("44.123456")),
    (Type("decimal", precision=5, scale=-2), "decimal(7,0)", Decimal(12300), "12300", Decimal(12300)),
    (Type("text"), "longtext", "a\tb\n\r\\N\x08\x0b\x0c\0é😀e\u0301", r"a\tb\n\r\\N\b\v\f" + "\0é😀e\u0301", "a\tb\n\r\\N\x08\x0b\x0c\0é😀e\u0301"),
    (Type("text"), "longtext", "", "", ""),
    (Type("text"), "longtext", "\\N", r"\\N", "\\N"),
    (Type("text"), "longtext", "\\.", r"\\.", "\\."),
    (Type("text"), "longtext", """'",$$ %s :name {{ x }} \\f \\v \\' ` -- """, r"""'",$$ %s :name {{ x }} \\f \\v \\' ` -- """, """'",$$ %s :name {{ x }} \\f \\v \\' ` -- """),
    (Type("text", length=20), "varchar(20)", "abc ", "abc ", "abc "),
    (Type("text", length=2000), "text", "x" * 2000, "x" * 2000, "x" * 2000),
    (Type("text", length=5, fixed=True), "char(5)", "ab   ", "ab   ", "ab"),
    (Type("bytes"), "longblob", b"\0\xff\n\t\\'", r"\\x00ff0a095c27", b"\0\xff\n\t\\'"),
    (Type("bytes"), "longblob", b"", r"\\x", b""),
    (Type("date"), "date", date(1, 1, 1), "0001-01-01", date(1, 1, 1)),
    (Type("date"), "date", date(9999, 12, 31), "9999-12-31", date(9999, 12, 31)),
    (Type("timestamp"), "datetime(6)", datetime(9999, 12, 31, 23, 59, 59, 999999), "9999-12-31 23:59:59.999999", datetime(9999, 12, 31, 23, 59, 59, 999999)),
    (Type("timestamp", precision=3), "datetime(3)", datetime(2024, 3, 31, 2, 30, 0, 1000), "2024-03-31 02:30:00.001", datetime(2024, 3, 31, 2, 30, 0, 1000)),
    (Type("timestamptz"), "timestamp(6)", datetime(2024, 2, 29, 12, 34, 56, 123456, tzinfo=IST), "2024-02-29 07:04:56.123456+00", datetime(2024, 2, 29, 7, 4, 56, 123456, tzinfo=UTC)),
    (Type("time"), "time(6)", clock(23, 59, 59, 999999), "23:59:59.999999", clock(23, 59, 59, 999999)),
    (Type("time"), "time(6)", "24:00:00", "24:00:00", "24:00:00.000000"),
    (Type("time"), "time(6)", timedelta(hours=-838, microseconds=-5), "-838:00:00.000005", "-838:00:00.000005"),
    (Type("uuid"), "uuid", UUID("123e4567-e89b-12d3-a456-426614174000"), "123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
    (Type("json"), "longtext", '{"a": 1,  "a":2}', '{"a": 1,  "a":2}', '{"a": 1,  "a":2}'),
    (Type("json"), "longtext", "null", "null", "null"),
    (Type("enum", labels=("b", "it's", "\\")), "enum('b','it''s','\\\\')", "\\", r"\\", "\\"),
]  # fmt: skip


@pytest.fixture
def db(mariadb: str) -> Any:
    with admin(mariadb) as made:
        yield made


def cells() -> Schema:
    return Schema(tuple(Column(f"c{at}", one[0]) for at, one in enumerate(CELLS)))


@pytest.mark.parametrize("settings", [Settings(), SLOW], ids=["load_data", "insert"])
@pytest.mark.parametrize("form", ["rows", "pg_text"])
def test_every_type_is_written_as_it_is(mariadb: str, db: Admin, settings: Settings, form: str) -> None:
    row = tuple(one[2] for one in CELLS)
    line = "\t".join(one[3] for one in CELLS).encode()
    nulls = (None,) * len(CELLS)
    given: list[Any] = [row, nulls] if form == "rows" else [line + b"\n" + b"\t".join([rb"\N"] * len(CELLS)) + b"\n"]

    counts = load(mariadb, job("append", cells()), given, settings)
    again = load(mariadb, job("append", cells(), run="r2"), given, settings)

    assert counts == again == Counts(read=2, written=2, inserted=2)
    made = [str(row[1]) for row in db.run("show columns from t")]
    assert made == [one[1] for one in CELLS]
    first, second, *_ = read(mariadb, Query(table=(None, "t")))
    for found, (kind, _, value, _, wanted) in zip(first, CELLS, strict=True):
        assert (kind, value, found, type(found)) == (kind, value, wanted, type(wanted))
    assert second == nulls


def test_new_table_takes_all_that_comes_also_the_second_time(mariadb: str, db: Admin) -> None:
    load(mariadb, job("append", cells()), [])

    with writer(mariadb) as sink:
        there = sink.describe((None, "t"))

    assert there is not None
    assert [one.name for one in cells().columns if fit(one.type, there[one.name].type) is None] == []


def test_bytes_do_not_fit_a_column_that_fills_them_with_zeros() -> None:
    fixed = Type("bytes", length=4, fixed=True, native="binary(4)", dialect="mariadb")

    assert fit(Type("bytes", length=3), fixed) is None
    assert fit(Type("bytes", length=4, fixed=True, dialect="mysql"), fixed) == "wider"
    assert fit(fixed, Type("bytes")) == "wider"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Type("decimal"), "column 'c' is decimal without a limit of digits, and MySQL has no such type; give it one in the query, e.g. cast(c as decimal(38,10))"),
        (Type("decimal", precision=70, scale=2), "column 'c' is decimal(70,2), and MySQL takes at most decimal(65,30); cast it in the query"),
        (Type("interval", native="interval", dialect="postgresql"), "column 'c' is interval, and MariaDB has no type that holds all its values; cast it in the query, e.g. c::text"),
        (Type("array", item=Type("int", bits=32)), "column 'c' is int32[], and MariaDB has no type that holds all its values; cast it in the query, e.g. to text"),
        (Type("timetz"), "column 'c' is timetz, and MariaDB has no type that holds all its values; cast it in the query, e.g. to text"),
        (Type("other", native="inet", dialect="postgresql"), "column 'c' is inet, and MariaDB has no type that holds all its values; cast it in the query, e.g. c::text"),
        (Type("text", length=300, fixed=True), "column 'c' is text(300), and char of MySQL takes at most 255 characters; cast it to varchar(300) in the query"),
        (Type("enum", labels=("a", "")), "column 'c' is enum, and MariaDB has no type that holds all its values; cast it in the query, e.g. to text"),
    ],
)  # fmt: skip
def test_type_that_has_no_equal_is_refused(mariadb: str, db: Admin, kind: Type, message: str) -> None:
    with pytest.raises(Refused) as error:
        load(mariadb, job("append", Schema((Column("c", kind),))), [])

    assert str(error.value) == message
    assert db.tables() == set()


def test_types_of_its_own_stay_what_they_are(mariadb: str, db: Admin, other_mariadb: str) -> None:
    spelled = [
        "tinyint(1)", "mediumint(8) unsigned", "int(5) unsigned zerofill", "bit(10)", "year(4)", "float(7,3)", "decimal(65,30)",
        "time(3)", "datetime", "timestamp(3)", "enum('a','b''c')", "set('x','y')", "tinytext", "mediumblob", "binary(4)", "inet6",
        "varchar(7)", "char(3)", "year(4)", "uuid",
    ]  # fmt: skip
    values = "7, 16777215, 42, b'1111111111', '0000', 1.235, '1.5', '-838:59:59.5', '2024-01-01', '2024-01-01 00:00:00.5', 'b''c', 'x,y', 'q', x'00', 'ab', '::1', 'w ', 'x', 1999, uuid()"
    db.run(f"create table s ({', '.join(f'c{at} {one} null' for at, one in enumerate(spelled))})")
    db.run(f"insert into s values ({values})")

    with reader(mariadb) as source:
        query = Query(table=(None, "s"))
        came = source.describe(query)
        rows = [row for some in source.rows(query, came) for row in some]
        lines = list(source.chunks(query, came, "pg_text"))
    load(other_mariadb, job("append", came), rows)
    load(other_mariadb, job("append", came, run="r2"), lines)
    load(other_mariadb, job("append", came, run="r3"), lines, SLOW)

    with admin(other_mariadb) as other:
        assert [row[1] for row in other.run("show columns from t")] == spelled
    assert read(other_mariadb, Query(table=(None, "t"))) == rows * 3


# -- values that would change

BAD: list[tuple[str, Type, Any, str]] = [
    ("decimal(10,2)", Type("decimal", precision=10, scale=2), Decimal("1.2555"), "column 'a', row 2, value '1.2555': Data truncated for column 'a' at row 2 (error 1265); widen the column, or round or cut it in the query"),
    ("decimal(10,2)", Type("decimal", precision=10, scale=2), Decimal("NaN"), "column 'a', row 2, value 'NaN': MySQL has no NaN and no infinity; make it NULL in the query"),
    ("double", Type("float", bits=64), math.inf, "column 'a', row 2, value 'inf': MySQL has no NaN and no infinity; make it NULL in the query"),
    ("int", Type("int", bits=32), 2**31, "column 'a', row 2, value '2147483648': Out of range value for column 'a' at row 2 (error 1264); widen the column, or cast in the query"),
    ("varchar(3)", Type("text", length=3), "abcd", "column 'a', row 2, value 'abcd': Data t"),
    ("varchar(3)", Type("text", length=3), "abc ", "column 'a', row 2, value 'abc ': Data truncated for column 'a' at row 2 (error 1265); widen the column, or round or cut it in the query"),
    ("varchar(9) character set utf8mb3", Type("text", length=9), "a😀", "column 'a', row 2, value 'a😀': Incorrect string value: '\\xF0\\x9F\\x98\\x80' for column"),
    ("varchar(9) character set latin1", Type("text", length=9), "中", "column 'a', row 2, value '中': Incorrect string value: '\\xE4\\xB8\\xAD' for column"),
    ("timestamp(6) null", Type("timestamptz"), datetime(2100, 1, 1, tzinfo=UTC), "column 'a', row 2, value '2100-01-01 00:00:00+00': "),
    ("timestamp(6) null", Type("timestamptz"), datetime(2000, 1, 1), "column 'a', row 2, value '2000-01-01 00:00:00': it has no time zone, and the column is an instant; say in the query which zone is meant"),
    ("datetime(6)", Type("timestamp"), datetime(2000, 1, 1, tzinfo=UTC), "column 'a', row 2, value '2000-01-01 00:00:00+00:00': it has a time zone, and the column has none; say in the query which zone is meant"),
    ("datetime(6)", Type("timestamp"), "294276-12-31 23:59:59", "column 'a', row 2, value '294276-12-31 23:59:59': "),
    ("datetime(6)", Type("timestamp"), "0044-03-15 00:00:00 BC", "column 'a', row 2, value '0044-03-15 00:00:00 BC': "),
    ("date", Type("date"), "infinity", "column 'a', row 2, value 'infinity': "),
    ("date", Type("date"), "0044-03-15 BC", "column 'a', row 2, value '0044-03-15 BC': "),
    ("timestamp(6) null", Type("timestamptz"), "-infinity", "column 'a', row 2, value '-infinity': "),
    ("timestamp(6) null", Type("timestamptz"), "0044-03-15 00:00:00+00 BC", "column 'a', row 2, value '0044-03-15 00:00:00+00 BC': "),
    ("date", Type("date"), "0000-00-00", "column 'a', row 2, value '0000-00-00': "),
    ("time(6)", Type("time"), "839:00:00", "column 'a', row 2, value '839:00:00': "),
    ("enum('a','b')", Type("enum", labels=("a", "b")), "c", "column 'a', row 2, value 'c': "),
    ("enum('a','b')", Type("enum", labels=("a", "b")), "", "column 'a', row 2, value '': "),
    ("uuid", Type("uuid"), "123", "column 'a', row 2, value '123': Incorrect uuid value: '123' for column"),
    ("longtext check (json_valid(a))", Type("json"), "{nope", "CONSTRAINT `t.a` failed for"),
    ("int not null", Type("int", bits=32), None, "column 'a'"),
    ("int primary key", Type("int", bits=32), 1, "Duplicate entry '1' for key 'PRIMARY' (error 1062); use mode upsert or insert_new with these keys, or leave the row out in the query"),
    ("int references p (id)", Type("int", bits=32), 9, "Cannot add or update a child row: a foreign key constraint fails ("),
    ("int check (a > 0)", Type("int", bits=32), 0, "CONSTRAINT `t.a` failed for"),
    ("tinyint(1)", Type("bool"), 2, "column 'a', row 2, value '2': it is neither true nor false"),
    ("varchar(9)", Type("text", length=9), "\ud800", "column 'a', row 2, value '\\ud800': it is no Unicode text (a lone surrogate); correct it in the query"),
    ("varchar(9)", Type("text", length=9), b"x", "column 'a', row 2, value 'b'x'': it is bytes, and the column is text; decode it in the query"),
    ("longtext", Type("text"), object, "column 'a', row 2, value "),
]  # fmt: skip
GOOD: dict[str, Any] = {
    "decimal": Decimal(1), "float": 1.5, "int": 1, "text": "a", "timestamptz": datetime(2000, 1, 1, tzinfo=UTC), "bool": True,
    "timestamp": datetime(2000, 1, 1), "date": date(2000, 1, 1), "time": clock(1), "enum": "a", "json": "1", "uuid": str(UUID(int=1)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("spelled", "kind", "value", "message"), BAD, ids=[f"{one[0]}-{at}" for at, one in enumerate(BAD)]
)
def test_value_that_would_change_is_an_error(
    mariadb: str, db: Admin, spelled: str, kind: Type, value: Any, message: str
) -> None:
    db.run("create table p (id int primary key)")
    db.run("insert into p values (1)")
    db.run(f"create table t (a {spelled}, b int)")
    columns = Schema((Column("a", kind), Column("b", Type("int", bits=32))))

    for way in (Settings(), SLOW):
        with pytest.raises(BadValue) as error:
            load(mariadb, job("append", columns), [(GOOD[kind.kind], 1), (value, 2)], way)

        text = str(error.value)
        assert text.startswith(f"table 't': {message}"), text
        assert text.endswith("; nothing was written")
    assert db.one("select count(*) from t") == 0
    assert db.one("select count(*) from _rainbow_etl_ledger") == 0


def test_value_of_a_secret_column_is_not_shown(mariadb: str, db: Admin) -> None:
    db.run("create table t (a varchar(3), b int unique)")
    columns = Schema((Column("a", Type("text", length=3)), Column("b", Type("int", bits=32))))
    secret = {"options": {"secret_columns": ["a", "b"]}}

    for rows in ([("hush-hush", 1)], [("a", 77031), ("b", 77031)], [("\ud800hush", 1)]):
        with pytest.raises(BadValue) as error:
            load(mariadb, job("append", columns, **secret), rows)
        assert "hush" not in repr(error.value)
        assert "77031" not in repr(error.value)


def test_rounding_that_the_server_does_in_silence_is_refused(mariadb: str, db: Admin) -> None:
    db.run("create table t (a datetime(3))")

    with pytest.raises(Refused) as error:
        load(mariadb, job("append", schema(a="timestamp")), [(datetime(2024, 1, 1, microsecond=123456),)])

    assert str(error.value) == (
        "table 't': column 'a' has 6 digits after the second, and datetime(3) keeps 3; widen it, or round it in the query"
    )


def test_row_of_a_bad_value_counts_all_rows_that_came(mariadb: str, db: Admin) -> None:
    db.run("create table t (a int)")
    lines = [b"1\n" * 3_000_000, b"2\n" * 2_000_000, b"2\nx\n3\n"]

    with pytest.raises(BadValue) as error:
        load(mariadb, job("append", schema(a="int")), lines)

    assert str(error.value).startswith(
        "table 't': column 'a', row 5000002, value 'x': Incorrect integer value: 'x' for column"
    )
    assert "at row 5000002" in str(error.value)
    assert db.one("select count(*) from t") == 0


@pytest.mark.parametrize("settings", [Settings(), SLOW], ids=["load_data", "insert"])
def test_value_that_is_too_long_for_the_server_is_named(mariadb: str, db: Admin, settings: Settings) -> None:
    most = int(db.one("select @@max_allowed_packet"))

    with pytest.raises(BadValue) as error:
        load(mariadb, job("append", schema(id="int", a="text")), [(1, "x"), (2, "y" * (most + 1))], settings)

    assert str(error.value) == (
        f"table 't': column 'a', row 2: a value of {most + 1} bytes is too long for max_allowed_packet = {most} of the server;"
        " raise that, or leave it out; nothing was written"
    )
    assert db.tables() == set()


def test_rows_cut_anywhere_into_chunks_are_the_same_rows(mariadb: str, db: Admin) -> None:
    whole = b"".join(f"{at}\tvalue\\n{at}\n".encode() for at in range(1000))
    pieces = [whole[at : at + 7] for at in range(0, len(whole), 7)]

    counts = load(mariadb, job("append", schema(id="int", a="text")), pieces)

    assert counts is not None and counts.written == 1000
    assert db.one("select count(*) from t where a = concat('value\\n', id)") == 1000


# -- modes

KEYED = schema(id="int", a="text")


@pytest.mark.parametrize("settings", [Settings(), SLOW], ids=["load_data", "insert"])
@pytest.mark.parametrize("staged", [False, True], ids=["", "staged"])
@pytest.mark.parametrize(
    ("mode", "more", "counted", "after"),
    [
        ("append", {}, (3, 3, None, None), [(1, "a"), (1, "a"), (2, "B"), (2, "b"), (3, "c")]),
        ("insert_new", {"keys": ("id",)}, (1, 1, 0, None), [(1, "a"), (2, "b"), (3, "c")]),
        ("upsert", {"keys": ("id",)}, (2, 1, 1, None), [(1, "a"), (2, "B"), (3, "c")]),
        ("delete_insert", {"keys": ("id",)}, (3, 3, 0, 2), [(1, "a"), (2, "B"), (3, "c")]),
        ("delete_insert", {"where": ("id > 1",)}, (3, 3, None, 1), [(1, "a"), (1, "a"), (2, "B"), (3, "c")]),
        ("replace", {}, (3, 3, None, None), [(1, "a"), (2, "B"), (3, "c")]),
        ("replace", {"options": {"replace_strategy": "truncate"}}, (3, 3, None, 2), [(1, "a"), (2, "B"), (3, "c")]),
    ],
)
def test_modes(
    mariadb: str, db: Admin, mode: str, more: dict[str, Any], counted: tuple[Any, ...], after: list[Any], settings: Settings, staged: bool
) -> None:  # fmt: skip
    rows = [(1, "a"), (2, "B"), (3, "c")]
    load(mariadb, job(mode, KEYED, **more), [(1, "a"), (2, "b")], settings)

    counts = load(mariadb, job(mode, KEYED, run="r2", stage=staged, **more), rows, settings)
    same_run = load(mariadb, job(mode, KEYED, run="r2", **more), [(9, "z")], settings)
    found = sorted(read(mariadb, Query(table=(None, "t"))))

    assert counts is not None
    assert (counts.read, counts.written, counts.inserted) == (3, counted[0], counted[1])
    if not staged:
        assert (counts.updated, counts.deleted) == counted[2:]
    assert same_run is None
    assert found == after
    assert db.tables() == {"t"}


@pytest.mark.parametrize("mode", ["append", "insert_new", "upsert", "delete_insert", "replace", "fail"])
def test_no_rows_make_the_table_and_replace_empties_it(mariadb: str, db: Admin, mode: str) -> None:
    keys = ("id",) if mode in ("insert_new", "upsert", "delete_insert") else ()

    first = load(mariadb, job(mode, KEYED, keys=keys), [])
    db.run("insert into t values (1, 'x')")
    if mode != "fail":
        load(mariadb, job(mode, KEYED, run="r2", keys=keys), [])

    assert first is not None and (first.read, first.written) == (0, 0)
    assert db.one("select count(*) from t") == (0 if mode == "replace" else 1)
    assert [row[1] for row in db.run("show columns from t")] == ["bigint(20)", "longtext"]


def test_fail_wants_a_new_table(mariadb: str, db: Admin) -> None:
    db.run("create table t (id bigint, a longtext)")

    with pytest.raises(Refused) as error:
        load(mariadb, job("fail", KEYED), [(1, "a")])

    assert str(error.value) == "table 't' exists already, and `mode: fail` wants none; choose another mode or table"


def test_upsert_touches_only_what_changed(mariadb: str, db: Admin) -> None:
    db.run(
        "create table t (id int primary key, a varchar(9) collate utf8mb4_general_ci, n int default 7,"
        " at timestamp(6) not null default current_timestamp(6) on update current_timestamp(6))"
    )
    db.run("insert into t (id, a) values (1, 'same'), (2, 'case'), (3, null), (4, 'pad')")
    before = dict(db.run("select id, at from t"))

    counts = load(
        mariadb, job("upsert", KEYED, keys=("id",)), [(1, "same"), (2, "Case"), (3, None), (4, "pad "), (5, "new")]
    )

    after = dict(db.run("select id, at from t"))
    assert counts is not None and (counts.written, counts.inserted, counts.updated) == (3, 1, 2)
    assert [one for one in before if before[one] != after[one]] == [2, 4]
    assert db.run("select a, n from t order by id") == [("same", 7), ("Case", 7), (None, 7), ("pad ", 7), ("new", 7)]


def test_upsert_does_not_take_another_unique_key_for_the_row(mariadb: str, db: Admin) -> None:
    db.run("create table t (id int primary key, a varchar(9) unique)")
    db.run("insert into t values (1, 'mail')")

    with pytest.raises(BadValue, match="Duplicate entry 'mail' for key 'a'"):
        load(mariadb, job("upsert", KEYED, keys=("id",)), [(2, "mail")])

    assert db.run("select * from t") == [(1, "mail")]


@pytest.mark.parametrize("mode", ["insert_new", "upsert", "delete_insert"])
def test_keys_that_are_empty_are_refused(mariadb: str, db: Admin, mode: str) -> None:
    with pytest.raises(BadValue) as error:
        load(
            mariadb,
            job(mode, schema(id="int", k="text", a="text"), keys=("id", "k")),
            [(1, None, "a"), (None, "x", "b"), (1, "x", "c")],
        )

    assert str(error.value) == (
        "table 't': 2 rows have an empty key (id, k); leave them out or fill them in the query; nothing was written"
    )
    assert db.tables() == set()


@pytest.mark.parametrize("mode", ["insert_new", "upsert"])
def test_keys_that_occur_twice_are_refused_with_the_keys(mariadb: str, db: Admin, mode: str) -> None:
    rows = [(at // 2, f"k{at // 2}", "x") for at in range(14)] + [(100, "k", "once")]

    with pytest.raises(BadValue) as error:
        load(mariadb, job(mode, schema(id="int", k="text", a="text"), keys=("id", "k")), rows)

    assert str(error.value) == (
        "table 't': 7 keys (id, k) occur more than once, e.g. 0, k0; 1, k1; 2, k2; 3, k3; 4, k4;"
        " make them unique in the query; nothing was written"
    )


def test_keys_of_long_text_and_bytes(mariadb: str, db: Admin) -> None:
    columns = schema(k="text", b="bytes", a="text")
    long = "k" * 3000
    rows = [(long, b"\0", "1"), (long + " ", b"\0", "2"), (long.upper(), b"\0", "3"), (long, b"\1", "4")]

    load(mariadb, job("upsert", columns, keys=("k", "b")), rows)
    counts = load(mariadb, job("upsert", columns, run="r2", keys=("k", "b")), [*rows[:3], (long, b"\1", "five")])

    assert counts is not None and (counts.inserted, counts.updated) == (0, 1)
    assert db.run("select a from t order by a") == [("1",), ("2",), ("3",), ("five",)]


def test_delete_insert_takes_several_rows_of_a_key(mariadb: str, db: Admin) -> None:
    load(mariadb, job("delete_insert", KEYED, keys=("id",)), [(1, "a"), (1, "b"), (2, "c")])
    counts = load(mariadb, job("delete_insert", KEYED, run="r2", keys=("id",)), [(1, "x"), (1, "y"), (1, "z")])

    assert counts is not None and (counts.inserted, counts.deleted) == (3, 2)
    assert db.run("select * from t order by a") == [(2, "c"), (1, "x"), (1, "y"), (1, "z")]


def test_state_is_that_of_the_last_committed_load(mariadb: str, db: Admin) -> None:
    with writer(mariadb) as sink:
        first = sink.state(job("append", KEYED))
    load(mariadb, job("append", KEYED), [(1, "a")], state={"cursor": "é1"})
    load(mariadb, job("append", KEYED, run="r2"), [(2, "a")], state={"cursor": 2})
    with pytest.raises(BadValue):
        load(mariadb, job("append", KEYED, run="r3"), [("x", "a")], state={"cursor": 3})

    with writer(mariadb) as sink:
        last = sink.state(job("append", KEYED))
        other = sink.state(Job("other", "r", (None, "t"), "append", KEYED))
        forgotten = sink.forget(job("append", KEYED))
        after = sink.state(job("append", KEYED))

    assert (first, last, other, forgotten, after) == ({}, {"cursor": 2}, {}, 2, {})
    assert db.run("select run_key, number, rows_read, rows_written from _rainbow_etl_ledger order by number") == [
        ("r1", 1, 1, 1),
        ("r2", 2, 1, 1),
    ]


def test_force_loads_again(mariadb: str, db: Admin) -> None:
    load(mariadb, job("upsert", KEYED, keys=("id",)), [(1, "a")])

    counts = load(mariadb, job("upsert", KEYED, keys=("id",), force=True), [(1, "b")])

    assert counts is not None and counts.updated == 1


# -- replace


def test_replace_keeps_indexes_grants_views_and_comments(mariadb: str, db: Admin) -> None:
    db.run(
        "create table t (n int auto_increment primary key, id bigint comment 'the id', a longtext, b int default 5,"
        " key by_id (id)) comment 'mine'"
    )
    db.run("insert into t (id, a) values (1, 'old')")
    db.run("create view v as select id, a, b from t")
    said = db.run("show create table t")[0][1]

    load(mariadb, job("replace", KEYED), [(7, "new")])

    assert db.run("select * from v") == [(7, "new", 5)]
    assert db.run("show create table t")[0][1].replace("AUTO_INCREMENT=2 ", "") == said.replace("AUTO_INCREMENT=2 ", "")
    assert db.tables() == {"t", "v"}


@pytest.mark.parametrize(
    "dependant",
    [
        "create trigger g before insert on t for each row set new.a = upper(new.a)",
        "create table child (t_id bigint, foreign key (t_id) references t (id))",
        "alter table t add foreign key (id) references parent (id)",
        "alter table t add system versioning",
    ],
)
def test_replace_keeps_the_table_where_something_depends_on_it(mariadb: str, db: Admin, dependant: str) -> None:
    db.run("create table parent (id bigint primary key)")
    db.run("insert into parent values (1), (2)")
    db.run("create table t (id bigint primary key, a longtext)")
    db.run("insert into t values (1, 'old')")
    db.run(dependant)
    number = "select table_id from information_schema.innodb_sys_tables where name = concat(database(), '/t')"
    before = db.one(number)

    counts = load(mariadb, job("replace", KEYED), [(2, "new")])

    assert counts is not None and counts.deleted == 1
    assert db.one(number) == before
    assert [row[1].lower() for row in db.run("select id, a from t")] == ["new"]
    with pytest.raises(Refused, match="`replace_strategy: swap` would lose"):
        load(mariadb, job("replace", KEYED, run="r2", options={"replace_strategy": "swap"}), [(2, "new")])


def test_replace_does_not_take_the_rows_of_others_along(mariadb: str, db: Admin) -> None:
    db.run("create table t (id bigint primary key, a longtext)")
    db.run("create table child (t_id bigint, constraint kids foreign key (t_id) references t (id) on delete cascade)")
    db.run("insert into t values (1, 'old')")
    db.run("insert into child values (1)")

    with pytest.raises(Refused) as error:
        load(mariadb, job("replace", KEYED), [(2, "new")])

    assert str(error.value) == (
        "table 't': rows of table 'child' refer to it by 'kids' ON DELETE CASCADE, so replacing the rows would change them too;"
        " use mode upsert or delete_insert"
    )
    assert db.one("select count(*) from child") == 1


@pytest.mark.parametrize("strategy", ["swap", "truncate"])
def test_replace_that_fails_leaves_the_old_rows(mariadb: str, db: Admin, strategy: str) -> None:
    db.run("create table t (id bigint, a varchar(3))")
    db.run("insert into t values (1, 'old')")
    given = job("replace", schema(id="int", a=Type("text", length=3)), options={"replace_strategy": strategy})

    with pytest.raises(BadValue):
        load(mariadb, given, [(2, "new"), (3, "long")])

    assert db.run("select * from t") == [(1, "old")]
    assert db.tables() == {"t"}


# -- tables, names, DDL


def test_new_table_has_keys_comments_and_what_may_be_empty(mariadb: str, db: Admin) -> None:
    columns = Schema(
        (
            Column("id", Type("int", bits=32), nullable=False, comment="it's the id"),
            Column("at", Type("timestamptz"), nullable=False),
            Column("a", Type("json"), comment="\\ back"),
        ),
        comment="the table",
    )

    load(mariadb, job("upsert", columns, keys=("id",)), [])

    collation = db.one(
        "select table_collation from information_schema.tables where table_schema = database() and table_name = 't'"
    )
    assert db.run("show create table t")[0][1] == (
        "CREATE TABLE `t` (\n"
        "  `id` int(11) NOT NULL COMMENT 'it''s the id',\n"
        "  `at` timestamp(6) NOT NULL,\n"
        "  `a` longtext DEFAULT NULL COMMENT '\\\\ back' CHECK (json_valid(`a`)),\n"
        "  PRIMARY KEY (`id`)\n"
        f") ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE={collation} COMMENT='the table'"
    )
    assert collation == "utf8mb4_nopad_bin"


def test_names_are_kept_as_they_are(mariadb: str, db: Admin) -> None:
    names = ["select", "a b", 'a"b', "a`b", "a.b", "é", "CamelCase", "x" * 64, "%s", "it's", "a\\b"]
    columns = Schema(tuple(Column(one, Type("text", length=10)) for one in names))

    for mode, run in (("append", "r1"), ("upsert", "r2"), ("replace", "r3")):
        load(
            mariadb,
            job(mode, columns, run=run, table="Or`der é", keys=("select", "a`b") if mode == "upsert" else ()),
            [tuple("abcdefghijk")],
        )

    assert read(mariadb, Query(table=(None, "Or`der é"))) == [tuple("abcdefghijk")]
    assert [row[0] for row in db.run("show columns from `Or``der é`")] == names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x" * 65], f"the name '{'x' * 65}' has 65 characters, and MySQL takes 64; name it shorter with AS"),
        (["id", "ID"], "columns 'id' and 'ID' differ in case only or not at all, which MySQL cannot tell apart"),
        (["é", "É"], "columns 'é' and 'É' differ in case only or not at all, which MySQL cannot tell apart"),
        (["a "], "the name 'a ' is none that MySQL takes: it is empty, ends with a space or has a rare character"),
        ([f"c{at}" for at in range(1018)], "the query gives 1018 columns, and a table of InnoDB takes 1017"),
    ],
)
def test_names_that_the_server_does_not_take_are_refused(
    mariadb: str, db: Admin, names: list[str], message: str
) -> None:
    columns = Schema(tuple(Column(one, Type("int", bits=32)) for one in names))

    with pytest.raises(Refused) as error:
        load(mariadb, job("append", columns), [])

    assert str(error.value) == message
    assert db.tables() == set()


@pytest.mark.parametrize(
    "kind", [Type("int", bits=32), Type("text", length=100), Type("bytes", length=200), Type("text")]
)
def test_wide_table(mariadb: str, db: Admin, kind: Type) -> None:
    count = 1017 if kind.kind == "int" else 300
    columns = Schema(tuple(Column(f"c{at}", kind) for at in range(count)))
    value: Any = {"int": 2**30, "text": "é" * 10, "bytes": b"\xff" * 20}[kind.kind]

    load(mariadb, job("append", columns), [(value,) * count] * 3)

    assert read(mariadb, Query(table=(None, "t"))) == [(value,) * count] * 3


def test_columns_of_the_table_that_do_not_come_have_their_defaults(mariadb: str, db: Admin) -> None:
    db.run(
        "create table t (n int auto_increment primary key, g int generated always as (id * 2) stored, a longtext,"
        " d varchar(9) default 'x', id bigint)"
    )

    load(mariadb, job("append", KEYED), [(5, "a"), (6, "b")])

    assert db.run("select * from t") == [(1, 10, "a", "x", 5), (2, 12, "b", "x", 6)]


def test_zero_is_no_wish_for_the_next_number(mariadb: str, db: Admin) -> None:
    db.run("create table t (id bigint auto_increment primary key, a longtext)")

    load(mariadb, job("append", KEYED), [(0, "zero"), (5, "five")])

    assert db.run("select * from t") == [(0, "zero"), (5, "five")]


def test_table_without_transactions_is_refused(mariadb: str, db: Admin) -> None:
    db.run("create table t (id bigint, a longtext) engine=MyISAM")
    db.run("create view v as select * from t")

    with pytest.raises(Refused) as engine:
        load(mariadb, job("append", KEYED), [(1, "a")])
    with pytest.raises(Refused) as view:
        load(mariadb, job("append", KEYED, table="v"), [(1, "a")])

    assert str(engine.value) == (
        "table 't' has the engine MyISAM, which has no transactions: what fails would stay half done;"
        " convert it: ALTER TABLE `t` ENGINE=InnoDB"
    )
    assert str(view.value) == "table 'v' is a view; rows go into tables"


@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
def test_changes_of_the_table_are_undone_when_the_load_fails(mariadb: str, db: Admin, mode: str) -> None:
    db.run("create table t (id int not null default 3 comment 'x', a varchar(3) collate utf8mb4_bin, primary key (id))")
    before = db.run("show create table t")[0][1]
    columns = Schema(
        (Column("id", Type("int", bits=64)), Column("a", Type("text", length=5)), Column("new", Type("json")))
    )
    keys = ("id",) if mode == "upsert" else ()

    def changes() -> list[str]:
        with writer(mariadb) as sink:
            return sink.alter(job(mode, columns), [columns["new"]], [columns["id"], columns["a"]])

    made = [*changes(), "CREATE TABLE `t__rejected` (`x` int)"]
    with pytest.raises(BadValue):
        load(mariadb, job(mode, columns, keys=keys), [(1, "a", "1"), (2, "b", "{nope")], changes=made)
    after = db.run("show create table t")[0][1]
    tables = db.tables()
    load(mariadb, job(mode, columns, keys=keys), [(2**40, "abcde", '{"a": 1}')], changes=made)

    assert (after, tables) == (before, {"t"})
    assert db.run("select * from t") == [(2**40, "abcde", '{"a": 1}')]
    assert [row[1] for row in db.run("show columns from t")] == ["bigint(20)", "varchar(5)", "longtext"]
    assert "`id` bigint(20) NOT NULL DEFAULT 3 COMMENT 'x'" in db.run("show create table t")[0][1]


def test_table_that_was_made_stays_when_another_load_has_filled_it(mariadb: str, db: Admin) -> None:
    with writer(mariadb) as first:
        given = job("append", KEYED, part="1")
        assert first.begin(given, first.describe(given.table))
        load(mariadb, job("append", KEYED, part="2"), [(1, "a")])
        first.rollback()

    assert db.run("select * from t") == [(1, "a")]


def test_checks_see_the_rows_before_the_commit(mariadb: str, db: Admin) -> None:
    load(mariadb, job("append", KEYED), [(1, "a")])

    with writer(mariadb) as sink:
        given = job("append", KEYED, run="r2", stage=True)
        assert sink.begin(given, sink.describe(given.table))
        sink.write_rows(iter([[(2, "b"), (3, None)]]))
        seen = sink.query(f"select count(*), max(id), sum(a is null) from {sink.staged()}")
        gone = sink.do(sink.deletion(sink.staged(), "s.a is null"))
        with pytest.raises(Refused) as error:
            sink.do("truncate table t")
        counts = sink.finish(Counts(read=2))
        sink.commit(counts)

    assert (seen, gone, counts.written) == ([(2, 3, Decimal(1))], 1, 1)
    assert db.run("select * from t") == [(1, "a"), (2, "b")]
    assert str(error.value) == (
        "table 't': MySQL commits what is under way before TRUNCATE, so it cannot be part of a load; run it in a task of its own"
    )


def test_rights_that_are_missing_are_told_and_leave_nothing(mariadb: str, db: Admin) -> None:
    database = db.one("select database()")
    user = f"u{database[-12:]}"
    db.run(f"create user {user}@'127.0.0.1' identified by 's3cret-pass'")
    try:
        db.run("create table t (id bigint, a longtext)")
        db.run(f"grant select, create on {database}.* to {user}@'127.0.0.1'")
        url = mariadb.replace("root@", f"{user}:s3cret-pass@")

        with pytest.raises(TaskFailed) as error:
            load(url, job("append", KEYED), [(1, "a")])
    finally:
        db.run(f"drop user {user}@'127.0.0.1'")

    assert type(error.value) is Refused
    assert "command denied to user" in str(error.value)
    assert "s3cret" not in repr(error.value)
    assert db.one("select count(*) from t") == 0


# -- any values

VALUES: dict[str, tuple[Type, st.SearchStrategy[Any]]] = {
    "i": (Type("int", bits=64), st.integers(-(2**63), 2**63 - 1)),
    "u": (Type("int", bits=64, unsigned=True), st.integers(0, 2**64 - 1)),
    "f": (Type("float", bits=64), st.floats(allow_nan=False, allow_infinity=False)),
    "r": (Type("float", bits=32), st.floats(allow_nan=False, allow_infinity=False, width=32)),
    "d": (Type("decimal", precision=38, scale=10), st.decimals(allow_nan=False, allow_infinity=False, places=10, min_value=-(10**27), max_value=10**27)),
    "t": (Type("text"), st.text(st.characters(exclude_categories=["Cs"]), max_size=30)),
    "b": (Type("bytes"), st.binary(max_size=30)),
    "o": (Type("bool"), st.booleans()),
    "a": (Type("date"), st.dates()),
    "m": (Type("timestamp"), st.datetimes()),
    "z": (Type("timestamptz"), st.datetimes(datetime(1970, 1, 2), datetime(2038, 1, 1), timezones=st.just(IST))),
    "c": (Type("time"), st.times()),
}  # fmt: skip
ANY = Schema((Column("n", Type("int", bits=32)), *(Column(name, kind) for name, (kind, _) in VALUES.items())))


@pytest.mark.parametrize("slow", [False, True], ids=["load_data", "insert"])
def test_any_values_come_back_the_same_by_any_lane(module_mariadb: str, slow: bool) -> None:
    row = st.tuples(*(st.none() | values for _, values in VALUES.values()))
    runs = iter(range(10_000))

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(row, min_size=1, max_size=20))
    def check(given: list[tuple[Any, ...]]) -> None:
        rows = [(at, *one) for at, one in enumerate(given)]
        table = f"any_{slow}"
        load(module_mariadb, job("replace", ANY, run=f"{slow} {next(runs)}", table=table), rows, SLOW if slow else None)

        with reader(module_mariadb) as source:
            query = Query(table=(None, table))
            came = source.describe(query)
            back = [one for some in source.rows(query, came) for one in some]
            lines = list(source.chunks(query, came, "pg_text"))
        load(
            module_mariadb,
            job("replace", came, run=f"{slow} {next(runs)}", table=f"{table}_again"),
            lines,
            SLOW if slow else None,
        )

        wanted = [
            tuple(int(one) if isinstance(one, bool) else _single(one, at) for at, one in enumerate(each))
            for each in rows
        ]
        assert sorted(back) == wanted if len(back) < 2 else sorted(back, key=lambda one: one[0]) == wanted
        assert sorted(read(module_mariadb, Query(table=(None, f"{table}_again"))), key=lambda one: one[0]) == wanted

    check()


def _single(value: Any, at: int) -> Any:
    """A float of 32 bits as it is; the server has no minus zero."""
    if not isinstance(value, float):
        return value
    return (struct.unpack("f", struct.pack("f", value))[0] if ANY.columns[at].name == "r" else value) + 0.0
