"""Files and functions through DuckDB in memory: SQL for sources that have none; their rows come in as Arrow."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra
from . import arrow_types
from .base import Query, Reader, Refused, Session
from .duckdb import asked, quoted
from .duckdb_reader import DuckReader
from .types import Column, Schema, Type

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

    from .move import Order

_EXTENSIONS = {
    "postgresql": "postgres_scanner",
    "sqlite": "sqlite_scanner",
    "mysql": "mysql_scanner",
    "mariadb": "mysql_scanner",
}
_MOST_DIGITS = 38


def around(reader: Reader, order: Order, session: Session) -> Reader:
    """The open source itself, or DuckDB around it, where it takes no SQL and the order wants some.

    Raises:
        Refused: `engine: duckdb` cannot read this source.
    """
    if reader.takes_sql:
        if order.engine == "duckdb" and reader.dialect != "duckdb":
            raise Refused(_refused(reader.dialect))
        return reader
    wants = _wanted(order)
    if not wants and order.engine != "duckdb":
        return reader
    if order.incremental is not None and reader.reads_once:
        raise Refused(
            "a function has no `incremental`, since it is called once; give it `arguments` that say what is new"
        )
    reader.through = f"DuckDB, for {', '.join(wants)}" if wants else "DuckDB, as `engine` says"
    return ThroughReader(reader, order.query, session, order.incremental.cursor if order.incremental else None)


def _refused(dialect: str) -> str:
    extension = _EXTENSIONS.get(dialect)
    why = f"without its extension {extension}, which is not built in" if extension else "at all"
    return f"`engine: duckdb` cannot be used here: DuckDB does not read {dialect} {why}; write `engine: auto`"


def _wanted(order: Order) -> list[str]:
    """What of an order only SQL can do, as its keys."""
    shape = order.quality.shape
    asks: dict[str, Any] = {"query": order.query.sql, "incremental": order.incremental}
    if shape is not None:
        asks |= {key: getattr(shape, key) for key in ("filter", "sample", "dedupe", "columns", "cast", "mask")}
    return [f"`{key}`" for key, value in asks.items() if value]


@dataclass(frozen=True)
class _Stream:
    """A table for DuckDB: read anew each time that it is scanned."""

    schema: Any
    read: Callable[[], Iterator[Any]]

    def __arrow_c_schema__(self) -> Any:
        return self.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        made = arrow_types.arrow().RecordBatchReader.from_batches(self.schema, self.read())
        return made.__arrow_c_stream__()


class ThroughReader(DuckReader):
    """DuckDB in memory, whose tables are those of an open source that takes no SQL; `base` is what the order reads of it."""

    def __init__(self, inner: Reader, base: Query, session: Session, cursor: str | None = None) -> None:
        self._inner, self._base, self._session, self._cursor = inner, base, session, cursor
        self._given: dict[tuple[str | None, str], Schema] = {}
        self._error: BaseException | None = None
        self._folder = tempfile.mkdtemp(prefix="rainbow-duckdb-")
        try:
            self._connection = _opened(self._folder)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self.through = inner.through

    # -- tables

    def _relation(self, query: Query) -> DuckDBPyRelation:
        if query.table is not None:
            self._give(query.table)
        else:
            self._give_all(query.sql or "")
        return super()._relation(query)

    def value(self, sql: str) -> Any:
        self._give_all(sql)
        with self._telling():
            return super().value(sql)

    def _give_all(self, sql: str) -> None:
        """Make the tables that a statement names; what is wrong with it, it tells itself."""
        text = self._connection.execute("SELECT json_serialize_sql(CAST(? AS VARCHAR))", [sql]).fetchall()[0][0]
        tables, own = _named(json.loads(text))
        for table in tables:
            with contextlib.suppress(*((Refused,) if table in own else ())):
                self._give(table)

    def _give(self, table: tuple[str | None, str]) -> None:
        if table in self._given:
            return
        if self._inner.reads_once and self._given:
            raise Refused("a function gives one table, and the query names several; read them in several tasks")
        query = Query(table=table)
        schema = self._inner.describe(query)
        for one in schema.columns:
            _refuse_type(one)
        target = arrow_types.arrow_schema(schema)
        name = f"_rainbow_source_{len(self._given)}"
        self._connection.register(name, _Stream(target, lambda: self._read(query, schema)))
        if table[0] is not None:
            asked(self._connection, f"CREATE SCHEMA IF NOT EXISTS {quoted(table[0])}", "the source cannot be read")
        asked(
            self._connection,
            f"CREATE VIEW {quoted(*table)} AS SELECT * FROM {quoted(name)}",
            "the source cannot be read",
        )
        self._given[table] = schema

    def _read(self, query: Query, schema: Schema) -> Iterator[Any]:
        """The batches of the source; DuckDB would tell their error as one of its own."""
        try:
            if "arrow" in self._inner.lanes():
                yield from self._inner.batches(query, schema)
            else:
                yield from arrow_types.batches_of(self._inner.rows(query, schema), schema)
        except BaseException as error:
            self._error = error
            raise

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """An error of the source as it was raised there."""
        try:
            yield
        except Exception:
            if self._error is None:
                raise
            error, self._error = self._error, None
            raise error from None

    # -- columns and rows

    def describe(self, query: Query) -> Schema:
        found = super().describe(query)
        if self._base.table is None:
            return found
        own = self._given[self._base.table]
        named = dict(query.columns) or {one: quoted(one) for one in found.names}
        if self._cursor is not None and self._cursor in own and own[self._cursor].type.dialect in ("csv", "jsonl"):
            raise Refused(
                f"the cursor '{self._cursor}' is text, whose order is not that of numbers; say its type in `types` of the source"
            )
        known = {quoted(one.name): one for one in own.columns}
        return replace(
            found,
            columns=tuple(
                replace(known[named[one.name]], name=one.name) if named[one.name] in known else one
                for one in found.columns
            ),
        )

    def _facts(self, query: Query) -> tuple[dict[str, str], tuple[str, ...], set[str]]:
        return {}, (), set()

    def _batches(self, query: Query, schema: Schema) -> Iterator[Any]:
        with self._telling():
            yield from super()._batches(query, schema)

    def cancel(self) -> None:
        self._inner.cancel()
        super().cancel()

    def close(self) -> None:
        super().close()
        self._inner.close()
        shutil.rmtree(self._folder, ignore_errors=True)


Tables = dict[tuple[str | None, str], None]
"""Names of tables, in order."""


def _named(found: Any) -> tuple[Tables, Tables]:
    """The tables that a statement names, of which some are made by its own WITH; from what json_serialize_sql gives."""
    tables: Tables = {}
    own: Tables = {}
    rest = [found]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            if one.get("type") == "BASE_TABLE":
                tables[one.get("schema_name") or None, one["table_name"]] = None
            own |= {(None, each["key"]): None for each in (one.get("cte_map") or {}).get("map", ())}
            rest += one.values()
        elif isinstance(one, list):
            rest += one
    return tables, own


def _opened(folder: str) -> DuckDBPyConnection:
    """DuckDB in memory, which reads no files by itself; what does not fit there goes into a folder."""
    try:
        import duckdb
        import pyarrow  # noqa: F401  all rows of DuckDB pass through Arrow
    except ImportError:
        raise MissingExtra("SQL over files and functions", "duckdb") from None
    config: dict[str, Any] = {
        "autoinstall_known_extensions": "false",
        "enable_external_access": "false",
        "temp_directory": folder,
    }
    made = duckdb.connect(":memory:", config=config)
    made.execute("SET TimeZone = 'UTC'")
    made.execute("SET python_enable_replacements = false")  # else any variable of ours might be a table
    return made


def _refuse_type(column: Column) -> None:
    """What DuckDB would cut when it reads it from Arrow.

    Raises:
        Refused: such a column.
    """
    one = column.type
    while one.kind == "array" and one.item is not None:
        one = one.item
    if _is_cut(one):
        raise Refused(
            f"column '{column.name}' is {column.type}, which DuckDB cannot hold exactly; leave out "
            "what is done to the rows on the way, or write them into a database first"
        )


def _is_cut(one: Type) -> bool:
    match one.kind:
        case "decimal":
            scale = one.scale or 0
            return one.precision is not None and max(one.precision - min(scale, 0), scale) > _MOST_DIGITS
        case "time" | "timestamptz":
            return (one.precision or 0) > 6
        case _:
            return one.kind == "interval"
