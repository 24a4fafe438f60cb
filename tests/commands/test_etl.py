"""`rainbow etl`: rows before they are loaded, after it compared with the query, and where the next load goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rainbow_prefect import cli
from tests.commands.sql import Shop
from tests.conftest import Done

Tell = Callable[..., Done]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def tell(shop: Shop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Tell:
    """`rainbow etl ARGS` in the folder of the shop, in this process."""
    monkeypatch.chdir(shop.folder)

    def run(*args: str, code: int = 0) -> Done:
        capfd.readouterr()
        status = cli._call(["etl", *args])
        out, err = capfd.readouterr()
        assert status == code, f"exit status {status}\n{out}\n{err}"
        return Done(status, out, err)

    return run


# -- preview


def test_preview_shows_rows_and_types_and_writes_nothing(shop: Shop, tell: Tell) -> None:
    shop.do("shop", "alter table orders add column raw blob default x'00ff'")
    shop.write("select id, amount, note, raw from orders order by id")

    done = tell("preview", "-p", "nightly", "-t", "orders", "--rows", "2")

    assert done.out == (
        "id       amount  note  raw\n"
        "INTEGER  REAL    TEXT  BLOB\n"
        "1        10.0    NULL  \\x00ff\n"
        "2        20.5          \\x00ff\n"
        "the first 2 rows; there are more\n"
    )
    assert sorted(one.name for one in shop.folder.iterdir()) == ["rainbow.yml", "shop.db"]


def test_preview_tells_all_rows_as_json(shop: Shop, tell: Tell) -> None:
    shop.write("select id, note from orders order by id")

    assert tell("preview", "--json").json == {
        "columns": [{"name": "id", "type": "INTEGER"}, {"name": "note", "type": "TEXT"}],
        "rows": [[1, None], [2, ""], [3, "a b"], [4, "NULL"]],
        "more": False,
    }


def test_preview_of_no_rows(shop: Shop, tell: Tell) -> None:
    shop.write("select id from orders where id > 9")

    assert tell("preview").out == "id\nINTEGER\n0 rows\n"


def test_preview_shows_no_line_breaks_and_no_escapes(shop: Shop, tell: Tell) -> None:
    shop.do("shop", "update orders set note = 'a' || char(10) || char(27) || '[31m'")
    shop.write("select note from orders where id = 1")

    assert tell("preview").out == "note\nTEXT\na\\n\\x1b[31m\n1 row\n"


def test_preview_does_not_read_what_it_does_not_show(shop: Shop, tell: Tell) -> None:
    """A query of 1,000,000,000 rows: all of it would not come in time."""
    numbers = ", ".join(f"({one})" for one in range(1000))
    shop.do("shop", f"create table n (i integer); insert into n values {numbers}")
    shop.write("select a.i from n a, n b, n c")

    assert tell("preview", "--rows", "3").out.splitlines()[-1] == "the first 3 rows; there are more"


def test_preview_does_not_need_the_sink(shop: Shop, tell: Tell) -> None:
    file = shop.folder / "rainbow.yml"
    file.write_text(file.read_text().replace("sqlite:///mart.db", "sqlite:///nowhere/mart.db"))

    assert len(tell("preview", "--json").json["rows"]) == 4


def test_preview_of_an_incremental_task_shows_what_is_next(shop: Shop, tell: Tell) -> None:
    shop.write("select id, day from orders", incremental="{cursor: id}")
    shop.load()
    shop.do("shop", "insert into orders values (5, '2024-05-03', 'PL', 1, null)")

    assert tell("preview", "--json").json["rows"] == [[5, "2024-05-03"]]


def test_a_query_that_is_wrong_is_told_at_its_place(shop: Shop, tell: Tell) -> None:
    shop.write("select nix from orders")

    done = tell("preview", code=2)

    assert done.err == (
        "rainbow.yml:9:17: pipeline 'nightly', task 'orders': the query is not accepted: no such column: nix\n"
    )


# -- diff


def test_diff_of_what_was_just_loaded(shop: Shop, tell: Tell) -> None:
    shop.load()

    assert tell("diff").out == "equal: the query gives 4 rows, the table orders has 4\n"


def test_diff_shows_rows_that_are_missing_changed_or_too_many(shop: Shop, tell: Tell) -> None:
    shop.load()
    shop.do(
        "mart",
        "update orders set amount = 6 where id = 3; delete from orders where id = 1; insert into orders values (9, '2020-01-01', null)",
    )

    done = tell("diff", code=1)

    assert done.out == (
        "different: the query gives 4 rows, the table orders has 4\n"
        "1 missing in the table, 1 only there, 1 changed\n"
        "\n"
        "         key   query                       table\n"
        "missing  id=1  day=2024-05-01 amount=10.0\n"
        "changed  id=3  amount=5.0                  amount=6.0\n"
        "extra    id=9                              day=2020-01-01 amount=NULL\n"
    )


def test_diff_as_json(shop: Shop, tell: Tell) -> None:
    shop.load()
    shop.do("mart", "update orders set amount = null where id = 2")

    found = tell("diff", "--json", code=1).json

    assert (found["equal"], found["exists"], found["complete"]) == (False, True, True)
    assert (found["rows_query"], found["rows_table"]) == (4, 4)
    assert (found["missing"], found["extra"], found["changed"]) == (0, 0, 1)
    assert found["differences"] == [
        {"kind": "changed", "key": {"id": 2}, "query": {"amount": 20.5}, "table": {"amount": None}}
    ]


def test_diff_shows_so_many_and_counts_all(shop: Shop, tell: Tell) -> None:
    shop.load()
    shop.do("mart", "update orders set amount = 0")

    lines = tell("diff", "--rows", "1", code=1).out.splitlines()

    assert lines[1] == "0 missing in the table, 0 only there, 4 changed"
    assert lines[-1] == "and 3 more; --rows shows them"
    assert len(lines) == 6


def test_diff_without_a_table(shop: Shop, tell: Tell) -> None:
    assert tell("diff", code=1).out == "the table orders does not exist\n"
    assert not (shop.folder / "mart.db").exists()


def test_diff_tells_columns_that_one_side_has_not(shop: Shop, tell: Tell) -> None:
    shop.do("mart", "create table orders (id integer, day date, source text)")
    shop.do("mart", "insert into orders values (1, '2024-05-01', 'x'), (2, '2024-05-01', 'x'), (3, '2024-05-02', 'x')")
    shop.do("mart", "insert into orders values (4, '2024-05-01', 'x')")

    lines = tell("diff", code=1).out.splitlines()

    assert lines == [
        "different: the query gives 4 rows, the table orders has 4",
        "the table has no column amount",
        "not compared, since only the table has them: source",
    ]


def test_diff_without_keys_counts_rows_that_are_there_twice(shop: Shop, tell: Tell) -> None:
    shop.write("select id, country from orders")
    shop.load()
    shop.load()

    found = tell("diff", "--json", code=1).json

    assert (found["missing"], found["extra"], found["changed"]) == (0, 4, 0)
    assert found["differences"][0] == {"kind": "extra", "key": {"id": 1, "country": "PL"}, "query": {}, "table": {}}


def test_diff_of_an_incremental_task_compares_all_that_was_loaded(shop: Shop, tell: Tell) -> None:
    shop.write("select id, day from orders", incremental="{cursor: id}")
    shop.load()
    shop.do("shop", "insert into orders values (5, '2024-05-03', 'PL', 1, null)")
    shop.load()

    assert tell("diff").out == "equal: the query gives 5 rows, the table orders has 5\n"


# -- state


def test_state_is_shown_and_reset(shop: Shop, tell: Tell) -> None:
    shop.write("select id, day from orders", incremental="{cursor: id}")
    assert tell("state", "show").out == (
        "no load of shop/nightly/orders has left a state; the next one begins at the start\n"
    )
    shop.load()

    assert tell("state", "show", "-p", "nightly", "-t", "orders").out == "cursor  4\n"
    assert tell("state", "reset", code=2).err == (
        "Error: the next load of shop/nightly/orders would begin at the start, not after cursor 4; "
        "add --yes to delete the state\n"
    )
    assert tell("state", "show", "--json").json["state"]["cursor"]["value"] == "4"
    assert tell("state", "reset", "--yes").out == (
        "the state of shop/nightly/orders is deleted; the next load begins at the start\n"
    )
    assert tell("state", "show", "--json").json["state"] == {}
    assert tell("state", "reset", "--yes").out == (
        "no load of shop/nightly/orders has left a state; there is nothing to reset\n"
    )
    shop.load()
    assert shop.rows("select count(*) from orders") == [(8,)]


def test_reset_leaves_what_was_loaded_known(shop: Shop, tell: Tell) -> None:
    shop.write("select id, day from orders", incremental="{cursor: id}")
    shop.load()
    before = shop.rows("select run_key, part, committed from _rainbow_etl_ledger")

    tell("state", "reset", "--yes")

    assert shop.rows("select run_key, part, committed from _rainbow_etl_ledger") == before
