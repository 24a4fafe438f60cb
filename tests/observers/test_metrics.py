"""The three metrics of a run, the backend `log`, and how backends are found."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from rainbow_prefect.observers.base import Observer, RecordingObserver
from rainbow_prefect.observers.metrics import Log, Metrics, observers_of
from rainbow_prefect.registry import observers
from rainbow_prefect.run import Event, Metric
from rainbow_prefect.secrets import Secret, Secrets


def event(kind: Any, *, state: str = "", seconds: float = 0.0) -> Event:
    return Event(kind, 1_700_000_000.5, "app", "sales", "run-1", state=state, seconds=seconds)


def finish(observer: Observer, state: str = "completed", seconds: float = 1.6) -> list[tuple[str, float]]:
    observer.on_event(event("run_started"))
    observer.on_event(event("run_finished", state=state, seconds=seconds))
    return [(one.name, one.value) for one in observer.sent()]


class Broken(Metrics):
    type: Literal["broken"] = "broken"

    def send(self, metric: Metric, time: float) -> None:
        raise ConnectionError("nobody answers\nat all")


def app(**fields: Any) -> Any:
    return SimpleNamespace(**{"metrics": None, "observers": (), **fields})


def test_a_completed_run_sends_three_metrics() -> None:
    log = Log(namespace="Shop")

    assert finish(log) == [("JobStarted", 1), ("JobResult", 1), ("JobDuration", 2)]
    assert log.sent()[2] == Metric("Shop", "JobDuration", 2, None, {"ApplicationName": "sales"})


@pytest.mark.parametrize("state", ["failed", "timed_out", "cancelled", "crashed"])
def test_any_other_end_has_result_0(state: str) -> None:
    assert finish(Log(), state)[1:] == [("JobResult", 0), ("JobDuration", 2)]


def test_log_writes_one_line_a_metric(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    finish(Log(namespace="Shop"))

    assert caplog.messages == [
        "metric Shop JobStarted=1 (ApplicationName=sales)",
        "metric Shop JobResult=1 (ApplicationName=sales)",
        "metric Shop JobDuration=2 (ApplicationName=sales)",
    ]


def test_a_broken_backend_gives_one_warning() -> None:
    broken = Broken()

    assert finish(broken) == []
    assert broken.warnings() == ("metrics were not sent to broken: nobody answers",)


def test_backends_of_the_pipeline_win_over_those_of_the_app() -> None:
    made = observers_of(
        app(metrics={"namespace": "App", "backends": ["log", "cloudwatch"]}),
        app(metrics=SimpleNamespace(namespace="Shop", backends=("log",))),
    )

    assert [(one.type, getattr(one, "namespace", None)) for one in made] == [("log", "Shop")]


def test_backends_of_the_app_serve_all_pipelines() -> None:
    made = observers_of(app(metrics=({"namespace": "App", "backends": ["log"]},)), app())

    assert [(one.type, getattr(one, "namespace", None)) for one in made] == [("log", "App")]


def test_no_backends_no_observers() -> None:
    assert observers_of(app(), app(metrics={"namespace": "Shop", "backends": []})) == []


def test_a_backend_may_have_settings() -> None:
    (made,) = observers_of(
        app(), app(metrics={"namespace": "A", "backends": [{"type": "cloudwatch", "region": "eu-west-1"}]})
    )

    assert made.model_dump() == {
        "type": "cloudwatch",
        "namespace": "A",
        "tasks": False,
        "region": "eu-west-1",
        "endpoint_url": None,
    }


def test_an_unknown_backend_is_a_warning_of_the_run() -> None:
    (made,) = observers_of(app(), app(metrics={"namespace": "A", "backends": ["cloudwach"]}))

    finish(made)

    assert made.sent() == ()
    assert made.warnings() == (
        "metrics were not sent to cloudwach: there is no such backend; did you mean 'cloudwatch'?",
    )


def test_a_backend_with_wrong_settings_is_a_warning_of_the_run() -> None:
    (made,) = observers_of(app(), app(metrics={"backends": [{"type": "log", "level": 1}]}))

    assert made.warnings() == ("metrics were not sent to log: level: Extra inputs are not permitted",)


def test_declared_observers_are_fresh_for_each_run() -> None:
    observers.add("recording", RecordingObserver)
    declared = RecordingObserver()
    declared.on_event(event("run_started"))
    try:
        first, second = observers_of(app(observers=(declared,)), app(observers=(declared,)))
    finally:
        observers.discard("recording")

    assert isinstance(first, RecordingObserver) and isinstance(second, RecordingObserver)
    first.on_event(event("run_started"))
    assert (len(declared.events), len(first.events), len(second.events)) == (1, 1, 0)


def test_secrets_are_put_into_their_fields() -> None:
    secrets = Secrets([Secret(secret="place", env="PLACE")], environ={"PLACE": "eu-west-9"})
    backend = {"type": "cloudwatch", "region": "{{secret.place}}"}

    (made,) = observers_of(app(), app(metrics={"namespace": "A", "backends": [backend]}), secrets.render)

    assert made.model_dump()["region"] == "eu-west-9"


def test_a_missing_secret_is_a_warning_of_the_run() -> None:
    secrets = Secrets([Secret(secret="place", env="PLACE")], environ={})
    backend = {"type": "cloudwatch", "region": "{{secret.place}}"}

    (made,) = observers_of(app(), app(metrics={"namespace": "A", "backends": [backend]}), secrets.render)

    assert made.warnings() == (
        "observer 'cloudwatch' was not told: secret 'place': the environment variable PLACE is not set; "
        "set it before the run",
    )
