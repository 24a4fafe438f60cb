"""An engine that is restarted while containers run, on an engine of these tests alone: nobody else's is disturbed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest
from prefect.client.orchestration import get_client

from rainbow_prefect.executors._docker_engine import FLOW_RUN
from tests.conftest import RAINBOW
from tests.executors.contract import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("prefect_server")]

CONFIG = """
name: shop
executor: docker
executors:
  - {{executor: docker, type: docker, network: none}}
pipelines:
  - pipeline: {name}
    tasks:
      - task: nap
        type: python
        image: {image}
        cmd: "echo attempt $RAINBOW_ATTEMPT; if [ $RAINBOW_ATTEMPT = 1 ]; then sleep 600; fi"
        retries: {retries}
"""


class Engine:
    """A dockerd of our own, in a network of its own: with `--bridge=none` it would remove the bridge of the other one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"unix://{folder}/sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        (self.folder / "pid").unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *("unshare", "--net", "--", "dockerd", "--host", self.address),
                    *("--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"),
                    *("--pidfile", f"{self.folder}/pid", "--bridge=none", "--iptables=false", "--ip6tables=false"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        assert wait_until(self.answers, 90), (self.folder / "log").read_text()[-3000:]

    def answers(self) -> bool:
        return self.docker("info", check=False).returncode == 0

    def docker(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", "--host", self.address, *words], capture_output=True, text=True, check=check)

    def stop(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(120)
        # The next dockerd would take a containerd that is just dying for one that runs, and wait for it in vain.
        assert wait_until(lambda: not any(one.info["name"] == "containerd" for one in self.processes()), 60)
        (self.folder / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def processes(self) -> list[psutil.Process]:
        """All processes that work in its folder: containerd, its shims."""
        found = []
        for one in psutil.process_iter(["cmdline", "name"]):
            if any(str(self.folder) in word for word in one.info["cmdline"] or ()):
                found.append(one)
        return found

    def are_gone(self, word: str) -> bool:
        """Whether no process of a name with this word is left."""
        return not any(word in one.info["name"] for one in self.processes())

    def remove(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop(signal.SIGTERM)
        for one in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in [*one.children(recursive=True), one]:  # a container is a child of its shim
                    process.kill()
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if line.split()[1].startswith(str(self.folder)):
                subprocess.run(["umount", "--lazy", line.split()[1]], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def private(docker_engine: Any, base_image: str) -> Iterator[Engine]:
    if os.geteuid() != 0 or shutil.which("dockerd") is None or shutil.which("unshare") is None:
        pytest.skip("a second engine needs root, dockerd and unshare")
    engine = Engine(Path(tempfile.mkdtemp(prefix="rb-")))
    try:
        engine.start()
        save = subprocess.Popen(["docker", "save", base_image], stdout=subprocess.PIPE)
        subprocess.run(
            ["docker", "--host", engine.address, "load"], stdin=save.stdout, stdout=subprocess.DEVNULL, check=True
        )
        assert save.wait(60) == 0
        yield engine
    finally:
        engine.remove()


@pytest.mark.parametrize(
    ("number", "retries", "state"), [(signal.SIGKILL, 1, "Completed"), (signal.SIGTERM, 0, "Failed")]
)
def test_a_restart_of_the_engine_leaves_nothing(
    private: Engine, base_image: str, tmp_path: Path, prefect_api: str, number: int, retries: int, state: str
) -> None:
    name = f"nap-{uuid4().hex[:10]}"
    (tmp_path / "rainbow.yml").write_text(CONFIG.format(name=name, image=base_image, retries=retries))
    process = subprocess.Popen(
        [RAINBOW, "run", "--quiet"],
        cwd=tmp_path,
        env={**os.environ, "DOCKER_HOST": private.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def running() -> str:
        words = ("ps", "--quiet", "--filter", f"label=rainbow.pipeline={name}")
        return private.docker(*words, check=False).stdout.strip()

    assert wait_until(lambda: bool(running()), 120)
    run_id = private.docker(
        "inspect", running(), "--format", f'{{{{index .Config.Labels "{FLOW_RUN}"}}}}'
    ).stdout.strip()
    time.sleep(1)

    private.stop(number)
    private.start()
    out, _ = process.communicate(timeout=240)

    with get_client(sync_client=True) as client:
        assert client.read_flow_run(UUID(run_id)).state_name == state, out
    assert private.docker("ps", "--all", "--quiet").stdout == ""
    assert wait_until(lambda: private.are_gone("shim"), 60)
    if state == "Failed":
        assert "the Docker engine" in out or "exit status 143" in out or "exit status 137" in out
