"""`prefect deploy --all` with our steps, and real workers that run what was deployed."""

from __future__ import annotations

import inspect
import io
import os
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from rainbow_prefect import steps
from rainbow_prefect.check import check
from rainbow_prefect.deployable import parameter_schema
from rainbow_prefect.engine import build_flow
from rainbow_prefect.errors import CallError, RunError
from tests.conftest import ROOT, Project, Rainbow

if TYPE_CHECKING:
    import docker

HELLO = 'import os; print("hello from", os.getuid())\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and a RAINBOW_CONFIG that are put back."""
    folder = tmp_path / "worker"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RAINBOW_CONFIG", "none")
    return folder


def config() -> str:
    return Path(os.environ["RAINBOW_CONFIG"]).read_text()


def test_a_folder_is_gone_to(here: Path, project: Project) -> None:
    root = project({"rainbow.yml": "name: a\n", "other.yml": "name: b\n"})

    assert steps.pull_config(path=str(root)) == {"directory": str(root)}
    assert Path.cwd() == root
    steps.pull_config(path=str(root), file="other.yml")

    assert config() == "name: b\n"


def test_a_folder_that_the_worker_does_not_see_is_told(here: Path) -> None:
    with pytest.raises(CallError) as told:
        steps.pull_config(path="/not/here")

    assert str(told.value) == (
        "there is no '/not/here' on this worker; with `code: local` workers must see the folder that was deployed, "
        "else use `code: {type: image, ...}`, `git` or `s3`"
    )


def git(folder: Path, *words: str) -> str:
    names = ["-c", "user.name=Dana", "-c", "user.email=dana@example.com"]
    done = subprocess.run(["git", *names, *words], cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_code_in_git_is_pinned_to_its_commit(
    here: Path, project: Project, rainbow: Rainbow, prefect_server: str
) -> None:
    name = f"g{uuid.uuid4().hex[:10]}"
    root = project({"team/rainbow.yml": ""})
    text = f"name: {name}\ncode: {{type: git, repository: '{root.as_uri()}'}}\npipelines: [{{pipeline: {name}, tasks: []}}]\n"
    (root / "team" / "rainbow.yml").write_text(text)
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "First")
    rainbow("deploy", root / "team")
    first = git(root, "rev-parse", "HEAD")
    (root / "team" / "rainbow.yml").write_text(text + "description: later\n")
    git(root, "commit", "-q", "-a", "-m", "Second")

    shown = rainbow("diff", root / "team", code=2)
    pull = httpx.get(f"{prefect_server}/deployments/name/{name}/{name}").json()["pull_steps"][0]
    steps.pull_config(**pull["rainbow_prefect.steps.pull_config"])

    assert pull["rainbow_prefect.steps.pull_config"]["git"]["commit_sha"] == first
    assert f".git.commit_sha: {first} -> {git(root, 'rev-parse', 'HEAD')}" in shown.out
    assert Path.cwd().name == "team"
    assert (Path.cwd() / "rainbow.yml").read_text() == text


def test_a_repository_that_is_not_there_is_told(here: Path) -> None:
    with pytest.raises(RunError, match=r"git could not clone file:///not/here: "):
        steps.pull_config(git={"repository": "file:///not/here"})


def test_code_in_a_bucket_has_a_folder_for_each_content(
    here: Path, project: Project, rainbow: Rainbow, prefect_server: str, aws: str
) -> None:
    import boto3

    boto3.client("s3").create_bucket(Bucket="code", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    name = f"s{uuid.uuid4().hex[:10]}"
    text = (
        f"name: {name}\ncode: {{type: s3, bucket: code, folder: team}}\npipelines: [{{pipeline: {name}, tasks: []}}]\n"
    )
    root = project({"rainbow.yml": text, "code/hello.py": HELLO})

    rainbow("deploy", root)
    assert rainbow("diff", root).out == "nothing to change\n"
    pull = httpx.get(f"{prefect_server}/deployments/name/{name}/{name}").json()["pull_steps"][0]
    (root / "code" / "hello.py").write_text("print()\n")

    assert "pull_steps[0].rainbow_prefect.steps.pull_config.s3.folder: team/" in rainbow("diff", root, code=2).out
    steps.pull_config(**pull["rainbow_prefect.steps.pull_config"])
    assert (Path.cwd() / "code" / "hello.py").read_text() == HELLO
    assert (Path(os.environ["RAINBOW_CONFIG"]) / "rainbow.yml").read_text() == text


def test_the_schema_of_parameters_is_that_of_the_flow(project: Project) -> None:
    root = project(
        {
            "rainbow.yml": """
                name: all
                pipelines:
                  - pipeline: all
                    parameters:
                      - {name: a}
                      - {name: b, type: int}
                      - {name: c, default: 0.5}
                      - {name: d, default: true}
                      - {name: e, type: date, default: 2024-01-31}
                      - {name: f, type: datetime, default: 2024-01-31T08:00:00}
                      - {name: g, default: [1, x]}
                      - {name: h, default: {k: [1]}}
                      - {name: api_token, default: s3cr3t-value}
                      - {name: pin_code_secret, default: 1234}
                    tasks: []
            """
        }
    )
    pipeline = check(root).apps[0].pipelines[0]

    made = parameter_schema(pipeline.run_parameters)

    assert made == build_flow(pipeline.plan()).parameters.model_dump_for_openapi()
    assert "s3cr3t" not in str(made)


def test_the_example_names_our_steps_as_they_are() -> None:
    data = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())

    called = [one for section in ("build", "push", "pull") for step in data[section] for one in step.items()]

    assert len(called) == 3
    for name, given in called:
        module, _, function = name.rpartition(".")
        assert module == "rainbow_prefect.steps"
        inspect.signature(getattr(steps, function)).bind(**given)


# -- real workers


def dependencies(name: str, seen: dict[str, Distribution]) -> None:
    from packaging.requirements import Requirement

    try:
        found = distribution(name)
    except PackageNotFoundError:
        return
    if found.metadata["Name"] in seen:
        return
    seen[found.metadata["Name"]] = found
    for text in found.requires or ():
        one = Requirement(text)
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            dependencies(one.name, seen)


def packed(dockerfile: str) -> bytes:
    """A context with the toolkit and what it needs, as they are installed here."""
    found: dict[str, Distribution] = {}
    dependencies("rainbow-prefect", found)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, text in {"Dockerfile": dockerfile, "prefect": '#!/bin/sh\nexec python3 -m prefect "$@"\n'}.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o755
            tar.addfile(info, io.BytesIO(text.encode()))
        for one in found.values():
            for file in one.files or ():
                path = Path(str(one.locate_file(file)))
                if ".." not in file.parts and path.is_file() and path.suffix != ".pyc":
                    tar.add(path, f"site/{file}")
        for path in (ROOT / "rainbow_prefect").rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                tar.add(path, f"site/{path.relative_to(ROOT)}")
    return out.getvalue()


@pytest.fixture
def toolkit(docker_engine: docker.DockerClient, base_image: str) -> Iterator[str]:
    """An image with the toolkit and Prefect as they are installed here, so that no package index is asked."""
    name = f"rainbow-test-{uuid.uuid4().hex[:12]}"
    site = "/usr/local/lib/python3.11/site-packages/"
    dockerfile = f"FROM {base_image}\nCOPY site {site}\nCOPY prefect /usr/local/bin/prefect\n"
    done = subprocess.run(
        ["docker", "build", "-q", "-t", name, "-"], input=packed(dockerfile), capture_output=True, timeout=280
    )
    assert done.returncode == 0, done.stderr.decode()
    yield name
    for image in docker_engine.images.list():
        for tag in image.tags:
            if name in tag:
                docker_engine.images.remove(tag, force=True)


def worker(pool: str, kind: str, cwd: Path) -> str:
    """A real worker takes what is due, and ends."""
    words = ["worker", "start", "--pool", pool, "--type", kind, "--run-once", "--install-policy", "never"]
    env = {name: one for name, one in os.environ.items() if name != "PREFECT_HOME"}
    env["PREFECT_HOME"] = "/tmp/prefect" if kind == "docker" else os.environ["PREFECT_HOME"]
    return prefect(words, cwd, env)


def prefect(words: list[str], cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *words],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the image is made of this Python's packages")
def test_prefect_deploys_all_and_real_workers_run_it(
    project: Project, rainbow: Rainbow, prefect_server: str, toolkit: str, tmp_path: Path
) -> None:
    name = f"w{uuid.uuid4().hex[:10]}"
    root = project(
        {
            "rainbow.yml": f"""
                name: {name}
                code: {{type: image, image: {toolkit}-worker, base_image: {toolkit}}}
                work_pools:
                  - work_pool: {name}-boxes
                    type: docker
                    job_variables: {{network_mode: host, image_pull_policy: Never, auto_remove: true}}
                  - {{work_pool: {name}-here, type: process}}
                work_pool: {name}-boxes
                pipelines:
                  - pipeline: {name}-box
                    tasks: [{{task: hello, type: python, source: code, cmd: python hello.py}}]
                  - pipeline: {name}-too
                    tasks: [{{task: hello, type: python, source: code, cmd: python hello.py}}]
                  - pipeline: {name}-here
                    work_pool: {name}-here
                    code: local
                    schedules: [{{cron: "0 6 * * *", timezone: Europe/Berlin, slug: early}}]
                    concurrency_limit: 1
                    tasks: [{{task: hello, type: python, source: code, cmd: python hello.py}}]
            """,
            "code/hello.py": HELLO,
        }
    )
    api = httpx.Client(base_url=prefect_server, timeout=60)
    for pool, kind in ((f"{name}-boxes", "docker"), (f"{name}-here", "process")):
        assert api.post("/work_pools/", json={"name": pool, "type": kind}).status_code == 201

    rainbow("deploy", root, "--write", root / "prefect.yaml")
    told = prefect(["--no-prompt", "deploy", "--all"], root)
    runs = {one: started(api, f"{name}-{one}", name) for one in ("box", "here")}
    worker(f"{name}-here", "process", tmp_path)
    worker(f"{name}-boxes", "docker", tmp_path)

    assert told.count("building: not built yet") == 1
    assert rainbow("diff", root, code=2).out.splitlines()[:-1] == [
        line
        for one in ("box", "too", "here")
        for line in (f"~ deployment {name}-{one}/{name}", f"    + labels.rainbow.project: {name}")
    ]
    for one, user in (("box", 10001), ("here", os.getuid())):
        state, logs = ended(api, runs[one])
        assert state == "Completed", logs
        assert f"hello from {user}" in logs


def started(api: httpx.Client, flow: str, name: str) -> str:
    found = api.get(f"/deployments/name/{flow}/{name}").json()
    made = api.post(f"/deployments/{found['id']}/create_flow_run", json={"parameters": {}})
    assert made.status_code in (200, 201), made.text
    return str(made.json()["id"])


def ended(api: httpx.Client, run: str) -> tuple[str, str]:
    state: Any = api.get(f"/flow_runs/{run}").json()["state"]
    logs = api.post("/logs/filter", json={"logs": {"flow_run_id": {"any_": [run]}}}).json()
    return str(state["name"]), "\n".join(one["message"] for one in logs)
