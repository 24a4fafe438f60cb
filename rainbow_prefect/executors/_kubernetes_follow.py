"""Follows the pod of one Job from its creation to its end: its states, its lines, the deadline and the stop of the run."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from ..errors import Cancelled, TaskFailed, TimedOut
from ..run import Run
from . import _kubernetes_api as api
from . import _kubernetes_pod as pods
from ._kubernetes_api import Away, Cluster, Refused
from ._kubernetes_log import Log
from ._kubernetes_pod import Look
from ._lines import Lines

Json = dict[str, Any]

LOOK_SECONDS = 0.2
EVENTS_SECONDS = 3.0
"""How often it is asked why there is no pod yet."""
AWAY_SECONDS = 300.0
"""A running Job is not given up because its API was away for less."""
DRAIN_SECONDS = 60.0
LOST_SECONDS = 5.0
HANG_SECONDS = 10.0
GONE_SECONDS = 30.0
"""How much longer than its own time to stop a pod may take to be gone."""
MAX_PRINTED_BYTES = 4 << 30

_QUEUE = 32


class Pods:
    """Watches the pods of a selector in a thread of its own; tells `("pod", pod)`, `("gone", None)` and errors."""

    def __init__(self, cluster: Cluster, selector: str, tell: Callable[[str, Any], None]) -> None:
        self.closed = threading.Event()
        self._cluster = cluster
        self._selector = selector
        self._tell = tell
        self._stream: api.Stream | None = None
        self._known: set[str] = set()
        threading.Thread(target=self._run, name=f"pods-{selector}", daemon=True).start()

    def close(self) -> None:
        self.closed.set()
        stream = self._stream
        if stream is not None:
            stream.close()

    def _run(self) -> None:
        version = ""
        pause = 0.2
        while not self.closed.is_set():
            try:
                version = version or self._list()
                version = self._watch(version)
                pause = 0.2
            except Away as error:
                self._tell("away", error)
                self.closed.wait(pause)
                pause = min(2 * pause, 5.0)
            except Refused as error:
                if error.status == 410:  # what happened since is forgotten: begin with a new list
                    version = ""
                    continue
                self._tell("refused", error)
                return
            except Exception as error:  # ours, or an answer like none before: whoever waits must know
                self._tell("broken", error)
                return

    def _list(self) -> str:
        found = self._cluster.pods(self._selector)
        self._tell("here", None)
        names = {pod["metadata"]["name"] for pod in found["items"]}
        for pod in found["items"]:
            self._tell("pod", pod)
        if self._known - names:
            self._tell("gone", None)
        self._known = names
        return str(found["metadata"]["resourceVersion"])

    def _watch(self, version: str) -> str:
        """Tell what happens until the watch ends; gives the version to go on from."""
        stream = self._cluster.watch_pods(self._selector, version)
        self._stream = stream
        self._tell("here", None)
        try:
            for event in api.events_of(stream):
                kind, thing = event.get("type"), event.get("object") or {}
                if kind == "ERROR":
                    raise Refused(int(thing.get("code") or 500), str(thing.get("reason")), str(thing.get("message")))
                version = str(thing["metadata"]["resourceVersion"])
                if kind == "DELETED":
                    self._known.discard(thing["metadata"]["name"])
                    self._tell("pod", thing)
                    self._tell("gone", None)
                elif kind != "BOOKMARK":
                    self._known.add(thing["metadata"]["name"])
                    self._tell("pod", thing)
        finally:
            self._stream = None
            stream.close()
        return version


class Follow:
    """The loop around one Job; `until_end` gives what became of its container."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        run: Run,
        lines: Lines,
        *,
        feed: Callable[[bytes], None],
        startup_seconds: float,
        max_lines: int,
        get_logs: bool,
        ended: threading.Event,
    ) -> None:
        self.cluster = cluster
        self.name = name
        self.run = run
        self.lines = lines
        self.pod: Json | None = None
        self.log: Log | None = None
        self._feed = feed
        self._startup_seconds = startup_seconds
        self._max_lines = max_lines
        self._get_logs = get_logs
        self._ended = ended
        self._began = time.monotonic()
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(_QUEUE)
        self._is_closed = threading.Event()
        self._look = Look("waiting")
        self._has_run = False
        self._is_gone = False
        self._away_since: float | None = None
        self._asked_at = self._began
        self._why_no_pod = ""
        self._pods = Pods(cluster, f"batch.kubernetes.io/job-name={name}", self._tell)

    def close(self) -> None:
        """End the threads."""
        self._is_closed.set()
        self._pods.close()
        if self.log is not None:
            self.log.close()

    def until_end(self) -> Look:
        """How the container ended.

        Raises:
            TaskFailed, TimedOut, Cancelled: it did not start, was lost, or was not waited for any longer.
        """
        while not self.has_ended:
            self._take(LOOK_SECONDS)
            self._mind()
        self._drain()
        return self._look

    def until_gone(self, seconds: float) -> bool:
        """Wait until there is no pod any more."""
        until = time.monotonic() + seconds
        while not self._is_gone and self.pod is not None and time.monotonic() < until:
            self._take(LOOK_SECONDS)
        return self._is_gone or self.pod is None

    def _tell(self, kind: str, value: Any) -> None:
        """Called in other threads."""
        while not self._is_closed.is_set():
            try:
                self._queue.put((kind, value), timeout=0.5)
                return
            except queue.Full:
                continue

    def _take(self, seconds: float) -> None:
        try:
            kind, value = self._queue.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return
        match kind:
            case "log":
                self._feed(value)
            case "pod":
                self._see(value)
            case "gone":
                self._is_gone = True
            case "here":
                self._away_since = None
            case "away":
                self._mind_away(value)
            case "broken":
                raise value
            case "refused":
                raise api.failure(value, "the pods cannot be watched", self.cluster)

    def _see(self, pod: Json) -> None:
        self.pod = pod
        look = pods.look(pod)
        self._look = look
        if look.state == "waiting":
            return
        self._has_run = self._has_run or look.state == "running" or look.status is not None
        if self.log is None and self._get_logs and self._has_run and look.reason != "StartError":
            self.log = Log(self.cluster, pod["metadata"]["name"], lambda data: self._tell("log", data))
        if self.log is not None and look.state == "ended":
            self.log.ended.set()

    @property
    def has_ended(self) -> bool:
        """Whether the container has; before it has started it has not."""
        return self._look.state == "ended"

    # -- what may end it

    def _mind(self) -> None:
        if self.has_ended:
            return
        if self._ended.is_set():
            raise Cancelled("the run ended, and its pod was deleted")
        if self._is_gone:
            raise TaskFailed(self._why_gone())
        if self.run.stop.is_set() or self.run.remaining_seconds() == 0:
            raise stopped(self.run, time.monotonic() - self._began, "" if self._has_run else self._waits_for())
        if self.lines.count > self._max_lines:
            raise TaskFailed(
                f"it printed more than {self._max_lines} lines and was ended; print less, or raise `max_lines` of the executor"
            )
        if self.lines.size_bytes > MAX_PRINTED_BYTES:
            raise TaskFailed(
                f"it printed more than {MAX_PRINTED_BYTES >> 30} GiB and was ended; print less, or write to a file instead"
            )
        if not self._has_run:
            self._mind_start()

    def _mind_start(self) -> None:
        if self._look.is_final:
            raise TaskFailed(self._look.why)
        now = time.monotonic()
        if self.pod is None and now - self._asked_at > EVENTS_SECONDS:
            self._asked_at = now
            self._ask_why_no_pod()
        if now - self._began > self._startup_seconds:
            why = self._waits_for() or "nothing tells why"
            raise TaskFailed(
                f"its pod did not start within {self._startup_seconds:g} s (`startup_timeout_seconds` of the executor): {why}"
            )

    def _waits_for(self) -> str:
        return self._look.why or self._why_no_pod

    def _ask_why_no_pod(self) -> None:
        try:
            ended = _failed_condition(self.cluster.job(self.name))
            events = self.cluster.events("Job", self.name)
        except (Away, Refused):  # the watch tells when the API is away; who may not read events learns less
            return
        if ended:
            raise TaskFailed(ended)
        for event in events:
            if event.get("reason") == "FailedCreate":
                text = " ".join(str(event.get("message")).split())
                if "exceeded quota" in text:
                    self._why_no_pod = api.quota(text, self.cluster.namespace)
                else:
                    self._why_no_pod = f"the cluster makes no pod of the Job: {text}"

    def _mind_away(self, error: Away) -> None:
        now = time.monotonic()
        self._away_since = self._away_since or now
        if now - self._away_since > AWAY_SECONDS:
            raise api.failure(error, "the pod cannot be watched", self.cluster)

    def _why_gone(self) -> str:
        try:
            ended = _failed_condition(self.cluster.job(self.name))
        except Refused as error:
            if error.status == 404:
                return "its Job was deleted while it ran; run it again, or give the task `retries`"
            ended = ""
        except Away:
            ended = ""
        return (
            ended
            or "its pod was deleted while it ran (`kubectl delete`, or its node was drained); give the task `retries`"
        )

    def _drain(self) -> None:
        """Read the rest of the log, which may come later than the end of its container."""
        is_lost = self._look.status is None  # with its node, perhaps
        until = time.monotonic() + (LOST_SECONDS if is_lost else DRAIN_SECONDS)
        fed_at = time.monotonic()
        while self.log is not None and time.monotonic() < until:
            if self.log.is_done.is_set() and self._queue.empty():
                return
            before = self.lines.size_bytes
            self._take(LOOK_SECONDS)
            if self.lines.size_bytes != before:
                fed_at = time.monotonic()
                until = fed_at + (LOST_SECONDS if is_lost else DRAIN_SECONDS)
            elif time.monotonic() - fed_at > HANG_SECONDS:
                fed_at = time.monotonic()
                self.log.interrupt()
            if self.run.stop.is_set() or self.run.remaining_seconds() == 0 or self.lines.count > self._max_lines:
                return


def _failed_condition(job: Json) -> str:
    """Why the Job itself failed, `''` when it has not."""
    for one in (job.get("status") or {}).get("conditions") or ():
        if one.get("type") in ("Failed", "FailureTarget") and one.get("status") == "True":
            if one.get("reason") == "DeadlineExceeded":
                seconds = job["spec"].get("activeDeadlineSeconds")
                return (
                    f"the cluster ended the Job after {seconds} s; raise `active_deadline_seconds` of the executor, "
                    "or `timeout_minutes`"
                )
            if one.get("reason") != "BackoffLimitExceeded":
                return f"the Job failed ({one.get('reason')}): {one.get('message')}"
    return ""


def stopped(run: Run, seconds: float, why: str = "") -> TaskFailed:
    """The failure of a slice that is not waited for any longer."""
    waited = f" while it waited to start: {why}" if why else ""
    if run.stop.is_set() and not run.timed_out:
        return Cancelled("cancelled; its pod was deleted")
    return TimedOut(f"timed out after {seconds:.1f} s{waited}; its pod was deleted")
