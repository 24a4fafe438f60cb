"""Alerts: which events are told, how often, and what each channel sends; receivers listen on loopback."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from rainbow_prefect.errors import RunError
from rainbow_prefect.observers.alerts import Alert, Message, sample
from rainbow_prefect.observers.channels import Email, PagerDuty, Slack, Sns, Webhook, post
from rainbow_prefect.observers.metrics import observers_of
from rainbow_prefect.run import Event
from tests.receivers import Mails, Receiver, mails, receiver, wait_for

NOW = 1_700_000_000.0


class Recorded(Alert):
    """An alert in memory; `fails` makes it raise."""

    type: Literal["recorded"] = "recorded"
    fails: bool = False
    sent_all: list[Message] = []

    def send(self, message: Message) -> None:
        if self.fails:
            raise ConnectionError("nobody answers\nat all")
        self.sent_all.append(message)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    return tmp_path


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture
def post_office() -> Iterator[Mails]:
    with mails(("robot", "pa55-word")) as made:
        yield made


def event(kind: Any, **more: Any) -> Event:
    return Event(kind, **{"time": NOW, "app": "shop", "pipeline": "sales", "run_id": "run-1", **more})


def run(alert: Alert, state: str = "failed", *, time: float = NOW, slice_state: str = "failed") -> None:
    """A run with one task `load`, that ends so."""
    alert.on_event(event("run_started", time=time))
    alert.on_event(event("task_started", task="load", time=time))
    if state != "completed":
        alert.on_event(event("slice_finished", task="load", index=0, state=slice_state, time=time))
    alert.on_event(
        event("task_finished", task="load", time=time, state="completed" if state == "completed" else "failed",
              message="exit status 1", tail=("one", "two"))
    )  # fmt: skip
    alert.on_event(
        event("run_finished", state=state, message="task 'load' failed: exit status 1", seconds=3.4, time=time)
    )


def recorded(**fields: Any) -> Recorded:
    made = Recorded(sent_all=[], **fields).told_as("a")
    assert isinstance(made, Recorded)
    return made


def occasions(alert: Recorded) -> list[str]:
    return [one.occasion for one in alert.sent_all]


# -- what is told, and how often


def test_a_failure_is_told_with_its_cause_and_the_way_out() -> None:
    alert = recorded()

    run(alert)

    (message,) = alert.sent_all
    assert message.title == "sales failed"
    assert message.text == (
        "task 'load' failed: exit status 1\n\nthe last lines:\n    one\n    two\n\n"
        "run    run-1\nretry  rainbow retry run-1\napp    shop"
    )


def test_20_failures_in_a_row_are_told_once() -> None:
    alert = recorded()

    for number in range(20):
        run(alert.told_as("a"), time=NOW + 60 * number)

    assert occasions(alert) == ["failure"]


def test_many_processes_at_once_tell_it_once() -> None:
    alert = recorded()
    threads = [threading.Thread(target=run, args=(alert.told_as("a"),)) for _ in range(20)]

    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert occasions(alert) == ["failure"]


def test_a_recovery_is_told_with_how_many_failed_and_then_a_failure_is_new() -> None:
    alert = recorded()

    for state in ("failed", "failed", "completed", "completed", "failed"):
        run(alert, state)

    assert occasions(alert) == ["failure", "recovery", "failure"]
    assert alert.sent_all[1].text.startswith("completed after 2 failed runs\n")
    assert alert.sent_all[0].key == alert.sent_all[1].key


def test_a_trouble_that_goes_on_is_told_again_after_its_time() -> None:
    alert = recorded(dedupe_minutes=60)

    for minutes in (0, 59, 61):
        run(alert, time=NOW + 60 * minutes)

    assert [one.failures for one in alert.sent_all] == [1, 3]
    assert "3 runs failed since it began" in alert.sent_all[1].text


def test_without_dedupe_each_failure_is_told() -> None:
    alert = recorded(dedupe_minutes=0)

    run(alert)
    run(alert)

    assert occasions(alert) == ["failure", "failure"]


@pytest.mark.parametrize(
    ("on", "state", "slice_state", "told"),
    [
        (["failure"], "failed", "failed", ["failure"]),
        (["failure"], "failed", "timed_out", []),
        (["timeout"], "failed", "timed_out", ["timeout"]),
        (["timeout"], "timed_out", "cancelled", ["timeout"]),
        (["failure", "timeout"], "cancelled", "cancelled", []),
        (["success"], "completed", "", ["success"]),
        (["failure"], "completed", "", []),
        ("crash", "crashed", "failed", ["crash"]),
    ],
)
def test_only_what_is_asked_for_is_told(on: Any, state: str, slice_state: str, told: list[str]) -> None:
    alert = recorded(on=on)

    run(alert, state, slice_state=slice_state)

    assert occasions(alert) == told


def test_an_alert_of_a_task_tells_of_that_task_only() -> None:
    mine = recorded(on=["failure", "recovery"]).told_as("a", "load")
    other = recorded().told_as("a", "clean")

    run(mine)
    run(other)
    run(mine, "completed")

    assert [one.title for one in mine.sent_all] == ["sales.load failed", "sales.load completes again"]  # type: ignore[attr-defined]
    assert other.sent_all == []  # type: ignore[attr-defined]


def test_a_long_run_is_told_while_it_goes_on() -> None:
    alert = recorded(on=["long_run"], long_run_minutes=0.001)

    alert.on_event(event("run_started"))
    wait_for(lambda: alert.sent_all)
    alert.on_event(event("run_finished", state="completed"))

    (message,) = alert.sent_all
    assert (message.occasion, message.cause) == ("long_run", "it has run for more than 0.001 min and goes on")


@pytest.mark.parametrize(("seconds", "told"), [(299, []), (300, ["it started 5 min after its time"])])
def test_a_run_that_starts_late_is_told(seconds: float, told: list[str]) -> None:
    alert = recorded(on=["late_start"])

    alert.on_event(event("run_started", seconds=seconds))

    assert [one.cause for one in alert.sent_all] == told


def test_a_short_run_is_not_told_as_long() -> None:
    alert = recorded(on=["long_run"], long_run_minutes=60)

    run(alert, "completed")

    assert alert._timer is not None and alert._timer.finished.is_set()
    assert alert.sent_all == []


def test_an_alert_that_is_not_sent_is_a_warning_and_told_with_the_next_failure() -> None:
    broken = recorded(fails=True, alert="team")

    run(broken)
    works = broken.model_copy(update={"fails": False})
    run(works)

    assert broken.warnings() == ("alert 'team' was not sent: nobody answers",)
    assert [one.failures for one in works.sent_all] == [2]


def test_a_folder_that_cannot_be_written_to_tells_each_failure(home: Path) -> None:
    (home / "prefect").write_text("a file")
    alert = recorded()

    run(alert)
    run(alert)

    assert occasions(alert) == ["failure", "failure"]


def test_alerts_of_file_pipeline_and_task_are_made_for_a_run() -> None:
    class Owner:
        def __init__(self, *alerts: Alert, tasks: Any = (), task: str = "") -> None:
            self.alerts, self.tasks, self.task = alerts, tasks, task

    app = Owner(Recorded(alert="team"), Recorded(alert="boss"))
    pipeline = Owner(Recorded(alert="team", on=["success"]), tasks=[Owner(Recorded(), task="load")])

    made = [one for one in observers_of(app, pipeline) if isinstance(one, Recorded)]  # type: ignore[arg-type]

    assert [(one.name, one.on[0], one._task) for one in made] == [
        ("boss", "failure", None),
        ("team", "success", None),
        ("recorded", "failure", "load"),
    ]


@pytest.mark.parametrize(
    ("kind", "fields", "text"),
    [
        (Recorded, {"on": ["long_run"]}, "`long_run` needs `long_run_minutes`"),
        (Recorded, {"long_run_minutes": 5}, "`long_run_minutes` is for `on: [long_run]`"),
        (Slack, {"url": "https://hooks.slack.com/services/T0/B0/abc"}, "a secret must not stand in the file"),
        (Webhook, {"url": "https://me:pw@example.com/"}, "a secret must not stand in the file"),
        (Webhook, {"url": "example.com"}, "must be an address such as https://example.com/hook, got 'example.com'"),
        (Webhook, {"url": "http://h", "headers": {"Authorization": "Bearer x"}}, "the value of 'Authorization' must not stand in the file"),
        (Webhook, {"url": "http://h", "secret": "abc"}, "a secret must not stand in the file"),
        (PagerDuty, {"routing_key": "abc"}, "a secret must not stand in the file"),
        (Email, {"host": "h", "from": "a@b", "to": "c@d", "password": "abc"}, "a secret must not stand in the file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(kind: type[Alert], fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as error:
        kind.model_validate(fields)

    assert [one["msg"] for one in error.value.errors()] == [text]


# -- the channels


def test_a_webhook_is_posted_json_that_is_signed(hook: Receiver) -> None:
    alert = Webhook(url=f"{hook.url}/in?a=1", secret="{{secret.k}}", headers={"X-Team": "data"})
    alert = alert.model_copy(update={"secret": "k-1"}).told_as("a")  # type: ignore[assignment]

    run(alert)

    (got,) = hook.got
    assert alert.warnings() == ()
    assert (got.path, got.headers["x-team"]) == ("/in?a=1", "data")
    assert got.headers["x-rainbow-signature"] == "sha256=" + hmac.new(b"k-1", got.body, hashlib.sha256).hexdigest()
    assert {key: got.json[key] for key in ("occasion", "pipeline", "cause", "last_lines", "retry", "time")} == {
        "occasion": "failure",
        "pipeline": "sales",
        "cause": "task 'load' failed: exit status 1",
        "last_lines": ["one", "two"],
        "retry": "rainbow retry run-1",
        "time": "2023-11-14T22:13:20Z",
    }


def test_slack_is_sent_a_text_without_its_own_marks(hook: Receiver) -> None:
    Slack(url=hook.url, channel="#ops").send(
        Message("failure", "shop", "sales", None, "r", NOW, "k", cause="a < b & ```c```", link="http://ui/run")
    )

    data = hook.got[0].json
    assert data["channel"] == "#ops"
    assert data["text"].startswith(":red_circle: *sales failed* (<http://ui/run|run>)\n```a &lt; b &amp; '''c'''\n")
    assert data["text"].endswith("\napp    shop```") and data["text"].count("```") == 2


def test_a_mail_is_sent_with_login(post_office: Mails) -> None:
    alert = Email.model_validate(
        {"host": "127.0.0.1", "port": post_office.port, "tls": "none", "user": "robot", "password": "{{secret.p}}",
         "from": "robot@example.com", "to": ["ops@example.com", "ä@example.com"][:1]}
    )  # fmt: skip

    alert.model_copy(update={"password": "pa55-word"}).send(
        Message("failure", "shop", "sales", None, "r", NOW, "k", cause="żółw <b>", lines=("one",))
    )

    (mail,) = post_office.got
    assert (mail["Subject"], mail["To"], mail["From"]) == ("sales failed", "ops@example.com", "robot@example.com")
    assert mail.get_content().splitlines()[:4] == ["żółw <b>", "", "the last lines:", "    one"]
    assert post_office.users == ["robot"]


def test_a_mail_server_that_refuses_says_why_without_the_password(post_office: Mails) -> None:
    alert = Email(
        host="127.0.0.1", port=post_office.port, tls="none", user="robot", sender="a@example.com", to=("b@example.com",)
    )
    wrong = alert.model_copy(update={"password": "guess-1"}).told_as("a")

    run(wrong)

    assert wrong.warnings() == (
        f"alert 'email' was not sent: 127.0.0.1:{post_office.port} refused user and password (535)",
    )


def test_sns_is_published_to_its_topic(aws: str) -> None:
    import boto3

    sns, sqs = (boto3.client(name, endpoint_url=aws, region_name="eu-west-1") for name in ("sns", "sqs"))
    topic = sns.create_topic(Name="alerts")["TopicArn"]
    queue = sqs.create_queue(QueueName="got")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)

    alert = Sns(topic_arn=topic).told_as("a")
    run(alert)

    assert alert.warnings() == ()
    got = json.loads(sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=10)["Messages"][0]["Body"])
    assert got["Subject"] == "sales failed"
    assert got["Message"].startswith("sales failed\n\ntask 'load' failed: exit status 1\n")


def test_pagerduty_has_an_incident_that_a_recovery_resolves(hook: Receiver) -> None:
    alert = PagerDuty(routing_key="{{secret.k}}", url=hook.url).model_copy(update={"routing_key": "key-1"}).told_as("a")

    run(alert)
    run(alert, "completed")

    first, second = (one.json for one in hook.got)
    assert (first["event_action"], second["event_action"]) == ("trigger", "resolve")
    assert first["dedup_key"] == second["dedup_key"]
    assert first["payload"]["summary"] == "sales failed: task 'load' failed: exit status 1"
    assert (first["payload"]["severity"], first["payload"]["source"]) == ("critical", "shop")
    assert set(second) == {"routing_key", "event_action", "dedup_key"}


def test_a_receiver_that_is_busy_is_asked_again() -> None:
    with receiver([503, 429]) as hook:
        post(hook.url, b"{}")

        assert len(hook.got) == 3


@pytest.mark.parametrize(("answers", "times"), [([404], 1), ([500, 500, 500], 3)])
def test_a_receiver_that_refuses_is_told(answers: list[int], times: int) -> None:
    with receiver(answers) as hook, pytest.raises(RunError, match=rf"\A127.0.0.1 answered {answers[0]} [\w ]+\Z"):
        post(f"{hook.url}/secret-path", b"{}")

    assert len(hook.got) == times


def test_a_sample_is_no_failure() -> None:
    message = sample("shop", "sales")

    assert (message.title, message.lines, message.retry) == ("sales sends a test alert", (), "")
