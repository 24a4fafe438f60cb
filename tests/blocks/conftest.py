"""Block documents as people make them in Prefect's UI, which sends what it knows over REST."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PREFECT = Path(sys.executable).with_name("prefect")


def prefect(*args: str) -> str:
    """What Prefect's own command line prints."""
    done = subprocess.run([str(PREFECT), *args], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Api:
    """The requests of the block pages of Prefect's UI."""

    def __init__(self) -> None:
        from prefect.client.orchestration import get_client

        self._client = get_client(sync_client=True)

    def ask(self, method: Any, path: Any, **more: Any) -> Any:
        return self._client.request(method, path, **more).json()

    def type(self, slug: str) -> Any:
        return self.ask("GET", f"/block_types/slug/{slug}")

    def schemas(self, slug: str) -> list[Any]:
        """The schemas of a type, the newest first: the UI makes its form from that."""
        where = {"block_schemas": {"block_type_id": {"any_": [self.type(slug)["id"]]}}}
        return list(self.ask("POST", "/block_schemas/filter", json=where))

    def create(self, slug: str, name: str, data: Any) -> Any:
        schema = self.schemas(slug)[0]
        return self.ask(
            "POST",
            "/block_documents/",
            json={
                "name": name,
                "block_schema_id": schema["id"],
                "block_type_id": schema["block_type_id"],
                "data": data,
            },
        )

    def read(self, slug: str, name: str) -> Any:
        return self.ask("GET", f"/block_types/slug/{slug}/block_documents/name/{name}")


@pytest.fixture
def api(prefect_api: str) -> Api:
    """The API of a server whose catalogue has our blocks."""
    from rainbow_prefect.blocks.executors import BLOCKS

    for one in BLOCKS.values():
        one.register_type_and_schema(_sync=True)  # type: ignore[call-arg]
    return Api()


@pytest.fixture
def sql_api(api: Api) -> Api:
    """The same, with the sources and sinks of SQL ETL."""
    from rainbow_prefect.blocks.sql import SINKS, SOURCES

    for one in (*SOURCES.values(), *SINKS.values()):
        one.register_type_and_schema(_sync=True)  # type: ignore[call-arg]
    return api


Named = Callable[[str], str]


@pytest.fixture
def named(request: pytest.FixtureRequest) -> Named:
    """A name of a block that no other test has: all of them share one server."""
    import uuid

    return lambda word: f"{word}-{uuid.uuid4().hex[:8]}"
