"""Without any server: each command has one of its own, on the same database."""

from __future__ import annotations

from pathlib import Path

import pytest

from rainbow_prefect import server
from tests.conftest import Project, Rainbow

CONFIG = """
    name: shop
    pipelines:
      - pipeline: sales
        tasks:
          - {task: work, type: python, cmd: "echo worked; [ -e $HERE/mended ]"}
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_runs_are_kept_without_a_server(
    rainbow: Rainbow, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project({"rainbow.yml": CONFIG})
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(server, "PORT", 1)
    env = {"PREFECT_HOME": str(tmp_path / "home"), "HERE": str(folder)}

    first = rainbow("run", cwd=folder, env=env, code=1)
    runs = rainbow("runs", "--json", env=env).json["runs"]
    (folder / "mended").touch()
    second = rainbow("retry", "last", "--json", cwd=folder, env=env).json

    assert first.err.startswith("starting a temporary Prefect server; `rainbow server start` keeps one running ...\n")
    assert f"run    {runs[0]['flow_run_id']}; `rainbow server start` shows it in the Prefect UI\n" in first.out
    assert [(one["state"], one["link"]) for one in runs] == [("failed", None)]
    assert (second["flow_run_id"], second["state"], second["link"]) == (runs[0]["flow_run_id"], "completed", "")
