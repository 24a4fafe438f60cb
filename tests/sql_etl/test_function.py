"""A function of the user's code as a source: what it may yield, and how it is told that it may not."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from rainbow_prefect.errors import TaskFailed
from rainbow_prefect.sql_etl.base import BadValue, Query, Refused, Session
from rainbow_prefect.sql_etl.function import FunctionSource

Read = Callable[..., Any]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """The rows of a function `rows` with this body, and the kinds of its columns."""

    def read(body: str, **fields: Any) -> Any:
        code = tmp_path / "code"
        code.mkdir(exist_ok=True)
        head = "import pyarrow as pa\nfrom datetime import *\nfrom decimal import Decimal\n"
        (code / "shop.py").write_text(head + textwrap.dedent(body))
        source = FunctionSource(**{"module": "shop", "function": "rows", "folder": "code", **fields})
        before = list(sys.path)
        reader = source.open(Session(root=tmp_path))
        try:
            schema = reader.describe(Query())
            found = [row for some in reader.rows(Query(), schema) for row in some]
        finally:
            reader.close()
        assert sys.path == before
        assert "shop" not in sys.modules
        return found, [one.type.kind for one in schema.columns]

    return read


@pytest.mark.parametrize(
    "body",
    [
        "def rows():\n yield pa.record_batch({'a': [1, 2], 'b': ['x', None]})",
        "def rows():\n return pa.table({'a': [1, 2], 'b': ['x', None]})",
        "def rows():\n return [pa.table({'a': [1], 'b': ['x']}), pa.record_batch({'a': [2], 'b': pa.array([None], pa.string())})]",
        "def rows():\n return pa.table({'a': [1, 2], 'b': ['x', None]}).to_reader()",
        "class Frame:\n def __arrow_c_stream__(self, requested_schema=None):\n"
        "  return pa.table({'a': [1, 2], 'b': ['x', None]}).__arrow_c_stream__(requested_schema)\n"
        "def rows():\n yield Frame()",
        "def rows():\n return [{'a': 1, 'b': 'x'}, {'a': 2}]",
        "def rows():\n yield {'a': 1, 'b': 'x'}\n yield {'a': 2, 'b': None}",
        "def rows():\n yield [{'a': 1, 'b': 'x'}]\n yield [{'a': 2}]",
        "async def rows():\n return [{'a': 1, 'b': 'x'}, {'a': 2}]",
        "class Shop:\n @staticmethod\n def all():\n  return [{'a': 1, 'b': 'x'}, {'a': 2}]\nrows = Shop.all",
    ],
)
def test_what_a_function_may_give(read: Read, body: str) -> None:
    assert read(body) == ([(1, "x"), (2, None)], ["int", "text"])


def test_tuples_have_the_names_of_types(read: Read) -> None:
    body = "def rows():\n yield 1, Decimal('1.10')\n yield 2, None"

    assert read(body, types={"a": "bigint", "b": "decimal(10,2)"}) == (
        [(1, Decimal("1.10")), (2, None)],
        ["int", "decimal"],
    )
    with pytest.raises(Refused, match=r"gives tuples of 2 values; name all in `types` \(named: 1\)$"):
        read(body, types={"a": "bigint"})


def test_values_of_python_stay_exact(read: Read) -> None:
    body = """
    def rows():
        yield {'a': Decimal('1.12345678901234567890'), 'b': datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1))),
               'c': date(2024, 2, 29), 'd': {'k': [1, None]}, 'e': b'x', 'f': True, 'g': 2**62, 'h': None}
    """

    found, kinds = read(body)

    assert found == [
        (Decimal("1.12345678901234567890"), datetime(2023, 12, 31, 23, tzinfo=UTC), date(2024, 2, 29), '{"k": [1, null]}',
         b"x", True, 2**62, None)
    ]  # fmt: skip
    assert kinds == ["decimal", "timestamptz", "date", "json", "bytes", "bool", "int", "text"]


def test_arguments_and_types(read: Read) -> None:
    body = "def rows(first, *, count=1):\n return [{'a': n} for n in range(first, first + count)]"

    assert read(body, arguments={"first": 3, "count": 2}, types={"a": "smallint", "b": "date"})[0] == [
        (3, None),
        (4, None),
    ]
    with pytest.raises(Refused, match="^function 'rows' of module 'shop' cannot be called with `arguments`: missing"):
        read(body)


def test_empty_results(read: Read) -> None:
    """Case 8."""
    assert read("def rows():\n yield pa.table({'a': pa.array([], pa.date32())})") == ([], ["date"])
    assert read("def rows():\n return []", types={"a": "date"}) == ([], ["date"])
    with pytest.raises(Refused, match="gave no rows and no columns; name them in `types`, or yield an empty table$"):
        read("def rows():\n return []")


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        ("def rows():\n yield pa.table({'a': [1, 2]})\n yield pa.table({'a': ['x']})", BadValue, "column 'a', row 3: function 'rows' of module 'shop' gives string from here on, and gave int64 before"),
        ("def rows():\n yield pa.table({'a': [1]})\n yield pa.table({'b': [1]})", BadValue, "function 'rows' of module 'shop' gives other columns from row 2 on: b; the first ones are a"),
        ("def rows():\n for n in range(1000):\n  yield {'a': n}\n yield {'b': 1}", BadValue, "row 1001 has the key 'b', which the first rows do not have; name it in `types`"),
        ("def rows():\n for n in range(1000):\n  yield {'a': n}\n yield {'a': 'x'}", BadValue, "column 'a', row 1001: the value 'x' cannot be int64: it is a str"),
        ("def rows():\n yield {'a': 1}\n yield {'a': 'x'}", BadValue, "column 'a' has int64 and text in the first rows; name its type in `types`"),
        ("def rows():\n yield {'a': object()}", BadValue, "column 'a' has an object; give numbers, text, bytes, dates, lists or dicts"),
        ("def rows():\n yield 5", BadValue, "function 'rows' of module 'shop' gave an int; yield record batches, tables, frames, dicts or tuples"),
        ("def rows():\n return 5", Refused, "function 'rows' of module 'shop' gave an int; return or yield rows, frames or record batches"),
        ("def rows():\n pass", Refused, "function 'rows' of module 'shop' gave nothing; return or yield rows, frames or record batches"),
        ("async def rows():\n yield 1", Refused, "function 'rows' of module 'shop' is an async generator; write a plain one"),
        ("def rows():\n raise ValueError('no such day')", TaskFailed, "function 'rows' of module 'shop' failed: ValueError: no such day (shop.py:5)"),
        ("def rows():\n yield {'a': 1}\n raise ValueError('late')", TaskFailed, "function 'rows' of module 'shop' failed: ValueError: late (shop.py:6)"),
        ("def row():\n pass", Refused, "module 'shop' has no function 'rows'; did you mean 'row'?"),
        ("import nothing_of_this_name", Refused, "module 'shop' cannot be imported: ModuleNotFoundError: No module named 'nothing_of_this_name' (shop.py:4)"),
        ("def rows(", Refused, "module 'shop' cannot be imported: SyntaxError: "),
        ("def rows():\n yield pa.table([[1], [2]], names=['a', 'a'])", Refused, "the columns 'a' occur more than once; rename them"),
    ],
)  # fmt: skip
def test_what_is_refused(read: Read, body: str, kind: type[Exception], reason: str) -> None:
    with pytest.raises(kind) as told:
        read(body)

    assert str(told.value).startswith(reason)


def test_module_below_its_folder(read: Read) -> None:
    assert read("def rows():\n return [{'a': 1}]", module="code.shop")[0] == [(1,)]
    with pytest.raises(Refused, match="^there is no folder 'cod'; correct `folder`$"):
        read("", folder="cod")


def test_two_folders_with_one_module(tmp_path: Path) -> None:
    for n in (1, 2):
        (tmp_path / f"code{n}").mkdir()
        (tmp_path / f"code{n}" / "shop.py").write_text(f"def rows():\n return [{{'a': {n}}}]")
    found = []
    for n in (1, 2):
        reader = FunctionSource(module="shop", function="rows", folder=f"code{n}").open(Session(root=tmp_path))
        found += [row for some in reader.rows(Query(), reader.describe(Query())) for row in some]
        reader.close()

    assert found == [(1,), (2,)]


def test_function_is_called_once(read: Read, tmp_path: Path) -> None:
    read(f"def rows():\n open({str(tmp_path / 'calls')!r}, 'a').write('x')\n yield {{'a': 1}}")

    assert (tmp_path / "calls").read_text() == "x"


def test_query_is_refused(tmp_path: Path) -> None:
    reader = FunctionSource(module="shop", function="rows").open(Session(root=tmp_path))

    with pytest.raises(Refused, match="^a function takes no query; give it `arguments`, and no `query`$"):
        reader.describe(Query(sql="select 1"))
    with pytest.raises(ValidationError, match="the type of 'a': 'nummer' is no known type"):
        FunctionSource(module="shop", function="rows", types={"a": "nummer"})


def test_stopped_between_batches(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def rows():\n while True:\n  yield {'a': 1}")
    session = Session(root=tmp_path)
    reader = FunctionSource(module="shop", function="rows").open(session)
    found = reader.batches(Query(), reader.describe(Query()))
    assert isinstance(next(found), pa.RecordBatch)

    session.stop.set()

    assert list(found) == []
    reader.close()
