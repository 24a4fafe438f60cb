"""Files as sources and sinks: exact both ways in every format, the manifest as ledger, kills, two writers at once, S3."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rainbow_prefect.sql_etl import arrow_types, csv_text, manifest
from rainbow_prefect.sql_etl.base import BadValue, Counts, Job, Passing, Query, Refused, Session
from rainbow_prefect.sql_etl.files import FilesSink, FilesSource
from rainbow_prefect.sql_etl.lanes import choose
from rainbow_prefect.sql_etl.move import Order, move
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink
from rainbow_prefect.sql_etl.types import Column, Schema, Type

from ..executors.ecs_stub import KEYS, moto_server

ROWS = Schema((Column("id", Type("int", bits=32), nullable=False), Column("name", Type("text"))))
FORMATS = ("parquet", "csv", "jsonl")
PHASES = (Phase.explicit, Phase.generate)  # to make it smaller takes minutes with files


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(root=tmp_path, lock_timeout_seconds=0.5)


def job(mode: Any = "append", schema: Schema = ROWS, **more: Any) -> Job:
    return Job("nightly.orders", more.pop("run_key", "run-1"), (None, "orders"), mode, schema, **more)


def sink(**fields: Any) -> FilesSink:
    return FilesSink(path=fields.pop("path", "lake"), **{"lock_timeout_seconds": 0.5, **fields})


def load(
    where: FilesSink, session: Session, one: Job, rows: list[Any], *, lane: str = "rows", state: Any = None
) -> Any:
    """One load as `move` does it; None when the part was loaded before."""
    writer = where.open(session)
    try:
        if not writer.begin(one, writer.describe(one.table)):
            return None
        if lane == "arrow":
            read = writer.write_batches(arrow_types.batches_of([rows], one.schema))
        elif lane == "csv":
            batches = arrow_types.batches_of([rows], one.schema)
            read = writer.write_chunks((csv_text.written(b, one.schema, csv_text.Csv(), 1) for b in batches), "csv")
        else:
            read = writer.write_rows(iter([rows[:1], rows[1:]]))
        counts = writer.finish(Counts(read=read))
        writer.commit(counts, state)
        return counts
    except BaseException:
        writer.rollback()
        raise
    finally:
        writer.close()


def rows_of(source: FilesSource, session: Session, query: Query = Query(table=(None, "orders"))) -> list[Any]:
    reader = source.open(session)
    try:
        return [row for some in reader.rows(query, reader.describe(query)) for row in some]
    finally:
        reader.close()


def stored(where: FilesSink, session: Session) -> list[Any]:
    return sorted(rows_of(where.as_source(), session), key=repr)


def files(session: Session) -> list[str]:
    top = session.root / "lake"
    return sorted(str(one.relative_to(top)) for one in top.rglob("*") if one.is_file()) if top.exists() else []


# -- exact both ways

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
EVERY: list[tuple[Type, st.SearchStrategy[Any]]] = [
    (Type("bool"), st.booleans()),
    (Type("int", bits=64), st.integers(-(2**63), 2**63 - 1)),
    (Type("int", bits=64, unsigned=True), st.integers(0, 2**64 - 1)),
    (Type("float", bits=64), st.floats(allow_nan=False, allow_infinity=False)),
    (Type("float", bits=32), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    (
        Type("decimal", precision=38, scale=10),
        st.decimals(-(10**27), 10**27, places=10, allow_nan=False, allow_infinity=False),
    ),
    (Type("decimal"), st.decimals(allow_nan=False, allow_infinity=False).filter(lambda one: abs(one.adjusted()) < 99)),
    (Type("text"), TEXT),
    (Type("bytes"), st.binary(max_size=9)),
    (Type("date"), st.dates()),
    (Type("time"), st.times()),
    (Type("timestamp"), st.datetimes()),
    (Type("timestamptz"), st.datetimes(timezones=st.just(UTC))),
    (Type("uuid"), st.uuids().map(str)),
    (Type("interval"), st.sampled_from(["1 year 2 mons 3 days 04:05:06.7", "-1 days", "00:00:00"])),
    (Type("json"), st.sampled_from(['{"a": 1,  "a":2}', "null", '[1.10, "é"]'])),
    (Type("array", item=Type("text")), st.lists(st.one_of(st.none(), TEXT), max_size=3).map(arrow_types.array_text)),
]
WIDE = Schema(tuple(Column(f"c{n}", one) for n, (one, _) in enumerate(EVERY)))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_values_there_and_back(tmp_path_factory: pytest.TempPathFactory, form: Any, compression: Any) -> None:
    @settings(deadline=None, max_examples=10, suppress_health_check=list(HealthCheck), phases=PHASES)
    @given(st.lists(st.tuples(*(st.one_of(st.none(), values) for _, values in EVERY)), max_size=5))
    def check(rows: list[Any]) -> None:
        session = Session(root=tmp_path_factory.mktemp("lake"))
        where = sink(format=form, compression=compression)
        for lane in ["rows", "arrow", *(["csv"] if form == "csv" else [])]:
            load(where, session, job("replace", WIDE, run_key=lane), rows, lane=lane)
            assert rows_of(where.as_source(), session) == rows, lane

    check()


@pytest.mark.parametrize("options", [{"delimiter": ";"}, {"null": "\\N"}, {"encoding": "utf-16-le"}, {"header": False}])
def test_csv_of_other_makes(session: Session, options: dict[str, Any]) -> None:
    rows = [("", None), ("\\N", "a;b"), ('"', "é\r\n,"), (None, "\\."), ("null", " x ")]
    schema = Schema((Column("a;b", Type("text")), Column("ü", Type("text"))))
    where = sink(format="csv", csv=options)

    load(where, session, job(schema=schema), rows)

    assert rows_of(where.as_source(), session) == rows


def test_csv_is_as_postgresql_writes_it(session: Session) -> None:
    schema = Schema(
        tuple(
            Column(name, kind)
            for name, kind in {
                "b": Type("bool"), "f": Type("float", bits=64), "g": Type("float", bits=32), "d": Type("decimal", precision=38, scale=10),
                "t": Type("timestamp"), "z": Type("timestamptz"), "k": Type("time"), "x": Type("bytes"), "s": Type("text"),
            }.items()
        )
    )  # fmt: skip
    rows = [
        (True, 1.0, 0.5, Decimal("0E-10"), datetime(2024, 1, 2, 3, 4, 5, 120000), datetime(2024, 1, 2, tzinfo=UTC),
         clock(1, 2, 3, 400000), b"\xde\xad", ""),
        (False, 1e15, -0.25, Decimal("-1E-10"), datetime(1, 1, 1), None, clock(0), b"", "a,b"),
        (None, 1e-5, 1e22, None, None, None, None, None, 'say "x"'),
        (None, float("nan"), float("-inf"), None, None, None, None, None, None),
    ]  # fmt: skip

    load(sink(format="csv"), session, job(schema=schema), rows)

    (name,) = [one for one in files(session) if one.endswith(".csv")]
    assert (session.root / "lake" / name).read_text() == (
        "b,f,g,d,t,z,k,x,s\n"
        't,1,0.5,0.0000000000,2024-01-02 03:04:05.12,2024-01-02 00:00:00+00,01:02:03.4,\\xdead,""\n'
        'f,1e+15,-0.25,-0.0000000001,0001-01-01 00:00:00,,00:00:00,\\x,"a,b"\n'
        ',1e-05,1e+22,,,,,,"say ""x"""\n'
        ",NaN,-Infinity,,,,,,\n"
    )


def test_one_column_of_null_and_empty(session: Session) -> None:
    rows = [(None,), ("",), ("\\.",), (None,)]
    schema = Schema((Column("a", Type("text")),))
    where = sink(format="csv")

    for lane in ("rows", "csv"):
        load(where, session, job("replace", schema, run_key=lane), rows, lane=lane)
        assert rows_of(where.as_source(), session) == rows
    reader = where.as_source().open(session)
    query = Query(table=(None, "orders"))
    assert b"".join(reader.chunks(query, reader.describe(query), "csv")) == b'\n""\n"\\."\n\n'


def test_parquet_has_the_types_of_the_schema(session: Session) -> None:
    """Cases 1 and 8: also of a table without rows."""
    numeric = Type("decimal", native="numeric", dialect="postgresql")
    schema = Schema(
        (Column("a", Type("decimal", precision=38, scale=10)), Column("b", numeric), Column("c", Type("timestamptz")))
    )

    load(sink(), session, job(schema=schema), [])

    (name,) = [one for one in files(session) if one.endswith(".parquet")]
    found = pq.read_table(session.root / "lake" / name)
    assert found.num_rows == 0
    assert found.schema.types == [pa.decimal128(38, 10), pa.string(), pa.timestamp("us", "UTC")]
    assert found.schema.field("b").metadata[b"pg_type"] == b"numeric"


@pytest.mark.parametrize("form", FORMATS)
def test_empty_tables_are_read(session: Session, form: Any) -> None:
    where = sink(format=form)

    load(where, session, job(), [])

    assert rows_of(where.as_source(), session) == []
    reader = where.as_source().open(session)
    assert [(one.name, one.type.kind) for one in reader.describe(Query(table=(None, "orders"))).columns] == [
        ("id", "int"), ("name", "text"),
    ]  # fmt: skip


def test_what_json_cannot_hold(session: Session) -> None:
    schema = Schema((Column("a", Type("float", bits=64)),))

    with pytest.raises(BadValue) as told:
        load(sink(format="jsonl"), session, job(schema=schema), [(1.0,), (float("nan"),)])

    assert str(told.value) == "column 'a', row 2: the value 'nan' cannot be JSON, which has no NaN and no infinity"
    assert files(session) == []


def test_what_parquet_cannot_hold(session: Session) -> None:
    """Case 2."""
    schema = Schema((Column("a", Type("decimal", precision=5, scale=2)),))

    with pytest.raises(BadValue, match="^column 'a', row 2: the value 'NaN' cannot be decimal128"):
        load(sink(), session, job(schema=schema), [(Decimal("1"),), (Decimal("NaN"),)])

    assert files(session) == []
    assert not (session.root / "lake" / "orders").exists()


# -- modes


@pytest.mark.parametrize("lane", ["rows", "arrow", "csv"])
def test_modes_at_first_and_again(session: Session, lane: str) -> None:
    where = sink(format="csv")
    for mode, wanted in {
        "append": [(1, "a"), (2, None), (3, ""), (4, "d")],
        "replace": [(3, ""), (4, "d")],
    }.items():
        one = Job("n", mode, (None, "orders"), mode, ROWS)  # type: ignore[arg-type]
        again = Job("n", f"{mode}-2", (None, "orders"), mode, ROWS)  # type: ignore[arg-type]
        load(where, session, one, [(1, "a"), (2, None)], lane=lane)
        counts = load(where, session, again, [(3, ""), (4, "d")], lane=lane)
        assert counts.written == 2
        assert rows_of(where.as_source(), session) == wanted
        assert load(where, session, again, [(9, "x")], lane=lane) is None
        assert rows_of(where.as_source(), session) == wanted
        load(where, session, Job("n", f"{mode}-3", (None, "orders"), "replace", ROWS), [], lane=lane)
        assert rows_of(where.as_source(), session) == []
        assert len(files(session)) == 2, "one empty file and the manifest"


DAYS = Schema((Column("day", Type("date")), Column("n", Type("int", bits=32))))


def test_delete_insert_of_partitions(session: Session) -> None:
    where = sink(partition_by=["day"])
    first, second, third = date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1)
    load(where, session, job("delete_insert", DAYS), [(first, 1), (second, 2), (None, 0), (second, 3)])

    counts = load(where, session, job("delete_insert", DAYS, run_key="run-2", keys=("day",)), [(second, 4), (third, 5)])

    assert counts.deleted == 2
    assert rows_of(where.as_source(), session) == [(first, 1), (None, 0), (second, 4), (third, 5)]
    assert [one.split("/")[1] for one in files(session)] == [
        "_manifest", "day=2024-02-28", "day=2024-02-29", "day=2024-03-01", "day=__HIVE_DEFAULT_PARTITION__",
    ]  # fmt: skip
    load(where, session, job("delete_insert", DAYS, run_key="run-3"), [])
    assert len(stored(where, session)) == 4, "nothing came, so no partition was replaced"


def test_partitions_of_odd_values(session: Session) -> None:
    schema = Schema((Column("a b", Type("text")), Column("k", Type("text")), Column("n", Type("int", bits=32))))
    texts = ["x/y", "", "=", "é 😀", "%2F", "..", "a\nb", None]
    rows = [(one, "k", n) for n, one in enumerate(texts)]
    where = sink(partition_by=["a b", "k"])

    load(where, session, job(schema=schema), rows)

    assert sorted(rows_of(where.as_source(), session), key=lambda row: row[2]) == rows


def test_many_partitions(session: Session) -> None:
    rows = [(date.fromordinal(700_000 + n % 150), n) for n in range(600)]
    where = sink(partition_by=["day"])

    load(where, session, job(schema=DAYS), rows)

    assert sorted(stored(where, session), key=lambda row: row[1]) == rows


@pytest.mark.parametrize(
    ("fields", "one", "reason"),
    [
        ({}, job("upsert", keys=("id",)), "`mode: upsert` needs a database, files are never changed; use `mode: delete_insert` with `partition_by` in the sink, or `mode: replace`"),
        ({}, job("insert_new", keys=("id",)), "`mode: insert_new` needs a database"),
        ({}, job("delete_insert", keys=("id",)), "`mode: delete_insert` replaces whole partitions of files; write `partition_by` in the sink and no other `keys` (keys: id)"),
        ({"partition_by": ["day"]}, job(), "`partition_by: day` is no column (columns: id, name)"),
        ({"partition_by": ["id", "name"]}, job(), "`partition_by` names all columns; leave one for the files"),
        ({"partition_by": ["id"]}, job(schema=Schema((Column("id", Type("float", bits=64)), Column("b", Type("text"))))), "column 'id' is float64, which cannot be the name of a folder"),
        ({"path": "ftp://x"}, job(), "'ftp://x/orders' is neither a folder nor s3://BUCKET/PREFIX"),
        ({}, Job("n", "r", (None, "../x"), "append", ROWS), "'../x' cannot be the name of a folder of files"),
    ],
)  # fmt: skip
def test_what_is_refused(session: Session, fields: Any, one: Job, reason: str) -> None:
    with pytest.raises(Refused) as told:
        load(sink(**fields), session, one, [])

    assert str(told.value).startswith(reason)
    assert files(session) == []


def test_fail_wants_no_table(session: Session) -> None:
    load(sink(), session, job("fail"), [(1, "a")])

    with pytest.raises(Refused, match="^the table 'orders' exists already and `mode: fail` wants none"):
        load(sink(), session, job("fail", run_key="run-2"), [])


def test_layout_is_kept(session: Session) -> None:
    load(sink(), session, job(), [(1, "a")])

    with pytest.raises(
        Refused, match="^the files of 'orders' are parquet; write the sink like that, or use `mode: replace`$"
    ):
        load(sink(format="csv"), session, job(run_key="run-2"), [])
    load(sink(format="csv"), session, job("replace", run_key="run-3"), [(2, "b")])
    assert rows_of(sink(format="csv").as_source(), session) == [(2, "b")]


def test_columns_in_another_order_and_fewer(session: Session) -> None:
    load(sink(), session, job(), [(1, "a")])
    other = Schema((Column("name", Type("text")), Column("id", Type("int", bits=16))))

    load(sink(), session, job(schema=other, run_key="run-2"), [("b", 2)])
    load(sink(), session, job(schema=Schema((Column("id", Type("int", bits=32)),)), run_key="run-3"), [(3,)])

    assert stored(sink(), session) == [(1, "a"), (2, "b"), (3, None)]
    with pytest.raises(
        Refused, match="^the files of 'orders' have no column 'x'; use `mode: replace` for new columns$"
    ):
        load(sink(), session, job(schema=Schema((Column("x", Type("text")),)), run_key="run-4"), [])


def test_parts_of_one_run_replace_together(session: Session) -> None:
    load(sink(), session, job("replace", run_key="old"), [(9, "x")])

    for n in range(3):
        load(sink(), session, job("replace", part=f"range-{n}"), [(n, str(n))])

    assert stored(sink(), session) == [(0, "0"), (1, "1"), (2, "2")]


def test_forced_load_is_replaced(session: Session) -> None:
    load(sink(), session, job(), [(1, "a")])
    load(sink(), session, job(run_key="run-2"), [(2, "b")])

    load(sink(), session, job(force=True), [(3, "c")])

    assert stored(sink(), session) == [(2, "b"), (3, "c")]
    assert len(files(session)) == 3


def test_state_is_that_of_the_last_load(session: Session) -> None:
    writer = sink().open(session)
    assert writer.state(job()) == {}

    load(sink(), session, job(), [], state={"cursor": "1"})
    load(sink(), session, job(run_key="run-2"), [], state={"cursor": "2"})
    load(sink(), session, job(run_key="run-3"), [])

    assert writer.state(job()) == {"cursor": "2"}
    assert writer.forget(job()) == 2  # type: ignore[attr-defined]
    assert writer.state(job()) == {}
    assert load(sink(), session, job(), []) is None, "what was loaded stays known"


def test_names_are_the_same_in_each_attempt(session: Session) -> None:
    load(sink(), session, job(part="day 1/2"), [(1, "a")])

    assert [one for one in files(session) if "manifest" not in one] == [
        f"orders/day-1-2.{manifest.id_of(job(part='day 1/2'))}.parquet"
    ]


# -- what happens meanwhile

WRITER = """
import sys, time
from pathlib import Path
from rainbow_prefect.sql_etl.base import *
from rainbow_prefect.sql_etl.types import *
from rainbow_prefect.sql_etl.files import FilesSink
schema = Schema((Column("id", Type("int", bits=32), nullable=False), Column("day", Type("int", bits=32)), Column("name", Type("text"))))
root, run_key, mode, by, form, stay = sys.argv[1:7]
sink = FilesSink(path="lake", format=form, partition_by=[by] if by else [], lock_timeout_seconds=60)
writer = sink.open(Session(root=Path(root), lock_timeout_seconds=60))
job = Job("nightly.orders", run_key, (None, "orders"), mode, schema)
print("open", flush=True)
if writer.begin(job, writer.describe(job.table)):
    rows = ([(n, n % 5, str(n)) for n in range(start, start + 500)] for start in range(0, 20_000, 500))
    counts = Counts(read=writer.write_rows(rows))
    writer.commit(writer.finish(counts))
    print("loaded", flush=True)
else:
    print("skipped", flush=True)
time.sleep(float(stay))
"""
NUMBERS = Query(table=(None, "orders"))


def started(
    session: Session, run_key: str, mode: str = "append", by: str = "", form: str = "parquet", stay: float = 0
) -> Any:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(session.root), run_key, mode, by, form, str(stay)],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "by", "form"), [("append", "", "csv"), ("replace", "", "parquet"), ("delete_insert", "day", "parquet")]
)
def test_killed_at_any_moment_and_tried_again(session: Session, mode: str, by: str, form: Any) -> None:
    chance = random.Random(mode)
    where = sink(format=form, partition_by=[by] if by else [])
    for number in range(4):
        run_key = f"run-{number}"
        one = started(session, run_key, mode, by, form, stay=600)
        one.stdout.readline()
        time.sleep(chance.uniform(0, 0.7))
        os.kill(one.pid, signal.SIGKILL)
        one.communicate()

        again = started(session, run_key, mode, by, form)
        out, _ = again.communicate(timeout=120)

        assert again.returncode == 0
        assert out.split()[-1] in ("loaded", "skipped")
        found = rows_of(where.as_source(), session)
        times = number + 1 if mode == "append" else 1
        assert len(found) == 20_000 * times
        assert sum(row[0] for row in found) == sum(range(20_000)) * times
        known = manifest.read((session.root / "lake/orders/_manifest").read_bytes())
        assert sorted(files(session)) == sorted(["orders/_manifest", *(f"orders/{one.name}" for one in known.files)])
        assert known.claims == {}


def test_leftovers_of_another_run_are_removed_by_the_next(session: Session) -> None:
    one = started(session, "dead", stay=600)
    one.stdout.readline()
    deadline = time.monotonic() + 60
    while not any(name.endswith(".tmp") for name in files(session)) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(one.pid, signal.SIGKILL)
    one.communicate()
    stray = session.root / "lake/orders/all.0123456789abcdef.parquet"
    stray.write_bytes(b"renamed, but its manifest was never put")
    mine = session.root / "lake/orders/notes.parquet"
    mine.write_bytes(b"somebody's own")

    load(sink(), session, job("replace", run_key="next"), [(1, "a")])

    left = files(session)
    assert not any(name.endswith(".tmp") for name in left)
    assert not stray.exists()
    assert mine.exists()


def test_two_processes_with_one_part(session: Session) -> None:
    both = [started(session, "run-1") for _ in range(2)]

    ends = sorted(one.communicate(timeout=120)[0].split()[-1] for one in both)

    assert ends == ["loaded", "skipped"]
    assert len(rows_of(sink().as_source(), session)) == 20_000


def test_different_parts_at_once(session: Session) -> None:
    failures: list[BaseException] = []

    def work(n: int) -> None:
        try:
            for turn in range(3):
                load(sink(), session, job(part=f"{n}-{turn}"), [(n, str(turn))])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert failures == []
    assert len(stored(sink(), session)) == 18


def test_live_attempt_is_waited_for_and_then_told(session: Session) -> None:
    writer = sink().open(session)
    assert writer.begin(job(), None)

    with pytest.raises(Passing) as told:
        load(sink(), session, job(), [(1, "a")])

    assert str(told.value) == f"this part is being written by process {os.getpid()} of this machine; end it or wait"
    writer.rollback()
    assert files(session) == []


def test_attempt_that_was_taken_over_cannot_commit(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    zombie = sink().open(session)
    assert zombie.begin(job(), None)
    zombie.write_rows([[(1, "old")]])
    monkeypatch.setattr(manifest, "host", lambda: "another machine")
    load(sink(), session, job(), [(2, "new")])

    with pytest.raises(Passing, match="^another attempt at this part took over; nothing was written$"):
        zombie.commit(zombie.finish(Counts(read=1)))
    zombie.rollback()

    assert stored(sink(), session) == [(2, "new")]
    assert len(files(session)) == 2


def test_readers_see_old_or_new(session: Session) -> None:
    load(sink(), session, job("replace"), [(1, "a")])
    writer = sink().open(session)
    writer.begin(job("replace", run_key="run-2"), writer.describe((None, "orders")))
    writer.write_rows([[(2, "b")]])
    counts = writer.finish(Counts(read=1))

    assert stored(sink(), session) == [(1, "a")]
    writer.commit(counts)
    assert stored(sink(), session) == [(2, "b")]


def test_reader_whose_files_were_replaced_says_so(session: Session) -> None:
    load(sink(), session, job("replace"), [(1, "a")])
    reader = sink().as_source().open(session)
    schema = reader.describe(NUMBERS)
    table = reader._find(NUMBERS)  # type: ignore[attr-defined]
    load(sink(), session, job("replace", run_key="run-2"), [(2, "b")])
    reader._find = lambda query: table  # type: ignore[attr-defined]

    with pytest.raises(Passing, match="is gone: another load replaced it meanwhile$"):
        list(reader.batches(NUMBERS, schema))


def test_cancelled_load_leaves_nothing(session: Session) -> None:
    def rows() -> Iterator[Any]:
        yield [(1, "a")]
        session.stop.set()
        yield [(2, "b")]

    writer = sink().open(session)
    writer.begin(job(), None)
    with pytest.raises(Passing, match="^cancelled; nothing was written$"):
        writer.write_rows(rows())
    writer.rollback()

    assert files(session) == []


# -- what others wrote


def put(session: Session, name: str, data: str | bytes) -> None:
    target = session.root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data if isinstance(data, bytes) else data.encode())


def both(source: FilesSource, session: Session, schema: Schema | None = None) -> tuple[list[Any], bytes]:
    """The rows, and the bytes of the csv lane."""
    reader = source.open(session)
    wanted = schema or reader.describe(Query())
    rows = [row for some in reader.rows(Query(), wanted) for row in some]
    return rows, b"".join(reader.chunks(Query(), wanted, "csv")) if "csv" in reader.lanes() else b""


def test_csv_is_text_unless_types_say_else(session: Session) -> None:
    put(session, "a.csv", 'id,amount,note\n007,1.10,\n8,,""\n')

    rows, lane = both(FilesSource(path="a.csv"), session)
    typed, _ = both(FilesSource(path="a.csv", types={"id": "int", "amount": "decimal(10,2)"}), session)

    assert rows == [("007", "1.10", None), ("8", None, "")]
    assert typed == [(7, Decimal("1.10"), None), (8, None, "")]
    assert lane == b'007,1.10,\n8,,""\n'
    reader = FilesSource(path="a.csv").open(session)
    assert {one.type.dialect for one in reader.describe(Query()).columns} == {"csv"}
    wanted = Schema((Column("id", Type("int", bits=64)), Column("amount", Type("text")), Column("note", Type("text"))))
    assert both(FilesSource(path="a.csv"), session, wanted)[0][0] == (7, "1.10", None)


@pytest.mark.parametrize("compression", ["gz", "zst"])
def test_compressed_files_of_a_pattern(session: Session, compression: str) -> None:
    for n in (2, 1):
        data = f"\ufeffa,b\r\n{n},x\r\n".encode()
        packed = gzip.compress(data) if compression == "gz" else pa.compress(data, "zstd", asbytes=True)
        put(session, f"in/{n}.csv.{compression}", packed)

    rows, lane = both(FilesSource(path="in/*.csv.*"), session)

    assert rows == [("1", "x"), ("2", "x")]
    assert lane == b"1,x\r\n2,x\r\n"


def test_quoted_line_breaks_are_never_cut(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_text, "CHUNK_BYTES", 64)
    rows = [(str(n), '\n\r\n,"\\.\n' * (n % 7)) for n in range(300)]
    body = "".join(f'{a},"{b.replace(chr(34), chr(34) * 2)}"\n' for a, b in rows)
    put(session, "a.csv", 'id,"the\nname"\n' + body)

    found, lane = both(FilesSource(path="a.csv"), session)

    assert found == rows
    assert lane == body.encode()


@pytest.mark.parametrize(
    ("data", "types", "reason"),
    [
        ("a,b\n1,2\n1,2,3\n", {}, "row 2: Expected 2 columns, got 3: 1,2,3"),
        ("a,b\r\n1,2\r\n\r\n3,4\r\n", {}, "the file 'a.csv' has an empty line; remove it"),
        ("a,b\n1,2\n1,x\n", {"b": "int"}, "column 'b', row 2: the value 'x' is no int32: it is no whole number"),
        ("a,b\n1,2\n1,1e400\n", {"b": "double"}, "column 'b', row 2: the value '1e400' is no float64: it is too large"),
        ("a,b\n1,\n1,1.255\n", {"b": "decimal(5,2)"}, "column 'b', row 2: the value '1.255' cannot be decimal128(5, 2): it has more digits after the point"),
        ("a,b\n1,infinity\n", {"b": "date"}, "column 'b', row 1: the value 'infinity' cannot be date32[day]: it is no date"),
        ("a,b\n1,24:00:00\n", {"b": "time"}, "column 'b', row 1: the value '24:00:00' cannot be time64[us]: "),
        ("a,b\n1,2024-01-01 00:00:00\n", {"b": "timestamptz"}, "column 'b', row 1: the value '2024-01-01 00:00:00' is no timestamptz: it says no offset from UTC"),
        ("a,b\n1,abcd\n", {"b": "varchar(3)"}, "column 'b', row 1: the value 'abcd' is no text(3): it has 4 characters"),
        ('a,b\n1,"2\n3,4\n', {}, "the file 'a.csv' ends within quotes: a quote is not closed, or not doubled, or the file was cut"),
        ('a,b\n1,5" x 7"\n', {}, "the file 'a.csv' has a quote within a value: '1,5\" x 7\"'; put the value in quotes and double those within"),
        (b"a,b\n1,\xff\n", {}, "row 1: "),
    ],
)  # fmt: skip
def test_csv_that_is_wrong(session: Session, data: Any, types: dict[str, str], reason: str) -> None:
    put(session, "a.csv", data)

    with pytest.raises(BadValue) as told:
        both(FilesSource(path="a.csv", types=types), session)

    assert reason in str(told.value)


def test_end_for_copy_is_refused_in_the_csv_lane(session: Session) -> None:
    put(session, "a.csv", "a,b\n1,2\n\\.\n3,4\n")
    reader = FilesSource(path="a.csv").open(session)

    with pytest.raises(BadValue) as told:
        list(reader.chunks(Query(), reader.describe(Query()), "csv"))

    assert str(told.value) == "the file 'a.csv' has a row that is \\. alone"


def test_encodings(session: Session) -> None:
    put(session, "a.csv", "a\né\n".encode("latin-1"))

    assert both(FilesSource(path="a.csv", csv={"encoding": "latin-1"}), session)[0] == [("é",)]
    put(session, "b.csv", "a\né\n".encode("latin-1"))
    with pytest.raises(BadValue, match="^the file 'b.csv' is not ascii at byte 2; set `csv: encoding`$"):
        both(FilesSource(path="b.csv", csv={"encoding": "ascii"}), session)


@pytest.mark.parametrize(
    ("fields", "written", "reason"),
    [
        ({"path": "no.csv"}, {}, "there is no file 'no.csv'; correct `path`"),
        ({"path": "a.txt"}, {"a.txt": "a"}, "the format of 'a.txt' cannot be told by its name; write `format: csv`, jsonl or parquet"),
        ({"path": "*"}, {"a.csv": "a", "b.jsonl": "{}"}, "'*' finds files of several formats (csv, jsonl); narrow it"),
        ({"path": "a.csv"}, {"a.csv": ""}, "the file 'a.csv' is empty; a CSV file without rows still has the names of its columns"),
        ({"path": "a.csv"}, {"a.csv": "a,a\n"}, "the file 'a.csv' has the column 'a' twice"),
        ({"path": "a.csv", "csv": {"header": False}}, {"a.csv": "1,2\n"}, "the file 'a.csv' has 2 columns and no header; name them all in `types` (named: 0)"),
        ({"path": "a.csv", "types": {"amuont": "int"}}, {"a.csv": "amount\n"}, "`types` names the column 'amuont', which the files do not have; did you mean 'amount'?"),
        ({"path": "*.csv"}, {"a.csv": "a\n1\n", "b.csv": "b\n1\n"}, "the file 'b.csv' has the columns b; the first one has a"),
        ({"path": "a.parquet"}, {"a.parquet": "none"}, "the file 'a.parquet' is no Parquet: "),
        ({"path": "gs://a/b.csv"}, {}, "'gs://a/b.csv' is neither a file nor s3://BUCKET/NAME"),
    ],
)  # fmt: skip
def test_sources_that_are_refused(session: Session, fields: Any, written: dict[str, str], reason: str) -> None:
    for name, data in written.items():
        put(session, name, data)

    with pytest.raises(Refused) as told:
        both(FilesSource(**fields), session)

    assert str(told.value).startswith(reason)


def test_settings_that_are_wrong() -> None:
    with pytest.raises(ValidationError, match="the type of 'a': 'nummer' is no known type"):
        FilesSource(path="a.csv", types={"a": "nummer"})
    with pytest.raises(ValidationError, match="'utf-99' is no known encoding"):
        FilesSource(path="a.csv", csv={"encoding": "utf-99"})
    with pytest.raises(ValidationError, match="'utf-16' begins with a mark"):
        FilesSink(path="a", csv={"encoding": "utf-16"})
    with pytest.raises(ValidationError, match="a column is named twice"):
        FilesSink(path="a", partition_by=["a", "a"])


def test_columns_of_a_query(session: Session) -> None:
    put(session, "a.csv", "id,The Name\n1,x\n")
    reader = FilesSource(path="a.csv").open(session)
    query = Query(columns=(('"The Name"', "name"), ("id", "n")))

    assert [row for some in reader.rows(query, reader.describe(query)) for row in some] == [("x", "1")]
    assert b"".join(reader.chunks(query, reader.describe(query), "csv")) == b"x,1\n"
    with pytest.raises(Refused, match="^files know names of columns only, not `id \\+ 1`"):
        reader.describe(Query(columns=(("id + 1", "n"),)))
    with pytest.raises(Refused, match="^the files have no column 'ID'; did you mean 'id'\\?$"):
        reader.describe(Query(columns=(("ID", "n"),)))
    with pytest.raises(Refused, match="^files take no SQL"):
        reader.describe(Query(sql="select 1"))
    with pytest.raises(Refused, match="^files take no conditions"):
        reader.describe(Query(where=("a > 1",)))


def test_folders_name_columns(session: Session) -> None:
    put(session, "in/day=2024-02-29/a.csv", "n\n1\n")
    put(session, "in/day=__HIVE_DEFAULT_PARTITION__/a.csv", "n\n2\n")

    rows, lane = both(FilesSource(path="in/*/*.csv", types={"day": "date"}), session)

    assert rows == [("1", date(2024, 2, 29)), ("2", None)]
    assert lane == b""
    assert both(FilesSource(path="in/*/*.csv"), session)[1] == b"1,2024-02-29\n2,\n"


def test_json_lines_keep_every_digit(session: Session) -> None:
    lines = [
        '{"a": 1.10, "b": "x", "c": {"k": 1e400, "k": [true, null]}}',
        "",
        '{"b": null, "a": 12345678901234567890.123456789}',
    ]
    put(session, "a.jsonl", "\n".join(lines))

    rows, _ = both(FilesSource(path="a.jsonl"), session)
    typed, _ = both(FilesSource(path="a.jsonl", types={"a": "decimal", "c": "json"}), session)

    assert rows == [("1.10", "x", '{"k": 1e400, "k": [true, null]}'), ("12345678901234567890.123456789", None, None)]
    assert typed[0] == (Decimal("1.10"), "x", '{"k": 1e400, "k": [true, null]}')


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[1]", "row 2 of the file 'a.jsonl' is no JSON object: [1]"),
        ('{"a": NaN}', "row 2 of the file 'a.jsonl' is no JSON: NaN is no number of JSON"),
        ('{"a": 1, "a": 2}', "row 2 of the file 'a.jsonl' has a key twice"),
        ('{"a": "x"}', "column 'a', row 2: the value 'x' is no int32: it is no whole number"),
        ('{"a": 1', "row 2 of the file 'a.jsonl' is no JSON: "),
    ],
)
def test_json_lines_that_are_wrong(session: Session, line: str, reason: str) -> None:
    put(session, "a.jsonl", f'{{"a": 1}}\n{line}\n')

    with pytest.raises(BadValue) as told:
        both(FilesSource(path="a.jsonl", types={"a": "int"}), session)

    assert str(told.value).startswith(reason)


def test_key_that_comes_late(session: Session) -> None:
    put(session, "a.jsonl", '{"a": 1}\n' * 1000 + '{"b": 1}\n')

    with pytest.raises(BadValue, match="^row 1001: the key 'b' is no column; name it in `types`$"):
        both(FilesSource(path="a.jsonl"), session)
    assert both(FilesSource(path="a.jsonl", types={"b": "int"}), session)[0][-1] == (None, 1)


def test_parquet_of_others(session: Session) -> None:
    table = pa.table(
        {"a": pa.array(["x", None]).dictionary_encode(), "b": pa.array([1, 2], pa.int8()), "c": [[1], None]}
    )
    pq.write_table(table, session.root / "a.parquet")

    reader = FilesSource(path="a.parquet").open(session)
    schema = reader.describe(Query())

    assert [(one.name, one.type.kind) for one in schema.columns] == [("a", "text"), ("b", "int"), ("c", "array")]
    assert both(FilesSource(path="a.parquet"), session)[0] == [("x", 1, "{1}"), (None, 2, None)]


MEMORY = """
import resource, sys
from pathlib import Path
from rainbow_prefect.sql_etl.base import *
from rainbow_prefect.sql_etl.types import *
from rainbow_prefect.sql_etl.files import FilesSink
form, count = sys.argv[2], int(sys.argv[3])
schema = Schema((Column("id", Type("int", bits=64)), Column("text", Type("text")), Column("d", Type("decimal", precision=10, scale=2))))
from decimal import Decimal
chunk = [(n, f"{n:>80}", Decimal(n) / 100) for n in range(10_000)]
sink = FilesSink(path="lake", format=form)
session = Session(root=Path(sys.argv[1]))
writer = sink.open(session)
writer.begin(Job("n", str(count), (None, "t"), "replace", schema), None)
writer.write_rows(chunk for _ in range(count))
writer.commit(writer.finish(Counts()))
reader = sink.as_source().open(session)
query = Query(table=(None, "t"))
assert sum(len(some) for some in reader.rows(query, reader.describe(query))) == count * 10_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_memory_is_flat(tmp_path: Path, form: str) -> None:
    """Case 28 in small: 50 and 100 times 10,000 rows of 100 bytes; fewer would not fill what is held at a time."""
    sizes = [
        int(subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path), form, str(count)], capture_output=True, check=True, timeout=250).stdout)
        for count in (50, 100)
    ]  # fmt: skip

    assert sizes[1] < 512
    assert sizes[1] - sizes[0] < 120


# -- S3


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
def bucket(s3: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The fields of a sink in a bucket of its own, and the file system."""
    from rainbow_prefect.sql_etl.places import file_system

    storage = {
        "endpoint_url": s3,
        "region_name": KEYS["AWS_DEFAULT_REGION"],
        "key": KEYS["AWS_ACCESS_KEY_ID"],
        "secret": KEYS["AWS_SECRET_ACCESS_KEY"],
    }
    fs = file_system(storage)
    name = f"lake-{abs(hash(request.node.name)) % 10**9}-{os.getpid()}"
    fs.call_s3("create_bucket", Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    yield {"path": f"s3://{name}/the lake", "storage": storage}, fs, f"{name}/the lake"


@pytest.mark.parametrize("form", FORMATS)
def test_bucket_there_and_back(session: Session, bucket: Any, form: Any) -> None:
    fields, fs, top = bucket
    where = sink(format=form, partition_by=["name"], **fields)

    load(where, session, job(), [(1, "a"), (2, "b/c"), (3, None)])
    load(where, session, job("delete_insert", run_key="run-2"), [(4, "a")])
    assert load(where, session, job(), [(9, "x")]) is None

    assert stored(where, session) == [(2, "b/c"), (3, None), (4, "a")]
    assert len(fs.find(top)) == 4
    assert not fs.call_s3("list_multipart_uploads", Bucket=top.split("/")[0]).get("Uploads")


def test_bucket_shows_no_secret(bucket: Any) -> None:
    where = sink(**bucket[0])

    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in f"{where!r} {where} {where.model_dump()} {where.as_source()!r}"


def test_bucket_modes_again_and_empty(session: Session, bucket: Any) -> None:
    fields, fs, top = bucket
    where = sink(format="csv", **fields)

    load(where, session, job(), [(1, "")])
    load(where, session, job(run_key="run-2"), [(2, None)])
    assert stored(where, session) == [(1, ""), (2, None)]
    load(where, session, job("replace", run_key="run-3"), [])
    assert stored(where, session) == []
    assert len(fs.find(top)) == 2


def test_bucket_failed_load_leaves_nothing(session: Session, bucket: Any) -> None:
    fields, fs, top = bucket
    schema = Schema((Column("a", Type("decimal", precision=5, scale=2)),))

    with pytest.raises(BadValue):
        load(sink(**fields), session, job(schema=schema), [(Decimal(1),), (Decimal("NaN"),)])

    assert fs.find(top) == []
    assert not fs.call_s3("list_multipart_uploads", Bucket=top.split("/")[0]).get("Uploads")


def test_bucket_attempt_that_was_taken_over(session: Session, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fields, fs, top = bucket
    zombie = sink(**fields).open(session)
    assert zombie.begin(job(), None)
    zombie.write_rows([[(1, "old")]])
    counts = zombie.finish(Counts(read=1))
    monkeypatch.setattr(manifest, "host", lambda: "another machine")
    load(sink(**fields), session, job(), [(2, "new")])

    with contextlib.suppress(Passing):
        zombie.commit(counts)
    zombie.rollback()

    assert stored(sink(**fields), session) == [(2, "new")]
    assert len(fs.find(top)) == 2


BUCKET_WRITER = """
import json, os, sys
from rainbow_prefect.sql_etl.base import *
from rainbow_prefect.sql_etl.types import *
from rainbow_prefect.sql_etl.files import FilesSink
schema = Schema((Column("id", Type("int", bits=32), nullable=False), Column("name", Type("text"))))
writer = FilesSink(**json.loads(sys.argv[1])).open(Session())
job = Job("nightly.orders", "run-1", (None, "orders"), "append", schema)
place = writer._at(job.table)
moment = sys.argv[2]
print(writer.begin(job, None), flush=True)
writer.write_rows([[(1, "dead")]])
if moment == "written": os.kill(os.getpid(), 9)
counts = writer.finish(Counts(read=1))
if moment == "uploaded": os.kill(os.getpid(), 9)
if moment == "complete":
    for one in writer._new: one.kept.commit()
    os.kill(os.getpid(), 9)
writer.commit(counts)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("moment", ["written", "uploaded", "complete", "committed"])
def test_bucket_killed_and_tried_again(session: Session, bucket: Any, moment: str) -> None:
    fields, fs, top = bucket
    dead = subprocess.run(
        [sys.executable, "-c", BUCKET_WRITER, json.dumps(fields), moment], capture_output=True, text=True, timeout=120
    )
    assert dead.returncode == -signal.SIGKILL, dead.stderr

    found = load(sink(**fields), session, job(), [(1, "again")])

    assert (found is None) == (moment == "committed")
    assert stored(sink(**fields), session) == [(1, "dead" if moment == "committed" else "again")]
    assert len(fs.find(top)) == 2
    assert not fs.call_s3("list_multipart_uploads", Bucket=top.split("/")[0]).get("Uploads")


def test_bucket_manifest_is_swapped_once(session: Session, bucket: Any) -> None:
    from rainbow_prefect.sql_etl.places import Bucket

    _, fs, top = bucket
    place = Bucket(fs, top)
    assert place.manifest() == (None, None)

    assert place.swap(None, b"1")
    assert not place.swap(None, b"2")
    data, version = place.manifest()
    assert data == b"1"
    assert place.swap(version, b"3")
    assert not place.swap(version, b"4")
    assert place.manifest()[0] == b"3"


def test_bucket_patterns(session: Session, bucket: Any) -> None:
    fields, fs, top = bucket
    for n in (1, 2):
        fs.pipe(f"{top}/in/{n}.csv.gz", gzip.compress(f"a,b\n{n},x\n".encode()))

    source = FilesSource(path=f"{fields['path']}/in/*.csv.gz", storage=fields["storage"])

    assert both(source, session) == ([("1", "x"), ("2", "x")], b"1,x\n2,x\n")
    with pytest.raises(Refused, match="there is no file"):
        both(FilesSource(path=f"{fields['path']}/no/*.csv", storage=fields["storage"]), session)


def test_bucket_that_is_not_there(session: Session, bucket: Any) -> None:
    fields, _, _ = bucket

    with pytest.raises((Refused, Passing)) as told:
        load(sink(path="s3://there-is-none-of-this-name/x", storage=fields["storage"]), session, job(), [])

    assert str(told.value).startswith("'s3://there-is-none-of-this-name/x/orders' cannot be used")
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in str(told.value)


# -- with others, as `move` does it


def test_untyped_csv_takes_the_types_of_the_table(session: Session) -> None:
    put(session, "a.csv", 'id,amount,note\n7,1.5,\n8,,""\n')
    target = SqlSink(url="duckdb:///shop.duckdb")
    schema = Schema(
        (
            Column("id", Type("int", bits=64)),
            Column("amount", Type("decimal", precision=5, scale=2)),
            Column("note", Type("text")),
        )
    )
    writer = target.open(session)
    assert writer.begin(job(schema=schema), None)
    writer.commit(writer.finish(Counts()))
    writer.close()

    moved = move(Order("n", "r", Query(), (None, "orders"), "append"), FilesSource(path="a.csv"), target, session)

    assert (moved.engine, moved.counts.written) == ("arrow", 2)
    read = target.as_source().open(session)
    query = Query(table=(None, "orders"))
    assert [row for some in read.rows(query, read.describe(query)) for row in some] == [
        (7, Decimal("1.50"), None), (8, None, ""),
    ]  # fmt: skip
    read.close()
    put(session, "b.csv", "id,amount\n7,1.555\n")
    with pytest.raises(BadValue, match="^column 'amount', row 1: the value '1.555' cannot be decimal128"):
        move(Order("n", "r2", Query(), (None, "orders"), "append"), FilesSource(path="b.csv"), target, session)


@pytest.mark.parametrize("form", FORMATS)
def test_files_to_files_once(session: Session, form: Any) -> None:
    load(sink(), session, job(), [(1, ""), (2, None)])
    order = Order("copy", "run", NUMBERS, (None, "orders"), "append")
    target = sink(path="copy", format=form)

    moved = [move(order, sink().as_source(), target, session) for _ in range(2)]

    assert [one.skipped for one in moved] == [False, True]
    assert rows_of(target.as_source(), session) == [(1, ""), (2, None)]


def test_lanes_of_csv() -> None:
    def why(came: Type, target: Type) -> bool:
        columns = Schema((Column("a", came),)), Schema((Column("a", target),))
        return choose(*columns, ("csv", "arrow", "rows"), ("csv", "arrow", "rows")).lane == "csv"

    assert why(Type("int", bits=64, dialect="csv"), Type("int", bits=64, native="bigint", dialect="postgresql"))
    assert why(
        Type("timestamptz", native="timestamp with time zone", dialect="postgresql"), Type("timestamptz", dialect="csv")
    )
    assert not why(
        Type("decimal", precision=5, scale=2, dialect="csv"),
        Type("decimal", precision=5, scale=2, dialect="postgresql"),
    )
    assert not why(Type("date", dialect="csv"), Type("date", dialect="postgresql"))
    assert not why(Type("int", bits=64, dialect="csv"), Type("int", bits=64, dialect="csv"))
