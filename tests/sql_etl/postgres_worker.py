"""Loads in processes of their own, for tests that kill them: `python -m tests.sql_etl.postgres_worker`.

It takes a line of JSON for each load and forks, since the imports take longer than the load. It says the process id, then
`ready`, then `loaded` or `skipped` unless it was killed, then how it ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

from rainbow_prefect.sql_etl.base import Counts, Job, Session
from rainbow_prefect.sql_etl.postgres_types import table_schema
from rainbow_prefect.sql_etl.postgres_writer import PostgresWriter


class Settings:
    schema_name = None
    lock_timeout_seconds = 120.0
    statement_timeout_seconds = None
    connect_args: dict[str, Any] = {}


def load(url: str, given: dict[str, Any]) -> str:
    """`loaded`, or `skipped` when it was loaded before."""
    with psycopg.connect(url) as source:
        schema = table_schema(source, "public", "source")
    assert schema is not None
    job = Job("crash", given["run_key"], (None, "t"), given["mode"], schema, **given["more"])
    writer = PostgresWriter(make_url(url), Session(), Settings())
    try:
        existing = writer.describe(job.table)
        print("ready", flush=True)
        if not writer.begin(job, existing):
            return "skipped"
        read = writer.write_chunks(chunks(url), "pg_binary")
        writer.commit(writer.finish(Counts(read=read)))
    finally:
        writer.close()
    if given.get("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    return "loaded"


def chunks(url: str) -> Iterator[bytes]:
    with psycopg.connect(url) as source, source.cursor().copy(b"copy source to stdout (format binary)") as copy:
        for one in copy:
            yield bytes(one)


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            given = json.loads(line)
            print(load(given["url"], given), flush=True)
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(f"ended {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
