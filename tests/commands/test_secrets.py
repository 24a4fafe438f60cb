"""No secret shows in anything that `rainbow run` and its sisters print, or that Prefect keeps."""

from __future__ import annotations

import json

import pytest

from tests.commands.conftest import Call, api
from tests.conftest import Project

SECRETS = {
    "of_env": "s3cr3t-of-env",
    "of_file": "s3cr3t-of-file",
    "of_variable": "s3cr3t-of-variable",
    "of_url": "s3cr3t-of-url",
    "of_parameter": "s3cr3t-of-parameter",
    "of_environment": "s3cr3t-of-environment",
}

CONFIG = """
    name: shop
    variables:
      db_password: s3cr3t-of-variable
      database: postgres://me:s3cr3t-of-url@db/shop
    secrets:
      - {secret: key, env: SHOP_KEY}
      - {secret: file, local_path_file: key.txt}
    pipelines:
      - pipeline: NAME
        parameters: [{name: api_token, type: str}]
        tasks:
          - task: leak
            type: python
            source: code
            cmd: python -u leak.py {{secret.key}} {{secret.file}} {{db_password}} {{database}} {{api_token}}
            input: {password: s3cr3t-of-variable, url: "{{database}}"}
            output_path: out.json
          - task: fail
            type: python
            source: code
            cmd: python -u leak.py {{secret.key}} {{secret.file}} {{db_password}} {{database}} {{api_token}} fail
            input: ["{{secret.key}}", "{{api_token}}"]
            split_input: true
            executors: 2
"""

LEAK = """
    import base64, json, os, sys

    words = [*sys.argv[1:], os.environ["SHOP_ENVIRONMENT_PASSWORD"]]
    print("words:", *words)
    print("as base64:", *(base64.b64encode(word.encode()).decode() for word in words))
    print(json.dumps({"in json": words}), file=sys.stderr)
    json.dump({"got": words, words[0]: 1}, open("out.json", "w"))
    if words[-2] == "fail":
        raise SystemExit("could not log in with " + " ".join(words))
"""


@pytest.mark.parametrize("how", [["--json"], []], ids=["json", "text"])
def test_no_secret_is_shown_or_kept(
    call: Call, project: Project, prefect_api: str, monkeypatch: pytest.MonkeyPatch, name: str, how: list[str]
) -> None:
    folder = project({"rainbow.yml": CONFIG.replace("NAME", name), "key.txt": "s3cr3t-of-file\n", "code/leak.py": LEAK})
    monkeypatch.setenv("SHOP_KEY", SECRETS["of_env"])
    monkeypatch.setenv("SHOP_ENVIRONMENT_PASSWORD", SECRETS["of_environment"])

    done = call("run", folder, "--param", f"api_token={SECRETS['of_parameter']}", *how, code=1)
    (run,) = call("runs", "--pipeline", name, "--json").json["runs"]
    logs = call("logs", run["flow_run_id"])
    kept = [
        api(prefect_api, f"flow_runs/{run['flow_run_id']}"),
        api(prefect_api, "logs/filter", {"logs": {"flow_run_id": {"any_": [run["flow_run_id"]]}}}),
        api(prefect_api, "task_runs/filter", {"flow_runs": {"id": {"any_": [run["flow_run_id"]]}}}),
    ]

    everything = "\n".join([done.out, done.err, logs.out, json.dumps(run), json.dumps(kept)])
    assert run["state"] == "failed"
    assert "words: ********" in logs.out
    assert [name for name, value in SECRETS.items() if value in everything] == []
    assert "s3cr3t" not in everything
