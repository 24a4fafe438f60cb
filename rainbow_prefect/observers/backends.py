"""The metrics backends `statsd`, `otel` and `file`."""

from __future__ import annotations

import fcntl
import json
import re
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from ..errors import MissingExtra
from ..run import Metric
from ..schema import Text
from .metrics import Metrics

SECONDS = 5
"""How long a receiver may take; no run shall wait for one that is away."""


class Statsd(Metrics):
    """The metrics as gauges, by UDP: `shop.sales.load.TaskRows:12|g`."""

    type: Literal["statsd"] = "statsd"
    tasks: bool = Field(default=True, description="Send the metrics of each task, too.")
    host: str = Field(default="127.0.0.1", description="Where statsd listens.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(default=8125, description="Its port.")
    tags: bool = Field(default=False, description="Write pipeline and task as tags of DogStatsD, not into the name.")

    def send(self, metric: Metric, time: float) -> None:
        """One datagram; whether anybody took it is not known."""
        pipeline, task = metric.dimensions["ApplicationName"], metric.dimensions.get("Task")
        parts = [metric.namespace, *([] if self.tags else [pipeline, task]), metric.name]
        name = ".".join(re.sub(r"[^\w-]", "_", one) for one in parts if one)
        words = f"|#pipeline:{pipeline}{f',task:{task}' if task else ''}" if self.tags else ""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.sendto(f"{name}:{metric.value:g}|g{words}".encode(), (self.host, self.port))


class Otel(Metrics):
    """The metrics as gauges of OpenTelemetry, by OTLP over HTTP, once at the end of each run."""

    type: Literal["otel"] = "otel"
    tasks: bool = Field(default=True, description="Send the metrics of each task, too.")
    endpoint: str = Field(default="http://127.0.0.1:4318", description="The collector; `/v1/metrics` is added.")
    headers: dict[str, Text] = Field(default_factory=dict, description="Headers, e.g. of its authorization.")
    _provider: Any = PrivateAttr(default=None)
    _gauges: dict[str, Any] = PrivateAttr(default_factory=dict)

    def send(self, metric: Metric, time: float) -> None:
        """Gather one metric.

        Raises:
            MissingExtra: the SDK of OpenTelemetry is not installed.
        """
        if self._provider is None:
            self._provider = self._connected()
        names = {"namespace": metric.namespace, "pipeline": metric.dimensions["ApplicationName"]}
        if "Task" in metric.dimensions:
            names["task"] = metric.dimensions["Task"]
        if metric.name not in self._gauges:
            self._gauges[metric.name] = self._provider.get_meter("rainbow_prefect").create_gauge(_snake(metric.name))
        self._gauges[metric.name].set(metric.value, names)

    def flush(self) -> None:
        provider, self._provider, self._gauges = self._provider, None, {}
        if provider is not None:
            provider.force_flush(timeout_millis=2 * SECONDS * 1000)
            provider.shutdown(timeout_millis=2 * SECONDS * 1000)

    def _connected(self) -> Any:
        try:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
            from opentelemetry.sdk.metrics import MeterProvider
            from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
            from opentelemetry.sdk.resources import Resource
        except ImportError:
            raise MissingExtra("the metrics backend 'otel'", "otel") from None
        warn = self.warn

        class Exporter(OTLPMetricExporter):
            """Says when the collector did not take them; its own log is nobody's."""

            def export(self, *args: Any, **kwargs: Any) -> MetricExportResult:
                try:
                    result = super().export(*args, **kwargs)
                except Exception as error:
                    warn(f"metrics were not sent to otel: {type(error).__name__}")
                    return MetricExportResult.FAILURE
                if result is not MetricExportResult.SUCCESS:
                    warn("metrics were not sent to otel: the collector did not take them")
                return result

        address = f"{self.endpoint.rstrip('/')}/v1/metrics"
        exporter = Exporter(endpoint=address, headers=dict(self.headers), timeout=SECONDS)
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf"))
        return MeterProvider([reader], Resource.create({"service.name": "rainbow-prefect"}), shutdown_on_exit=False)


def _snake(name: str) -> str:
    """`TaskRows` as `rainbow.task_rows`."""
    return "rainbow." + re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class File(Metrics):
    """The metrics as lines of JSON at the end of a file: time, namespace, name, value, dimensions."""

    type: Literal["file"] = "file"
    tasks: bool = Field(default=True, description="Send the metrics of each task, too.")
    path: str = Field(min_length=1, description="The file, relative to the folder of this one.")
    _root: Path = PrivateAttr(default_factory=Path)

    def below(self, root: Path) -> None:
        self._root = root

    def send(self, metric: Metric, time: float) -> None:
        when = datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"time": when, **{key: one for key, one in metric.as_dict().items() if key != "unit"}})
        path = self._root / Path(self.path).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(f"{line}\n")
