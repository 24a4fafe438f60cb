"""Incremental reads: from the cursor that the last load left in the sink to a bound fixed before the first row is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from .base import Query, Reader, Refused
from .types import Schema, Type

PLACEHOLDER = re.compile(r"\{\{\s*cursor\s*\}\}")
"""Where a query wants the lower bound."""

_KINDS = frozenset({"int", "decimal", "float", "text", "date", "timestamp", "timestamptz"})

Nulls = Literal["raise", "exclude", "include"]


@dataclass(frozen=True)
class Incremental:
    """How a load goes on where the last one ended.

    `lag` (seconds for times, whole days for dates, units for numbers) is read again each time. `initial` is the lower
    bound of the first load, None for none.
    """

    cursor: str
    initial: Any = None
    lag: float = 0.0
    nulls: Nulls = "raise"


@dataclass(frozen=True)
class Span:
    """What a load reads again on demand: rows whose cursor is at least `low` and below `high`; None leaves that end open."""

    low: Any = None
    high: Any = None


@dataclass(frozen=True)
class Window:
    """What one load reads: the query with its bounds, and the state it leaves (None: that of before stays)."""

    query: Query
    low: Any = None
    high: Any = None
    state: Mapping[str, Any] | None = None


def window(query: Query, wanted: Incremental, reader: Reader, state: Mapping[str, Any]) -> Window:
    """The bounds of this load; `state` is what the last one left, empty at first.

    The upper bound is the largest cursor that the source has now: rows that come while this load reads are for the next one.

    Raises:
        Refused: the column is not there, cannot be compared, or has rows without a value.
    """
    last = _decoded(state["cursor"]) if "cursor" in state else wanted.initial
    low = last if "cursor" not in state else _earlier(last, wanted.lag)
    placed = query.sql is not None and PLACEHOLDER.search(query.sql) is not None
    if placed:
        if low is None:
            raise Refused("the query has {{cursor}} and there is none yet; add `initial` to `incremental`")
        assert query.sql is not None
        query = replace(query, sql=PLACEHOLDER.sub(lambda _: reader.literal(low), query.sql))
    kind = _kind(reader.describe(query), wanted.cursor)
    column = reader.quoted(wanted.cursor)
    above = () if placed or low is None else (f"{column} > {reader.literal(low)}",)
    _look_for_nulls(query, wanted, reader, column)
    high = reader.value(_select(f"max({column})", query, reader, above))
    if high is None:
        return Window(_with(query, _or_null(wanted, column, ("1 = 0",))), low)
    bounds = (*above, f"{column} <= {reader.literal(high)}")
    return Window(_with(query, _or_null(wanted, column, bounds)), low, high, {"cursor": _encoded(high, kind)})


def spanned(query: Query, wanted: Incremental, reader: Reader, span: Span) -> Window:
    """The bounds of a load that reads a span again; it leaves no state, so that the next one goes on as if it had not been.

    Rows without a cursor are in no span. In a query with `{{cursor}}` the start of the span is put there.

    Raises:
        Refused: the column is not there, or an end of the span is none of its values.
    """
    placed = query.sql is not None and PLACEHOLDER.search(query.sql) is not None
    if placed and span.low is None:
        raise Refused("the query has {{cursor}}, so the rows that are read again need a start; add `--from`")
    bare = replace(query, sql=PLACEHOLDER.sub("NULL", query.sql)) if placed and query.sql is not None else query
    schema = reader.describe(bare)
    _kind(schema, wanted.cursor)
    kind = schema[wanted.cursor].type
    low, high = (_end(one, kind, flag) for one, flag in ((span.low, "--from"), (span.high, "--to")))
    if low is not None and high is not None and not low < high:
        raise Refused(f"`--from {span.low}` is not before `--to {span.high}`; the second is the first that is not read")
    column = reader.quoted(wanted.cursor)
    bounds = [f"{column} < {reader.literal(high)}"] if high is not None else []
    if placed:
        assert query.sql is not None
        query = replace(query, sql=PLACEHOLDER.sub(lambda _: reader.literal(low), query.sql))
    elif low is not None:
        bounds.insert(0, f"{column} >= {reader.literal(low)}")
    return Window(_with(query, tuple(bounds)), low, high)


def _end(value: Any, kind: Type, flag: str) -> Any:
    """An end of a span as a value of the cursor; dates and times of SQLite stay the text that they are there."""
    if value is None or not isinstance(value, str):
        return value
    text = value.strip()
    try:
        match kind.kind:
            case "int":
                return int(text)
            case "decimal":
                return Decimal(text)
            case "float":
                return float(text)
            case "date" | "timestamp" | "timestamptz":
                moment = datetime.fromisoformat(text)
                return text if kind.dialect == "sqlite" else _moment(moment, kind.kind)
            case _:
                return text
    except (ValueError, ArithmeticError):
        raise Refused(f"`{flag} {text}` is no value of the cursor, which is {kind}") from None


def _moment(moment: datetime, kind: str) -> Any:
    """A time as the cursor has it; one without a zone is UTC."""
    if kind == "date":
        return moment.date()
    if kind == "timestamp":
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _kind(schema: Schema, cursor: str) -> str:
    if cursor not in schema:
        raise Refused(f"`cursor` names '{cursor}', which the query does not give (columns: {', '.join(schema.names)})")
    kind = schema[cursor].type.kind
    if kind not in _KINDS:
        raise Refused(f"the cursor '{cursor}' is {schema[cursor].type}, which has no order that a load can go by")
    return kind


def _look_for_nulls(query: Query, wanted: Incremental, reader: Reader, column: str) -> None:
    if wanted.nulls != "raise":
        return
    count = reader.value(_select("count(*)", query, reader, (f"{column} IS NULL",)))
    if count:
        raise Refused(
            f"{count} rows have no value in the cursor '{wanted.cursor}', and would never be read; "
            "say what to do with them: `null_cursor: include` or `exclude`"
        )


def _select(what: str, query: Query, reader: Reader, where: tuple[str, ...]) -> str:
    if query.sql is not None:
        inner = query.sql.strip().removesuffix(";")
        source = f"({inner}\n) AS q"
    else:
        assert query.table is not None
        source = ".".join(reader.quoted(one) for one in query.table if one)
    conditions = [f"({one})" for one in (*query.where, *where)]
    return f"SELECT {what} FROM {source}{' WHERE ' + ' AND '.join(conditions) if conditions else ''}"


def _or_null(wanted: Incremental, column: str, bounds: tuple[str, ...]) -> tuple[str, ...]:
    if wanted.nulls != "include":
        return bounds
    return (f"({' AND '.join(bounds)}) OR {column} IS NULL",)


def _with(query: Query, where: tuple[str, ...]) -> Query:
    return replace(query, where=(*query.where, *where))


# -- values


def _earlier(value: Any, lag: float) -> Any:
    """The value, less what is read again."""
    if not lag or value is None:
        return value
    if isinstance(value, datetime):
        return value - timedelta(seconds=lag)
    if isinstance(value, date):
        return value - timedelta(days=-(-lag // 86_400))
    if isinstance(value, int):
        return value - int(lag)
    if isinstance(value, Decimal):
        return value - Decimal(str(lag))
    if isinstance(value, float):
        return value - lag
    return _earlier_text(str(value), lag)


def _earlier_text(value: str, lag: float) -> str:
    """A date or time that is stored as text, in the same writing."""
    try:
        if len(value) == 10:
            return _earlier(date.fromisoformat(value), lag).isoformat()  # type: ignore[no-any-return]
        moved = datetime.fromisoformat(value) - timedelta(seconds=lag)
    except ValueError:
        raise Refused(
            f"the cursor is the text {value[:80]!r}, from which no `lag` can be taken; remove `lag`"
        ) from None
    text = moved.isoformat(sep="T" if "T" in value else " ")
    return text.replace("+00:00", "Z") if value.endswith("Z") else text


def _encoded(value: Any, kind: str) -> dict[str, str]:
    name = type(value).__name__ if isinstance(value, datetime | date | int | Decimal | float) else "str"
    return {"type": name, "value": value.isoformat() if isinstance(value, date) else str(value), "kind": kind}


def _decoded(state: Mapping[str, str]) -> Any:
    readers: Mapping[str, Any] = {
        "datetime": datetime.fromisoformat,
        "date": date.fromisoformat,
        "int": int,
        "Decimal": Decimal,
        "float": float,
    }
    return readers.get(state["type"], str)(state["value"])
