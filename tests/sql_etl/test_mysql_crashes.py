"""Loads into MariaDB that are killed, cut off, blocked or done twice at once: exactly once, or the table as it was."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest
from sqlalchemy.engine import make_url

from rainbow_prefect.errors import Cancelled, TaskFailed
from rainbow_prefect.sql_etl.base import Counts, Passing, Refused, Session
from rainbow_prefect.sql_etl.mysql_writer import MysqlWriter
from rainbow_prefect.sql_etl.types import Schema
from tests.conftest import ROOT

from .mysql_tools import Admin, Settings, admin, job, load, schema, writer

KILLS = int(os.environ.get("RAINBOW_ETL_KILLS", "4"))
"""Of each way to load; there are five."""

ROWS = 20_000
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "append": ("append", {}),
    "upsert": ("upsert", {"keys": ["id"]}),
    "delete_insert": ("delete_insert", {"where": [f"id > {ROWS // 2}"]}),
    "swap": ("replace", {"options": {"replace_strategy": "swap"}}),
    "truncate": ("replace", {"options": {"replace_strategy": "truncate"}}),
}
AFTER = {
    "append": "select * from t0 union all select * from source",
    "upsert": "select * from source union all select * from t0 where id not in (select id from source)",
    "delete_insert": f"select * from source union all select * from t0 where id <= {ROWS // 2}",
    "swap": "select * from source",
    "truncate": "select * from source",
}
KEYED = schema(id="int", a="text")


class Place:
    """A table `t` with the rows 1 to 20,000, and a `source` with other rows of these keys, and with new ones."""

    def __init__(self, url: str, db: Admin, way: str) -> None:
        self.url, self.db, self.way = url, db, way
        self.mode, self.more = WAYS[way]
        db.run("create table t0 (id int, x varchar(40), y decimal(20,6))")
        db.run("create table source like t0")
        db.run(f"insert into t0 select seq, concat('old ', seq), seq / 7 from seq_1_to_{ROWS}")
        db.run(
            f"insert into source select seq, concat('new ', seq), seq / 3 from seq_{ROWS // 2 + 1}_to_{ROWS * 3 // 2}"
        )
        db.run("create table t like t0")
        db.run(f"alter table t add {'key' if way == 'append' else 'primary key'} (id)")
        self.reset()
        self.before = self.checksum()
        self.after = self.checksum(f"({AFTER[way]})")

    def reset(self) -> None:
        self.db.run("delete from t")
        self.db.run("insert into t select * from t0")
        self.db.run("drop table if exists _rainbow_etl_ledger")

    def checksum(self, table: str = "t") -> tuple[Any, ...]:
        return self.db.run(f"select count(*), sum(id), bit_xor(cast(conv(left(md5(concat_ws('|', id, x, y)), 15), 16, 10) as unsigned)) from {table} as z")[0]  # fmt: skip

    def worker(self, **more: Any) -> subprocess.Popen[str]:
        given = {"run_key": "r1", "mode": self.mode, "more": self.more, **more}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.sql_etl.mysql_worker", self.url, json.dumps(given)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def finished(self, **more: Any) -> str:
        out, err = self.worker(**more).communicate(timeout=200)
        assert out, err
        return out.split()[-1]


@pytest.fixture
def db(mariadb: str) -> Iterator[Admin]:
    with admin(mariadb) as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", WAYS)
def test_worker_that_is_killed_and_its_retry_load_once(mariadb: str, db: Admin, way: str) -> None:
    place = Place(mariadb, db, way)
    chance = random.Random(f"crash {way}")
    worker = place.worker(run_key="r0")
    assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    begun = time.monotonic()
    assert worker.communicate(timeout=200)[0].split() == ["loaded"]
    took = time.monotonic() - begun

    for _ in range(KILLS):
        place.reset()
        worker = place.worker()
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, took))
        worker.kill()
        worker.communicate()

        assert place.finished() in ("loaded", "skipped")
        assert place.checksum() == place.after
        assert place.finished() == "skipped"
        assert place.checksum() == place.after
        assert db.tables() == {"t", "t0", "source"}


@pytest.mark.parametrize("way", WAYS)
def test_worker_that_is_killed_right_after_the_commit_is_not_repeated(mariadb: str, db: Admin, way: str) -> None:
    place = Place(mariadb, db, way)
    worker = place.worker(dies=True)
    assert worker.communicate(timeout=200)[0] == "ready\n"

    assert worker.returncode == -9
    assert place.checksum() == place.after
    assert place.finished() == "skipped"
    assert place.checksum() == place.after


@pytest.mark.parametrize("way", WAYS)
def test_two_live_workers_load_once(mariadb: str, db: Admin, way: str) -> None:
    place = Place(mariadb, db, way)
    workers = [place.worker(), place.worker()]
    said = sorted(one.communicate(timeout=200)[0].split()[-1] for one in workers)

    assert said == ["loaded", "skipped"]
    assert place.checksum() == place.after


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_several_parts_at_once_all_land(mariadb: str, db: Admin, mode: str) -> None:
    begun, ended = threading.Barrier(5), []

    def one(part: int) -> None:
        begun.wait()
        rows = [(at, f"p{part}") for at in range(part, 5000, 5)]
        given = job(mode, KEYED, part=str(part), keys=("id",) if mode == "upsert" else ())
        for _ in range(10):
            with contextlib.suppress(Passing):  # as `move` does
                ended.append(load(mariadb, given, rows))
                return

    threads = [threading.Thread(target=one, args=[part]) for part in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)

    assert [one.written for one in ended if one is not None] == [1000] * 5
    assert db.one("select count(distinct id) from t") == db.one("select count(*) from t") == 5000
    assert db.one("select count(*) from _rainbow_etl_ledger where committed is not null") == 5


@pytest.mark.parametrize("when", ["begun", "written", "finished"])
def test_connection_that_is_killed_leaves_the_table_as_it_was(mariadb: str, db: Admin, when: str) -> None:
    load(mariadb, job("append", KEYED, run="r0"), [(1, "a")])
    db.run("alter table t add primary key (id)")
    given = job("upsert", KEYED, keys=("id",))

    with pytest.raises(Passing) as error, writer(mariadb) as sink:

        def cut() -> None:
            db.run("kill connection %s", [sink._link.id])

        assert sink.begin(given, sink.describe(given.table))
        if when == "begun":
            cut()
        sink.write_rows(iter([[(1, "b"), (2, "c")]]))
        if when == "written":
            cut()
        counts = sink.finish(Counts(read=2))
        if when == "finished":
            cut()
        sink.commit(counts)

    assert str(error.value).startswith("table 't': ") or str(error.value).startswith("the sink: ")
    assert db.run("select * from t") == [(1, "a")]
    counted = load(mariadb, given, [(1, "b"), (2, "c")])
    assert counted is not None and counted.written == 2


class CutAtCommit(MysqlWriter):
    """One whose connection is lost as it commits, before the server has done it or after."""

    is_done = True

    def _committed(self, job: Any) -> None:
        link = self._link
        said = link.do

        def do(sql: str, *args: Any, **more: Any) -> int:
            if sql != "COMMIT":
                return said(sql, *args, **more)
            if self.is_done:
                said(sql)
            link.connection._force_close()
            return said(sql, *args, **more)

        link.do = do  # type: ignore[method-assign]
        super()._committed(job)


@pytest.mark.parametrize("is_done", [True, False])
def test_commit_whose_answer_is_lost_is_looked_up(mariadb: str, db: Admin, is_done: bool) -> None:
    sink = CutAtCommit(make_url(mariadb), Session(), Settings())
    sink.is_done = is_done
    given = job("append", KEYED)
    try:
        assert sink.begin(given, None)
        counts = sink.finish(Counts(read=sink.write_rows(iter([[(1, "a")]]))))
        if is_done:
            sink.commit(counts)
        else:
            with pytest.raises(Passing, match="the load was not committed"):
                sink.commit(counts)
            sink.rollback()
    finally:
        sink.close()

    assert db.tables() == ({"t"} if is_done else set())
    again = load(mariadb, given, [(1, "a")])
    assert (again is None) is is_done
    assert db.run("select * from t") == [(1, "a")]


def test_lock_of_another_is_waited_for_and_then_told(mariadb: str, db: Admin) -> None:
    load(mariadb, job("append", KEYED, run="r0"), [(1, "a")])
    db.run("alter table t add primary key (id)")
    parts = make_url(mariadb)
    other = pymysql.connect(host=parts.host, port=parts.port or 0, user="root", database=parts.database)
    other.cursor().execute("update t set a = 'mine' where id = 1")

    with pytest.raises(Passing, match=r"Lock wait timeout exceeded.*\(error 1205\)"):
        load(mariadb, job("upsert", KEYED, keys=("id",)), [(1, "b")], Settings(lock_timeout_seconds=1))

    other.rollback()
    other.close()
    assert db.run("select * from t") == [(1, "a")]


def test_swap_that_readers_keep_from_is_told_and_leaves_nothing(mariadb: str, db: Admin) -> None:
    load(mariadb, job("append", KEYED, run="r0"), [(1, "a")])
    parts = make_url(mariadb)
    other = pymysql.connect(host=parts.host, port=parts.port or 0, user="root", database=parts.database)
    other.begin()
    other.cursor().execute("select * from t")

    with pytest.raises(Passing):
        load(mariadb, job("replace", KEYED), [(2, "b")], Settings(lock_timeout_seconds=1))

    other.rollback()
    other.close()
    assert db.run("select * from t") == [(1, "a")]
    assert db.tables() == {"t"}
    assert load(mariadb, job("replace", KEYED), [(2, "b")]) is not None


def test_readers_never_see_an_empty_table(mariadb: str, db: Admin) -> None:
    load(mariadb, job("append", KEYED, run="r0"), [(at, "a") for at in range(100)])
    seen: set[int] = set()
    is_over = threading.Event()

    def look() -> None:
        with admin(mariadb) as watcher:
            while not is_over.is_set():
                seen.add(watcher.one("select count(*) from t"))

    thread = threading.Thread(target=look)
    thread.start()
    for at, strategy in enumerate(["swap", "truncate"] * 4):
        load(
            mariadb,
            job("replace", KEYED, run=f"r{at + 1}", options={"replace_strategy": strategy}),
            [(n, "b") for n in range(100)],
        )
    is_over.set()
    thread.join(60)

    assert seen == {100}


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_cancel_ends_the_load_and_leaves_nothing(mariadb: str, db: Admin, mode: str) -> None:
    stop = threading.Event()
    session = Session(stop=stop)
    given = job(mode, KEYED)

    def chunks() -> Iterator[bytes]:
        for at in range(1000):
            yield b"".join(b"%d\tx\n" % n for n in range(at * 100_000, at * 100_000 + 100_000))
            if at == 20:
                stop.set()

    with pytest.raises(Cancelled), writer(mariadb, session=session) as sink:
        assert sink.begin(given, None)
        sink.write_chunks(chunks(), "pg_text")

    assert db.tables() == set()
    assert db.one("select count(*) from _rainbow_etl_ledger") == 0


def test_source_that_fails_in_the_middle_leaves_nothing(mariadb: str, db: Admin) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"1\ta\n" * 4_000_000
        raise Passing("the source is gone")

    with pytest.raises(Passing, match="the source is gone"), writer(mariadb) as sink:
        given = job("append", KEYED)
        assert sink.begin(given, None)
        sink.write_chunks(chunks(), "pg_text")

    assert db.tables() == set()


def test_ledger_key_that_is_too_long_is_refused(mariadb: str, db: Admin) -> None:
    with pytest.raises(Refused) as error:
        load(mariadb, job("append", Schema(KEYED.columns), run="r" * 101), [])

    assert str(error.value) == "the run_key of the load has 101 characters, the ledger takes 100; shorten it"
    assert db.tables() == set()


def test_error_of_a_load_is_one_of_ours(mariadb: str) -> None:
    with pytest.raises(TaskFailed), writer(mariadb) as sink:
        sink._link.connection._force_close()
        sink.begin(job("append", KEYED), None)
