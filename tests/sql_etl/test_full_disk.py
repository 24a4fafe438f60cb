"""A disk that becomes full in the middle of a load: an error in words, the sink as it was, and the next try works."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `source.db`: a table of 10 rows, and one of some ten megabytes."""
    db = sqlite3.connect(tmp_path / "source.db")
    for table, count in (("few", 10), ("many", 6000)):
        db.execute(f"create table {table} (id integer, note text)")
        notes = ((one, f"{one * 7919 % 10007:05d}" * 360) for one in range(count))
        db.executemany(f"insert into {table} values (?, ?)", notes)
    db.commit()
    db.close()
    return tmp_path


@pytest.mark.parametrize(("kind", "mode"), [("sqlite", "append"), ("duckdb", "replace"), ("csv", "append")])
def test_a_full_disk_leaves_the_sink_as_it_was(folder: Path, kind: str, mode: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.sql_etl.full_worker", str(folder), mode, kind],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )

    assert ran.returncode == 0, ran.stderr
    first, failed, there, again = ran.stdout.splitlines()
    assert first == "10 rows"
    assert "Traceback" not in ran.stderr
    assert failed.split(":")[0] in ("Passing", "TaskFailed", "Refused"), failed
    assert there == "10"
    assert again == "10 rows"
