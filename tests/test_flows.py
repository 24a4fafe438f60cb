"""Pipelines as Prefect entrypoints: `rainbow_prefect.flows.<pipeline>` and `flows/rainbow.py:<pipeline>`."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.deployments.runner import EntrypointType
from prefect.exceptions import MissingFlowError
from prefect.flows import Flow, load_flow_from_entrypoint

import rainbow_prefect.flows
from rainbow_prefect.errors import ConfigError
from tests.conftest import ROOT, Project

YAML = """
    name: words
    owner: dana
    pipelines:
      - pipeline: words
        parameters: [{name: mark, type: str, default: "!"}]
        tasks:
          - {task: loud, type: python, source: code, cmd: "python loud.py {{mark}}", output_path: out.json}
      - pipeline: day-end
        tasks:
          - {task: quiet, type: python, cmd: "true"}
"""
CODE = """
    import json
    import sys

    print("shouting", sys.argv[1])
    json.dump("hey" + sys.argv[1], open("out.json", "w"))
"""


@pytest.fixture
def root(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = project({"rainbow.yml": YAML, "code/loud.py": CODE})
    (root / "flows").mkdir()
    shutil.copy(ROOT / "flows" / "rainbow.py", root / "flows" / "rainbow.py")
    monkeypatch.chdir(root)
    return root


def test_a_pipeline_of_the_working_directory_is_an_attribute(root: Path) -> None:
    flow = rainbow_prefect.flows.words

    assert isinstance(flow, Flow)
    assert flow.name == "words"
    assert list(flow.parameters.properties) == ["mark"]


def test_a_name_with_dashes(root: Path) -> None:
    assert getattr(rainbow_prefect.flows, "day-end").name == "day-end"
    assert rainbow_prefect.flows.day_end.name == "day-end"


def test_the_config_may_be_named(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv("RAINBOW_CONFIG", str(root / "rainbow.yml"))

    assert rainbow_prefect.flows.words.name == "words"


def test_an_unknown_name_is_an_attribute_error(root: Path) -> None:
    with pytest.raises(AttributeError) as told:
        _ = rainbow_prefect.flows.wrods

    assert str(told.value) == f"no pipeline 'wrods' in {root}; did you mean 'words'?"


def test_inspection_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAINBOW_CONFIG", str(tmp_path / "missing.yml"))

    assert not hasattr(rainbow_prefect.flows, "__wrapped__")


def test_a_broken_neighbour_does_no_harm(root: Path, project: Project) -> None:
    project({"other/rainbow.yml": "name: other\npipelines: 3\n"})

    assert rainbow_prefect.flows.words.name == "words"


def test_a_pipeline_of_a_broken_file_tells_its_problems(root: Path, project: Project) -> None:
    project({"rainbow.yml": YAML.replace("type: python", "type: pyton")})

    with pytest.raises(ConfigError) as told:
        _ = rainbow_prefect.flows.words

    assert {str(one.mark) for one in told.value.problems} == {"rainbow.yml:7:28", "rainbow.yml:10:29"}


def test_what_the_proofs_find_counts_too(root: Path, project: Project) -> None:
    project({"rainbow.yml": YAML.replace("source: code", "source: coda")})

    with pytest.raises(ConfigError) as told:
        _ = rainbow_prefect.flows.words

    assert [one.mark.line for one in told.value.problems] == [7]


def test_two_pipelines_that_are_spelled_alike(root: Path, project: Project) -> None:
    two = YAML.replace("pipeline: words", "pipeline: a-b_c").replace("day-end", "a_b-c")
    project({"rainbow.yml": two})

    with pytest.raises(AttributeError) as told:
        _ = rainbow_prefect.flows.a_b_c

    assert str(told.value) == "'a_b_c' may be a-b_c or a_b-c; spell it with its dashes"
    assert getattr(rainbow_prefect.flows, "a_b-c").name == "a_b-c"


@pytest.mark.parametrize(
    "entrypoint", ["rainbow_prefect.flows.words", "rainbow_prefect.flows:words", "flows/rainbow.py:words"]
)
def test_prefect_loads_the_entrypoint(root: Path, entrypoint: str) -> None:
    assert load_flow_from_entrypoint(entrypoint).name == "words"


def test_prefect_loads_a_name_with_dashes(root: Path) -> None:
    assert load_flow_from_entrypoint("flows/rainbow.py:day-end").name == "day-end"
    assert load_flow_from_entrypoint("rainbow_prefect.flows.day-end").name == "day-end"


def test_prefect_tells_a_missing_flow(root: Path) -> None:
    with pytest.raises(MissingFlowError) as told:
        load_flow_from_entrypoint("rainbow_prefect.flows.wrods")

    assert str(told.value.__cause__) == f"no pipeline 'wrods' in {root}; did you mean 'words'?"


def test_the_file_finds_the_config_above_it(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    assert load_flow_from_entrypoint(f"{root}/flows/rainbow.py:words").name == "words"


def test_the_flow_can_be_called(root: Path, prefect_api: str) -> None:
    """As any Prefect flow; its result is not promised, its run is."""
    state = rainbow_prefect.flows.words(return_state=True)

    assert state.is_completed()


def test_prefect_never_knows_a_secret_default(root: Path, project: Project, prefect_api: str) -> None:
    project(
        {"rainbow.yml": YAML.replace('type: str, default: "!"}', 'default: "!"}, {name: pin_token, default: 771199}')}
    )
    flow = rainbow_prefect.flows.words

    state = flow(return_state=True)

    assert state.is_completed()
    assert flow.parameters.properties["pin_token"]["default"] == "********"
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(state.state_details.flow_run_id)
    assert run.parameters == {"mark": "!", "pin_token": "********"}


def test_a_flow_knows_its_own_entrypoint(root: Path) -> None:
    deployment = rainbow_prefect.flows.words.to_deployment("d", entrypoint_type=EntrypointType.MODULE_PATH)

    assert deployment.entrypoint == "rainbow_prefect.flows.words"


def _worker(name: str, cwd: Path, **env: str) -> None:
    """A real process worker takes what is due, and ends."""
    prefect = [sys.executable, "-m", "prefect"]
    done = subprocess.run(
        [*prefect, "worker", "start", "--pool", name, "--type", "process", "--run-once", "--install-policy", "never"],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def _ended(flow_run_id: Any) -> tuple[str, str]:
    async with get_client() as client:
        run = await client.read_flow_run(flow_run_id)
        logs = await client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id])))
        return run.state.name if run.state else "", "\n".join(one.message for one in logs)


async def _deployed(flow: Flow[..., Any], pool: str, root: Path) -> list[Any]:
    """One run of a deployment for each kind of entrypoint."""
    steps = [{"prefect.deployments.steps.set_working_directory": {"directory": str(root)}}]
    runs = []
    async with get_client() as client:
        await client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        flow_id = await client.create_flow(flow)
        for name, entrypoint in {"module": "rainbow_prefect.flows.words", "file": "flows/rainbow.py:words"}.items():
            deployment = await client.create_deployment(
                flow_id, f"{pool}-{name}", work_pool_name=pool, entrypoint=entrypoint, pull_steps=steps
            )
            run = await client.create_flow_run_from_deployment(deployment, parameters={"mark": "?"})
            runs.append(run.id)
    return runs


@pytest.mark.slow
def test_a_process_worker_runs_deployments(root: Path, prefect_api: str, tmp_path: Path) -> None:
    pool = f"pool-{os.getpid()}"
    runs = asyncio.run(_deployed(rainbow_prefect.flows.words, pool, root))

    _worker(pool, tmp_path)

    for run in runs:
        state, logs = asyncio.run(_ended(run))
        assert state == "Completed", logs
        assert "shouting ?" in logs
