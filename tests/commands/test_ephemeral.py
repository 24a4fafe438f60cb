"""Without any server: each command has one of its own, on the same database."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import Project, Rainbow

CONFIG = """
    name: shop
    pipelines:
      - pipeline: sales
        tasks:
          - {task: work, type: python, cmd: "echo worked; [ -e $HERE/mended ]"}
"""
ALONE = [
    sys.executable,
    "-c",
    "from rainbow_prefect import cli, server; server.PORT = 1; cli.main()",  # whatever else is on port 4200
]
SECONDS = 400  # a first start makes a database: it took more than three minutes beside many other tests


@pytest.mark.slow
@pytest.mark.timeout(4 * SECONDS)
def test_runs_are_kept_without_a_server(
    rainbow: Rainbow, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project({"rainbow.yml": CONFIG})
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HERE", str(folder))

    first = rainbow("run", cwd=folder, code=1, program=ALONE, timeout=SECONDS)
    runs = rainbow("runs", "--json", program=ALONE, timeout=SECONDS).json["runs"]
    (folder / "mended").touch()
    second = rainbow("retry", "last", "--json", cwd=folder, program=ALONE, timeout=SECONDS).json

    assert first.err.startswith("starting a temporary Prefect server; `rainbow server start` keeps one running ...\n")
    assert f"run    {runs[0]['flow_run_id']}; `rainbow server start` shows it in the Prefect UI\n" in first.out
    assert [(one["state"], one["link"]) for one in runs] == [("failed", None)]
    assert (second["flow_run_id"], second["state"], second["link"]) == (runs[0]["flow_run_id"], "completed", "")
