"""What is done to the rows on their way, as SQL of the source around its query; no value is touched here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ..schema import Config, Text, wrong
from .base import Query, Reader, Refused
from .types import Column, Schema, Type


def _mask(value: Any) -> Any:
    if isinstance(value, str) and value not in ("hash", "redact"):
        raise wrong(f"unknown mask '{value}'", hint="write hash or redact")
    return value


Mask = Annotated[Literal["hash", "redact"], BeforeValidator(_mask)]
"""How a value is hidden."""

REDACTED = "***"
_RANK = "_rainbow_rank"
_RANDOM = {
    "sqlite": "abs(random() % 1000000) < {millionths}",
    "postgresql": "random() < {share}",
    "duckdb": "random() < {share}",
    "mysql": "rand() < {share}",
    "mariadb": "rand() < {share}",
    "mssql": "abs(checksum(newid()) % 1000000) < {millionths}",
}
_HASH = {
    "sqlite": "rainbow_sha256({salt} || CAST({column} AS TEXT))",
    "postgresql": "encode(sha256(convert_to({salt} || CAST({column} AS text), 'UTF8')), 'hex')",
    "duckdb": "sha256({salt} || CAST({column} AS VARCHAR))",
    "mysql": "sha2(concat({salt}, convert({column} using utf8mb4)), 256)",
    "mariadb": "sha2(concat({salt}, convert({column} using utf8mb4)), 256)",
}
"""The SHA-256, in lower hexadecimal digits, of the salt and the text of the value in UTF-8."""


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Listed = Annotated[tuple[Text, ...], BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...])]
"""One text, or several."""


class Dedupe(Config):
    """Of the rows with the same keys, one is kept."""

    by: Listed = Field(min_length=1, description="The columns that put them in order; NULL comes first.")
    keep: Literal["first", "last"] = Field(default="last", description="The first or the last of them.")
    keys: Listed = Field(default=(), description="The columns that make rows the same; absent: `keys` of the task.")


@dataclass(frozen=True)
class Shape:
    """What becomes of the columns and rows of a query, in this order: `filter`, `sample`, `dedupe`, then each column.

    `keys` are those of the task. Names are the query's, but for the values of `rename`, `keys` and `masks`, which are
    the sink's.
    """

    select: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    cast: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    filter: tuple[str, ...] = ()
    sample: float | None = None
    dedupe: Dedupe | None = None
    mask: Mapping[str, Mask] = field(default_factory=dict)
    salt: str = ""
    keys: tuple[str, ...] = ()


def shaped(shape: Shape, query: Query, reader: Reader) -> tuple[Query, Schema]:
    """The query that gives the rows so, and its columns.

    Raises:
        Refused: a column is not there, or the source cannot do it.
    """
    came = reader.describe(query)
    _refuse(shape, came)
    query = replace(query, where=(*query.where, *shape.filter, *_sampled(shape, reader)))
    made = _expressions(shape, came, reader)
    if shape.dedupe is not None:
        query = _deduped(shape, shape.dedupe, made, query, reader)
    masked = {name: _masked(shape, name, sql, came, reader) for name, sql in made.items()}
    is_same = list(masked.items()) == [(one, reader.quoted(one)) for one in came.names]
    if not is_same or shape.dedupe is not None:
        query = replace(query, columns=tuple(masked.items()))
    return query, _typed(shape, reader.describe(query), reader)


def _refuse(shape: Shape, came: Schema) -> None:
    """Tell at once all names that are not there."""
    after = {shape.rename.get(one, one) for one in (*came.names, *shape.columns)}
    asked = {
        "select": [one for one in shape.select if one not in came and one not in shape.columns],
        "rename": [one for one in shape.rename if one not in came and one not in shape.columns],
        "cast": [one for one in shape.cast if one not in came and one not in shape.columns],
        "mask": [one for one in shape.mask if one not in after],
        "dedupe": [one for one in (shape.dedupe.by if shape.dedupe else ()) if one not in came],
    }
    flaws = [f"`{key}` names {', '.join(repr(one) for one in names)}" for key, names in asked.items() if names]
    if flaws:
        raise Refused(f"{'; '.join(flaws)}, which the query does not give (columns: {', '.join(came.names)})")


def _expressions(shape: Shape, came: Schema, reader: Reader) -> dict[str, str]:
    """The columns by the names that the sink sees."""
    names = shape.select or (*came.names, *(one for one in shape.columns if one not in came))
    made: dict[str, str] = {}
    for name in names:
        sql = shape.columns.get(name) or reader.quoted(name)
        if name in shape.cast:
            sql = f"CAST({sql} AS {shape.cast[name]})"
        new = shape.rename.get(name, name)
        if new in made:
            raise Refused(f"two columns would be '{new}'; rename or leave out one of them")
        made[new] = sql
    return made


def _sampled(shape: Shape, reader: Reader) -> tuple[str, ...]:
    if shape.sample is None:
        return ()
    if reader.dialect not in _RANDOM:
        raise Refused(f"a source of '{reader.dialect}' cannot be sampled here; write it in the query")
    return (_RANDOM[reader.dialect].format(share=repr(shape.sample), millionths=round(shape.sample * 1_000_000)),)


def _deduped(shape: Shape, dedupe: Dedupe, made: Mapping[str, str], query: Query, reader: Reader) -> Query:
    keys = dedupe.keys or shape.keys
    missing = [one for one in keys if one not in made]
    if missing or not keys:
        what = f"the keys {', '.join(missing)}, which the query does not give" if keys else "no `keys`"
        raise Refused(f"`dedupe` has {what}; name the columns that make rows the same")
    down = " DESC" if dedupe.keep == "last" else ""
    nulls = "1 ELSE 0" if dedupe.keep == "last" else "0 ELSE 1"
    order = ", ".join(
        f"CASE WHEN {column} IS NULL THEN {nulls} END, {column}{down}" for column in map(reader.quoted, dedupe.by)
    )
    groups = ", ".join(made[one] for one in keys)
    rank = reader.quoted(_RANK)
    ranked = f"row_number() OVER (PARTITION BY {groups} ORDER BY {order}) AS {rank}"
    return Query(sql=f"SELECT q.*, {ranked} FROM ({_statement(query, reader)}\n) AS q", where=(f"{rank} = 1",))


def _statement(query: Query, reader: Reader) -> str:
    """A query without columns of its own as one statement."""
    if query.sql is not None:
        source = f"({query.sql.strip().removesuffix(';')}\n) AS q"
    else:
        assert query.table is not None, "a query has a statement or a table"
        source = ".".join(reader.quoted(one) for one in query.table if one)
    where = " AND ".join(f"({one})" for one in query.where)
    return f"SELECT * FROM {source}{f' WHERE {where}' if where else ''}"


def _masked(shape: Shape, name: str, sql: str, came: Schema, reader: Reader) -> str:
    how = shape.mask.get(name)
    if how is None:
        return sql
    if how == "redact":
        return f"CASE WHEN {sql} IS NOT NULL THEN {reader.literal(REDACTED)} END"
    if reader.dialect not in _HASH:
        raise Refused(f"a source of '{reader.dialect}' has no SHA-256 that is known here; write `mask: redact`")
    return _HASH[reader.dialect].format(salt=reader.literal(shape.salt), column=sql)


def _typed(shape: Shape, came: Schema, reader: Reader) -> Schema:
    """SQLite does not know the types of expressions; of casts and masks they are known here."""
    if reader.dialect != "sqlite":
        return came
    from .generic_types import sqlite_type

    old: Callable[[str], str] = {new: name for name, new in shape.rename.items()}.get  # type: ignore[assignment]
    columns = []
    for one in came.columns:
        target = shape.cast.get(old(one.name) or one.name)
        known = Type("text", native="TEXT", dialect="sqlite") if one.name in shape.mask else sqlite_type(target or "")
        columns.append(Column(one.name, known, one.nullable) if known else one)
    return replace(came, columns=tuple(columns))
