"""Cuts queries of a real PostgreSQL into parts that give each row once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from rainbow_prefect.sql_etl.base import Part, Query, Refused
from rainbow_prefect.sql_etl.postgres_reader import PostgresReader
from tests.sql_etl.test_postgres_reader import Source

WHOLE = "select string_agg(t::text, '|' order by t::text) from t"


@pytest.fixture
def source(postgres: str) -> Iterator[Source]:
    made = Source(postgres)
    yield made
    made.close()


def lines(reader: PostgresReader, query: Query, part: Part) -> list[str]:
    asked = replace(query, where=(*query.where, *part.where))
    return b"".join(reader.chunks(asked, reader.describe(asked), "pg_text")).decode().splitlines()


def cut(source: Source, query: Query, split: Mapping[str, Any]) -> tuple[list[Part], list[list[str]]]:
    """The parts, and the rows of each as another session reads them after the data have changed."""
    first = source.reader()
    parts = first.parts(query, first.describe(query), split)
    whole = sorted(lines(first, query, Part()))
    source.run("update t set v = v || '!'; insert into t (k, v) values (1, 'late')")
    read = []
    for part in parts:
        other = source.reader()
        other.at(part)
        read.append(lines(other, query, part))
        other.close()
    assert sorted(line for one in read for line in one) == whole, "each row once"
    return parts, read


TABLE = "create table t (k int, v text); insert into t select i, 'row ' || i from generate_series(1, 1000) i"
QUERIES = [
    Query(table=(None, "t")),
    Query(sql="select k, v from t; -- all"),
    Query(table=(None, "t"), where=("k > 10",)),
]


@pytest.mark.parametrize("query", QUERIES, ids=["table", "query", "where"])
def test_ranges_of_a_key_have_equally_many_rows(source: Source, query: Query) -> None:
    source.run(f"{TABLE}; insert into t values (null, 'none'), (1000000000, 'far')")
    parts, read = cut(source, query, {"by": "k", "executors": 4})

    assert [one.name for one in parts] == ["k 1/4", "k 2/4", "k 3/4", "k 4/4"]
    assert all(200 <= len(one) <= 300 for one in read)


def test_few_keys_make_few_ranges(source: Source) -> None:
    source.run("create table t (k int, v text); insert into t select 7, 'a' from generate_series(1, 100)")

    parts, _ = cut(source, QUERIES[0], {"by": "k", "executors": 4})

    assert [(one.name, one.where) for one in parts] == [
        ("k 1/2", ('"k" < \'7\'::integer or "k" is null',)),
        ("k 2/2", ("\"k\" >= '7'::integer",)),
    ]


def test_empty_table_is_one_part(source: Source) -> None:
    source.run("create table t (k int, v text)")
    reader = source.reader()

    parts = reader.parts(QUERIES[0], reader.describe(QUERIES[0]), {"by": "k", "executors": 4})

    assert [(one.name, one.where) for one in parts] == [("k 1/1", ())]


def test_large_table_is_sampled(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    from rainbow_prefect.sql_etl import postgres_parts

    monkeypatch.setattr(postgres_parts, "_SAMPLED_ROWS", 10_000)
    monkeypatch.setattr(postgres_parts, "_SAMPLE_ROWS", 5_000)
    source.run("create table t as select i as k, 'row ' || i as v from generate_series(1, 40000) i; analyze t")
    query = Query(table=(None, "t"), where=("k > 100",))

    _, read = cut(source, query, {"by": "k", "executors": 2})

    assert all(5_000 < len(one) for one in read)


@pytest.mark.parametrize("query", QUERIES, ids=["table", "query", "where"])
def test_hashes_of_a_column(source: Source, query: Query) -> None:
    source.run(f"{TABLE}; insert into t values (null, null)")
    parts, read = cut(source, query, {"hash": "v", "executors": 3})

    assert [one.name for one in parts] == ["v hash 1/3", "v hash 2/3", "v hash 3/3"]
    assert all(len(one) > 200 for one in read)


def test_pages_of_a_table(source: Source) -> None:
    source.run(f"{TABLE}; insert into t select i, repeat('x', 100) from generate_series(1, 5000) i")
    parts, read = cut(source, QUERIES[0], {"ctid": True, "executors": 4})

    assert [one.name for one in parts] == ["ctid 1/4", "ctid 2/4", "ctid 3/4", "ctid 4/4"]
    assert all(len(one) > 1000 for one in read)
    assert (
        "Tid Range Scan"
        in source.text(f"explain (format json) select * from t where {parts[1].where[0]}")[0]["Plan"]["Node Type"]
    )


def test_partitions_are_parts(source: Source) -> None:
    source.run(
        "create table t (k int, v text) partition by range (k); create table low partition of t for values from (0) to (500);"
        ' create table "High Part" partition of t for values from (500) to (2000) partition by list (v);'
        ' create table rest partition of "High Part" default; create table other partition of t default;'
        " insert into t select i, 'row ' || i from generate_series(1, 1000) i; insert into t values (null, 'none')"
    )
    parts, read = cut(source, QUERIES[0], {"partitions": True})

    assert [(one.name, len(lines)) for one, lines in zip(parts, read, strict=True)] == [
        ("public.low", 499),
        ("public.other", 1),
        ("public.rest", 501),
    ]
    plan = str(
        source.text(f"explain (format json) select * from t where {' and '.join(f'({x})' for x in parts[0].where)}")
    )
    assert "'low'" in plan
    assert "'rest'" not in plan


@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamptz"])
def test_windows_of_time(source: Source, kind: str) -> None:
    source.run(
        f"create table t (k int, v text, at {kind}); insert into t select i, 'x', timestamp '2024-02-27 13:00' + i * interval '6 hours'"
        " from generate_series(0, 11) i; insert into t values (0, 'none', null), (0, 'never', 'infinity'), (0, 'ever', '-infinity')"
    )
    query = Query(table=(None, "t"))

    parts, read = cut(source, query, {"by": "at", "every": "1 day"})

    assert [one.name for one in parts] == ["2024-02-27", "2024-02-28", "2024-02-29", "2024-03-01"]
    assert [len(one) for one in read] == [4, 4, 4, 3]


@pytest.mark.parametrize(
    ("every", "names"),
    [
        ("1 month", ["2023-12-01", "2024-01-01", "2024-02-01", "2024-03-01"]),
        ("3 months", ["2023-10-01", "2024-01-01"]),
        ("1 year", ["2023-01-01", "2024-01-01"]),
        ("1 week", [f"{one}" for one in ("2023-12-25", "2024-01-01")] + ["..."]),
        ("90 minutes", ["2023-12-31 22:30:00", "2024-01-01", "..."]),
    ],
)
def test_windows_begin_where_people_expect(source: Source, every: str, names: list[str]) -> None:
    source.run(
        "create table t (k int, v text, at timestamp); insert into t values (1, 'a', '2023-12-31 23:59'), (2, 'b', '2024-03-31')"
    )
    query, reader = Query(table=(None, "t")), source.reader()
    parts = reader.parts(query, reader.describe(query), {"by": "at", "every": every})

    found = [one.name for one in parts]
    assert (found[: len(names) - 1] if names[-1] == "..." else found) == [one for one in names if one != "..."]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({}, "`split` takes one of by, hash, ctid, partitions; it has none"),
        ({"by": "k", "hash": "k"}, "`split` takes one of by, hash, ctid, partitions; it has by and hash"),
        ({"by": "zzz"}, "`split` names the column 'zzz', which the query does not give; known: k, v"),
        ({"by": "k", "executors": 0.5}, "`executors` of a split is a number from 1 to 10000, not 0.5"),
        (
            {"partitions": True},
            "`partitions` cuts a partitioned table, and this is none; split `by` a column, or by `ctid`",
        ),
        (
            {"by": "k", "every": "1 day"},
            "`every` cuts a date or timestamp, and the column 'k' is integer; split `by` it without `every`",
        ),
    ],
    ids=str,
)
def test_split_that_cannot_be_says_why(source: Source, split: dict[str, Any], message: str) -> None:
    source.run("create table t (k int, v text)")
    reader = source.reader()
    query = Query(table=(None, "t"))

    with pytest.raises(Refused) as raised:
        reader.parts(query, reader.describe(query), split)

    assert raised.value.message == message


@pytest.mark.parametrize(
    ("every", "message"),
    [
        (
            "1 second",
            "`every` makes about 7776060 parts from 2023-12-31 23:59:00 to 2024-03-31 00:00:00, at most 10000 are made; write a longer one",
        ),
        ("-1 day", "`every: -1 day` is no length of a window; write e.g. 1 hour, 1 day or 1 month"),
        ("1 month 1 day", "`every: 1 month 1 day` is no length of a window; write e.g. 1 hour, 1 day or 1 month"),
    ],
)
def test_window_that_cannot_be_says_why(source: Source, every: str, message: str) -> None:
    source.run("create table t (at timestamp); insert into t values ('2023-12-31 23:59'), ('2024-03-31')")
    reader = source.reader()
    query = Query(table=(None, "t"))

    with pytest.raises(Refused) as raised:
        reader.parts(query, reader.describe(query), {"by": "at", "every": every})

    assert raised.value.message == message


def test_query_has_no_pages(source: Source) -> None:
    reader = source.reader()
    query = Query(sql="select 1 as a")

    with pytest.raises(Refused) as raised:
        reader.parts(query, reader.describe(query), {"ctid": True})

    assert (
        raised.value.message == "`split: {ctid: ...}` cuts a table, not a query; read a `table`, or split `by` a column"
    )
