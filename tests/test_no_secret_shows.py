"""Nothing secret shows: not in logs, errors, `show`, `plan`, the report, observers or Prefect itself."""

from __future__ import annotations

import base64
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Project, Rainbow

FILE, ENV, VARIABLE, URL, PARAMETER, TASK, INHERITED = (
    "file-s3cret-Aa1",
    "env-s3cret-\"Bb'2",
    "variable-s3cret-Cc3",
    "url-s3cret-Dd4",
    "parameter-s3cret-Ee5",
    "task-s3cret-Ff6",
    "inherited-s3cret-Gg7",
)
ALL = (FILE, ENV, VARIABLE, URL, PARAMETER, TASK, INHERITED)

YAML = f"""
    name: leaky
    tags: ["{{{{db_password}}}}"]
    labels: {{team: "{{{{db_password}}}}"}}
    secrets:
      - {{secret: cloud, local_path_file: creds/cloud.txt}}
      - {{secret: db, env: DB}}
    variables:
      db_password: {VARIABLE}
      warehouse: postgres://bob:{URL}@db/sales
    pipelines:
      - pipeline: leaky
        parameters: [{{name: api_token, type: str, default: {PARAMETER}}}, {{name: day, default: monday}}]
        env_vars: {{PIPELINE_TOKEN: "{TASK}"}}
        tasks:
          - task: tells
            type: python
            source: code
            labels: {{password: "{{{{db_password}}}}", day: "{{{{api_token}}}}"}}
            cmd: "python tells.py --pw {{{{db_password}}}} {{{{warehouse}}}} {{{{api_token}}}}"
            env_vars: {{CLOUD: "{{{{secret.cloud}}}}", DATABASE: "{{{{secret.db}}}}"}}
            secrets: [{{secret: cloud, remote_path: secret}}]
            output_path: out.json
          - task: echoes
            type: python
            source: code
            input: task:tells
            module: tells
            function: echo
          - task: fails
            type: python
            source: code
            module: tells
            function: fail
            input: task:tells
            retries: 1
"""
CODE = """
    import base64
    import json
    import os
    import sys


    def seen():
        return [*sys.argv[1:], *(os.environ[name] for name in ("CLOUD", "DATABASE", "PIPELINE_TOKEN", "MY_ACCESS_KEY") if name in os.environ)]


    def echo(given):
        print(given)
        return given


    def fail(given):
        sys.exit(f"cannot work with {given}")


    if __name__ == "__main__":
        for one in seen():
            print(one)
            print(json.dumps({"a": one}), file=sys.stderr)
            print(base64.b64encode(one.encode()).decode())
            print(repr(one) * 3)
        json.dump(seen(), open("out.json", "w"))
"""


def leaks(text: str) -> list[str]:
    """The secrets that a text shows in any form that a person can read back."""
    found = [one for one in ALL if one in text or json.dumps(one)[1:-1] in text]
    return found + [one for one in ALL if base64.b64encode(one.encode()).decode().rstrip("=") in text]


@pytest.fixture
def root(project: Project) -> Path:
    return project({"rainbow.yml": YAML, "code/tells.py": CODE, "creds/cloud.txt": f"{FILE}\n"})


@pytest.fixture
def env() -> dict[str, str]:
    return {"DB": ENV, "MY_ACCESS_KEY": INHERITED}


def post(url: str, data: dict[str, Any]) -> str:
    request = urllib.request.Request(url, json.dumps(data).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


def test_check_show_and_plan(root: Path, rainbow: Rainbow, env: dict[str, str]) -> None:
    for args in (["check"], ["show"], ["show", "--json"], ["plan"], ["plan", "--json"]):
        done = rainbow(*args, root, env=env)

        assert leaks(done.out + done.err) == []


def test_a_problem_at_a_secret(root: Path, project: Project, rainbow: Rainbow, env: dict[str, str]) -> None:
    project(
        {
            "rainbow.yml": YAML
            + '            timeout_minutes: "{{db_password}}"\n            input_type: "{{warehouse}}"\n'
        }
    )

    done = rainbow("check", root, "--json", env=env, code=2)

    assert done.json["problems"]
    assert leaks(done.out + done.err) == []


def test_a_run(root: Path, rainbow: Rainbow, env: dict[str, str], prefect_server: str) -> None:
    done = rainbow("run", root, "--json", env=env, code=1)

    report = done.json
    assert [one["state"] for one in report["tasks"]] == ["completed", "completed", "failed"]
    assert len(report["tasks"][0]["output"]) == 8
    assert leaks(done.out + done.err) == []
    run_id = report["flow_run_id"]
    logs = post(f"{prefect_server}/logs/filter", {"logs": {"flow_run_id": {"any_": [run_id]}}, "limit": 200})
    assert "********" in logs
    assert leaks(logs) == []
    of_run = {"flow_runs": {"id": {"any_": [run_id]}}}
    assert leaks(post(f"{prefect_server}/flow_runs/filter", of_run)) == []
    assert leaks(post(f"{prefect_server}/task_runs/filter", of_run)) == []
    assert leaks(post(f"{prefect_server}/flows/filter", {})) == []
    assert leaks(post(f"{prefect_server}/artifacts/filter", {})) == []
    for args in (["logs", run_id], ["runs", "--json"]):
        again = rainbow(*args, env=env)
        assert leaks(again.out + again.err) == []


def test_a_run_that_is_shown_to_people(root: Path, rainbow: Rainbow, env: dict[str, str], prefect_server: str) -> None:
    done = rainbow("run", root, "--param", "api_token=given-s3cret-Hh8", env=env, code=1)

    assert leaks(done.out + done.err) == []
    assert "given-s3cret-Hh8" not in done.out + done.err


def test_a_secret_that_is_missing_names_its_place_only(root: Path, rainbow: Rainbow, prefect_server: str) -> None:
    done = rainbow("run", root, "--json", env={"DB": ""}, code=1)

    assert (
        "secret 'db': the environment variable DB is empty; set it before the run" in done.json["tasks"][0]["message"]
    )
    assert leaks(done.out + done.err) == []
