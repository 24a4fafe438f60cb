"""The case `serve`: endpoints of a service under load, beside the same written by hand with FastAPI."""

from __future__ import annotations

import json
import re
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from .cases import HERE, RAINBOW, Bench
from .table import Row

CLIENTS = 32
BATCH_CLIENTS = 64
ORDER = {"prices": [1.5, 2.25, 3.0], "customer": "Bosco"}
POINT = {"x": [0.1] * 64}
CODE = """\
import numpy as np

draw = np.random.default_rng(1)
first, *inner = (draw.normal(scale=0.03, size=size).astype(np.float32) for size in [(64, 1024), *[(1024, 1024)] * 8])


async def nothing():
    return {"status": "fine"}


async def order(body):
    return {"total": sum(body["prices"]), "customer": body["customer"]}


def threaded(body):
    return {"total": sum(body["prices"]), "customer": body["customer"]}


def _model(points):
    hidden = np.tanh(points @ first)
    for weights in inner:
        hidden = np.tanh(hidden @ weights)
    return hidden.sum(axis=1)


def predict(body):
    return {"y": float(_model(np.array([body["x"]], np.float32))[0])}


def predict_many(bodies):
    return [{"y": float(one)} for one in _model(np.array([body["x"] for body in bodies], np.float32))]
"""
YAML = """\
name: bench
services:
  - service: bench
    source: code
    endpoints:
      - {endpoint: /nothing, module: app, function: nothing}
      - {endpoint: /order, module: app, function: order}
      - {endpoint: /threaded, module: app, function: threaded}
      - {endpoint: /predict, module: app, function: predict}
      - {endpoint: /batched, module: app, function: predict_many, batch: {max_size: 64, max_wait_ms: 2}}
"""


@dataclass(frozen=True)
class Load:
    """What one burst of requests took: seconds, CPU seconds of the server, bytes of its memory."""

    wall_seconds: float
    cpu_seconds: float
    memory_bytes: int


@dataclass(frozen=True)
class Server:
    """A running server; `started` is what it used until its first answer."""

    port: int
    process: subprocess.Popen[bytes]
    started: float

    def tree(self) -> list[psutil.Process]:
        one = psutil.Process(self.process.pid)
        return [one, *one.children(recursive=True)]

    def cpu(self) -> float:
        return sum(sum(one.cpu_times()[:2]) for one in self.tree())

    def load(self, path: str, body: object, count: int, clients: int = CLIENTS) -> Load:
        """Answer `count` requests of so many clients, each of which waits for its answer.

        Raises:
            RuntimeError: an answer was none of 200.
        """
        before, begun = self.cpu(), time.perf_counter()
        _requests(self.port, path, body, count, clients)
        wall = time.perf_counter() - begun
        memory = max(one.memory_info().rss for one in self.tree())
        return Load(wall, self.cpu() - before, memory)


def _requests(port: int, path: str, body: object, count: int, clients: int) -> None:
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nhost: x\r\n"
    if data:
        head += f"content-type: application/json\r\ncontent-length: {len(data)}\r\n"
    request = head.encode() + b"\r\n" + data
    left = count
    answers: dict[socket.socket, bytes] = {}
    with selectors.DefaultSelector() as ready:
        for _ in range(min(clients, count)):
            one = socket.create_connection(("127.0.0.1", port), timeout=60)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ready.register(one, selectors.EVENT_READ)
            answers[one] = b""
            one.sendall(request)
            left -= 1
        while answers:
            for key, _ in ready.select(60):
                one = key.fileobj  # type: ignore[assignment]
                answer = answers[one] = answers[one] + one.recv(65536)
                if not answer.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(f"{path}: {answer[:500].decode(errors='replace')}")
                if not _is_whole(answer):
                    continue
                answers[one] = b""
                if left:
                    one.sendall(request)
                    left -= 1
                else:
                    ready.unregister(one)
                    one.close()
                    del answers[one]


_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


def _is_whole(answer: bytes) -> bool:
    end = answer.find(b"\r\n\r\n")
    found = _LENGTH.search(answer, 0, end) if end >= 0 else None
    return found is not None and len(answer) >= end + 4 + int(found[1])


@contextmanager
def _started(argv: list[str], port: Callable[[subprocess.Popen[bytes]], int], **more: object) -> Iterator[Server]:
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, **more)  # type: ignore[call-overload]
    try:
        found = port(process)
        _until_answers(found)
        server = Server(found, process, 0.0)
        yield Server(found, process, server.cpu())
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _until_answers(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            _requests(port, "/nothing", None, 1, 1)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _told_port(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    text = b""
    for line in process.stdout:
        text += line
        if line.rstrip() == b"}":
            break
    return int(json.loads(text)["services"][0]["url"].rpartition(":")[2])


@contextmanager
def _ours(bench: Bench) -> Iterator[Server]:
    folder = bench.home("serve")
    (folder / "code").mkdir()
    (folder / "code" / "app.py").write_text(CODE)
    (folder / "rainbow.yml").write_text(YAML)
    argv = [str(RAINBOW), "serve", str(folder), "--port", "0", "--json"]
    with (folder / "log").open("wb") as log, _started(argv, _told_port, env=_env(bench), stderr=log) as server:
        yield server


@contextmanager
def _by_hand(bench: Bench) -> Iterator[Server]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(2048)
        port: int = sock.getsockname()[1]
        argv = [sys.executable, str(HERE / "peers" / "serve_fastapi.py"), str(sock.fileno())]
        with _started(argv, lambda _: port, env=_env(bench), pass_fds=[sock.fileno()]) as server:
            yield server


def _env(bench: Bench) -> dict[str, str]:
    return {**bench.env, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def serve(bench: Bench) -> list[Row]:
    """Endpoints of `rainbow serve` beside FastAPI by hand, in CPU of the server for each 1,000 requests."""
    count = bench.count(10_000)
    with _ours(bench) as ours, _by_hand(bench) as peer:
        rows = [
            Row("start of a small service to its first answer", ours.started, "CPU s", 1.5),
            _side_by_side("an `async def` without argument", ours, peer, "/nothing", None, count, bench, 1 / 0.95),
            _side_by_side("a dictionary in and out", ours, peer, "/order", ORDER, count, bench, 1 / 1.2),
            _side_by_side("a plain `def`", ours, peer, "/threaded", ORDER, count, bench, 1 / 0.95),
        ]
        few = bench.count(3_000)
        loads = {
            path: [ours.load(path, POINT, few, BATCH_CLIENTS) for _ in range(max(2, bench.repeats))][1:]
            for path in ("/predict", "/batched")
        }
        single, batched = (
            statistics.median(one.wall_seconds for one in loads[path]) / few * 1000 for path in ("/predict", "/batched")
        )
        what = f"1,000 requests of {BATCH_CLIENTS} clients to a numpy model, in batches"
        rows.append(Row(what, batched, "s", 0.333, single, "one by one"))
    return rows


def _side_by_side(
    what: str, ours: Server, peer: Server, path: str, body: object, count: int, bench: Bench, bar: float
) -> Row:
    for one in (ours, peer):
        one.load(path, body, max(100, count // 10))
    found: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(bench.repeats):
        for name, one in (("ours", ours), ("peer", peer)):
            found[name].append(one.load(path, body, count).cpu_seconds / count * 1000)
    mine, other = (statistics.median(found[name]) for name in ("ours", "peer"))
    return Row(f"1,000 requests to {what}", mine, "CPU s", round(bar, 3), other, "FastAPI by hand")


def serve_memory(bench: Bench) -> list[Row]:
    """The memory of a service after 1,000,000 requests, beside that after 100,000."""
    with _ours(bench) as ours:
        first = ours.load("/order", ORDER, bench.count(100_000)).memory_bytes
        last = ours.load("/order", ORDER, bench.count(900_000)).memory_bytes
    what = f"memory of a service after {bench.count(1_000_000):,} requests"
    megabyte = 1024 * 1024
    return [Row(what, last / megabyte, "MB", 1.05, first / megabyte, f"after {bench.count(100_000):,}")]
