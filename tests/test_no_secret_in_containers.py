"""Nothing secret shows with the executor `docker`: not in labels, layers or histories of images, logs or the report."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import Project, Rainbow
from tests.test_no_secret_shows import post

if TYPE_CHECKING:
    import docker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

FILE, BESIDE, VARIABLE, ROOT, PIP = (
    "file-s3cret-Aa1",
    "beside-the-code-s3cret-Bb2",
    "variable-s3cret-Cc3",
    "root-variable-s3cret-Dd4",
    "pip-s3cret-Ee5",
)
ALL = (FILE, BESIDE, VARIABLE, ROOT, PIP)
AS_VARIABLES = (VARIABLE, ROOT)

YAML = """
    name: {app}
    labels: {{of_app: "{{{{db_password}}}}"}}
    secrets:
      - {{secret: file, local_path_file: keys/file.txt}}
      - {{secret: beside, local_path_file: code/conf/beside.txt}}
      - {{secret: variable, env: LEAKY_VALUE}}
    variables: {{db_password: "{root}"}}
    executors:
      - {{executor: box, type: docker, keep_failed: true, labels: {{of_executor: "{{{{db_password}}}}"}}}}
    executor: box
    task_defaults:
      python: {{source: code, image: "rainbow-tests/{app}:1", pip_conf: keys/pip.conf}}
    pipelines:
      - pipeline: leaky
        tasks:
          - task: tells
            type: python
            cmd: python tells.py
            labels: {{of_task: "{{{{db_password}}}}"}}
            env_vars: {{DATABASE: "{{{{db_password}}}}"}}
            secrets:
              - {{secret: file, remote_path: keys}}
              - {{secret: beside, remote_path: /secrets, sub_path: beside}}
              - {{secret: variable, env: GIVEN}}
            output_path: out.json
          - {{task: echoes, type: python, module: calls, function: echo, input: "task:tells"}}
          - {{task: fails, type: python, module: calls, function: fail, input: "task:tells"}}
"""
FILES = {
    "keys/file.txt": f"{FILE}\n",
    "keys/pip.conf": f"[global]\n# token = {PIP}\ndisable-pip-version-check = true\n",
    "code/conf/beside.txt": f"{BESIDE}\n",
    "code/requirements.txt": "# nothing\n",
    "code/tells.py": """
        import json
        import os
        import sys
        import time

        found = [open("keys/credentials").read(), open("/secrets/beside").read(), os.environ["GIVEN"], os.environ["DATABASE"]]
        for one in found:
            print(one, repr(one), [one])
            print(json.dumps({"a": one}), file=sys.stderr)
        time.sleep(2)
        json.dump([one.strip() for one in found], open("out.json", "w"))
    """,
    "code/calls.py": """
        import os
        import sys


        def echo(given):
            print(given, sorted(os.listdir("conf") if os.path.exists("conf") else []))
            return given


        def fail(given):
            sys.exit(f"cannot work with {given}")
    """,
}


def leaks(text: str, values: tuple[str, ...] = ALL) -> list[str]:
    return [one for one in values if one in text]


@contextmanager
def watched(engine: docker.DockerClient, label: str) -> Iterator[list[dict[str, Any]]]:
    """What the engine tells of each container with this label as soon as it is made."""
    import docker.errors

    found: list[dict[str, Any]] = []
    events = engine.events(decode=True, filters={"label": label, "event": "start"})

    def look() -> None:
        for event in events:
            try:
                found.append(engine.api.inspect_container(event["id"]))
            except docker.errors.NotFound:
                continue

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        events.close()
        thread.join(20)


@pytest.fixture
def app(docker_engine: docker.DockerClient, base_image: str) -> Iterator[str]:
    name = f"leaky-{secrets.token_hex(4)}"
    yield name
    for container in docker_engine.containers.list(
        all=True, filters={"label": f"rainbow.app={name}"}, ignore_removed=True
    ):
        container.remove(force=True)
    for image in docker_engine.images.list(f"rainbow-tests/{name}"):
        docker_engine.images.remove(image.id, force=True)


@pytest.fixture
def root(app: str, project: Project) -> Path:
    return project({**FILES, "rainbow.yml": YAML.format(app=app, root=ROOT)})


def test_nothing_secret_shows(
    root: Path, app: str, rainbow: Rainbow, prefect_server: str, docker_engine: docker.DockerClient
) -> None:
    with watched(docker_engine, f"rainbow.app={app}") as containers:
        done = rainbow("run", root, "--json", env={"LEAKY_VALUE": VARIABLE}, code=1, timeout=900)

    # the run itself: the values arrived, and are told by nobody
    report = done.json
    assert [(one["task"], one["state"]) for one in report["tasks"]] == [
        ("tells", "completed"),
        ("echoes", "completed"),
        ("fails", "failed"),
    ]
    assert report["tasks"][0]["output"] == ["********"] * 4
    assert leaks(done.out + done.err) == []
    run_id = report["flow_run_id"]
    of_run = {"flow_runs": {"id": {"any_": [run_id]}}}
    logs = post(f"{prefect_server}/logs/filter", {"logs": {"flow_run_id": {"any_": [run_id]}}, "limit": 200})
    assert "********" in logs
    assert leaks(logs + post(f"{prefect_server}/task_runs/filter", of_run)) == []
    assert leaks(rainbow("logs", run_id).out) == []

    # the containers, while they ran and when one is kept: only what the file asks for as variables is in them
    kept = docker_engine.containers.list(all=True, filters={"label": f"rainbow.flow-run={run_id}"}, ignore_removed=True)
    assert [one.labels["rainbow.task"] for one in kept] == ["fails"]
    told = [*containers, *(docker_engine.api.inspect_container(one.id) for one in kept)]
    assert len(told) >= 2
    assert any(one["Config"]["Labels"]["of_task"] == "********" for one in told if "of_task" in one["Config"]["Labels"])
    for one in told:
        # the input is data of the user: a task that puts secrets into its output gives them to the next
        variables = " ".join(each for each in one["Config"].pop("Env") if not each.startswith("RAINBOW_INPUT="))
        assert set(leaks(variables)) <= set(AS_VARIABLES)
        assert leaks(json.dumps(one)) == []

    # the image: its labels, its steps, and every byte of its layers
    image = docker_engine.images.get(f"rainbow-tests/{app}:1")
    assert leaks(json.dumps([image.attrs, image.history()])) == []
    assert leaks_of_layers(image) == []


def leaks_of_layers(image: Any) -> list[str]:
    found: set[str] = set()
    end = b""
    for chunk in image.save():
        data = end + chunk
        found.update(one for one in ALL if one.encode() in data)
        end = data[-100:]
    return sorted(found)


def test_show_plan_and_build_tell_none(root: Path, rainbow: Rainbow, docker_engine: docker.DockerClient) -> None:
    env = {"LEAKY_VALUE": VARIABLE}
    for args in (["check"], ["show", "--json"], ["plan", "--json"], ["build", "--dry-run", "--json"]):
        done = rainbow(args[0], root, *args[1:], env=env)

        assert leaks(done.out + done.err) == []
