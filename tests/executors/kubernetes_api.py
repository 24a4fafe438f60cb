"""A fake API server of batch/v1 and core/v1 over real HTTP, whose Jobs run as containers of the Docker engine.

It is a fake: no scheduler, no kubelet, no admission. What it does keep to is what the executor depends on: objects are
checked strictly against the schema of Kubernetes, only what the role of docs/kubernetes.md allows is allowed, watches and
logs are streams that can be cut, Secrets become files of mode 0400 with the group of the pod, deleting a Job deletes what
it owns. `play` shows recorded states of a pod instead.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

from ..conftest import ROOT

Json = dict[str, Any]

LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?\Z")
DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "k": 10**3, "M": 10**6, "G": 10**9, "": 1}


class Fault(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status = status
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": status,
        }
        super().__init__(message)


@cache
def allowed() -> frozenset[tuple[str, str]]:
    """What the role of docs/kubernetes.md allows: (resource, verb)."""
    text = (ROOT / "docs/kubernetes.md").read_text()
    [written] = re.findall(r"<!-- file: role.yml -->\n```yaml\n(.*?)```", text, re.S)
    role, _ = yaml.safe_load_all(written)
    return frozenset((thing, verb) for rule in role["rules"] for thing in rule["resources"] for verb in rule["verbs"])


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Printed:
    """What a container printed: whole lines with the time at which each came."""

    lines: list[bytes] = field(default_factory=list)
    is_over: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def add(self, line: bytes, at: float | None = None) -> None:
        nanos = time.time_ns() if at is None else int(at * 1e9)
        stamp = datetime.fromtimestamp(nanos // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        fraction = f"{nanos % 10**9:09d}".rstrip("0")
        text = f"{stamp}.{fraction}Z " if fraction else f"{stamp}Z "
        with self.changed:
            self.lines.append(text.encode() + line)
            self.changed.notify_all()

    def end(self) -> None:
        with self.changed:
            self.is_over = True
            self.changed.notify_all()


@dataclass
class Rule:
    """A fault that is put in the way of requests: `(method, pattern of the path)`, so many times."""

    method: str
    path: str
    fault: Fault | str
    times: int

    def meets(self, method: str, path: str) -> bool:
        return self.times > 0 and method == self.method and re.search(self.path, path) is not None


class Api:
    """The server and all it knows; `claims` gives persistent volume claims their folders."""

    def __init__(self, folder: Path, *, network: str = "none") -> None:
        self.folder = folder
        self.network = network
        self.mark = f"rainbow-test-{uuid.uuid4().hex[:12]}"
        self.claims: dict[str, Path] = {}
        self.objects: dict[tuple[str, str, str], Json] = {}
        self.printed: dict[str, Printed] = {}
        self.rules: list[Rule] = []
        self.requests: list[tuple[str, str]] = []
        self.seen: list[Json] = []
        self.events: list[tuple[int, str, str, Json]] = []
        self.changed = threading.Condition()
        self.version = 100
        self.cuts: list[int] = []
        self.bodies: list[Json] = []
        self.script: Callable[[Api, Json], None] | None = None
        self.is_down = False
        self.expire = 0
        self._threads: list[threading.Thread] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kubeconfig(self, path: Path, namespace: str = "team") -> Path:
        """A kubeconfig that leads here."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": {"token": "a-token-of-the-fake"}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": namespace}}],
        }
        path.write_text(json.dumps(config))
        return path

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        found = docker("ps", "-aq", "--filter", f"label={self.mark}").split()
        if found:
            subprocess.run(["docker", "rm", "-f", *found], capture_output=True)
        for thread in self._threads:
            thread.join(30)

    # -- objects

    def of(self, kind: str) -> list[Json]:
        return [one for (found, _, _), one in list(self.objects.items()) if found == kind]

    def put(self, kind: str, thing: Json, event: str) -> Json:
        """Store a new state of an object and tell who watches."""
        with self.changed:
            self.version += 1
            thing = json.loads(json.dumps(thing))
            thing["metadata"]["resourceVersion"] = str(self.version)
            key = (kind, thing["metadata"]["namespace"], thing["metadata"]["name"])
            if event == "DELETED":
                self.objects.pop(key, None)
            else:
                self.objects[key] = thing
            self.events.append((self.version, kind, event, thing))
            self.changed.notify_all()
        return thing

    def get(self, kind: str, namespace: str, name: str) -> Json:
        found = self.objects.get((kind, namespace, name))
        if found is None:
            raise Fault(404, "NotFound", f'{kind} "{name}" not found')
        return found

    def create(self, kind: str, namespace: str, thing: Json) -> Json:
        try:
            kubernetes_validate.validate(thing, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Fault(422, "Invalid", f"{kind} is invalid: {error.message}") from None
        check(thing)
        metadata = thing["metadata"]
        if (kind, namespace, metadata["name"]) in self.objects:
            raise Fault(409, "AlreadyExists", f'{kind} "{metadata["name"]}" already exists')
        metadata |= {"namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now()}
        self.seen.append(json.loads(json.dumps(thing)))
        thing = self.put(kind, {**thing, "status": {}} if kind == "jobs" else thing, "ADDED")
        if kind == "jobs":
            self._start(lambda: self._run(thing))
        return thing

    def delete_job(self, namespace: str, name: str, propagation: str) -> None:
        """What the cluster does when a Job is deleted: its pods are ended, what it owns goes."""
        job = self.get("jobs", namespace, name)
        if propagation == "Orphan":
            raise Fault(400, "BadRequest", "the tests never orphan")
        job["metadata"]["deletionTimestamp"] = now()
        self.put("jobs", job, "MODIFIED" if propagation == "Foreground" else "DELETED")
        self._start(lambda: self._collect(job))

    def _collect(self, job: Json) -> None:
        name = job["metadata"]["name"]
        for pod in self.of("pods"):
            if pod["metadata"]["labels"].get("batch.kubernetes.io/job-name") == name:
                self.end_pod(pod)
        for secret in self.of("secrets"):
            if any(one["uid"] == job["metadata"]["uid"] for one in secret["metadata"].get("ownerReferences", ())):
                self.put("secrets", secret, "DELETED")
        if ("jobs", job["metadata"]["namespace"], name) in self.objects:
            self.put("jobs", job, "DELETED")

    def end_pod(self, pod: Json) -> None:
        """SIGTERM, the time to stop, SIGKILL, gone."""
        container = f"{self.mark}-{pod['metadata']['name']}"
        grace = pod["spec"].get("terminationGracePeriodSeconds", 30)
        subprocess.run(["docker", "stop", "-t", str(grace), container], capture_output=True)
        subprocess.run(["docker", "rm", "-f", container], capture_output=True)
        if printed := self.printed.get(pod["metadata"]["name"]):
            printed.end()
        pod["metadata"]["deletionTimestamp"] = now()
        self.put("pods", pod, "DELETED")

    def tell_event(self, job: Json, reason: str, message: str) -> None:
        """An Event about a Job, as its controller writes them."""
        metadata = job["metadata"]
        self.put(
            "events",
            {
                "metadata": {"name": uuid.uuid4().hex, "namespace": metadata["namespace"]},
                "involvedObject": {"kind": "Job", "name": metadata["name"]},
                "reason": reason,
                "message": message,
                "type": "Warning",
            },
            "ADDED",
        )

    def refuse(self, method: str, path: str, fault: Fault | str, times: int = 1_000_000) -> None:
        """Answer such requests with a fault; `drop` as a fault closes the connection without an answer."""
        self.rules.append(Rule(method, path, fault, times))

    def play(self, *statuses: Json, printed: Iterable[bytes] = (), pause: float = 0.05) -> None:
        """Instead of running Jobs, let their pods go through these states."""

        def script(api: Api, job: Json) -> None:
            pod = api.pod_of(job)
            log = api.printed[pod["metadata"]["name"]]
            for line in printed:
                log.add(line)
            for status in statuses:
                time.sleep(pause)
                if ("pods", pod["metadata"]["namespace"], pod["metadata"]["name"]) not in api.objects:
                    return
                if status.get("gone"):
                    api.end_pod(pod)
                    return
                pod["status"] = status
                if status["phase"] in ("Failed", "Succeeded"):
                    log.end()
                pod = api.put("pods", pod, "MODIFIED")

        self.script = script

    # -- running

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, job: Json) -> None:
        if self.script is not None:
            self.script(self, job)
            return
        pod = self.pod_of(job)
        name = pod["metadata"]["name"]
        files = Path(tempfile.mkdtemp(prefix="pod-", dir=self.folder))
        try:
            self._run_pod(job, pod, name, files)
        finally:
            self.printed[name].end()
            shutil.rmtree(files, ignore_errors=True)

    def pod_of(self, job: Json) -> Json:
        """The pod that a Job makes."""
        name, template = job["metadata"]["name"], job["spec"]["template"]
        labels = {**template["metadata"]["labels"], "job-name": name, "batch.kubernetes.io/job-name": name}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                **template["metadata"],
                "name": f"{name}-{uuid.uuid4().hex[:5]}",
                "namespace": job["metadata"]["namespace"],
                "labels": labels,
            },
            "spec": {**template["spec"], "nodeName": "node-1"},
            "status": {"phase": "Pending"},
        }
        self.printed[pod["metadata"]["name"]] = Printed()
        return self.put("pods", pod, "ADDED")

    def _state(self, pod: Json, phase: str, state: Json) -> None:
        with self.changed:
            found = self.objects.get(("pods", pod["metadata"]["namespace"], pod["metadata"]["name"]))
        if found is None:
            return
        statuses = [{"name": "task", "image": "", "imageID": "", "ready": False, "restartCount": 0, "state": state}]
        self.put("pods", {**found, "status": {"phase": phase, "containerStatuses": statuses}}, "MODIFIED")

    def _run_pod(self, job: Json, pod: Json, name: str, files: Path) -> None:
        namespace = pod["metadata"]["namespace"]
        self._state(pod, "Pending", {"waiting": {"reason": "ContainerCreating"}})
        spec = pod["spec"]
        for _ in range(200):  # a mount of a Secret that is not there yet is tried again
            if all(("secrets", namespace, one) in self.objects for one in secrets_of(spec)):
                break
            time.sleep(0.02)
        volumes = self._volumes(spec, namespace, files)
        termination = files / "termination-log"
        termination.touch()
        termination.chmod(0o666)
        for first in spec.get("initContainers", ()):
            arguments = self._arguments(first, spec, namespace, volumes)
            subprocess.run(["docker", "run", "--rm", *arguments], check=True, capture_output=True)
        container = f"{self.mark}-{name}"
        [main] = [one for one in spec["containers"] if one["name"] == "task"]
        log = f"{termination}:{main['terminationMessagePath']}"
        arguments = self._arguments(main, spec, namespace, volumes)
        made = subprocess.run(
            ["docker", "create", "--name", container, "-v", log, *arguments], capture_output=True, text=True
        )
        if made.returncode:
            missing = "No such image" in made.stderr or "manifest" in made.stderr or "pull access denied" in made.stderr
            reason = "ImagePullBackOff" if missing else "CreateContainerError"
            message = f'Back-off pulling image "{main["image"]}": not found' if missing else made.stderr
            self._state(pod, "Pending", {"waiting": {"reason": reason, "message": message}})
            return
        self._state(pod, "Running", {"running": {"startedAt": now()}})
        self._attach(container, self.printed[name])
        self._ended(job, pod, container, termination)

    def _attach(self, container: str, printed: Printed) -> None:
        with subprocess.Popen(
            ["docker", "start", "--attach", container],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                printed.add(line)

    def _ended(self, job: Json, pod: Json, container: str, termination: Path) -> None:
        answer = subprocess.run(["docker", "inspect", container], capture_output=True, text=True)
        self.printed[pod["metadata"]["name"]].end()
        if answer.returncode:
            return
        state = json.loads(answer.stdout)[0]["State"]
        status = int(state["ExitCode"])
        reason = "OOMKilled" if state["OOMKilled"] else "Error" if status else "Completed"
        message = termination.read_bytes()[:4096].decode("utf-8", "replace")
        ended = {"exitCode": status, "reason": reason, "finishedAt": now(), **({"message": message} if message else {})}
        self._state(pod, "Failed" if status else "Succeeded", {"terminated": ended})
        with self.changed:
            found = self.objects.get(("jobs", job["metadata"]["namespace"], job["metadata"]["name"]))
        if found is not None:
            self.put("jobs", {**found, "status": {"failed" if status else "succeeded": 1}}, "MODIFIED")

    def _volumes(self, spec: Json, namespace: str, files: Path) -> dict[str, Path]:
        group = spec.get("securityContext", {}).get("fsGroup")
        found = {}
        for volume in spec.get("volumes", ()):
            name = volume["name"]
            folder = files / name
            if "secret" in volume:
                self._secret_volume(volume["secret"], namespace, folder, group)
            elif "persistentVolumeClaim" in volume:
                folder = self.claims[volume["persistentVolumeClaim"]["claimName"]]
            else:
                folder.mkdir(mode=0o777)
                folder.chmod(0o777)
            found[name] = folder
        return found

    def _secret_volume(self, source: Json, namespace: str, folder: Path, group: int | None) -> None:
        """Files of root with the group of the pod, which may read what the owner may: as the kubelet does it."""
        folder.mkdir(mode=0o755)
        data = self.get("secrets", namespace, source["secretName"])["data"]
        for item in source["items"]:
            file = folder / item["path"]
            file.write_bytes(base64.b64decode(data[item["key"]]))
            mode = item.get("mode", source.get("defaultMode", 0o644))
            file.chmod(mode)
            if group is not None and os.geteuid() == 0:
                os.chown(file, 0, group)
                file.chmod(mode | 0o440)

    def _arguments(self, container: Json, spec: Json, namespace: str, volumes: dict[str, Path]) -> list[str]:
        """What `docker create` is given for a container."""
        pod_context, context = spec.get("securityContext", {}), container.get("securityContext", {})
        env = {one["name"]: self._value(one, namespace) for one in container.get("env", ())}
        command = [expanded(word, env) for word in container["command"]]
        arguments = [f"--network={self.network}", f"--label={self.mark}", "--pull=never", "--entrypoint", command[0]]
        if "runAsUser" in pod_context:
            arguments += ["--user", f"{pod_context['runAsUser']}:{pod_context.get('runAsGroup', 0)}"]
        for name in context.get("capabilities", {}).get("drop", ()):
            arguments += ["--cap-drop", name]
        if context.get("allowPrivilegeEscalation") is False:
            arguments += ["--security-opt", "no-new-privileges"]
        if memory := container.get("resources", {}).get("limits", {}).get("memory"):
            arguments += [f"--memory={size(memory)}", f"--memory-swap={size(memory)}"]
        for name, value in env.items():
            arguments += ["--env", f"{name}={value}"]
        for mount in container.get("volumeMounts", ()):
            source = volumes[mount["name"]] / mount.get("subPath", "")
            if not source.exists():
                source.mkdir(parents=True)
            arguments += ["-v", f"{source}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}"]
        return [*arguments, container["image"], *command[1:]]

    def _value(self, variable: Json, namespace: str) -> str:
        if "value" in variable:
            return expanded(variable["value"], {})
        reference = variable["valueFrom"]["secretKeyRef"]
        return base64.b64decode(self.get("secrets", namespace, reference["name"])["data"][reference["key"]]).decode()


def secrets_of(spec: Json) -> set[str]:
    """The Secrets that a pod needs to start."""
    names = {one["secret"]["secretName"] for one in spec.get("volumes", ()) if "secret" in one}
    for container in spec["containers"]:
        for one in container.get("env", ()):
            if "valueFrom" in one:
                names.add(one["valueFrom"]["secretKeyRef"]["name"])
    return names


def expanded(text: str, env: dict[str, str]) -> str:
    """`$$` is `$`, `$(NAME)` the variable when there is one, as the kubelet has it."""
    return re.sub(r"\$\$|\$\(([^)]*)\)", lambda found: "$" if found[1] is None else env.get(found[1], found[0]), text)


def size(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\w*)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def check(thing: Json) -> None:
    """Some of what the API server checks beside the schema."""
    metadata = thing["metadata"]
    if not DNS_NAME.match(metadata["name"]) or len(metadata["name"]) > 63:
        raise Fault(422, "Invalid", f"name: Invalid value: {metadata['name']!r}")
    template = thing.get("spec", {}).get("template", {}) if thing["kind"] == "Job" else {}
    for one in (metadata, template.get("metadata", {})):
        for key, value in one.get("labels", {}).items():
            if not LABEL_VALUE.match(value) or len(value) > 63:
                raise Fault(422, "Invalid", f"labels: Invalid value: {key}={value!r}")
    paths = [
        one["mountPath"] for each in template.get("spec", {}).get("containers", ()) for one in each["volumeMounts"]
    ]
    if len(paths) != len(set(paths)):
        raise Fault(422, "Invalid", f"volumeMounts: mountPath: must be unique: {paths}")


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


# -- HTTP


def matches(labels: Json, selector: str) -> bool:
    pairs = (one.split("=", 1) for one in selector.split(",") if one)
    return all(labels.get(key) == value for key, value in pairs)


PATH = re.compile(r"/(?:api/v1|apis/batch/v1)/namespaces/([^/]+)/(\w+)(?:/([^/]+))?(?:/(\w+))?\Z")


def _handler(api: Api) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def do_DELETE(self) -> None:
            self.answer()

        def log_message(self, format: str, *args: object) -> None:
            pass

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            url = urlsplit(self.path)
            query = {key: values[-1] for key, values in parse_qs(url.query).items()}
            api.requests.append((self.command, self.path))
            api.bodies.append(body)
            try:
                if api.is_down:
                    self.hang_up()
                    return
                for rule in api.rules:
                    if rule.meets(self.command, self.path):
                        rule.times -= 1
                        if isinstance(rule.fault, str):
                            self.hang_up()
                            return
                        raise rule.fault
                found = PATH.match(url.path)
                if found is None:
                    raise Fault(404, "NotFound", "the server could not find the requested resource")
                self.authorize(found[2], found[3], found[4], query)
                self.route(found[1], found[2], found[3], found[4], query, body)
            except Fault as fault:
                self.json(fault.body, fault.status)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def hang_up(self) -> None:
            self.close_connection = True
            self.connection.close()

        def authorize(self, kind: str, name: str | None, part: str | None, query: dict[str, str]) -> None:
            read = "get" if name else "watch" if query.get("watch") == "true" else "list"
            verb = {"POST": "create", "DELETE": "delete"}.get(self.command, read)
            thing = f"{kind}/{part}" if part else kind
            if (thing, verb) not in allowed():
                group = "batch" if kind == "jobs" else ""
                message = f'User "u" cannot {verb} resource "{thing}" in API group "{group}"'
                raise Fault(403, "Forbidden", f"{thing} is forbidden: {message}")

        def route(
            self, namespace: str, kind: str, name: str | None, part: str | None, query: dict[str, str], body: Json
        ) -> None:
            if self.command == "POST":
                self.json(api.create(kind, namespace, body), 201)
            elif self.command == "DELETE":
                assert kind == "jobs" and name
                api.delete_job(namespace, name, query.get("propagationPolicy", "Orphan"))
                self.json({"kind": "Status", "status": "Success"})
            elif part == "log":
                assert name
                self.log(namespace, name, query)
            elif name:
                self.json(api.get(kind, namespace, name))
            elif query.get("watch") == "true":
                self.stream(self.watched(namespace, kind, query))
            else:
                self.list(namespace, kind, query)

        def list(self, namespace: str, kind: str, query: dict[str, str]) -> None:
            with api.changed:
                items = [
                    one
                    for (found, where, _), one in api.objects.items()
                    if (found, where) == (kind, namespace)
                    and matches(one["metadata"].get("labels", {}), query.get("labelSelector", ""))
                    and involves(one, query.get("fieldSelector", ""))
                ]
                version = str(api.version)
            self.json({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items})

        def watched(self, namespace: str, kind: str, query: dict[str, str]) -> Iterator[bytes]:
            since = int(query["resourceVersion"])
            if api.expire:
                api.expire -= 1
                gone = Fault(410, "Expired", "The resourceVersion for the provided watch is too old.")
                yield json.dumps({"type": "ERROR", "object": gone.body}).encode() + b"\n"
                return
            until = time.monotonic() + float(query.get("timeoutSeconds", "60"))
            at = 0
            while time.monotonic() < until:
                with api.changed:
                    fresh = api.events[at:]
                    at = len(api.events)
                    if not fresh:
                        api.changed.wait(0.2)
                        yield b""
                        continue
                for version, what, event, thing in fresh:
                    labels = thing["metadata"].get("labels", {})
                    if version > since and what == kind and matches(labels, query.get("labelSelector", "")):
                        yield json.dumps({"type": event, "object": thing}).encode() + b"\n"

        def log(self, namespace: str, name: str, query: dict[str, str]) -> None:
            pod = api.get("pods", namespace, name)
            printed = api.printed[name]
            state = next(iter(pod["status"].get("containerStatuses", ())), {}).get("state", {})
            if "waiting" in state:
                message = f'container "task" in pod "{name}" is waiting to start: {state["waiting"]["reason"]}'
                raise Fault(400, "BadRequest", message)
            assert query["timestamps"] == "true" and query["container"] == "task"
            since = b""
            if "sinceSeconds" in query:
                then = datetime.fromtimestamp(time.time() - int(query["sinceSeconds"]), UTC)
                since = then.strftime("%Y-%m-%dT%H:%M:%S").encode()
            if "tailLines" in query:
                self.text(b"".join(printed.lines[-int(query["tailLines"]) :]))
            else:
                self.stream(self.lines(printed, since, is_followed=query.get("follow") == "true"))

        def lines(self, printed: Printed, since: bytes, *, is_followed: bool) -> Iterator[bytes]:
            cut = api.cuts.pop(0) if api.cuts else None
            at, sent = 0, 0
            while True:
                with printed.changed:
                    fresh = printed.lines[at:]
                    if not fresh:
                        if printed.is_over or not is_followed:
                            return
                        printed.changed.wait(0.2)
                        yield b""
                        continue
                at += len(fresh)
                fresh = [one for one in fresh if one[:19] >= since]
                if cut is not None and sent + len(fresh) > cut:
                    whole, broken = fresh[: cut - sent], fresh[cut - sent]
                    yield b"".join(whole) + broken[: len(broken) // 2]
                    raise ConnectionResetError
                sent += len(fresh)
                for start in range(0, len(fresh), 500):
                    yield b"".join(fresh[start : start + 500])

        def stream(self, chunks: Iterator[bytes]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                for data in chunks:
                    if api.is_down:
                        raise ConnectionResetError
                    if data:
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                        self.wfile.flush()
            except ConnectionResetError:
                self.hang_up()
                return
            self.wfile.write(b"0\r\n\r\n")

        def json(self, body: Json, status: int = 200) -> None:
            self.text(json.dumps(body).encode(), status)

        def text(self, data: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


def involves(thing: Json, selector: str) -> bool:
    involved = thing.get("involvedObject", {})
    pairs = (one.removeprefix("involvedObject.").split("=", 1) for one in selector.split(",") if one)
    return all(involved.get(key) == value for key, value in pairs)
