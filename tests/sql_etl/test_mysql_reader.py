"""Reading MariaDB: columns from its catalogue, values as they are, statements untouched, an end in time."""

from __future__ import annotations

import threading
import time
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from rainbow_prefect.errors import Cancelled, TaskFailed
from rainbow_prefect.sql_etl.base import BadValue, Passing, Query, Refused, Session
from rainbow_prefect.sql_etl.mysql_reader import MysqlReader
from rainbow_prefect.sql_etl.types import Type

from .mysql_tools import Admin, Settings, admin, read, reader

CELLS: list[tuple[str, str, Type, Any, bytes]] = [
    # type, literal, what it is, in Python, as a line
    ("tinyint", "-128", Type("int", bits=8), -128, b"-128"),
    ("tinyint unsigned", "255", Type("int", bits=8, unsigned=True), 255, b"255"),
    ("tinyint(1)", "7", Type("int", bits=8), 7, b"7"),
    ("smallint", "-32768", Type("int", bits=16), -32768, b"-32768"),
    ("mediumint", "-8388608", Type("int", bits=32), -8388608, b"-8388608"),
    ("int unsigned", "4294967295", Type("int", bits=32, unsigned=True), 4294967295, b"4294967295"),
    ("int(5) unsigned zerofill", "42", Type("int", bits=32, unsigned=True), 42, b"00042"),
    ("bigint", "-9223372036854775808", Type("int", bits=64), -(2**63), b"-9223372036854775808"),
    ("bigint unsigned", "18446744073709551615", Type("int", bits=64, unsigned=True), 2**64 - 1, b"18446744073709551615"),
    ("bit(1)", "b'1'", Type("bool"), True, b"t"),
    ("bit(10)", "b'1111111111'", Type("int", bits=16, unsigned=True), 1023, b"1023"),
    ("bit(64)", "~0", Type("int", bits=64, unsigned=True), 2**64 - 1, b"18446744073709551615"),
    ("year", "2155", Type("int", bits=16), 2155, b"2155"),
    ("year", "0000", Type("int", bits=16), 0, b"0000"),
    (
        "decimal(65,30)",
        "'-12345678901234567890123456789012345.123456789012345678901234567890'",
        Type("decimal", precision=65, scale=30),
        Decimal("-12345678901234567890123456789012345.123456789012345678901234567890"),
        b"-12345678901234567890123456789012345.123456789012345678901234567890",
    ),
    ("decimal(10,0) unsigned", "9999999999", Type("decimal", precision=10, scale=0), Decimal(9999999999), b"9999999999"),
    ("double", "0.1e0 + 0.2e0", Type("float", bits=64), 0.30000000000000004, b"0.30000000000000004"),
    ("double", "5e-324", Type("float", bits=64), 5e-324, b"5e-324"),
    ("double", "1.7976931348623157e308", Type("float", bits=64), 1.7976931348623157e308, b"1.7976931348623157e308"),
    ("float", "16777217.9", Type("float", bits=32), 16777218.0, b"16777218"),
    ("float", "0.1", Type("float", bits=32), 0.10000000149011612, b"0.10000000149011612"),
    ("date", "'0001-01-01'", Type("date"), date(1, 1, 1), b"0001-01-01"),
    ("date", "'9999-12-31'", Type("date"), date(9999, 12, 31), b"9999-12-31"),
    ("datetime", "'2024-03-31 02:30:00'", Type("timestamp", precision=0), datetime(2024, 3, 31, 2, 30), b"2024-03-31 02:30:00"),
    (
        "datetime(6)",
        "'9999-12-31 23:59:59.999999'",
        Type("timestamp", precision=6),
        datetime(9999, 12, 31, 23, 59, 59, 999999),
        b"9999-12-31 23:59:59.999999",
    ),
    (
        "timestamp(3) null",
        "'2024-02-29 12:34:56.789'",
        Type("timestamptz", precision=3),
        datetime(2024, 2, 29, 12, 34, 56, 789000, tzinfo=UTC),
        b"2024-02-29 12:34:56.789+00",
    ),
    ("time(6)", "'12:34:56.000001'", Type("time", precision=6), clock(12, 34, 56, 1), b"12:34:56.000001"),
    ("time", "'24:00:00'", Type("time", precision=0), "24:00:00", b"24:00:00"),
    ("time", "'838:59:59'", Type("time", precision=0), "838:59:59", b"838:59:59"),
    ("time", "'-00:00:01'", Type("time", precision=0), "-00:00:01", b"-00:00:01"),
    ("char(5)", "'ab  '", Type("text", length=5, fixed=True), "ab", b"ab"),
    ("varchar(10)", "'w  '", Type("text", length=10), "w  ", b"w  "),
    ("varchar(10) character set latin1", "'é'", Type("text", length=10), "é", "é".encode()),
    ("varchar(10) character set utf8mb3", "'中'", Type("text", length=10), "中", "中".encode()),
    ("tinytext", "''", Type("text", length=255), "", b""),
    ("text", r"'a\tb\n\\N\r\0'", Type("text", length=65535), "a\tb\n\\N\r\0", rb"a\tb\n\\N\r" + b"\0"),
    ("mediumtext", "'😀e\u0301'", Type("text", length=16777215), "😀e\u0301", "😀e\u0301".encode()),
    ("longtext", "'NULL'", Type("text"), "NULL", b"NULL"),
    ("enum('a','b''c','d\\\\e')", "'d\\\\e'", Type("enum", labels=("a", "b'c", "d\\e")), "d\\e", rb"d\\e"),
    ("set('x','y')", "'y,x'", Type("text", length=3), "x,y", b"x,y"),
    ("json", '\'{"a": 1,  "a":2}\'', Type("json"), '{"a": 1,  "a":2}', b'{"a": 1,  "a":2}'),
    ("binary(4)", "x'00ff'", Type("bytes", length=4, fixed=True), b"\0\xff\0\0", rb"\\x00ff0000"),
    ("varbinary(9)", "x'0d0a09'", Type("bytes", length=9), b"\r\n\t", rb"\\x0d0a09"),
    ("blob", "''", Type("bytes", length=65535), b"", rb"\\x"),
    ("longblob", "x'5c4e'", Type("bytes"), rb"\N", rb"\\x5c4e"),
    ("uuid", "'123E4567-e89b-12d3-a456-426614174000'", Type("uuid"), "123e4567-e89b-12d3-a456-426614174000", b"123e4567-e89b-12d3-a456-426614174000"),
    ("inet6", "'::1'", Type("other"), "::1", b"::1"),
    ("inet4", "'10.0.0.1'", Type("other"), "10.0.0.1", b"10.0.0.1"),
]  # fmt: skip


@pytest.fixture
def db(mariadb: str) -> Any:
    with admin(mariadb) as made:
        yield made


def test_every_type_is_read_as_it_is(mariadb: str, db: Admin) -> None:
    columns = ", ".join(f"c{at} {one[0]}" for at, one in enumerate(CELLS))
    db.run(f"create table t ({columns})")
    db.run(f"insert into t values ({', '.join(one[1] for one in CELLS)})")
    db.run("insert into t values ()")

    with reader(mariadb) as source:
        query = Query(sql="select * from t")
        found = source.describe(query)
        rows = [row for some in source.rows(query, found) for row in some]
        lines = b"".join(source.chunks(query, found, "pg_text")).split(b"\n")

    for at, (spelled, literal, kind, value, line) in enumerate(CELLS):
        one = found.columns[at].type
        shown = Type(
            one.kind, one.bits, one.unsigned, one.precision, one.scale, one.length, one.fixed, labels=one.labels
        )
        assert (spelled, literal, shown) == (spelled, literal, kind)
        assert (spelled, rows[0][at]) == (spelled, value)
        assert (spelled, type(rows[0][at])) == (spelled, type(value))
        assert (spelled, lines[0].split(b"\t")[at]) == (spelled, line)
    assert rows[1] == (None,) * len(CELLS)
    assert lines[1:] == [b"\t".join([rb"\N"] * len(CELLS)), b""]


def test_table_has_keys_comments_and_how_it_fills_itself(mariadb: str, db: Admin) -> None:
    db.run(
        "create table t (id int auto_increment comment 'the number', b int not null default 3,"
        " c int generated always as (b + 1) stored, d timestamp not null default current_timestamp, primary key (b, id), key (id))"
        " comment 'a table'"
    )

    with reader(mariadb) as source:
        found = source.describe(Query(table=(None, "t")))

    assert (found.names, found.keys, found.comment) == (("id", "b", "c", "d"), ("id", "b"), "a table")
    assert [one.nullable for one in found.columns] == [False, False, True, False]
    assert found["id"].comment == "the number"


def test_expressions_are_described_by_the_server(mariadb: str, db: Admin) -> None:
    db.run("create table t (i int unsigned, d decimal(10,2), e enum('a','b'), v varchar(7))")

    with reader(mariadb) as source:
        found = source.describe(
            Query(
                sql="select sum(i) s, avg(d) a, now(3) n, concat(v, '!') c, count(*) k, x.e, null z, 1.50 f, x'00' h from t x"
            )
        )

    assert [str(one.type) for one in found.columns] == [
        "decimal(32,0)",
        "decimal(14,6)",
        "datetime(3)",
        "text(8)",
        "bigint",
        "enum('a','b')",
        "text(0)",
        "decimal(3,2)",
        "bytes(1)",
    ]


def test_query_reaches_the_source_untouched(mariadb: str) -> None:
    query = """
        -- a comment; with a semicolon
        select 'a%s :name ? {{ x }} $$ ''' as a, '%d' like '%a%' as b, "x;y" as c, 5 % 3 as `d;` /* and ; this */ ;
        -- the end
    """

    assert read(mariadb, query) == [("a%s :name ? {{ x }} $$ '", 0, "x;y", 2)]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "select 1;\nselect 2",
            "the source: the query is more than one statement (the second begins at 2:1); write one",
        ),
        ("  -- nothing\n ; ", "the source: the query is empty; write a SELECT"),
        ("select ?", "the source: the query has 1 `?`, and no values are bound; write the values into it"),
        ("select nope from t", "the source: Unknown column 'nope' in 'SELECT' (error 1054)"),
        ("set @a = 1", "the source: the statement gives no rows; write a SELECT"),
        (
            "insert into t values (1, null)",
            "the source: Cannot execute statement in a READ ONLY transaction (error 1792)",
        ),
        ("select g from t", "the source: column 'g' is a point; take its text or bytes, e.g. ST_AsText(g) as g"),
    ],
)
def test_query_that_cannot_be_read_is_refused(mariadb: str, db: Admin, query: str, message: str) -> None:
    db.run("create table t (a int, g point)")

    with reader(mariadb) as source, pytest.raises(Refused) as error:
        source.describe(Query(sql=query))

    assert str(error.value) == message
    assert db.one("select count(*) from t") == 0


def test_where_and_columns_of_ours_go_around_the_query(mariadb: str, db: Admin) -> None:
    db.run("create table t (a int, b int)")
    db.run("insert into t values (1, 10), (2, 20), (3, null)")

    whole = read(
        mariadb, Query(sql="select * from t -- all", where=("a > 1", "a < 9"), columns=(("x", "a * 2"), ("b", "b")))
    )
    table = read(mariadb, Query(table=(make_url(mariadb).database, "t"), where=("b is null or a = 1",)))

    assert sorted(whole, key=str) == [(4, 20), (6, None)]
    assert sorted(table) == [(1, 10), (3, None)]


def test_zero_date_is_an_error_or_null_when_asked(mariadb: str, db: Admin) -> None:
    db.run("set sql_mode = ''")
    db.run("create table t (id int, d date, m datetime)")
    db.run(
        "insert into t values (1, '2024-01-01', '2024-01-01'), (2, '0000-00-00', '2024-00-15 00:00:00'), (3, null, null)"
    )
    said: list[str] = []

    with reader(mariadb) as source, pytest.raises(BadValue) as error:
        query = Query(table=(None, "t"))
        list(source.rows(query, source.describe(query)))
    with reader(mariadb, Settings(zero_date="null"), Session(say=said.append)) as source:
        rows = [row for some in source.rows(query, source.describe(query)) for row in some]
        lines = b"".join(source.chunks(query, source.describe(query), "pg_text"))

    assert str(error.value) == (
        "the source: column 'd' holds the zero date '0000-00-00', which is no date;"
        " make it NULL in the query: nullif(d, 0), or write `zero_date: null`"
    )
    assert rows[1] == (2, None, None)
    assert lines.split(b"\n")[1] == rb"2	\N	\N"
    assert said[:2] == [
        "1 zero dates of column 'd' were read as NULL",
        "1 zero dates of column 'm' were read as NULL",
    ]


def test_instants_are_of_no_zone_of_the_server(mariadb: str, db: Admin) -> None:
    db.run("create table t (a timestamp(6), b datetime(6))")
    db.run("set time_zone = '+05:30'")
    db.run("insert into t values ('2024-02-29 12:34:56.123456', '2024-03-31 02:30:00')")

    assert read(mariadb, "select * from t") == [
        (datetime(2024, 2, 29, 7, 4, 56, 123456, tzinfo=UTC), datetime(2024, 3, 31, 2, 30))
    ]


def test_all_of_it_is_one_snapshot(mariadb: str, db: Admin) -> None:
    db.run("create table t (a int)")
    db.run("insert into t values (1)")

    with reader(mariadb) as source:
        db.run("insert into t values (2)")
        query = Query(table=(None, "t"))
        rows = list(source.rows(query, source.describe(query)))

    assert rows == [[(1,)]]


@pytest.mark.parametrize("count", [0, 1, 9_999, 10_000])
def test_no_row_is_lost_between_batches(mariadb: str, db: Admin, count: int) -> None:
    db.run("create table t (a int, b varchar(1000))")
    db.run(f"insert into t select seq, repeat('x', 1000) from seq_1_to_{count or 1} where {count} > 0")

    with reader(mariadb) as source:
        query = Query(table=(None, "t"))
        found = source.describe(query)
        sizes = [len(rows) for rows in source.rows(query, found)]
        lines = sum(chunk.count(b"\n") for chunk in source.chunks(query, found, "pg_text"))

    assert (sum(sizes), lines, source.count) == (count, count, count)
    assert all(one <= 4300 for one in sizes)


def test_value_longer_than_a_packet_of_the_protocol(mariadb: str) -> None:
    # a row of more than 16 MiB comes in several packets; one value may have max_allowed_packet bytes
    query = "select repeat('a', 9000000) a, repeat('b', 9000000) b, 1 c"

    ((a, b, c),) = read(mariadb, query)

    assert (len(a), set(a), len(b), set(b), c) == (9_000_000, {"a"}, 9_000_000, {"b"}, 1)


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ({"by": "id", "executors": 3}, ["id 1/3", "id 2/3", "id 3/3"]),
        ({"hash": "s", "executors": 3}, ["s hash 1/3", "s hash 2/3", "s hash 3/3"]),
        ({"by": "d", "executors": 2}, ["d 1/2", "d 2/2"]),
        ({"by": "d", "every": "1 month"}, [f"2024-0{month}-01" for month in range(1, 6)]),
        ({"by": "m", "every": "7 weeks"}, ["2023-12-11T00:00:00", "2024-01-29T00:00:00", "2024-03-18T00:00:00", "2024-05-06T00:00:00"]),
    ],
)  # fmt: skip
def test_parts_give_each_row_once(mariadb: str, db: Admin, split: dict[str, Any], names: list[str]) -> None:
    db.run("create table t (id int, s varchar(10), d date, m datetime(3))")
    db.run(
        "insert into t select seq, concat('s', seq % 37), date_add('2024-01-15', interval seq hour),"
        " date_add('2024-01-15', interval seq hour) from seq_1_to_3000"
    )
    db.run("insert into t values (null, null, null, null)")

    with reader(mariadb) as source:
        query = Query(table=(None, "t"))
        found = source.describe(query)
        parts = source.parts(query, found, split)
        rows = [
            [row for some in source.rows(Query(table=(None, "t"), where=one.where), found) for row in some]
            for one in parts
        ]

    assert [one.name for one in parts] == names
    assert sum(map(len, rows)) == 3001
    assert len({row for one in rows for row in one}) == 3001
    assert all(rows)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"by": "nope"}, "`split` names the column 'nope', which the query does not give; known: id, s"),
        ({"ctid": True}, "`split` of a MySQL source takes `by` (with `every`), `hash` or `partitions`; it has ctid"),
        ({"by": "s"}, "`by` cuts a number, date or datetime, and the column 's' is varchar(10); use `split: {hash: s}`"),
        ({"by": "id", "every": "1 day"}, "`every` cuts a date or datetime, and the column 'id' is int(11); use `split: {hash: id}`"),
        ({"hash": "id", "executors": 0}, "`executors` of a split is a number from 1 to 10000, not 0"),
    ],
)  # fmt: skip
def test_split_that_is_not_possible_is_refused(mariadb: str, db: Admin, split: dict[str, Any], message: str) -> None:
    db.run("create table t (id int, s varchar(10))")

    with reader(mariadb) as source, pytest.raises(Refused) as error:
        source.parts(Query(table=(None, "t")), source.describe(Query(table=(None, "t"))), split)

    assert str(error.value) == message


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        7,
        -3,
        Decimal("1.50"),
        0.1,
        "it's",
        "a\\b\n%s",
        "é😀\0",
        b"\0'\\",
        date(2024, 2, 29),
        clock(1, 2, 3, 4),
    ],
)
@pytest.mark.parametrize("mode", ["", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES"])
def test_literals_are_read_back(mariadb: str, value: Any, mode: str) -> None:
    with reader(mariadb) as source:
        source._link.do(f"set sql_mode = '{mode}'")
        found = source.value(f"select {source.literal(value)}")

    assert found == value


def test_literal_of_an_instant_is_utc(mariadb: str) -> None:
    with reader(mariadb) as source:
        shown = source.literal(datetime(2024, 1, 1, 12, tzinfo=UTC) + timedelta(microseconds=5))

    assert shown == "TIMESTAMP'2024-01-01 12:00:00.000005'"


@pytest.mark.parametrize(
    "sql",
    [
        "select benchmark(2000000000, sha2('x', 512)) a",
        "select /* sha2 */ max(sha2(seq, 512)) a from seq_1_to_1000000000",
    ],
)
def test_cancel_ends_the_statement_in_time(mariadb: str, db: Admin, sql: str) -> None:
    stop = threading.Event()
    with reader(mariadb, session=Session(stop=stop)) as source:
        query = Query(sql=sql)
        found = source.describe(query)
        ended: list[BaseException] = []

        def run() -> None:
            try:
                list(source.rows(query, found))
            except BaseException as error:
                ended.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        waiting = "select count(*) from information_schema.processlist where id = %s and info like 'select%%sha2%%'"
        while db.one(waiting, [source._link.id]) == 0:
            time.sleep(0.05)
        stop.set()
        begun = time.monotonic()
        source.cancel()
        thread.join(60)
        took = time.monotonic() - begun

    assert [type(one) for one in ended] == [Cancelled]
    assert took < 10  # two seconds on a machine that has nothing else to do
    assert db.one(waiting, [source._link.id]) == 0


def test_rows_that_nobody_takes_are_not_waited_for(mariadb: str, db: Admin) -> None:
    with reader(mariadb) as source:
        query = Query(sql="select a.seq, repeat('x', 2000) t from seq_1_to_1000000 a, seq_1_to_1000000 b")
        rows = source.rows(query, source.describe(query))
        next(rows)
        number = source._link.id
    deadline = time.monotonic() + 60
    while db.one("select count(*) from information_schema.processlist where id = %s", [number]):
        assert time.monotonic() < deadline, "the server still works for a session that ended"
        time.sleep(0.1)


def test_connection_that_is_killed_may_be_tried_again(mariadb: str, db: Admin) -> None:
    with reader(mariadb) as source, pytest.raises(Passing, match=r"^the source: "):
        query = Query(sql="select a.seq, repeat('x', 2000) t from seq_1_to_100000 a")
        rows = source.rows(query, source.describe(query))
        next(rows)
        db.run("kill connection %s", [source._link.id])
        list(rows)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            {"username": "nobody_here", "password": "s3cret-pass"},
            Refused,
            "the source: Access denied for user 'nobody_here'",
        ),
        ({"database": "nowhere_at_all"}, Refused, "the source: Unknown database 'nowhere_at_all' (error 1049)"),
        ({"port": 1, "password": "s3cret-pass"}, Passing, "the source: Can't connect to MySQL server on '127.0.0.1'"),
    ],
)
def test_connection_that_cannot_be_made_is_told_without_the_password(
    mariadb: str, change: dict[str, Any], kind: type[TaskFailed], message: str
) -> None:
    with pytest.raises(kind) as error:
        MysqlReader(make_url(mariadb).set(**change), Session(), Settings())

    assert str(error.value).startswith(message)
    assert "s3cret" not in repr(error.value)
    assert error.value.__cause__ is None


def test_estimate_is_of_the_catalogue(mariadb: str, db: Admin) -> None:
    db.run("create table t (a int)")
    db.run("insert into t select seq from seq_1_to_5000")
    db.run("analyze table t")

    with reader(mariadb) as source:
        found = [source.estimate(Query(table=(None, "t"))), source.estimate(Query(sql="select * from t"))]

    assert all(one is not None and 4000 < one < 6000 for one in found)
