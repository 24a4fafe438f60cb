"""`rainbow trigger` and `rainbow backfill`: with a real server and a real process worker, and on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.conftest import Project, Rainbow
from tests.receivers import receiver, wait_for

TEXT = """
    name: {name}
    secrets: [{{secret: hook, env: ALERT_HOOK}}]
    alerts: [{{type: webhook, url: "{{{{secret.hook}}}}", on: crash}}]
    work_pools: [{{work_pool: {name}, type: process}}]
    work_pool: {name}
    pipelines:
      - pipeline: {name}
        parameters:
          - {{name: period_start, type: date, default: 2024-01-01}}
          - {{name: n, default: 1}}
        tasks:
          - task: load
            type: python
            cmd: "echo loading {{{{period_start}}}} {{{{n}}}}; echo {{{{period_start}}}} >> $HERE/ran; test ! -e $HERE/bad-{{{{period_start}}}} || exit 1; if test -e $HERE/hang; then echo $PPID > $HERE/pid; sleep 300; fi"
"""


@contextmanager
def worker(pool: str, log: Path, **more: str) -> Iterator[None]:
    """A process worker of a pool, ended by its process id."""
    env = {**os.environ, "PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_LOGGING_COLORS": "false", **more}
    with log.open("w") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"],
            env=env,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            child.terminate()
            try:
                child.wait(60)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@pytest.fixture
def folder(project: Project, name: str, monkeypatch: pytest.MonkeyPatch, prefect_server: str) -> Path:
    made = project({"rainbow.yml": TEXT.format(name=name)})
    monkeypatch.setenv("HERE", str(made))
    monkeypatch.setenv("PREFECT_HOME", str(made.parent / "prefect"))
    return made


def kill_run(pid: int) -> None:
    """Kill the process of the flow run that one of its commands belongs to, as the kernel does when memory runs out."""
    chain = [psutil.Process(pid), *psutil.Process(pid).parents()]
    run = next(
        one for one in chain if "prefect.engine" in " ".join(one.cmdline()) or "flow_engine" in " ".join(one.cmdline())
    )
    run.kill()


def ran(folder: Path) -> list[str]:
    path = folder / "ran"
    lines = sorted(path.read_text().split()) if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_deployed_pipeline_is_triggered_and_backfilled(
    rainbow: Rainbow, folder: Path, name: str, tmp_path: Path
) -> None:
    rainbow("deploy", "--yes", cwd=folder)
    with receiver() as hook, worker(name, tmp_path / "worker.log", ALERT_HOOK=hook.url):
        done = rainbow("trigger", name, "--param", "n=7", "--wait", cwd=folder, timeout=600)
        assert "loading 2024-01-01 7" in done.out
        assert done.out.rstrip().endswith(f"{name} completed")

        (folder / "bad-2024-01-01").touch()
        failed = rainbow("trigger", name, "--wait", "--json", cwd=folder, code=1, timeout=600)
        assert (failed.json["state"], failed.json["pipeline"]) == ("failed", name)
        assert "task 'load' failed" in failed.json["message"]
        ran(folder)

        call = ["backfill", name, "--from", "2024-01-01", "--to", "2024-01-02", "--parallel", "2", "--yes", "--json"]
        first = rainbow(*call, cwd=folder, code=1, timeout=600)
        assert [one["state"] for one in first.json["periods"]] == ["failed", "completed"]
        assert ran(folder) == ["2024-01-01", "2024-01-02"]

        (folder / "bad-2024-01-01").unlink()
        second = rainbow(*call, cwd=folder, timeout=600)
        assert ran(folder) == ["2024-01-01"]
        assert {one["state"] for one in second.json["periods"]} == {"completed"}
        assert "1 to run by workers, 1 completed before" in second.err

        (folder / "hang").touch()
        run_id = rainbow("trigger", name, "--json").json["flow_run_id"]
        pid = int(wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip(), 400))
        kill_run(pid)
        (told,) = wait_for(lambda: hook.got, 400)
        assert (told.json["occasion"], told.json["flow_run_id"]) == ("crash", run_id)
        assert told.json["title"] == f"{name} crashed"
    third = rainbow(*call, cwd=folder)
    assert third.json["periods"] == second.json["periods"]


def test_a_run_is_started_without_waiting(rainbow: Rainbow, folder: Path, name: str) -> None:
    rainbow("deploy", "--yes", cwd=folder)

    done = rainbow("trigger", name, "--json")

    assert (done.json["state"], done.json["pipeline"]) == ("scheduled", name)
    assert done.json["link"].endswith(done.json["flow_run_id"])


def test_wrong_parameters_of_a_deployed_pipeline_are_told(rainbow: Rainbow, folder: Path, name: str) -> None:
    rainbow("deploy", "--yes", cwd=folder)

    done = rainbow("trigger", name, "--param", "m=1", "--param", "n=x", code=2)

    assert done.err.splitlines() == [
        f"Error: pipeline '{name}' has no parameter 'm'; known: n, period_start",
        "parameter 'n' must be a whole number, got 'x'",
    ]


def test_a_pipeline_that_is_not_deployed_is_a_wrong_call(rainbow: Rainbow, folder: Path, name: str) -> None:
    done = rainbow("trigger", name, code=2)

    assert done.err.startswith(f"Error: pipeline '{name}' is not deployed; ")
    assert done.err.endswith("deploy it: rainbow deploy\n")


def test_a_backfill_of_this_machine_goes_on_where_it_stopped(rainbow: Rainbow, folder: Path, name: str) -> None:
    call = ["backfill", name, "--from", "2024-01-01", "--to", "2024-01-02", "--parallel", "2"]
    (folder / "bad-2024-01-02").touch()

    preview = rainbow(*call, cwd=folder)
    assert preview.out == (
        "  2024-01-01 to 2024-01-02  to run\n  2024-01-02 to 2024-01-03  to run\n"
        "2 to run on this machine, 0 completed before\nnothing was run; add --yes to run them\n"
    )
    assert ran(folder) == []

    first = rainbow(*call, "--yes", cwd=folder, code=1)
    assert first.out.endswith("1 of 2 periods completed\nthe same command runs only those that did not\n")
    assert "2024-01-02 to 2024-01-03: task 'load' failed" in first.err
    assert ran(folder) == ["2024-01-01", "2024-01-02"]

    (folder / "bad-2024-01-02").unlink()
    second = rainbow(*call, "--yes", "--json", cwd=folder)
    assert ran(folder) == ["2024-01-02"]
    assert [one["state"] for one in second.json["periods"]] == ["completed", "completed"]
    assert json.loads((folder.parent / f"prefect/rainbow/backfills/{name}.json").read_text())


def test_a_backfill_needs_a_parameter(rainbow: Rainbow, project: Project) -> None:
    folder = project({"rainbow.yml": "name: a\npipelines: [{pipeline: b, tasks: []}]\n"})

    done = rainbow("backfill", "b", "--from", "2024-01-01", "--to", "2024-01-02", cwd=folder, code=2)

    assert done.err == (
        "Error: pipeline 'b' has no parameter `period_start`, so all its runs would be the same; add to it: "
        "parameters: [{name: period_start, type: date, default: 2024-01-01}] and use {{period_start}}\n"
    )
