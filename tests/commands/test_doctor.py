"""`rainbow doctor`: what is there and what is not, with real servers and stores."""

from __future__ import annotations

from typing import Any

from tests.conftest import Project, Rainbow, free_port

TEXT = """
    name: {name}
    sources:
      - {{source: here, url: "sqlite:///{folder}/a.db"}}
      - {{source: away, url: "postgresql://me:pa55word@127.0.0.1:{port}/db"}}
      - {{source: hidden, url: "{{{{secret.nowhere}}}}"}}
    secrets: [{{secret: nowhere, env: NOWHERE_AT_ALL}}]
    images: [{{image: "127.0.0.1:{port}/a:1", source: src}}]
    work_pool: {name}
    work_pools: [{{work_pool: {name}, type: process}}]
    pipelines:
      - {{pipeline: {name}, schedule: "@daily", tasks: [{{task: a, type: python, cmd: "true"}}]}}
"""


def findings(report: Any) -> dict[str, Any]:
    return {one["text"].split(":")[0] if one["part"] == "stores" else one["part"]: one for one in report["findings"]}


def test_what_is_missing_is_told_with_what_to_do(
    rainbow: Rainbow, project: Project, prefect_server: str, name: str, tmp_path: Any
) -> None:
    port = free_port()
    folder = project({"rainbow.yml": TEXT.format(name=name, folder=tmp_path, port=port), "src/a.py": ""})

    done = rainbow("doctor", folder, "--json", code=1)

    found = findings(done.json)
    assert done.json["ok"] is False
    assert found["server"]["state"] == "ok"
    assert (found["work pool"]["text"], found["work pool"]["fix"]) == (
        f"'{name}' is not on the server", "rainbow deploy makes it"
    )  # fmt: skip
    assert found["deployments"]["fix"] == "rainbow deploy"
    assert found["source 'here' opens"]["state"] == "ok"
    assert found["source 'away'"]["state"] == "error"
    assert "pa55word" not in done.out + done.err
    assert found["source 'hidden'"]["text"].endswith("the environment variable NOWHERE_AT_ALL is not set")
    assert found["aws"]["state"] == "not used"


def test_a_pool_without_a_worker_is_told(rainbow: Rainbow, project: Project, prefect_server: str, name: str) -> None:
    text = f"""
        name: {name}
        work_pool: {name}
        work_pools: [{{work_pool: {name}, type: process}}]
        pipelines:
          - {{pipeline: {name}, schedule: "@daily", tasks: [{{task: a, type: python, cmd: "true"}}]}}
    """
    folder = project({"rainbow.yml": text})
    rainbow("deploy", "--yes", cwd=folder)

    done = rainbow("doctor", folder, code=1)

    assert f"XX  work pool: '{name}' (process) has no worker that is alive\n" in done.out
    assert f"      prefect worker start --pool '{name}' --type process\n" in done.out
    assert "ok  deployments: 1 pipelines with a schedule are deployed\n" in done.out
    assert "--  docker: no image is built and no task runs in a container\n" in done.out


def test_a_server_that_is_away_is_an_error(rainbow: Rainbow, project: Project) -> None:
    folder = project({"rainbow.yml": "name: a\npipelines: [{pipeline: b, tasks: []}]\n"})

    env = {"PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api", "PREFECT_API_REQUEST_TIMEOUT": "2"}
    done = rainbow("doctor", folder, "--json", env=env, code=1)

    assert findings(done.json)["server"]["state"] == "error"


def test_a_laptop_without_a_server_is_fine(rainbow: Rainbow, project: Project, tmp_path: Any) -> None:
    folder = project({"rainbow.yml": "name: a\npipelines: [{pipeline: b, tasks: []}]\n"})

    done = rainbow("doctor", folder, "--json", env={"PREFECT_HOME": str(tmp_path / "home"), "PREFECT_API_URL": ""})

    assert findings(done.json)["server"]["state"] in ("ok", "warning")  # somebody may have one on port 4200
