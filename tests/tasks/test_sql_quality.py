"""The keys of SQL tasks for rows and tables: what `rainbow check` says of them, and a run from YAML."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect import check, load

TASK = """\
name: shop
secrets: [{secret: SALT, env: TEST_SQL_SALT}]
pipelines:
  - pipeline: p
    tasks:
      - task: t
        type: sql
        source: 'sqlite:///a.db'
        sink: 'sqlite:///b.db'
        table: t
"""


def problems(folder: Path, keys: str) -> list[str]:
    (folder / "rainbow.yml").write_text(f"{TASK}        {keys}\n")
    found = check.check(folder).problems
    return [f"{one.mark.line}:{one.mark.column}: {one.message}; {one.hint}".rstrip("; ") for one in found]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("contract: evolve", []),
        ("contract: {columns: discard_column, types: evolve}", []),
        ("contract: evolv", ["11:19: unknown contract 'evolv'; write freeze, evolve or a mapping"]),
        ("contract: {columns: evolv}", ["11:29: unknown columns 'evolv'; did you mean 'evolve'?"]),
        ("contract: {column: evolve}", ["11:20: unknown key 'column'; did you mean 'columns'?"]),
        ("checks: {id: {unique: true}, amount: [{ge: 0}, {lt: 9, on_fail: warn}], rows: {min: 1, drift: 50%}}", []),
        ("checks: {sql: 'select 1 from {staged}', columns: {rows: {not_null: true}}}", []),
        ("checks: {sql: [{sql: 'select 1', on_fail: warn}, 'select 2'], at: {max_age: 36h}}", []),
        ("checks: {id: {uniqe: true}}", ["11:23: unknown key 'uniqe'; did you mean 'unique'?"]),
        ("checks: {id: {ge: [1]}}", ["11:27: `ge` must be a number, a date or text, got a list"]),
        ("checks: {id: {regex: '('}}", ["11:30: '(' is not a regular expression: missing ), unterminated subpattern at position 0"]),
        ("checks: {id: {on_fail: stop}}", ["11:32: unknown on_fail 'stop'; known: fail, quarantine, warn"]),
        ("checks: {at: {max_age: soon}}", ["11:32: `max_age` must be a duration, got 'soon'; write e.g. 30m, 1h or 2d"]),
        (
            "checks: {at: {max_age: 1d, on_fail: quarantine}}",
            ["11:22: `max_age` is about no single row that could be put aside; write `on_fail: warn`"],
        ),
        ("checks: {rows: {drift: much}}", ["11:32: `drift` must be a share such as 50% or 0.5, got 'much'"]),
        ("checks: {rows: {on_fail: quarantine}}", ["11:34: unknown on_fail 'quarantine'; known: fail, warn"]),
        ("select: [a, b, a]", ["11:17: `select` names 'a' twice; name each column once"]),
        ("rename: {a: c, b: c}", ["11:17: two columns would be 'c'; give each its own name"]),
        ("mask: {a: hash}", ["11:15: `hash` needs `mask_salt`; write `mask_salt: '{{secret.NAME}}'`"]),
        ("mask: {a: hide}", ["11:19: unknown mask 'hide'; write hash or redact"]),
        ("{mask: {a: redact}, mask_salt: '{{secret.SALT}}'}"[1:-1].replace(", mask_salt", "\n        mask_salt"), []),
        ("mask_salt: pepper", ["11:20: the salt is written in the file; put it among `secrets`"]),
        ("dedupe: at", ["11:17: `dedupe` needs `keys`; name the columns that make rows the same"]),
        ("dedupe: {by: [at, id], keys: id, keep: first}", []),
        ("sample: 1%", []),
        ("sample: 200%", ["11:17: `sample` must be a share such as 95% or 0.95, got 2.0"]),
        ("on_bad_row: skip", ["11:21: unknown on_bad_row 'skip'; known: fail, quarantine"]),
        ("max_bad_rows: 5", ["11:9: no row is put aside, so there is nothing to count; write `on_bad_row: quarantine`"]),
        ("filter: a > 1", []),
        ("pre: [delete from x, delete from y]", []),
    ],
)  # fmt: skip
def test_check_tells_what_is_wrong_and_where(tmp_path: Path, keys: str, told: list[str]) -> None:
    assert problems(tmp_path, keys) == told


YAML = f"""\
{TASK}
        source_table: orders
        rename: {{email: mail}}
        mask: {{mail: hash}}
        mask_salt: '{{{{secret.SALT}}}}'
        filter: country <> 'XX'
        contract: evolve
        checks:
          id: {{unique: true, not_null: true}}
          amount: {{ge: 0}}
          rows: {{min: 1}}
        on_bad_row: quarantine
        post: create view if not exists lands as select distinct country from t
"""


def test_rows_are_shaped_checked_and_put_aside_in_a_run(
    tmp_path: Path, prefect_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rainbow.yml").write_text(YAML)
    for name, script in {
        "a": """create table orders (id integer, country text, amount real, email text);
                insert into orders values (1, 'PL', 2.5, 'a@x'), (2, 'DE', -1, 'b@x'), (3, 'XX', 1, 'c@x')""",
        "b": "create table t (id integer, country text); insert into t values (9, 'FR')",
    }.items():
        with sqlite3.connect(tmp_path / f"{name}.db") as db:
            db.executescript(script)
        db.close()
    monkeypatch.setenv("TEST_SQL_SALT", "pepper-and-salt")

    report = load(tmp_path).pipeline("p").run()

    assert report.state == "completed"
    output = report["t"].output
    assert (output["rows_read"], output["rows_written"], output["rows_quarantined"]) == (2, 1, 1)
    assert output["ddl"][:2] == ['ALTER TABLE "t" ADD "amount" REAL', 'ALTER TABLE "t" ADD "mail" TEXT']
    hashed = [hashlib.sha256(f"pepper-and-salt{one}@x".encode()).hexdigest() for one in "ab"]
    with sqlite3.connect(tmp_path / "b.db") as db:
        assert db.execute("select * from t").fetchall() == [(9, "FR", None, None), (1, "PL", 2.5, hashed[0])]
        assert db.execute("select * from lands order by 1").fetchall() == [("FR",), ("PL",)]
        ((error, row),) = db.execute("select error, row from t__rejected").fetchall()
    db.close()
    assert error == "column 'amount' is less than 0"
    assert json.loads(row) == {"id": 2, "country": "DE", "amount": -1.0, "mail": hashed[1]}


RUNS = """
name: shop
pipelines:
  - pipeline: p
    tasks:
      - task: make
        type: sql
        source: 'sqlite:///a.db'
        writes: true
        statements: [create table t (a integer), insert into t values (1)]
        query: insert into t values (2)
      - {task: list, type: sql, source: 'sqlite:///a.db', query: select a from t order by a, output: rows}
"""


def test_statements_run_without_a_sink_and_give_their_rows(tmp_path: Path, prefect_server: Any) -> None:
    (tmp_path / "rainbow.yml").write_text(RUNS)
    (tmp_path / "a.db").touch()

    report = load(tmp_path).pipeline("p").run()

    assert report.state == "completed"
    assert report["make"].output == {"statements": 3, "rows": 1}
    assert report["list"].output == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("type: sql, source: 'sqlite:///a.db', statements: [select 1]", []),
        (
            "type: sql, source: 'sqlite:///a.db'",
            ["nothing says what to run; add `statements` or `query`, or a `sink`"],
        ),
        (
            "type: sql_etl, source: 'sqlite:///a.db', query: select 1",
            ["nothing says where the rows go; add `sink`, or write `type: sql` to run statements"],
        ),
        (
            "type: sql, source: 'sqlite:///a.db', query: select 1, table: t, checks: {a: {ge: 1}}",
            ["without a `sink` nothing is moved, and 'table', 'checks' say nothing; add `sink`"],
        ),
        (
            "type: sql, source: 'sqlite:///a.db', sink: 'sqlite:///b.db', table: t, output: rows",
            ["'output' is for tasks without a `sink`; remove one of the two"],
        ),
    ],
)
def test_check_tells_what_does_not_go_with_a_sink_or_without(tmp_path: Path, task: str, told: list[str]) -> None:
    (tmp_path / "rainbow.yml").write_text(f"name: s\npipelines:\n  - pipeline: p\n    tasks: [{{task: t, {task}}}]\n")

    assert [f"{one.message}; {one.hint}" for one in check.check(tmp_path).problems] == told
