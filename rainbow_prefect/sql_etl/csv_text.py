"""CSV as bytes: whole rows cut out of any stream, read as Arrow by the types that are wanted, written as PostgreSQL writes it."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic import Field

from ..schema import Config, Text
from . import arrow_types
from .base import BadValue
from .types import Column, Schema

if TYPE_CHECKING:
    import pyarrow

CHUNK_BYTES = 4 << 20
"""About so many bytes of whole rows are read at once; a single row may pass it."""

_BY_VALUE = frozenset({"bytes", "interval", "array", "uuid", "timetz", "time", "float"})
_STRAY = re.compile(rb'[^,\n\r"]"[^,\n\r"]')
_PLACE = re.compile(r"Row #(\d+): (.*)", re.DOTALL)
_EMPTY_LINE = re.compile(rb"\A\r?\n|(?<=\n)\r?\n")
_END_FOR_COPY = re.compile(rb"^\\\.\r?$", re.MULTILINE)


class Csv(Config):
    """How CSV files are written."""

    delimiter: Text = Field(default=",", min_length=1, max_length=1, description="What stands between two values.")
    header: bool = Field(default=True, description="Whether the first row of each file has the names of the columns.")
    null: Text = Field(default="", description="The text, without quotes, that means NULL; quoted it is itself.")
    encoding: Text = Field(default="utf-8", description="The encoding of the files.")

    @property
    def is_plain(self) -> bool:
        """Whether its rows are what PostgreSQL's COPY csv reads and writes."""
        return self.delimiter == "," and not self.null and self.is_utf8

    @property
    def is_utf8(self) -> bool:
        return codecs.lookup(self.encoding).name == "utf-8"


def blocks(file: BinaryIO, options: Csv, name: str) -> Iterator[bytes]:
    """The bytes of a file as UTF-8, without a byte order mark.

    Raises:
        BadValue: they are not of that encoding; names the offset.
    """
    decoder = None if options.is_utf8 else codecs.getincrementaldecoder(options.encoding)("strict")
    offset = 0
    while True:
        block = file.read(1 << 20)
        if offset == 0:
            block = block.removeprefix(codecs.BOM_UTF8) if decoder is None else block
        if decoder is None:
            text = block
        else:
            try:
                text = decoder.decode(block, final=not block).encode()
            except UnicodeError as error:
                at = offset + getattr(error, "start", 0)
                raise BadValue(
                    f"the file '{name}' is not {options.encoding} at byte {at}; set `csv: encoding`"
                ) from None
        if text:
            yield text
        if not block:
            return
        offset += len(block)


def whole_rows(pieces: Iterable[bytes], name: str) -> Iterator[bytes]:
    """The same bytes cut after whole rows, so that a quoted value is never cut.

    Raises:
        BadValue: a quote is never closed.
    """
    kept = b""
    for piece in pieces:
        kept += piece
        if len(kept) < CHUNK_BYTES:
            continue
        end = _end_of_rows(kept)
        if end:
            yield kept[:end]
            kept = kept[end:]
    if kept.count(b'"') % 2:
        raise BadValue(
            f"the file '{name}' ends within quotes: a quote is not closed, or not doubled, or the file was cut"
        )
    if kept:
        yield kept if kept.endswith(b"\n") else kept + b"\n"


def _end_of_rows(text: bytes) -> int:
    """The place after the last line break that is not within quotes; 0 when there is none."""
    quotes = text.count(b'"')
    end = len(text)
    while True:
        found = text.rfind(b"\n", 0, end)
        if found < 0:
            return 0
        quotes -= text.count(b'"', found, end)
        if quotes % 2 == 0:
            return found + 1
        end = found


def refuse_stray_quotes(chunk: bytes, options: Csv, name: str) -> None:
    """A quote within a value without quotes, which each reader takes differently.

    Raises:
        BadValue: there is one; shows its line.
    """
    if b'"' not in chunk or options.delimiter != ",":
        return
    found = _STRAY.search(chunk)
    if found:
        start, end = chunk.rfind(b"\n", 0, found.start()) + 1, chunk.find(b"\n", found.end())
        line = chunk[start : end if end > 0 else None].decode(errors="replace")[:80]
        raise BadValue(
            f"the file '{name}' has a quote within a value: {line!r}; put the value in quotes and double those within"
        )


def refuse_empty_lines(chunk: bytes, columns: int, name: str) -> None:
    """An empty line where there is more than one column, which some readers skip and some take for a row of NULL.

    Raises:
        BadValue: there is one that is not within quotes.
    """
    if columns == 1:
        return
    for found in _EMPTY_LINE.finditer(chunk):
        if chunk.count(b'"', 0, found.start()) % 2 == 0:
            raise BadValue(f"the file '{name}' has an empty line; remove it")


def refuse_end_for_copy(chunk: bytes, name: str) -> None:
    r"""A line `\.`, which ends the data for PostgreSQL before version 18.

    Raises:
        BadValue: there is one that is not within quotes.
    """
    if b"\\." not in chunk:
        return
    for found in _END_FOR_COPY.finditer(chunk):
        if chunk.count(b'"', 0, found.start()) % 2 == 0:
            raise BadValue(f"the file '{name}' has a row that is \\. alone")


def without_first_row(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first row, and the rest."""
    first = next(chunks, b"")
    end = 0
    while True:
        end = first.find(b"\n", end) + 1
        if end == 0 or first.count(b'"', 0, end) % 2 == 0:
            break
    end = end or len(first)

    def rest() -> Iterator[bytes]:
        if first[end:]:
            yield first[end:]
        yield from chunks

    return first[:end], rest()


def values_of_row(row: bytes, options: Csv) -> list[str]:
    """The values of one row as text."""
    return next(csv.reader([row.decode().rstrip("\r\n")], delimiter=options.delimiter), [])


# -- to Arrow


def parsed(chunk: bytes, schema: Schema, target: pyarrow.Schema, options: Csv, first: int) -> pyarrow.RecordBatch:
    """Whole rows as Arrow with the fields of `target`.

    Raises:
        BadValue: a row has other columns, a value is none of its type; names column, row and value.
    """
    pa = arrow_types.arrow()
    direct = [
        pa.string() if _is_by_value(column) else field.type
        for column, field in zip(schema.columns, target, strict=True)
    ]
    try:
        arrays = _read(chunk, direct, options, pa)
    except pa.ArrowInvalid:  # told below, where the row is known
        direct = [pa.string()] * len(direct)
        try:
            arrays = _read(chunk, direct, options, pa)
        except pa.ArrowInvalid as error:
            raise _unread(str(error), first) from None
    made = [
        array if kind == field.type and not _is_by_value(column) else _converted(array, column, field, first)
        for array, kind, column, field in zip(arrays, direct, schema.columns, target, strict=True)
    ]
    return pa.RecordBatch.from_arrays(made, schema=target)


def _is_by_value(column: Column) -> bool:
    one = column.type
    return (
        one.kind in _BY_VALUE
        or (one.kind == "text" and one.length is not None)
        or (one.kind == "decimal" and one.precision is None)
    )


def _read(chunk: bytes, kinds: list[Any], options: Csv, pa: Any) -> list[Any]:
    from pyarrow import csv as reading

    names = [str(number) for number in range(len(kinds))]
    table = reading.read_csv(
        pa.BufferReader(chunk),
        reading.ReadOptions(column_names=names, block_size=len(chunk) + 1, use_threads=False),
        reading.ParseOptions(delimiter=options.delimiter, newlines_in_values=True, ignore_empty_lines=False),
        reading.ConvertOptions(
            column_types=dict(zip(names, kinds, strict=True)),
            null_values=[options.null],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t", "true", "1"],
            false_values=["f", "false", "0"],
        ),
    )
    return [one.combine_chunks() if one.num_chunks != 1 else one.chunk(0) for one in table.columns]


def _unread(text: str, first: int) -> BadValue:
    found = _PLACE.search(text)
    if found is None:
        return BadValue(f"the rows from {first} on cannot be read: {text}")
    return BadValue(f"row {first + int(found[1]) - 1}: {found[2][:200].rstrip()}")


def _converted(array: Any, column: Column, field: Any, first: int) -> Any:
    """Text as a column of another type, value by value."""
    found = []
    for row, text in enumerate(array.to_pylist(), first):
        try:
            found.append((None if text is None else arrow_types.value_of(text, column.type),))
        except (ValueError, ArithmeticError) as error:
            raise arrow_types.bad(column.name, row, text, f"is no {column.type}: {error}") from None
    pa = arrow_types.arrow()
    made = list(arrow_types.batches_of([found], Schema((column,)), target=pa.schema([field]), first=first))
    arrays = [one.column(0) for one in made]
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays) if arrays else pa.array([], field.type)


# -- from Arrow


def written(batch: pyarrow.RecordBatch, schema: Schema, options: Csv, first: int) -> bytes:
    """Rows as CSV, each value as PostgreSQL's COPY writes it: quotes only where they are needed."""
    import pyarrow.compute as pc

    if not batch.num_rows:
        return b""
    special = "[" + re.escape(options.delimiter) + '"\n\r]'
    columns = []
    for array, column in zip(batch.columns, schema.columns, strict=True):
        text = texts(array, column, first)
        is_odd = pc.or_(pc.match_substring_regex(text, special), pc.equal(text, options.null))
        if options.null:
            is_odd = pc.or_(is_odd, pc.equal(text, ""))
        if len(schema.columns) == 1:
            is_odd = pc.or_(is_odd, pc.equal(text, "\\."))
        quoted = pc.binary_join_element_wise('"', pc.replace_substring(text, '"', '""'), '"', "")
        columns.append(pc.if_else(is_odd, quoted, text))
    if len(columns) == 1:
        rows = pc.fill_null(columns[0], options.null)
    else:
        rows = pc.binary_join_element_wise(
            *columns, options.delimiter, null_handling="replace", null_replacement=options.null
        )
    return encoded("\n".join(rows.to_pylist()) + "\n", options)


def encoded(text: str, options: Csv) -> bytes:
    """Text in the encoding of the files.

    Raises:
        BadValue: it has a character that the encoding has not.
    """
    try:
        return text.encode(options.encoding)
    except UnicodeError as error:
        odd = text[getattr(error, "start", 0) :][:1]
        raise BadValue(f"the character {odd!r} cannot be written as {options.encoding}; use utf-8") from None


def header(schema: Schema, options: Csv) -> bytes:
    """The row of names."""
    odd = re.compile("[" + re.escape(options.delimiter) + '"\n\r]')
    names = ['"' + one.replace('"', '""') + '"' if odd.search(one) or not one else one for one in schema.names]
    return encoded(options.delimiter.join(names) + "\n", options)


def texts(array: Any, column: Column, first: int) -> Any:
    """A column as text, each value as PostgreSQL writes it."""
    import pyarrow.compute as pc

    pa = arrow_types.arrow()
    types = pa.types
    array = arrow_types.decoded(array, pa)
    kind = array.type
    if types.is_string(kind):
        return array
    if types.is_large_string(kind) or types.is_integer(kind):
        return array.cast(pa.string())
    if types.is_boolean(kind):
        return pc.if_else(array, "t", "f")
    if types.is_date(kind):
        made = array.cast(pa.date32()).cast(pa.string())
        if _all_long(made, 10):
            return made
    if types.is_timestamp(kind) and kind.unit in ("us", "ms", "s"):
        made = array.cast(pa.timestamp("us", kind.tz)).cast(pa.timestamp("us")).cast(pa.string())
        if _all_long(made, 26):
            made = pc.replace_substring_regex(made, r"\.?0*$", "")
            return pc.binary_join_element_wise(made, "+00", "") if kind.tz else made
    if types.is_float32(kind):  # the shortest text of the 32 bits, not of the same number in 64
        values = [None if one is None else float(one) for one in array.cast(pa.string()).to_pylist()]
    else:
        values = arrow_types.values_of(array, column, first)
    return pa.array([None if one is None else arrow_types.text_of(one) for one in values], pa.string())


def _all_long(array: Any, length: int) -> bool:
    """Whether all texts are so long, as those of the years 1 to 9999 are, and none begins with a minus."""
    import pyarrow.compute as pc

    lengths = pc.min_max(pc.utf8_length(array)).as_py()
    if lengths["min"] is None:
        return True
    is_before = pc.any(pc.starts_with(array, "-")).as_py()
    return lengths["min"] == lengths["max"] == length and not is_before
