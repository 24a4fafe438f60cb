"""The scripts and fixtures that give the tests real database servers."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from tests.conftest import ROOT


def run(*args: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [ROOT / "scripts" / "postgres.sh", *args]
    return subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=900)


def is_gone(pid: int, *, within: float = 60) -> bool:
    """Whether the process ends in time; one that nobody asks after any more has no command line."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/cmdline").read_bytes():
                time.sleep(0.1)
                continue
        return True
    return False


def test_each_test_has_an_empty_database(postgres: str, other_postgres: str) -> None:
    with psycopg.connect(postgres) as one, psycopg.connect(other_postgres) as two:
        one.execute("create table t ()")
        one.commit()

        tables = [
            c.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone() for c in (one, two)
        ]
        encoding = one.execute("show server_encoding").fetchone()

    assert (tables, encoding) == ([(1,), (0,)], ("UTF8",))


def test_two_callers_get_one_server_that_stop_ends(postgres_server: str, tmp_path: Path) -> None:
    command = [ROOT / "scripts" / "postgres.sh", "start", tmp_path]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) for _ in range(2)]
    said = [one.communicate(timeout=900)[0] for one in both]
    place = Path((tmp_path / "place").read_text().strip())
    try:
        with psycopg.connect(said[0].strip()) as client:
            assert client.execute("select 1").fetchone() == (1,)
        pid = int((place / "data" / "postmaster.pid").read_text().split()[0])
    finally:
        stopped = run("stop", tmp_path)

    assert said[0] == said[1] == run_url(said[0])
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (0, "", "")
    assert is_gone(pid)
    assert not place.exists()


def run_url(text: str) -> str:
    """The text when it is one URL on loopback in one line, else nothing."""
    return text if text.startswith("postgresql://postgres:") and "@127.0.0.1:" in text and text.count("\n") == 1 else ""


def test_server_ends_with_the_process_it_is_for(postgres_server: str, tmp_path: Path) -> None:
    owner = subprocess.Popen(["sleep", "600"])
    try:
        assert run("start", tmp_path, str(owner.pid)).returncode == 0
        place = Path((tmp_path / "place").read_text().strip())
        pid = int((place / "data" / "postmaster.pid").read_text().split()[0])
        owner.kill()
        owner.wait()

        assert is_gone(pid)
    finally:
        owner.kill()
        owner.wait()
        run("stop", tmp_path)


def test_url_of_nobody_is_refused(postgres: str) -> None:
    wrong = re.sub(":[^:@]+@", ":wrong@", postgres)

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_stop_without_a_server_is_quiet(tmp_path: Path) -> None:
    done = run("stop", tmp_path / "none")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_usage(tmp_path: Path) -> None:
    done = run("begin", tmp_path)

    assert (done.returncode, done.stderr) == (2, "usage: scripts/postgres.sh start|stop DIR [PID]\n")
