"""Columns and rows as Arrow and back: what is kept, what is refused and how that is said."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rainbow_prefect.sql_etl import _calendar, arrow_types
from rainbow_prefect.sql_etl.base import BadValue, Refused
from rainbow_prefect.sql_etl.types import Column, Schema, Type

SLOW = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
PLAIN: dict[str, tuple[Type, st.SearchStrategy[Any]]] = {
    "bool": (Type("bool"), st.booleans()),
    "int8": (Type("int", bits=8), st.integers(-128, 127)),
    "int24": (Type("int", bits=24), st.integers(-(2**23), 2**23 - 1)),
    "uint64": (Type("int", bits=64, unsigned=True), st.integers(0, 2**64 - 1)),
    "int64": (Type("int", bits=64), st.integers(-(2**63), 2**63 - 1)),
    "float32": (Type("float", bits=32), st.floats(width=32, allow_nan=False)),
    "float64": (Type("float", bits=64), st.floats(allow_nan=False)),
    "decimal": (
        Type("decimal", precision=38, scale=10),
        st.decimals(min_value=-(10**27), max_value=10**27, places=10, allow_nan=False, allow_infinity=False),
    ),
    "decimal76": (Type("decimal", precision=60, scale=0), st.integers(-(10**59), 10**59).map(Decimal)),
    "bare": (
        Type("decimal", native="numeric", dialect="postgresql"),
        st.decimals(allow_nan=False, allow_infinity=False).filter(lambda one: abs(one.adjusted()) < 300),
    ),
    "text": (Type("text"), TEXT),
    "bytes": (Type("bytes"), st.binary(max_size=20)),
    "date": (Type("date"), st.dates()),
    "time": (Type("time"), st.times()),
    "timetz": (
        Type("timetz"),
        st.times(timezones=st.integers(-14 * 60, 14 * 60).map(lambda n: timezone(timedelta(minutes=n)))),
    ),
    "timestamp": (Type("timestamp"), st.datetimes()),
    "timestamptz": (Type("timestamptz"), st.datetimes(timezones=st.just(UTC))),
    "uuid": (Type("uuid"), st.uuids().map(str)),
    "json": (Type("json"), st.sampled_from(['{"a": 1,  "a":2}', "null", "[]", '"é"'])),
    "enum": (Type("enum", labels=("a", "ü")), st.sampled_from(["a", "ü"])),
    "other": (Type("other", native="inet", dialect="postgresql"), st.sampled_from(["10.0.0.1/8"])),
}


def schema(*types: Type) -> Schema:
    return Schema(tuple(Column(f"c{number}", one) for number, one in enumerate(types)))


def back(rows: list[tuple[Any, ...]], columns: Schema, through: Callable[[Any], Any] = lambda one: one) -> Any:
    """The rows after Arrow, with the schema that Arrow tells."""
    batches = [through(one) for one in arrow_types.batches_of([rows], columns)]
    return [row for some in arrow_types.rows_of(batches) for row in some]


def parquet(batch: Any) -> Any:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_batches([batch]), file)
    return pq.read_table(file).combine_chunks().to_batches()[0]


@pytest.mark.parametrize("kind", sorted(PLAIN))
@pytest.mark.parametrize("through", [lambda one: one, parquet], ids=["arrow", "parquet"])
def test_rows_there_and_back(kind: str, through: Callable[[Any], Any]) -> None:
    one, values = PLAIN[kind]

    @SLOW
    @given(st.lists(st.one_of(st.none(), values), min_size=1, max_size=8))
    def check(some: list[Any]) -> None:
        rows = [(value,) for value in some]
        found = back(rows, schema(one), through)
        assert found == rows
        assert [type(a) for (a,) in found] == [type(b) for (b,) in rows]

    check()


@pytest.mark.parametrize("kind", sorted(PLAIN))
def test_type_there_and_back(kind: str) -> None:
    one = PLAIN[kind][0]

    found = arrow_types.type_of(arrow_types.field_of(Column("a", one)))

    assert found.kind == one.kind
    assert (found.scale or None) == (one.scale or None)
    assert found.labels == one.labels
    assert found.bits >= one.bits
    assert found.unsigned == one.unsigned
    assert found.dialect == "arrow"
    assert found.native


def test_digits_after_the_point_of_decimals() -> None:
    """Case 1: the ends of numeric(38,10), and bare numeric as text that says what it is."""
    columns = schema(Type("decimal", precision=38, scale=10), Type("decimal", native="numeric", dialect="postgresql"))
    rows = [
        (Decimal("1234567890123456789012345678.0123456789"), Decimal("12345678901234567890.123456789012345")),
        (Decimal("-0.0000000001"), Decimal("1.12345678901234567890")),
        (Decimal("9999999999999999999999999999.9999999999"), Decimal("NaN")),
    ]

    batch = next(arrow_types.batches_of([rows], columns))

    assert batch.schema.field("c0").type == pa.decimal128(38, 10)
    assert batch.schema.field("c1").type == pa.string()
    assert batch.schema.field("c1").metadata[b"pg_type"] == b"numeric"
    assert [str(one) for one in batch.column(0).to_pylist()] == [str(a) for a, _ in rows]
    assert batch.column(1).to_pylist() == ["12345678901234567890.123456789012345", "1.12345678901234567890", "NaN"]
    assert [str(b) for _, b in back(rows, columns)] == [str(b) for _, b in rows]


D2 = Type("decimal", precision=5, scale=2)


@pytest.mark.parametrize(
    ("one", "value", "reason"),
    [
        (D2, Decimal("NaN"), "'NaN' cannot be decimal128(5, 2): a decimal of Arrow has no NaN and no infinity"),
        (D2, Decimal("-Infinity"), "'-Infinity' cannot be decimal128(5, 2): a decimal of Arrow has no NaN and no infinity"),
        (D2, Decimal("1.255"), "'1.255' cannot be decimal128(5, 2): it has more digits after the point"),
        (D2, Decimal("12345.00"), "'12345.00' cannot be decimal128(5, 2): it has more digits before the point"),
        (D2, 1.5, "'1.5' cannot be decimal128(5, 2): it is a float"),
        (Type("int", bits=32), 2**31, "'2147483648' cannot be int32: Value 2147483648 too large to fit in C integer type"),
        (Type("int", bits=32), 1.5, "'1.5' cannot be int32: it is a float"),
        (Type("int", bits=32), True, "'True' cannot be int32: it is a bool"),
        (Type("int", bits=32), "7", "'7' cannot be int32: it is a str"),
        (Type("bool"), 2, "'2' cannot be bool: it is an int"),
        (Type("float", bits=32), 1e300, "'1e+300' cannot be float: it is too large"),
        (Type("float", bits=64), 2**53 + 1, "'9007199254740993' cannot be double: it would be rounded"),
        (Type("text"), 5, "'5' cannot be string: it is an int"),
        (Type("text"), b"x", "\"b'x'\" cannot be string: it is a bytes"),
        (Type("text"), "a\ud800", "'a\\\\ud800' cannot be string: it is no valid Unicode text"),
        (Type("bytes"), "x", "'x' cannot be binary: it is a str"),
        (Type("date"), "infinity", "'infinity' cannot be date32[day]: it is no date"),
        (Type("date"), "2023-02-29 BC", "'2023-02-29 BC' cannot be date32[day]: it is no date"),
        (Type("date"), datetime(2024, 1, 1, 5), "'datetime.datetime(2024, 1, 1, 5, 0)' cannot be date32[day]: it is a datetime"),
        (Type("timestamp"), "-infinity", "'-infinity' cannot be timestamp[us]: it is no timestamp"),
        (Type("timestamp"), datetime(2024, 1, 1, tzinfo=UTC), "'datetime.datetime(2024, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)' cannot be timestamp[us]: it has a time zone"),
        (Type("timestamptz"), datetime(2024, 1, 1), "'datetime.datetime(2024, 1, 1, 0, 0)' cannot be timestamp[us, tz=UTC]: it has no time zone"),
        (Type("timestamp"), "294276-12-31 23:59:59", "'294276-12-31 23:59:59' cannot be timestamp[us]: "),
        (Type("time"), "24:00:00", "'24:00:00' cannot be time64[us]: "),
        (Type("time"), time(1, tzinfo=UTC), "'datetime.time(1, 0, tzinfo=datetime.timezone.utc)' cannot be time64[us]: it has an offset from UTC"),
        (Type("uuid"), "nope", "'nope' cannot be string: badly formed hexadecimal UUID string"),
        (Type("array", item=Type("int", bits=32)), "{{1,2},{3,4}}", "'{{1,2},{3,4}}' cannot be list<item: int32>: a list has one dimension"),
        (Type("array", item=Type("int", bits=32)), "[5:6]={1,2}", "'[5:6]={1,2}' cannot be list<item: int32>: a list has no bounds of its own"),
        (Type("interval"), "1 lustrum", "'1 lustrum' cannot be month_day_nano_interval: it is no interval as PostgreSQL writes it"),
    ],
)  # fmt: skip
def test_what_arrow_cannot_hold(one: Type, value: Any, reason: str) -> None:
    """Cases 2, 13, 14: never NULL, 0, rounded or cut; the third row of the second list is the seventh of all."""
    fine = [(None,)] * 4

    with pytest.raises(BadValue) as told:
        list(arrow_types.batches_of([fine, [(None,), (None,), (value,)]], schema(one)))

    assert str(told.value).startswith(f"column 'c0', row 7: the value {reason}")


def test_long_values_are_cut_in_messages() -> None:
    with pytest.raises(BadValue) as told:
        list(arrow_types.batches_of([[("9" * 500,)]], schema(Type("int", bits=32))))

    assert str(told.value) == f"column 'c0', row 1: the value '{'9' * 80}...' cannot be int32: it is a str"


def test_not_a_number_stays() -> None:
    rows = [(math.nan,), (None,), (-math.inf,)]

    found = back(rows, schema(Type("float", bits=64)), parquet)

    assert math.isnan(found[0][0])
    assert found[1:] == rows[1:]


def test_dates_that_python_cannot_hold() -> None:
    rows = [
        ("0044-03-15 BC", "0001-12-31 23:59:59.999999 BC"),
        ("12024-02-29", "12024-02-29 00:00:00"),
        (date.max, None),
    ]

    assert back(rows, schema(Type("date"), Type("timestamp"))) == rows


def test_moments_that_python_cannot_hold() -> None:
    array = pa.array([1_700_000_000_123_456_789, 1_000], pa.int64()).cast(pa.timestamp("ns", "Europe/Paris"))
    times = pa.array([86_400_000_000, 1], pa.int64()).cast(pa.time64("us"))

    found = back_of(pa.record_batch({"a": array, "b": times}))

    assert found == [
        ("2023-11-14 22:13:20.123456789+00", "24:00:00"),
        (datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC), time(0, 0, 0, 1)),
    ]


def back_of(batch: Any) -> Any:
    return [row for some in arrow_types.rows_of([batch]) for row in some]


@SLOW
@given(st.integers(-5_000_000, 5_000_000), st.integers(-(2**62), 2**62))
def test_days_and_nanoseconds_as_text(days: int, nanoseconds: int) -> None:
    assert _calendar.days_of(_calendar.text_of_days(days)) == days
    text = _calendar.text_of_nanoseconds(nanoseconds, zoned=True)
    assert _calendar.nanoseconds_of(text, zoned=True) == nanoseconds


@SLOW
@given(st.dates())
def test_days_are_those_of_python(day: date) -> None:
    assert _calendar.text_of_days((day - date(1970, 1, 1)).days) == day.isoformat()


@SLOW
@given(
    st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63 // 1000), 2**63 // 1000 - 1)
)
def test_intervals_keep_months_days_and_time_apart(months: int, days: int, micros: int) -> None:
    text = _calendar.text_of_interval(months, days, micros * 1000)

    assert _calendar.interval_of(text) == (months, days, micros * 1000)
    assert back([(text,)], schema(Type("interval"))) == [(text,)]


def test_interval_of_postgresql() -> None:
    text = "1 year 2 mons 3 days 04:05:06.7"

    assert _calendar.interval_of(text) == (14, 3, 14_706_700_000_000)
    assert back([(text,), ("-1 years -2 mons +3 days -04:05:06",)], schema(Type("interval"))) == [
        (text,),
        ("-1 years -2 mons +3 days -04:05:06",),
    ]


ITEMS = st.lists(st.one_of(st.none(), TEXT), max_size=6)


@SLOW
@given(st.lists(st.one_of(st.none(), ITEMS), min_size=1, max_size=5))
def test_arrays_of_text_there_and_back(some: list[Any]) -> None:
    rows = [(None if one is None else arrow_types.array_text(one),) for one in some]

    batch = next(arrow_types.batches_of([rows], schema(Type("array", item=Type("text")))))

    assert batch.column(0).to_pylist() == some
    assert back_of(batch) == rows


@pytest.mark.parametrize(
    ("item", "text", "values"),
    [
        (Type("int", bits=32), "{1,NULL,-3}", [1, None, -3]),
        (Type("bool"), "{t,f}", [True, False]),
        (Type("date"), "{2024-02-29}", [date(2024, 2, 29)]),
        (Type("decimal", precision=5, scale=2), "{1.10,-0.01}", [Decimal("1.10"), Decimal("-0.01")]),
        (Type("bytes"), '{"\\\\xdead"}', [b"\xde\xad"]),
        (Type("text"), '{NULL,"NULL","",a}', [None, "NULL", "", "a"]),
        (Type("text"), "{}", []),
    ],
)
def test_items_of_arrays(item: Type, text: str, values: list[Any]) -> None:
    batch = next(arrow_types.batches_of([[(text,)]], schema(Type("array", item=item))))

    assert batch.column(0).to_pylist() == [values]
    assert back_of(batch) == [(text,)]


def test_null_and_empty_stay_apart() -> None:
    """Case 3."""
    rows = [("", None), ("\\N", "null"), ("NULL", '""'), (None, "{}")]

    assert back(rows, schema(Type("text"), Type("json")), parquet) == rows


def test_unicode_is_not_normalised() -> None:
    """Case 4, also in names."""
    texts = ["é", "e\u0301", "中", "😀", "\u202eabc", "a\u200db", "\u0301", "a\0b"]
    columns = Schema((Column("é", Type("text")), Column("e\u0301", Type("text"))))

    found = arrow_types.batches_of([[(one, one) for one in texts]], columns)

    batch = parquet(next(found))
    assert batch.schema.names == ["é", "e\u0301"]
    assert back_of(batch) == [(one, one) for one in texts]


def test_late_types_come_from_the_schema() -> None:
    """Case 9."""
    columns = schema(Type("decimal", precision=10, scale=2), Type("int", bits=64))
    nothing = [(None, 1)] * 5_000

    found = list(arrow_types.batches_of([nothing, [(Decimal("1.10"), 2**40)]], columns))

    assert {str(one.schema) for one in found} == {"c0: decimal128(10, 2)\nc1: int64"}
    assert sum(one.num_rows for one in found) == 5_001


def test_arrow_of_others() -> None:
    """What pandas, polars and others make: dictionaries, views, lengths, structs."""
    batch = pa.record_batch(
        {
            "large": pa.array(["a", None], pa.large_string()),
            "dictionary": pa.array(["x", "y"]).dictionary_encode(),
            "fixed": pa.array([b"ab", b"cd"], pa.binary(2)),
            "struct": pa.array([{"a": Decimal("1.10"), "b": [1, None]}, None]),
            "lists": pa.array([[[1], [2, 3]], []]),
            "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
            "duration": pa.array([timedelta(days=1, microseconds=5), None], pa.duration("us")),
            "seconds": pa.array([5, None], pa.int64()).cast(pa.timestamp("s")),
            "nothing": pa.nulls(2),
            "uuid": pa.array([b"\1" * 16, None], pa.uuid()),
            "decimal": pa.array([Decimal("1.5"), None], pa.decimal256(50, 3)),
        }
    )

    assert [one.type.kind for one in arrow_types.schema_of(batch.schema).columns] == [
        "text", "text", "bytes", "json", "json", "json", "interval", "timestamp", "text", "uuid", "decimal",
    ]  # fmt: skip
    assert back_of(batch) == [
        ("a", "x", b"ab", '{"a": 1.10, "b": [1, null]}', "[[1], [2, 3]]", '{"k": 1}', "24:00:00.000005",
         datetime(1970, 1, 1, 0, 0, 5), None, "01010101-0101-0101-0101-010101010101", Decimal("1.500")),
        (None, "y", b"cd", None, "[]", None, None, None, None, None, None),
    ]  # fmt: skip


def test_batches_conform_exactly() -> None:
    columns = schema(Type("text"), Type("int", bits=16), D2, Type("timestamptz"))
    target = arrow_types.arrow_schema(columns)
    came = pa.record_batch(
        {
            "a": pa.array(["x"]).dictionary_encode(),
            "b": pa.array([7], pa.int64()),
            "c": pa.array([Decimal("1.1")], pa.decimal128(20, 1)),
            "d": pa.array([5], pa.int64()).cast(pa.timestamp("ms", "Asia/Kolkata")),
        }
    )

    found = arrow_types.conformed(came, columns, target)

    assert found.schema == target
    assert back_of(found) == [("x", 7, Decimal("1.10"), datetime(1970, 1, 1, 0, 0, 0, 5000, tzinfo=UTC))]


@pytest.mark.parametrize(
    ("one", "array", "reason"),
    [
        (Type("int", bits=16), pa.array([1, 40000]), "the value '40000' cannot be int16: Value 40000 too large"),
        (D2, pa.array([Decimal("1.1"), Decimal("1.123")]), "the value '1.123' cannot be decimal128(5, 2): it has more"),
        (Type("int", bits=16), pa.array([None, 1.5]), "the value '1.5' cannot be int16: it is a float"),
        (Type("timestamp"), pa.array([None, datetime(2024, 1, 1, tzinfo=UTC)]), "the value 'datetime.datetime(2024, 1, 1"),
    ],
)  # fmt: skip
def test_batches_that_do_not_conform(one: Type, array: Any, reason: str) -> None:
    columns = schema(one)

    with pytest.raises(BadValue) as told:
        arrow_types.conformed(pa.record_batch({"a": array}), columns, arrow_types.arrow_schema(columns), first=11)

    assert str(told.value).startswith(f"column 'c0', row 12: {reason}")


def test_doubled_names_are_refused() -> None:
    with pytest.raises(Refused) as told:
        arrow_types.schema_of(pa.schema([("a", pa.int8()), ("b", pa.int8()), ("a", pa.string())]))

    assert str(told.value) == "the columns 'a' occur more than once; rename them"


def test_large_batches_become_small_lists() -> None:
    batch = pa.record_batch({"a": ["x" * 100_000] * 200})

    sizes = [len(one) for one in arrow_types.rows_of([batch])]

    assert sum(sizes) == 200
    assert max(sizes) < 60


@pytest.mark.parametrize(
    ("spelling", "found"),
    [
        ("decimal(10, 2)", Type("decimal", precision=10, scale=2, dialect="arrow")),
        ("NUMERIC(5)", Type("decimal", precision=5, scale=0, dialect="arrow")),
        ("numeric", Type("decimal", dialect="arrow")),
        ("varchar(3)", Type("text", length=3, dialect="arrow")),
        ("double  precision", Type("float", bits=64, dialect="arrow")),
        ("timestamp with time zone", Type("timestamptz", dialect="arrow")),
    ],
)
def test_types_as_people_write_them(spelling: str, found: Type) -> None:
    assert arrow_types.named(spelling) == found


def test_unknown_type() -> None:
    with pytest.raises(
        ValueError, match=r"^'nummer' is no known type; known: bigint, .*, decimal\(p,s\), varchar\(n\)$"
    ):
        arrow_types.named("nummer")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "1_000"), ("int", "1.0"), ("int", ""), ("float", "1e400"), ("float", "1e-400"), ("float", "1_0"),
        ("decimal", "1,5"), ("decimal", ""), ("bool", "maybe"), ("date", "2024-02-30"), ("date", "20240229"),
        ("timestamp", "2024-01-01 00:00:00+00"), ("timestamptz", "2024-01-01 00:00:00"), ("time", "25:00:00"),
        ("bytes", "abc"), ("uuid", "1-2"), ("timestamp", "2024-01-01 00:00:60"),
    ],
)  # fmt: skip
def test_text_that_is_no_value(kind: Any, text: str) -> None:
    with pytest.raises(ValueError, match="."):
        arrow_types.value_of(text, Type(kind, bits=64))


@pytest.mark.parametrize("kind", sorted(set(PLAIN) - {"float32"}))
def test_values_as_text_there_and_back(kind: str) -> None:
    one, values = PLAIN[kind]

    @SLOW
    @given(values)
    def check(value: Any) -> None:
        assert arrow_types.value_of(arrow_types.text_of(value), one) == value

    check()
