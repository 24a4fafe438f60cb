"""Workers, source sessions and sink sessions that end at random moments of whole loads: no row lost, none doubled, all or nothing.

A few in the suite; RAINBOW_ETL_KILLS=100 tries that many.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from rainbow_prefect.sql_etl.base import Query, Session
from rainbow_prefect.sql_etl.move import Order, move
from rainbow_prefect.sql_etl.sqlalchemy import SqlSource
from tests.conftest import ROOT
from tests.sql_etl.chaos_worker import sink_of

KILLS = int(os.environ.get("RAINBOW_ETL_KILLS", "10"))
ROWS = 8_000
DAYS = 4
_MODES = {"append": [], "replace": [], "upsert": ["id"], "insert_new": ["id"], "delete_insert": ["day"], "fail": []}
_OF_FILES = ("append", "replace", "delete_insert", "fail")

Row = tuple[int, str, str]


def new_rows() -> list[Row]:
    return [(one, f"d{one % DAYS}", f"new {one} é" + "x" * 80) for one in range(ROWS)]


def old_rows() -> list[Row]:
    """Half of them have keys of new ones; some have a day that no new one has."""
    return [(one, f"d{one % (DAYS + 1)}", f"old {one}") for one in range(ROWS // 2, ROWS + ROWS // 2)]


def expected(mode: str) -> list[Row]:
    old, new = ([] if mode in ("replace", "fail") else old_rows()), new_rows()
    match mode:
        case "upsert":
            return sorted({**{one[0]: one for one in old}, **{one[0]: one for one in new}}.values())
        case "insert_new":
            return sorted({**{one[0]: one for one in new}, **{one[0]: one for one in old}}.values())
        case "delete_insert":
            return sorted([one for one in old if one[1] not in {two[1] for two in new}] + new)
        case _:
            return sorted(old + new)


@dataclass
class Place:
    """A source or sink; `ends` ends all of its sessions but the caller's, None where there are none."""

    name: str
    where: str
    ends: Callable[[], None] | None = None


def made(url: str, table: str, rows: list[Row]) -> None:
    engine = create_engine(url)
    with engine.begin() as db:
        db.execute(
            text(f"create table {table} (id integer not null primary key, day varchar(8) not null, note varchar(200))")
        )
        db.execute(
            text(f"insert into {table} values (:id, :day, :note)"),
            [{"id": one[0], "day": one[1], "note": one[2]} for one in rows],
        )
    engine.dispose()


def ender(url: str) -> Callable[[], None]:
    name = make_url(url).database

    def end() -> None:
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as db, contextlib.suppress(Exception):
            if url.startswith("postgresql"):
                db.execute(
                    text(
                        "select pg_terminate_backend(pid) from pg_stat_activity "
                        "where datname = current_database() and pid <> pg_backend_pid()"
                    )
                )
            else:
                found = db.execute(
                    text("select id from information_schema.processlist where db = :db and id <> connection_id()"),
                    {"db": name},
                )
                for (one,) in found.all():
                    with contextlib.suppress(Exception):  # it has just ended by itself
                        db.execute(text(f"kill connection {one}"))
        engine.dispose()

    return end


class Workers:
    """Starts loads and kills them."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sql_etl.chaos_worker"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, given: dict[str, Any], then: Callable[[int], None] = lambda pid: None) -> tuple[int, str]:
        """The exit status of a load and what it said; `then` is called meanwhile, in another thread, with its process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(given) + "\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        thread = threading.Thread(target=then, args=(pid,), daemon=True)
        thread.start()
        said = ""
        for line in self._process.stdout:
            if line.startswith("ended"):
                thread.join()
                return int(line.split()[1]), said
            said += line
        raise AssertionError(f"the workers ended: {said}")

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@pytest.fixture
def workers() -> Iterator[Workers]:
    found = Workers()
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def sources(postgres: str, mariadb: str, tmp_path: Path) -> list[Place]:
    urls = {"postgres": postgres, "mariadb": mariadb, "sqlite": f"sqlite:///{tmp_path}/source.db"}
    found = []
    for name, url in urls.items():
        made(url, "fresh", new_rows())
        found.append(Place(name, url, None if name == "sqlite" else ender(url)))
    return found


@pytest.fixture
def sinks(other_postgres: str, other_mariadb: str, tmp_path: Path) -> list[Place]:
    return [
        Place("postgres", other_postgres, ender(other_postgres)),
        Place("mariadb", other_mariadb, ender(other_mariadb)),
        Place("sqlite", f"sqlite:///{tmp_path}/sink.db"),
        Place("duckdb", f"duckdb:///{tmp_path}/sink.duckdb"),
        Place("files", str(tmp_path / "lake")),
    ]


@pytest.fixture
def old(tmp_path: Path) -> str:
    """The URL of a database with the table `old`: what the sinks hold before."""
    url = f"sqlite:///{tmp_path}/old.db"
    made(url, "old", old_rows())
    return url


def read(sink: Place, table: str) -> list[Row]:
    """All rows of a table of a sink, in the order of their values; none when it does not exist."""
    session = Session("test", Path("/"))
    writer = sink_of(sink.where).open(session)
    try:
        if writer.describe((None, table)) is None:
            return []
    finally:
        writer.close()
    reader = sink_of(sink.where).as_source().open(session)
    try:
        query = Query(table=(None, table))
        schema = reader.describe(query)
        at = [schema.names.index(one) for one in ("id", "day", "note")]
        return sorted(tuple(row[one] for one in at) for some in reader.rows(query, schema) for row in some)  # type: ignore[misc]
    finally:
        reader.close()


def trials(chance: random.Random, sources: list[Place], sinks: list[Place]) -> Iterator[tuple[Place, Place, str]]:
    """All modes of all sinks, in a random order, again and again."""
    while True:
        ways = [(sink, mode) for sink in sinks for mode in (_OF_FILES if sink.name == "files" else _MODES)]
        chance.shuffle(ways)
        for sink, mode in ways:
            yield chance.choice(sources), sink, mode


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_whatever_ends_at_any_moment_no_row_is_lost_or_doubled(
    workers: Workers, sources: list[Place], sinks: list[Place], old: str
) -> None:
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    killed: Counter[str] = Counter()
    longest: dict[tuple[str, str, str], float] = {}
    for number, (source, sink, mode) in enumerate(trials(chance, sources, sinks)):
        if sum(killed.values()) >= KILLS:
            break
        table = f"t{number}"
        has_old = mode != "fail"
        if has_old:
            before = Order("old", f"old-{number}", Query(table=(None, "old")), (None, table), "replace")
            move(before, SqlSource(url=old), sink_of(sink.where), Session("test", Path("/")))
        given = {
            "run_key": f"run-{number}",
            "source": source.where,
            "source_table": "fresh",
            "sink": sink.where,
            "table": table,
            "mode": mode,
            "keys": _MODES[mode],
        }
        what = f"seed {seed}, trial {number}: {source.name} to {sink.name}, {mode}"
        for attempt in range(6):
            victim = chance.choice(["worker", *(["source"] if source.ends else []), *(["sink"] if sink.ends else [])])
            most = longest.get((source.name, sink.name, mode), 1.0)
            moment = chance.uniform(0, most)
            began = time.monotonic()
            harm = _harm(victim, source, sink, moment) if attempt < 2 else lambda pid: None
            status, said = workers.run(given, harm)
            killed[victim] += attempt < 2 and (status == -signal.SIGKILL or (victim != "worker" and status != 3))
            if status in (0, 3):
                longest.setdefault((source.name, sink.name, mode), time.monotonic() - began)
                break
            assert status in (-signal.SIGKILL, 4), f"{what}: ended {status}: {said}"
            there = read(sink, table)
            at_first = sorted(old_rows()) if has_old else []
            assert there in (at_first, expected(mode)), f"{what}: {len(there)} rows after {victim} ended: {said}"
        else:
            raise AssertionError(f"{what}: never loaded: {said}")
        assert workers.run(given)[0] == 3, f"{what}: it was loaded again"
        assert read(sink, table) == expected(mode), what
    assert sum(killed.values()) >= KILLS, killed


def _harm(victim: str, source: Place, sink: Place, moment: float) -> Callable[[int], None]:
    def do(pid: int) -> None:
        time.sleep(moment)
        if victim == "worker":
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        else:
            ends = source.ends if victim == "source" else sink.ends
            assert ends is not None
            ends()

    return do
