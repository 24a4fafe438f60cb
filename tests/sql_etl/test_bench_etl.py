"""A case of `make bench-etl` runs; the bars are measured by the command itself."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import psycopg
import pyarrow.parquet
import pytest

from benchmarks.cases import Bench
from benchmarks.etl import Etl
from benchmarks.etl_server import Server


@pytest.mark.slow
def test_a_case_runs_in_small(postgres: str, prefect_server: str, tmp_path: Path) -> None:
    with psycopg.connect(postgres) as asked:
        found = asked.execute("select pg_read_file('postmaster.pid')").fetchone()
    assert found is not None
    server = Server(postgres, psutil.Process(int(found[0].split()[0])))
    env = {**os.environ, "PREFECT_API_URL": prefect_server, "HOME": str(tmp_path)}
    etl = Etl(Bench(tmp_path, env, repeats=1), server, rows=2000)

    rows = etl.parquet()

    files = list((tmp_path / "files" / "lake" / "parquet").rglob("*.parquet"))
    assert sum(pyarrow.parquet.read_metadata(one).num_rows for one in files) == 2000
    assert [one.what for one in rows] == ["PostgreSQL to Parquet, 2,000 rows", "told only: its CPU", "its memory"]
    assert all(one.ours > 0 for one in rows)
    assert rows[2].is_met
