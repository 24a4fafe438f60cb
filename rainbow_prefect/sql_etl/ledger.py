"""The table in a sink that knows which part of which run was loaded: the same for every database."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Table

NAME = "_rainbow_etl_ledger"
"""It stands in the schema of the table that is loaded."""


@lru_cache(maxsize=64)
def ledger(schema: str | None) -> Table:
    """The ledger of a schema.

    Shape: one row for each part that was loaded. A row is inserted first thing in the transaction of the load: its key
    makes a second worker wait, then skip. `number` counts the loads of a job. `state` is JSON, e.g. the cursor:
    the row of a job with a state and the highest number is where an incremental load goes on. `begun` and `committed`
    are UTC as ISO text; `committed` is written last.
    """
    from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, Text

    return Table(
        NAME,
        MetaData(),
        Column("job", String(255), primary_key=True),
        Column("run_key", String(100), primary_key=True),
        Column("part", String(200), primary_key=True),
        Column("number", BigInteger, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("mode", String(20), nullable=False),
        Column("target", String(255), nullable=False),
        Column("rows_read", BigInteger),
        Column("rows_written", BigInteger),
        Column("state", Text),
        Column("begun", String(32), nullable=False),
        Column("committed", String(32)),
        schema=schema,
    )
