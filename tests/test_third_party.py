"""A real third-party package, built and installed in the test: its task, executor and observer enter like our own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Project, Rainbow

PYPROJECT = """
    [build-system]
    requires = ["hatchling"]
    build-backend = "hatchling.build"

    [project]
    name = "rainbow-shouting"
    version = "1.2"

    [project.entry-points."rainbow_prefect.tasks"]
    shout = "rainbow_shouting:Shout"
    python = "rainbow_shouting:NotPython"
    gone = "rainbow_shouting_gone:Gone"
    odd = "rainbow_shouting:shout"
    exits = "rainbow_shouting.exits:Exits"

    [project.entry-points."rainbow_prefect.executors"]
    told = "rainbow_shouting:Told"

    [project.entry-points."rainbow_prefect.observers"]
    diary = "rainbow_shouting:Diary"
    tally = "rainbow_shouting:Tally"

    [tool.hatch.build.targets.wheel]
    packages = ["rainbow_shouting"]
"""

CODE = '''
    """Types for rainbow-prefect by somebody else."""

    import os
    from pathlib import Path
    from typing import Literal

    from pydantic import Field

    from rainbow_prefect import Command, Event, Executor, Metric, Metrics, Observer, Output, Run, Task


    def shout(words: list[str], mark: str) -> list[str]:
        return [word.upper() + mark for word in words]


    class Shout(Task):
        """Say the input louder."""

        type: Literal["shout"] = "shout"
        mark: str = Field(default="!", description="What ends each word.")

        def run(self, run: Run) -> list[str]:
            run.write(f"shouting {len(run.input)} words")
            return shout(run.input, self.mark)


    class NotPython(Task):
        """Tries to take a name that is built in."""

        type: Literal["python"] = "python"


    class Told(Executor):
        """Answers with what it was told to run."""

        type: Literal["told"] = "told"
        prefix: str = Field(default="", description="What comes first.")

        def run(self, command: Command, run: Run) -> Output:
            run.write("told")
            return Output({"told": f"{self.prefix}{command.shell}", "input": run.input})


    class Diary(Observer):
        """Writes every event that ends something into a file."""

        type: Literal["diary"] = "diary"
        path: str

        def on_task_finished(self, event: Event) -> None:
            with Path(self.path).open("a") as file:
                file.write(f"{event.task} {event.state}\\n")

        def on_run_finished(self, event: Event) -> None:
            with Path(self.path).open("a") as file:
                file.write(f"{event.pipeline} {event.state}\\n")


    class Tally(Metrics):
        """A metrics backend that always says no."""

        type: Literal["tally"] = "tally"

        def send(self, metric: Metric, time: float) -> None:
            raise ConnectionError(f"the tally is full: {os.environ['TALLY_TOKEN']}")
'''

YAML = """
    name: words
    executors:
      - {executor: nobody, type: told, prefix: "$ "}
    observers:
      - {type: diary, path: DIARY}
    pipelines:
      - pipeline: words
        metrics: {namespace: Words, backends: [tally, log]}
        tasks:
          - {task: loud, type: shout, mark: "?", input: [a, b, c], split_input: true, executors: 2}
          - {task: ran, type: python, executor: nobody, cmd: rm -rf words, input: "task:loud"}
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package, for PYTHONPATH."""
    source = tmp_path_factory.mktemp("shouting")
    package = source / "rainbow_shouting"
    package.mkdir()
    (source / "pyproject.toml").write_text(textwrap.dedent(PYPROJECT))
    (package / "__init__.py").write_text(textwrap.dedent(CODE).lstrip())
    (package / "exits.py").write_text("raise SystemExit('no licence')\n")
    target = tmp_path_factory.mktemp("site")
    where = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target), str(source)]
    if importlib.util.find_spec("pip"):
        install = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", *where]
    else:
        install = [
            str(Path(sys.executable).with_name("uv")),
            "pip",
            "install",
            "-q",
            "--python",
            sys.executable,
            *where,
        ]
    done = subprocess.run(install, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def env(site: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(site)}


def task(text: str) -> dict[str, str]:
    return {"rainbow.yml": f"name: words\npipelines: [{{pipeline: words, tasks: [{{{text}}}]}}]\n"}


def test_the_check_knows_the_types(project: Project, rainbow: Rainbow, env: dict[str, str]) -> None:
    root = project({"rainbow.yml": YAML})

    assert rainbow("check", root, "--json", env=env).json["problems"] == []


def test_the_keys_of_a_type_are_checked(project: Project, rainbow: Rainbow, env: dict[str, str]) -> None:
    root = project(task("task: loud, type: shout, marc: x"))

    (problem,) = rainbow("check", root, "--json", env=env, code=2).json["problems"]

    assert (problem["line"], problem["hint"]) == (2, "did you mean 'mark'?")


def test_the_schema_shows_its_keys(rainbow: Rainbow, env: dict[str, str]) -> None:
    schema = json.dumps(rainbow("schema", env=env).json)

    assert "What ends each word." in schema
    assert "Answers with what it was told to run." in schema or "What comes first." in schema


def test_a_pipeline_of_its_types_runs(
    project: Project, rainbow: Rainbow, env: dict[str, str], prefect_server: str, tmp_path: Path
) -> None:
    root = project({"rainbow.yml": YAML.replace("DIARY", str(tmp_path / "diary.txt"))})

    report = rainbow("run", root, "--json", env=env | {"TALLY_TOKEN": "tok-12345"}).json

    assert report["state"] == "completed"
    assert [(one["task"], one["output"]) for one in report["tasks"]] == [
        ("loud", [["A?", "B?"], ["C?"]]),
        ("ran", {"told": "$ rm -rf words", "input": [["A?", "B?"], ["C?"]]}),
    ]
    assert sorted(report["tasks"][0]["log_tail"]) == ["shouting 1 words", "shouting 2 words"]
    assert sorted((tmp_path / "diary.txt").read_text().splitlines()) == [
        "loud completed",
        "ran completed",
        "words completed",
    ]
    assert report["warnings"] == ["metrics were not sent to tally: the tally is full: ********"]
    assert [one["name"] for one in report["metrics"]] == ["JobStarted", "JobResult", "JobDuration"]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (
            "gone",
            "task type 'gone' of rainbow_shouting_gone:Gone (rainbow-shouting 1.2) cannot be loaded: "
            "ModuleNotFoundError: No module named 'rainbow_shouting_gone'",
        ),
        (
            "odd",
            "task type 'odd' of rainbow_shouting:shout (rainbow-shouting 1.2) cannot be loaded: "
            "it is no subclass of Task",
        ),
        (
            "exits",
            "task type 'exits' of rainbow_shouting.exits:Exits (rainbow-shouting 1.2) cannot be loaded: "
            "SystemExit: no licence",
        ),
    ],
)
def test_a_broken_type_is_told_where_it_is_used(
    project: Project, rainbow: Rainbow, env: dict[str, str], kind: str, told: str
) -> None:
    root = project(task(f"task: a, type: {kind}"))

    (problem,) = rainbow("check", root, "--json", env=env, code=2).json["problems"]

    assert problem["message"].endswith(told)
    assert (problem["line"], problem["column"], problem["path"]) == (2, 55, "pipelines[0].tasks[0].type")


def test_broken_types_do_no_harm_where_they_are_not_used(
    project: Project, rainbow: Rainbow, env: dict[str, str]
) -> None:
    root = project(task("task: a, type: python, cmd: 'true'"))

    assert rainbow("check", root, env=env).code == 0


def test_what_is_built_in_cannot_be_taken(env: dict[str, str]) -> None:
    code = "from rainbow_prefect.registry import tasks; print(tasks.origin('python'))"

    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=True
    )

    assert done.stdout == "rainbow-prefect itself\n"


def test_a_near_type_is_offered(project: Project, rainbow: Rainbow, env: dict[str, str]) -> None:
    root = project(task("task: a, type: shuot"))

    (problem,) = rainbow("check", root, "--json", env=env, code=2).json["problems"]

    assert problem["message"].endswith("unknown task type 'shuot'")
    assert problem["hint"].startswith("did you mean 'shout'?")


def test_a_new_version_is_seen_at_once(project: Project, rainbow: Rainbow, env: dict[str, str], site: Path) -> None:
    """The cache of `rainbow check` must not answer for types that have changed."""
    root: Any = project(task("task: a, type: shout, volume: 3"))
    rainbow("check", root, env=env, code=2)
    code = site / "rainbow_shouting" / "__init__.py"
    old = code.read_text()
    try:
        code.write_text(
            old.replace('mark: str = Field(default="!"', 'volume: int = 1\n    mark: str = Field(default="!"')
        )
        assert rainbow("check", root, env=env).code == 0
    finally:
        code.write_text(old)
    rainbow("check", root, env=env, code=2)
