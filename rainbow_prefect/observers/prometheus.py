"""The metrics backend `prometheus`: to a push gateway, or to files that `rainbow metrics` lets Prometheus scrape."""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from ..run import Metric
from ..server import state_folder
from .metrics import Metrics

NAMES = {
    "JobStarted": ("rainbow_runs_started_total", "counter", "Runs that started."),
    "JobResult": ("rainbow_run_result", "gauge", "1 when the last run completed, else 0."),
    "JobDuration": ("rainbow_run_duration_seconds", "gauge", "How long the last run took."),
    "JobFailed": ("rainbow_runs_failed_total", "counter", "Runs that did not complete."),
    "JobEnded": ("rainbow_run_ended_timestamp_seconds", "gauge", "When the last run ended."),
    "TaskResult": ("rainbow_task_result", "gauge", "1 when the task completed in the last run, else 0."),
    "TaskDuration": ("rainbow_task_duration_seconds", "gauge", "How long the task took in the last run."),
    "TaskSlicesCompleted": ("rainbow_task_slices_completed_total", "counter", "Slices that completed."),
    "TaskSlicesFailed": ("rainbow_task_slices_failed_total", "counter", "Slices that failed."),
    "TaskSlicesRetried": ("rainbow_task_slices_retried_total", "counter", "Attempts after the first one."),
    "TaskRows": ("rainbow_task_rows_total", "counter", "Rows that were written."),
    "TaskBytes": ("rainbow_task_bytes_total", "counter", "Bytes that were moved."),
    "TaskExitCode": ("rainbow_task_exit_code", "gauge", "The highest exit status in the last run."),
    "TaskQueueTime": ("rainbow_task_queue_seconds", "gauge", "The longest that a slice waited in the last run."),
}
"""What our metrics are called in Prometheus, their types and meanings; `deployments/grafana` draws them."""

SECONDS = 5.0


class Prometheus(Metrics):
    """The metrics for Prometheus.

    With `push_gateway` they are pushed there at the end of each run. Without it they are kept on this machine, where
    `rainbow metrics` lets Prometheus scrape those of all runs. Counters grow from run to run in both.
    """

    type: Literal["prometheus"] = "prometheus"
    tasks: bool = Field(default=True, description="Send the metrics of each task, too.")
    push_gateway: str | None = Field(
        default=None, description="The address of a push gateway, e.g. `http://host:9091`."
    )
    job: str = Field(default="rainbow", description="The label `job` in the push gateway.")
    _gathered: list[tuple[Metric, float]] = PrivateAttr(default_factory=list)

    def send(self, metric: Metric, time: float) -> None:
        self._gathered.append((metric, time))

    def flush(self) -> None:
        """Add what was gathered to what this machine knows of the pipeline, and push it.

        Raises:
            OSError, RunError: the folder cannot be written to, or the gateway did not take it.
        """
        if not self._gathered:
            return
        pipeline = self._gathered[0][0].dimensions["ApplicationName"]
        known = _added(pipeline, list(_series(self._gathered)))
        self._gathered.clear()
        if self.push_gateway is not None:
            _push(self.push_gateway, self.job, pipeline, exposition([known]))


def folder() -> Path:
    """Where the metrics of this machine are kept, a file for each pipeline."""
    return state_folder() / "metrics"


def all_known() -> Iterator[dict[str, float]]:
    """What is kept of each pipeline: values by name and labels."""
    for path in sorted(folder().glob("*.json")):
        try:
            yield json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # being written
            continue


def exposition(known: list[dict[str, float]]) -> str:
    """The text format that Prometheus reads.

    Source: prometheus.io/docs/instrumenting/exposition_formats, version 0.0.4.
    """
    lines: dict[str, list[str]] = {}
    for values in known:
        for series, value in values.items():
            lines.setdefault(series.partition("{")[0], []).append(f"{series} {value:.17g}")
    told = {name: (kind, text) for name, kind, text in NAMES.values()}
    parts = [
        "\n".join([f"# HELP {name} {told[name][1]}", f"# TYPE {name} {told[name][0]}", *lines[name]])
        for name in sorted(lines)
        if name in told
    ]
    return "\n".join([*parts, ""])


def _series(gathered: list[tuple[Metric, float]]) -> Iterator[tuple[str, str, float]]:
    """Name with labels, type and value of each metric; and what is made of the result of a run."""
    for metric, time in gathered:
        yield _one(metric, metric.name, metric.value)
        if metric.name == "JobResult":
            yield _one(metric, "JobFailed", 1 - metric.value)
            yield _one(metric, "JobEnded", time)


def _one(metric: Metric, name: str, value: float) -> tuple[str, str, float]:
    shown, kind, _ = NAMES[name]
    labels = {"namespace": metric.namespace, "pipeline": metric.dimensions["ApplicationName"]}
    if "Task" in metric.dimensions:
        labels["task"] = metric.dimensions["Task"]
    written = ",".join(f'{key}="{_escaped(one)}"' for key, one in labels.items())
    return f"{shown}{{{written}}}", kind, value


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _added(pipeline: str, series: list[tuple[str, str, float]]) -> dict[str, float]:
    """What is known of a pipeline with these: counters grow, gauges are replaced. One process at a time does it."""
    made = folder()
    made.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"{re.sub(r'[^A-Za-z0-9_-]', '_', pipeline)}-{hashlib.blake2b(pipeline.encode(), digest_size=4).hexdigest()}"
    with (made / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = made / f"{name}.json"
        known = _read(path)
        for key, kind, value in series:
            known[key] = known.get(key, 0) + value if kind == "counter" else value
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(known), encoding="utf-8")
        fresh.replace(path)
    return known


def _read(path: Path) -> dict[str, float]:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(found) if isinstance(found, Mapping) else {}


def _push(gateway: str, job: str, pipeline: str, text: str) -> None:
    """Source: github.com/prometheus/pushgateway, API: PUT /metrics/job/JOB/LABEL/VALUE replaces the group."""
    from urllib.parse import quote, urlsplit
    from urllib.request import ProxyHandler, Request, build_opener

    address = f"{gateway.rstrip('/')}/metrics/job/{quote(job, safe='')}/pipeline/{quote(pipeline, safe='')}"
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        raise ValueError("push_gateway is not an address of http or https")
    headers = {"Content-Type": "text/plain; version=0.0.4"}
    request = Request(address, text.encode(), headers, method="PUT")  # noqa: S310
    near = [ProxyHandler({})] if parts.hostname in ("127.0.0.1", "localhost", "::1") else []
    with build_opener(*near).open(request, timeout=SECONDS):
        pass
