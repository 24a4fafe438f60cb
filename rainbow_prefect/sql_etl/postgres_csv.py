"""COPY's csv as Arrow, by the types of the catalogue; what pyarrow does not read is made of it value by value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .arrow_types import arrow, arrow_schema, bad, batches_of, value_of
from .types import Column, Schema

if TYPE_CHECKING:
    import pyarrow

BLOCK_BYTES = 4 << 20
"""So many bytes of csv, and the rest of a row, become one batch."""

_BY_VALUE = frozenset({"bytes", "interval", "array"})
_MARK = b"\xef\xbb\xbf"
"""pyarrow takes it from the start of what it reads, where it may be text."""


def batches(chunks: Iterable[bytes], schema: Schema) -> Iterator[pyarrow.RecordBatch]:
    """A batch for each chunk, which has whole rows; an empty one when there are none, for its schema.

    Raises:
        BadValue: Arrow cannot hold a value; names column, row and value.
    """
    goal = arrow_schema(schema)
    first = 1
    for chunk in chunks:
        made = _batch(chunk, schema, goal, first)
        first += made.num_rows
        yield made
    if first == 1:
        yield arrow().RecordBatch.from_pylist([], schema=goal)


def _batch(chunk: bytes, schema: Schema, goal: pyarrow.Schema, first: int) -> pyarrow.RecordBatch:
    pa = arrow()
    direct = {
        field.name: pa.string() if _is_by_value(column, field, pa) else field.type
        for column, field in zip(schema.columns, goal, strict=True)
    }
    try:
        table = _read(chunk, direct, pa)
    except pa.ArrowInvalid:  # dates of other ages, infinity, NaN: exact or told below, where the row is known
        table = _read(chunk, dict.fromkeys(direct, pa.string()), pa)
    arrays = [
        _converted(array, column, field, first)
        if array.type != field.type or _is_by_value(column, field, pa)
        else array
        for array, column, field in zip(table.columns, schema.columns, goal, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=goal)


def _is_by_value(column: Column, field: pyarrow.Field, pa: Any) -> bool:
    return column.type.kind in _BY_VALUE or bool(pa.types.is_decimal256(field.type))


def _read(chunk: bytes, kinds: dict[str, Any], pa: Any) -> Any:
    """The columns, one array for each: NULL is an empty field, an empty text is quoted."""
    from pyarrow import csv

    table = csv.read_csv(
        pa.BufferReader(_MARK + chunk if chunk.startswith(_MARK) else chunk),
        csv.ReadOptions(column_names=list(kinds), block_size=len(chunk) + len(_MARK) + 1, use_threads=False),
        csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        csv.ConvertOptions(
            column_types=kinds,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        ),
    )
    return table.combine_chunks().to_batches()[0]


def _converted(array: Any, column: Column, field: Any, first: int) -> Any:
    values = []
    for row, text in enumerate(array.to_pylist(), first):
        try:
            values.append((None if text is None else value_of(text, column.type),))
        except ValueError as error:
            raise bad(column.name, row, text, f"cannot be {field.type}: {error}") from None
    one = Schema((column,))
    made = list(batches_of([values], one, target=arrow().schema([field]), first=first))
    return (
        arrow().chunked_array([batch.column(0) for batch in made]).combine_chunks()
        if len(made) > 1
        else made[0].column(0)
    )
