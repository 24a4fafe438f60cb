"""`rainbow ci init`: the workflows are YAML, and their steps run here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Project, Rainbow

TEXT = """
    name: {name}
    work_pool: {name}
    work_pools: [{{work_pool: {name}, type: process}}]
    pipelines:
      - {{pipeline: {name}, tasks: [{{task: a, type: python, cmd: "true"}}]}}
"""


def bash(script: str, folder: Path) -> str:
    """What a step prints, run as GitHub does."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def steps_of_github(folder: Path) -> dict[str, Any]:
    workflow = yaml.safe_load((folder / ".github/workflows/pipelines.yml").read_text())
    assert workflow[True] == {"pull_request": None, "push": {"branches": ["main"]}}  # `on` is true in YAML 1.1
    return {one.get("name", one.get("uses")): one for one in workflow["jobs"]["rainbow"]["steps"]}


def steps_of_gitlab(folder: Path) -> dict[str, Any]:
    workflow = yaml.safe_load((folder / ".gitlab-ci.yml").read_text())
    assert workflow["deploy"]["rules"] == [{"if": '$CI_COMMIT_BRANCH == "main"'}]
    names = ("check", "diff", "deploy")
    return {name.capitalize(): {"run": "\n".join(workflow[name]["script"])} for name in names}


@pytest.mark.parametrize(("where", "steps"), [("github", steps_of_github), ("gitlab", steps_of_gitlab)])
def test_the_steps_check_diff_and_deploy(
    rainbow: Rainbow, project: Project, prefect_server: str, name: str, where: str, steps: Any
) -> None:
    folder = project({"rainbow.yml": TEXT.format(name=name)})
    rainbow("ci", "init", where, cwd=folder)
    found = steps(folder)

    checked, first = (bash(found[one]["run"], folder) for one in ("Check", "Diff"))
    bash(found["Deploy"]["run"], folder)
    second = bash(found["Diff"]["run"], folder)

    assert "1 pipeline" in checked
    assert f"{name}/{name}" in first
    assert "+ deployment" in first and "+ deployment" not in second
    assert (folder / "rainbow-diff.txt").read_text() == second


def test_the_steps_of_github_run_where_they_should(rainbow: Rainbow, project: Project) -> None:
    folder = project({"rainbow.yml": TEXT.format(name="a")})
    rainbow("ci", "init", "github", "--package", "rainbow-prefect[aws]==1.2", cwd=folder)
    found = steps_of_github(folder)

    assert found["Install"]["run"] == "pip install 'rainbow-prefect[aws]==1.2'"
    assert found["Deploy"]["if"] == "github.event_name == 'push'"
    assert "pull_request" in found["Diff"]["if"] and "pull_request" in found["Show the diff"]["if"]
    assert subprocess.run(["bash", "-n", "-c", found["Show the diff"]["run"]]).returncode == 0


def test_a_workflow_that_is_there_is_kept(rainbow: Rainbow, project: Project) -> None:
    folder = project({".gitlab-ci.yml": "mine: true\n"})

    done = rainbow("ci", "init", "gitlab", cwd=folder, code=2)

    assert done.err == "Error: .gitlab-ci.yml exists already; add --force to write over it\n"
    rainbow("ci", "init", "gitlab", "--force", "--branch", "live", cwd=folder)
    assert '$CI_COMMIT_BRANCH == "live"' in (folder / ".gitlab-ci.yml").read_text()
