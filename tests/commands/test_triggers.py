"""Triggers of a `rainbow.yml` as automations of a real Prefect server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Project, Rainbow
from tests.receivers import wait_for

TEXT = """
    name: {name}
    work_pool: {name}
    work_pools: [{{work_pool: {name}, type: process}}]
    pipelines:
      - {{pipeline: {name}-first, tasks: [{{task: a, type: python, cmd: "true"}}]}}
      - pipeline: {name}-then
        parameters: [{{name: n, default: 1}}]
        triggers:
          - {{after: {name}-first, parameters: {{n: 5}}}}
          - {{event: {name}.arrived, match: {{prefect.resource.id: "file.*"}}, parameters: {{n: "7"}}}}
        tasks: [{{task: a, type: python, cmd: "true"}}]
"""


@pytest.fixture
def folder(project: Project, name: str, prefect_server: str) -> Path:
    return project({"rainbow.yml": TEXT.format(name=name)})


def runs(api: str, flow: str) -> list[Any]:
    asked = {"flows": {"name": {"any_": [flow]}}}
    return httpx.post(f"{api}/flow_runs/filter", json=asked, timeout=60).json()


def test_a_pipeline_starts_after_another_and_on_an_event(
    rainbow: Rainbow, folder: Path, name: str, prefect_server: str
) -> None:
    deployed = rainbow("deploy", "--yes", cwd=folder)
    assert f"+ automation {name}-then/{name} after {name}-first" in deployed.out
    rainbow("diff", cwd=folder)

    rainbow("run", "-q", "-p", f"{name}-first", cwd=folder)
    first = wait_for(lambda: runs(prefect_server, f"{name}-then"), 90)
    event = {
        "event": f"{name}.arrived",
        "resource": {"prefect.resource.id": "file.a"},
        "occurred": "2030-01-01T00:00:00Z",
        "id": "00000000-0000-4000-8000-" + name[1:13].rjust(12, "0"),
    }
    httpx.post(f"{prefect_server}/events", json=[event], timeout=60).raise_for_status()
    both = wait_for(lambda: len(runs(prefect_server, f"{name}-then")) == 2 and runs(prefect_server, f"{name}-then"), 90)

    assert first[0]["parameters"]["n"] == 5
    assert sorted(one["parameters"]["n"] for one in both) == [5, 7]


def test_triggers_are_changed_and_pruned(rainbow: Rainbow, folder: Path, name: str) -> None:
    rainbow("deploy", "--yes", cwd=folder)
    text = (folder / "rainbow.yml").read_text()
    lines = [line for line in text.splitlines() if "arrived" not in line]
    (folder / "rainbow.yml").write_text("\n".join(lines).replace("n: 5", "n: 6"))

    changes = rainbow("diff", "--prune", "--json", cwd=folder, code=2).json["changes"]
    rainbow("deploy", "--yes", "--prune", cwd=folder)

    assert [(one["action"], one["kind"]) for one in changes] == [("~", "automation"), ("-", "automation")]
    assert changes[0]["differences"] == [{"action": "~", "key": "parameters.n", "old": 5, "new": 6}]
    assert rainbow("diff", "--prune", "--json", cwd=folder).json["changes"] == []


@pytest.mark.parametrize(
    ("trigger", "text"),
    [
        ("{}", "a trigger has either `after` or `event`; write one of them"),
        ("{after: a, event: b}", "a trigger has either `after` or `event`; write one of them"),
        ("{after: a, match: {x: y}}", "`match` is for `event` only; remove it"),
        ("{event: a, state: failed}", "`state` is for `after` only; remove it"),
    ],
)
def test_what_is_wrong_is_told(rainbow: Rainbow, project: Project, trigger: str, text: str) -> None:
    folder = project({"rainbow.yml": f"name: a\npipelines: [{{pipeline: b, triggers: [{trigger}], tasks: []}}]\n"})

    done = rainbow("check", folder, code=2)

    assert text in done.out
