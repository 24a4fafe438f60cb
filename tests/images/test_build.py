"""Images are built by a real engine, with BuildKit and with the classic builder."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rainbow_prefect.check import check
from rainbow_prefect.images.build import build, failure
from rainbow_prefect.images.decide import Decision, cache_folder, decide
from rainbow_prefect.images.recipes import recipes
from tests.conftest import Project

if TYPE_CHECKING:
    import docker

SECRET = "hush-hush-31415"
SHOW = "import json, os, sys; print(json.dumps([os.getcwd(), os.getuid(), sorted(os.listdir()), sys.version_info[:2]]))"


@pytest.fixture(params=["1", "0"], ids=["buildkit", "classic"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to build."""
    monkeypatch.setenv("DOCKER_BUILDKIT", request.param)
    return str(request.param)


def decided(root: Path, **more: Any) -> list[Decision]:
    return decide(recipes(check(root).apps[0]), **more)


def built(root: Path, **more: Any) -> list[Decision]:
    decisions = decided(root)
    done = build(decisions, **more)
    assert failure(done) == ""
    return decisions


def printed(engine: docker.DockerClient, image: str, *argv: str) -> str:
    out: bytes = engine.containers.run(image, list(argv), remove=True, network_mode="none")
    return out.decode().strip()


WHEEL = "own_lib-1-py3-none-any.whl"


def write_wheel(path: Path) -> None:
    """A package with one module."""
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("own_lib.py", "WORD = 'from the package'\n")
        wheel.writestr("own_lib-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: own_lib\nVersion: 1\n")
        wheel.writestr("own_lib-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        names = ("own_lib.py", *(f"own_lib-1.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD")))
        wheel.writestr("own_lib-1.dist-info/RECORD", "".join(f"{name},,\n" for name in names))


def contents(engine: docker.DockerClient, image: str) -> bytes:
    """All bytes of all layers and of the settings of an image."""
    data = b"".join(engine.images.get(image).save())
    found = [data]
    with tarfile.open(fileobj=io.BytesIO(data)) as saved:
        for member in saved:
            file = saved.extractfile(member)
            if file is not None:
                found.append(file.read())
    return b"".join(found)


def test_code_requirements_and_command(
    docker_engine: docker.DockerClient, project: Project, own: str, way: str
) -> None:
    (root := project({"rainbow.yml": "", "my code/a b.py": SHOW, "my code/.git/x": "", "my code/out.log": ""}))
    (root / "my code/.dockerignore").write_text("*.log\n")
    (root / "rainbow.yml").write_text(
        f"name: {own}\nimages:\n  - image: {own}:1\n    source: my code\n    labels: {{team: a b}}\n"
        "    build_args: {WORD: hello}\n    build_cmd: |\n      echo $WORD > made.txt\n      echo x > ~/home.txt\n"
    )
    before = sorted(path.relative_to(root) for path in root.rglob("*"))

    built(root)

    assert json.loads(printed(docker_engine, f"{own}:1", "python", "a b.py")) == [
        "/app",
        10001,
        ["a b.py", "made.txt", "requirements.txt"],
        [3, 11],
    ]
    assert printed(docker_engine, f"{own}:1", "sh", "-c", "cat made.txt; stat -c %u made.txt ~/home.txt; touch x") == (
        "hello\n10001\n10001"
    )
    packages = printed(docker_engine, f"{own}:1", "python", "-m", "pip", "list").lower()
    assert "prefect" not in packages
    assert docker_engine.images.get(f"{own}:1").labels["team"] == "a b"
    assert sorted(path.relative_to(root) for path in root.rglob("*")) == before


def test_only_what_changed_is_built(docker_engine: docker.DockerClient, project: Project, own: str, way: str) -> None:
    text = f"name: {own}\nimages:\n  - {{image: '{own}:1', source: code}}\n  - {{image: '{own}:2', source: more}}\n"
    root = project({"rainbow.yml": text, "code/a.py": "1", "more/b.py": "1", "more/c.py": "1", "more/d.py": ""})
    assert [(one.action, one.reason) for one in built(root)] == [("build", "not built yet")] * 2
    first = docker_engine.images.get(f"{own}:2").attrs["RootFS"]["Layers"]

    assert [(one.action, one.reason) for one in decided(root)] == [("reuse", "nothing changed since it was built")] * 2
    assert build(decided(root)) == []
    (root / "more/b.py").write_text("2")
    (root / "more/c.py").unlink()
    (root / "more/e.py").write_text("")
    again = built(root)

    assert [(one.action, one.reason) for one in again] == [
        ("reuse", "nothing changed since it was built"),
        ("build", "more/b.py changed, more/c.py is gone, more/e.py is new"),
    ]
    layers = docker_engine.images.get(f"{own}:2").attrs["RootFS"]["Layers"]
    assert (len(layers), layers[0]) == (len(first), first[0])
    assert layers[-1] != first[-1]
    logs = sorted((cache_folder() / "builds").glob(f"{own}_2-*.log"), key=lambda one: one.stat().st_mtime)
    assert "CACHED" in logs[-1].read_text() or "Using cache" in logs[-1].read_text()
    (root / "rainbow.yml").write_text(text.replace("source: code", "source: code, labels: {a: b}, build_cmd: echo"))
    assert decided(root)[0].reason == "`labels`, `build_cmd` changed"
    assert [one.reason for one in decided(root, force=True)] == ["--no-cache"] * 2


@pytest.mark.usefixtures("base_image")
def test_an_image_on_another_is_built_after_it_and_with_it(
    docker_engine: docker.DockerClient, project: Project, own: str
) -> None:
    text = f"""
    name: {own}
    images:
      - {{image: '{own}:top', dockerfile: docker/Dockerfile, source: code, build_args: {{WORD: up}}}}
      - {{image: '{own}:base', source: code}}
    """
    root = project({"rainbow.yml": text, "code/a.py": "1", "docker/Dockerfile": f"FROM {own}:base\nARG WORD\n"})
    with (root / "docker/Dockerfile").open("a") as file:
        file.write('RUN echo $WORD > word.txt\nCOPY a.py b.py\nCMD ["cat", "word.txt", "b.py"]\n')

    built(root)
    assert printed(docker_engine, f"{own}:top") == "up\n1"
    assert [one.action for one in decided(root)] == ["reuse", "reuse"]
    (root / "code/a.py").write_text("2")
    assert [one.reason for one in built(root)] == ["code/a.py changed", "code/a.py changed"]
    (root / "rainbow.yml").write_text(
        (root / "rainbow.yml").read_text().replace(":base', s", ":base', no_cache: true, s")
    )
    docker_engine.images.remove(f"{own}:base", force=True)

    assert [one.reason for one in decided(root)] == [f"its base image {own}:base is built anew", "not built yet"]


def test_an_image_that_somebody_else_built_is_built(
    docker_engine: docker.DockerClient, project: Project, own: str, base_image: str
) -> None:
    docker_engine.images.get(base_image).tag(own, "1")
    root = project({"rainbow.yml": f"name: {own}\nimages: [{{image: '{own}:1', source: code}}]\n", "code/a.py": ""})

    assert decided(root)[0].reason == "the image of this name was not built by rainbow"


def test_pip_conf_is_in_no_layer(docker_engine: docker.DockerClient, project: Project, own: str, way: str) -> None:
    """The package is in the code, so that no index is needed."""
    root = project(
        {
            "rainbow.yml": f"name: {own}\nimages: [{{image: '{own}:1', source: code, pip_conf: conf/pip.conf}}]\n",
            "conf/pip.conf": f"[global]\nindex-url = https://user:{SECRET}@127.0.0.1:1/simple\nretries = 0\n",
            "code/requirements.txt": "-r more.txt\n",
            "code/more.txt": f"./{WHEEL}\n",
        }
    )
    write_wheel(root / "code" / WHEEL)

    done = build(decided(root))

    assert failure(done) == ""
    assert (
        printed(docker_engine, f"{own}:1", "python", "-c", "import own_lib; print(own_lib.WORD)") == "from the package"
    )
    history = json.dumps(docker_engine.images.get(f"{own}:1").history())
    assert SECRET not in history
    assert SECRET.encode() not in contents(docker_engine, f"{own}:1")
    assert done[0].log is not None
    assert SECRET not in done[0].log.read_text()


def test_pip_conf_counts(docker_engine: docker.DockerClient, project: Project, own: str, way: str) -> None:
    root = project(
        {
            "rainbow.yml": f"name: {own}\nimages: [{{image: '{own}:1', source: code, pip_conf: pip.conf}}]\n",
            "pip.conf": f"[global]\nindex-url = http://user:{SECRET}@127.0.0.1:1/simple\nretries = 0\ntimeout = 2\n",
            "code/requirements.txt": "no-such-package-of-anybody\n",
        }
    )

    (done,) = build(decided(root))

    assert done.state == "failed"
    assert "pip install" in done.message
    assert "no-such-package-of-anybody" in done.message
    assert SECRET not in done.message
    assert done.log is not None
    assert "127.0.0.1:1/simple" in done.log.read_text()
    assert SECRET not in done.log.read_text()


def test_a_build_that_fails_is_told_with_its_step(
    docker_engine: docker.DockerClient, project: Project, own: str, way: str
) -> None:
    text = f"""
    name: {own}
    images:
      - {{image: '{own}:bad', source: code, build_cmd: "echo one; echo two >&2; exit 7"}}
      - {{image: '{own}:good', source: code}}
      - {{image: '{own}:on_bad', dockerfile: Dockerfile, source: code}}
    """
    root = project({"rainbow.yml": text, "code/a.py": "", "Dockerfile": f"FROM {own}:bad\n"})
    heard: list[tuple[str, str]] = []

    done = build(decided(root), tell=lambda image, line: heard.append((image, line)))

    bad, good, on_bad = done
    assert (bad.state, good.state, on_bad.state) == ("failed", "completed", "not_built")
    assert bad.message.startswith("step [")
    step, _, rest = bad.message.partition(": ")
    assert step.endswith("] RUN echo one; echo two >&2; exit 7")
    assert rest.replace("two | one", "one | two").startswith("one | two | ")
    assert rest.endswith("7")
    assert on_bad.message == f"its base image {own}:bad was not built"
    assert bad.log is not None
    assert "two" in bad.log.read_text()
    assert heard[0] == (f"{own}:bad", "building: not built yet")
    assert failure(done).startswith(f"image '{own}:bad' could not be built: step [")
    assert docker_engine.containers.list(all=True, filters={"ancestor": f"{own}:good"}) == []


def test_a_build_that_is_stopped_ends(docker_engine: docker.DockerClient, project: Project, own: str, way: str) -> None:
    text = f"name: {own}\nimages: [{{image: '{own}:1', source: code, build_cmd: sleep 600}}]\n"
    root = project({"rainbow.yml": text, "code/a.py": own})
    stop = threading.Event()

    def tell(_: str, line: str) -> None:
        if "sleep 600" in line:
            threading.Timer(2, stop.set).start()

    (done,) = build(decided(root), tell=tell, stop=stop)

    assert done.state == "cancelled"
    assert done.seconds < 120


def test_a_project_with_a_lock(docker_engine: docker.DockerClient, project: Project, own: str) -> None:
    """The lock is a constraint: pip says so before it looks anywhere for the package."""
    root = project(
        {
            "rainbow.yml": f"name: {own}\nimages: [{{image: '{own}:1', source: code, pip_conf: pip.conf}}]\n",
            "pip.conf": "[global]\nno-index = true\n",
            "code/pyproject.toml": '[project]\nname = "x"\nversion = "1"\ndependencies = ["pip>=1"]\n',
            "code/uv.lock": '[[package]]\nname = "pip"\nversion = "0.0.1"\n',
        }
    )

    (done,) = build(decided(root))

    assert done.state == "failed"
    assert "0.0.1" in (done.log.read_text() if done.log else "")


def test_no_engine_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nothing.sock")
    root = project({"rainbow.yml": "name: a\nimages: [{image: i, source: code}, {image: j}]\n", "code/a.py": ""})

    assert [(one.action, one.reason, one.is_unknown) for one in decided(root)] == [
        (
            "build",
            "not built yet, as far as is known: no Docker engine answers at unix:///nothing.sock "
            "(No such file or directory)",
            True,
        ),
        ("skip", "it has no source", False),
    ]
