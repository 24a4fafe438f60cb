"""Continuing a flow run: exactly what did not complete runs again, and what depends on it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect import check, engine
from rainbow_prefect.errors import CallError, TaskFailed

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture
def broken(functions: Any) -> list[bool]:
    """A task `boom` fails until this is cleared."""
    is_so = [True]

    def boom(run: Any) -> None:
        if is_so:
            raise TaskFailed("not now")

    functions["boom"] = boom
    return is_so


def test_only_what_did_not_complete_runs_again(load: Any, functions: Any, calls: Any, seen: Any) -> None:
    broken = {1, 2}

    def part(run: Any) -> int:
        if run.index in broken:
            raise TaskFailed("not now")
        return run.index * 10

    functions["part"] = part
    functions["sum"] = lambda run: sum(run.input)
    plan = load("""
        - {task: first, type: call, input: [1]}
        - {task: part, type: call, executors: 4}
        - {task: sum, type: call, input: task:part}
    """).plan()
    report = engine.run(plan)
    assert report.state == "failed"
    calls.clear()
    broken.clear()

    again = engine.retry(plan, report.flow_run_id)

    assert (again.state, again.flow_run_id) == ("completed", report.flow_run_id)
    assert sorted(calls) == [("part", 1, 1), ("part", 2, 1), ("sum", 0, 1)]
    assert again["part"].output == [0, 10, 20, 30]
    assert again["sum"].output == 60
    assert again["part"].partitions[0].message == "completed before; not run again"
    assert seen(report.flow_run_id).state.name == "Completed"


def test_a_pipeline_of_the_same_name_in_another_app_is_not_retried(
    load: Any, functions: Any, calls: Any, tmp_path: Path
) -> None:
    functions["boom"] = lambda run: 1 / 0
    pipeline = load("- {task: boom, type: call}")
    report = pipeline.run()
    file = tmp_path / "app" / "rainbow.yml"
    file.write_text(file.read_text().replace("name: shop", "name: bank"))
    other = check.load(file).pipeline("p")
    calls.clear()

    with pytest.raises(CallError) as error:
        engine.retry(other.plan(), report.flow_run_id)

    assert str(error.value) == (
        f"run {report.flow_run_id} is of the app 'shop', not of 'bank' in {tmp_path}/app; "
        "name the file or folder that it is in: --path"
    )
    assert calls == []


def test_what_depends_on_a_slice_that_ran_again_runs_again(load: Any, functions: Any, calls: Any) -> None:
    broken = {1}

    def part(run: Any) -> int:
        if run.index in broken:
            raise TaskFailed("not now")
        return run.index

    def last(run: Any) -> None:
        if broken:
            raise TaskFailed("no")

    functions["part"], functions["last"] = part, last
    plan = load("""
        - {task: part, type: call, executors: 2, on_failure: continue}
        - {task: copy, type: call, input: task:part}
        - {task: last, type: call}
    """).plan()
    report = engine.run(plan)
    assert report["copy"].output == [0]
    calls.clear()
    broken.clear()

    again = engine.retry(plan, report.flow_run_id)

    assert again["copy"].output == [0, 1]
    assert calls == [("part", 1, 1), ("copy", 0, 1), ("last", 0, 1)]


def test_a_run_can_be_retried_many_times(load: Any, functions: Any, calls: Any) -> None:
    tries: list[int] = []

    def boom(run: Any) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise TaskFailed("not yet")

    functions["boom"] = boom
    plan = load(
        "- {task: first, type: call}\n- {task: boom, type: call}\n- {task: tidy, type: call, when: always}"
    ).plan()
    report = engine.run(plan)
    assert engine.retry(plan, report.flow_run_id).state == "failed"

    again = engine.retry(plan, report.flow_run_id)

    assert again.state == "completed"
    assert [name for name, _, _ in calls] == ["first", "boom", "tidy", "boom", "tidy", "boom", "tidy"]


def test_large_outputs_are_still_there(load: Any, functions: Any, calls: Any) -> None:
    broken = [True]

    def count(run: Any) -> int:
        if broken:
            raise TaskFailed("not now")
        return len(json.loads(run.input_bytes()))

    functions["make"] = lambda run: ["z" * 1000] * 1500
    functions["count"] = count
    plan = load("- {task: make, type: call}\n- {task: count, type: call, input: task:make}").plan()
    report = engine.run(plan)
    calls.clear()
    broken.clear()

    assert engine.retry(plan, report.flow_run_id)["count"].output == 1500
    assert calls == [("count", 0, 1)]


def test_a_damaged_result_is_made_again(load: Any, broken: list[bool], calls: Any, tmp_path: Path) -> None:
    from prefect.settings import get_current_settings

    plan = load(
        "- {task: make, type: call, input: [1, 2], split_input: true, executors: 2}\n- {task: boom, type: call}"
    ).plan()
    report = engine.run(plan)
    kept = Path(get_current_settings().results.local_storage_path) / "rainbow" / report.flow_run_id / "make"
    damaged = min(kept.iterdir())
    damaged.write_text(damaged.read_text()[:40])
    calls.clear()
    broken.clear()

    again = engine.retry(plan, report.flow_run_id)

    assert again["make"].output == [[1], [2]]
    assert calls == [("make", 0, 1), ("boom", 0, 1)]


def test_slices_of_other_data_are_other_slices(load: Any, broken: list[bool], calls: Any, tmp_path: Path) -> None:
    plan = load(
        "- {task: make, type: call, input: file:items.json, split_input: true, executors: 2}\n- {task: boom, type: call}"
    ).plan()
    items = tmp_path / "app" / "items.json"
    items.write_text("[1, 2]")
    report = engine.run(plan)
    items.write_text("[1, 2, 3]")
    calls.clear()
    broken.clear()

    assert engine.retry(plan, report.flow_run_id)["make"].output == [[1, 2], [3]]
    assert sorted(calls) == [("boom", 0, 1), ("make", 0, 1), ("make", 1, 1)]


def test_the_parameters_of_the_run_are_used_again(load: Any, functions: Any) -> None:
    broken = [True]

    def make(run: Any) -> Any:
        if broken:
            raise TaskFailed("not now")
        return run.input

    functions["make"] = make
    plan = load(
        "- {task: make, type: call, input: {day: '{{day}}', key: '{{api_key}}'}}",
        more="parameters:\n- {name: day, type: date}\n- {name: api_key}",
    ).plan()
    report = engine.run(plan, {"day": "2024-01-31", "api_key": "key-key-key"})
    broken.clear()

    with pytest.raises(CallError) as caught:
        engine.retry(plan, report.flow_run_id)
    assert str(caught.value) == "Prefect does not know secret parameters; give them again: --param api_key=..."

    again = engine.retry(plan, report.flow_run_id, {"api_key": "key-key-key"})
    assert again["make"].output == {"day": "2024-01-31", "key": "********"}


def test_there_is_nothing_to_retry_in_a_completed_run(load: Any) -> None:
    plan = load("- {task: make, type: call}").plan()
    report = engine.run(plan)

    with pytest.raises(CallError) as caught:
        engine.retry(plan, report.flow_run_id)

    assert str(caught.value) == f"run {report.flow_run_id} has completed; there is nothing to retry"


@pytest.mark.parametrize("run_id", ["9fb3c0b4-1111-4222-8333-944445555666", "nonsense"])
def test_an_unknown_run_cannot_be_retried(load: Any, run_id: str) -> None:
    with pytest.raises(CallError) as caught:
        engine.retry(load("- {task: make, type: call}").plan(), run_id)

    assert str(caught.value) == f"there is no run '{run_id}'; `rainbow runs` lists them"


def test_a_run_that_is_under_way_cannot_be_retried(load: Any, functions: Any) -> None:
    plan = load("- {task: make, type: call}").plan()
    told: list[str] = []

    def make(run: Any) -> None:
        try:
            engine.retry(plan, run.run_id)
        except CallError as error:
            told.append(str(error))
        raise TaskFailed("no")

    functions["make"] = make

    run_id = engine.run(plan).flow_run_id

    assert told == [f"run {run_id} is under way in another process; wait for it, or stop it: rainbow cancel {run_id}"]


PLUGIN = """
import os, time
from pathlib import Path
from typing import Literal

from rainbow_prefect.tasks.base import Task


class Mark(Task):
    type: Literal["mark"] = "mark"
    seconds: float = 0.2

    def run(self, run):
        log = Path(os.environ["MARKS"])
        with log.open("a") as file:
            file.write(f"start {run.task}[{run.index}] {time.time()}\\n")
        time.sleep(self.seconds)
        with log.open("a") as file:
            file.write(f"end {run.task}[{run.index}] {time.time()}\\n")
        return run.input
"""

YAML = """
name: marks
plugins: [plugins]
pipelines:
- pipeline: p
  tasks:
  - {task: a, type: mark, input: [1, 2, 3, 4, 5, 6], split_size: 1, executors: 2}
  - {task: b, type: mark, input: task:a, split_input: true, executors: 3}
  - {task: c, type: mark, input: task:b}
"""

RUN = """
import sys
from rainbow_prefect import check, engine

plan = check.load(sys.argv[1]).pipeline("p").plan()
if len(sys.argv) > 2:
    report = engine.retry(plan, sys.argv[2])
else:
    report = engine.run(plan, on_started=lambda run_id, link: print(run_id, flush=True))
print(report.state, report["c"].output)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_run_goes_on_where_it_was(seed: int, tmp_path: Path, prefect_api: str) -> None:
    root = tmp_path / "app"
    (root / "plugins").mkdir(parents=True)
    (root / "plugins" / "mark.py").write_text(PLUGIN)
    (root / "rainbow.yml").write_text(YAML)
    marks = tmp_path / "marks"
    env = {**os.environ, "MARKS": str(marks)}
    chance = random.Random(seed)

    def start(*args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", RUN, str(root), *args],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    first = start()
    assert first.stdout is not None
    run_id = first.stdout.readline().strip()
    killed = []
    process = first
    for _ in range(3):
        begun = time.monotonic()
        while (
            not (marks.exists() and marks.read_text().count("\n") > 2 * len(killed)) and time.monotonic() < begun + 60
        ):
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed.append(time.time())
        process = start(run_id)
    out, err = process.communicate(timeout=120)

    assert out == "completed [[[1], [2]], [[3], [4]], [[5], [6]]]\n" or "has completed" in err, err
    lines = [line.split() for line in marks.read_text().splitlines()]
    ended = {name: float(when) for kind, name, when in lines if kind == "end"}
    assert set(ended) == {*(f"a[{index}]" for index in range(6)), *(f"b[{index}]" for index in range(3)), "c[0]"}
    again = [
        name
        for name in ended
        if sum(1 for kind, one, _ in lines if kind == "end" and one == name) > 1
        and not any(abs(kill - float(when)) < 0.5 for kill in killed for kind, one, when in lines if one == name)
    ]
    assert again == []
