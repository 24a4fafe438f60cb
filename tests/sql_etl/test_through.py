"""Files and functions through DuckDB: what is done to rows on the way where the source takes no SQL, each value as it was."""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rainbow_prefect.sql_etl.base import BadValue, Query, Refused, Session
from rainbow_prefect.sql_etl.config import Source
from rainbow_prefect.sql_etl.files import FilesSource
from rainbow_prefect.sql_etl.function import FunctionSource
from rainbow_prefect.sql_etl.incremental import Incremental
from rainbow_prefect.sql_etl.move import Moved, Order, move
from rainbow_prefect.sql_etl.quality import Quality
from rainbow_prefect.sql_etl.shape import Dedupe, Shape
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink, SqlSource
from rainbow_prefect.sql_etl.through import ThroughReader, around

ORDERS = """\
id,day,amount,name
1,2024-05-01,10.50,Ann
2,2024-05-02,,Bob
2,2024-05-03,7.25,"Bob, again"
3,2024-05-01,1,
"""
TYPES = {"id": "bigint", "day": "date", "amount": "decimal(10,2)"}


class Lake:
    """A folder of files and a file of DuckDB as the sink."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = 0

    def csv(self, table: str, text: str) -> None:
        file = self.folder / "lake" / table / "one.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def source(self, **more: Any) -> FilesSource:
        return FilesSource(path="lake", **more)

    def order(self, query: Query, **more: Any) -> Order:
        self.runs += 1
        shape = Shape(**more.pop("shape", {}))
        known = {"name": "a/p/t", "run_key": f"run-{self.runs}", "table": (None, "made"), "mode": "replace"}
        return Order(**{**known, "query": query, "quality": Quality(shape), **more})

    def session(self) -> Session:
        return Session(root=self.folder, stop=threading.Event())

    def __call__(self, query: Query, source: Source | None = None, **more: Any) -> Moved:
        url = more.pop("url", "duckdb:///sink.duckdb")
        return move(self.order(query, **more), source or self.source(types=TYPES), SqlSink(url=url), self.session())

    def rows(self, sql: str = "select * from made order by all") -> list[Any]:
        import duckdb

        with duckdb.connect(str(self.folder / "sink.duckdb")) as found:
            return found.execute(sql).fetchall()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(tmp_path)
    made.csv("orders", ORDERS)
    return made


TABLE = Query(table=(None, "orders"))


def test_all_that_is_done_on_the_way(lake: Lake) -> None:
    lake(
        TABLE,
        shape={
            "filter": ("amount > 5 or amount is null",),
            "dedupe": Dedupe(by=("day",), keep="last"),
            "keys": ("id",),
            "columns": {"twice": "amount * 2"},
            "cast": {"day": "timestamp"},
            "rename": {"name": "label"},
            "mask": {"label": "redact"},
        },
    )

    assert lake.rows() == [
        (1, datetime(2024, 5, 1), Decimal("10.50"), "***", Decimal("21.00")),
        (2, datetime(2024, 5, 3), Decimal("7.25"), "***", Decimal("14.50")),
    ]


def test_a_hash_is_that_of_other_sources(lake: Lake) -> None:
    lake(TABLE, shape={"filter": ("id = 1",), "select": ("name",), "mask": {"name": "hash"}, "salt": "s"})

    assert lake.rows() == [(sha256(b"sAnn").hexdigest(),)]


def test_a_query_joins_files(lake: Lake) -> None:
    lake.csv("people", "id,who\n1,Ann\n2,Bob\n")
    query = """
        with few as (select * from orders where id < '3')  -- of the files
        select p.who, sum(cast(s.amount as decimal(10, 2))) as total from few s join people p using (id) group by 1;
    """

    moved = lake(Query(sql=query), lake.source())

    assert moved.counts.written == 2
    assert lake.rows() == [("Ann", Decimal("10.50")), ("Bob", Decimal("7.25"))]


def test_a_query_that_names_no_files_is_refused(lake: Lake) -> None:
    with pytest.raises(Refused) as told:
        lake(Query(sql="select * from ordrs"))

    assert "ordrs" in told.value.message


@pytest.mark.parametrize("path", ["/etc/hostname", "lake/orders/one.csv"])
def test_a_query_reads_no_files_by_itself(lake: Lake, path: str) -> None:
    with pytest.raises(Refused, match="disabled"):
        lake(Query(sql=f"select * from read_text('{path}')"))


def test_text_of_csv_takes_the_type_of_the_table(lake: Lake) -> None:
    lake.rows("create table made (id integer, day date, amount decimal(10, 2), name varchar)")

    lake(TABLE, lake.source(), shape={"filter": ("id <> '3'",)}, mode="append")

    assert lake.rows()[0] == (1, date(2024, 5, 1), Decimal("10.50"), "Ann")
    assert len(lake.rows()) == 3


def test_text_that_is_no_value_of_the_table_names_its_row(lake: Lake) -> None:
    lake.csv("orders", "id,day\n1,2024-05-01\n2,yesterday\n")
    lake.rows("create table made (id integer, day date)")

    with pytest.raises(BadValue, match="column 'day', row 2.*yesterday"):
        lake(TABLE, lake.source(), shape={"filter": ("true",)}, mode="append")

    assert lake.rows() == []


def test_an_error_of_the_file_is_told_as_without_duckdb(lake: Lake) -> None:
    lake.csv("orders", ORDERS + "4,tomorrow,1,x\n")
    told = []
    for shape in ({}, {"filter": ("true",)}):
        with pytest.raises(BadValue) as raised:
            lake(TABLE, shape=shape)
        told.append(raised.value.message)

    assert told[0] == told[1]
    assert "column 'day', row 5" in told[0]


def test_incremental_loads_of_files(lake: Lake) -> None:
    def load() -> int:
        found = lake(TABLE, mode="append", incremental=Incremental("day"))
        return found.counts.written

    first = load()
    (lake.folder / "lake/orders/two.csv").write_text("id,day,amount,name\n4,2024-05-03,1,x\n5,2024-05-04,2,y\n")

    assert (first, load(), load()) == (4, 1, 0)
    assert lake.rows("select max(id) from made") == [(5,)]


def test_a_cursor_of_text_is_refused(lake: Lake) -> None:
    with pytest.raises(
        Refused, match="^the cursor 'id' is text, whose order is not that of numbers; say its type in `types`"
    ):
        lake(TABLE, lake.source(), mode="append", incremental=Incremental("id"))


VALUES = {
    "int64": pa.array([2**63 - 1, None], pa.int64()),
    "uint64": pa.array([2**64 - 1, 0], pa.uint64()),
    "float": pa.array([math.nan, -math.inf], pa.float64()),
    "decimal": pa.array([Decimal("1234567890123456789012345678.0123456789"), Decimal("-1E-10")], pa.decimal128(38, 10)),
    "text": pa.array(["", "\\N'\"\x00 ä😀"], pa.string()),
    "bytes": pa.array([b"\x00\xff", None], pa.binary()),
    "date": pa.array([date(1, 1, 1), date(9999, 12, 31)], pa.date32()),
    "timestamp": pa.array([-62135596800000000, 253402300799999999], pa.timestamp("us")),
    "zoned": pa.array([0, 253402300799999999], pa.timestamp("us", "UTC")),
    "nanos": pa.array([1, -1], pa.timestamp("ns")),
    "list": pa.array([["a", None], []], pa.list_(pa.string())),
    "struct": pa.array(
        [{"a": 1, "b": Decimal("1.50")}, None], pa.struct([("a", pa.int64()), ("b", pa.decimal128(5, 2))])
    ),
    "flag": pa.array([True, None]),
}


def parquet(lake: Lake, columns: dict[str, pa.Array]) -> FilesSource:
    folder = lake.folder / "parquet" / "values"
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "one.parquet")
    return FilesSource(path="parquet")


def test_every_value_comes_out_as_it_went_in(lake: Lake) -> None:
    source = parquet(lake, VALUES)
    query = Query(table=(None, "values"))
    plain = source.open(lake.session())
    through = around(source.open(lake.session()), lake.order(query, shape={"filter": ("true",)}), lake.session())
    assert isinstance(through, ThroughReader)

    schema = plain.describe(query)
    with_filter = through.describe(Query(table=query.table, where=("true",)))
    wanted = pa.Table.from_batches(plain.batches(query, schema))
    found = pa.Table.from_batches(through.batches(query, with_filter))
    rows = [row for some in through.rows(query, with_filter) for row in some]
    wanted_rows = [row for some in plain.rows(query, schema) for row in some]
    through.close()

    assert with_filter == schema
    assert found.schema.equals(wanted.schema)
    for name in found.column_names:
        both = found[name].combine_chunks(), wanted[name].combine_chunks()
        assert both[0].equals(both[1]) or str(both[0].to_pylist()) == str(both[1].to_pylist()), (
            name
        )  # NaN equals nothing
    assert str(rows) == str(wanted_rows)


@pytest.mark.parametrize(
    ("array", "spelled"),
    [
        (pa.array([1], pa.timestamp("ns", "UTC")), "timestamp[ns, tz=UTC]"),
        (pa.array([1], pa.time64("ns")), "time64[ns]"),
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "month_day_nano_interval"),
        (pa.array([Decimal(10) ** 40], pa.decimal256(50, 2)), "decimal256(50, 2)"),
    ],
)
def test_what_duckdb_would_cut_is_refused(lake: Lake, array: Any, spelled: str) -> None:
    def given() -> Iterator[Any]:
        yield pa.record_batch({"a": array})

    code = lake.folder / "odd.py"
    code.write_text("def rows(): return FOUND\n")
    import importlib
    import sys

    sys.path.insert(0, str(lake.folder))
    try:
        sys.modules.pop("odd", None)
        importlib.import_module("odd").FOUND = list(given())
        source = FunctionSource(module="odd", function="rows")
        with pytest.raises(Refused) as told:
            lake(Query(table=(None, "x")), source, shape={"filter": ("true",)})
    finally:
        sys.path.remove(str(lake.folder))
        sys.modules.pop("odd", None)

    assert told.value.message.startswith(f"column 'a' is {spelled}, which DuckDB cannot hold exactly; leave out ")


FUNCTION = """
calls = []


def numbers(count):
    calls.append(count)
    for n in range(count):
        yield {"n": n, "half": n / 2}
"""


@pytest.fixture
def numbers(lake: Lake) -> FunctionSource:
    name = f"numbers_{lake.folder.name}".replace("-", "_")
    (lake.folder / f"{name}.py").write_text(FUNCTION)
    return FunctionSource(module=name, function="numbers", arguments={"count": 5000})


def test_rows_of_a_function_are_changed_on_the_way(lake: Lake, numbers: FunctionSource) -> None:
    lake(Query(table=(None, "x")), numbers, shape={"filter": ("n % 1000 = 999",), "columns": {"n2": "n * n"}})
    first = lake.rows()
    lake(Query(sql="select count(*) as c, sum(half) as s from rows"), numbers, table=(None, "summed"))

    assert first[0] == (999, 499.5, 998001)
    assert len(first) == 5
    assert lake.rows("from summed") == [(5000, 6248750.0)]


def test_a_function_is_one_table_and_read_once(lake: Lake, numbers: FunctionSource) -> None:
    with pytest.raises(Refused, match="^a function gives one table, and the query names several"):
        lake(Query(sql="select * from one, two"), numbers)
    with pytest.raises(Refused, match="^a function has no `incremental`, since it is called once"):
        lake(Query(table=(None, "x")), numbers, mode="append", incremental=Incremental("n"))


def test_engine_duckdb_moves_files_and_says_so(lake: Lake) -> None:
    reader = around(lake.source(types=TYPES).open(lake.session()), lake.order(TABLE, engine="duckdb"), lake.session())
    reader.close()

    moved = lake(TABLE, engine="duckdb")

    assert reader.through == "DuckDB, as `engine` says"
    assert (moved.engine, moved.counts.written) == ("arrow", 4)


def test_what_needs_no_sql_goes_without_duckdb(lake: Lake) -> None:
    order = lake.order(TABLE, shape={"select": ("id",), "rename": {"id": "number"}})
    reader = lake.source().open(lake.session())

    assert around(reader, order, lake.session()) is reader


def test_engine_duckdb_reads_no_other_database(lake: Lake) -> None:
    sqlite3.connect(lake.folder / "shop.db").close()

    with pytest.raises(Refused) as told:
        lake(Query(sql="select 1 as a"), SqlSource(url="sqlite:///shop.db"), engine="duckdb")

    assert told.value.message == (
        "`engine: duckdb` cannot be used here: DuckDB does not read sqlite without its extension sqlite_scanner, "
        "which is not built in; write `engine: auto`"
    )


def test_rows_are_not_held_all_at_once(lake: Lake) -> None:
    """What DuckDB reads ahead is bounded, however many rows there are."""
    read = 0

    class Endless(FunctionSource):
        def open(self, session: Session) -> Any:
            reader = super().open(session)

            def batches(query: Query, schema: Any) -> Iterator[Any]:
                nonlocal read
                while True:
                    read += 1
                    yield pa.record_batch({"n": pa.array(range(10_000), pa.int64())})

            reader.batches = batches  # type: ignore[method-assign]
            return reader

    code = lake.folder / "endless_rows.py"
    code.write_text("def rows():\n    yield {'n': 1}\n")
    source = Endless(module="endless_rows", function="rows")
    query = Query(table=(None, "x"), where=("n >= 0",))
    session = lake.session()
    reader = around(source.open(session), lake.order(query, shape={"filter": ("n >= 0",)}), session)

    pieces = reader.batches(query, reader.describe(query))
    some = [next(pieces).num_rows for _ in range(20)]
    session.stop.set()
    list(pieces)
    reader.close()

    assert sum(some) > 20 * 1000
    assert read < 400


def test_zoned_values_keep_their_instant(lake: Lake) -> None:
    source = parquet(lake, {"moment": pa.array([datetime(2024, 3, 31, 1, 30, tzinfo=UTC)], pa.timestamp("us", "UTC"))})

    lake(Query(table=(None, "values")), source, shape={"columns": {"day": "cast(moment as date)"}})

    assert lake.rows("select epoch_us(moment), day from made") == [(1711848600000000, date(2024, 3, 31))]
