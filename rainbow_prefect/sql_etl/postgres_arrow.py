"""Arrow into PostgreSQL: binary by pgpq where all its types are those of the table, else CSV by Arrow, else rows as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING, Any

from .arrow_types import arrow, conformed, rows_of, schema_of
from .base import Lane, Refused
from .postgres_load import Table
from .types import Column, Schema, fit

if TYPE_CHECKING:
    import pyarrow

_LENGTH = re.compile(r"\([^)]*\)")


def pieces(
    batches: Iterable[pyarrow.RecordBatch], names: Sequence[str], table: Table, *, secret: Sequence[str] = ()
) -> tuple[Lane, Iterator[bytes]]:
    """The bytes of all batches for COPY, and their form; columns go by name.

    Raises:
        Refused: a batch has other columns than the load.
        BadValue: later, while it is read: a value does not fit into its column.
    """
    rest = iter(batches)
    first = next(rest, None)
    if first is None:
        return "rows", iter(())
    missing = [one for one in names if one not in first.schema.names]
    if missing or len(first.schema.names) != len(names):
        got = ", ".join(first.schema.names)
        raise Refused(f"{table}: the batches have the columns {got}, not {', '.join(names)}; nothing was written")
    ordered = (one.select(list(names)) for one in chain([first], rest))
    came = schema_of(first.schema).only(names)
    sinks = [table.columns[one] for one in names]
    fields = [first.schema.field(one) for one in names]
    binary = [_binary(field.type, one, sink) for field, one, sink in zip(fields, came.columns, sinks, strict=True)]
    if None not in binary and find_spec("pgpq") is not None:
        return "pg_binary", _by_pgpq(ordered, came, _schema(names, binary))
    csv = [_csv(field.type, one, sink) for field, one, sink in zip(fields, came.columns, sinks, strict=True)]
    if None not in csv:
        return "csv", _by_csv(ordered, came, _schema(names, csv))
    from .postgres_text import lines

    return "rows", lines(rows_of(ordered), names, str(table), secret=secret)


def _schema(names: Sequence[str], types: Sequence[Any]) -> pyarrow.Schema:
    pa = arrow()
    return pa.schema([pa.field(name, one) for name, one in zip(names, types, strict=True)])


def _binary(found: Any, came: Column, sink: Column) -> Any:
    """The type of Arrow whose bytes pgpq writes as the column has them; None when there is none."""
    pa = arrow()
    types = pa.types
    spelled = _LENGTH.sub("", sink.type.native)
    if types.is_string(found) or types.is_large_string(found):
        is_text = came.type.kind == "text" and (sink.type.kind in ("text", "enum") or spelled == "json")
        return found if is_text else None
    if types.is_decimal128(found):
        return found if spelled == "numeric" and fit(came.type, sink.type) else None
    if fit(came.type, sink.type) is None:
        return None
    return {
        "boolean": pa.bool_(),
        "smallint": pa.int16(),
        "integer": pa.int32(),
        "bigint": pa.int64(),
        "real": pa.float32(),
        "double precision": pa.float64(),
        "bytea": pa.binary(),
        "date": pa.date32(),
        "time without time zone": pa.time64("us"),
        "timestamp without time zone": pa.timestamp("us"),
        "timestamp with time zone": pa.timestamp("us", "UTC"),
    }.get(spelled)


def _csv(found: Any, came: Column, sink: Column) -> Any:
    """The type itself where Arrow's text of it is read by the column as it is meant; None elsewhere.

    Text goes into every column: what it cannot read it refuses.
    """
    types = arrow().types
    if types.is_string(found) or types.is_large_string(found):
        return found
    if fit(came.type, sink.type) is None:
        return None
    plain = (types.is_boolean, types.is_integer, types.is_floating, types.is_decimal, types.is_date32, types.is_time)
    if any(one(found) for one in plain) or (types.is_timestamp(found) and found.unit != "ns"):
        return found
    return None


def _by_pgpq(batches: Iterable[Any], came: Schema, target: pyarrow.Schema) -> Iterator[bytes]:
    import pgpq

    encoder = pgpq.ArrowToPostgresBinaryEncoder(target)
    yield bytes(encoder.write_header())
    ordinal = 1
    for one in batches:
        yield bytes(encoder.write_batch(conformed(one, came, target, ordinal)))
        ordinal += one.num_rows
    yield bytes(encoder.finish())


def _by_csv(batches: Iterable[Any], came: Schema, target: pyarrow.Schema) -> Iterator[bytes]:
    import pyarrow.csv

    options = pyarrow.csv.WriteOptions(include_header=False)
    ordinal = 1
    for one in batches:
        buffer = arrow().BufferOutputStream()
        pyarrow.csv.write_csv(conformed(one, came, target, ordinal), buffer, options)
        yield buffer.getvalue().to_pybytes()
        ordinal += one.num_rows
