"""Reads files as a table: those that a manifest lists, or those that a pattern finds, in the order of their names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote

from ..errors import near
from . import arrow_types, csv_text
from .base import BadValue, Passing, Query, Reader, Refused, Rows, Session
from .csv_text import Csv
from .encoders import Compression, Format, decompressed
from .files_writer import NO_VALUE
from .types import Column, Schema, Type

if TYPE_CHECKING:
    import pyarrow

BATCH_BYTES = 8 << 20
NAMED_BY = 1000
"""So many lines of JSON lines say which columns there are."""

_FOLDER = re.compile(r"(?:^|/)([^/=]+)=([^/]*)(?=/)")
_NAME = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^\W\d]\w*))\s*\Z')


@dataclass(frozen=True)
class Table:
    """What is read: files in order, how each is opened, and the columns that a manifest says it has."""

    names: tuple[str, ...]
    open: Callable[[str], BinaryIO]
    format: Format
    compression: Mapping[str, Compression]
    schema: Schema | None = None
    partition_by: tuple[str, ...] = ()
    path: str = ""


class FilesReader(Reader):
    """Files of one format with the same columns; what they are is known by `dialect`.

    Text files (`csv`, `jsonl`) have no types: `describe` says text of that dialect, and the schema that `rows` and
    `batches` are given says what the text is read as.
    """

    takes_sql = False

    def __init__(
        self, find: Callable[[Query], Table], session: Session, *, options: Csv, types: Mapping[str, str], dialect: str
    ) -> None:
        self._find = find
        self._session = session
        self._options = options
        self._types = types
        self.dialect = dialect
        self._seen: dict[tuple[str, str], tuple[str, ...]] = {}

    # -- columns

    def describe(self, query: Query) -> Schema:
        if query.sql is not None:
            raise Refused(
                "files take no SQL; name a `table`, or read them with DuckDB: type: sqlalchemy, url: duckdb:///..."
            )
        if query.where:
            raise Refused("files take no conditions; read all, or load them into DuckDB first")
        table = self._find(query)
        found = table.schema or self._described(table)
        found = self._typed(found, table)
        return _chosen(found, query)

    def _described(self, table: Table) -> Schema:
        if not table.names:
            raise Refused("there are no files to read")
        found = self._in_file(table, table.names[0])
        folders = tuple(Column(one, Type("text", dialect="csv")) for one in self._of_folders(table))
        return Schema((*found.columns, *folders))

    def _in_file(self, table: Table, name: str) -> Schema:
        """The columns that a file itself has."""
        if table.format == "parquet":
            with table.open(name) as file:
                return arrow_types.schema_of(_parquet(file, name).schema_arrow)
        return Schema(tuple(Column(one, Type("text", dialect=table.format)) for one in self._names(table, name)))

    def _of_folders(self, table: Table) -> tuple[str, ...]:
        """The columns that only the folders name."""
        if table.schema is not None:
            return table.partition_by
        known = self._in_file(table, table.names[0]) if table.names else Schema(())
        return tuple(one for one in _folders(table.names[0]) if one not in known) if table.names else ()

    def _names(self, table: Table, name: str) -> tuple[str, ...]:
        if (table.path, name) not in self._seen:
            with table.open(name) as file:
                stream = decompressed(file, table.compression[name])
                self._seen[table.path, name] = (
                    self._names_of_csv(stream, name) if table.format == "csv" else self._names_of_json(stream, name)
                )
        return self._seen[table.path, name]

    def _names_of_csv(self, stream: Any, name: str) -> tuple[str, ...]:
        chunks = csv_text.whole_rows(csv_text.blocks(stream, self._options, name), name)
        row = csv_text.values_of_row(csv_text.without_first_row(chunks)[0], self._options)
        if not row:
            raise Refused(f"the file '{name}' is empty; a CSV file without rows still has the names of its columns")
        if not self._options.header:
            if len(self._types) != len(row):
                raise Refused(
                    f"the file '{name}' has {len(row)} columns and no header; "
                    f"name them all in `types` (named: {len(self._types)})"
                )
            return tuple(self._types)
        twice = sorted({one for one in row if row.count(one) > 1})
        if twice:
            raise Refused(f"the file '{name}' has the column '{twice[0]}' twice")
        return tuple(row)

    def _names_of_json(self, stream: Any, name: str) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for number, line in enumerate(islice(_lines(stream), NAMED_BY), 1):
            found |= dict.fromkeys(key for key, _ in _object(line, name, number))
        return tuple(dict.fromkeys([*found, *self._types]))

    def _typed(self, found: Schema, table: Table) -> Schema:
        """With the types that people wrote."""
        unknown = [one for one in self._types if one not in found]
        if unknown:
            hint = near(unknown[0], found.names)
            raise Refused(
                f"`types` names the column '{unknown[0]}', which the files do not have{'; ' if hint else ''}{hint}"
            )
        columns = []
        for one in found.columns:
            if one.name not in self._types:
                columns.append(one)
                continue
            try:
                columns.append(replace(one, type=arrow_types.named(self._types[one.name])))
            except ValueError as error:
                raise Refused(f"`types: {one.name}`: {error}") from None
        return Schema(tuple(columns))

    # -- rows

    def lanes(self) -> tuple[Any, ...]:
        is_plain = self.dialect == "csv" and self._options.is_plain and not self._types
        return ("csv", "arrow", "rows") if is_plain else ("arrow", "rows")

    def rows(self, query: Query, schema: Schema) -> Iterator[Rows]:
        return arrow_types.rows_of(self.batches(query, schema), schema)

    def batches(self, query: Query, schema: Schema) -> Iterator[pyarrow.RecordBatch]:
        table = self._find(query)
        full = self._typed(table.schema or self._described(table), table)
        places = [_place(one, full, query) for one in schema.names]
        wanted = dict(zip(places, schema.columns, strict=True))
        read_as = Schema(
            tuple(replace(wanted[n], name=one.name) if n in wanted else one for n, one in enumerate(full.columns))
        )
        target = arrow_types.arrow_schema(schema)
        first, found = 1, False
        pa = arrow_types.arrow()
        outer = self._of_folders(table)
        for name in table.names:
            for batch in self._of_file(table, name, read_as, outer, first):
                made = pa.RecordBatch.from_arrays([batch.column(n) for n in places], names=list(schema.names))
                yield arrow_types.conformed(made, schema, target, first)
                first, found = first + batch.num_rows, True
                if self._session.stop.is_set():
                    return
        if not found:
            yield pa.RecordBatch.from_pylist([], schema=target)

    def _of_file(self, table: Table, name: str, schema: Schema, outer: Sequence[str], first: int) -> Iterator[Any]:
        """The batches of one file, with the columns that its folders name."""
        inner = Schema(tuple(one for one in schema.columns if one.name not in outer))
        folders = _folders(name)
        if not set(outer) <= set(folders):
            raise Refused(f"the file '{name}' is in no folder that says {', '.join(outer)}")
        read = {"csv": self._csv, "jsonl": self._jsonl, "parquet": self._parquet}[table.format]
        try:
            file = table.open(name)
        except FileNotFoundError:
            raise Passing(f"the file '{name}' is gone: another load replaced it meanwhile") from None
        with file:
            for batch in read(table, file, name, inner, first):
                yield batch if not outer else _with_folders(batch, inner, schema, folders, first)
                first += batch.num_rows

    def _csv(self, table: Table, file: Any, name: str, schema: Schema, first: int) -> Iterator[Any]:
        target = arrow_types.arrow_schema(schema)
        self._refuse_other_names(table, name, schema)
        for chunk in self._chunks_of(table, file, name):
            csv_text.refuse_stray_quotes(chunk, self._options, name)
            csv_text.refuse_empty_lines(chunk, len(schema.columns), name)
            batch = csv_text.parsed(chunk, schema, target, self._options, first)
            first += batch.num_rows
            yield batch

    def _chunks_of(self, table: Table, file: Any, name: str) -> Iterator[bytes]:
        stream = decompressed(file, table.compression[name])
        chunks = csv_text.whole_rows(csv_text.blocks(stream, self._options, name), name)
        try:
            yield from csv_text.without_first_row(chunks)[1] if self._options.header else chunks
        except (OSError, EOFError) as error:
            raise BadValue(f"the file '{name}' cannot be read: {error}") from None

    def _refuse_other_names(self, table: Table, name: str, schema: Schema) -> None:
        if not self._options.header:
            return
        names = self._names(table, name)
        if names != schema.names:
            raise Refused(
                f"the file '{name}' has the columns {', '.join(names)}; the first one has {', '.join(schema.names)}"
            )

    def _jsonl(self, table: Table, file: Any, name: str, schema: Schema, first: int) -> Iterator[Any]:
        stream = decompressed(file, table.compression[name])
        return arrow_types.batches_of(
            self._rows_of_json(stream, name, schema, first, table.schema is not None), schema, first=first
        )

    def _rows_of_json(self, stream: Any, name: str, schema: Schema, first: int, is_ours: bool) -> Iterator[Rows]:
        rows: Rows = []
        size = 0
        known = set(schema.names)
        for number, line in enumerate(_lines(stream), first):
            found = dict(_object(line, name, number))
            odd = found.keys() - known
            if odd:
                raise BadValue(f"row {number}: the key '{sorted(odd)[0]}' is no column; name it in `types`")
            rows.append(tuple(_value(found.get(one.name), one, number, is_ours) for one in schema.columns))
            size += len(line)
            if size > BATCH_BYTES:
                yield rows
                rows, size = [], 0
        yield rows

    def _parquet(self, table: Table, file: Any, name: str, schema: Schema, first: int) -> Iterator[Any]:
        found = _parquet(file, name)
        has = arrow_types.schema_of(found.schema_arrow)
        if set(has.names) != set(schema.names):
            raise Refused(
                f"the file '{name}' has the columns {', '.join(has.names)}; the first one has {', '.join(schema.names)}"
            )
        target = arrow_types.arrow_schema(schema, intervals=False)
        size = sum(found.metadata.row_group(n).total_byte_size for n in range(found.num_row_groups))
        rows = max(1, min(1 << 20, BATCH_BYTES * max(found.metadata.num_rows, 1) // max(size, 1)))
        try:
            for batch in found.iter_batches(batch_size=rows, columns=list(schema.names)):
                yield arrow_types.conformed(batch.select(list(schema.names)), schema, target, first)
                first += batch.num_rows
        except (OSError, arrow_types.arrow().ArrowException) as error:
            raise BadValue(f"the file '{name}' cannot be read: {' '.join(str(error).split())[:300]}") from None

    def chunks(self, query: Query, schema: Schema, lane: Any) -> Iterator[bytes]:
        """The bytes of CSV files as they are, without their headers."""
        table = self._find(query)
        full = table.schema or self._described(table)
        if full.names != schema.names or len(full.columns) == 1 or self._of_folders(table):
            yield from self._encoded(query, schema)
            return
        for name in table.names:
            self._refuse_other_names(table, name, full)
            with table.open(name) as file:
                for chunk in self._chunks_of(table, file, name):
                    csv_text.refuse_stray_quotes(chunk, self._options, name)
                    csv_text.refuse_empty_lines(chunk, len(full.columns), name)
                    csv_text.refuse_end_for_copy(chunk, name)
                    yield chunk

    def _encoded(self, query: Query, schema: Schema) -> Iterator[bytes]:
        """The rows as CSV anew, where the files have other columns."""
        first = 1
        for batch in self.batches(query, schema):
            data = csv_text.written(batch, schema, Csv(), first)
            first += batch.num_rows
            if data:
                yield data


# -- columns


def _place(name: str, full: Schema, query: Query) -> int:
    """The place in the file of a column of the query."""
    names = full.names
    if query.columns:
        name = next(_name_of(expression) for expression, alias in query.columns if alias == name)
    return names.index(name)


def _chosen(found: Schema, query: Query) -> Schema:
    """The columns of the query; files know names only, no expressions."""
    if not query.columns:
        return found
    columns = []
    for expression, alias in query.columns:
        name = _name_of(expression)
        if name not in found:
            hint = near(name, found.names)
            raise Refused(f"the files have no column '{name}'{'; ' if hint else ''}{hint}")
        columns.append(replace(found[name], name=alias))
    return Schema(tuple(columns))


def _name_of(expression: str) -> str:
    found = _NAME.match(expression)
    if found is None:
        raise Refused(f"files know names of columns only, not `{expression}`; load them into DuckDB first")
    return found[1].replace('""', '"') if found[1] else found[2]


def _folders(name: str) -> dict[str, str | None]:
    """The columns that the folders of a file name, `day=2024-02-29`."""
    return {unquote(column): None if value == NO_VALUE else unquote(value) for column, value in _FOLDER.findall(name)}


def _with_folders(batch: Any, inner: Schema, schema: Schema, folders: Mapping[str, str | None], first: int) -> Any:
    pa = arrow_types.arrow()
    arrays = []
    for one in schema.columns:
        if one.name in inner:
            arrays.append(batch.column(inner.names.index(one.name)))
            continue
        text = folders[one.name]
        try:
            value = None if text is None else arrow_types.value_of(text, one.type)
        except ValueError as error:
            raise arrow_types.bad(one.name, first, text, f"is no {one.type}: {error}") from None
        made = next(arrow_types.batches_of([[(value,)]], Schema((one,))), None)
        array = made.column(0) if made is not None else pa.nulls(1)
        arrays.append(array.take(pa.array([0] * batch.num_rows, pa.int64())))
    return pa.RecordBatch.from_arrays(arrays, names=list(schema.names))


def _parquet(file: Any, name: str) -> Any:
    from pyarrow import parquet

    pa = arrow_types.arrow()
    try:
        return parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise Refused(f"the file '{name}' is no Parquet: {' '.join(str(error).split())[:300]}") from None


# -- JSON lines


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


class _Pairs(list[tuple[str, Any]]):
    """An object with its keys in order, also those that occur twice."""


def _lines(stream: Any) -> Iterator[bytes]:
    kept = b""
    while True:
        block = stream.read(1 << 20)
        pieces = (kept + block).split(b"\n")
        kept = pieces.pop()
        yield from (one for one in pieces if one.strip())
        if not block:
            break
    if kept.strip():
        yield kept


def _object(line: bytes, name: str, number: int) -> Sequence[tuple[str, Any]]:
    """The keys and values of a line."""
    try:
        found = json.loads(
            line, parse_float=_Number, parse_int=_Number, parse_constant=_refuse_constant, object_pairs_hook=_Pairs
        )
    except (ValueError, RecursionError) as error:
        raise BadValue(f"row {number} of the file '{name}' is no JSON: {error}") from None
    if not isinstance(found, _Pairs):
        raise BadValue(f"row {number} of the file '{name}' is no JSON object: {line[:80].decode(errors='replace')}")
    keys = [key for key, _ in found]
    if len(set(keys)) < len(keys):
        raise BadValue(f"row {number} of the file '{name}' has a key twice")
    return found


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _value(found: Any, column: Column, number: int, is_ours: bool) -> Any:
    """A value of JSON as a row has it: numbers keep all their digits; `is_ours`: JSON within it is text."""
    if found is None:
        return None
    is_json = column.type.kind == "json" and not (is_ours and isinstance(found, str))
    text = _dumped(found) if is_json or not isinstance(found, str) else str(found)
    try:
        return text if is_json else arrow_types.value_of(text, column.type)
    except (ValueError, ArithmeticError) as error:
        raise arrow_types.bad(column.name, number, text, f"is no {column.type}: {error}") from None


def _dumped(found: Any) -> str:
    match found:
        case _Number():
            return str(found)
        case _Pairs():
            return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {_dumped(one)}" for key, one in found) + "}"
        case list():
            return "[" + ", ".join(map(_dumped, found)) + "]"
        case _:
            return json.dumps(found, ensure_ascii=False)
