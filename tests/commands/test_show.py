"""`rainbow show`: merged and rendered, as YAML and JSON, without secrets."""

from __future__ import annotations

import datetime
from pathlib import Path

import yaml

from tests.conftest import Project, Rainbow

FILES = {
    "base/rainbow.yml": """
        name: base
        type: super
        task_defaults:
          python: {retries: 2}
    """,
    "rainbow.yml": """
        name: app
        super: base
        owner: data team
        variables: {city: Berlin, db_password: hunter22}
        pipelines:
          - pipeline: p
            start_date: 2024-01-31
            tasks:
              - task: t
                type: python
                cmd: |
                  echo {{city}}
                  echo done
                env_vars: {DB: "postgres://me:{{db_password}}@db/x", PLAIN: "it is hunter22"}
        services:
          - service:
            name: s
            type: python_server
            image: i
    """,
}


def test_yaml_is_merged_rendered_and_valid(rainbow: Rainbow, project: Project) -> None:
    shown = rainbow("show", project(FILES)).out

    assert shown.startswith("# rainbow.yml\nname: app\nowner: data team\n")
    assert "cmd: |\n      echo Berlin\n      echo done\n" in shown
    data = yaml.safe_load(shown)
    assert data["pipelines"][0]["tasks"][0]["retries"] == 2
    assert data["pipelines"][0]["start_date"] == datetime.date(2024, 1, 31)
    assert "super" not in data


def test_json_has_every_app_with_its_file(rainbow: Rainbow, project: Project) -> None:
    other = {"more/rainbow.yml": "name: more\npipelines:\n  - {pipeline: q, tasks: []}\n"}

    apps = rainbow("show", project({**FILES, **other}), "--json").json["apps"]

    assert [(app["file"], app["name"], app["owner"]) for app in apps] == [
        ("more/rainbow.yml", "more", None),
        ("rainbow.yml", "app", "data team"),
    ]
    assert apps[1]["pipelines"][0]["start_date"] == "2024-01-31"
    assert apps[1]["services"][0]["service"] == "s"
    assert apps[0]["services"] == []


def test_secrets_are_stars_wherever_they_stand(rainbow: Rainbow, project: Project) -> None:
    for words in ([], ["--json"]):
        shown = rainbow("show", project(FILES), *words).out

        assert "hunter22" not in shown
        assert "postgres://me:********@db/x" in shown
        assert "it is ********" in shown


def test_secret_of_the_environment_is_stars(rainbow: Rainbow, project: Project) -> None:
    text = FILES["rainbow.yml"].replace("{{city}}", "{{API_TOKEN}}")

    shown = rainbow("show", project({**FILES, "rainbow.yml": text}), env={"API_TOKEN": "s3cr3t-value"}).out

    assert "s3cr3t-value" not in shown
    assert "echo ********\n" in shown


def test_secret_from_a_file_is_not_read(rainbow: Rainbow, project: Project) -> None:
    files = {
        "rainbow.yml": """
            name: app
            secrets: [{secret: cloud, local_path_file: key.txt}]
            pipelines:
              - pipeline: p
                tasks: [{task: t, type: python, cmd: echo, env_vars: {KEY: "{{secret.cloud}}"}}]
        """,
        "key.txt": "s3cr3t-value",
    }

    shown = rainbow("show", project(files)).out

    assert "s3cr3t-value" not in shown
    assert "KEY: '{{secret.cloud}}'" in shown


def test_one_pipeline_alone(rainbow: Rainbow, project: Project) -> None:
    other = {"more/rainbow.yml": "name: more\npipelines:\n  - {pipeline: q, tasks: []}\n"}

    apps = rainbow("show", project({**FILES, **other}), "-p", "q", "--json").json["apps"]

    assert [app["name"] for app in apps] == ["more"]


def test_unknown_pipeline_has_a_near_match(rainbow: Rainbow, project: Project) -> None:
    done = rainbow("show", project({"rainbow.yml": "name: a\npipelines:\n  - {pipeline: sales, tasks: []}\n"}), "-p", "sale", code=2)  # fmt: skip

    assert done.err == "Error: there is no pipeline 'sale'; did you mean 'sales'?\n"


def test_broken_file_does_not_hide_the_others(rainbow: Rainbow, project: Project) -> None:
    done = rainbow("show", project({**FILES, "broken/rainbow.yml": "name: [\n"}), "--json", code=2)

    assert [app["name"] for app in done.json["apps"]] == ["app"]
    assert done.json["problems"][0]["file"] == "broken/rainbow.yml"
    assert done.err.startswith("broken/rainbow.yml:")


def test_only_broken_files_give_problems(rainbow: Rainbow, tmp_path: Path, project: Project) -> None:
    done = rainbow("show", project({"rainbow.yml": "name: a\nvariables: {x: '{{y}}'}\npipelines: ['{{x}}']\n", "b/rainbow.yml": "- 1\n"}), "--json", code=2)  # fmt: skip

    assert {one["file"] for one in done.json["problems"]} == {"rainbow.yml", "b/rainbow.yml"}
