"""The scripts that give the tests a real Docker engine, a base image and a registry."""

from __future__ import annotations

import os
import subprocess
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rainbow_prefect.executors._docker_engine import FLOW_RUN, KEEP, OWNER
from rainbow_prefect.executors._docker_watch import owner
from tests.conftest import ROOT, remove_containers

if TYPE_CHECKING:
    import docker


def run(name: str, *args: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [ROOT / "scripts" / name, *args]
    return subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)


def test_engine_that_answers_is_left_alone(docker_engine: docker.DockerClient, tmp_path: Path) -> None:
    host = {"DOCKER_HOST": os.environ["DOCKER_HOST"]} if "DOCKER_HOST" in os.environ else {}

    done = run("docker.sh", env={"RAINBOW_ENGINE_DIR": str(tmp_path / "engine"), **host})

    version = docker_engine.version()["Version"]
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"docker.sh: Docker {version} ({docker_engine.info()['Driver']}) answers\n"
    assert not (tmp_path / "engine").exists()


def test_stop_leaves_an_engine_of_others(docker_engine: docker.DockerClient, tmp_path: Path) -> None:
    done = run("docker.sh", "stop", env={"RAINBOW_ENGINE_DIR": str(tmp_path)})

    assert (done.returncode, done.stderr) == (0, "")
    assert docker_engine.ping()


def test_says_that_the_named_engine_does_not_answer(tmp_path: Path) -> None:
    socket = f"unix://{tmp_path}/none.sock"

    done = run("docker.sh", env={"PATH": os.environ["PATH"], "DOCKER_HOST": socket})

    assert done.returncode == 3
    assert done.stderr == (f"docker.sh: no engine answers at DOCKER_HOST={socket}; start it, or unset DOCKER_HOST\n")


def test_base_image_runs_python_and_pip(docker_engine: docker.DockerClient, base_image: str) -> None:
    modules = "bz2, ctypes, hashlib, lzma, sqlite3, ssl, uuid, zlib, pip"
    program = f"import {modules}, sys; print('%d.%d' % sys.version_info[:2])"

    said = docker_engine.containers.run(base_image, ["python", "-c", program], remove=True, network_mode="none")

    assert said == b"3.11\n"


def test_base_image_that_is_there_is_kept(docker_engine: docker.DockerClient, base_image: str) -> None:
    before = docker_engine.images.get(base_image).id

    done = run("base_image.sh", "3.11")

    assert (done.returncode, done.stderr) == (0, "base_image.sh: python:3.11-slim is there\n")
    assert docker_engine.images.get(base_image).id == before


def test_registry_takes_and_gives_an_image(docker_engine: docker.DockerClient, registry: str, tmp_path: Path) -> None:
    name = f"{registry}/tests/{tmp_path.name.replace('_', '-')}"
    with tarfile.open(tmp_path / "tree.tar", "w") as tree:
        tree.addfile(tarfile.TarInfo("empty"))
    docker_engine.api.import_image_from_file(str(tmp_path / "tree.tar"), name, "one")
    try:
        said = docker_engine.images.push(name, "one")
        docker_engine.images.remove(f"{name}:one")
        pulled = docker_engine.images.pull(name, "one")
    finally:
        docker_engine.images.remove(f"{name}:one")

    assert '"error"' not in said
    assert pulled.tags == [f"{name}:one"]


def test_registry_starts_once_and_stops(docker_engine: docker.DockerClient, registry: str, tmp_path: Path) -> None:
    folder = tmp_path / "with a space"
    first = run("registry.sh", "start", folder)
    try:
        again = run("registry.sh", "start", folder)
    finally:
        stopped = run("registry.sh", "stop", folder)

    assert (first.returncode, first.stdout, first.stderr) == (0, again.stdout, "")
    assert first.stdout.strip() != registry
    assert (stopped.returncode, stopped.stderr) == (0, "")
    assert not (folder / "pid").exists()


def test_registry_ends_with_the_process_it_is_for(docker_engine: docker.DockerClient, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as parent:
        run("registry.sh", "start", tmp_path, str(parent.pid))
        pid = int((tmp_path / "pid").read_text())
        parent.kill()

    until = time.monotonic() + 60
    while (commands := Path(f"/proc/{pid}/cmdline")).exists() and commands.read_bytes() and time.monotonic() < until:
        time.sleep(0.2)
    assert not commands.exists() or not commands.read_bytes()


def test_containers_of_dead_processes_end_with_the_session(
    docker_engine: docker.DockerClient, base_image: str, tmp_path: Path
) -> None:
    began, run_id = time.time() - 60, f"run-of-{tmp_path.parent.name}-{os.getpid()}"
    labels = {"dead": f"{owner().split(':')[0]}:{2**22 + 1}:1", "living": owner(), "of-others": "elsewhere:1:1"}
    kept = {
        "kept": docker_engine.containers.create(
            base_image, "true", labels={FLOW_RUN: run_id, OWNER: labels["dead"], KEEP: "true"}
        )
    }
    made = kept | {
        name: docker_engine.containers.create(base_image, "true", labels={FLOW_RUN: run_id, OWNER: one})
        for name, one in labels.items()
    }
    try:
        remove_containers(time.time() + 60, f"{FLOW_RUN}={run_id}")
        remove_containers(began, f"{FLOW_RUN}={run_id}")
        left = docker_engine.containers.list(all=True, filters={"label": f"{FLOW_RUN}={run_id}"})
    finally:
        for name in ("living", "of-others", "kept"):
            made[name].remove(force=True)

    assert {one.id for one in left} == {made[name].id for name in ("living", "of-others", "kept")}
