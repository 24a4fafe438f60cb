"""The lane of CSV between files and PostgreSQL: bytes passed through, the same data as by the other lanes."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect.sql_etl.base import BadValue, Query, Session
from rainbow_prefect.sql_etl.config import Sink, Source
from rainbow_prefect.sql_etl.files import FilesSink, FilesSource
from rainbow_prefect.sql_etl.move import Moved, Order, move
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink, SqlSource

MAKE = "create table {name} (id bigint, n integer, weight double precision, name text, code uuid, facts json)"
ROWS = [
    (1, 7, 0.1, "plain", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", '{"a": 1, "a": 2}'),
    (2, None, None, None, None, None),
    (3, -(2**31), float("nan"), "", "00000000-0000-0000-0000-000000000000", "null"),
    (2**63 - 1, 0, float("-inf"), 'comma, "quote"\r\nline', None, '"\\\\."'),
    (-(2**63), 1, 1e-300, "\\.", None, "[]"),
    (5, 2, 5e-324, "a\n\\.\nb", None, "{}"),
    (6, 3, 1.7976931348623157e308, "\\N", None, '{"t": "é 😀 中"}'),
    (7, 4, -0.0, " spaces\tand NULL ", None, None),
]
TEXT = "select id, n, weight::text, name, code::text, facts::text from {name} order by id"


class Place:
    """A folder of files beside a database of PostgreSQL."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder, self.runs = url, folder, 0

    def sql(self, statement: str, rows: list[tuple[Any, ...]] | None = None) -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(self.url) as connection, connection.cursor() as cursor:
            if rows is not None:
                cursor.executemany(statement.encode(), rows)
                return []
            cursor.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def move(self, source: Source, sink: Sink, table: str, **more: Any) -> Moved:
        self.runs += 1
        known: dict[str, Any] = {"query": Query(table=(None, table)), "table": (None, table), "mode": "replace"}
        return move(
            Order(**{"name": "t", "run_key": str(self.runs), **known, **more}), source, sink, Session(root=self.folder)
        )

    @property
    def database(self) -> tuple[SqlSource, SqlSink]:
        return SqlSource(url=self.url), SqlSink(url=self.url)

    def files(self, **more: Any) -> tuple[FilesSource, FilesSink]:
        return FilesSource(path="lake", format="csv"), FilesSink(path="lake", format="csv", **more)

    def forget_types(self) -> None:
        """Make files of ours such as anybody writes: nothing says what is in them."""
        (self.folder / "lake/things/_manifest").unlink()

    def lines(self) -> bytes:
        """The bytes of all files of CSV."""
        files = sorted((self.folder / "lake").rglob("*.csv*"))
        return b"".join(gzip.decompress(one.read_bytes()) if one.suffix == ".gz" else one.read_bytes() for one in files)


@pytest.fixture
def place(postgres: str, tmp_path: Path) -> Place:
    made = Place(postgres, tmp_path)
    made.sql(MAKE.format(name="things"))
    made.sql("insert into things values (%s, %s, %s, %s, %s::uuid, %s::json)", ROWS)
    return made


def test_files_have_the_bytes_of_copy_and_come_back_the_same(place: Place) -> None:
    out = place.move(place.database[0], place.files()[1], "things")
    written = place.lines()
    place.forget_types()
    place.sql(MAKE.format(name="again"))
    back = place.move(place.files()[0], place.database[1], "again", query=Query(table=(None, "things")))

    assert (out.engine, out.counts.written) == ("csv", len(ROWS))
    assert written.startswith(b"id,n,weight,name,code,facts\n1,7,0.1,plain,a0eebc99-")
    assert b'\n3,-2147483648,NaN,"",' in written
    assert (back.engine, back.counts.written) == ("csv", len(ROWS))
    assert place.sql(TEXT.format(name="again")) == place.sql(TEXT.format(name="things"))


@pytest.mark.parametrize("engine", ["copy", "arrow", "rows"])
def test_every_engine_brings_the_same(place: Place, engine: Any) -> None:
    place.sql(MAKE.format(name="again"))

    place.move(place.database[0], place.files(compression="gzip")[1], "things", engine=engine)
    place.forget_types()
    moved = place.move(place.files()[0], place.database[1], "again", query=Query(table=(None, "things")), engine=engine)

    assert moved.engine == {"copy": "csv"}.get(engine, engine)
    assert place.sql(TEXT.format(name="again")) == place.sql(TEXT.format(name="things"))


def test_what_the_server_would_read_loosely_goes_as_arrow(place: Place) -> None:
    """1.005 as numeric(10,2) would be rounded, and 2/3/2024 be a date of either order."""
    (place.folder / "lake/loose").mkdir(parents=True)
    (place.folder / "lake/loose/a.csv").write_text("price,day\n1.005,2024-03-02\n")
    place.sql("create table loose (price numeric(10, 2), day date)")

    with pytest.raises(BadValue, match=r"column 'price', row 1.*1\.005"):
        place.move(*(place.files()[0], place.database[1]), "loose")

    assert place.sql("select count(*) from loose") == [(0,)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id,name\n1,a\n\\.\n2,b\n", "the file 'a.csv' has a row that is \\\\. alone"),
        ("id,name\n1,a\n2,b,c\n", "extra data after last expected column"),
        ("id,name\n1,a\nx,b\n", 'invalid input syntax for type bigint: "x"'),
        ('id,name\n1,a"b\n', "quote"),
    ],
)
def test_what_is_wrong_in_a_file_leaves_the_table_as_it_was(place: Place, text: str, reason: str) -> None:
    (place.folder / "lake/bad").mkdir(parents=True)
    (place.folder / "lake/bad/a.csv").write_text(text)
    place.sql("create table bad as select 9::bigint as id, 'old'::text as name")

    with pytest.raises(BadValue, match=reason):
        place.move(*(place.files()[0], place.database[1]), "bad", engine="copy")

    assert place.sql("select * from bad") == [(9, "old")]


def test_many_rows_in_many_chunks_are_counted(place: Place) -> None:
    place.sql("create table many as select i as id, repeat('x', 200) as name from generate_series(1, 20000) as i")

    out = place.move(place.database[0], place.files()[1], "many")
    place.sql("create table many_again (id integer, name text)")
    back = place.move(place.files()[0], place.database[1], "many_again", query=Query(table=(None, "many")))

    assert (out.counts.read, back.counts.read, back.counts.written) == (20_000, 20_000, 20_000)
    assert place.sql("select count(*), sum(id) from many_again") == [(20_000, 200_010_000)]
