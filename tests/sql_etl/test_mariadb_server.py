"""The script and the fixtures that give the tests a real MariaDB."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pymysql
from sqlalchemy import make_url

from tests.conftest import ROOT

from .test_servers import is_gone


def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [ROOT / "scripts" / "mariadb.sh", *args]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=900)


def ask(url: str, sql: str) -> list[tuple[object, ...]]:
    parts = make_url(url)
    with (
        pymysql.connect(host=parts.host, port=parts.port or 0, user="root", database=parts.database) as client,
        client.cursor() as cursor,
    ):
        cursor.execute(sql)
        return list(cursor.fetchall())


def test_each_test_has_an_empty_database(mariadb: str, other_mariadb: str) -> None:
    ask(mariadb, "create table t (a int)")

    assert [len(ask(one, "show tables")) for one in (mariadb, other_mariadb)] == [1, 0]
    assert ask(mariadb, "select @@character_set_database, @@local_infile") == [("utf8mb4", 1)]


def test_two_callers_get_one_server_that_stop_ends(mariadb_server: str, tmp_path: Path) -> None:
    command = [ROOT / "scripts" / "mariadb.sh", "start", tmp_path]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) for _ in range(2)]
    said = [one.communicate(timeout=900)[0] for one in both]
    try:
        assert ask(said[0].strip(), "select 1") == [(1,)]
        pid = int((tmp_path / "pid").read_text())
    finally:
        stopped = run("stop", tmp_path)

    assert said[0] == said[1] == f"mysql+pymysql://root@127.0.0.1:{make_url(said[0].strip()).port}/\n"
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (0, "", "")
    assert is_gone(pid)


def test_server_ends_with_the_process_it_is_for(mariadb_server: str, tmp_path: Path) -> None:
    owner = subprocess.Popen(["sleep", "600"])
    try:
        assert run("start", tmp_path, str(owner.pid)).returncode == 0
        pid = int((tmp_path / "pid").read_text())
        owner.kill()
        owner.wait()

        assert is_gone(pid)
    finally:
        owner.kill()
        owner.wait()
        run("stop", tmp_path)


def test_stop_without_a_server_is_quiet(tmp_path: Path) -> None:
    done = run("stop", tmp_path / "none")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_usage(tmp_path: Path) -> None:
    done = run("begin", tmp_path)

    assert (done.returncode, done.stderr) == (2, "usage: scripts/mariadb.sh start|stop DIR [PID]\n")
