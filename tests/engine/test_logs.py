"""Lines of slices on their way to the Prefect logs: all of them, in order, in few records when they are many."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from rainbow_prefect.engine.logs import Logs, Slice

LINES = 20_000


class Heard(logging.Handler):
    """Keeps what the Prefect logs would be given: the task run and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.__dict__["task_run_id"], record.getMessage()))

    def lines(self, task_run: str) -> list[str]:
        return [line for one, text in self.records if one == task_run for line in text.split("\n")]


@pytest.fixture
def heard() -> Iterator[Heard]:
    logger = logging.getLogger("prefect.task_runs")
    before = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.propagate = [handler := Heard()], False
    logger.setLevel(logging.INFO)
    yield handler
    logger.handlers, _, logger.propagate = before
    logger.setLevel(before[1])


def test_a_few_lines_are_records_of_their_own(heard: Heard) -> None:
    logs = Logs()

    for number in range(3):
        logs.write(Slice(task_run_id="a"), f"line {number}")
    logs.close()

    assert heard.records == [("a", f"line {number}") for number in range(3)]


def test_many_lines_of_slices_side_by_side_are_few_records(heard: Heard) -> None:
    logs = Logs()
    sources = [Slice(task_run_id=name) for name in "ab"]

    for number in range(LINES):
        for one in sources:
            logs.write(one, str(number))
    logs.close()

    assert [heard.lines(name) for name in "ab"] == [[str(number) for number in range(LINES)]] * 2
    assert len(heard.records) < LINES / 10
