"""`rainbow logs` of real runs."""

from __future__ import annotations

import re
import signal
from typing import Any

import pytest

from tests.commands.conftest import Call, latest
from tests.conftest import Done, Project

CONFIG = """
    name: shop
    pipelines:
      - pipeline: talk
        tasks:
          - {task: greet, type: python, cmd: "echo hello; echo good day >&2; printf 'no newline at the end'"}
          - {task: add, type: python, cmd: "echo slice $RAINBOW_SPLIT_ID; echo hello", executors: 3}
          - {task: adder, type: python, cmd: "seq 1 450"}
"""

_runs: dict[str, str] = {}


@pytest.fixture
def run_id(call: Call, project: Project, prefect_api: str) -> str:
    """A run that all tests of this file look at."""
    if prefect_api not in _runs:
        _runs[prefect_api] = call("run", project({"rainbow.yml": CONFIG}), "--quiet", "--json").json["flow_run_id"]
    return _runs[prefect_api]


def said(done: Done) -> list[str]:
    """The lines without their times and without what Prefect itself says."""
    lines = [line.partition(" ")[2] for line in done.out.splitlines()]
    return [line for line in lines if " | " in line and "Finished in state" not in line]


def test_logs_are_the_lines_of_each_task(call: Call, run_id: str) -> None:
    done = call("logs", run_id)

    lines = said(done)
    assert sorted(lines[:3]) == ["greet | good day", "greet | hello", "greet | no newline at the end"]
    assert sorted(lines[3:9]) == [
        "add[0] | hello",
        "add[0] | slice 0",
        "add[1] | hello",
        "add[1] | slice 1",
        "add[2] | hello",
        "add[2] | slice 2",
    ]
    assert re.search(r"^\d\d:\d\d:\d\d greet \| hello$", done.out, re.M)


def test_lines_that_came_in_masses_are_in_order(call: Call, run_id: str) -> None:
    lines = said(call("logs", run_id, "--task", "adder"))

    assert lines == [f"adder | {number}" for number in range(1, 451)]


def test_task_with_slices_is_all_of_them(call: Call, run_id: str) -> None:
    lines = said(call("logs", run_id, "--task", "add"))

    assert sorted({line.partition(" ")[0] for line in lines}) == ["add[0]", "add[1]", "add[2]"]


def test_one_slice(call: Call, run_id: str) -> None:
    assert said(call("logs", run_id, "--task", "add[1]")) == ["add[1] | slice 1", "add[1] | hello"]


def test_grep_is_a_regular_expression(call: Call, run_id: str) -> None:
    assert sorted(said(call("logs", run_id, "--grep", "^(slice [12]|good)"))) == [
        "add[1] | slice 1",
        "add[2] | slice 2",
        "greet | good day",
    ]


def test_tail_is_what_came_last(call: Call, run_id: str) -> None:
    numbers = ["--task", "adder", "--grep", r"^\d+$"]

    assert said(call("logs", run_id, *numbers, "--tail", "2")) == ["adder | 449", "adder | 450"]
    assert said(call("logs", run_id, *numbers, "--tail", "0")) == []


def test_json_has_each_line_with_its_time_and_task(call: Call, run_id: str) -> None:
    shown = call("logs", run_id, "--task", "add[1]", "--grep", "slice", "--json").json

    (line,) = shown["lines"]
    assert (shown["flow_run_id"], shown["pipeline"], shown["state"]) == (run_id, "talk", "completed")
    assert (line["task"], line["level"], line["message"]) == ("add[1]", "info", "slice 1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["time"])


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--task", "gret"], "run {run} has no task 'gret'; did you mean 'greet'?"),
        (["--grep", "("], "--grep '(' is not a regular expression: missing ), unterminated subpattern at position 0"),
        (["--follow", "--tail", "3"], "--follow goes with neither --json nor --tail"),
    ],
)
def test_wrong_calls(call: Call, run_id: str, words: list[str], error: str) -> None:
    done = call("logs", run_id, *words, code=2)

    assert (done.out, done.err) == ("", f"Error: {error.format(run=run_id)}\n")


def test_unknown_run(call: Call, run_id: str) -> None:
    done = call("logs", "@@@@@@", code=2)

    assert done.err == "Error: there is no run '@@@@@@'; `rainbow runs` lists them\n"


def test_follow_of_a_run_that_is_over_ends(call: Call, run_id: str) -> None:
    assert said(call("logs", run_id, "--follow", "--task", "add[1]")) == ["add[1] | slice 1", "add[1] | hello"]


def test_follow_shows_lines_as_they_come_and_ends_with_the_run(
    call: Call, start: Any, project: Project, name: str
) -> None:
    tasks = "{task: wait, type: python, cmd: 'echo early; echo x > $HERE/begun; "
    tasks += "until [ -e $HERE/go ]; do sleep 0.1; done; echo late'}"
    folder = project({"rainbow.yml": f"name: shop\npipelines:\n  - pipeline: {name}\n    tasks:\n      - {tasks}\n"})
    run = start("run", cwd=folder, env={"HERE": str(folder)})
    run.wait_for("begun")

    follower = start("logs", latest(call, name), "--follow", "--task", "wait", cwd=folder)
    first = follower.process.stdout.readline().decode()
    (folder / "go").write_text("")
    rest = follower.end()

    assert first.endswith(" wait | early\n")
    assert [line.partition(" ")[2] for line in rest.out.splitlines()][0] == "wait | late"
    assert rest.code == 0
    assert run.end().code == 0


def test_ctrl_c_ends_following(call: Call, start: Any, project: Project, name: str) -> None:
    folder = project(
        {
            "rainbow.yml": f"name: shop\npipelines:\n  - pipeline: {name}\n    tasks:\n"
            "      - {task: wait, type: python, cmd: 'echo early; echo x > $HERE/begun; sleep 301'}\n"
        }
    )
    run = start("run", cwd=folder, env={"HERE": str(folder)})
    run.wait_for("begun")
    follower = start("logs", latest(call, name)[:13], "--follow", cwd=folder)
    follower.process.stdout.readline()

    follower.send(signal.SIGINT)
    done = follower.end()

    assert (done.code, done.err.strip()) == (130, "Interrupted.")
    run.send(signal.SIGINT)
    assert run.end().code == 1
