"""Images that serve, and services on a real Docker engine: replicas, updates, rollbacks."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.conftest import Project, Rainbow

from .conftest import until

if TYPE_CHECKING:
    import docker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

NEEDED = ("fastapi", "uvicorn", "uvloop", "httptools", "orjson", "python-multipart")
YAML = """
    name: {app}
    secrets: [{{secret: key, env: KEY_OF_SERVICE}}]
    images: [{{image: "{image}", type: python_server, source: code, base_image: "{base}"}}]
    services:
      - service: shop
        image: "{image}"
        replicas: 2
        on_start: shop:setup
        auth: key
        env_vars: {{LEVEL: high}}
        endpoints:
          - {{endpoint: /version, module: code.shop, function: version, auth: false}}
          - {{endpoint: /closed, module: shop, function: closed}}
    pipelines:
      - pipeline: roll
        tasks: [{{task: update, type: update_service, service: shop, env_vars: {{LEVEL: higher}}}}]
    """
CODE = """
    import os, time

    def setup():
        {setup}
        return {{"number": {number}}}

    def version(number):
        time.sleep(0.01)
        return {{"version": number, "level": os.environ["LEVEL"], "user": os.getuid()}}

    def closed():
        return "open"
    """


def closure(names: tuple[str, ...]) -> set[str]:
    """These packages and all that they need."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            needs = [Requirement(one) for one in metadata.requires(name) or ()]
            waiting += [one.name for one in needs if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def own(docker_engine: docker.DockerClient, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the images of this module begin with; `<own>-base` has what serving needs, so that nothing is fetched."""
    prefix = f"rainbow-test-{uuid.uuid4().hex[:12]}"
    folder = tmp_path_factory.mktemp("base")
    if sys.version_info[:2] == (3, 11):
        for name in closure(NEEDED):
            for file in metadata.files(name) or ():
                if ".." not in file.parts and file.suffix != ".pyc":
                    target = folder / "packages" / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file.locate(), target)
        copy = "COPY packages /packages\nRUN cp -r /packages/. $(python3 -c 'import site; print(site.getsitepackages()[0])')\n"
    else:
        copy = f"RUN python3 -m pip install {' '.join(NEEDED)}\n"
    (folder / "Dockerfile").write_text(f"FROM {base_image}\n{copy}")
    docker_engine.images.build(path=str(folder), tag=f"{prefix}-base:1", rm=True, forcerm=True)
    yield prefix
    for one in docker_engine.containers.list(all=True, filters={"label": f"rainbow.app={prefix}"}):
        one.remove(force=True, v=True)
    for network in docker_engine.networks.list(filters={"label": f"rainbow.app={prefix}"}):
        network.remove()
    for image in docker_engine.images.list():
        if any(prefix in tag for tag in image.tags):
            with contextlib.suppress(Exception):
                docker_engine.images.remove(image.id, force=True)


@pytest.fixture
def write(project: Project, own: str) -> Callable[..., Path]:
    def made(number: int, setup: str = "pass") -> Path:
        names = {"app": own, "image": f"{own}:{number}", "base": f"{own}-base:1"}
        return project({"rainbow.yml": YAML.format(**names), "code/shop.py": CODE.format(number=number, setup=setup)})

    return made


class Load:
    """Clients that ask all the time over connections that they keep."""

    def __init__(self, port: int, count: int = 4) -> None:
        self.failures: list[str] = []
        self.versions: list[int] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(port,)) for _ in range(count)]

    def __enter__(self) -> Load:
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for one in self._threads:
            one.join()

    def _ask(self, port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while not self._stop.is_set():
            try:
                connection.request("POST", "/version")
                response = connection.getresponse()
                body = response.read()
                if response.status != 200:
                    self.failures.append(f"{response.status} {body!r}")
                else:
                    self.versions.append(json.loads(body)["version"])
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
        connection.close()


def ask(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_a_service_is_exchanged_under_load_without_a_failed_request(
    rainbow: Rainbow,
    write: Callable[..., Path],
    own: str,
    docker_engine: docker.DockerClient,
    prefect_server: str,
) -> None:
    env = {"KEY_OF_SERVICE": "token-4711"}
    rainbow("build", write(1), timeout=600)

    up = rainbow("service", "up", write(1), "--port", "0", "--json", env=env, timeout=600)

    (found,) = up.json["services"]
    port = int(found["url"].rpartition(":")[2])
    assert (found["state"], len(found["replicas"])) == ("up", 2)
    assert json.loads(ask(port, "/version")[1]) == {"version": 1, "level": "high", "user": 10001}
    assert ask(port, "/closed")[0] == 401
    assert ask(port, "/closed", {"authorization": "Bearer token-4711"}) == (200, "open")
    labels = {"label": f"rainbow.app={own}"}
    for one in docker_engine.containers.list(filters=labels):
        assert "token-4711" not in json.dumps(one.attrs)
        assert one.exec_run(["python3", "-c", "import prefect"]).exit_code != 0
        assert one.exec_run(["python3", "-c", "import uvloop, httptools"]).exit_code == 0

    with Load(port) as load:
        until(lambda: len(load.versions) > 50, 60)
        rainbow("build", write(2), timeout=600)
        updated = rainbow("service", "update", write(2), "--json", env=env, timeout=600)
        seen = len(load.versions)
        until(lambda: len(load.versions) > seen + 50, 60)

    assert load.failures == []
    assert load.versions[0] == 1
    assert set(load.versions[seen + 10 :]) == {2}
    assert [one["image"] for one in updated.json["services"][0]["replicas"]] == [f"{own}:2"] * 2

    rainbow("build", write(3, setup="raise ValueError('no model')"), timeout=600)
    with Load(port, 2) as load:
        failed = rainbow(
            "service", "update", write(3, setup="raise ValueError('no model')"), env=env, code=1, timeout=600
        )
        until(lambda: len(load.versions) > 20, 60)
    assert "rolled back: the 2 old replicas serve on" in failed.err
    assert "no model" in failed.err
    assert (load.failures, set(load.versions)) == ([], {2})

    rainbow("run", write(2), "--pipeline", "roll", "--json", env=env, timeout=600)
    assert json.loads(ask(port, "/version")[1])["level"] == "higher"

    killed = docker_engine.containers.list(filters={"label": [f"rainbow.app={own}", "rainbow.role=replica"]})[0]
    killed.kill()
    time.sleep(0.2)
    assert {ask(port, "/version")[0] for _ in range(20)} == {200}

    shown = rainbow("service", "logs", write(2), env=env).out
    assert '"event":"request"' in shown
    rainbow("service", "down", write(2), env=env)
    assert docker_engine.containers.list(all=True, filters=labels) == []
    assert docker_engine.networks.list(filters=labels) == []


def test_what_cannot_be_started_is_told(rainbow: Rainbow, write: Callable[..., Path], own: str) -> None:
    env = {"KEY_OF_SERVICE": "token-4711"}
    root = write(9)

    missing = rainbow("service", "up", root, "--port", "0", env=env, code=1)
    not_up = rainbow("service", "update", root, env=env, code=1)
    no_secret = rainbow("service", "up", root, env={"KEY_OF_SERVICE": ""}, code=1)

    assert missing.err == f"Error: there is no image '{own}:9'; build it with `rainbow build`\n"
    assert not_up.err == "Error: service 'shop' is not up; start it with `rainbow service up`\n"
    assert "secret 'key': the environment variable KEY_OF_SERVICE is empty" in no_secret.err
    assert rainbow("service", "status", root, "--json").json["services"][0]["state"] == "down"


def test_files_for_clusters(rainbow: Rainbow, write: Callable[..., Path], own: str) -> None:
    root = write(1)

    objects: list[Any] = list(yaml.safe_load_all(rainbow("service", "manifest", root).out))
    compose = yaml.safe_load(rainbow("service", "manifest", root, "--for", "compose").out)

    assert [one["kind"] for one in objects] == ["Deployment", "Service", "HorizontalPodAutoscaler"]
    container = objects[0]["spec"]["template"]["spec"]["containers"][0]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert {"name": "LEVEL", "value": "high"} in container["env"]
    secret = {"secretKeyRef": {"name": "key", "key": "credentials"}}
    assert {"name": "RAINBOW_TOKEN_KEY", "valueFrom": secret} in container["env"]
    assert compose["services"]["shop"]["environment"]["RAINBOW_TOKEN_KEY"] == "${RAINBOW_TOKEN_KEY:?}"
    import kubernetes_validate

    for one in objects:
        kubernetes_validate.validate(one, "1.31", strict=True)
