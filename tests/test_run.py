"""What moves in a run: slices, large values, the contract with user code, reports."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect.executors.base import StubExecutor
from rainbow_prefect.run import (
    ENV_INPUT_BYTES,
    Large,
    Metric,
    PartitionReport,
    Report,
    Run,
    TaskReport,
    chunks,
    split,
    value_of,
)
from rainbow_prefect.secrets import Secrets


def run_of(tmp_path: Path, **more: Any) -> Run:
    return Run("app", "p", "t", "id-1", tmp_path, tmp_path, StubExecutor(), Secrets(environ={}), **more)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 100])
@pytest.mark.parametrize("parts", [1, 2, 3, 6, 11])
def test_split_loses_nothing_and_keeps_the_order(count: int, parts: int) -> None:
    slices = split(list(range(count)), parts)

    assert len(slices) == parts
    assert [item for one in slices for item in one] == list(range(count))
    sizes = [len(one) for one in slices]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


def test_split_into_no_parts_is_an_error() -> None:
    with pytest.raises(ValueError, match="parts must be at least 1, got 0"):
        split([1], 0)


def test_chunks_are_of_one_size_but_for_the_last() -> None:
    assert chunks([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    assert chunks([], 2) == [[]]
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        chunks([1], 0)


def test_large_values_are_read_where_they_are_needed(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[1]")
    large = Large(path, 3, 1)

    assert value_of(large) == [1]
    assert value_of([large, 2]) == [[1], 2]
    assert value_of({"a": 1}) == {"a": 1}


def test_the_input_as_bytes_is_what_was_given(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[1,  2]")

    assert run_of(tmp_path).input_bytes() == b"{}"
    assert run_of(tmp_path, input=["żółw"]).input_bytes() == '["żółw"]'.encode()
    assert run_of(tmp_path, input=Large(path, 7)).input_bytes() == b"[1,  2]"
    assert json.loads(run_of(tmp_path, input="\ud800").input_bytes()) == "\ud800"


def test_the_contract_with_user_code(tmp_path: Path) -> None:
    run = run_of(tmp_path, index=1, count=3, attempt=2)

    env = run.contract_env(input_path="/in.json", output_path="/out.json", data=b"[1]")

    assert env == {
        "RAINBOW_INPUT": "[1]",
        "RAINBOW_INPUT_PATH": "/in.json",
        "RAINBOW_OUTPUT_PATH": "/out.json",
        "RAINBOW_SPLIT_ID": "1",
        "RAINBOW_NUM_SPLITS": "3",
        "LIMINAL_SPLIT_ID": "1",
        "LIMINAL_NUM_SPLITS": "3",
        "RAINBOW_PIPELINE": "p",
        "RAINBOW_TASK": "t",
        "RAINBOW_ATTEMPT": "2",
        "run_id": "id-1",
    }


def test_an_input_that_is_too_large_for_a_variable_is_left_out(tmp_path: Path) -> None:
    run = run_of(tmp_path)

    for size, is_there in [(ENV_INPUT_BYTES, True), (ENV_INPUT_BYTES + 1, False)]:
        env = run.contract_env(input_path="i", output_path=None, data=b"1" * size)
        assert ("RAINBOW_INPUT" in env) is is_there
    assert "RAINBOW_OUTPUT_PATH" not in env


def test_remaining_seconds_count_down_to_nothing(tmp_path: Path) -> None:
    assert run_of(tmp_path).remaining_seconds() is None
    assert run_of(tmp_path, deadline=time.monotonic() - 1).remaining_seconds() == 0
    left = run_of(tmp_path, deadline=time.monotonic() + 5).remaining_seconds()
    assert left is not None
    assert 4 < left <= 5


def test_a_report_as_data(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[1]")
    task = TaskReport("a", "completed", output=Large(path, 3), partitions=[PartitionReport(0, state="completed")])
    report = Report("p", "id", "completed", tasks=[task], metrics=[Metric("N", "JobResult", 1)])

    data = report.as_dict()

    assert data["tasks"][0]["output"] == [1]
    assert data["metrics"] == [{"namespace": "N", "name": "JobResult", "value": 1, "unit": None, "dimensions": {}}]
    assert report.completed
    assert report["a"] is task
    with pytest.raises(KeyError):
        report["b"]
