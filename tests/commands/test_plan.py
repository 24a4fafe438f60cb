"""`rainbow plan`: the drawing, Mermaid, JSON."""

from __future__ import annotations

from tests.conftest import Project, Rainbow

TEXT = """
    name: shapes
    executors:
      - {executor: here, type: process}
    pipelines:
      - pipeline: line
        tasks:
          - {task: a, type: python, cmd: "tool -u --token=x"}
          - {task: b, type: python, cmd: echo b, input: "task:a", split_input: true, executors: 4, executor: here}
          - {task: c, type: python, cmd: echo c, retries: 2, timeout_minutes: 1.5}
      - pipeline: graph
        tasks:
          - {task: make, type: python, cmd: echo}
          - {task: left, type: python, cmd: echo, depends_on: [make]}
          - {task: left2, type: python, cmd: echo, depends_on: [left]}
          - {task: right, type: python, cmd: echo, depends_on: [make]}
          - {task: join, type: python, cmd: echo, depends_on: [left2, right]}
          - {task: alarm, type: python, cmd: echo, depends_on: [join], when: on_failure}
          - {task: clean, type: python, cmd: echo, depends_on: [join], when: always}
      - {pipeline: empty, tasks: []}
"""


def test_line_is_drawn_below_each_other(rainbow: Rainbow, project: Project) -> None:
    shown = rainbow("plan", project({"rainbow.yml": TEXT}), "--pipeline", "line").out

    assert shown == (
        "line  (3 tasks)\n"
        "● a       process  tool -u --token=x\n"
        "● b  x 4  here     echo b\n"
        "● c       process  echo c; 2 retries; at most 1.5 min\n"
    )


def test_branches_are_drawn_beside_each_other(rainbow: Rainbow, project: Project) -> None:
    shown = rainbow("plan", project({"rainbow.yml": TEXT}), "-p", "graph").out

    assert shown == (
        "graph  (7 tasks)\n"
        "● make       process  echo\n"
        "├─● left     process  echo\n"
        "│ ● left2    process  echo\n"
        "└─● right    process  echo\n"
        "  ● join     process  echo; needs left2, right\n"
        "  ├─● alarm  process  echo; when on_failure\n"
        "  └─● clean  process  echo; when always\n"
    )


def test_json_has_the_steps_in_an_order_that_can_run(rainbow: Rainbow, project: Project) -> None:
    shown = rainbow("plan", project({"rainbow.yml": TEXT}), "-p", "line", "--json").json

    assert shown["pipeline"] == "line"
    assert [(one["task"], one["type"], one["needs"], one["executor"], one["partitions"]) for one in shown["steps"]] == [
        ("a", "python", [], "process", 1),
        ("b", "python", ["a"], "here", 4),
        ("c", "python", ["b"], "process", 1),
    ]


def test_mermaid_is_a_flowchart(rainbow: Rainbow, project: Project) -> None:
    shown = rainbow("plan", project({"rainbow.yml": TEXT}), "-p", "graph", "--mermaid").out

    assert shown.splitlines() == [
        "flowchart TD",
        *(f'    t{index}["{name}"]' for index, name in enumerate(["make", "left", "left2", "right", "join", "alarm", "clean"])),
        "    t0 --> t1",
        "    t1 --> t2",
        "    t0 --> t3",
        "    t2 --> t4",
        "    t3 --> t4",
        "    t4 -. on_failure .-> t5",
        "    t4 -. always .-> t6",
    ]  # fmt: skip


def test_executor_of_the_call_wins(rainbow: Rainbow, project: Project) -> None:
    shown = rainbow("plan", project({"rainbow.yml": TEXT}), "-p", "line", "--executor", "here", "--json").json

    assert {one["executor"] for one in shown["steps"]} == {"here"}


def test_unknown_executor_is_a_wrong_call(rainbow: Rainbow, project: Project) -> None:
    done = rainbow("plan", project({"rainbow.yml": TEXT}), "-p", "line", "--executor", "her", "--json", code=2)

    assert "did you mean 'here'?" in done.json["error"]


def test_pipeline_without_tasks_is_a_headline(rainbow: Rainbow, project: Project) -> None:
    assert rainbow("plan", project({"rainbow.yml": TEXT}), "-p", "empty").out == "empty  (0 tasks)\n"


def test_secret_of_the_variables_is_not_shown(rainbow: Rainbow, project: Project) -> None:
    text = TEXT.replace("name: shapes", "name: shapes\n    variables: {db_password: hunter22}").replace("--token=x", "--x={{db_password}}")  # fmt: skip

    for words in ([], ["--json"], ["--mermaid"]):
        assert "hunter22" not in rainbow("plan", project({"rainbow.yml": text}), "-p", "line", *words).out
