"""What a run shows in the Prefect UI: progress, tables, a report, assets; and that none of it can harm a run."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from rainbow_prefect.engine import artifacts
from rainbow_prefect.engine.artifacts import key_of, markdown
from rainbow_prefect.run import PartitionReport, Progress, Report, Run, TaskReport, Written

pytestmark = pytest.mark.usefixtures("prefect_api")


def made(run_id: str) -> dict[str, Any]:
    """The artifacts of a run, by their keys."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    with get_client(sync_client=True) as client:
        chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(run_id)]))
        return {str(one.key): one for one in client.read_artifacts(artifact_filter=chosen)}


def told_events(name: str, key: str) -> list[Any]:
    """The events of this name about a resource, once there is one."""
    from prefect.client.orchestration import get_client

    deadline = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while True:
            wanted = {"filter": {"event": {"name": [name]}, "resource": {"id": [key]}}, "limit": 10}
            found: list[Any] = client.request("POST", "/events/filter", json=wanted).json()["events"]
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0.3)


def test_a_run_leaves_a_report_of_what_ran(load: Any) -> None:
    report = load("- {task: a, type: call, input: 1}").run()

    found = made(report.flow_run_id)
    assert list(found) == ["p-report"]
    assert found["p-report"].type == "markdown"
    assert found["p-report"].data.startswith("# p: completed\n\n| task | state | slices | seconds |\n")
    assert f"`rainbow logs {report.flow_run_id}`" in found["p-report"].data


def test_the_slices_of_a_split_task_are_a_table_with_failures_first(load: Any, functions: Any) -> None:
    def halve(run: Run) -> Any:
        if run.input == ["b"]:
            raise ValueError("no b")
        return run.input

    functions["halve"] = halve
    report = load("- {task: halve, type: call, input: [a, b, c], split_input: true, executors: 3}").run()

    table = made(report.flow_run_id)["p-halve-slices"]
    rows = json.loads(table.data)
    assert table.description == "task halve: 2 of 3 slices completed; those that did not complete come first"
    assert [(one["slice"], one["state"], one["attempts"], one["message"]) for one in rows] == [
        (1, "failed", 1, "ValueError: no b"),
        (0, "completed", 1, ""),
        (2, "completed", 1, ""),
    ]
    assert [one["input"] for one in rows] == ['["b"]', '["a"]', '["c"]']


def test_a_long_split_task_shows_its_progress(load: Any, functions: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "_EVERY_SECONDS", 0.1)
    seen: list[float] = []

    def wait(run: Run) -> Any:
        deadline = time.monotonic() + 60
        while run.index == 1 and time.monotonic() < deadline:  # until its artifact tells of the other slice
            found = made(run.run_id).get("p-wait-progress")
            if found is not None and found.data:
                seen.append(found.data)
                break
            time.sleep(0.2)

    functions["wait"] = wait
    report = load("- {task: wait, type: call, input: [1, 2], split_input: true, executors: 2}").run()

    assert report.completed
    assert seen == [50.0]
    ended = made(report.flow_run_id)["p-wait-progress"]
    assert (ended.type, ended.data, ended.description) == ("progress", 100.0, "2 of 2 slices are over")


def test_a_short_task_has_no_progress(load: Any) -> None:
    report = load("- {task: a, type: call, input: [1, 2], split_input: true, executors: 2}").run()

    assert sorted(made(report.flow_run_id)) == ["p-a-slices", "p-report"]


def test_rows_that_move_are_told_with_the_time_left(load: Any, functions: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "_EVERY_SECONDS", 0.1)
    seen: list[tuple[float, str]] = []

    def move(run: Run) -> Any:
        run.progress(Progress(rows=1000, seconds=2.0, size_bytes=5_000_000, total_rows=4000))
        deadline = time.monotonic() + 60
        while not seen and time.monotonic() < deadline:
            found = made(run.run_id).get("p-move-progress")
            if found is not None:
                seen.append((found.data, found.description))
            time.sleep(0.2)

    functions["move"] = move
    report = load("- {task: move, type: call}").run()

    assert seen == [(25.0, "1,000 rows, 5.0 MB, 500 rows/s, about 6 s left")]
    ended = made(report.flow_run_id)["p-move-progress"]
    assert ended.data == 100.0
    assert str(ended.task_run_id) != "None"


def test_no_answer_of_the_server_harms_a_run(load: Any, functions: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.client.orchestration import SyncPrefectClient

    def refuse(*_: Any) -> Any:
        raise RuntimeError("503")

    monkeypatch.setattr(SyncPrefectClient, "create_artifact", refuse)
    functions["a"] = lambda run: run.wrote(Written("sqlite:///x.db/t"))

    report = load("- {task: a, type: call}").run()

    assert report.completed
    assert made(report.flow_run_id) == {}


def test_a_load_is_a_table_and_an_asset_with_its_lineage(load: Any, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as db:
        db.execute("create table orders (id integer, amount integer)")
        db.execute("insert into orders values (1, 10), (2, 20)")
    db.close()

    report = load(
        f"""
            - task: load
              type: sql_etl
              source: sqlite:///{tmp_path}/shop.db
              query: select o.id from orders o
              sink: sqlite:///{tmp_path}/mart.db
              table: facts
            """
    ).run()

    found = made(report.flow_run_id)
    (row,) = json.loads(found["p-load-loads"].data)
    assert (row["table"], row["mode"], row["rows_read"], row["rows_written"]) == ("facts", "append", 2, 2)
    assert "| load | completed | 1 of 1 |" in found["p-report"].data
    assert "| 2 |\n" in found["p-report"].data
    source, sink = f"sqlite://{tmp_path}/shop.db/orders", f"sqlite://{tmp_path}/mart.db/facts"
    (event,) = told_events("prefect.asset.materialization.succeeded", sink)
    roles = {(one["prefect.resource.role"], one["prefect.resource.id"]) for one in event["related"]}
    assert {("asset", source), ("asset-materialized-by", "rainbow-prefect")} <= roles
    assert ("flow-run", f"prefect.flow-run.{report.flow_run_id}") in roles
    assert event["payload"]["rows_written"] == 2
    assert told_events("prefect.asset.referenced", source)


def test_the_report_says_what_failed_and_the_next_step() -> None:
    failed = PartitionReport(0, None, "failed", message="exit status 3")
    text = markdown(
        Report(
            "sales",
            "1234",
            "failed",
            "task 'load' failed: a | b\n<c>",
            1.5,
            tasks=[
                TaskReport("get", "completed", seconds=1, partitions=[PartitionReport(0, state="completed")]),
                TaskReport("load", "failed", "a | b\n<c>", 0.5, partitions=[failed]),
                TaskReport("tell_all", "not_run"),
            ],
            warnings=["metrics were not sent"],
        )
    )

    assert text == (
        "# sales: failed\n\n"
        "> task 'load' failed: a \\| b \\<c\\>\n\n"
        "| task | state | slices | seconds |\n| --- | --- | --- | --- |\n"
        "| get | completed | 1 of 1 | 1.0 |\n| load | failed | 0 of 1 | 0.5 |\n| tell\\_all | not run |  | 0.0 |\n\n"
        "## What failed\n\n- **load**: a \\| b \\<c\\>\n\n"
        "## Warnings\n\n- metrics were not sent\n\n"
        "## Next step\n\n`rainbow logs 1234` shows what the tasks printed. Mend the cause, then run `rainbow retry 1234`: "
        "what has\ncompleted is not run again.\n"
    )


def test_a_key_is_as_prefect_takes_it() -> None:
    assert key_of("Sales.Daily", "load_orders-é", "report") == "sales-daily-load-orders-report"
    assert key_of("é") == "run"
