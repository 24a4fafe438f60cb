"""A Python function as a source: it yields Arrow, frames or rows; the first of them say which columns there are."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from pydantic import Field, model_validator

from ..errors import TaskFailed, near
from ..schema import Text, wrong
from . import arrow_types
from .base import BadValue, Query, Reader, Refused, Rows, Session
from .config import Source
from .types import Column, Schema, Type

if TYPE_CHECKING:
    import pyarrow

CHUNK_ROWS = 1000
"""So many rows of Python become one batch; the first of them say the types."""


class FunctionSource(Source):
    """A function that yields record batches, tables, frames of pandas or polars, or rows as dicts or tuples."""

    type: Literal["function"] = "function"
    module: Text = Field(min_length=1, description="The module of the function, dotted.")
    function: Text = Field(min_length=1, description="The function; it is called once and may be a generator.")
    folder: Text = Field(default=".", description="The folder of the code.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="What the function is called with, by name.")
    types: dict[str, Text] = Field(
        default_factory=dict,
        description="The types of rows that are dicts or tuples, e.g. `{amount: 'decimal(10,2)'}`.",
    )

    @model_validator(mode="after")
    def _known(self) -> FunctionSource:
        for name, spelling in self.types.items():
            try:
                arrow_types.named(spelling)
            except ValueError as error:
                raise wrong(f"the type of '{name}': {error}", at="types") from None
        return self

    def open(self, session: Session) -> Reader:
        return FunctionReader(self, session)


class FunctionReader(Reader):
    """Calls the function when its columns are asked for; what it yielded then is read later, so that it is called once."""

    dialect = "arrow"
    takes_sql = False
    reads_once = True

    def __init__(self, source: FunctionSource, session: Session) -> None:
        self._source = source
        self._session = session
        self._folder = Path(session.root, source.folder).resolve()
        self._paths: list[str] = []
        self._ready: Iterator[Any] | None = None
        self._types = {name: arrow_types.named(spelling) for name, spelling in source.types.items()}

    @property
    def _shown(self) -> str:
        return f"function '{self._source.function}' of module '{self._source.module}'"

    # -- the call

    def _yielded(self) -> Iterator[Any]:
        """What the function yields or returns, each as record batches."""
        found = self._called()
        items: Iterable[Any] = [found] if _is_one(found) else found
        rows: list[Any] = []
        try:
            for item in items:
                if isinstance(item, dict | tuple):
                    rows.append(item)
                    if len(rows) < CHUNK_ROWS:
                        continue
                elif not hasattr(item, "__arrow_c_stream__") and isinstance(item, list):
                    rows += item
                    if len(rows) < CHUNK_ROWS:
                        continue
                else:
                    if rows:
                        yield rows
                        rows = []
                    yield from self._batches_of(item)
                    continue
                yield rows
                rows = []
        except TaskFailed:
            raise
        except Exception as error:
            raise TaskFailed(f"{self._shown} failed: {self._told(error)}") from None
        if rows:
            yield rows

    def _called(self) -> Any:
        function = self._loaded()
        try:
            inspect.signature(function).bind(**self._source.arguments)
        except TypeError as error:
            raise Refused(f"{self._shown} cannot be called with `arguments`: {error}") from None
        except ValueError:
            pass  # a built-in does not tell what it takes
        try:
            found = function(**self._source.arguments)
            if inspect.isawaitable(found):
                import asyncio

                found = asyncio.run(_awaited(found))
        except Exception as error:
            raise TaskFailed(f"{self._shown} failed: {self._told(error)}") from None
        if inspect.isasyncgen(found):
            raise Refused(f"{self._shown} is an async generator; write a plain one")
        if found is None:
            raise Refused(f"{self._shown} gave nothing; return or yield rows, frames or record batches")
        if not _is_one(found) and not isinstance(found, Iterable):
            raise Refused(f"{self._shown} gave {_a(found)}; return or yield rows, frames or record batches")
        return found

    def _loaded(self) -> Callable[..., Any]:
        if not self._folder.is_dir():
            raise Refused(f"there is no folder '{self._source.folder}'; correct `folder`")
        if not self._paths:
            self._paths = [str(self._folder), str(self._folder.parent)]
            sys.path[:0] = self._paths
            importlib.invalidate_caches()
        try:
            module = self._module(self._source.module)
        except Exception as error:
            raise Refused(f"module '{self._source.module}' cannot be imported: {self._told(error)}") from None
        found: Any = module
        for part in self._source.function.split("."):
            found = getattr(found, part, None)
        if not callable(found):
            hint = near(self._source.function, [one for one in vars(module) if callable(getattr(module, one))])
            text = f"module '{self._source.module}' has no function '{self._source.function}'"
            raise Refused(f"{text}; {hint}" if hint.startswith("did") else text)
        called: Callable[..., Any] = found
        return called

    def _module(self, name: str) -> Any:
        """The module; `folder.module` is also found when `folder` has no __init__.py and the name of a known module."""
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            first, _, rest = name.partition(".")
            if not rest or first != self._folder.name or error.name not in (first, name):
                raise
            return importlib.import_module(rest)

    def _told(self, error: BaseException) -> str:
        """`ValueError: text (file.py:12)` for the deepest place in the user's code."""
        text = " ".join(traceback.format_exception_only(type(error), error)[-1].split())[:500]
        inside = [
            one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(f"{self._folder}/")
        ]
        return f"{text} ({Path(inside[-1].filename).relative_to(self._folder)}:{inside[-1].lineno})" if inside else text

    def _batches_of(self, item: Any) -> Iterator[Any]:
        """A frame, a table, a batch or a stream as record batches, an empty one where it has no rows."""
        pa = arrow_types.arrow()
        if isinstance(item, pa.RecordBatch):
            yield item
            return
        if isinstance(item, pa.Table):
            reader = item.to_reader()
        elif hasattr(item, "__arrow_c_stream__"):
            reader = pa.RecordBatchReader.from_stream(item)
        elif hasattr(item, "__arrow_c_array__"):
            yield pa.record_batch(item)
            return
        elif type(item).__module__.split(".")[0] == "pandas":
            reader = pa.Table.from_pandas(item, preserve_index=False).to_reader()
        else:
            raise BadValue(f"{self._shown} gave {_a(item)}; yield record batches, tables, frames, dicts or tuples")
        count = 0
        for batch in reader:
            count += 1
            yield batch
        if not count:
            yield pa.RecordBatch.from_pylist([], schema=reader.schema)

    # -- columns

    def describe(self, query: Query) -> Schema:
        if query.sql is not None or query.where or query.columns:
            raise Refused("a function takes no query; give it `arguments`, and no `query`")
        pieces = self._yielded()
        first = next(pieces, None)
        if first is None:
            found = Schema(tuple(Column(name, one) for name, one in self._types.items()))
            if not found.columns:
                raise Refused(
                    f"{self._shown} gave no rows and no columns; name them in `types`, or yield an empty table"
                )
        elif isinstance(first, list):
            found = self._of_rows(first)
        else:
            found = arrow_types.schema_of(first.schema)
            self._refuse_types(found)
        self._ready = chain([] if first is None else [first], pieces)
        return found

    def _refuse_types(self, found: Schema) -> None:
        if self._types:
            raise Refused(
                f"{self._shown} gives Arrow, whose columns have types ({', '.join(found.names)}); remove `types`"
            )

    def _of_rows(self, rows: list[Any]) -> Schema:
        """The columns of the first rows: their keys, and what `types` says or the values are."""
        names = list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))
        if not names:
            names = list(self._types)
            if len(names) != len(rows[0]):
                raise Refused(
                    f"{self._shown} gives tuples of {len(rows[0])} values; name all in `types` (named: {len(names)})"
                )
        odd = [one for one in names if not isinstance(one, str)]
        if odd:
            raise Refused(f"{self._shown} gives a dict with the key {odd[0]!r}, which is no name")
        names += [one for one in self._types if one not in names]
        tuples = [_in_order(row, names) for row in rows]
        return Schema(
            tuple(
                Column(name, self._types.get(name) or _type_of_values([row[n] for row in tuples], name))
                for n, name in enumerate(names)
            )
        )

    # -- rows

    def lanes(self) -> tuple[Any, ...]:
        return ("arrow", "rows")

    def rows(self, query: Query, schema: Schema) -> Iterator[Rows]:
        return arrow_types.rows_of(self.batches(query, schema), schema)

    def batches(self, query: Query, schema: Schema) -> Iterator[pyarrow.RecordBatch]:
        if self._ready is None:
            self.describe(query)
        ready, self._ready = self._ready, None
        assert ready is not None, "it was described"
        target = arrow_types.arrow_schema(schema)
        came: Any = None
        first = 1
        for piece in ready:
            if self._session.stop.is_set():
                return
            if isinstance(piece, list):
                rows = [self._row(one, schema, first + n) for n, one in enumerate(piece)]
                yield from arrow_types.batches_of([rows], schema, target=target, first=first)
                first += len(rows)
                continue
            came = came or piece.schema
            self._refuse_change(came, piece.schema, schema, first)
            yield arrow_types.conformed(piece, schema, target, first)
            first += piece.num_rows

    def _row(self, row: Any, schema: Schema, number: int) -> tuple[Any, ...]:
        if isinstance(row, dict):
            odd = [one for one in row if one not in schema]
            if odd:
                raise BadValue(
                    f"row {number} has the key {odd[0]!r}, which the first rows do not have; name it in `types`"
                )
        elif not isinstance(row, tuple) or len(row) != len(schema.columns):
            has = f"{len(row)} values" if isinstance(row, tuple) else _a(row)
            raise BadValue(f"row {number} is {has}; the first rows have {len(schema.columns)} columns")
        return tuple(
            _plain(value, column) for value, column in zip(_in_order(row, schema.names), schema.columns, strict=True)
        )

    def _refuse_change(self, first_schema: Any, found: Any, schema: Schema, row: int) -> None:
        if tuple(found.names) != schema.names:
            raise BadValue(
                f"{self._shown} gives other columns from row {row} on: {', '.join(found.names)}; "
                f"the first ones are {', '.join(schema.names)}"
            )
        for name, before, now in zip(found.names, first_schema.types, found.types, strict=True):
            if before != now:
                raise BadValue(
                    f"column '{name}', row {row}: {self._shown} gives {now} from here on, and gave {before} before"
                )

    def close(self) -> None:
        self._ready = None
        for one in self._paths:
            with contextlib.suppress(ValueError):
                sys.path.remove(one)
        if self._paths:
            _forget(self._folder)
        self._paths = []


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _forget(folder: Path) -> None:
    """Drop the modules of the folder, so that another folder may have ones of the same names."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if file.startswith(f"{folder}/") and "/site-packages/" not in file and not name.startswith("rainbow_prefect"):
            del sys.modules[name]


def _is_one(found: Any) -> bool:
    """Whether it is one frame or table, not several."""
    is_arrow = hasattr(found, "__arrow_c_stream__") or hasattr(found, "__arrow_c_array__")
    return is_arrow or isinstance(found, dict) or type(found).__module__.split(".")[0] == "pandas"


def _a(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _in_order(row: Any, names: Iterable[str]) -> tuple[Any, ...]:
    return tuple(row.get(one) for one in names) if isinstance(row, dict) else tuple(row)


_TYPES: dict[type, Type] = {
    bool: Type("bool"),
    int: Type("int", bits=64),
    float: Type("float", bits=64),
    Decimal: Type("decimal"),
    str: Type("text"),
    bytes: Type("bytes"),
    date: Type("date"),
    time: Type("time"),
    timedelta: Type("interval"),
    UUID: Type("uuid"),
    dict: Type("json"),
    list: Type("json"),
}


def _type_of_values(values: Iterable[Any], name: str) -> Type:
    """The one type of Python that the values have; text when there are none."""
    kinds: set[Type] = set()
    for value in values:
        if value is None:
            continue
        if isinstance(value, datetime):
            kinds.add(Type("timestamptz" if value.tzinfo else "timestamp"))
        elif type(value) in _TYPES:
            kinds.add(_TYPES[type(value)])
        else:
            raise BadValue(f"column '{name}' has {_a(value)}; give numbers, text, bytes, dates, lists or dicts")
    if len(kinds) > 1:
        shown = " and ".join(sorted(map(str, kinds)))
        raise BadValue(f"column '{name}' has {shown} in the first rows; name its type in `types`")
    found = next(iter(kinds)) if kinds else Type("text")
    return replace(found, dialect="arrow")


def _plain(value: Any, column: Column) -> Any:
    """A value as rows have it."""
    if column.type.kind == "json" and isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=arrow_types.text_of)
    return value
