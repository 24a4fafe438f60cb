"""Files of rows while they are written: Parquet, CSV, JSON lines, compressed or not; batches go in, bytes come out."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, BinaryIO, Literal

from . import arrow_types, csv_text
from .base import BadValue
from .csv_text import Csv
from .types import Column, Schema

Format = Literal["csv", "jsonl", "parquet"]
Compression = Literal["gzip", "zstd", "none"]

ROW_GROUP_BYTES = 16 << 20
"""About so many bytes of Arrow become one row group of Parquet."""


class Encoder(ABC):
    """One open file; `rows` counts what went in."""

    def __init__(self, file: BinaryIO, schema: Schema, compression: Compression) -> None:
        self.rows = 0
        self._schema = schema
        self._file = file
        self._out = _compressed(file, compression)

    @abstractmethod
    def write(self, batch: Any) -> None:
        """Add rows."""

    def _bytes(self, data: bytes) -> None:
        self._out.write(data)

    def end(self) -> None:
        """Write what is left; the file itself stays open."""
        if self._out is not self._file:
            self._out.close()


class TextEncoder(Encoder):
    """Rows that are text, written as they come."""

    def write(self, batch: Any) -> None:
        self._bytes(self._encoded(batch))
        self.rows += batch.num_rows

    @abstractmethod
    def _encoded(self, batch: Any) -> bytes:
        """The bytes of the rows."""


class CsvEncoder(TextEncoder):
    """CSV with its header."""

    def __init__(self, file: BinaryIO, schema: Schema, compression: Compression, options: Csv) -> None:
        super().__init__(file, schema, compression)
        self._options = options
        self._within = False
        if options.header:
            self._bytes(csv_text.header(schema, options))

    def _encoded(self, batch: Any) -> bytes:
        return csv_text.written(batch, self._schema, self._options, self.rows + 1)

    def write_chunk(self, chunk: bytes) -> None:
        """Add rows that are CSV already; a chunk may end anywhere."""
        self._bytes(chunk)
        for number, piece in enumerate(chunk.split(b'"')):
            if number:
                self._within = not self._within
            if not self._within:
                self.rows += piece.count(b"\n")


class JsonEncoder(TextEncoder):
    """One JSON object for each row; decimals are text, so that no reader rounds them, and JSON is, so that it stays as it is."""

    def _encoded(self, batch: Any) -> bytes:
        names = [json.dumps(one, ensure_ascii=False) for one in self._schema.names]
        lines = []
        first = self.rows + 1
        for some in arrow_types.rows_of([batch], self._schema):
            for row in some:
                values = zip(names, self._schema.columns, row, strict=True)
                lines.append(
                    "{" + ", ".join(f"{name}: {_json(value, one, first)}" for name, one, value in values) + "}\n"
                )
                first += 1
        return "".join(lines).encode()


def _json(value: Any, column: Column, row: int) -> str:
    if value is None or isinstance(value, bool | int):
        return json.dumps(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise arrow_types.bad(column.name, row, value, "cannot be JSON, which has no NaN and no infinity")
        return repr(value)
    return json.dumps(arrow_types.text_of(value), ensure_ascii=False)


class ParquetEncoder(Encoder):
    """Parquet; rows wait until there are enough for a row group."""

    def __init__(self, file: BinaryIO, schema: Schema, compression: Compression) -> None:
        import pyarrow
        import pyarrow.parquet

        super().__init__(file, schema, "none")
        self.target = arrow_types.arrow_schema(schema, intervals=False)
        self._waiting: list[Any] = []
        self.waiting_bytes = 0
        try:
            self._writer = pyarrow.parquet.ParquetWriter(
                pyarrow.PythonFile(_Open(file), "w"), self.target, compression=compression
            )
        except pyarrow.ArrowException as error:
            raise BadValue(f"Parquet cannot hold these columns: {error}") from None

    def write(self, batch: Any) -> None:
        self._waiting.append(batch)
        self.waiting_bytes += batch.nbytes
        self.rows += batch.num_rows
        if self.waiting_bytes >= ROW_GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits as a row group."""
        import pyarrow

        if self._waiting:
            table = pyarrow.Table.from_batches(self._waiting, schema=self.target)
            self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._waiting, self.waiting_bytes = [], 0

    def end(self) -> None:
        self.flush()
        self._writer.close()


class _Open:
    """A file that Arrow does not close."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0

    def write(self, data: Any) -> int:
        self._file.write(bytes(data))
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        pass

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        pass


def encoder(file: BinaryIO, schema: Schema, kind: Format, compression: Compression, options: Csv) -> Encoder:
    """The encoder of a format."""
    if kind == "csv":
        return CsvEncoder(file, schema, compression, options)
    if kind == "jsonl":
        return JsonEncoder(file, schema, compression)
    return ParquetEncoder(file, schema, compression)


def _compressed(file: BinaryIO, compression: Compression) -> Any:
    if compression == "gzip":
        import gzip

        return gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6)
    if compression == "zstd":
        pa = arrow_types.arrow()
        return pa.CompressedOutputStream(pa.PythonFile(_Open(file), "w"), "zstd")
    return file


def decompressed(file: BinaryIO, compression: Compression) -> Any:
    """A file to read without its compression."""
    if compression == "gzip":
        import gzip

        return gzip.GzipFile(fileobj=file, mode="rb")
    if compression == "zstd":
        pa = arrow_types.arrow()
        return pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
    return file


EXTENSIONS: Mapping[str, str] = {"gzip": ".gz", "zstd": ".zst", "none": ""}


def extension(kind: Format, compression: Compression) -> str:
    """What the names of such files end with; Parquet compresses within."""
    return f".{kind}" if kind == "parquet" else f".{kind}{EXTENSIONS[compression]}"


def guessed(name: str) -> tuple[Format | None, Compression]:
    """Format and compression by the end of a name."""
    compression: Compression = "none"
    for word, end in (("gzip", ".gz"), ("zstd", ".zst"), ("zstd", ".zstd")):
        if name.lower().endswith(end):
            compression = "gzip" if word == "gzip" else "zstd"
            name = name[: -len(end)]
    last = name.lower().rpartition(".")[2]
    formats: dict[str, Format] = {
        "csv": "csv",
        "jsonl": "jsonl",
        "ndjson": "jsonl",
        "parquet": "parquet",
        "pq": "parquet",
    }
    return formats.get(last), compression
