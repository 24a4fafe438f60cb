"""The metrics backends `prometheus`, `statsd`, `otel` and `file`, the section `monitoring`, the metrics of tasks."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rainbow_prefect.app import Monitoring
from rainbow_prefect.observers.alerts import Alert
from rainbow_prefect.observers.backends import File, Otel, Statsd
from rainbow_prefect.observers.base import Observer
from rainbow_prefect.observers.cloudwatch import CloudWatch
from rainbow_prefect.observers.metrics import TASK_METRICS, Log, observers_of
from rainbow_prefect.observers.prometheus import NAMES, Prometheus, all_known, exposition
from rainbow_prefect.run import FIGURES, Event
from tests.conftest import RAINBOW, ROOT, Project, Rainbow
from tests.receivers import datagrams, receiver, wait_for

NUMBERS = {name: float(number) for number, name in enumerate(FIGURES, start=1)}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    return tmp_path


def event(kind: Any, **more: Any) -> Event:
    return Event(kind, **{"time": 1_700_000_000.5, "app": "shop", "pipeline": "sales", "run_id": "run-1", **more})


def run(observer: Observer, state: str = "completed") -> list[str]:
    """A run with one task; what was sent, without the values."""
    observer.on_event(event("run_started"))
    observer.on_event(event("task_finished", task="load", state=state, seconds=1.25, figures=NUMBERS))
    observer.on_event(event("run_finished", state=state, seconds=2.6))
    assert observer.warnings() == ()
    return [one.name for one in observer.sent()]


def test_metrics_of_tasks_are_sent_when_asked_for() -> None:
    assert run(Log()) == ["JobStarted", "JobResult", "JobDuration"]
    assert run(Log(tasks=True)) == [
        "JobStarted",
        "TaskResult",
        "TaskDuration",
        *TASK_METRICS,
        "JobResult",
        "JobDuration",
    ]


def test_every_figure_has_a_metric_and_every_metric_a_name_in_prometheus() -> None:
    assert tuple(TASK_METRICS.values()) == FIGURES
    assert {"TaskResult", "TaskDuration", *TASK_METRICS, "JobStarted", "JobResult", "JobDuration"} <= set(NAMES)


def test_statsd_is_sent_gauges() -> None:
    with datagrams() as (port, got):
        run(Statsd(port=port, namespace="Shop"))
        run(Statsd(port=port, tags=True))
        wait_for(lambda: len(got) == 24)

    assert got[0] == "Shop.sales.JobStarted:1|g"
    assert "Shop.sales.load.TaskRows:4|g" in got
    assert "TaskRows:4|g|#pipeline:sales,task:load" in got


def test_a_file_gets_lines_of_json(tmp_path: Path) -> None:
    backend = File(path="out/metrics.jsonl", namespace="Shop")
    backend.below(tmp_path)

    run(backend)

    lines = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "time": "2023-11-14T22:13:20.500Z",
        "namespace": "Shop",
        "name": "JobStarted",
        "value": 1,
        "dimensions": {"ApplicationName": "sales"},
    }
    assert [one["value"] for one in lines if one["name"] == "TaskQueueTime"] == [7]


def test_otel_is_sent_once_at_the_end_of_a_run() -> None:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    with receiver() as collector:
        run(Otel(endpoint=collector.url, namespace="Shop"))

    (got,) = collector.got
    request = ExportMetricsServiceRequest()
    body = got.body
    if got.headers.get("content-encoding") == "gzip":
        import gzip

        body = gzip.decompress(body)
    request.ParseFromString(body)
    (scope,) = request.resource_metrics[0].scope_metrics
    rows = next(one for one in scope.metrics if one.name == "rainbow.task_rows").gauge.data_points[0]
    assert got.path == "/v1/metrics"
    assert len(scope.metrics) == 12
    assert rows.as_double == 4
    assert {one.key: one.value.string_value for one in rows.attributes} == {
        "namespace": "Shop",
        "pipeline": "sales",
        "task": "load",
    }


def test_a_collector_that_is_away_is_a_warning() -> None:
    with receiver([400]) as collector:
        backend = Otel(endpoint=collector.url)
        backend.on_event(event("run_started"))
        backend.on_event(event("run_finished", state="completed"))

    assert backend.warnings() == ("metrics were not sent to otel: the collector did not take them",)


def test_prometheus_counts_over_runs() -> None:
    run(Prometheus(namespace="Shop"))
    run(Prometheus(namespace="Shop"), "failed")

    text = exposition(list(all_known()))
    labels = 'namespace="Shop",pipeline="sales"'
    assert f"rainbow_runs_started_total{{{labels}}} 2\n" in text
    assert f"rainbow_runs_failed_total{{{labels}}} 1\n" in text
    assert f"rainbow_run_result{{{labels}}} 0\n" in text
    assert f'rainbow_task_rows_total{{{labels},task="load"}} 8\n' in text
    assert "# TYPE rainbow_task_rows_total counter\n" in text


def test_prometheus_can_read_what_we_write() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    run(Prometheus(namespace='a"b\\c\nd'))

    families = {one.name: one for one in text_string_to_metric_families(exposition(list(all_known())))}
    assert {f"{one.name}_total" if one.type == "counter" else one.name for one in families.values()} == {
        name for name, _, _ in NAMES.values()
    }
    assert families["rainbow_run_duration_seconds"].samples[0].labels == {"namespace": 'a"b\\c\nd', "pipeline": "sales"}
    assert families["rainbow_run_duration_seconds"].samples[0].value == 3


def test_a_push_gateway_is_given_all_at_the_end() -> None:
    with receiver() as gateway:
        run(Prometheus(push_gateway=gateway.url, job="night ly"))

    (got,) = gateway.got
    assert got.path == "/metrics/job/night%20ly/pipeline/sales"
    assert b'rainbow_task_exit_code{namespace="",pipeline="sales",task="load"} 6\n' in got.body


def test_a_push_gateway_that_is_away_is_a_warning() -> None:
    with receiver([500]) as gateway:
        backend = Prometheus(push_gateway=gateway.url)
        backend.on_event(event("run_started"))
        backend.on_event(event("run_finished", state="completed"))

    assert backend.warnings() == ("metrics were not sent to prometheus: HTTP Error 500: Internal Server Error",)


@pytest.fixture
def scraped(home: Path) -> Iterator[str]:
    """The address of a `rainbow metrics` that runs."""
    child = subprocess.Popen([RAINBOW, "metrics", "--port", "0"], stderr=subprocess.PIPE, text=True)
    try:
        assert child.stderr is not None
        yield child.stderr.readline().rpartition(" ")[2].strip()
    finally:
        child.terminate()
        child.communicate()


def test_prometheus_scrapes_what_runs_leave(scraped: str) -> None:
    run(Prometheus())

    with urllib.request.urlopen(scraped, timeout=30) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert 'rainbow_runs_started_total{namespace="",pipeline="sales"} 1\n' in answer.read().decode()


def test_a_real_run_leaves_metrics(rainbow: Rainbow, project: Project, prefect_server: str) -> None:
    folder = project(
        {
            "rainbow.yml": """
            name: shop
            metrics: {namespace: Shop, backends: [prometheus, {type: file, path: m.jsonl}]}
            pipelines:
              - pipeline: metered
                tasks:
                  - {task: load, type: python, cmd: "exit $((RAINBOW_ATTEMPT < 2))", retries: 1, executors: 2}
            """
        }
    )

    rainbow("run", "-q", cwd=folder)

    printed = rainbow("metrics").out
    labels = 'namespace="Shop",pipeline="metered",task="load"'
    assert f"rainbow_task_slices_completed_total{{{labels}}} 2\n" in printed
    assert f"rainbow_task_slices_retried_total{{{labels}}} 2\n" in printed
    lines = [json.loads(line) for line in (folder / "m.jsonl").read_text().splitlines()]
    waited = next(one["value"] for one in lines if one["name"] == "TaskQueueTime")
    assert 0 < waited < 60


def test_the_dashboard_draws_metrics_that_exist() -> None:
    board = json.loads((ROOT / "deployments/grafana/rainbow.json").read_text())

    asked = [one["expr"] for panel in board["panels"] for one in panel["targets"]]
    drawn = set(re.findall(r"rainbow_\w+", " ".join(asked)))
    assert drawn == {name for name, _, _ in NAMES.values()}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


# -- the section of the predecessor


def made(**monitoring: Any) -> list[Observer]:
    return observers_of(SimpleNamespace(monitoring=Monitoring(**monitoring)), SimpleNamespace())  # type: ignore[arg-type]


def test_monitoring_of_the_predecessor_sends_metrics_and_alerts() -> None:
    observers = made(
        metrics_backends=(
            {"metrics_backend": "m", "type": "aws_cloudwatch", "namespace": "Data", "AWS_REGION_NAME": "eu-west-1"},
        ),
        alerts_backends=(
            {
                "alerts_backend": "a",
                "type": "aws_cloudwatch",
                "metrics_backend": "m",
                "ok_actions": ["arn:aws:sns:eu-west-1:1:ok"],
                "alarm_actions": ["arn:aws:sns:eu-west-1:1:bad"],
            },
        ),
        alerts=({"alert": "hook", "type": "webhook", "url": "http://127.0.0.1:1/"},),
    )

    assert observers[0] == CloudWatch(namespace="Data", region="eu-west-1")
    assert [(one.type, one.on, getattr(one, "topic_arn", None)) for one in observers[1:] if isinstance(one, Alert)] == [
        ("sns", ("failure", "timeout", "crash"), "arn:aws:sns:eu-west-1:1:bad"),
        ("sns", ("recovery",), "arn:aws:sns:eu-west-1:1:ok"),
        ("webhook", ("failure", "timeout", "crash", "recovery"), None),
    ]


def test_monitoring_that_cannot_be_used_is_a_warning() -> None:
    (one,) = made(alerts_backends=({"type": "pager"},))

    assert one.warnings() == ("alerts were not sent to pager: there is no such type; did you mean 'pagerduty'?",)


def test_monitoring_of_the_predecessor_reaches_aws(
    rainbow: Rainbow, project: Project, prefect_server: str, aws: str
) -> None:
    import boto3

    sns, sqs, watch = (
        boto3.client(name, endpoint_url=aws, region_name="eu-west-1") for name in ("sns", "sqs", "cloudwatch")
    )
    topic = sns.create_topic(Name="alarms")["TopicArn"]
    queue = sqs.create_queue(QueueName="alarms")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    folder = project(
        {
            "rainbow.yml": f"""
            name: shop
            monitoring:
              metrics_backends: [{{metrics_backend: m, type: aws_cloudwatch, namespace: Data, AWS_REGION_NAME: eu-west-1}}]
              alerts_backends: [{{alerts_backend: a, type: aws_cloudwatch, metrics_backend: m, alarm_actions: ["{topic}"]}}]
            pipelines:
              - {{pipeline: monitored, tasks: [{{task: load, type: python, cmd: exit 3}}]}}
            """
        }
    )

    done = rainbow("run", "-q", "--json", cwd=folder, code=1)

    assert done.json["warnings"] == []
    body = json.loads(sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=10)["Messages"][0]["Body"])
    assert body["Subject"] == "monitored failed"
    names = {one["MetricName"] for one in watch.list_metrics(Namespace="Data")["Metrics"]}
    assert names == {"JobStarted", "JobResult", "JobDuration"}
