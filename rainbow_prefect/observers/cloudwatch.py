"""The metrics backend `cloudwatch`: one PutMetricData call for each metric; boto3 is imported at the first one."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from ..errors import MissingExtra, RunError
from ..run import Metric
from .metrics import Metrics

CONNECT_SECONDS = 2
READ_SECONDS = 2
"""CloudWatch answers in well under a second; no run shall wait for a network that swallows packets."""


class CloudWatch(Metrics):
    """The metrics in AWS CloudWatch; region and credentials are found as the AWS command line finds them.

    Without them the run completes, with one warning.
    """

    type: Literal["cloudwatch"] = "cloudwatch"
    region: str | None = Field(default=None, description="The AWS region; else that of the environment or profile.")
    endpoint_url: str | None = Field(default=None, description="Another address of CloudWatch, e.g. a VPC endpoint.")
    _client: Any = PrivateAttr(default=None)
    _unusable: RunError | MissingExtra | None = PrivateAttr(default=None)

    def send(self, metric: Metric, time: float) -> None:
        """Send one metric.

        Raises:
            RunError: no namespace, region or credentials.
            MissingExtra: boto3 is not installed.
        """
        self._ready().put_metric_data(
            Namespace=metric.namespace,
            MetricData=[
                {
                    "MetricName": metric.name,
                    "Dimensions": [{"Name": name, "Value": value} for name, value in metric.dimensions.items()],
                    "Timestamp": datetime.fromtimestamp(time, UTC),
                    "Value": metric.value,
                    "Unit": metric.unit or "None",
                }
            ],
        )

    def _ready(self) -> Any:
        """The client, made once; what made it impossible once is not tried again."""
        if self._unusable is not None:
            raise self._unusable
        if self._client is None:
            try:
                self._client = self._connected()
            except (RunError, MissingExtra) as error:
                self._unusable = error
                raise
        return self._client

    def _connected(self) -> Any:
        if not self.namespace:
            raise RunError("metrics.namespace is empty; CloudWatch needs one")
        if not (self.region or _has_settings()):
            raise RunError("no AWS settings found; set AWS_DEFAULT_REGION and credentials (aws configure)")
        return client("cloudwatch", self.region, self.endpoint_url)


def client(service: str, region: str | None, endpoint_url: str | None) -> Any:
    """A client of boto3 that gives up after seconds.

    Raises:
        RunError: there is no region, or there are no credentials.
        MissingExtra: boto3 is not installed.
    """
    try:
        import boto3
        import botocore.session
        from botocore.config import Config
    except ImportError:
        what = "the metrics backend 'cloudwatch'" if service == "cloudwatch" else f"the alert type '{service}'"
        raise MissingExtra(what, "aws") from None
    found = botocore.session.Session()
    found.set_config_variable("metadata_service_timeout", 1)  # off EC2 nobody answers
    found.set_config_variable("metadata_service_num_attempts", 1)
    session = boto3.Session(botocore_session=found, region_name=region or os.environ.get("AWS_REGION") or None)
    if not session.region_name:
        raise RunError("no AWS region found; set AWS_DEFAULT_REGION")
    if session.get_credentials() is None:
        raise RunError("no AWS credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (aws configure)")
    return session.client(
        service,
        endpoint_url=endpoint_url,
        config=Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"total_max_attempts": 2, "mode": "standard"},
        ),
    )


def _has_settings() -> bool:
    """Whether this machine says anything about AWS; a look that costs no import of boto3."""
    names = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ACCESS_KEY_ID")
    if any(os.environ.get(name) for name in names):
        return True
    config = os.environ.get("AWS_CONFIG_FILE")
    return (Path(config) if config else Path.home() / ".aws" / "config").is_file()
