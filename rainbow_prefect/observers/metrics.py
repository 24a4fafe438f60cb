"""Metrics of a run: JobStarted, JobResult and JobDuration, and the backend `log`; other backends subclass `Metrics`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError

from ..errors import RunError, near
from ..registry import alerts, observers
from ..run import Event, Metric
from .base import Observer

if TYPE_CHECKING:
    from ..app import App, Pipeline

logger = logging.getLogger(__name__)

TASK_METRICS = {
    "TaskSlicesCompleted": "slices_completed",
    "TaskSlicesFailed": "slices_failed",
    "TaskSlicesRetried": "slices_retried",
    "TaskRows": "rows",
    "TaskBytes": "bytes",
    "TaskExitCode": "exit_code",
    "TaskQueueTime": "queue_seconds",
}
"""The metrics of each task beside TaskResult and TaskDuration, with what they are called in `Event.figures`."""


class Metrics(Observer):
    """A metrics backend: the three metrics of every run go through `send`, which a subclass writes.

    Entered as `statsd = "my_package:Statsd"` in the entry points `rainbow_prefect.observers`, it is used by
    `metrics: {namespace: Shop, backends: [statsd]}`:

        class Statsd(Metrics):
            type: Literal["statsd"] = "statsd"

            def send(self, metric: Metric, time: float) -> None:
                line = f"{metric.namespace}.{metric.name}:{metric.value:g}|g"
                socket.socket(type=socket.SOCK_DGRAM).sendto(line.encode(), ("127.0.0.1", 8125))

    What `send` raises becomes one warning of the run, which goes on.

    Source: Rainbow's start and end tasks (job_status_operator.py): JobStarted 1; JobResult 1 or 0; JobDuration in
    whole seconds; the dimension ApplicationName is the pipeline. The last two are sent however the run ends.
    """

    namespace: str = Field(default="", description="The namespace of the metrics.")
    tasks: bool = Field(default=False, description="Send the metrics of each task, too.")
    _sent: list[Metric] = PrivateAttr(default_factory=list)
    _warnings: list[str] = PrivateAttr(default_factory=list)

    def send(self, metric: Metric, time: float) -> None:
        """Send one metric of the time `time` (UTC seconds since 1970)."""
        raise TypeError(f"metrics backend '{self.type}' does not implement send()")

    def flush(self) -> None:
        """Send what was gathered, at the end of the run."""

    def below(self, root: Path) -> None:
        """Told the folder of the file, where relative paths start."""

    def on_run_started(self, event: Event) -> None:
        self._send(event, JobStarted=1)

    def on_task_finished(self, event: Event) -> None:
        if self.tasks:
            given = {name: event.figures[key] for name, key in TASK_METRICS.items() if key in event.figures}
            self._send(event, TaskResult=int(event.state == "completed"), TaskDuration=round(event.seconds, 3), **given)

    def on_run_finished(self, event: Event) -> None:
        self._send(event, JobResult=int(event.state == "completed"), JobDuration=round(event.seconds))
        try:
            self.flush()
        except Exception as error:
            self.warn(f"metrics were not sent to {self.type}: {_told(error)}")

    def sent(self) -> Sequence[Metric]:
        return tuple(self._sent)

    def warnings(self) -> Sequence[str]:
        return tuple(self._warnings[:1])

    def _send(self, event: Event, **values: float) -> None:
        """Send these; what follows a failure waits for the next event, so that a dead backend costs one time-out."""
        task = {"Task": event.task} if event.task is not None else {}
        for name, value in values.items():
            metric = Metric(self.namespace, name, value, dimensions={"ApplicationName": event.pipeline, **task})
            try:
                self.send(metric, event.time)
            except Exception as error:
                self.warn(f"metrics were not sent to {self.type}: {_told(error)}")
                return
            self._sent.append(metric)

    def warn(self, text: str) -> None:
        """Tell the person who started the run; only the first text of a run is told."""
        if not self._warnings:
            logger.debug(text)
        self._warnings.append(text)


class Log(Metrics):
    """The metrics as lines of the log."""

    type: Literal["log"] = "log"

    def send(self, metric: Metric, time: float) -> None:
        names = ", ".join(f"{name}={value}" for name, value in metric.dimensions.items())
        logger.info("metric %s %s=%g (%s)", metric.namespace or "-", metric.name, metric.value, names)


class Unusable(Observer):
    """Stands for a backend that cannot be used: the run goes on with one warning."""

    type: str = "unusable"
    message: str

    def warnings(self) -> Sequence[str]:
        return (self.message,)


def observers_of(
    app: App, pipeline: Pipeline, render: Callable[[Any], Any] = lambda observer: observer
) -> list[Observer]:
    """Fresh observers for one run: the metrics backends of the pipeline, else of the app, all `observers`, all `alerts`.

    `render` puts secrets into their fields (`Secrets.render`); what it raises becomes a warning of the run.
    """
    made: list[Observer] = []
    for metrics in _sections(pipeline) or _sections(app):
        namespace = str(_field(metrics, "namespace") or "")
        made += [_backend(one, namespace) for one in _field(metrics, "backends") or ()]
    for declared in (getattr(app, "observers", ()), getattr(pipeline, "observers", ())):
        made += [_fresh(one) for one in declared or ()]
    made += _alerts(app, pipeline)
    made += monitoring_of(app, pipeline)
    for one in made:
        if isinstance(one, Metrics) and hasattr(app, "root"):
            one.below(app.root)
    return [_rendered(one, render) for one in made]


def monitoring_of(app: App, pipeline: Pipeline) -> Iterator[Observer]:
    """What the section `monitoring` of the predecessor asks for: that of the pipeline, else that of the file.

    A backend of type `aws_cloudwatch` is `cloudwatch`; an alerts backend of that type tells SNS: `alarm_actions` of
    failures, `ok_actions` of recoveries. Any other type is one of ours.

    Source: docs/liminal/monitoring.md of Apache Liminal, which no code of it read.
    """
    section = getattr(pipeline, "monitoring", None) or getattr(app, "monitoring", None)
    if section is None:
        return
    for entry in section.metrics_backends:
        yield _backend(_metrics_backend(entry), "")
    for number, entry in enumerate([*section.alerts_backends, *section.alerts]):
        for data in _alert_entries(entry):
            yield _alert(data, f"monitoring-{number}-{data.get('on')}")


def _metrics_backend(entry: Mapping[str, Any]) -> dict[str, Any]:
    data = {key: one for key, one in entry.items() if key not in ("metrics_backend", "AWS_REGION_NAME")}
    if data.get("type") == "aws_cloudwatch":
        data["type"] = "cloudwatch"
        data |= {"region": entry["AWS_REGION_NAME"]} if entry.get("AWS_REGION_NAME") else {}
    return data


def _alert_entries(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The alerts that one entry stands for."""
    if entry.get("type") != "aws_cloudwatch":
        yield {key: one for key, one in entry.items() if key not in ("alerts_backend", "metrics_backend")}
        return
    region = {"region": entry["AWS_REGION_NAME"]} if entry.get("AWS_REGION_NAME") else {}
    for key, occasions in (("alarm_actions", ["failure", "timeout", "crash"]), ("ok_actions", ["recovery"])):
        for arn in entry.get(key) or ():
            yield {"type": "sns", "topic_arn": arn, "on": occasions, **region}


def _alert(data: Mapping[str, Any], identity: str) -> Observer:
    name = str(data.get("type"))
    if name not in alerts:
        return Unusable(message=f"alerts were not sent to {name}: there is no such type; {near(name, alerts)}")
    try:
        made: Observer = alerts[name].model_validate(data).told_as(identity)
    except (ImportError, ValidationError) as error:
        return Unusable(message=f"alerts were not sent to {name}: {_told(error)}")
    return made


def _alerts(app: App, pipeline: Pipeline) -> Iterator[Observer]:
    """The alerts of the file and the pipeline, those of the pipeline in place of those of the same name; and of tasks."""
    own = getattr(pipeline, "alerts", ())
    names = {one.alert for one in own if one.alert}
    of_file = [one for one in getattr(app, "alerts", ()) if one.alert not in names]
    for index, one in enumerate([*of_file, *own]):
        yield one.told_as(one.alert or f"{one.type}-{index}")
    for task in getattr(pipeline, "tasks", ()):
        for index, one in enumerate(getattr(task, "alerts", ())):
            yield one.told_as(one.alert or f"{one.type}-{index}", task.task)


def _rendered(observer: Observer, render: Callable[[Any], Any]) -> Observer:
    try:
        rendered: Observer = render(observer)
    except RunError as error:
        return Unusable(message=f"observer '{observer.type}' was not told: {error}")
    return rendered


def _sections(owner: Any) -> list[Any]:
    metrics = getattr(owner, "metrics", None)
    if metrics is None:
        return []
    return list(metrics) if isinstance(metrics, list | tuple) else [metrics]


def _field(section: Any, name: str) -> Any:
    return section.get(name) if isinstance(section, Mapping) else getattr(section, name, None)


def _backend(named: Any, namespace: str) -> Observer:
    if isinstance(named, Observer):
        return _fresh(named)
    data = dict(named) if isinstance(named, Mapping) else {"type": str(named)}
    name = str(data.get("type"))
    if name not in observers:
        return Unusable(message=f"metrics were not sent to {name}: there is no such backend; {near(name, observers)}")
    try:
        kind = observers[name]
        if "namespace" in kind.model_fields:
            data.setdefault("namespace", namespace)
        made: Observer = kind.model_validate(data)
    except (ImportError, ValidationError) as error:
        return Unusable(message=f"metrics were not sent to {name}: {_told(error)}")
    return made


def _fresh(declared: Observer) -> Observer:
    """A copy that has seen no run yet."""
    return type(declared).model_validate({name: getattr(declared, name) for name in declared.model_fields_set})


def _told(error: Exception) -> str:
    return next(_lines(error), type(error).__name__)[:300]


def _lines(error: Exception) -> Iterator[str]:
    if isinstance(error, ValidationError):
        for one in error.errors():
            yield f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
    yield from (line for line in str(error).splitlines() if line.strip())
