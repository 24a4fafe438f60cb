"""Comparing a query with a table: ranges of keys, rows that differ, values that are equal though written differently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rainbow_prefect.sql_etl import compare as module
from rainbow_prefect.sql_etl.base import Query, Reader, Refused, Rows
from rainbow_prefect.sql_etl.compare import Compared, Side, compare
from rainbow_prefect.sql_etl.types import Column, Kind, Schema, Type


class Listed(Reader):
    """A table in memory, which heeds the ranges that it is asked for."""

    dialect = "listed"

    def __init__(self, rows: list[tuple[Any, ...]], *, tells_ends: bool = True) -> None:
        self.given, self.tells_ends, self.asked = rows, tells_ends, []  # type: ignore[var-annotated]

    def rows(self, query: Query, schema: Schema) -> Iterator[Rows]:
        self.asked.append(query.where)
        found = [row for row in self.given if all(_holds(one, row, schema) for one in query.where)]
        for start in range(0, len(found), 7):
            yield found[start : start + 7]

    def value(self, sql: str) -> Any:
        if not self.tells_ends:
            raise Refused("it does not answer")
        keys = [row[0] for row in self.given if row[0] is not None]
        return (min if "min(" in sql else max)(keys) if keys else None


def _holds(where: str, row: tuple[Any, ...], schema: Schema) -> bool:
    """`("a" >= 1 AND "a" < 3) OR ...` in Python."""
    if row[0] is None:
        return False
    names = {one: str(row[at]) for at, one in enumerate(schema.names)}
    text = where.replace(" AND ", " and ").replace(" OR ", " or ")
    for name, value in names.items():
        text = text.replace(f'"{name}"', f"({value})")
    return bool(eval(text))


def schema(*columns: tuple[str, Kind]) -> Schema:
    return Schema(tuple(Column(name, Type(kind, bits=64)) for name, kind in columns))


PAIR = schema(("a", "int"), ("b", "text"))


def sides(ours: list[Any], theirs: list[Any], columns: Schema = PAIR, **more: Any) -> tuple[Side, Side]:
    query = Query(table=(None, "t"))
    return Side(Listed(ours, **more), query, columns), Side(Listed(theirs, **more), query, columns)


def counts(found: Compared) -> tuple[int, int, int]:
    return found.missing, found.extra, found.changed


def test_rows_in_another_order_are_equal() -> None:
    rows = [(one, str(one)) for one in range(5_000)]

    found = compare(*sides(rows, rows[::-1]), ["a"])

    assert (found.is_equal, found.rows_query, found.rows_table) == (True, 5_000, 5_000)


def test_only_the_ranges_that_differ_are_read_again() -> None:
    rows = [(one, "x") for one in range(-5_000, 5_000)]
    ours, theirs = sides(rows, [(one, "y" if one == 1234 else "x") for one, _ in rows])

    found = compare(ours, theirs, ["a"])

    assert counts(found) == (0, 0, 1)
    assert isinstance(ours.reader, Listed)
    assert ours.reader.asked == [(), ('("a" >= 1230 AND "a" < 1240)',)]


rows_of = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3)), st.sampled_from("xyz")),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(rows_of, rows_of, st.booleans(), st.booleans())
def test_it_finds_what_a_plain_comparison_finds(
    ours: list[Any], theirs: list[Any], has_keys: bool, tells_ends: bool
) -> None:
    found = compare(*sides(ours, theirs, tells_ends=tells_ends), ["a"] if has_keys else [], most=1000)

    missing, extra = Counter(ours) - Counter(theirs), Counter(theirs) - Counter(ours)
    assert found.missing + found.changed == missing.total()
    assert found.extra + found.changed == extra.total()
    assert found.is_equal == (not missing and not extra)
    assert len(found.differences) == sum(counts(found))
    if has_keys:
        changed = Counter(row[0] for row in missing.elements()) & Counter(row[0] for row in extra.elements())
        assert found.changed == changed.total()


def test_so_many_rows_are_looked_at_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_ROWS", 100)
    rows = [(one, "x") for one in range(10_000)]

    found = compare(*sides(rows, [(one, "y") for one, _ in rows]), ["a"], most=5)

    assert (found.is_equal, found.is_all, len(found.differences)) == (False, False, 5)
    assert 0 < found.changed <= 100


def test_columns_that_one_side_has_not() -> None:
    query = Query(table=(None, "t"))
    ours = Side(Listed([(1, "x", 5)]), query, schema(("a", "int"), ("b", "text"), ("c", "int")))
    theirs = Side(Listed([("x", 1, 7)]), query, schema(("b", "text"), ("a", "int"), ("d", "int")))

    found = compare(ours, theirs, ["a"])

    assert (found.missing_columns, found.extra_columns) == (("c",), ("d",))
    assert (counts(found), found.is_equal) == ((0, 0, 0), False)


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("decimal", Decimal("1.50"), "1.5"),
        ("decimal", Decimal("-0.00"), 0),
        ("decimal", Decimal("1E+3"), "1000"),
        ("decimal", Decimal("1234567890123456789012345678.0123456789"), "1234567890123456789012345678.01234567890"),
        ("float", 1, 1.0),
        ("float", float("nan"), "nan"),
        ("float", -0.0, 0.0),
        ("bool", True, 1),
        ("bool", "f", False),
        ("bytes", b"\0\xff", bytearray(b"\0\xff")),
        ("date", date(2024, 2, 29), "2024-02-29"),
        ("time", time(1, 2, 3), "01:02:03"),
        ("timestamp", datetime(2024, 2, 29, 1, 2, 3), "2024-02-29T01:02:03"),
        ("timestamptz", datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, 5, tzinfo=timezone(timedelta(hours=5)))),
        ("uuid", UUID(int=1), "00000000000000000000000000000001"),
        ("json", '{"b": 1.50, "a": [null]}', '{"a":[null],"b":1.5}'),
    ],
)
def test_values_are_equal_however_they_are_written(kind: Kind, one: Any, other: Any) -> None:
    columns = schema(("k", "int"), ("v", kind))

    assert compare(*sides([(1, one)], [(1, other)], columns), ["k"]).is_equal


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("decimal", Decimal("1234567890123456789012345678.1"), "1234567890123456789012345678.2"),
        ("float", 0.1, 0.1 + 2**-55 * 4),
        ("text", "a", "a "),
        ("text", "", None),
        ("text", "é", "e\u0301"),
        ("timestamp", datetime(2024, 1, 1), datetime(2024, 1, 1, 0, 0, 0, 1)),
        ("json", '{"a": null}', "{}"),
        ("json", "1.0000000000000000001", "1"),
    ],
)
def test_values_that_differ(kind: Kind, one: Any, other: Any) -> None:
    columns = schema(("k", "int"), ("v", kind))

    assert counts(compare(*sides([(1, one)], [(1, other)], columns), ["k"])) == (0, 0, 1)
