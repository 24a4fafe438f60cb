"""The public Python API: what it is, and that its names cost nothing until they are used."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rainbow_prefect
from rainbow_prefect import engine
from rainbow_prefect.errors import CallError, ConfigError
from tests.conftest import Project

YAML = """
    name: words
    pipelines:
      - pipeline: words
        parameters: [{name: mark, type: str, default: "!"}]
        tasks:
          - task: loud
            type: python
            source: code
            module: loud
            function: shout
            env_vars: {MARK: "{{mark}}"}
            input: [a, b]
"""
CODE = """
    import os


    def shout(words):
        return [word + os.environ["MARK"] for word in words]
"""


def python(code: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", rainbow_prefect.__all__)
def test_every_public_name_is_there_and_told(name: str) -> None:
    value = getattr(rainbow_prefect, name)

    if name != "__version__":
        assert inspect.getdoc(value)
        assert value.__name__ == name


def test_what_editors_see_is_what_is_there() -> None:
    tree = ast.parse(Path(rainbow_prefect.__file__).read_text())
    (block,) = (one for one in tree.body if isinstance(one, ast.If))

    seen = {alias.name: one.module for one in block.body if isinstance(one, ast.ImportFrom) for alias in one.names}

    assert seen == rainbow_prefect._HOMES
    assert {*seen, "__version__"} == set(rainbow_prefect.__all__)
    assert rainbow_prefect.__all__ == sorted(rainbow_prefect.__all__)


def test_dir_lists_the_names() -> None:
    assert set(rainbow_prefect.__all__) <= set(dir(rainbow_prefect))


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError) as told:
        _ = rainbow_prefect.laod

    assert str(told.value) == "module 'rainbow_prefect' has no attribute 'laod'"


def test_the_import_costs_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import rainbow_prefect\n"
        "print(sorted(one for one in set(sys.modules) - before if not one.startswith('rainbow_prefect')))"
    )

    assert set(ast.literal_eval(python(code))) <= {"importlib", "typing", "collections.abc", "re", "functools"} | set(
        sys.stdlib_module_names
    ) | {name for name in ast.literal_eval(python(code)) if name.partition(".")[0] in sys.stdlib_module_names}


def test_load_and_plan_do_without_prefect(project: Project) -> None:
    root = project({"rainbow.yml": YAML, "code/loud.py": CODE})
    code = (
        "import sys, rainbow_prefect\n"
        f"plan = rainbow_prefect.load({str(root)!r}).pipeline('words').plan()\n"
        "print([step.name for step in plan.steps], 'prefect' in sys.modules)"
    )

    assert python(code) == "['loud'] False\n"


def test_a_pipeline_runs_from_python(project: Project, prefect_api: str) -> None:
    root = project({"rainbow.yml": YAML, "code/loud.py": CODE})

    report = rainbow_prefect.load(root).pipeline("words").run(parameters={"mark": "?"})

    assert isinstance(report, rainbow_prefect.Report)
    assert (report.state, report["loud"].output) == ("completed", ["a?", "b?"])


def test_parameters_leave_the_names_of_the_file_known(project: Project) -> None:
    root = project(
        {
            "rainbow.yml": """
                name: words
                executors: [{executor: near, type: process}]
                volumes: [{volume: data, local: {path: .}}]
                secrets: [{secret: cloud, env: CLOUD}]
                pipelines:
                  - pipeline: words
                    parameters: [{name: mark}]
                    tasks:
                      - task: loud
                        type: python
                        executor: near
                        cmd: echo {{mark}} {{secret.cloud}}
                        mounts: [{mount: m, volume: data, path: /mnt/data}]
                        secrets: [{secret: cloud, env: CLOUD}]
            """
        }
    )

    bound = rainbow_prefect.load(root).pipeline("words").bind({"mark": "?"})

    assert bound.task("loud").cmd == "echo ? {{secret.cloud}}"


def test_a_flow_is_built_from_a_plan(project: Project) -> None:
    from prefect import Flow

    root = project({"rainbow.yml": YAML, "code/loud.py": CODE})

    flow = rainbow_prefect.build_flow(rainbow_prefect.load(root).pipeline("words").plan())

    assert isinstance(flow, Flow)
    assert flow.name == "words"


def test_a_broken_file_is_a_config_error_with_its_problems(project: Project) -> None:
    root = project({"rainbow.yml": "name: words\npipelins: []\n"})

    with pytest.raises(ConfigError) as told:
        rainbow_prefect.load(root)

    assert [str(one.mark) for one in told.value.problems] == ["rainbow.yml:2:1"]


def test_an_unknown_pipeline_is_a_call_error(project: Project) -> None:
    root = project({"rainbow.yml": YAML, "code/loud.py": CODE})

    with pytest.raises(CallError) as told:
        rainbow_prefect.load(root).pipeline("word")

    assert "did you mean 'words'?" in str(told.value)


def test_engine_is_where_flows_are_built() -> None:
    assert rainbow_prefect.build_flow is engine.build_flow
    assert importlib.import_module("rainbow_prefect.engine") is engine
