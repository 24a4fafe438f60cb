"""Whole loads in processes of their own, for tests that kill them: `python -m tests.sql_etl.chaos_worker`.

It takes a line of JSON for each load and forks, since the imports take longer than the load. It says the process id, then how it
ended: `ended 0` loaded, `ended 3` skipped, `ended 4 TEXT` not loaded, `ended -9` killed.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from rainbow_prefect.errors import TaskFailed
from rainbow_prefect.sql_etl.base import Query, Session
from rainbow_prefect.sql_etl.config import Sink
from rainbow_prefect.sql_etl.files import FilesSink
from rainbow_prefect.sql_etl.move import Order, move
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink, SqlSource


def sink_of(where: str) -> Sink:
    """A database by its URL, or Parquet files in a folder, by day."""
    if "://" in where:
        return SqlSink(url=where)
    return FilesSink(type="files", path=where, format="parquet", partition_by=("day",))


def load(given: dict[str, Any]) -> int:
    order = Order(
        "chaos",
        given["run_key"],
        Query(table=(None, given["source_table"])),
        (None, given["table"]),
        given["mode"],
        keys=tuple(given["keys"]),
        engine=given.get("engine", "auto"),
    )
    session = Session("rainbow chaos", Path("/"), say=lambda text: None)
    try:
        moved = move(order, SqlSource(url=given["source"]), sink_of(given["sink"]), session)
    except TaskFailed as error:
        os.write(1, f"failed {error.message}\n".encode())
        return 4
    except BaseException:
        os.write(1, f"failed {' | '.join(traceback.format_exc().splitlines())}\n".encode())
        return 5
    return 3 if moved.skipped else 0


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(load(json.loads(line)))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(f"ended {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
