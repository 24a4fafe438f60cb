"""A load onto a disk that is too small: `python -m tests.sql_etl.full_worker FOLDER MODE`, one line for each kind of sink.

The disk is a tmpfs of 3 MB; where nobody may mount one, files may not become larger than that.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from rainbow_prefect.errors import TaskFailed
from rainbow_prefect.sql_etl.base import Query, Session
from rainbow_prefect.sql_etl.config import Sink
from rainbow_prefect.sql_etl.files import FilesSink
from rainbow_prefect.sql_etl.move import Order, move
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink, SqlSource

_BYTES = 3 << 20


def sinks(folder: Path) -> dict[str, Sink]:
    return {
        "sqlite": SqlSink(url=f"sqlite:///{folder}/s.db"),
        "duckdb": SqlSink(url=f"duckdb:///{folder}/d.db"),
        "csv": FilesSink(type="files", path=str(folder / "csv"), format="csv"),
    }


def made(source: SqlSource, sink: Sink, table: str, mode: Any, run_key: str) -> str:
    order = Order("full", run_key, Query(table=(None, table)), (None, "t"), mode)
    try:
        moved = move(order, source, sink, Session("test", Path("/")))
    except TaskFailed as error:
        return f"{type(error).__name__}: {' '.join(error.message.split())}"
    return f"{moved.counts.written} rows"


def rows(sink: Sink) -> int:
    reader = sink.as_source().open(Session("test", Path("/")))
    try:
        query = Query(table=(None, "t"))
        return sum(map(len, reader.rows(query, reader.describe(query))))
    finally:
        reader.close()


def main() -> None:
    folder, mode, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_BYTES}", "tmpfs", str(disk)], check=False, capture_output=True
    )
    try:
        source = SqlSource(url=f"sqlite:///{folder}/source.db")
        sink = sinks(disk)[kind]
        print(made(source, sink, "few", "replace", "1"))
        if mounted.returncode:
            resource.setrlimit(resource.RLIMIT_FSIZE, (_BYTES, _BYTES))
        print(made(source, sink, "many", mode, "2"))
        print(rows(sink))
        print(made(source, sink, "few", mode, "2"))
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", "-l", str(disk)], check=False)


if __name__ == "__main__":
    main()
