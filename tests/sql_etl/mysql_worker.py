"""One load in a process of its own, for tests that kill it: `python -m tests.sql_etl.mysql_worker URL JSON`."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from sqlalchemy.engine import make_url

from rainbow_prefect.sql_etl.base import Counts, Job, Query, Session
from rainbow_prefect.sql_etl.mysql_reader import MysqlReader
from rainbow_prefect.sql_etl.mysql_writer import MysqlWriter

from .mysql_tools import Settings


def work(url: str, given: dict[str, Any]) -> str:
    """`loaded`, or `skipped` when it was loaded before."""
    query = Query(table=(None, "source"))
    source = MysqlReader(make_url(url), Session(), Settings())
    sink = MysqlWriter(make_url(url), Session(), Settings(connect_args={"local_infile": given.get("is_fast", True)}))
    try:
        came = source.describe(query)
        more = {name: tuple(one) if isinstance(one, list) else one for name, one in given["more"].items()}
        job = Job("crash", given["run_key"], (None, "t"), given["mode"], came, **more)
        existing = sink.describe(job.table)
        print("ready", flush=True)
        if not sink.begin(job, existing):
            return "skipped"
        read = sink.write_chunks(source.chunks(query, came, "pg_text"), "pg_text")
        assert read == source.count
        sink.commit(sink.finish(Counts(read=read)))
    finally:
        sink.close()
        source.close()
    if given.get("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    return "loaded"


if __name__ == "__main__":
    print(work(sys.argv[1], json.loads(sys.argv[2])), flush=True)
