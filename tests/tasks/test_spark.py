"""The task type `spark`: its command line; `spark-submit` itself is a script of the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect.errors import TaskFailed
from rainbow_prefect.executors.process import Process
from rainbow_prefect.tasks.spark import Spark

from ..executors.contract import Bench


def task(**keys: Any) -> Spark:
    return Spark.model_validate({"task": "t", "application_source": "app.py", **keys})


def test_command_has_options_before_the_application() -> None:
    line = task(
        application_source="app.jar",
        **{"class": "org.example.Main"},
        master="yarn",
        conf={"spark.driver.maxResultSize": "1g", "spark.a": 1},
        application_arguments=["--x", 5, True],
    ).command_line()

    assert line == [
        *["spark-submit", "--master", "yarn", "--class", "org.example.Main"],
        *["--conf", "spark.a=1", "--conf", "spark.driver.maxResultSize=1g", "app.jar", "--x", "5", "true"],
    ]


def test_nested_settings_are_joined_with_dots() -> None:
    line = task(conf={"spark": {"yarn": {"executor.memoryOverhead": "500M"}, "ui.enabled": False}}).command_line()

    assert line[1:-1] == ["--conf", "spark.ui.enabled=false", "--conf", "spark.yarn.executor.memoryOverhead=500M"]


def test_arguments_as_a_mapping_alternate() -> None:
    query = "select *\nfrom t where a = 'x'"

    line = task(application_arguments={"--query": query, "--dry": None, "--n": 2}).command_line()

    assert line == ["spark-submit", "app.py", "--query", query, "--dry", "--n", "2"]


def submit(bench: Bench) -> dict[str, str]:
    """A `spark-submit` that writes its arguments and one variable."""
    text = "#!/usr/bin/env python3\nimport json, os, sys\nprint(json.dumps([sys.argv[1:], os.environ.get('SPARK_LOCAL_HOSTNAME')]))\n"
    folder = bench.code({"spark-submit": text}, "bin")
    (folder / "spark-submit").chmod(0o755)
    return {"PATH": f"{folder}:/usr/local/bin:/usr/bin:/bin"}


def test_arguments_meet_no_shell(tmp_path: Path) -> None:
    bench = Bench(Process(), tmp_path)

    task(application_arguments=["$HOME `id`", "a  b"]).run(bench.run(env=submit(bench)))

    assert json.loads(bench.lines[0]) == [["app.py", "$HOME `id`", "a  b"], "localhost"]


def test_env_vars_win(tmp_path: Path) -> None:
    bench = Bench(Process(), tmp_path)

    task(env_vars={"SPARK_LOCAL_HOSTNAME": "mine"}).run(bench.run(env=submit(bench)))

    assert json.loads(bench.lines[0])[1] == "mine"


def test_missing_spark_is_told(tmp_path: Path) -> None:
    bench = Bench(Process(), tmp_path)

    with pytest.raises(TaskFailed) as caught:
        task().run(bench.run(env={"PATH": "/nowhere"}))

    assert caught.value.message == (
        "the program 'spark-submit' is not on the PATH; install it, or name it with its folder"
    )


def test_the_application_may_be_in_the_image(tmp_path: Path) -> None:
    assert task().script() is None
    assert task(source="code").script() == ("application_source", "app.py")
    assert task(source="code", application_source="s3://b/app.py").script() is None
