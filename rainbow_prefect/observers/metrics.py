"""Metrics of a run: JobStarted, JobResult and JobDuration, and the backend `log`; other backends subclass `Metrics`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError

from ..errors import RunError, near
from ..registry import observers
from ..run import Event, Metric
from .base import Observer

if TYPE_CHECKING:
    from ..app import App, Pipeline

logger = logging.getLogger(__name__)


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
    _sent: list[Metric] = PrivateAttr(default_factory=list)
    _warnings: list[str] = PrivateAttr(default_factory=list)

    def send(self, metric: Metric, time: float) -> None:
        """Send one metric of the time `time` (UTC seconds since 1970)."""
        raise TypeError(f"metrics backend '{self.type}' does not implement send()")

    def on_run_started(self, event: Event) -> None:
        self._send(event, JobStarted=1)

    def on_run_finished(self, event: Event) -> None:
        self._send(event, JobResult=int(event.state == "completed"), JobDuration=round(event.seconds))

    def sent(self) -> Sequence[Metric]:
        return tuple(self._sent)

    def warnings(self) -> Sequence[str]:
        return tuple(self._warnings[:1])

    def _send(self, event: Event, **values: float) -> None:
        """Send these; what follows a failure waits for the next event, so that a dead backend costs one time-out."""
        for name, value in values.items():
            metric = Metric(self.namespace, name, value, dimensions={"ApplicationName": event.pipeline})
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
    return [_rendered(one, render) for one in made]


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
