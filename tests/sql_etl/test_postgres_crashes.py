"""Loads into PostgreSQL that are killed, cut off, blocked or done twice at once: exactly once, or the table as it was."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from rainbow_prefect.errors import Cancelled
from rainbow_prefect.sql_etl.base import BadValue, Counts, Job, Passing, Session
from rainbow_prefect.sql_etl.postgres_types import table_schema
from rainbow_prefect.sql_etl.postgres_writer import PostgresWriter
from rainbow_prefect.sql_etl.types import Schema
from tests.conftest import ROOT

KILLS = int(os.environ.get("RAINBOW_ETL_KILLS", "5"))
"""Of each way to load; there are six."""

ROWS = 20_000
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "append": ("append", {}),
    "insert_new": ("insert_new", {"keys": ["id"]}),
    "upsert": ("upsert", {"keys": ["id"]}),
    "delete_insert": ("delete_insert", {"where": [f"id > {ROWS // 2}"]}),
    "swap": ("replace", {"options": {"replace_strategy": "swap"}}),
    "truncate": ("replace", {"options": {"replace_strategy": "truncate"}}),
}
CHECKSUM = "select count(*), md5(string_agg(t::text, ',' order by t::text)) from "


class Place:
    """A table `t` with the rows 1 to 20,000, and a `source` with other rows of these keys, and with new ones."""

    def __init__(self, url: str, way: str) -> None:
        self.url, self.way = url, way
        self.mode, self.more = WAYS[way]
        self.admin = psycopg.connect(url, autocommit=True)
        key = "" if way == "append" else " primary key"
        self.run(f"create table t (id int{key}, x text, y numeric)")
        self.run("create table source (id int, x text, y numeric)")
        self.run(f"insert into t select i, 'old ' || i, i / 7.0 from generate_series(1, {ROWS}) i")
        self.run(
            f"insert into source select i, 'new ' || i, i / 3.0 from generate_series({ROWS // 2 + 1}, {ROWS * 3 // 2}) i"
        )
        self.before = self.checksum()
        self.after = self.checksum_after()

    def run(self, sql: str) -> None:
        self.admin.execute(sql.encode())

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.admin.execute(sql.encode()).fetchall()

    def checksum(self, table: str = "t") -> tuple[Any, ...]:
        return self.rows(CHECKSUM + table)[0]

    def checksum_after(self) -> tuple[Any, ...]:
        """What the load must come to, made by plain SQL."""
        kept = {
            "append": "select * from t union all select * from source",
            "insert_new": "select * from t union all select * from source s where not exists (select from t where id = s.id)",
            "upsert": "select * from source union all select * from t where not exists (select from source s where s.id = t.id)",
            "delete_insert": f"select * from source union all select * from t where id <= {ROWS // 2}",
            "swap": "select * from source",
            "truncate": "select * from source",
        }[self.way]
        return self.rows(CHECKSUM + f"({kept}) as t")[0]

    def job(self, **more: Any) -> Job:
        schema = table_schema(self.admin, "public", "source")
        assert schema is not None
        given = {name: tuple(one) if isinstance(one, list) else one for name, one in self.more.items()}
        wanted = {"run_key": "r1", **given, **more}
        return Job("crash", table=(None, "t"), mode=self.mode, schema=schema, **wanted)  # type: ignore[arg-type]

    def writer(self, url: str = "", *, lock_timeout: float = 120.0, session: Session | None = None) -> PostgresWriter:
        class Settings:
            schema_name = None
            lock_timeout_seconds = lock_timeout
            statement_timeout_seconds = None
            connect_args: dict[str, Any] = {}

        return PostgresWriter(make_url(url or self.url), session or Session(), Settings())

    def chunks(self) -> list[bytes]:
        with self.admin.cursor().copy(b"copy source to stdout (format binary)") as copy:
            whole = b"".join(bytes(one) for one in copy)
        return [whole[at : at + 65536] for at in range(0, len(whole), 65536)]

    def load(self, writer: PostgresWriter, job: Job, chunks: Iterator[bytes] | None = None) -> Counts | None:
        if not writer.begin(job, writer.describe(job.table)):
            return None
        read = writer.write_chunks(iter(self.chunks()) if chunks is None else chunks, "pg_binary")
        counts = writer.finish(Counts(read=read))
        writer.commit(counts)
        return counts

    def leftovers(self) -> list[tuple[Any, ...]]:
        return self.rows("select relname from pg_class where relname like '\\_rainbow%' and relkind = 'r' order by 1")


class Workers:
    """Processes that load, one after the other."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.parent = subprocess.Popen(
            [sys.executable, "-m", "tests.sql_etl.postgres_worker"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def line(self) -> str:
        assert self.parent.stdout is not None
        return self.parent.stdout.readline().strip()

    def run(self, *, kill_after: float | None = None, **more: Any) -> str:
        """What the load came to: `loaded`, `skipped`, or `ended -9` when it was killed."""
        assert self.parent.stdin is not None
        given = {"url": self.place.url, "run_key": "r1", "mode": self.place.mode, "more": self.place.more, **more}
        self.parent.stdin.write(json.dumps(given) + "\n")
        pids = [int(self.line())]
        killer = threading.Timer(kill_after or 0, lambda: [os.kill(one, signal.SIGKILL) for one in pids])
        said = self.line()
        if said == "ready":
            if kill_after is not None:
                killer.start()
            said = self.line()
        outcome = said
        if not said.startswith("ended "):
            pids.clear()  # it is done: its number may be another's soon
            said = self.line()
            assert said in ("ended 0", "ended -9"), said
        killer.cancel()
        return outcome


@pytest.fixture
def workers(place: Place) -> Iterator[Workers]:
    made = Workers(place)
    yield made
    assert made.parent.stdin is not None and made.parent.stdout is not None
    made.parent.stdin.close()
    made.parent.wait(60)
    made.parent.stdout.close()


@pytest.fixture
def place(postgres: str, request: pytest.FixtureRequest) -> Iterator[Place]:
    made = Place(postgres, getattr(request, "param", "upsert"))
    yield made
    made.admin.close()


all_ways = pytest.mark.parametrize("place", WAYS, indirect=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@all_ways
def test_killed_at_any_moment_and_tried_again(place: Place, workers: Workers) -> None:
    place.run("create table kept as table t")
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    assert workers.run() == "loaded"  # the first one is slow: it imports
    assert place.checksum() == place.after
    begun = time.monotonic()
    assert workers.run(run_key="timed") == "loaded"
    whole = time.monotonic() - begun

    killed = 0
    while killed < KILLS:
        place.run("truncate t, _rainbow_etl_ledger")
        place.run("insert into t table kept")
        outcome = ""
        while outcome not in ("loaded", "skipped"):
            outcome = workers.run(kill_after=chance.uniform(0, whole) if killed < KILLS else None)
            killed += outcome == "ended -9"
            assert place.checksum() in (place.before, place.after), seed

        assert place.checksum() == place.after, seed
        assert place.leftovers() == [("_rainbow_etl_ledger",)], seed
        assert workers.run() == "skipped", seed
        assert place.checksum() == place.after, seed


@all_ways
def test_killed_right_after_the_commit(place: Place, workers: Workers) -> None:
    killed = workers.run(dies=True)

    assert killed == "ended -9"
    assert place.checksum() == place.after
    assert workers.run() == "skipped"
    assert place.checksum() == place.after


@all_ways
def test_second_worker_waits_and_skips(place: Place) -> None:
    first, second = place.writer(), place.writer()
    told: list[bool] = []
    job = place.job()
    assert first.begin(job, first.describe(job.table))
    other = threading.Thread(target=lambda: told.append(second.begin(job, second.describe(job.table))))
    other.start()
    wait_until(lambda: is_waiting(place))
    read = first.write_chunks(iter(place.chunks()), "pg_binary")
    counts = first.finish(Counts(read=read))
    assert told == []

    first.commit(counts)
    other.join(120)

    assert told == [False]
    assert place.checksum() == place.after
    first.close()
    second.close()


@all_ways
def test_second_worker_loads_when_the_first_gives_up(place: Place) -> None:
    first, second = place.writer(), place.writer()
    loaded: list[Counts | None] = []
    job = place.job()
    assert first.begin(job, first.describe(job.table))
    other = threading.Thread(target=lambda: loaded.append(place.load(second, job, iter(chunks))))
    chunks = place.chunks()
    other.start()
    wait_until(lambda: is_waiting(place))

    first.rollback()
    other.join(120)

    assert len(loaded) == 1 and loaded[0] is not None
    assert place.checksum() == place.after
    first.close()
    second.close()


@all_ways
def test_server_ends_the_session_in_the_middle(place: Place) -> None:
    writer = place.writer()

    def cut() -> Iterator[bytes]:
        first, *rest = place.chunks()
        yield first
        place.run(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'rainbow' and datname = current_database()"
        )
        wait_until(lambda: not is_connected(place))
        yield from rest

    with pytest.raises(Passing):
        place.load(writer, place.job(), cut())
    unchanged = place.checksum()
    writer.close()
    again = place.writer()
    loaded = place.load(again, place.job(attempt=2))

    assert unchanged == place.before
    assert loaded is not None and loaded.read == ROWS
    assert place.checksum() == place.after
    again.close()


@all_ways
def test_stream_that_ends_too_early_is_not_committed(place: Place) -> None:
    writer = place.writer()

    with pytest.raises(Passing, match="the rows of the source ended in the middle; nothing was written"):
        place.load(writer, place.job(), iter(place.chunks()[:1]))

    assert place.checksum() == place.before
    assert place.rows("select count(*) from _rainbow_etl_ledger") == [(0,)]
    writer.close()


@all_ways
def test_source_that_fails(place: Place) -> None:
    writer = place.writer()

    def broken() -> Iterator[bytes]:
        yield place.chunks()[0]
        raise Passing("the source went away")

    with pytest.raises(Passing, match="^the source went away$"):
        place.load(writer, place.job(), broken())

    assert place.checksum() == place.before
    assert place.load(writer, place.job(attempt=2)) is not None
    assert place.checksum() == place.after
    writer.close()


@all_ways
def test_lock_that_is_not_free_in_time(place: Place) -> None:
    writer = place.writer(lock_timeout=0.3)
    with psycopg.connect(place.url) as holder:
        holder.execute("lock table t in access exclusive mode")

        with pytest.raises(Passing) as error:
            # It must not look at the table, which would wait as well.
            place_job = place.job()
            schema = Schema(place_job.schema.columns)
            if writer.begin(place_job, schema):
                writer.finish(Counts(read=writer.write_chunks(iter(place.chunks()), "pg_binary")))
                writer.commit(Counts())

    assert str(error.value) == "table public.t: canceling statement due to lock timeout (SQLSTATE 55P03)"
    assert place.checksum() == place.before
    assert place.load(writer, place.job(attempt=2)) is not None
    assert place.checksum() == place.after
    writer.close()


@pytest.mark.parametrize("state", ["53100", "40001", "40P01", "08006", "57P01"])
@pytest.mark.parametrize("place", ["append", "upsert"], indirect=True)
def test_passing_errors_of_the_server(place: Place, state: str) -> None:
    place.run(
        "create function fail() returns trigger language plpgsql as $$ begin"
        f" if new.id = {ROWS + 5000} then raise exception 'no more' using errcode = '{state}'; end if; return new; end $$"
    )
    place.run("create trigger fail before insert on t for each row execute function fail()")
    writer = place.writer()

    with pytest.raises(Passing) as error:
        place.load(writer, place.job())

    assert str(error.value) == f"table public.t: no more (SQLSTATE {state})"
    assert place.checksum() == place.before
    place.run("drop trigger fail on t")
    assert place.load(writer, place.job(attempt=2)) is not None
    assert place.checksum() == place.after
    writer.close()


@pytest.mark.parametrize("place", ["append"], indirect=True)
def test_constraint_that_fails_at_the_commit(place: Place) -> None:
    place.run("alter table t add constraint once unique (id) deferrable initially deferred")
    writer = place.writer()

    with pytest.raises(BadValue) as error:
        place.load(writer, place.job())

    assert str(error.value) == (
        'table public.t: duplicate key value violates unique constraint "once" (SQLSTATE 23505);'
        f" Key (id)=({ROWS // 2 + 1}) already exists.; use mode upsert or insert_new with these keys,"
        " or leave the row out in the query; nothing was written"
    )
    assert place.checksum() == place.before
    assert place.rows("select count(*) from _rainbow_etl_ledger") == [(0,)]
    writer.close()


# -- the answer to COMMIT is lost


class Proxy:
    """A way to the server that cuts a session at its COMMIT: before the server sees it, or after it did it."""

    def __init__(self, place: Place, *, passes_commit: bool) -> None:
        self.place, self.passes_commit = place, passes_commit
        self.target = make_url(place.url)
        self.door = socket.create_server(("127.0.0.1", 0))
        self.cuts = 0
        self.is_armed = False
        threading.Thread(target=self.serve, daemon=True).start()

    @property
    def url(self) -> str:
        return self.target.set(host="127.0.0.1", port=self.door.getsockname()[1]).render_as_string(hide_password=False)

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.door.accept()
                server = socket.create_connection((self.target.host, self.target.port))
                threading.Thread(target=self.pump, args=(server, client), daemon=True).start()
                threading.Thread(target=self.watch, args=(client, server), daemon=True).start()

    def pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def watch(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if b"COMMIT\0" in data and self.is_armed and self.cuts == 0:
                    self.cuts += 1
                    client.shutdown(socket.SHUT_RDWR)
                    if self.passes_commit:
                        server.sendall(data)
                        wait_until(lambda: self.place.checksum() == self.place.after)
                    break
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def armed(proxy: Proxy, place: Place) -> Iterator[bytes]:
    """The rows; the next COMMIT is the load's."""
    proxy.is_armed = True
    yield from place.chunks()


@all_ways
def test_answer_to_the_commit_is_lost(place: Place) -> None:
    proxy = Proxy(place, passes_commit=True)
    said: list[str] = []
    writer = place.writer(f"{proxy.url}?sslmode=disable", session=Session(say=said.append))

    counts = place.load(writer, place.job(), armed(proxy, place))

    assert counts is not None and proxy.cuts == 1
    assert place.checksum() == place.after
    assert said == ["table public.t: the connection was lost at the commit, which the ledger has"]
    writer.close()
    proxy.door.close()


@all_ways
def test_commit_itself_is_lost(place: Place) -> None:
    proxy = Proxy(place, passes_commit=False)
    writer = place.writer(f"{proxy.url}?sslmode=disable")

    with pytest.raises(Passing, match="the connection to the server was lost.*; nothing was written$"):
        place.load(writer, place.job(), armed(proxy, place))

    assert proxy.cuts == 1
    assert place.checksum() == place.before
    again = place.writer()
    assert place.load(again, place.job(attempt=2)) is not None
    assert place.checksum() == place.after
    writer.close()
    again.close()
    proxy.door.close()


# -- readers, and other parts


@pytest.mark.parametrize("how", ["swap", "truncate", "delete"])
@pytest.mark.parametrize("place", ["swap"], indirect=True)
def test_readers_never_see_an_empty_table(place: Place, how: str) -> None:
    seen: set[int] = set()
    looks = 0
    is_over = threading.Event()

    def look() -> None:
        nonlocal looks
        with psycopg.connect(place.url, autocommit=True) as reader:
            while not is_over.is_set():
                (count,) = reader.execute("select count(*) from t").fetchone() or (0,)
                seen.add(count)
                looks += 1

    with psycopg.connect(place.url) as old:
        old.execute("set transaction isolation level repeatable read")
        old.execute("select count(*) from source")  # its snapshot is older than every load
        reader = threading.Thread(target=look)
        reader.start()
        wait_until(lambda: looks > 0)
        for run in range(5):
            writer = place.writer()
            place.load(writer, place.job(run_key=f"run{run}", options={"replace_strategy": how}))
            writer.close()
        wanted = looks + 3
        wait_until(lambda: looks >= wanted)
        is_over.set()
        reader.join(60)
        (by_old,) = old.execute("select count(*) from t").fetchone() or (0,)

    assert seen == {ROWS}
    assert by_old == ROWS
    assert place.checksum() == place.after


@pytest.mark.parametrize("place", ["append", "upsert"], indirect=True)
def test_parts_at_once_do_not_wait_for_each_other(place: Place) -> None:
    one, two = place.writer(lock_timeout=20), place.writer(lock_timeout=20)
    place.run("delete from source where id % 2 = 0")
    halves = [place.chunks()]
    place.run("update source set id = id + 1")
    halves.append(place.chunks())
    jobs = [place.job(part="odd"), place.job(part="even")]

    assert one.begin(jobs[0], one.describe((None, "t")))
    assert two.begin(jobs[1], two.describe((None, "t")))
    first = one.write_chunks(iter(halves[0]), "pg_binary")
    second = two.write_chunks(iter(halves[1]), "pg_binary")
    one.commit(one.finish(Counts(read=first)))
    two.commit(two.finish(Counts(read=second)))

    assert first + second == ROWS
    assert place.checksum()[0] == place.after[0]
    one.close()
    two.close()


@pytest.mark.parametrize("place", ["swap", "truncate"], indirect=True)
def test_replace_waits_for_an_append(place: Place) -> None:
    appends, replaces = place.writer(), place.writer()
    ids = Schema(place.job().schema.columns)
    other = Job("other", "r1", (None, "t"), "append", ids)
    assert appends.begin(other, appends.describe(other.table))
    thread = threading.Thread(target=lambda: place.load(replaces, place.job(), iter(chunks)))
    chunks = place.chunks()
    thread.start()
    wait_until(lambda: is_waiting(place))

    read = appends.write_rows(iter([[(0, "in between", None)]]))
    appends.commit(appends.finish(Counts(read=read)))
    thread.join(120)

    assert place.checksum() == place.after
    appends.close()
    replaces.close()


@pytest.mark.parametrize("place", ["upsert"], indirect=True)
def test_cancel_ends_what_the_server_does(place: Place) -> None:
    place.run(
        "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(600); return new; end $$"
    )
    place.run("create trigger slow before insert or update on t for each row execute function slow()")
    session = Session()
    writer = place.writer(session=session)
    ended: list[BaseException] = []

    def load() -> None:
        try:
            place.load(writer, place.job(), iter(chunks))
        except BaseException as error:
            ended.append(error)

    chunks = place.chunks()
    thread = threading.Thread(target=load)
    thread.start()
    wait_until(
        lambda: bool(
            place.rows("select from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()")
        )
    )

    session.stop.set()
    writer.cancel()
    thread.join(60)

    assert [type(one) for one in ended] == [Cancelled]
    place.run("drop trigger slow on t")
    assert place.checksum() == place.before
    writer.close()
    wait_until(lambda: not is_connected(place))


def wait_until(is_so: Callable[[], bool], *, within: float = 120) -> None:
    deadline = time.monotonic() + within
    while not is_so():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def is_waiting(place: Place) -> bool:
    """Whether a load of this database waits for a lock."""
    return bool(
        place.rows(
            "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            " and application_name = 'rainbow'"
        )
    )


def is_connected(place: Place) -> bool:
    return bool(
        place.rows("select from pg_stat_activity where datname = current_database() and application_name = 'rainbow'")
    )
