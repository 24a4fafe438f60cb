"""ECS for tests: moto's server with a stub in front of it that runs each task as a real container of Docker.

moto answers every call of AWS over real HTTP, but runs nothing and invents states. So the stub passes RunTask and all else
on to moto, starts what the registered definition and the overrides say with the engine of this machine, sends what the
container prints to moto's CloudWatch Logs, and answers DescribeTasks, StopTask and ListTasks from what really happened.
Nothing here was ever checked against real AWS. A task may also be told to end in a way that only AWS knows (`fate`).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.conftest import free_port

TARGET = "AmazonEC2ContainerServiceV20141113."
KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_DEFAULT_REGION": "eu-west-1",
}
LATE_SECONDS = 0.3
"""CloudWatch shows lines that much later than they were printed."""

Json = dict[str, Any]


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """The URL of a moto server of its own."""
    port = free_port()
    env = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")} | KEYS
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=env,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
                break
            except OSError:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise
                time.sleep(0.1)
        yield url
    finally:
        server.kill()
        server.wait()


@dataclass
class Fate:
    """How a task ends instead of being run; `after` seconds in state PENDING."""

    stop_code: str = "TaskFailedToStart"
    stopped_reason: str = ""
    reason: str | None = None
    exit_code: int | None = None
    after: float = 0.0


@dataclass
class Task:
    """What the stub knows of a task."""

    arn: str
    request: Json
    definition: Json
    status: str = "PENDING"
    exit_code: int | None = None
    reason: str | None = None
    stop_code: str | None = None
    stopped_reason: str | None = None
    container: Any = None
    asked_to_stop: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def shown(self, task: Json) -> Json:
        """What moto says of it, with what really happened."""
        container: Json = {"name": "task", "lastStatus": self.status, "taskArn": self.arn}
        if self.exit_code is not None:
            container["exitCode"] = self.exit_code
        if self.reason is not None:
            container["reason"] = self.reason
        more = {"stopCode": self.stop_code, "stoppedReason": self.stopped_reason}
        return {
            **task,
            "lastStatus": self.status,
            "containers": [container],
            **{key: value for key, value in more.items() if value is not None},
        }


class Stub:
    """The server; `calls` remembers every action and its request, `fates` holds the ends of the next tasks."""

    def __init__(self, moto: str, engine: Any) -> None:
        import boto3

        self.moto = moto
        self.engine = engine
        self.tasks: dict[str, Task] = {}
        self.forget()
        session = boto3.Session("testing", "testing-secret", region_name="eu-west-1")
        self.logs = session.client("logs", endpoint_url=moto)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def forget(self) -> None:
        """As if nothing had happened yet; what still runs is removed."""
        self.calls: list[tuple[str, Json]] = []
        self.fates: list[Fate] = []
        self.errors: dict[str, list[tuple[str, str]]] = {}
        self.failures: list[Json] = []
        self.late_seconds = LATE_SECONDS
        self.volumes: dict[str, str] = {}
        self._remove_containers()
        self.tasks = {}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._remove_containers()

    def _remove_containers(self) -> None:
        for task in self.tasks.values():
            if task.container is not None:
                with contextlib.suppress(Exception):
                    task.container.remove(force=True)

    def requests(self, action: str) -> list[Json]:
        return [request for name, request in self.calls if name == action]

    # -- the API

    def answer(self, action: str, request: Json, forward: Callable[[Json], tuple[int, Json]]) -> tuple[int, Json]:
        self.calls.append((action, request))
        if self.errors.get(action):
            code, message = self.errors[action].pop(0)
            return 400, {"__type": code, "message": message}
        mine: Callable[..., tuple[int, Json]] | None = getattr(self, f"_{action}", None)
        return mine(request, forward) if mine is not None else forward(request)

    def _RegisterTaskDefinition(self, request: Json, forward: Any) -> tuple[int, Json]:
        containers = [{"memory": 128, **one} for one in request["containerDefinitions"]]  # moto needs it, ECS does not
        return forward({**request, "containerDefinitions": containers})

    def _RunTask(self, request: Json, forward: Any) -> tuple[int, Json]:
        if self.failures:
            return 200, {"tasks": [], "failures": [self.failures.pop(0)]}
        network = request.get("networkConfiguration", {}).get("awsvpcConfiguration", {})
        network.setdefault("securityGroups", [])  # moto needs it, ECS does not
        if len(json.dumps(request["overrides"])) > 8192:
            return 400, {"__type": "InvalidParameterException", "message": "overrides are longer than 8192"}
        status, answer = forward(request)
        if status != 200:
            return status, answer
        arn = answer["tasks"][0]["taskArn"]
        _, found = forward_to(self.moto, "DescribeTaskDefinition", {"taskDefinition": request["taskDefinition"]})
        task = self.tasks[arn] = Task(arn, request, found["taskDefinition"])
        fate = self.fates.pop(0) if self.fates else None
        threading.Thread(target=self._end_by_fate if fate else self._run, args=(task, fate), daemon=True).start()
        return 200, {**answer, "tasks": [task.shown(answer["tasks"][0])]}

    def _DescribeTasks(self, request: Json, forward: Any) -> tuple[int, Json]:
        status, answer = forward(request)
        if status == 200:
            known = [one for one in answer["tasks"] if one["taskArn"] in self.tasks]
            answer["tasks"] = [self.tasks[one["taskArn"]].shown(one) for one in known]
        return status, answer

    def _ListTasks(self, request: Json, _forward: Any) -> tuple[int, Json]:
        found = [
            one.arn
            for one in self.tasks.values()
            if one.status != "STOPPED" and request.get("startedBy") in (None, one.request.get("startedBy"))
        ]
        return 200, {"taskArns": found}

    def _StopTask(self, request: Json, _forward: Any) -> tuple[int, Json]:
        task = self.tasks[request["task"]]
        threading.Thread(target=self._stop, args=(task, request.get("reason", "")), daemon=True).start()
        return 200, {"task": {"taskArn": task.arn}}

    # -- the containers

    def _run(self, task: Task, _fate: None) -> None:
        one = next(one for one in task.definition["containerDefinitions"] if one["name"] == "task")
        override = task.request["overrides"]["containerOverrides"][0]
        env = {item["name"]: item["value"] for item in [*one.get("environment", ()), *override.get("environment", ())]}
        options = one.get("logConfiguration", {}).get("options", {})
        stream = f"{options.get('awslogs-stream-prefix')}/task/{task.arn.rpartition('/')[2]}"
        binds = {
            self.volumes[point["sourceVolume"]]: {"bind": point["containerPath"], "mode": "rw"}
            for point in one.get("mountPoints", ())
        }
        memory = f"{task.definition['memory']}m"
        try:
            if options:
                self.logs.create_log_stream(logGroupName=options["awslogs-group"], logStreamName=stream)
            with task.lock:
                if task.asked_to_stop is not None:
                    return
                task.container = self.engine.containers.create(
                    one["image"],
                    entrypoint=one["entryPoint"],
                    command=one["command"],
                    environment=env,
                    network_mode="host",
                    mem_limit=memory,
                    memswap_limit=memory,
                    volumes=binds,
                    labels={"rainbow-test": "ecs"},
                )
                task.container.start()
                task.status = "RUNNING"
            shipper = threading.Thread(
                target=self._ship, args=(task, options.get("awslogs-group"), stream), daemon=True
            )
            shipper.start()
            status = task.container.wait()["StatusCode"]
            task.container.reload()
            if task.container.attrs["State"]["OOMKilled"] and status == 137:
                task.reason = "OutOfMemoryError: Container killed due to memory usage"
            task.exit_code = status
            task.stop_code = "UserInitiated" if task.asked_to_stop is not None else "EssentialContainerExited"
            task.stopped_reason = task.asked_to_stop or "Essential container in task exited"
            task.status = "STOPPED"
            shipper.join(30)
            task.container.remove(force=True)
        except Exception as error:
            task.stop_code, task.stopped_reason = "TaskFailedToStart", str(error)
            task.reason = _as_ecs_says(str(error))
            task.status = "STOPPED"
            if task.container is not None:
                with contextlib.suppress(Exception):
                    task.container.remove(force=True)

    def _ship(self, task: Task, group: str | None, stream: str) -> None:
        """Send what it prints to CloudWatch as the driver awslogs does: whole lines, no empty ones, some time later."""
        waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        sender = threading.Thread(target=self._send, args=(waiting, group, stream), daemon=True)
        sender.start()
        rest = b""
        for data in task.container.logs(stream=True, follow=True):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                waiting.put(line)
        waiting.put(rest)
        waiting.put(None)
        sender.join()

    def _send(self, waiting: queue.SimpleQueue[bytes | None], group: str | None, stream: str) -> None:
        line: bytes | None = b""
        while line is not None:
            time.sleep(self.late_seconds)
            batch: list[Json] = []
            size = 0
            while size < 700_000 and len(batch) < 5000:
                try:
                    line = waiting.get_nowait()
                except queue.Empty:
                    break
                if line is None:
                    break
                for at in range(0, len(line), 200_000):
                    text = line[at : at + 200_000].decode("utf-8", "replace")
                    batch.append({"timestamp": int(time.time() * 1000), "message": text})
                    size += len(text) + 26
            if batch and group is not None:
                self.logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=batch)

    def _end_by_fate(self, task: Task, fate: Fate) -> None:
        until = time.monotonic() + fate.after
        while time.monotonic() < until and task.asked_to_stop is None:
            time.sleep(0.02)
        if task.asked_to_stop is not None:
            return
        task.exit_code, task.reason = fate.exit_code, fate.reason
        task.stop_code, task.stopped_reason = fate.stop_code, fate.stopped_reason
        task.status = "STOPPED"

    def _stop(self, task: Task, reason: str) -> None:
        with task.lock:
            task.asked_to_stop = reason
            if task.container is None:
                task.stop_code, task.stopped_reason, task.status = "UserInitiated", reason, "STOPPED"
                return
        grace = next(one for one in task.definition["containerDefinitions"] if one["name"] == "task")["stopTimeout"]
        with contextlib.suppress(Exception):
            task.container.stop(timeout=grace)


def _as_ecs_says(error: str) -> str:
    if "No such image" in error or "pull access denied" in error:
        return f"CannotPullContainerError: pull image manifest has been retried 1 time(s): {error}"
    return f"CannotStartContainerError: Error response from daemon: {error}"


def forward_to(moto: str, action: str, request: Json) -> tuple[int, Json]:
    """Pass a call of ECS on to moto."""
    headers = {
        "X-Amz-Target": TARGET + action,
        "Content-Type": "application/x-amz-json-1.1",
        "Authorization": "AWS4-HMAC-SHA256 Credential=testing/20200101/eu-west-1/ecs/aws4_request, "
        "SignedHeaders=host, Signature=0",
    }
    call = urllib.request.Request(moto, json.dumps(request).encode(), headers)
    try:
        with urllib.request.urlopen(call, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read()
        try:
            return error.code, json.loads(text)
        except ValueError:
            return error.code, {"__type": "ServerException", "message": text.decode()[:500]}


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            target = self.headers.get("X-Amz-Target", "")
            if target.startswith(TARGET):
                action = target.removeprefix(TARGET)
                status, answer = stub.answer(action, json.loads(body), lambda what: forward_to(stub.moto, action, what))
                self.send(status, json.dumps(answer, default=str).encode())
                return
            name = target.rpartition(".")[2]
            stub.calls.append((name, json.loads(body)))
            if stub.errors.get(name):
                code, message = stub.errors[name].pop(0)
                self.send(400, json.dumps({"__type": code, "message": message}).encode())
                return
            headers = {
                key: value for key, value in self.headers.items() if key.lower() not in ("host", "content-length")
            }
            call = urllib.request.Request(stub.moto + self.path, body, headers)
            try:
                with urllib.request.urlopen(call, timeout=60) as answer:
                    self.send(answer.status, answer.read())
            except urllib.error.HTTPError as error:
                self.send(error.code, error.read())

        def send(self, status: int, data: bytes) -> None:
            with contextlib.suppress(OSError):  # a client that was killed waits for no answer
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *_args: Any) -> None:
            pass

    return Handler
