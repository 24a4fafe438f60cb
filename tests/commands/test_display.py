"""What a person sees while a pipeline runs, drawn from streams of events."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rainbow_prefect import check
from rainbow_prefect import plan as plans
from rainbow_prefect.display import Live, Plain, display_of, duration, harmless, table
from rainbow_prefect.plan import Plan
from rainbow_prefect.run import Event, Progress
from tests.conftest import Project

SPINNER = re.compile("[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]")
NOON = 1_700_000_000.0

TASKS = """
    name: shop
    pipelines:
      - pipeline: sales
        tasks:
          - {task: extract, type: python, cmd: echo}
          - {task: add, type: python, cmd: echo, input: [1, 2, 3], split_input: true, executors: 3}
          - {task: report, type: python, cmd: echo}
          - {task: mend, type: python, cmd: echo, when: on_failure, depends_on: [add]}
          - {task: tidy, type: python, cmd: echo, when: always, depends_on: [report]}
"""


@pytest.fixture
def planned(project: Project) -> Callable[[str], Plan]:
    def plan(text: str = TASKS) -> Plan:
        folder: Path = project({"rainbow.yml": text})
        return plans.plan(check.load(folder).pipeline("sales"))

    return plan


def event(kind: Any, task: str | None = None, index: int | None = None, *, at: float = 0.0, **more: Any) -> Event:
    return Event(kind, NOON + at, "shop", "sales", "run-id", task=task, index=index, **more)


def a_run_that_fails() -> list[Event]:
    """`extract` completes, one slice of `add` fails after a retry, `mend` and `tidy` run."""
    return [
        event("run_started", link="http://server/run"),
        event("task_started", "extract", at=0.1, count=1),
        event("slice_started", "extract", 0, at=0.2, count=1),
        event("log", "extract", 0, at=0.3, line="read 3 rows"),
        event("slice_finished", "extract", 0, at=1.1, count=1, state="completed", seconds=1.0),
        event("task_finished", "extract", at=1.1, count=1, state="completed", seconds=1.0),
        event("task_started", "add", at=1.2, count=3),
        event("slice_started", "add", 0, at=1.3, count=3),
        event("slice_started", "add", 1, at=1.3, count=3),
        event("slice_started", "add", 2, at=1.4, count=3),
        event("log", "add", 1, at=1.5, line="no such customer"),
        event("slice_started", "add", 1, at=2.0, count=3, attempt=2),
        event("slice_finished", "add", 0, at=2.5, count=3, state="completed", seconds=1.2),
        event("slice_finished", "add", 1, at=3.0, count=3, state="failed", message="exit status 3", seconds=1.7),
        event("slice_finished", "add", 2, at=3.2, count=3, state="completed", seconds=1.8),
        event("task_finished", "add", at=3.2, count=3, state="failed", message="1 of 3 slices failed", seconds=2.0),
        event("task_started", "mend", at=3.3, count=1),
        event("slice_started", "mend", 0, at=3.3, count=1),
    ]


def plain(plan: Plan, events: list[Event]) -> list[str]:
    out = io.StringIO()
    with Plain(out, plan) as display:
        for one in events:
            display.on_event(one)
    return [line.partition(" ")[2] for line in out.getvalue().splitlines()]


def live(plan: Plan, events: list[Event], *, width: int = 80, height: int = 24, now: float = 4.0) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    clock = iter([NOON, *[NOON + now] * 2])
    display = Live(console, plan, clock=lambda: next(clock))
    for one in events:
        display.on_event(one)
    console.print(display.drawing())
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    return [SPINNER.sub("⠋", line).rstrip() for line in shown.splitlines()]


def test_each_event_is_one_plain_line(planned: Any) -> None:
    assert plain(planned(), a_run_that_fails()) == [
        "pipeline sales started, run run-id",
        "extract: started",
        "extract | read 3 rows",
        "extract: completed in 1.0 s",
        "add: started with 3 slices",
        "add[1] | no such customer",
        "add[1]: attempt 2",
        "add[0]: completed in 1.2 s",
        "add[1]: failed in 1.7 s: exit status 3",
        "add[2]: completed in 1.8 s",
        "add: failed in 2.0 s: 1 of 3 slices failed",
        "mend: started",
    ]


def test_plain_lines_begin_with_the_time_of_the_event(planned: Any) -> None:
    out = io.StringIO()

    Plain(out, planned()).on_event(event("task_started", "extract", count=1))

    assert out.getvalue() == time.strftime("%H:%M:%S extract: started\n", time.localtime(NOON))


def test_many_slices_are_few_plain_lines(planned: Any) -> None:
    ended = [
        event("slice_finished", "add", index, at=index / 10, count=500, state="completed", seconds=0.1)
        for index in range(500)
    ]
    broken = event("slice_finished", "add", 7, at=51, count=500, state="failed", message="exit status 1", seconds=0.1)

    lines = plain(planned(), [event("task_started", "add", count=500), *ended, broken])

    assert lines == [
        "add: started with 500 slices",
        "add: 101 of 500 slices are over",
        "add: 201 of 500 slices are over",
        "add: 301 of 500 slices are over",
        "add: 401 of 500 slices are over",
        "add[7]: failed in 0.1 s: exit status 1",
    ]


def test_reason_that_is_the_state_is_not_said_twice(planned: Any) -> None:
    ended = event("slice_finished", "add", 1, count=3, state="timed_out", message="timed out", seconds=2.0)

    assert plain(planned(), [ended]) == ["add[1]: timed out in 2.0 s"]
    assert "      add[1] | timed out" in live(planned(), [event("task_started", "add", count=3), ended])


def test_tree_shows_what_each_task_waits_for(planned: Any) -> None:
    assert live(planned(), [event("run_started", link="http://server/run")]) == [
        "sales  4.0 s  http://server/run",
        "  · extract",
        "  · add  0/3  waits for extract",
        "  · report  waits for add",
        "  · mend  waits for add",
        "  · tidy  waits for report",
    ]


def test_tree_shows_slices_and_last_lines_of_what_runs(planned: Any) -> None:
    assert live(planned(), a_run_that_fails()[:13]) == [
        "sales  4.0 s  http://server/run",
        "  ✓ extract  1.0 s",
        "  ⠋ add  2.8 s  ━━━━━━────────────── 1/3",
        "    ⠋ add[1]  2.0 s, attempt 2",
        "    ⠋ add[2]  2.6 s",
        "      add[1] | no such customer",
        "  · report  waits for add",
        "  · mend  waits for add",
        "  · tidy  waits for report",
    ]


def test_tree_shows_failures_and_what_will_not_run(planned: Any) -> None:
    assert live(planned(), a_run_that_fails()) == [
        "sales  4.0 s  http://server/run",
        "  ✓ extract  1.0 s",
        "  ✗ add  2.0 s  ━━━━━━━━━━━━━━━━━━━━ 3/3, 1 failed  1 of 3 slices failed",
        "      add[1] | failed: exit status 3",
        "  - report  not run",
        "  ⠋ mend  0.7 s",
        "  · tidy",
    ]


def test_tree_foresees_a_task_that_is_not_needed(planned: Any) -> None:
    done = [
        event("task_finished", "extract", state="completed", seconds=1.0),
        event("task_finished", "add", state="completed", seconds=1.0),
    ]

    assert live(planned(), done)[3:] == ["  · report", "  - mend  skipped", "  · tidy  waits for report"]


@pytest.mark.parametrize("width", [12, 25, 40, 59])
def test_tree_is_never_wider_than_the_terminal(planned: Any, width: int) -> None:
    lines = live(planned(), a_run_that_fails(), width=width)

    assert len(lines) == 7
    assert max(map(len, lines)) < width


@pytest.mark.parametrize("height", [3, 5, 8, 24])
def test_tree_is_never_higher_than_the_terminal(planned: Any, height: int) -> None:
    lines = live(planned(), a_run_that_fails()[:13], height=height)

    assert len(lines) < height
    assert any("⠋ add" in line for line in lines) or height == 3


def test_of_many_tasks_those_that_matter_are_shown(planned: Any) -> None:
    tasks = "".join(f"          - {{task: t{index}, type: python, cmd: echo}}\n" for index in range(1000))
    plan = planned(f"    name: shop\n    pipelines:\n      - pipeline: sales\n        tasks:\n{tasks}")
    events = [event("task_finished", f"t{index}", state="completed", seconds=1.0) for index in range(500)]
    events[3] = event("task_finished", "t3", state="failed", message="exit status 1", seconds=1.0)

    lines = live(plan, [*events, event("task_started", "t500", at=3.0, count=1)], height=10)

    assert lines == [
        "sales  4.0 s",
        "  ✗ t3  1.0 s  exit status 1",
        "  ⠋ t500  1.0 s",
        "  · t501  waits for t500",
        "  · t502  waits for t501",
        "  · t503  waits for t502",
        "  · t504  waits for t503",
        "  · t505  waits for t504",
        "  ... and 499 completed, 494 waiting",
    ]


def test_escape_sequences_of_a_task_do_not_reach_the_terminal(planned: Any) -> None:
    nasty = "\x1b[2J\x1b[31mred\x1b[0m\x1b]0;title\x07\ttab\x9b5m\x08"

    lines = live(planned(), [*a_run_that_fails()[:3], event("log", "extract", 0, line=nasty)])

    assert lines[2] == "      | red     tab5m"
    assert harmless(nasty) == "red     tab5m"


def test_terminal_without_unicode_gets_ascii(planned: Any) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=out, width=80, height=24, force_terminal=True, color_system=None)
    display = Live(console, planned(), clock=lambda: NOON + 2)
    for one in a_run_that_fails()[:14]:
        display.on_event(one)

    text = display.drawing().plain

    assert text.isascii()
    assert "  + extract  1.0 s\n  - add  0.8 s  =============....... 2/3, 1 failed" in text


def test_a_sentence_stays_below_the_tree(planned: Any) -> None:
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True, color_system=None)
    display = Live(console, planned(), clock=lambda: NOON)

    display.say("stopping")

    assert display.drawing().plain.endswith("\nstopping")


def test_live_leaves_an_empty_terminal_with_its_cursor(planned: Any) -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, height=24, force_terminal=True, color_system=None)

    with Live(console, planned()) as display:
        display.on_event(event("run_started"))
        time.sleep(0.3)

    assert "waits for extract" in out.getvalue()
    assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("\x1b[?25l")


def test_display_fits_where_it_is_shown(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    plan = planned()
    monkeypatch.setenv("TERM", "xterm")
    kinds = [type(display_of(plan, Terminal(), is_terminal=is_terminal)) for is_terminal in (True, False)]
    monkeypatch.setenv("TERM", "dumb")
    kinds.append(type(display_of(plan, Terminal(), is_terminal=True)))

    assert kinds == [Live, Plain, Plain]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"),
     (185, "3 min 05 s"), (3600, "1 h 00 min"), (7825, "2 h 10 min")],
)  # fmt: skip
def test_duration_is_said_as_people_say_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_columns_of_a_table_are_equally_wide() -> None:
    assert table([("a", "bb", ""), ("ccc", "d", "e")]) == ["a    bb", "ccc  d   e"]
    assert table([]) == []


def test_rows_that_move_are_shown_with_the_time_left(planned: Any) -> None:
    moving = [
        event("task_started", "extract", at=0.1, count=1),
        event("slice_started", "extract", 0, at=0.2, count=1),
        event("progress", "extract", 0, at=2.2, progress=Progress(1500, 2.0, 3_000_000, 4500)),
    ]

    assert "  ⠋ extract  3.9 s  1,500 rows, 3.0 MB, 750 rows/s, about 4 s left" in live(planned(), moving)


def test_rows_of_slices_are_told_together(planned: Any) -> None:
    moving = [
        event("task_started", "add", at=0.1, count=2),
        *(event("slice_started", "add", index, at=0.1, count=2) for index in (0, 1)),
        *(event("progress", "add", index, at=2.0, progress=Progress(500, 2.0, 0, 1000)) for index in (0, 1)),
    ]

    (line,) = [one for one in live(planned(), moving, width=100) if " add " in one and "rows" in one]
    assert line.endswith("0/2  1,000 rows, 500 rows/s, about 2 s left")


def test_rows_that_move_long_are_a_plain_line_now_and_then(planned: Any) -> None:
    moving = [
        event("task_started", "extract", at=0.0, count=1),
        *(event("progress", "extract", 0, at=at, progress=Progress(int(at), at)) for at in (0.5, 9.5, 10.5, 19, 21)),
    ]

    assert plain(planned(), moving) == ["extract: started", "extract: 10 rows, 1 rows/s", "extract: 21 rows, 1 rows/s"]
