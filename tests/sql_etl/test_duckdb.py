"""DuckDB as source and sink: exact types both ways, every mode, one load for each part whatever happens."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from sqlalchemy.engine import make_url

from rainbow_prefect.sql_etl import arrow_types
from rainbow_prefect.sql_etl import duckdb as ours
from rainbow_prefect.sql_etl.base import BadValue, Counts, Job, Passing, Query, Refused, Session
from rainbow_prefect.sql_etl.duckdb_types import type_of
from rainbow_prefect.sql_etl.types import Column, Schema, Type, fit

URL = make_url("duckdb:///shop.duckdb")
ROWS = Schema((Column("id", Type("int", bits=32), nullable=False), Column("name", Type("text"))))


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(root=tmp_path, lock_timeout_seconds=0.3)


def sql(session: Session, *statements: str) -> list[Any]:
    """Do it with DuckDB itself; the rows of the last one."""
    with duckdb.connect(str(session.root / "shop.duckdb")) as found:
        for one in statements:
            rows = found.execute(one).fetchall()
    return rows


def job(mode: Any = "append", schema: Schema = ROWS, **more: Any) -> Job:
    return Job("nightly.orders", more.pop("run_key", "run-1"), (None, "orders"), mode, schema, **more)


def load(session: Session, one: Job, rows: list[Any], *, arrow: bool = False, state: Any = None) -> Counts | None:
    """One load as `move` does it; None when the part was loaded before."""
    writer = ours.open_writer(URL, session)
    try:
        if not writer.begin(one, writer.describe(one.table)):
            return None
        if arrow:
            read = writer.write_batches(arrow_types.batches_of([rows], one.schema))
        else:
            read = writer.write_rows(iter([rows[:1], rows[1:]]))
        counts = writer.finish(Counts(read=read))
        writer.commit(counts, state)
        return counts
    except BaseException:
        writer.rollback()
        raise
    finally:
        writer.close()


def orders(session: Session) -> list[Any]:
    return sql(session, "SELECT * FROM orders ORDER BY ALL")


# -- what is read


@pytest.fixture
def read(session: Session) -> Iterator[Any]:
    opened = []

    def reader(*statements: str) -> Any:
        sql(session, "SELECT 1", *statements)
        opened.append(ours.open_reader(URL, session))
        return opened[-1]

    yield reader
    for one in opened:
        one.close()


def rows_of(reader: Any, text: str) -> list[Any]:
    query = Query(sql=text)
    return [row for some in reader.rows(query, reader.describe(query)) for row in some]


EXPRESSIONS: list[tuple[str, Type, Any]] = [
    ("true", Type("bool", native="BOOLEAN", dialect="duckdb"), True),
    ("1::UTINYINT", Type("int", bits=8, unsigned=True, native="UTINYINT", dialect="duckdb"), 1),
    ("9223372036854775807", Type("int", bits=64, native="BIGINT", dialect="duckdb"), 2**63 - 1),
    (
        "170141183460469231731687303715884105727::HUGEINT",
        Type("decimal", precision=39, scale=0, native="HUGEINT", dialect="duckdb"),
        Decimal(2**127 - 1),
    ),
    (
        "1234567890123456789012345678.0123456789::DECIMAL(38,10)",
        Type("decimal", precision=38, scale=10, native="DECIMAL(38,10)", dialect="duckdb"),
        Decimal("1234567890123456789012345678.0123456789"),
    ),
    ("'infinity'::DOUBLE", Type("float", bits=64, native="DOUBLE", dialect="duckdb"), float("inf")),
    ("''", Type("text", native="VARCHAR", dialect="duckdb"), ""),
    ("from_hex('DEADBEEF00')", Type("bytes", native="BLOB", dialect="duckdb"), b"\xde\xad\xbe\xef\0"),
    ("DATE '0044-03-15 (BC)'", Type("date", native="DATE", dialect="duckdb"), "0044-03-15 BC"),
    ("DATE '-infinity'", Type("date", native="DATE", dialect="duckdb"), "-infinity"),
    ("TIMESTAMP 'infinity'", Type("timestamp", native="TIMESTAMP", dialect="duckdb"), "infinity"),
    ("TIMESTAMPTZ '-infinity'", Type("timestamptz", native="TIMESTAMP WITH TIME ZONE", dialect="duckdb"), "-infinity"),
    (
        "TIMESTAMPTZ '2024-02-29 12:34:56.123456+05:30'",
        Type("timestamptz", native="TIMESTAMP WITH TIME ZONE", dialect="duckdb"),
        datetime(2024, 2, 29, 7, 4, 56, 123456, tzinfo=UTC),
    ),
    (
        "TIMESTAMP_NS '2024-01-01 00:00:00.123456789'",
        Type("timestamp", precision=9, native="TIMESTAMP_NS", dialect="duckdb"),
        "2024-01-01 00:00:00.123456789",
    ),
    ("TIME '24:00:00'", Type("time", native="TIME", dialect="duckdb"), "24:00:00"),
    (
        "TIMETZ '23:59:59+05:30'",
        Type("timetz", native="TIME WITH TIME ZONE", dialect="duckdb"),
        clock.fromisoformat("23:59:59+05:30"),
    ),
    (
        "INTERVAL '1 year 2 mons 3 days 04:05:06.7'",
        Type("interval", native="INTERVAL", dialect="duckdb"),
        "1 year 2 mons 3 days 04:05:06.7",
    ),
    (
        "'9d3a2c9e-0c4f-4a6b-9a63-0a6b1b4f9a77'::UUID",
        Type("uuid", native="UUID", dialect="duckdb"),
        "9d3a2c9e-0c4f-4a6b-9a63-0a6b1b4f9a77",
    ),
    ("""'{"a": 1,  "a":2}'::JSON""", Type("json", native="JSON", dialect="duckdb"), '{"a": 1,  "a":2}'),
    ("'b'::ENUM('a','b''c','b')", Type("enum", labels=("a", "b'c", "b"), native="ENUM('a', 'b''c', 'b')", dialect="duckdb"), "b"),
    ("'0101'::BIT", Type("other", native="BIT", dialect="duckdb"), "0101"),
    (
        "[1, NULL]",
        Type("array", item=Type("int", bits=32, native="INTEGER", dialect="duckdb"), native="INTEGER[]", dialect="duckdb"),
        "{1,NULL}",
    ),
    (
        "['9d3a2c9e-0c4f-4a6b-9a63-0a6b1b4f9a77'::UUID]",
        Type("array", item=Type("uuid", native="UUID", dialect="duckdb"), native="UUID[]", dialect="duckdb"),
        "{9d3a2c9e-0c4f-4a6b-9a63-0a6b1b4f9a77}",
    ),
    (
        "{'a': 1.10::DECIMAL(38,20), 'b': [DATE '2024-02-29', NULL]}",
        Type("json", native="STRUCT(a DECIMAL(38,20), b DATE[])", dialect="duckdb"),
        '{"a": 1.10000000000000000000, "b": ["2024-02-29", null]}',
    ),
]  # fmt: skip


def test_types_and_values_that_are_read(read: Any) -> None:
    reader = read()
    for text, kind, value in EXPRESSIONS:
        query = f"SELECT {text} AS a UNION ALL SELECT NULL"
        assert reader.describe(Query(sql=query)).columns == (Column("a", kind),), text
        found = rows_of(reader, query)
        assert found == [(value,), (None,)], text
        assert type(found[0][0]) is type(value)


@pytest.mark.parametrize(
    ("expression", "value", "reason"),
    [
        ("DATE 'infinity'", "infinity", "cannot be date32[day]: Arrow has no infinity"),
        ("TIMESTAMP '-infinity'", "-infinity", "cannot be timestamp[us]: Arrow has no infinity"),
        ("TIME '24:00:00'", "24:00:00", "cannot be time64[us]: the day is over"),
    ],
)
def test_arrow_lane_refuses_what_arrow_cannot_hold(read: Any, expression: str, value: str, reason: str) -> None:
    reader = read()
    query = Query(sql=f"SELECT NULL AS a UNION ALL SELECT {expression}")

    with pytest.raises(BadValue) as told:
        list(reader.batches(query, reader.describe(query)))

    assert str(told.value) == f"column 'a', row 2: the value '{value}' {reason}"


def test_nested_values_that_arrow_would_change(read: Any) -> None:
    reader = read()
    query = Query(sql="SELECT {'a': 1::HUGEINT} AS a")

    with pytest.raises(Refused) as told:
        list(reader.rows(query, reader.describe(query)))

    assert str(told.value) == "column 'a' is STRUCT(a HUGEINT), which cannot be read exactly; cast it, e.g. to VARCHAR"


def test_arrow_has_the_type_of_the_catalogue(read: Any) -> None:
    reader = read("CREATE TABLE t (a DECIMAL(10,2), b ENUM('x','y'), c UUID, d JSON, e HUGEINT, f INTEGER[])")
    query = Query(table=(None, "t"))
    schema = reader.describe(query)

    assert list(reader.batches(query, schema)) == []
    assert arrow_types.arrow_schema(schema).types == [
        pa.decimal128(10, 2), pa.string(), pa.string(), pa.string(), pa.decimal256(39, 0), pa.list_(pa.int32()),
    ]  # fmt: skip


def test_table_is_described_with_keys_comments_and_nullability(read: Any) -> None:
    reader = read(
        'CREATE TABLE "a ""b" ("select" INT, "CamelCase" TEXT NOT NULL, "é" TEXT, PRIMARY KEY ("select"))',
        """COMMENT ON COLUMN "a ""b"."é" IS 'where it''s from'""",
    )

    found = reader.describe(Query(table=("main", 'a "b')))

    assert found.keys == ("select",)
    assert [(one.name, one.nullable, one.comment) for one in found.columns] == [
        ("select", False, ""),
        ("CamelCase", False, ""),
        ("é", True, "where it's from"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 'a%b :x {{ y }} ? $$' AS a -- the end;",
        "/* ; */ WITH q AS (SELECT 'a%b :x {{ y }} ? $$' AS a) FROM q;",
        "SELECT 'a%b :x {{ y }} ? $$' AS a;\n-- the end",
        "SELECT 'a%b :x {{ y }} ? $$' AS a /* ; */ ; /* ; */ -- ;",
        "SELECT 'a%b :x {{ y }} ? $$' AS a WHERE ';--' = ';--'",
    ],
)
def test_query_reaches_duckdb_untouched(read: Any, text: str) -> None:
    assert rows_of(read(), text) == [("a%b :x {{ y }} ? $$",)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("SELECT 1 AS a; SELECT 2", "the query is 2 statements; write one that gives rows"),
        ("DROP TABLE x", "the query gives no rows; write one SELECT"),
        ("CREATE TABLE x (a INT)", "the query gives no rows; write one SELECT"),
        ("SELECT nothing", 'the query cannot be read: Referenced column "nothing"'),
        ("SELEC 1", 'the query cannot be read: syntax error at or near "SELEC"'),
        ("SELECT * FROM nowhere", "the query cannot be read: "),
        ("", "the query is 0 statements; write one that gives rows"),
    ],
)
def test_queries_that_are_refused(read: Any, text: str, reason: str) -> None:
    with pytest.raises(Refused) as told:
        read().describe(Query(sql=text))

    assert str(told.value).startswith(reason)
    assert "\n" not in str(told.value)


def test_error_in_a_row_names_the_reason(read: Any) -> None:
    query = Query(sql="SELECT CAST(x AS INT) AS a FROM (VALUES ('1'), ('x')) t(x)")
    reader = read()

    with pytest.raises(BadValue, match="^the query cannot be read: Could not convert string 'x' to INT32[^\n]*$"):
        list(reader.rows(query, reader.describe(query)))


def test_columns_and_conditions_of_a_query(read: Any) -> None:
    reader = read("CREATE TABLE t AS SELECT range AS a, range * 2 AS b FROM range(10)")
    query = Query(table=(None, "t"), where=("a > 7",), columns=(("B", "b + 1"), ("select", "a")))

    assert [row for some in reader.rows(query, reader.describe(query)) for row in some] == [(17, 8), (19, 9)]


@pytest.mark.parametrize("method", ["range", "hash"])
@pytest.mark.parametrize("kind", ["a", "(DATE '2024-01-01' + a::INT)", "a::VARCHAR", "a::DECIMAL(10,2)", "a::DOUBLE"])
def test_parts_give_each_row_once(read: Any, method: str, kind: str) -> None:
    reader = read(
        f"CREATE TABLE t AS SELECT {kind} AS k, a FROM (SELECT range AS a FROM range(1000) UNION ALL SELECT NULL)"
    )
    query = Query(table=(None, "t"))
    schema = reader.describe(query)

    parts = reader.parts(query, schema, {"by": "k", "parts": 4, "method": method})

    found = [
        [row for some in reader.rows(Query(table=(None, "t"), where=one.where), schema) for row in some]
        for one in parts
    ]
    assert [one.name for one in parts] == [f"{method}-{n}-of-4" for n in range(1, 5)]
    if method == "range":
        assert sorted(repr(row) for rows in found for row in rows) == sorted(map(repr, rows_of(reader, "FROM t")))
        assert all(240 <= len(rows) <= 260 for rows in found)


def test_parts_that_are_refused(read: Any) -> None:
    reader = read("CREATE TABLE t (a INT)")
    query = Query(table=(None, "t"))
    schema = reader.describe(query)

    with pytest.raises(Refused, match=r"^`split: \{by: x\}` is no column of the query \(columns: a\)$"):
        reader.parts(query, schema, {"by": "x"})
    with pytest.raises(Refused, match=r"^`split: \{method: ctid\}` is unknown here; known: range, hash$"):
        reader.parts(query, schema, {"by": "a", "method": "ctid"})


def test_values_and_estimates(read: Any) -> None:
    reader = read("CREATE TABLE t AS SELECT range AS a FROM range(3000)")

    assert reader.value("SELECT max(a) FROM t") == 2999
    assert reader.value("SELECT a FROM t WHERE a < 0") is None
    assert reader.estimate(Query(table=(None, "t"))) == 3000
    for value in (None, True, 1, Decimal("1.10"), "a'b", date(2024, 2, 29), b"\0'", 0.1, clock(1, 2, 3, 4),
                  datetime(2024, 1, 1, 1, 2, 3, 4), datetime(2024, 1, 1, tzinfo=UTC)):  # fmt: skip
        assert reader.value(f"SELECT {reader.literal(value)}") == value


def test_read_only(read: Any) -> None:
    reader = read("CREATE TABLE t (a INT)")

    with pytest.raises((Refused, BadValue), match="read-only|read only|SELECT"):
        reader.value("INSERT INTO t VALUES (1) RETURNING a")


def test_file_that_is_not_there(session: Session) -> None:
    with pytest.raises(Refused) as told:
        ours.open_reader(URL, session)
    assert str(told.value) == "there is no file 'shop.duckdb' in the folder of the config"

    with pytest.raises(Refused) as told:
        ours.open_writer(make_url("duckdb:///no/shop.duckdb"), session)
    assert str(told.value) == "the file 'shop.duckdb' cannot be made: there is no folder 'no'; make it"

    with pytest.raises(Refused) as told:
        ours.open_writer(make_url("duckdb://"), session)
    assert str(told.value).startswith("the URL names no file; write duckdb:///shop.duckdb")

    (session.root / "shop.duckdb").write_bytes(b"no database" * 5000)
    with pytest.raises(Refused) as told:
        ours.open_reader(URL, session)
    assert str(told.value) == "the file 'shop.duckdb' is no database of DuckDB"


# -- what is written


@pytest.mark.parametrize("arrow", [True, False])
def test_modes_at_first_and_again(session: Session, arrow: bool) -> None:
    first = [(1, "a"), (2, None), (3, "")]
    second = [(2, "b"), (3, ""), (4, "d")]
    wanted = {
        "append": sorted(first + second, key=lambda one: (one[0], one[1] is None, one[1])),
        "insert_new": [*first, (4, "d")],
        "upsert": [(1, "a"), (2, "b"), (3, ""), (4, "d")],
        "delete_insert": [(1, "a"), (2, "b"), (3, ""), (4, "d")],
        "replace": second,
    }
    counts = {
        "append": (3, 3, 0, 0), "insert_new": (1, 1, 0, 0), "upsert": (2, 1, 1, 0), "delete_insert": (3, 3, 0, 2),
        "replace": (3, 3, 0, 3),
    }  # fmt: skip
    for mode, rows in wanted.items():
        keys = ("id",) if mode not in ("append", "replace") else ()
        sql(session, "DROP TABLE IF EXISTS orders", "DROP TABLE IF EXISTS _rainbow_etl_ledger")
        assert load(session, job(mode, keys=keys), first, arrow=arrow) is not None
        assert orders(session) == first
        found = load(session, job(mode, keys=keys, run_key="run-2"), second, arrow=arrow)
        assert found is not None
        assert (found.written, found.inserted, found.updated, found.deleted) == counts[mode], mode
        assert orders(session) == rows, mode
        assert load(session, job(mode, keys=keys, run_key="run-2"), [(9, "x")], arrow=arrow) is None
        assert orders(session) == rows, mode


@pytest.mark.parametrize("mode", ["append", "insert_new", "upsert", "delete_insert", "replace", "fail"])
def test_empty_loads_make_the_table(session: Session, mode: Any) -> None:
    """Case 8."""
    found = load(session, job(mode, keys=("id",)), [])

    assert found is not None
    assert found.written == 0
    assert sql(session, "DESCRIBE orders")[0][:4] == ("id", "INTEGER", "NO", "PRI")

    if mode != "fail":
        sql(session, "INSERT INTO orders VALUES (1, 'a')")
        load(session, job(mode, keys=("id",), run_key="run-2"), [])
        assert orders(session) == ([] if mode == "replace" else [(1, "a")])


def test_upsert_with_nothing_changed_writes_nothing(session: Session) -> None:
    rows = [(n, str(n)) for n in range(100)]
    load(session, job("upsert", keys=("id",)), rows)

    found = load(session, job("upsert", keys=("id",), run_key="run-2"), rows)

    assert found is not None
    assert (found.written, found.updated) == (0, 0)


def test_delete_insert_by_condition(session: Session) -> None:
    load(session, job(), [(1, "a"), (2, "a"), (3, "b")])

    found = load(session, job("delete_insert", run_key="run-2", where=("name = 'a'",)), [(9, "a")])

    assert found is not None
    assert (found.deleted, found.inserted) == (2, 1)
    assert orders(session) == [(3, "b"), (9, "a")]


def test_fail_wants_no_table(session: Session) -> None:
    load(session, job("fail"), [(1, "a")])

    with pytest.raises(Refused) as told:
        load(session, job("fail", run_key="run-2"), [(1, "a")])

    assert str(told.value) == (
        "the table 'orders' exists already and `mode: fail` wants none; choose another mode or table"
    )


@pytest.mark.parametrize("mode", ["upsert", "insert_new"])
def test_keys_that_occur_twice(session: Session, mode: Any) -> None:
    """Case 19."""
    load(session, job(mode, keys=("id",)), [(1, "a")])

    with pytest.raises(BadValue) as told:
        load(session, job(mode, keys=("id",), run_key="run-2"), [(2, "a"), (2, "b"), (7, "c"), (7, "c")])

    assert str(told.value) == "2 keys occur more than once (id=2; id=7); nothing was written: make them unique"
    assert orders(session) == [(1, "a")]


def test_keys_without_a_value(session: Session) -> None:
    schema = Schema((Column("id", Type("int", bits=32)), Column("name", Type("text"))))

    with pytest.raises(BadValue) as told:
        load(session, job("upsert", schema, keys=("id",)), [(1, "a"), (None, "b")])

    assert str(told.value) == "1 of the rows have no value in the keys 'id'; nothing was written"
    assert sql(session, "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'orders'") == [(0,)]


def test_modes_without_keys(session: Session) -> None:
    with pytest.raises(Refused) as told:
        load(session, job("upsert"), [])

    assert str(told.value) == "`mode: upsert` needs `keys`; name the columns that tell a row from others"


def test_constraint_of_the_table(session: Session) -> None:
    sql(session, "CREATE TABLE orders (id INT PRIMARY KEY, name TEXT)", "INSERT INTO orders VALUES (5, 'x')")

    with pytest.raises(BadValue) as told:
        load(session, job(), [(1, "a"), (5, "b")])

    assert str(told.value).startswith("the table 'orders' refuses one of the rows 2 to 2: ")
    assert orders(session) == [(5, "x")]
    assert sql(session, "SELECT count(*) FROM _rainbow_etl_ledger") == [(0,)]


def test_columns_that_differ_in_case(session: Session) -> None:
    schema = Schema((Column("id", Type("text")), Column("ID", Type("text"))))

    with pytest.raises(Refused) as told:
        load(session, job(schema=schema), [])

    assert str(told.value) == "columns 'id' and 'ID' differ in case only, which DuckDB does not see"


def test_forced_loads(session: Session) -> None:
    load(session, job("upsert", keys=("id",)), [(1, "a")])

    assert load(session, job("upsert", keys=("id",), force=True), [(1, "b")]) is not None
    assert orders(session) == [(1, "b")]
    with pytest.raises(Refused, match="^`mode: append` cannot be forced"):
        load(session, job(force=True), [(1, "b")])


def test_state_is_that_of_the_last_load(session: Session) -> None:
    def state() -> Any:
        writer = ours.open_writer(URL, session)
        try:
            return writer.state(job())
        finally:
            writer.close()

    assert state() == {}
    load(session, job(), [(1, "a")], state={"cursor": "2024-01-01"})
    load(session, job(run_key="run-2"), [(2, "b")], state={"cursor": "2024-01-02"})
    load(session, job(run_key="run-3"), [])
    assert state() == {"cursor": "2024-01-02"}


def test_schema_that_is_not_there(session: Session) -> None:
    one = Job("n", "r", ("mart", "orders"), "append", ROWS)

    with pytest.raises(Refused) as told:
        load(session, one, [])
    assert str(told.value) == "there is no schema 'mart'; make it: CREATE SCHEMA \"mart\""

    sql(session, "CREATE SCHEMA mart")
    assert load(session, one, [(1, "a")]) is not None
    assert sql(session, "FROM mart.orders") == [(1, "a")]
    assert sql(session, "SELECT count(*) FROM mart._rainbow_etl_ledger") == [(1,)]


def test_checks_see_the_rows_before_the_commit(session: Session) -> None:
    for mode in ("append", "upsert"):
        one = job(mode, keys=("id",), run_key=mode)
        writer = ours.open_writer(URL, session)
        assert writer.begin(one, writer.describe(one.table))
        writer.write_rows([[(1, "a"), (2, None)]])
        assert writer.query(f"SELECT count(*) FROM {writer.staged()} WHERE name IS NULL") == [(1,)]
        writer.rollback()
        writer.close()
    assert sql(session, "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'orders'") == [(0,)]


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_rows_wait_in_a_stage_for_checks(session: Session, mode: Any) -> None:
    load(session, job(mode, keys=("id",)), [(1, "a"), (2, "a")])
    one = job(mode, run_key="run-2", stage=True, keys=("id",))
    writer = ours.open_writer(URL, session)
    assert writer.begin(one, writer.describe(one.table))
    read = writer.write_rows([[(3, "b"), (4, None)]])

    assert writer.query(f"SELECT count(*) FROM {writer.staged()} AS s WHERE s.name IS NULL") == [(1,)]
    assert writer.do(writer.deletion(writer.staged(), "s.name IS NULL")) == 1
    counts = writer.finish(Counts(read=read))
    writer.commit(counts)
    writer.close()

    assert orders(session) == [(1, "a"), (2, "a"), (3, "b")]
    assert counts.inserted == 1


def test_columns_are_added_and_widened(session: Session) -> None:
    load(session, job(), [(1, "a")])
    numeric = Type("decimal", native="numeric", dialect="postgresql")
    wide = Schema((Column("id", Type("int", bits=64)), Column("name", Type("text")), Column("n", numeric)))
    one = job(schema=wide, run_key="run-2")
    writer = ours.open_writer(URL, session)

    changes = writer.alter(one, [wide["n"]], [wide["id"]])
    assert writer.begin(one, writer.describe(one.table), changes)
    writer.write_rows([[(2**40, "b", Decimal("1.10"))]])
    writer.commit(writer.finish(Counts()))
    existing = writer.describe(one.table)
    writer.close()

    assert orders(session) == [(1, "a", None), (2**40, "b", "1.10")]
    assert existing is not None
    assert [one.type.kind for one in existing.columns] == ["int", "text", "decimal"]


def test_state_is_forgotten(session: Session) -> None:
    load(session, job(), [(1, "a")], state={"cursor": 1})
    writer = ours.open_writer(URL, session)

    assert writer.forget(job()) == 1
    assert writer.state(job()) == {}
    assert writer.forget(job()) == 0
    writer.close()
    assert load(session, job(), [(1, "a")]) is None


def test_who_only_looks_makes_no_file(session: Session) -> None:
    looking = Session(root=session.root, only_looks=True)

    writer = ours.open_writer(URL, looking)
    assert writer.describe((None, "orders")) is None
    writer.close()
    assert list(session.root.iterdir()) == []

    load(session, job(), [(1, "a")])
    both = [ours.open_writer(URL, looking), ours.open_reader(URL, looking)]
    assert both[0].describe((None, "orders")) is not None  # type: ignore[union-attr]
    for one in both:
        one.close()


PG = "postgresql"
HELD: list[tuple[Type, str, list[Any]]] = [
    (Type("decimal", native="numeric", dialect=PG), "VARCHAR", [Decimal("1.12345678901234567890"), Decimal("NaN")]),
    (Type("decimal", precision=50, scale=2, native="numeric(50,2)", dialect=PG), "VARCHAR", [Decimal("9" * 48 + ".99")]),
    (Type("decimal", precision=2, scale=-3, dialect=PG), "DECIMAL(5,0)", [Decimal("99000")]),
    (Type("timetz", native="timetz", dialect=PG), "TIME WITH TIME ZONE", [clock.fromisoformat("23:59:59+05:30")]),
    (Type("interval", native="interval", dialect=PG), "INTERVAL", ["1 year 2 mons 3 days 04:05:06.7", "-1 days"]),
    (Type("json", native="json", dialect=PG), "JSON", ['{"a": 1,  "a":2}', "null"]),
    (Type("uuid", native="uuid", dialect=PG), "UUID", ["9d3a2c9e-0c4f-4a6b-9a63-0a6b1b4f9a77"]),
    (Type("other", native="inet", dialect=PG), "VARCHAR", ["10.0.0.1/8"]),
    (Type("enum", labels=("a'b", "c"), dialect=PG), "ENUM('a''b', 'c')", ["a'b"]),
    (Type("array", item=Type("text", dialect=PG), dialect=PG), "VARCHAR[]", ['{a,NULL,"NULL","a\\"b"}', "{}"]),
    (Type("date"), "DATE", [date.min, "0044-03-15 BC"]),
    (Type("timestamptz"), "TIMESTAMP WITH TIME ZONE", [datetime.max.replace(tzinfo=UTC)]),
    (Type("timestamp", precision=9), "TIMESTAMP_NS", ["2024-01-01 00:00:00.123456789"]),
    (Type("bytes"), "BLOB", [b"\0\xff"]),
    (Type("text", length=3), "VARCHAR", ["é中😀", "", "a\0b"]),
    (Type("int", bits=24), "INTEGER", [-(2**23)]),
    (Type("float", bits=32), "FLOAT", [0.5, float("inf")]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spelling", "values"), HELD, ids=[str(one[0]) for one in HELD])
def test_types_there_and_back(session: Session, kind: Type, spelling: str, values: list[Any]) -> None:
    schema = Schema((Column("a", kind, comment="it's"),))
    rows = [(one,) for one in [*values, None]]

    load(session, job(schema=schema), rows)

    assert sql(session, "DESCRIBE orders")[0][1] == spelling
    reader = ours.open_reader(URL, session)
    query = Query(table=(None, "orders"))
    found = reader.describe(query)
    back = [row for some in reader.rows(query, found) for row in some]
    reader.close()
    assert back == rows or (repr(back) == repr(rows))
    assert found.columns[0].type.kind == kind.kind
    writer = ours.open_writer(URL, session)
    existing = writer.describe((None, "orders"))
    writer.close()
    assert existing is not None
    if kind.kind not in ("other",):
        assert fit(kind, existing["a"].type), "a second load must not be refused"
    assert load(session, job(schema=schema, run_key="run-2"), rows) is not None


def test_duckdb_to_duckdb_keeps_every_type(session: Session, tmp_path: Path) -> None:
    made = [(text, kind) for text, kind, value in EXPRESSIONS if "infinity" not in text and "24:00" not in text]
    sql(session, "CREATE TABLE t AS SELECT " + ", ".join(f"{text} AS c{n}" for n, (text, _) in enumerate(made)))
    reader = ours.open_reader(URL, session)
    query = Query(table=(None, "t"))
    schema = reader.describe(query)
    writer = ours.open_writer(make_url("duckdb:///copy.duckdb"), session)
    one = job(schema=schema)

    assert writer.begin(one, None)
    writer.write_batches(reader.batches(query, schema))
    writer.commit(writer.finish(Counts()))
    reader.close()
    writer.close()

    with duckdb.connect(str(tmp_path / "copy.duckdb")) as copy:
        copy.execute(f"ATTACH '{tmp_path}/shop.duckdb' AS a (READ_ONLY)")
        assert copy.execute("DESCRIBE orders").fetchall() == copy.execute("DESCRIBE a.t").fetchall()
        names = ", ".join(f"c{n}::VARCHAR" for n in range(len(made)))
        assert (
            copy.execute(f"SELECT {names} FROM orders").fetchall()
            == copy.execute(f"SELECT {names} FROM a.t").fetchall()
        )


def test_spelling_of_types_is_read() -> None:
    assert type_of("DECIMAL(18,3)") == Type("decimal", precision=18, scale=3, native="DECIMAL(18,3)", dialect="duckdb")
    assert type_of("INTEGER[3]").kind == "array"
    assert type_of("STRUCT(a INTEGER)[]").kind == "json"
    assert type_of("GEOMETRY").kind == "other"


# -- other processes

WRITER = """
import sys, time
from pathlib import Path
from sqlalchemy.engine import make_url
from rainbow_prefect.sql_etl.base import *
from rainbow_prefect.sql_etl.types import *
from rainbow_prefect.sql_etl.duckdb import open_writer
schema = Schema((Column("id", Type("int", bits=32), nullable=False), Column("name", Type("text"))))
writer = open_writer(make_url("duckdb:///shop.duckdb"), Session(root=Path(sys.argv[1]), lock_timeout_seconds=60))
job = Job("nightly.orders", sys.argv[2], (None, "orders"), sys.argv[3], schema, keys=("id",) if sys.argv[3] == "upsert" else ())
print("open", flush=True)
if writer.begin(job, writer.describe(job.table)):
    counts = Counts(read=writer.write_rows([(n, str(n)) for n in range(start, start + 500)] for start in range(0, 20_000, 500)))
    writer.commit(writer.finish(counts))
    print("loaded", flush=True)
else:
    print("skipped", flush=True)
time.sleep(float(sys.argv[4]))
writer.close()
"""


def started(session: Session, run_key: str, mode: str = "append", stay: float = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(session.root), run_key, mode, str(stay)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_another_process_that_holds_the_file(session: Session) -> None:
    other = started(session, "run-1", stay=600)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"

        for open_one in (ours.open_writer, ours.open_reader):
            with pytest.raises(Passing) as told:
                open_one(URL, session)
            assert str(told.value).startswith("the file 'shop.duckdb' is held by python")
            assert str(told.value).endswith(f"(process {other.pid}); end it or wait")
    finally:
        other.kill()
        other.communicate()


def test_a_file_that_another_task_of_this_process_reads(session: Session) -> None:
    sql(session, "CREATE TABLE t (a INT)")
    reader = ours.open_reader(URL, session)
    try:
        with pytest.raises(Passing, match="^the file 'shop.duckdb' is open in this process in another way"):
            ours.open_writer(URL, session)
    finally:
        reader.close()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
def test_killed_at_any_moment_and_tried_again(session: Session, mode: str) -> None:
    chance = random.Random(mode)
    for number in range(4):
        run_key = f"run-{number}"
        one = started(session, run_key, mode, stay=600)
        assert one.stdout is not None
        one.stdout.readline()
        time.sleep(chance.uniform(0, 0.6))
        os.kill(one.pid, signal.SIGKILL)
        one.communicate()

        again = started(session, run_key, mode)
        out, _ = again.communicate(timeout=120)

        assert again.returncode == 0
        assert out.split()[-1] in ("loaded", "skipped")
        times = number + 1 if mode == "append" else 1
        wanted = [(20_000 * times, 20_000, sum(range(20_000)) * times)]
        assert sql(session, "SELECT count(*), count(DISTINCT id), sum(id) FROM orders") == wanted
    assert {one.name for one in session.root.iterdir()} == {"shop.duckdb"}


def test_two_writers_of_one_part_at_once(session: Session) -> None:
    both = [started(session, "run-1"), started(session, "run-1")]

    ends = sorted(one.communicate(timeout=120)[0].split()[-1] for one in both)

    assert ends == ["loaded", "skipped"]
    assert sql(session, "SELECT count(*) FROM orders") == [(20_000,)]
