"""Cuts a query of PostgreSQL into parts that together give each row once: by key, hash, place on disk, partition or time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..errors import near
from .base import Part, Query, Refused
from .types import Schema, Type

if TYPE_CHECKING:
    from .postgres_reader import PostgresReader

_WAYS = ("by", "hash", "ctid", "partitions")
_MOST_PARTS = 10_000
_SAMPLED_ROWS = 1_000_000
_SAMPLE_ROWS = 200_000
_ANCHOR = "2001-01-01"
"""A Monday, so that weeks begin on one."""


def parts(reader: PostgresReader, query: Query, schema: Schema, split: Mapping[str, Any]) -> list[Part]:
    """The parts that `split` asks for.

    `by` a column, into `executors` ranges of about equally many rows, or into windows of time, one for `every: 1 day`;
    `hash` of a column into `executors` parts; `ctid: true`, the pages of a table; `partitions: true`, one for each partition.
    The names and predicates are the same whenever the data are.

    Raises:
        Refused: it cannot be cut so.
    """
    ways = [one for one in _WAYS if split.get(one)]
    if len(ways) != 1:
        raise Refused(f"`split` takes one of {', '.join(_WAYS)}; it has {' and '.join(ways) if ways else 'none'}")
    if ways == ["by"] and split.get("every"):
        return _windows(reader, query, _column(schema, split["by"]), str(split["every"]), schema)
    if ways == ["by"]:
        return _ranges(reader, query, _column(schema, split["by"]), _number(split), schema)
    if ways == ["hash"]:
        return _hashes(reader, _column(schema, split["hash"]), _number(split))
    if query.table is None:
        raise Refused(f"`split: {{{ways[0]}: ...}}` cuts a table, not a query; read a `table`, or split `by` a column")
    return _pages(reader, query, _number(split)) if ways == ["ctid"] else _partitions(reader, query)


def _column(schema: Schema, name: Any) -> str:
    if name not in schema:
        hint = near(str(name), schema.names)
        raise Refused(
            f"`split` names the column '{name}', which the query does not give; {hint or 'name one of its columns'}"
        )
    return str(name)


def _number(split: Mapping[str, Any]) -> int:
    number = split.get("executors") or min(4, os.cpu_count() or 1)
    if not isinstance(number, int) or not 1 <= number <= _MOST_PARTS:
        raise Refused(f"`executors` of a split is a number from 1 to {_MOST_PARTS}, not {number!r}")
    return number


# -- ranges of a key


def _ranges(reader: PostgresReader, query: Query, name: str, number: int, schema: Schema) -> list[Part]:
    """Ranges with about equally many rows; the first takes NULL too, and both ends are open."""
    if number == 1:
        return [Part(f"{name} 1/1")]
    column = reader.quoted(name)
    shares = ", ".join(f"{n / number!r}" for n in range(1, number))
    found = reader.all(
        "select distinct b, b::text from unnest(("
        f"select percentile_disc(array[{shares}]::float8[]) within group (order by {column})"
        f" from {_sample(reader, query)})) as u(b) where b is not null order by 1"
    )
    literals = [_literal(reader, row[1], schema[name].type) for row in found]
    if not literals:
        return [Part(f"{name} 1/1")]
    wheres = [f"{column} < {literals[0]} or {column} is null"]
    wheres += [f"{column} >= {low} and {column} < {high}" for low, high in pairwise(literals)]
    wheres.append(f"{column} >= {literals[-1]}")
    return [Part(f"{name} {n}/{len(wheres)}", (where,)) for n, where in enumerate(wheres, 1)]


def _sample(reader: PostgresReader, query: Query) -> str:
    """The rows that bounds are taken from: some pages of a large table, else all."""
    inner = f"({reader.statement(query)}\n) as q"
    if query.table is None or query.columns or _kind(reader, query) not in ("r", "m"):
        return inner
    rows = reader.estimate(replace(query, where=())) or 0
    if rows <= _SAMPLED_ROWS:
        return inner
    where = " and ".join(f"({one}\n)" for one in query.where)
    share = 100 * _SAMPLE_ROWS / rows
    return f"{_table(reader, query)} tablesample system ({share!r}) repeatable (0){f' where {where}' if where else ''}"


def _literal(reader: PostgresReader, text: str, kind: Type) -> str:
    return f"{reader.literal(text)}::{kind.native}"


# -- windows of time


def _windows(reader: PostgresReader, query: Query, name: str, every: str, schema: Schema) -> list[Part]:
    """One part for each window between the first and the last row, which also take what is before, or NULL, and after."""
    kind = schema[name].type
    if kind.kind not in ("date", "timestamp", "timestamptz"):
        raise Refused(
            f"`every` cuts a date or timestamp, and the column '{name}' is {kind}; split `by` it without `every`"
        )
    column, length = reader.quoted(name), f"{reader.literal(every)}::interval"
    ((months, seconds),) = reader.all(
        f"select extract(year from i)::int8 * 12 + extract(month from i)::int8,"
        f" extract(epoch from i - make_interval(months => (extract(year from i) * 12 + extract(month from i))::int))::float8"
        f" from (select {length}) as e(i)"
    )
    if (months > 0) == (seconds > 0) or months < 0 or seconds < 0:
        raise Refused(f"`every: {every}` is no length of a window; write e.g. 1 hour, 1 day or 1 month")
    ((low, high),) = reader.all(
        f"select min(c) filter (where isfinite(c))::timestamp::text, max(c) filter (where isfinite(c))::timestamp::text"
        f" from (select {column} from ({reader.statement(query)}\n) as q) as v(c)"
    )
    if low is None:
        return [Part(f"{name} 1/1")]
    return _cut(reader, column, kind, (low, high), length, months, seconds)


def _cut(
    reader: PostgresReader, column: str, kind: Type, ends: tuple[str, str], length: str, months: int, seconds: float
) -> list[Part]:
    low, high = (f"timestamp {reader.literal(one)}" for one in ends)
    anchor = f"timestamp '{_ANCHOR}'"
    if months:
        since = f"((extract(year from {low}) - 2001) * 12 + extract(month from {low}) - 1)"
        start = f"{anchor} + floor({since} / {months})::int * {length}"
        count = f"(extract(epoch from {high} - {low}) / 2419200 / {months})"
    else:
        start = f"{anchor} + floor(extract(epoch from {low} - {anchor}) / {seconds!r}) * {length}"
        count = f"(extract(epoch from {high} - {low}) / {seconds!r})"
    ((number,),) = reader.all(f"select ceil({count})::int8")
    if number > _MOST_PARTS:
        raise Refused(
            f"`every` makes about {number} parts from {ends[0]} to {ends[1]}, at most {_MOST_PARTS} are made; write a longer one"
        )
    rows = reader.all(f"select w::text from generate_series({start}, {high}, {length}) as s(w) order by w")
    cast = "timestamptz" if kind.kind == "timestamptz" else "timestamp"
    begins = [str(row[0]) for row in rows]
    if len(begins) == 1:
        return [Part(_short(begins[0]))]
    bounds = [f"{cast} {reader.literal(one)}" for one in begins[1:]]
    wheres = [f"{column} < {bounds[0]} or {column} is null"]
    wheres += [f"{column} >= {below} and {column} < {above}" for below, above in pairwise(bounds)]
    wheres.append(f"{column} >= {bounds[-1]}")
    return [Part(_short(begin), (where,)) for begin, where in zip(begins, wheres, strict=True)]


def _short(moment: str) -> str:
    """The start of a window as its name."""
    return moment.removesuffix(" 00:00:00")


# -- hashes, pages, partitions


def _hashes(reader: PostgresReader, name: str, number: int) -> list[Part]:
    value = f"(coalesce(hashtext({reader.quoted(name)}::text), 0) & 2147483647) % {number}"
    return [Part(f"{name} hash {n + 1}/{number}", (f"{value} = {n}",)) for n in range(number)]


def _pages(reader: PostgresReader, query: Query, number: int) -> list[Part]:
    kind = _kind(reader, query)
    if kind not in ("r", "m"):
        raise Refused("`ctid` cuts a plain table, and this is none; split `by` a column, or by `partitions`")
    pages = int(
        reader.value(
            f"select pg_relation_size({reader.literal(_table(reader, query))}::regclass) / current_setting('block_size')::int"
        )
    )
    starts = sorted({pages * n // number for n in range(1, number)} - {0})
    bounds = [f"'({one},0)'::tid" for one in starts]
    wheres = [
        " and ".join(one)
        for low, high in zip([None, *bounds], [*bounds, None], strict=True)
        for one in [[f"ctid >= {low}"] * (low is not None) + [f"ctid < {high}"] * (high is not None)]
    ]
    return [Part(f"ctid {n}/{len(wheres)}", (where,) if where else ()) for n, where in enumerate(wheres, 1)]


def _partitions(reader: PostgresReader, query: Query) -> list[Part]:
    """One part for each leaf: its own constraint lets the planner read no other, `tableoid` makes it exact."""
    if _kind(reader, query) != "p":
        raise Refused("`partitions` cuts a partitioned table, and this is none; split `by` a column, or by `ctid`")
    table = reader.literal(_table(reader, query))
    rows = reader.all(
        "select quote_ident(n.nspname) || '.' || quote_ident(c.relname), pg_get_partition_constraintdef(c.oid)"
        f" from pg_partition_tree({table}::regclass) as t join pg_class c on c.oid = t.relid"
        " join pg_namespace n on n.oid = c.relnamespace where t.isleaf order by 1"
    )
    return [
        Part(name, (f"tableoid = {reader.literal(name)}::regclass", *((constraint,) if constraint else ())))
        for name, constraint in rows
    ] or [Part("none", ("false",))]


def _kind(reader: PostgresReader, query: Query) -> str:
    return str(
        reader.value(
            f"select relkind::text from pg_class where oid = {reader.literal(_table(reader, query))}::regclass"
        )
    )


def _table(reader: PostgresReader, query: Query) -> str:
    return ".".join(reader.quoted(one) for one in reader.table(query))
