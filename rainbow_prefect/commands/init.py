"""`rainbow init [NAME]`: a small project that runs at once. The files it writes are below, as they are written."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import click

from ..errors import CallError
from .options import json_option, print_json

_CONFIG = """\
# yaml-language-server: $schema=.rainbow/schema.json
name: {name}

variables:
  code: src

pipelines:
  - pipeline: hello
    description: Greets a list of people, two at a time.
    schedule: 0 6 * * *
    timeout_minutes: 10
    parameters:
      - {{name: greeting, type: str, default: Hello}}
    tasks:
      - task: people
        type: python
        description: Gives the list that the next task splits.
        source: "{{{{code}}}}"
        module: hello
        function: people

      - task: greet
        type: python
        description: Runs twice at once, each with half of the list.
        source: "{{{{code}}}}"
        module: hello
        function: greet
        env_vars: {{GREETING: "{{{{greeting}}}}"}}
        input: task:people
        split_input: true
        executors: 2

      - task: report
        type: python
        description: Any command will do; it reads and writes JSON files.
        source: "{{{{code}}}}"
        cmd: python report.py
        input: task:greet
        output_path: report.json
"""

_HELLO = '''\
"""The code of the pipeline: plain Python, nothing of rainbow in it."""

import os


def people():
    return ["Ada", "Grace", "Katherine", "Mary"]


def greet(names):
    greeting = os.environ.get("GREETING", "Hello")
    return [f"{greeting}, {name}!" for name in names]
'''

_REPORT = '''\
"""A task as a script: its input is in a file, its output goes to one."""

import json
import os

with open(os.environ["RAINBOW_INPUT_PATH"]) as file:
    parts = json.load(file)

lines = [line for part in parts for line in part]
for line in lines:
    print(line)

with open(os.environ["RAINBOW_OUTPUT_PATH"], "w") as file:
    json.dump({"greeted": len(lines)}, file)
'''

_TEST = '''\
"""Tests of the pipeline; run them with `pytest`."""


def test_greet_says_each_name(run_task):
    report = run_task("greet", ["Ada", "Grace"])

    assert report.output == [["Hello, Ada!"], ["Hello, Grace!"]]


def test_pipeline_greets_everybody(run_pipeline):
    report = run_pipeline("hello", {"greeting": "Good morning"})

    assert report.state == "completed"
    assert report["report"].output == {"greeted": 4}
'''

_IGNORED = """\
__pycache__/
.pytest_cache/
.venv/
.env
"""

_KEPT = (".gitignore", ".rainbow/schema.json")
"""A folder that has these already keeps its own."""

_NAME = re.compile(r"[^A-Za-z0-9_-]+")


@click.command()
@click.argument("name", default=".", required=False, type=click.Path(path_type=Path))
@json_option
def command(name: Path, as_json: bool) -> None:
    """Write a small project that runs at once, into the folder NAME (default: this one).

    Nothing that exists is overwritten.
    """
    folder = name.expanduser()
    files = {file: text for file, text in _files(folder).items() if not (file in _KEPT and _is_there(folder / file))}
    _write(folder, files)
    steps = [*([] if name == Path() else [f"cd {shlex.quote(str(folder))}"]), "rainbow check", "rainbow run", "pytest"]
    if as_json:
        print_json({"folder": folder, "files": list(files), "next": steps})
        return
    click.echo(f"Wrote {len(files)} files" + ("" if name == Path() else f" into {folder}") + ":")
    for file in files:
        click.echo(f"  {file}")
    click.echo("Try next:")
    for step in steps:
        click.echo(f"  {step}")


def _files(folder: Path) -> dict[str, str]:
    """The text of every file by its path below the project's folder."""
    from ..app import json_schema

    name = _NAME.sub("-", folder.absolute().resolve().name).strip("-") or "hello"
    return {
        "rainbow.yml": _CONFIG.format(name=name),
        "src/hello.py": _HELLO,
        "src/report.py": _REPORT,
        "tests/test_hello.py": _TEST,
        ".gitignore": _IGNORED,
        ".rainbow/schema.json": json.dumps(json_schema(), indent=2) + "\n",
    }


def _write(folder: Path, files: dict[str, str]) -> None:
    """Write all files or none.

    Raises:
        CallError: one of them exists, or the folder cannot be written.
    """
    there = [file for file in files if _is_there(folder / file)]
    if there:
        where = "here" if folder == Path() else f"in {folder}"
        verb = "exists" if len(there) == 1 else "exist"
        raise CallError(f"{_listed(there)} {verb} {where}, nothing was written; choose another NAME")
    try:
        for file, text in files.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as new:
                new.write(text)
    except OSError as error:
        raise CallError(f"cannot write {error.filename or folder}: {(error.strerror or str(error)).lower()}") from error


def _is_there(path: Path) -> bool:
    return os.path.lexists(path)  # which is False, too, for a name that is too long


def _listed(names: list[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
