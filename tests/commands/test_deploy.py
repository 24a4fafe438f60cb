"""`rainbow diff` and `rainbow deploy` against a real Prefect server, and with a bad network before it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import RAINBOW, Project, Rainbow
from tests.proxy import Request, proxy

YAML = """
    name: {name}
    owner: dana
    work_pools:
      - {{work_pool: {name}-pool, type: process, concurrency_limit: 3, job_variables: {{env: {{STAGE: dev}}}}}}
    work_pool: {name}-pool
    pipelines:
      - pipeline: {name}-sales
        description: Sells.
        labels: {{stage: dev}}
        schedule: {{cron: "0 6 * * *", timezone: Europe/Berlin}}
        schedules:
          - {{cron: "@hourly", slug: hourly, parameters: {{day: 2024-01-01}}}}
        concurrency_limit: {{limit: 1, collision_strategy: CANCEL_NEW}}
        parameters: [{{name: day, type: date, default: 2024-01-31}}, {{name: n, default: 3}}]
        tasks: [{{task: a, type: python, cmd: "echo {{{{n}}}}"}}]
      - pipeline: {name}-quiet
        tasks: [{{task: a, type: python, cmd: "true"}}]
"""


@pytest.fixture
def name() -> str:
    """The name of a project that no other test has."""
    return f"p{uuid.uuid4().hex[:10]}"


@pytest.fixture
def api(prefect_server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=prefect_server, timeout=60) as client:
        yield client


def written(project: Project, name: str, *changes: tuple[str, str]) -> Path:
    text = YAML.format(name=name)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return project({"rainbow.yml": text})


def deployed(api: httpx.Client, name: str, pipeline: str = "sales") -> dict[str, Any]:
    answer = api.get(f"/deployments/name/{name}-{pipeline}/{name}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def schedules(found: dict[str, Any]) -> dict[str, Any]:
    return {one["slug"]: one for one in found["schedules"]}


def test_deploy_makes_what_diff_shows_and_then_nothing_is_left(
    rainbow: Rainbow, project: Project, name: str, api: httpx.Client
) -> None:
    root = written(project, name)

    shown = rainbow("diff", root, code=2)
    done = rainbow("deploy", root)

    assert done.out.startswith(shown.out)
    assert shown.out.splitlines()[0] == f"+ work pool {name}-pool"
    assert shown.out.splitlines()[-1] == "3 to add, 0 to change, 0 to remove"
    assert rainbow("diff", root).out == "nothing to change\n"
    found = deployed(api, name)
    assert found["entrypoint"] == f"rainbow_prefect.flows.{name}-sales"
    assert found["work_pool_name"] == f"{name}-pool"
    assert found["job_variables"] == {"env": {"STAGE": "dev"}}
    assert found["tags"] == ["stage:dev", "owner:dana", f"app:{name}"]
    assert found["labels"]["rainbow.project"] == name
    assert found["global_concurrency_limit"]["limit"] == 1
    assert found["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert found["pull_steps"] == [{"rainbow_prefect.steps.pull_config": {"path": str(root)}}]
    assert schedules(found)["hourly"]["parameters"] == {"day": "2024-01-01"}
    assert schedules(found)["schedule"]["schedule"]["timezone"] == "Europe/Berlin"
    pool = api.get(f"/work_pools/{name}-pool").json()
    assert (pool["type"], pool["concurrency_limit"]) == ("process", 3)
    assert "variables" in pool["base_job_template"]


def test_a_change_is_shown_with_old_and_new_value(
    rainbow: Rainbow, project: Project, name: str, prefect_server: str
) -> None:
    rainbow("deploy", written(project, name))
    root = written(project, name, ("0 6 * * *", "0 7 * * *"), ("STAGE: dev", "STAGE: prod"), ("type: date, ", ""))

    shown = rainbow("diff", root, code=2)
    as_json = rainbow("diff", root, "--json", code=2).json
    rainbow("deploy", root, "--pipeline", f"{name}-sales")

    assert shown.out.splitlines() == [
        f"~ deployment {name}-sales/{name}",
        "    ~ job_variables.env.STAGE: dev -> prod",
        "    ~ schedules.schedule.schedule.cron: 0 6 * * * -> 0 7 * * *",
        f"~ deployment {name}-quiet/{name}",
        "    ~ job_variables.env.STAGE: dev -> prod",
        "0 to add, 2 to change, 0 to remove",
    ]
    first = as_json["changes"][0]
    assert first["differences"][0] == {"action": "~", "key": "job_variables.env.STAGE", "old": "dev", "new": "prod"}
    assert [one["name"] for one in rainbow("diff", root, "--json", code=2).json["changes"]] == [f"{name}-quiet/{name}"]


def test_what_a_person_paused_stays_paused(rainbow: Rainbow, project: Project, name: str, api: httpx.Client) -> None:
    rainbow("deploy", written(project, name))
    found = deployed(api, name)
    by_slug = schedules(found)
    path = f"/deployments/{found['id']}/schedules/{by_slug['hourly']['id']}"
    assert api.patch(path, json={"active": False}).status_code == 204
    api.post(f"/deployments/{found['id']}/pause_deployment")

    root = written(project, name, ("0 6 * * *", "0 7 * * *"))
    shown = rainbow("diff", root, code=2)
    rainbow("deploy", root)

    assert "active" not in shown.out
    after = deployed(api, name)
    assert after["paused"]
    assert not schedules(after)["hourly"]["active"]
    assert schedules(after)["schedule"]["active"]


def test_what_the_file_switched_off_it_can_switch_on(
    rainbow: Rainbow, project: Project, name: str, api: httpx.Client
) -> None:
    rainbow("deploy", written(project, name, ("slug: hourly,", "slug: hourly, active: false,")))
    assert not schedules(deployed(api, name))["hourly"]["active"]

    shown = rainbow("diff", root := written(project, name), code=2)
    rainbow("deploy", root)

    assert "    ~ schedules.hourly.active: false -> true" in shown.out
    assert schedules(deployed(api, name))["hourly"]["active"]


def test_only_prune_removes_and_only_what_is_of_the_project(
    rainbow: Rainbow, project: Project, name: str, api: httpx.Client
) -> None:
    other = f"{name}-other"
    rainbow("deploy", written(project, name))
    rainbow("deploy", project({"rainbow.yml": YAML.format(name=other)}, "other"))
    foreign = {"name": name, "flow_id": deployed(api, name)["flow_id"], "tags": [f"app:{name}"]}
    assert api.post("/deployments/", json={**foreign, "name": "by-hand"}).status_code == 201
    text = YAML.format(name=name)
    root = project({"rainbow.yml": text[: text.index(f"      - pipeline: {name}-quiet")]})

    shown = rainbow("diff", root)
    with_prune = rainbow("diff", root, "--prune", code=2)
    refused = rainbow("deploy", root, "--prune", code=2)
    kept = deployed(api, name, "quiet")
    rainbow("deploy", root, "--prune", "--yes")

    left = f"  deployment {name}-quiet/{name} is in no file any more; `rainbow deploy --prune` removes it"
    assert shown.out.splitlines() == [left, "nothing to change"]
    assert with_prune.out.splitlines() == [f"- deployment {name}-quiet/{name}", "0 to add, 0 to change, 1 to remove"]
    assert refused.err == f"Error: this removes {name}-quiet/{name}; add --yes to do it\n"
    assert api.get(f"/deployments/{kept['id']}").status_code == 404
    assert deployed(api, other, "quiet")
    assert api.get(f"/deployments/name/{name}-sales/by-hand").status_code == 200


def test_a_start_in_the_future_is_a_rule_and_a_past_one_is_not(
    rainbow: Rainbow, project: Project, name: str, api: httpx.Client
) -> None:
    later = ("description: Sells.", "start_date: 2090-03-01")
    rainbow("deploy", root := written(project, name, later))

    found = schedules(deployed(api, name))

    rule = "DTSTART:20900301T000000\nRRULE:FREQ=DAILY;BYHOUR=6;BYMINUTE=0;BYSECOND=0"
    assert found["schedule"]["schedule"] == {"rrule": rule, "timezone": "Europe/Berlin"}
    assert rainbow("diff", root).out == "nothing to change\n"
    rainbow("deploy", written(project, name, ("description: Sells.", "start_date: 2020-03-01")))
    assert schedules(deployed(api, name))["schedule"]["schedule"]["cron"] == "0 6 * * *"


# -- what is wrong


def test_a_pool_that_nobody_declares_must_be_there(
    rainbow: Rainbow, project: Project, name: str, prefect_server: str
) -> None:
    root = written(project, name, (f"    work_pool: {name}-pool\n", f"    work_pool: {name}-poool\n"))

    told = rainbow("diff", root, code=2)

    assert told.err == (
        f"Error: deployment '{name}-sales/{name}': there is no work pool '{name}-poool' on the server and the file does "
        f"not declare it; add `work_pools: [{{work_pool: {name}-poool, type: process}}]`\n"
    ).replace(f"'{name}-sales/", f"'{name}-quiet/")


def test_a_pool_of_another_type_is_told(rainbow: Rainbow, project: Project, name: str, prefect_server: str) -> None:
    rainbow("deploy", written(project, name))

    told = rainbow("diff", written(project, name, ("type: process, conc", "type: docker, conc")), code=2)

    assert told.err == (
        f"Error: work pool '{name}-pool' is of type 'process' on the server, not 'docker'; use another name, or write its type\n"
    )


def test_a_schedule_that_cannot_start_its_pipeline(
    rainbow: Rainbow, project: Project, name: str, prefect_server: str
) -> None:
    told = rainbow("diff", written(project, name, ("name: n, default: 3", "name: n, type: int")), code=2)

    assert told.err == (
        f"Error: pipeline '{name}-sales': its schedule 'schedule' gives no value to parameter 'n', which has no default; "
        "add a default, or `parameters` to the schedule\n"
    )


def test_keys_that_are_wrong_are_told_with_their_place(rainbow: Rainbow, project: Project) -> None:
    root = project(
        {
            "rainbow.yml": """
                name: shop
                code: {type: git, bucket: b}
                work_pools:
                  - {work_pool: fast, type: proces}
                  - {work_pool: fast}
                pipelines:
                  - pipeline: sales
                    concurrency_limit: no
                    code: {type: image}
                    parameters: [{name: day, type: date, default: 2024-01-31}]
                    schedules:
                      - {cron: "@hourly", slug: a, parameters: {dya: 1}}
                      - {cron: "@daily", slug: a, parameters: {day: soon}}
                    tasks: []
            """
        }
    )

    told = rainbow("check", root, code=2)

    assert told.out.splitlines()[:-1] == [
        "rainbow.yml:2:27: 'bucket' is not for code of type 'git'; it is for `type: s3`",
        "rainbow.yml:4:29: unknown type 'proces'; did you mean 'process'?",
        "rainbow.yml:5:17: duplicate work_pool 'fast'; it is at line 4 already; use another name",
        "rainbow.yml:8:24: pipeline 'sales': `concurrency_limit` must be a number or a mapping, got true or false; write e.g. "
        "`concurrency_limit: 1`",
        "rainbow.yml:9:11: pipeline 'sales': `image` is required for code of type 'image'; write `image: ...`",
        "rainbow.yml:12:49: pipeline 'sales': unknown parameter 'dya'; did you mean 'day'?",
        "rainbow.yml:13:32: pipeline 'sales': duplicate slug 'a'; use another one",
        "rainbow.yml:13:53: pipeline 'sales': parameter 'day' must be a date such as 2024-01-31, got 'soon'",
    ]


def test_no_server_is_told(rainbow: Rainbow, project: Project, name: str) -> None:
    told = rainbow("diff", written(project, name), code=1, env={"PREFECT_API_URL": "http://127.0.0.1:9/api"})

    assert told.err == (
        "Error: the Prefect server at http://127.0.0.1:9/api does not answer (connection refused); start it, or unset "
        "PREFECT_API_URL to use a local one\n"
    )


# -- a bad network


def test_busy_servers_and_lost_connections_are_asked_again(
    rainbow: Rainbow, project: Project, name: str, prefect_server: str, api: httpx.Client
) -> None:
    root = written(project, name)
    failed: set[tuple[str, int]] = set()

    def rule(request: Request) -> tuple[int, bytes] | str | None:
        key = (request.path, len([one for one in failed if one[0] == request.path]))
        if key[1] >= 2 or "admin" in request.path or "health" in request.path:
            return None
        failed.add(key)
        return "drop" if key[1] else (503, b'{"exception_message": "Service Unavailable"}')

    with proxy(prefect_server, rule) as (url, _):
        rainbow("deploy", root, env={"PREFECT_API_URL": url})

    assert len(failed) >= 8
    assert rainbow("diff", root).out == "nothing to change\n"


def test_when_one_change_fails_all_are_put_back(
    rainbow: Rainbow, project: Project, name: str, prefect_server: str, api: httpx.Client
) -> None:
    rainbow("deploy", written(project, name))
    before = deployed(api, name)
    text = YAML.format(name=name).replace("0 6 * * *", "0 7 * * *").replace(f"{name}-quiet", f"{name}-new")
    root = project({"rainbow.yml": text + f"      - {{pipeline: {name}-bad, tasks: []}}\n"})

    others = threading.Semaphore(0)

    def rule(request: Request) -> tuple[int, bytes] | None:
        if f"{name}-bad" not in request.body or not request.path.endswith("/flows/"):
            return None
        assert others.acquire(timeout=60) and others.acquire(timeout=60)
        return 422, b'{"detail": "it does not fit"}'

    def after(request: Request) -> None:
        if request.path.endswith("/deployments/"):
            others.release()

    with proxy(prefect_server, rule, after=after) as (url, _):
        told = rainbow("deploy", root, "--json", code=1, env={"PREFECT_API_URL": url})

    assert told.err == (
        f"Error: deployment '{name}-bad/{name}': the Prefect server at {url} refused POST flows/ (422): "
        "it does not fit; 2 changes were put back, so all is as it was\n"
    )
    after = deployed(api, name)
    for slug, one in schedules(before).items():
        assert schedules(after)[slug]["schedule"] == one["schedule"]
    assert after["id"] == before["id"]
    for pipeline in ("new", "bad"):
        assert api.get(f"/deployments/name/{name}-{pipeline}/{name}").status_code == 404
        assert api.get(f"/flows/name/{name}-{pipeline}").status_code == 404


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_deploy_that_was_killed_is_finished_by_the_next(
    rainbow: Rainbow, project: Project, name: str, prefect_server: str, moment: str
) -> None:
    """Whichever change is under way: the work pool, the first flow, its deployment, the second flow."""
    root = written(project, name)
    process: list[subprocess.Popen[bytes]] = []

    for number in (1, 2, 3, 4):

        def end(request: Request, number: int = number) -> str | None:
            if request.changes and request.number == 1 and len(process) == number:
                process[-1].send_signal(signal.SIGKILL)
                process[-1].wait()
                return "drop"
            return None

        rule, after = (end, lambda request: None) if moment == "before" else ((lambda request: None), end)
        with proxy(prefect_server, rule, after=after) as (url, seen):
            env = {**os.environ, "PREFECT_API_URL": url}
            process.append(subprocess.Popen([RAINBOW, "deploy", str(root)], env=env, stdout=subprocess.DEVNULL))
            assert process[-1].wait(timeout=120) == -signal.SIGKILL

    rainbow("deploy", root)

    assert rainbow("diff", root).out == "nothing to change\n"


def test_an_older_server_is_told_and_another_major_version_refused(
    rainbow: Rainbow, project: Project, name: str, prefect_server: str
) -> None:
    root = written(project, name)
    version = "3.1.0"

    def rule(request: Request) -> tuple[int, bytes] | None:
        return (200, json.dumps(version).encode()) if request.path.endswith("/admin/version") else None

    with proxy(prefect_server, rule) as (url, _):
        older = rainbow("diff", root, code=2, env={"PREFECT_API_URL": url})
        version = "2.20.1"
        other = rainbow("diff", root, code=1, env={"PREFECT_API_URL": url})

    assert older.err.startswith("warning: the server runs Prefect 3.1.0, older than ")
    assert other.err.startswith(f"Error: the server at {url} runs Prefect 2.20.1, which does not understand Prefect ")


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({"PREFECT_API_KEY": "pnu_s3cr3t"}, "Bearer pnu_s3cr3t"),
        ({"PREFECT_API_AUTH_STRING": "dana:s3cr3t"}, "Basic ZGFuYTpzM2NyM3Q="),
    ],
)
def test_who_may_not_in_is_told_without_the_secret(
    rainbow: Rainbow, project: Project, name: str, prefect_server: str, env: dict[str, str], wanted: str
) -> None:
    root = written(project, name)

    def rule(request: Request) -> tuple[int, bytes] | None:
        if request.path.endswith("/health") or request.headers.get("Authorization") == wanted:
            return None
        return 401, b'{"detail": "Unauthorized"}'

    with proxy(prefect_server, rule) as (url, _):
        rainbow("diff", root, code=2, env={"PREFECT_API_URL": url, **env})
        told = rainbow("diff", root, code=1, env={"PREFECT_API_URL": url, **dict.fromkeys(env, "other:s3cr3t")})

    assert told.err == (
        f"Error: the Prefect server at {url} does not let us in (401); set PREFECT_API_KEY, or PREFECT_API_AUTH_STRING "
        "for basic auth\n"
    )
