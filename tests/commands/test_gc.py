"""`rainbow gc` on a real engine: what is an orphan, and what is not."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from rainbow_prefect.executors._docker_engine import FLOW_RUN, KEEP, OWNER
from rainbow_prefect.executors._docker_watch import owner
from tests.commands.conftest import Call
from tests.conftest import once

GONE = f"{socket.gethostname()}:1:0"
ELSEWHERE = "another-host:1:0"


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """One test at a time: each would remove the orphans of the others."""
    with once("gc"):
        yield


@pytest.fixture
def make(docker_engine: Any, base_image: str) -> Iterator[Callable[..., str]]:
    """A container with these labels, not started; its id."""
    made: list[str] = []

    def container(owner: str, run: str | None = None, *, starts: str = "", **labels: str) -> str:
        given = {FLOW_RUN: run or str(uuid4()), OWNER: owner, "rainbow.task": "t", **labels}
        one = docker_engine.containers.create(base_image, starts or "true", labels=given, network_mode="none")
        made.append(one.id)
        if starts:
            one.start()
            one.wait()
        return str(one.id)

    yield container
    for one in made:
        docker_engine.api.remove_container(one, force=True) if _is_there(docker_engine, one) else None


def _is_there(docker_engine: Any, container: str) -> bool:
    return any(one["Id"] == container for one in docker_engine.api.containers(all=True))


@pytest.fixture
def run_of(prefect_api: str) -> Callable[[str], str]:
    """A flow run in a state: its id."""
    from prefect import Flow
    from prefect.client.orchestration import get_client
    from prefect.states import Completed, Running

    def made(state: str) -> str:
        with get_client(sync_client=True) as client:
            states = {"completed": Completed(), "running": Running()}
            return str(client.create_flow_run(Flow(lambda: None, name="gc"), state=states[state]).id)

    return made


def removed(call: Call, *words: str) -> dict[str, str]:
    """What `rainbow gc` removed, with the reasons; other tests may have containers too."""
    return {one["container"]: one["reason"] for one in call("gc", "--json", *words).json["removed"]}


def test_what_is_an_orphan(call: Call, make: Any, run_of: Any, docker_engine: Any) -> None:
    gone = make(GONE)
    over = make(ELSEWHERE, run_of("completed"))
    live = make(ELSEWHERE, run_of("running"))
    mine = make(owner())
    unknown = make(ELSEWHERE)

    found = removed(call)

    assert found[gone] == "the process that started it is gone"
    assert found[over] == "its run is over (completed)"
    assert not {live, mine, unknown} & set(found)
    assert [_is_there(docker_engine, one) for one in (gone, over, live, mine, unknown)] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_dry_run_removes_nothing(call: Call, make: Any, docker_engine: Any) -> None:
    gone = make(GONE)

    done = call("gc", "--dry-run")

    (line,) = [line for line in done.out.splitlines() if gone[:12] in line]
    assert line.startswith(f"would remove  {gone[:12]}  t")
    assert line.endswith(" old  the process that started it is gone")
    assert _is_there(docker_engine, gone)


def test_older_than_leaves_what_is_young(call: Call, make: Any) -> None:
    gone, unknown = make(GONE), make(ELSEWHERE)

    assert not {gone, unknown} & set(removed(call, "--older-than", "1h"))
    assert removed(call, "--older-than", "0s")[unknown] == "its run is not known to the Prefect server"


def test_what_was_kept_goes_on_demand_only(call: Call, make: Any) -> None:
    kept = make(GONE, starts="true", **{KEEP: "true"})

    assert kept not in removed(call)
    assert removed(call, "--kept")[kept] == "it was kept by keep_failed"


def test_an_age_that_is_none_is_told(call: Call) -> None:
    done = call("gc", "--older-than", "old", code=2)

    assert "'old' is not an age; write e.g. 30m, 12h or 2d" in done.err


def test_an_engine_that_does_not_answer_is_told(call: Call) -> None:
    done = call("gc", "--host", "unix:///nowhere/docker.sock", code=1)

    assert done.err == (
        "Error: the Docker engine at unix:///nowhere/docker.sock does not answer (no such file or directory); start it, "
        "or name another one in DOCKER_HOST or the executor's `host`\n"
    )
