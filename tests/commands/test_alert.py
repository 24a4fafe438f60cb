"""Alerts of real runs, and `rainbow alert test`; receivers listen on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Project, Rainbow
from tests.receivers import Receiver, receiver, wait_for

from .conftest import Call

TEXT = """
    name: shop
    secrets: [{{secret: hook, env: ALERT_HOOK}}, {{secret: key, env: ALERT_KEY}}]
    alerts:
      - {{alert: team, type: webhook, url: "{{{{secret.hook}}}}", secret: "{{{{secret.key}}}}"}}
    pipelines:
      - pipeline: {name}
        tasks:
          - {{task: load, type: python, cmd: "echo key is $ALERT_KEY; test -e $HERE/good", retries: 0}}
      - pipeline: {name}x
        alerts: [{{alert: boss, type: slack, url: "http://127.0.0.1:9/"}}]
        tasks: []
"""


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Receiver]:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("ALERT_KEY", "k-12345-secret")
    monkeypatch.setenv("HERE", str(tmp_path / "project"))
    with receiver() as made:
        monkeypatch.setenv("ALERT_HOOK", f"{made.url}/hush-hush")
        yield made


def test_a_run_that_fails_is_told_once_and_its_recovery_too(
    call: Call, project: Project, hook: Receiver, name: str
) -> None:
    folder = project({"rainbow.yml": TEXT.format(name=name)})

    for _ in range(2):
        call("run", "--pipeline", name, "--quiet", cwd=folder, code=1)
    ended = time.time()
    (folder / "good").touch()
    call("run", "--pipeline", name, "--quiet", cwd=folder)

    first, second = wait_for(lambda: len(hook.got) == 2 and hook.got)
    assert [first.json["occasion"], second.json["occasion"]] == ["failure", "recovery"]
    assert first.path == "/hush-hush"
    assert first.json["cause"].startswith("task 'load' failed: ")
    assert first.json["last_lines"] == ["key is ********"]
    assert first.json["retry"] == f"rainbow retry {first.json['flow_run_id']}"
    assert first.json["flow_run_id"] in first.json["link"]
    assert first.time < ended
    assert second.json["text"].startswith("completed after 2 failed runs\n")


def test_a_receiver_that_is_away_does_not_fail_a_run(
    call: Call, project: Project, hook: Receiver, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALERT_HOOK", "http://127.0.0.1:9/hush-hush")
    folder = project(
        {"rainbow.yml": TEXT.format(name=name).replace("{alert: team", "{alert: team, on: success"), "good": ""}
    )

    done = call("run", "--pipeline", name, "--quiet", cwd=folder)

    assert done.err == "warning: alert 'team' was not sent: 127.0.0.1: Connection refused\n"


def test_a_test_alert_goes_through_each_channel(rainbow: Rainbow, project: Project, hook: Receiver) -> None:
    folder = project({"rainbow.yml": TEXT.format(name="sales")})

    done = rainbow("alert", "test", folder, code=1)

    assert done.out == "sales: sent through team\n"
    assert done.err == "salesx: alert 'boss' was not sent: 127.0.0.1: Connection refused\n"
    assert hook.got[0].json["title"] == "sales sends a test alert"


def test_a_test_alert_may_be_one_of_them(rainbow: Rainbow, project: Project, hook: Receiver) -> None:
    folder = project({"rainbow.yml": TEXT.format(name="sales")})

    done = rainbow("alert", "test", folder, "--alert", "team", "--json")

    assert done.json == {"alerts": [{"pipeline": "sales", "alert": "team", "type": "webhook", "error": None}]}


def test_a_test_alert_without_its_secret_says_what_to_do(rainbow: Rainbow, project: Project, hook: Receiver) -> None:
    folder = project({"rainbow.yml": TEXT.format(name="sales")})

    done = rainbow("alert", "test", folder, "-p", "sales", env={"ALERT_HOOK": ""}, code=1)

    assert done.err == (
        "sales: alert 'team' was not sent: secret 'hook': the environment variable ALERT_HOOK is empty; "
        "set it before the run\n"
    )


def test_no_alert_to_send_is_a_wrong_call(rainbow: Rainbow, project: Project) -> None:
    folder = project({"rainbow.yml": "name: shop\npipelines: [{pipeline: sales, tasks: []}]\n"})

    done = rainbow("alert", "test", folder, code=2)

    assert done.err == "Error: there is no alert to send; add `alerts` to the file or a pipeline\n"


def test_a_wrong_alert_is_told_with_its_place(rainbow: Rainbow, project: Project) -> None:
    folder = project(
        {
            "rainbow.yml": """
            name: shop
            alerts: [{type: slak, url: "http://h"}]
            pipelines:
              - pipeline: sales
                tasks:
                  - {task: load, type: python, cmd: "true", alerts: [{type: webhook, url: "http://h", on: faliure}]}
            """
        }
    )

    done = rainbow("check", folder, code=2)

    assert done.out.splitlines()[:2] == [
        "rainbow.yml:2:17: unknown alert type 'slak'; did you mean 'slack'? (known: email, pagerduty, slack, sns, webhook)",
        "rainbow.yml:6:95: pipeline 'sales', task 'load': unknown on 'faliure'; did you mean 'failure'?",
    ]
