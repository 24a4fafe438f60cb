"""One namespace of a cluster through the official client: objects as plain data, errors that say what to do."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..errors import MissingExtra, TaskFailed

Json = dict[str, Any]
T = TypeVar("T")

CONNECT_SECONDS = 10
ANSWER_SECONDS = 30
WATCH_SECONDS = 45
"""A watch is asked anew so often: a connection that died without a word is noticed."""
LOG_SECONDS = 3600
CHUNK_BYTES = 1 << 16
MAX_LINE_BYTES = 1 << 20
TRIES_SECONDS = 30.0

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_VERB = re.compile(r"cannot (?P<verb>\w+) resource \"(?P<what>[^\"]+)\" in API group \"(?P<group>[^\"]*)\"")
_NO_ADDRESS = re.compile(r"^HTTPS?ConnectionPool\(.*?\): ")


class Refused(Exception):
    """The API answered with an error; `message` is its own text."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status = status
        self.reason = reason
        self.message = message
        super().__init__(f"{status} {reason}: {message}")


class Away(Exception):
    """The API did not answer, or could not at the moment: asking again may help."""


class Stream:
    """An answer that comes bit by bit; `close` ends it from any thread."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        """The bytes as they come; raises Away when the connection breaks."""
        with _told():
            yield from self._answer.stream(CHUNK_BYTES, decode_content=True)

    def close(self) -> None:
        """End it; a thread that reads it gets no more."""
        with contextlib.suppress(Exception):  # closed or broken already
            self._answer.shutdown()
        with contextlib.suppress(Exception):
            self._answer.close()


class Cluster:
    """What the executor asks of one namespace."""

    def __init__(self, api: Any, namespace: str) -> None:
        from kubernetes import client

        self._batch = client.BatchV1Api(api)
        self._core = client.CoreV1Api(api)
        self.namespace = namespace
        self.host = str(api.configuration.host)

    def create_job(self, job: Json) -> Json:
        """The Job as the cluster has it; one that is there already is that of an answer that was lost."""
        try:
            return self._json(self._batch.create_namespaced_job, self.namespace, job)
        except Refused as error:
            if error.status == 409:
                return self.job(job["metadata"]["name"])
            raise

    def job(self, name: str) -> Json:
        return self._json(self._batch.read_namespaced_job, name, self.namespace)

    def jobs(self, selector: str) -> list[Json]:
        return list(self._json(self._batch.list_namespaced_job, self.namespace, label_selector=selector)["items"])

    def delete_job(self, name: str, *, propagation: str, grace_seconds: int | None = None) -> None:
        """Delete a Job with all that belongs to it; one that is not there is no error."""
        with _unless_missing():
            self._json(
                self._batch.delete_namespaced_job,
                name,
                self.namespace,
                propagation_policy=propagation,
                **({} if grace_seconds is None else {"grace_period_seconds": grace_seconds}),
            )

    def create_secret(self, secret: Json) -> None:
        try:
            self._json(self._core.create_namespaced_secret, self.namespace, secret)
        except Refused as error:
            if error.status != 409:
                raise

    def pods(self, selector: str) -> Json:
        """The list, with the version from which it can be watched."""
        return self._json(self._core.list_namespaced_pod, self.namespace, label_selector=selector)

    def watch_pods(self, selector: str, version: str) -> Stream:
        return self._stream(
            self._core.list_namespaced_pod,
            self.namespace,
            label_selector=selector,
            resource_version=version,
            allow_watch_bookmarks=True,
            watch=True,
            timeout_seconds=WATCH_SECONDS,
            read_seconds=WATCH_SECONDS + 15,
        )

    def log(self, pod: str, container: str, *, follow: bool, since_seconds: int | None) -> Stream:
        """What a container printed, each line with its time before it."""
        return self._stream(
            self._core.read_namespaced_pod_log,
            pod,
            self.namespace,
            container=container,
            follow=follow,
            timestamps=True,
            read_seconds=LOG_SECONDS,
            **({} if since_seconds is None else {"since_seconds": since_seconds}),
        )

    def last_line(self, pod: str, container: str) -> bytes:
        """The last line that a container printed, with its time; empty when there is none."""
        options: Json = {"container": container, "timestamps": True, "tail_lines": 1}
        return self._bytes(self._core.read_namespaced_pod_log, pod, self.namespace, **options)

    def events(self, kind: str, name: str) -> list[Json]:
        """What the cluster tells of an object."""
        selector = f"involvedObject.kind={kind},involvedObject.name={name}"
        return list(self._json(self._core.list_namespaced_event, self.namespace, field_selector=selector)["items"])

    def _json(self, call: Callable[..., Any], *args: Any, **options: Any) -> Json:
        data = self._bytes(call, *args, **options)
        try:
            found: Json = json.loads(data)
        except ValueError:
            raise Away("its answer is not JSON") from None
        return found

    def _bytes(self, call: Callable[..., Any], *args: Any, **options: Any) -> bytes:
        with _told():
            answer = call(*args, **options, _preload_content=False, _request_timeout=(CONNECT_SECONDS, ANSWER_SECONDS))
            data: bytes = answer.data
            answer.release_conn()
            return data

    def _stream(self, call: Callable[..., Any], *args: Any, read_seconds: float, **options: Any) -> Stream:
        with _told():
            timeout = (CONNECT_SECONDS, read_seconds)
            return Stream(call(*args, **options, _preload_content=False, _request_timeout=timeout))


@contextlib.contextmanager
def _unless_missing() -> Iterator[None]:
    try:
        yield
    except Refused as error:
        if error.status != 404:
            raise


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Errors of the client as `Refused` and `Away`."""
    import urllib3
    from kubernetes.client.exceptions import ApiException, OpenApiException

    try:
        yield
    except ApiException as error:
        if not error.status:
            raise Away(str(error.reason or error)[:500]) from error
        refused = _refused(error)
        if refused.status == 429 or refused.status >= 500:
            raise Away(f"it answered {refused.status}: {refused.message}") from error
        raise refused from error
    except urllib3.exceptions.HTTPError as error:
        raise Away(_reason(error)) from error
    except OpenApiException as error:
        raise Refused(400, "BadRequest", str(error)[:500]) from error
    except Exception as error:  # a stream that another thread closed, a login program that failed
        raise Away(f"{type(error).__name__}: {error}"[:500]) from error


def _refused(error: Any) -> Refused:
    try:
        status = json.loads(error.body)
        return Refused(int(error.status), str(status.get("reason", "")), str(status.get("message", ""))[:2000])
    except (TypeError, ValueError, AttributeError):
        text = error.body if isinstance(error.body, str) else ""
        return Refused(int(error.status), str(error.reason or ""), " ".join(text.split())[:300])


def _reason(error: Exception) -> str:
    """`Connection refused`, not the address of a Python object."""
    cause: Any = getattr(error, "reason", None) or error
    inner = cause.args[-1] if getattr(cause, "args", None) else cause
    text = getattr(inner, "strerror", None) or str(inner)
    if "CERTIFICATE" in text.upper():
        return f"its certificate is not trusted ({text})"
    found = re.search(r"\[Errno -?\d+\] ([^')]+)", text)
    return found[1] if found else _NO_ADDRESS.sub("", text)[:300]


# -- connecting

_lock = threading.Lock()
_clusters: dict[tuple[Any, ...], Cluster] = {}


def connect(*, kubeconfig: Path | None, context: str | None, in_cluster: bool | None, namespace: str | None) -> Cluster:
    """The namespace of a cluster; connections are shared by all slices of this process.

    Raises:
        TaskFailed: there is no cluster to talk to, or no client.
    """
    key = (os.getpid(), kubeconfig, context, in_cluster, namespace, os.environ.get("KUBECONFIG"))
    with _lock:
        if key not in _clusters:
            _clusters[key] = _connect(kubeconfig, context, in_cluster, namespace)
        return _clusters[key]


def _connect(kubeconfig: Path | None, context: str | None, in_cluster: bool | None, namespace: str | None) -> Cluster:
    try:
        from kubernetes import client
        from kubernetes import config as untyped
    except ImportError:
        raise TaskFailed(str(MissingExtra("the executor 'kubernetes'", "kubernetes"))) from None
    config: Any = untyped
    settings = client.Configuration()
    settings.retries = False  # asking again is done here, where a stop is heeded
    with contextlib.suppress(AttributeError):
        settings.socket_options = _keep_alive()
    settings.connection_pool_maxsize = 64
    found = ""
    try:
        if in_cluster or (in_cluster is None and kubeconfig is None and context is None and not _has_kubeconfig()):
            config.load_incluster_config(client_configuration=settings)
            found = _NAMESPACE_FILE.read_text().strip() if _NAMESPACE_FILE.exists() else ""
        else:
            file = str(
                kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
            )  # the client's own is of its import
            config.load_kube_config(file, context=context, client_configuration=settings)
            found = _context_namespace(config, file, context)
    except config.ConfigException as error:
        raise TaskFailed(_no_cluster(str(error), kubeconfig, context)) from error
    except Exception as error:  # YAML errors, missing certificate files, a login program that fails
        raise TaskFailed(_no_cluster(f"{type(error).__name__}: {error}", kubeconfig, context)) from error
    return Cluster(client.ApiClient(settings), namespace or found or "default")


def _has_kubeconfig() -> bool:
    written = os.environ.get("KUBECONFIG")
    paths = written.split(os.pathsep) if written else ["~/.kube/config"]
    return any(Path(one).expanduser().exists() for one in paths if one)


def _context_namespace(config: Any, file: str | None, context: str | None) -> str:
    contexts, active = config.list_kube_config_contexts(config_file=file)
    chosen = next((one for one in contexts if one["name"] == context), None) if context else active
    return str((chosen or {}).get("context", {}).get("namespace") or "")


def _no_cluster(reason: str, kubeconfig: Path | None, context: str | None) -> str:
    text = " ".join(reason.split())[:500]
    named = f" and its context '{context}'" if context else ""
    where = f"the kubeconfig {kubeconfig or ''}".rstrip() + f"{named} cannot be loaded"
    if kubeconfig is None and context is None and not _has_kubeconfig():
        where = "there is no kubeconfig, and this is no pod of a cluster"
    return (
        f"no Kubernetes cluster can be used: {where}: {text.rstrip('.')}; set `kubeconfig` and `context` of the executor, "
        "or KUBECONFIG"
    )


def _keep_alive() -> list[tuple[int, int, int]]:
    """A peer that vanished is noticed within a minute, however quiet the stream."""
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


# -- asking again, and telling


def again(call: Callable[[], T], *, stop: threading.Event) -> T:
    """What `call` gives, asked again for half a minute while the API is away and nobody stops it."""
    until = time.monotonic() + TRIES_SECONDS
    pause = 0.2
    while True:
        try:
            return call()
        except Away:
            if time.monotonic() + pause > until or stop.wait(pause):
                raise
            pause = min(2 * pause, 5.0)


def failure(error: Refused | Away, what: str, cluster: Cluster) -> TaskFailed:
    """Why `what` ("the Job cannot be created") is so, and what to do."""
    if isinstance(error, Away):
        return TaskFailed(
            f"{what}: the Kubernetes API at {cluster.host} cannot be reached: {error}; "
            "see that it is up, and reachable from where the flow runs"
        )
    return TaskFailed(f"{what}: {_advice(error, cluster.namespace)}")


def _advice(error: Refused, namespace: str) -> str:
    text = error.message or error.reason
    if error.status == 401:
        return "the cluster does not accept the credentials (401); log in again, or renew the token of the kubeconfig"
    if error.status == 403 and "exceeded quota" in text:
        return quota(text, namespace)
    if error.status == 403 and (found := _VERB.search(text)):
        return (
            f"this account may not {found['verb']} {found['what']} in namespace '{namespace}' (403): {text}; "
            "give it the role of docs/kubernetes.md"
        )
    if error.status == 403:
        return f"the cluster forbids it (403): {text}"
    if error.status == 404:
        return f"there is no such thing (404): {text}; correct `namespace` of the executor, or make it"
    if error.status in (400, 413, 422):
        return (
            f"the cluster finds it wrong ({error.status}): {text}; correct the fields of the executor or `pod_template`"
        )
    return f"the cluster answered {error.status}: {text}"


def quota(text: str, namespace: str) -> str:
    """What to do about a quota."""
    return (
        f"the quota of namespace '{namespace}' is used up: {text[text.find('exceeded quota') :]}; wait until other pods "
        "have ended, ask for less by `request_cpu` and `request_memory`, or have the quota raised"
    )


def events_of(stream: Stream) -> Iterator[Mapping[str, Any]]:
    """The events of a watch, one JSON text a line."""
    rest = b""
    for data in stream:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError:
                    raise Away("a watch sent what is not JSON") from None
