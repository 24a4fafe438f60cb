"""`rainbow build`: what it says, what it asks of the Docker client, how it ends."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import RAINBOW, Project, Rainbow
from tests.executors.contract import wait_until

FAKE = f"""#!{sys.executable}
import json, os, pathlib, shutil, sys
words = sys.argv[1:]
record = {{"words": words, "buildkit": os.environ.get("DOCKER_BUILDKIT")}}
if words[0] == "build":
    context = pathlib.Path(words[-1])
    record["files"] = sorted(str(path.relative_to(context)) for path in context.rglob("*") if path.is_file())
    record["dockerfile"] = pathlib.Path(words[words.index("--file") + 1]).read_text()
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps(record) + "\\n")
if record["buildkit"] == "1" and os.environ.get("NO_BUILDKIT"):
    sys.exit("ERROR: BuildKit is enabled but the buildx component is missing or broken.")
for line in ("first words", "last words"):
    print(line, flush=True)
sys.exit(os.environ.get("FAIL", "") in words and 1)
"""

FILES = {
    "rainbow.yml": """
        name: imgs
        images:
          - {image: "team/app:1", source: app, python_version: "3.11", no_cache: true, pip_conf: "conf/pip,1.conf"}
          - image: "team/web:1"
            type: python_server
            source: web
            endpoints: [{endpoint: /p, module: w, function: p}]
          - {image: "team/prebuilt:9"}
        pipelines:
          - pipeline: imgs
            tasks:
              - {task: a, type: python, image: "team/app:1", cmd: python a.py}
              - {task: b, type: python, image: "task/inline:1", source: "my code", cmd: python b.py}
        services:
          - {service: web, image: "team/web:1"}
    """,
    "app/a.py": "print('a')\n",
    "app/requirements.txt": "# none\n",
    "my code/b.py": "print('b')\n",
    "web/w.py": "def p():\n    return 'p'\n",
    "conf/pip,1.conf": "[global]\ntimeout = 60\n",
}

Calls = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A `docker` first on the PATH that records what it is asked, and no engine; gives what was recorded."""
    program = tmp_path / "bin/docker"
    program.parent.mkdir()
    program.write_text(FAKE)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    record = tmp_path / "record"
    record.touch()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for name, value in {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "DOCKER_HOST": f"unix://{tmp_path}/nothing.sock",
        "RECORD": str(record),
        "TMPDIR": str(scratch),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DOCKER_BUILDKIT", raising=False)
    return lambda: [json.loads(line) for line in record.read_text().splitlines()]


def tree(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def option(words: list[str], name: str) -> str | None:
    return words[words.index(name) + 1] if name in words else None


def test_what_is_asked_of_docker(rainbow: Rainbow, project: Project, fake: Calls, tmp_path: Path) -> None:
    root = project(FILES)
    before = tree(root)

    done = rainbow("build", root, "--json")

    app, web, inline = fake()
    assert [option(one["words"], "--tag") for one in (app, web, inline)] == [
        "team/app:1",
        "team/web:1",
        "task/inline:1",
    ]
    assert all(one["words"][0] == "build" and one["buildkit"] == "1" for one in (app, web, inline))
    assert option(app["words"], "--secret") == f'id=pip.conf,"src={root}/conf/pip,1.conf"'
    assert ["--no-cache" in one["words"] for one in (app, web, inline)] == [True, False, False]
    assert app["dockerfile"].startswith("FROM python:3.11-slim\n")
    assert app["dockerfile"].count("--mount=type=secret") == 1
    assert app["files"] == ["a.py", "requirements.txt"]
    assert [one for one in web["files"] if not one.startswith(".rainbow/")] == [
        "requirements.txt",
        "service.json",
        "w.py",
    ]
    assert ".rainbow/rainbow_prefect/services/front.py" in web["files"]
    assert inline["files"] == ["b.py", "requirements.txt"]
    shown = {one["image"]: (one["action"], one.get("state")) for one in done.json["images"]}
    assert shown == {
        "team/app:1": ("build", "completed"),
        "team/web:1": ("build", "completed"),
        "team/prebuilt:9": ("skip", None),
        "task/inline:1": ("build", "completed"),
    }
    assert "team/app:1: building: not built yet" in done.err
    assert tree(root) == before
    assert list((tmp_path / "scratch").rglob("build-*")) == []


def test_dry_run_builds_nothing(rainbow: Rainbow, project: Project, fake: Calls, tmp_path: Path) -> None:
    done = rainbow("build", ".", "--dry-run", cwd=project(FILES))

    reason = (
        f"not built yet, as far as is known: no Docker engine answers at unix://{tmp_path}/nothing.sock "
        "(No such file or directory)"
    )
    assert done.out == (
        f"build  team/app:1       {reason}\n"
        f"build  team/web:1       {reason}\n"
        "skip   team/prebuilt:9  it has no source\n"
        f"build  task/inline:1    {reason}\n"
    )
    assert fake() == []


def test_one_image(rainbow: Rainbow, project: Project, fake: Calls) -> None:
    rainbow("build", project(FILES), "--image", "task/inline:1", "--no-cache")

    (call,) = fake()
    assert option(call["words"], "--tag") == "task/inline:1"
    assert "--no-cache" in call["words"]


def test_unknown_image(rainbow: Rainbow, project: Project, fake: Calls) -> None:
    done = rainbow("build", project(FILES), "--image", "team/ap:1", code=2)

    assert done.err == "Error: there is no image 'team/ap:1'; did you mean 'team/app:1'?\n"
    assert fake() == []


def test_a_failure_is_told_and_the_others_are_built(
    rainbow: Rainbow, project: Project, fake: Calls, tmp_path: Path
) -> None:
    root = project(FILES)
    before = tree(root)

    done = rainbow("build", root, "--json", env={"FAIL": "team/web:1"}, code=1)

    (log,) = (tmp_path / "cache/rainbow/builds").glob("team_web_1-*.log")
    assert log.read_text() == "first words\nlast words\n"
    assert done.err.splitlines()[-1] == (
        f"Error: image 'team/web:1' could not be built: first words | last words (full log: {log})"
    )
    states = {one["image"]: one.get("state") for one in done.json["images"]}
    assert states == {
        "team/app:1": "completed",
        "team/web:1": "failed",
        "team/prebuilt:9": None,
        "task/inline:1": "completed",
    }
    assert tree(root) == before
    assert list((tmp_path / "scratch").rglob("build-*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_build_that_is_interrupted_leaves_nothing(
    project: Project, fake: Calls, tmp_path: Path, number: signal.Signals
) -> None:
    program = Path(os.environ["PATH"].partition(os.pathsep)[0], "docker")
    program.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/pids\nsleep 600\n")
    pids = tmp_path / "pids"
    words = [RAINBOW, "build", project(FILES), "--json", "--image", "task/inline:1"]
    before = signal.signal(number, signal.SIG_DFL)  # which the process inherits, also when these tests run with nohup
    try:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    finally:
        signal.signal(number, before)
    assert wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"), 60)

    process.send_signal(number)
    out, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    assert [one["state"] for one in json.loads(out)["images"]] == ["cancelled"]
    assert list((tmp_path / "scratch").rglob("build-*")) == []
    assert not psutil.pid_exists(int(pids.read_text()))


def limited(kib: int) -> dict[str, Any]:
    """No file that the command writes may have more than this, as on a disk that is nearly full."""
    return {"program": ("bash", "-c", f'ulimit -f {kib}; exec "$0" "$@"', str(RAINBOW))}


def test_a_log_that_cannot_be_written_on_ends_no_build(rainbow: Rainbow, project: Project, fake: Calls) -> None:
    words = "words " * 100
    program = Path(os.environ["PATH"].partition(os.pathsep)[0], "docker")
    program.write_text(program.read_text().replace('"first words"', f"*40 * ['{words}']"))

    done = rainbow("build", project(FILES), "--json", "--image", "task/inline:1", **limited(8))

    assert [one["state"] for one in done.json["images"]] == ["completed"]


def test_files_for_which_there_is_no_room_are_told(rainbow: Rainbow, project: Project, fake: Calls) -> None:
    root = project({**FILES, "my code/big.txt": "x" * 50_000})
    words = ("build", root, "--json", "--image", "task/inline:1")

    done = rainbow(*words, **limited(16), env={"DOCKER_BUILDKIT": "0"}, code=1)

    assert [one["message"] for one in done.json["images"]] == [
        "the files for the image cannot be copied: [Errno 27] File too large"
    ]


def test_without_buildkit_the_classic_builder_builds(rainbow: Rainbow, project: Project, fake: Calls) -> None:
    """Other programs of the name further down the PATH are asked before; here they find no engine."""
    root = project(FILES)
    env = {"NO_BUILDKIT": "1", "PATH": os.environ["PATH"].partition(os.pathsep)[0] + ":/usr/sbin"}

    done = rainbow("build", root, "--image", "team/app:1", env=env)
    rainbow("build", root, "--image", "team/web:1", env=env)

    tried, app, web = fake()
    assert [one["buildkit"] for one in (tried, app, web)] == ["1", "0", "0"]
    assert "--secret" not in app["words"]
    assert "--force-rm" in app["words"]
    assert app["files"] == ["code/a.py", "code/requirements.txt", "pip.conf"]
    assert "FROM python:3.11-slim AS packages\n" in app["dockerfile"]
    assert [one for one in web["files"] if not one.startswith(".rainbow/")] == [
        "requirements.txt",
        "service.json",
        "w.py",
    ]
    assert ".rainbow/rainbow_prefect/services/front.py" in web["files"]
    assert done.out.startswith("built  team/app:1  not built yet")


def test_docker_is_missing(rainbow: Rainbow, project: Project, fake: Calls) -> None:
    done = rainbow("build", project(FILES), "--image", "team/app:1", env={"PATH": "/nowhere"}, code=1)

    assert "there is no program `docker`; install it: https://docs.docker.com/get-docker/ (full log: " in done.err


def test_push(rainbow: Rainbow, project: Project, fake: Calls) -> None:
    done = rainbow("build", project(FILES), "--push", "--json", "--image", "task/inline:1")

    assert [one["words"] for one in fake()][1] == ["push", "task/inline:1"]
    assert done.json["images"][0]["pushed"] is True


def test_a_wrong_file_is_told(rainbow: Rainbow, project: Project) -> None:
    done = rainbow("build", project({"rainbow.yml": "name: a\nimages: [{image: i, sorce: b}]\n"}), "--json", code=2)

    assert done.json["problems"][0]["hint"] == "did you mean 'source'?"


def test_no_images(rainbow: Rainbow, project: Project) -> None:
    done = rainbow("build", project({"rainbow.yml": "name: a\n"}))

    assert done.out == "there is no image in the files that were found\n"


def test_shapes_of_a_task_without_image(rainbow: Rainbow, project: Project, fake: Calls) -> None:
    """Its executor says whether it needs one."""
    text = """
    name: app
    pipelines:
      - pipeline: p
        tasks:
          - {task: here, type: python, source: code, cmd: echo}
          - {task: there, type: python, source: code, cmd: echo, executor: docker}
    """

    done = rainbow("build", project({"rainbow.yml": text, "code/a.py": ""}), "--dry-run", "--json")

    assert [one["image"] for one in done.json["images"]] == ["rainbow/app-code:latest"]


@pytest.mark.usefixtures("base_image")
def test_plan_says_what_would_be_built(rainbow: Rainbow, project: Project, tmp_path: Path) -> None:
    import uuid

    import docker

    name = f"rainbow-test-{uuid.uuid4().hex[:12]}"
    text = f"""
    name: {name}
    pipelines:
      - pipeline: p
        tasks:
          - {{task: a, type: python, source: code, cmd: python a.py, image: "{name}:1"}}
    """
    root = project({"rainbow.yml": text, "code/a.py": "", ".dockerignore": ""})
    try:
        first = rainbow("plan", root, "--executor", "docker")
        rainbow("build", root)
        second = rainbow("plan", root, "--executor", "docker", "--json")
        (root / "code/a.py").write_text("2")
        third = rainbow("plan", root, "--executor", "docker")
        here = rainbow("plan", root)
    finally:
        client = docker.from_env()
        client.images.remove(f"{name}:1", force=True)
        client.close()

    assert first.out.splitlines()[-1] == f"image {name}:1: build, not built yet"
    assert second.json["images"] == [
        {"image": f"{name}:1", "action": "reuse", "reason": "nothing changed since it was built"}
    ]
    assert third.out.splitlines()[-1] == f"image {name}:1: build, code/a.py changed"
    assert "image" not in here.out
