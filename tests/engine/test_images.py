"""What a run does about the images of its tasks, with a real engine."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rainbow_prefect import load
from rainbow_prefect.engine.flow import run
from tests.conftest import Done, Project, Rainbow

if TYPE_CHECKING:
    import docker

CODE = "import json\nfrom word import WORD\njson.dump(WORD, open('out.json', 'w'))\n"


@pytest.fixture
def name(docker_engine: docker.DockerClient, base_image: str) -> Iterator[str]:
    """The name of an app of this test alone; its images are removed."""
    import docker.errors

    made = f"t{uuid.uuid4().hex[:12]}"
    yield made
    for image in docker_engine.images.list(filters={"label": f"rainbow.app={made}"}):
        try:
            docker_engine.images.remove(image.id, force=True)
        except docker.errors.APIError:  # one that another is made of; it goes with that
            continue


def written(project: Project, name: str, keys: str = "", more: str = "") -> Path:
    text = f"""
    name: {name}
    {more}
    pipelines:
      - pipeline: {name}
        tasks:
          - {{task: a, type: python, source: code, cmd: python a.py, output_path: out.json{keys}}}
    """
    return project({"rainbow.yml": text, "code/a.py": CODE, "code/word.py": "WORD = 'one'\n"})


def executed(rainbow: Rainbow, root: Path, code: int = 0) -> Done:
    return rainbow("run", root, "--executor", "docker", "--json", code=code, timeout=280)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_run_builds_what_is_missing_or_changed(rainbow: Rainbow, project: Project, name: str) -> None:
    root = written(project, name)

    first = executed(rainbow, root)
    again = executed(rainbow, root)
    (root / "code/word.py").write_text("WORD = 'two'\n")
    changed = executed(rainbow, root)
    logged = rainbow("logs", changed.json["flow_run_id"], cwd=root).out

    assert [one.json["tasks"][0]["output"] for one in (first, again, changed)] == ["one", "one", "two"]
    image = f"rainbow/{name}-code:latest"
    assert f"image {image}: building: not built yet" in first.err
    assert "1 of 1 images built in " in first.err
    assert image not in again.err
    assert f"image {image}: building: code/word.py changed" in changed.err
    assert f"image {image}: building: code/word.py changed" in logged


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_build_that_fails_fails_the_run(rainbow: Rainbow, project: Project, name: str) -> None:
    root = written(
        project, name, f", image: '{name}:1'", f"images: [{{image: '{name}:1', build_cmd: echo no; exit 7}}]"
    )

    done = executed(rainbow, root, code=1).json

    assert done["state"] == "failed"
    assert done["message"].startswith(f"image '{name}:1' could not be built: step [")
    assert "RUN echo no; exit 7: no | " in done["message"]
    assert "(full log: " in done["message"]
    assert [(one["task"], one["state"]) for one in done["tasks"]] == [("a", "not_run")]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_an_engine_that_is_away_is_told_in_one_line_each_time(rainbow: Rainbow, project: Project) -> None:
    root = project(
        {
            "rainbow.yml": """
            name: away
            executors: [{executor: box, type: docker, host: "tcp://127.0.0.1:1"}]
            executor: box
            pipelines:
              - {pipeline: away, tasks: [{task: a, type: python, cmd: echo 1}]}
            """
        }
    )

    done = rainbow("run", root, code=1)

    assert "executor 'docker' could not clean up: the Docker engine at tcp://127.0.0.1:1 does not answer" in done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api", "name")
def test_a_run_is_cancelled_while_it_builds(project: Project, name: str) -> None:
    root = written(project, name, f", image: '{name}:1'", f"images: [{{image: '{name}:1', build_cmd: sleep 600}}]")
    stop = threading.Event()
    threading.Timer(5, stop.set).start()
    begun = time.monotonic()

    report = run(load(root).pipeline(name).plan(executor="docker"), stop=stop)

    assert (report.state, report["a"].state) == ("cancelled", "not_run")
    assert time.monotonic() - begun < 120


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api", "name")
def test_a_run_is_over_at_its_deadline_while_it_builds(project: Project, name: str) -> None:
    root = written(project, name, f", image: '{name}:1'", f"images: [{{image: '{name}:1', build_cmd: sleep 600}}]")
    file = root / "rainbow.yml"
    file.write_text(file.read_text().replace(f"pipeline: {name}\n", f"pipeline: {name}\n    timeout_minutes: 0.1\n"))
    begun = time.monotonic()

    report = run(load(root).pipeline(name).plan(executor="docker"))

    assert (report.state, report.message) == ("timed_out", f"pipeline '{name}' timed out after 6 s")
    assert time.monotonic() - begun < 120
