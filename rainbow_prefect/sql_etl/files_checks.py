"""The rows of a load into files, for checks: kept by DuckDB beside them until the manifest is written."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra
from .duckdb import asked, quoted, told
from .ledger import NAME as LEDGER
from .manifest import Load

if TYPE_CHECKING:
    import pyarrow

STAGE = "_rainbow_stage"
_BATCH = "_rainbow_batch"
_LAST_LOADS = 1000


class AskedRows:
    """Those columns of the rows that checks ask of; what does not fit into memory goes into a folder."""

    def __init__(self, names: Sequence[str], schema: pyarrow.Schema) -> None:
        try:
            import duckdb
        except ImportError:
            raise MissingExtra("checks of files", "duckdb") from None
        self._names = list(names)
        self._folder = tempfile.mkdtemp(prefix="rainbow-checks-")
        try:
            config: dict[str, Any] = {
                "autoinstall_known_extensions": "false",
                "enable_external_access": "false",
                "temp_directory": self._folder,
            }
            self._connection = duckdb.connect(":memory:", config=config)
            self._connection.execute("SET TimeZone = 'UTC'")
            self._connection.execute("SET python_enable_replacements = false")
            self._put("CREATE TABLE", "AS", schema.empty_table().select(self._names))
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def take(self, batch: pyarrow.RecordBatch) -> None:
        """More rows."""
        import pyarrow

        self._put("INSERT INTO", "", pyarrow.Table.from_batches([batch]).select(self._names))

    def _put(self, verb: str, as_: str, rows: Any) -> None:
        import duckdb

        try:
            self._connection.register(_BATCH, rows)
            self._connection.execute(f"{verb} {STAGE} {as_} SELECT * FROM {_BATCH}")
            self._connection.unregister(_BATCH)
        except duckdb.Error as error:
            raise told(error, "the checks cannot see the rows") from None

    def remember(self, schema: str | None, loads: Sequence[Load]) -> None:
        """The last loads, as the ledger of a database has them."""
        if schema is not None:
            self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
        table = quoted(schema, LEDGER)
        self._connection.execute(
            f"CREATE TABLE {table} (job VARCHAR, part VARCHAR, number BIGINT, rows_read BIGINT, committed VARCHAR)"
        )
        rows = [[one.job, one.part, one.number, one.rows, one.committed] for one in loads[-_LAST_LOADS:]]
        if rows:
            self._connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?)", rows)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """What a check asks."""
        return asked(self._connection, sql, "the check cannot be done")

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)
