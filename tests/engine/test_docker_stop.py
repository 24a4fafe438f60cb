"""Nothing left behind: whatever ends a run, none of its containers runs on, none stays, and the run ends as it should."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.states import Cancelling

from rainbow_prefect import check, engine
from rainbow_prefect.engine.loop import Loop
from rainbow_prefect.executors._docker_engine import FLOW_RUN
from tests.conftest import RAINBOW
from tests.executors.contract import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_api")]

CONFIG = """
    name: shop
    executor: docker
    executors:
      - {executor: docker, type: docker, stop_grace_seconds: 2, network: none}
    pipelines:
      - pipeline: NAME
        MORE
        tasks:
          - {task: nap, type: python, image: "IMAGE", cmd: "echo begun; sleep SECONDS", executors: 2}
"""


class World:
    """A pipeline whose two containers sleep, and what the engine and Prefect know of its run."""

    def __init__(self, folder: Path, docker: Any, image: str) -> None:
        self.folder = folder
        self.docker = docker
        self.name = f"nap-{uuid4().hex[:10]}"
        self._image = image

    def write(self, *, more: str = "description: x", seconds: int = 600) -> None:
        text = textwrap.dedent(CONFIG).replace("NAME", self.name).replace("IMAGE", self._image)
        text = text.replace("MORE", more).replace("SECONDS", str(seconds))
        (self.folder / "rainbow.yml").write_text(text)

    def containers(self, **filters: Any) -> list[Any]:
        found: list[Any] = self.docker.api.containers(
            all=True, filters={"label": f"rainbow.pipeline={self.name}", **filters}
        )
        return found

    def begun(self) -> str:
        """Wait until both containers run; gives the flow run."""
        assert wait_until(lambda: len(self.containers(status="running")) == 2, 120)
        run_id: str = self.containers()[0]["Labels"][FLOW_RUN]
        return run_id

    def is_clean(self, seconds: float = 60) -> bool:
        """Whether no container is left; asked again after a while, since one may come late."""
        if not wait_until(lambda: not self.containers(), seconds):
            return False
        time.sleep(1)
        return not self.containers()

    def state(self, run_id: str) -> str:
        """The name of the state of the run in Prefect, once it is one of an end."""
        with get_client(sync_client=True) as client:
            wait_until(lambda: bool(client.read_flow_run(UUID(run_id)).state.is_final()), 90)  # type: ignore[union-attr]
            state: Any = client.read_flow_run(UUID(run_id)).state
            print(state.message)
            return str(state.name)


@pytest.fixture
def world(tmp_path: Path, docker_engine: Any, base_image: str) -> Iterator[World]:
    made = World(tmp_path, docker_engine, base_image)
    made.write()
    yield made
    for one in made.containers():
        docker_engine.api.remove_container(one["Id"], force=True, v=True)


@pytest.fixture
def start(world: World) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `rainbow run` of the pipeline."""
    all_: list[subprocess.Popen[str]] = []

    def begin(**env: str) -> subprocess.Popen[str]:
        all_.append(
            subprocess.Popen(
                [RAINBOW, "run", "--quiet"],
                cwd=world.folder,
                env={**os.environ, **env},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return all_[-1]

    yield begin
    for one in all_:
        if one.poll() is None:
            one.kill()
        one.communicate()


def test_a_cancel_in_prefect_leaves_nothing(world: World, start: Any) -> None:
    process = start()
    run_id = world.begun()

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(run_id), Cancelling())
    process.wait(90)

    assert world.containers() == []
    assert (process.returncode, world.state(run_id)) == (1, "Cancelled")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(world: World, start: Any, number: int) -> None:
    process = start()
    run_id = world.begun()

    process.send_signal(number)
    process.wait(90)

    assert world.containers() == []
    assert (process.returncode, world.state(run_id)) == (1, "Cancelled")


def test_two_signals_leave_nothing(world: World, start: Any) -> None:
    process = start()
    run_id = world.begun()

    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    process.wait(90)

    assert world.is_clean()
    assert world.state(run_id) == "Cancelled"


def test_a_timeout_of_the_pipeline_leaves_nothing(world: World, start: Any) -> None:
    world.write(more="timeout_minutes: 0.5")
    process = start()
    run_id = world.begun()

    process.wait(150)

    assert world.containers() == []
    assert (process.returncode, world.state(run_id)) == (1, "TimedOut")


def test_an_exception_in_the_flow_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    watch = Loop._watch

    def broken(loop: Loop) -> None:
        if not seen and len(world.containers(status="running")) == 2:
            seen.append(loop.world.run_id)
            raise RuntimeError("broken on purpose")
        watch(loop)

    monkeypatch.setattr(Loop, "_watch", broken)

    with pytest.raises(AssertionError):
        engine.run(check.load(world.folder).pipeline(world.name).plan())

    assert world.containers() == []
    assert world.state(seen[0]) == "Failed"


def test_kill_9_of_the_flow_process_leaves_nothing(world: World, start: Any) -> None:
    process = start()
    run_id = world.begun()

    process.send_signal(signal.SIGKILL)
    process.wait(30)

    assert world.is_clean()
    assert world.state(run_id) == "Crashed"


def test_kill_9_while_containers_are_being_made_leaves_nothing(world: World, start: Any) -> None:
    process = start()
    assert wait_until(lambda: bool(world.containers()), 120)

    process.send_signal(signal.SIGKILL)
    process.wait(30)
    time.sleep(2)

    assert world.is_clean()


# -- a worker


@pytest.fixture
def worker(world: World) -> Iterator[Any]:
    """A process worker of Prefect with a deployment of the pipeline, whose run it takes; in a process group of its own."""
    pool = f"pool-{world.name}"
    asyncio.run(deployed(world, pool))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"),
            *("--install-policy", "never"),
        ],
        cwd=world.folder,
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    yield process
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait(30)


async def deployed(world: World, pool: str) -> None:
    flow = engine.build_flow(check.load(world.folder).pipeline(world.name).plan())
    steps = [{"prefect.deployments.steps.set_working_directory": {"directory": str(world.folder)}}]
    async with get_client() as client:
        await client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        deployment = await client.create_deployment(
            await client.create_flow(flow),
            pool,
            work_pool_name=pool,
            entrypoint=f"rainbow_prefect.flows.{world.name.replace('-', '_')}",
            pull_steps=steps,
        )
        await client.create_flow_run_from_deployment(deployment)


def test_kill_9_of_a_worker_leaves_nothing(world: World, worker: Any) -> None:
    """Its flow runs are processes of their own, which go on to their end."""
    world.write(seconds=15)
    run_id = world.begun()

    worker.kill()

    assert world.is_clean(90)
    assert world.state(run_id) == "Completed"


def test_kill_9_of_a_worker_and_its_flow_run_leaves_nothing(world: World, worker: Any) -> None:
    """The flow run is a process in a process group of its own."""
    run_id = world.begun()
    flows = [one for one in psutil.Process(worker.pid).children(recursive=True) if "prefect.engine" in one.cmdline()]
    assert len(flows) == 1

    worker.kill()
    flows[0].kill()

    assert world.is_clean(90)
    assert world.state(run_id) == "Crashed"


def test_a_cancel_of_a_run_of_a_worker_leaves_nothing(world: World, worker: Any) -> None:
    run_id = world.begun()

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(run_id), Cancelling())

    assert world.is_clean(90)
    assert world.state(run_id) == "Cancelled"
