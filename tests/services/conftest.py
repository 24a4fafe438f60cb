"""Services of tests run as people run them: `rainbow serve` in a process of its own, over real sockets."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RAINBOW

EVERY = Path(__file__).with_name("every")
TOKENS = {"EVERY_READER": "reader-token-4711", "EVERY_WRITER": "writer-token-4712"}
START_SECONDS = 90


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """A running `rainbow serve`."""

    process: subprocess.Popen[bytes]
    ports: dict[str, int]
    log: Path
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return next(iter(self.ports.values()))

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
        service: str | None = None,
    ) -> Answer:
        """One request over a connection of its own; `body` is sent as JSON, `data` as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[service] if service else self.port, timeout=60)
        sent = dict(headers or {})
        if body is not None:
            data = json.dumps(body).encode()
            sent.setdefault("content-type", "application/json")
        try:
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def connect(self, service: str | None = None) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.ports[service] if service else self.port), timeout=60)

    def logged(self, text: str, seconds: float = 30) -> str:
        """The log once a text is in it."""
        return until(lambda: (found := self.log.read_text()) and text in found and found, seconds)

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """What the condition gives once it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not become true in time")


@contextmanager
def serving(path: Path, *args: str, log: Path, env: dict[str, str] | None = None) -> Iterator[Served]:
    """Run `rainbow serve` until the block ends."""
    with log.open("wb") as err:
        process = subprocess.Popen(
            [RAINBOW, "serve", str(path), "--port", "0", "--json", *args],
            stdout=subprocess.PIPE,
            stderr=err,
            env={**os.environ, **TOKENS, **(env or {})},
        )
    try:
        yield Served(process, _ports(process, log), log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ports(process: subprocess.Popen[bytes], log: Path) -> dict[str, int]:
    assert process.stdout is not None
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    lines = b""
    for line in process.stdout:
        lines += line
        if line.rstrip() == b"}":
            break
    timer.cancel()
    assert lines, f"it did not start: {log.read_text()}"
    return {one["service"]: int(one["url"].rpartition(":")[2]) for one in json.loads(lines)["services"]}


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Both services of `every/rainbow.yml`."""
    log = tmp_path_factory.mktemp("every") / "serve.log"
    with serving(EVERY, log=log) as served:
        yield served
