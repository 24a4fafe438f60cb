"""What a run cannot tell itself: that it crashed, and how late it began."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.utilities.urls import url_for

from ..observers.alerts import Alert
from ..observers.metrics import observers_of
from ..plan import Plan
from ..run import Event
from ..secrets import Secrets

logger = logging.getLogger(__name__)

Hook = Callable[[Any, FlowRun, State[Any]], None]


def crash_hook(plan: Plan) -> Hook:
    """Called by Prefect where a run crashed: in its own process, or in the worker when that process is gone."""

    def tell_crash(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
        from ..blocks import aws, secret

        app, pipeline = plan.app, plan.pipeline
        secrets = Secrets(app.secrets, app.root, secret, load_aws=aws.secret)
        message = secrets.mask(state.message or "its process ended")
        event = Event(
            "run_finished",
            time.time(),
            app.name,
            pipeline.pipeline,
            str(flow_run.id),
            state="crashed",
            message=message,
            link=url_for(flow_run) or "",
        )
        for one in observers_of(app, pipeline, secrets.render):
            if isinstance(one, Alert):
                one.on_event(event)
                for text in one.warnings():
                    logger.warning(secrets.mask(text))

    return tell_crash


def late_seconds(flow_run: FlowRun) -> float:
    """How long after its time a run of a deployment began; 0 for others, and for one that goes on."""
    expected = flow_run.expected_start_time
    if flow_run.deployment_id is None or expected is None or flow_run.run_count > 1:
        return 0.0
    return max(0.0, (datetime.now(UTC) - expected).total_seconds())
