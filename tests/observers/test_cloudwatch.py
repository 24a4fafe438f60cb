"""CloudWatch metrics against moto's HTTP server, and how little it costs when AWS is not there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from rainbow_prefect.observers.cloudwatch import CloudWatch
from rainbow_prefect.run import Event
from tests.conftest import free_port


@pytest.fixture(autouse=True)
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in list(os.environ):
        if name.startswith("AWS_") and name != "AWS_EC2_METADATA_DISABLED":
            monkeypatch.delenv(name)


def run(observer: CloudWatch, state: str = "completed", at: float = 0.0) -> list[tuple[str, float]]:
    at = at or time.time()
    observer.on_event(Event("run_started", at, "app", "sales", "run-1"))
    observer.on_event(Event("run_finished", at, "app", "sales", "run-1", state=state, seconds=61.4))
    return [(one.name, one.value) for one in observer.sent()]


def test_metrics_arrive(aws: str) -> None:
    import boto3

    at = time.time()

    assert run(CloudWatch(namespace="Shop"), "failed", at) == [("JobStarted", 1), ("JobResult", 0), ("JobDuration", 61)]

    client = boto3.client("cloudwatch")
    found = client.get_metric_data(
        StartTime=datetime.fromtimestamp(at - 120, UTC),
        EndTime=datetime.fromtimestamp(at + 120, UTC),
        MetricDataQueries=[
            {
                "Id": name.lower(),
                "MetricStat": {
                    "Metric": {
                        "Namespace": "Shop",
                        "MetricName": name,
                        "Dimensions": [{"Name": "ApplicationName", "Value": "sales"}],
                    },
                    "Period": 60,
                    "Stat": "Sum",
                },
            }
            for name in ("JobStarted", "JobResult", "JobDuration")
        ],
    )["MetricDataResults"]
    assert {one["Id"]: one["Values"] for one in found} == {"jobstarted": [1], "jobresult": [0], "jobduration": [61]}


def test_sent_metrics_leave_no_warning(aws: str) -> None:
    observer = CloudWatch(namespace="Shop")

    run(observer)

    assert observer.warnings() == ()


def test_the_region_may_be_in_the_yaml(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")

    assert len(run(CloudWatch(namespace="Shop", region="us-east-2"))) == 3


def test_the_newer_region_variable_counts(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "us-east-2")

    assert len(run(CloudWatch(namespace="Shop"))) == 3


def test_without_aws_settings_there_is_one_warning_at_once() -> None:
    observer = CloudWatch(namespace="Shop")
    began = time.monotonic()

    assert run(observer) == []

    assert time.monotonic() - began < 0.2
    assert observer.warnings() == (
        "metrics were not sent to cloudwatch: no AWS settings found; "
        "set AWS_DEFAULT_REGION and credentials (aws configure)",
    )


def test_without_aws_settings_boto3_is_not_imported(tmp_path: Any) -> None:
    code = (
        "import sys; from rainbow_prefect.observers.cloudwatch import CloudWatch; from rainbow_prefect.run import Event\n"
        "CloudWatch(namespace='S').on_event(Event('run_started', 0.0, 'a', 'p', 'r'))\n"
        "sys.exit('boto3' in sys.modules or 'prefect' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ)).returncode == 0


def test_a_region_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    observer = CloudWatch(namespace="Shop")

    run(observer)

    assert observer.warnings() == (
        "metrics were not sent to cloudwatch: no AWS credentials found; "
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (aws configure)",
    )


def test_credentials_without_a_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    observer = CloudWatch(namespace="Shop")

    run(observer)

    assert observer.warnings() == ("metrics were not sent to cloudwatch: no AWS region found; set AWS_DEFAULT_REGION",)


def test_no_namespace() -> None:
    observer = CloudWatch()

    run(observer)

    assert observer.warnings() == (
        "metrics were not sent to cloudwatch: metrics.namespace is empty; CloudWatch needs one",
    )


def test_boto3_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setitem(sys.modules, "boto3", None)
    observer = CloudWatch(namespace="Shop")

    run(observer)

    assert observer.warnings() == (
        "metrics were not sent to cloudwatch: the metrics backend 'cloudwatch' needs the extra 'aws'; "
        "install it: pip install 'rainbow-prefect[aws]'",
    )


def test_a_refused_connection_is_one_warning(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    observer = CloudWatch(namespace="Shop", endpoint_url=url)

    assert run(observer) == []
    assert observer.warnings() == (
        f'metrics were not sent to cloudwatch: Could not connect to the endpoint URL: "{url}/"',
    )


def test_a_server_that_never_answers_does_not_hold_a_run_for_long(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(8)
        observer = CloudWatch(namespace="Shop", endpoint_url=f"http://127.0.0.1:{deaf.getsockname()[1]}")
        began = time.monotonic()

        observer.on_event(Event("run_started", time.time(), "app", "sales", "run-1"))

        assert time.monotonic() - began < 7
    assert len(observer.warnings()) == 1
