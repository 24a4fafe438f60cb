"""The DAG of a pipeline: needs, order, conditions, executors, slices."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from rainbow_prefect import check
from rainbow_prefect.errors import CallError
from rainbow_prefect.executors.base import BlockReference
from rainbow_prefect.plan import Plan, plan


def planned(folder: Path, tasks: str, *, more: str = "", root: str = "", executor: str | None = None) -> Plan:
    text = f"name: shop\n{textwrap.dedent(root)}\npipelines:\n- pipeline: p\n"
    text += textwrap.indent(textwrap.dedent(more), "  ") + "\n  tasks:\n"
    for line in textwrap.dedent(tasks).strip().splitlines():
        text += f"  - {{type: python, cmd: echo, {line}}}\n"
    (folder / "rainbow.yml").write_text(text)
    return plan(check.load(folder).pipeline("p"), executor=executor)


def needs(made: Plan) -> dict[str, tuple[str, ...]]:
    return {step.name: step.needs for step in made.steps}


def test_tasks_run_as_listed(tmp_path: Path) -> None:
    made = planned(tmp_path, "task: a\ntask: b\ntask: c")

    assert needs(made) == {"a": (), "b": ("a",), "c": ("b",)}


def test_depends_on_makes_a_graph_in_an_order_that_can_run(tmp_path: Path) -> None:
    made = planned(
        tmp_path,
        """
        task: join, depends_on: [left, right]
        task: left, depends_on: [first]
        task: right, depends_on: [first]
        task: first, depends_on: []
        task: after
        """,
    )

    assert [step.name for step in made.steps] == ["first", "left", "right", "join", "after"]
    assert needs(made)["after"] == ("first",)


def test_the_task_whose_output_is_read_is_needed(tmp_path: Path) -> None:
    made = planned(
        tmp_path,
        "task: a, output_path: o.json\ntask: b\ntask: c, input: 'task:a'\ntask: d, depends_on: [], input: 'task:a'",
    )

    assert needs(made)["c"] == ("b", "a")
    assert needs(made)["d"] == ("a",)
    assert [step.input_task for step in made.steps] == [None, None, "a", "a"]


@pytest.mark.parametrize(
    "root, more, task, when",
    [
        ("", "", "", "on_success"),
        ("always_run: true", "", "", "always"),
        ("always_run: true", "always_run: false", "", "on_success"),
        ("", "always_run: true", "", "always"),
        ("", "always_run: true", ", always_run: false", "on_success"),
        ("", "always_run: true", ", when: on_failure", "on_failure"),
        ("", "", ", when: always", "always"),
    ],
)
def test_the_nearest_condition_counts(tmp_path: Path, root: str, more: str, task: str, when: str) -> None:
    made = planned(tmp_path, f"task: a\ntask: b{task}", more=more, root=root)

    assert made["b"].when == when


@pytest.mark.parametrize(
    "task, partitions",
    [
        ("", 1),
        (", executors: 3", 3),
        (", input: [1, 2, 3], split_input: true, executors: 2", 2),
        (", input: [1, 2, 3], split_size: 2", 2),
        (", input: [], split_size: 2", 1),
        (", input: 'file:x.json', split_input: true, executors: 2", 2),
        (", input: 'file:x.json', split_size: 2", None),
    ],
)
def test_the_number_of_slices_is_known_where_it_can_be(tmp_path: Path, task: str, partitions: int | None) -> None:
    (tmp_path / "x.json").write_text("[1]")

    assert planned(tmp_path, f"task: a{task}")["a"].partitions == partitions


def test_settings_of_the_pipeline_are_defaults(tmp_path: Path) -> None:
    made = planned(
        tmp_path,
        "task: a\ntask: b, retries: 0, retry_delay_seconds: 1, timeout_minutes: 2",
        more="retries: 3\nretry_delay_seconds: 5\ntimeout_minutes: 9",
    )

    a, b = made["a"], made["b"]
    assert (a.retries, a.retry_delay_seconds, a.timeout_seconds) == (3, 5, None)
    assert (b.retries, b.retry_delay_seconds, b.timeout_seconds) == (0, 1, 120)


def test_the_nearest_executor_counts(tmp_path: Path) -> None:
    tasks = "task: a\ntask: b, executor: own"
    root = "executor: process\nexecutors:\n- {executor: own, type: process}\n- {executor: mine, type: process}"

    made = planned(tmp_path, tasks, root=root, more="executor: mine")

    assert [step.executor_name for step in made.steps] == ["mine", "own"]
    assert made["b"].executor.executor == "own"
    over = planned(tmp_path, tasks, root=root, executor="own")
    assert ([step.executor_name for step in over.steps], over.executor) == (["own", "own"], "own")


def test_an_unknown_executor_is_told_with_a_near_one(tmp_path: Path) -> None:
    with pytest.raises(CallError) as caught:
        planned(tmp_path, "task: a", executor="proces")

    assert str(caught.value) == "there is no executor 'proces' in rainbow.yml; did you mean 'process'?"


def test_a_block_is_not_loaded_by_a_plan(tmp_path: Path) -> None:
    made = planned(tmp_path, "task: a", executor="block:process/here")

    assert made["a"].executor == BlockReference(block="process/here")


def test_the_plan_as_data(tmp_path: Path) -> None:
    made = planned(tmp_path, "task: a, executors: 2, timeout_minutes: 1.5")

    assert made.as_dict() == {
        "pipeline": "p",
        "steps": [
            {
                "task": "a",
                "type": "python",
                "needs": [],
                "when": "on_success",
                "executor": "process",
                "partitions": 2,
                "command": made["a"].task.command_line(),
                "retries": 0,
                "retry_delay_seconds": 0.0,
                "timeout_minutes": 1.5,
            }
        ],
    }
