"""`rainbow init`: a project that checks, runs and tests itself, and never overwrites."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.conftest import Rainbow

FILES = ["rainbow.yml", "src/hello.py", "src/report.py", "tests/test_hello.py", ".gitignore", ".rainbow/schema.json"]


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_project_is_written_and_checks(rainbow: Rainbow, tmp_path: Path) -> None:
    done = rainbow("init", "my project")

    folder = tmp_path / "my project"
    assert files_in(folder) == sorted(FILES)
    assert done.out.startswith("Wrote 6 files into my project:\n  rainbow.yml\n")
    assert "  cd 'my project'\n  rainbow check\n  rainbow run\n  pytest\n" in done.out
    assert yaml.safe_load((folder / "rainbow.yml").read_text())["name"] == "my-project"
    assert rainbow("check", folder).out == "1 file, 1 pipeline, no errors\n"


def test_editor_finds_the_schema_and_it_takes_the_file(rainbow: Rainbow, tmp_path: Path) -> None:
    rainbow("init")

    first, _, text = (tmp_path / "rainbow.yml").read_text().partition("\n")
    assert first == "# yaml-language-server: $schema=.rainbow/schema.json"
    schema = json.loads((tmp_path / ".rainbow/schema.json").read_text())
    assert [error.message for error in Draft202012Validator(schema).iter_errors(yaml.safe_load(text))] == []
    assert schema == rainbow("schema").json


@pytest.mark.slow
def test_project_runs_at_once(rainbow: Rainbow, prefect_server: str) -> None:
    rainbow("init", "shop")

    report = rainbow("run", "shop", "--param", "greeting=Hi", "--json").json

    assert report["state"] == "completed"
    tasks = {task["task"]: task for task in report["tasks"]}
    assert tasks["greet"]["output"] == [["Hi, Ada!", "Hi, Grace!"], ["Hi, Katherine!", "Hi, Mary!"]]
    assert tasks["report"]["output"] == {"greeted": 4}


@pytest.mark.slow
def test_tests_of_the_project_pass(rainbow: Rainbow, prefect_server: str, tmp_path: Path) -> None:
    rainbow("init", "shop")
    env = {**os.environ, "RAINBOW_TEST_API_URL": prefect_server}

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"], cwd=tmp_path / "shop", env=env, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_json_lists_the_files_and_what_is_next(rainbow: Rainbow) -> None:
    shown = rainbow("init", "--json").json

    assert shown["files"] == FILES
    assert shown["next"] == ["rainbow check", "rainbow run", "pytest"]


def test_nothing_is_overwritten(rainbow: Rainbow, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "rainbow.yml").write_text("mine")

    done = rainbow("init", "shop", code=2)

    assert done.err == "Error: rainbow.yml exists in shop, nothing was written; choose another NAME\n"
    assert files_in(tmp_path / "shop") == ["rainbow.yml"]
    assert (tmp_path / "shop" / "rainbow.yml").read_text() == "mine"


def test_gitignore_of_the_folder_is_kept(rainbow: Rainbow, tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("mine")

    rainbow("init")

    assert (tmp_path / ".gitignore").read_text() == "mine"
    assert (tmp_path / "rainbow.yml").exists()


def test_second_time_is_an_error(rainbow: Rainbow) -> None:
    rainbow("init")

    done = rainbow("init", "--json", code=2)

    assert done.json == {
        "error": "rainbow.yml, src/hello.py, src/report.py and tests/test_hello.py exist here, nothing was written; "
        "choose another NAME"
    }


def test_folder_that_cannot_be_made_is_an_error(rainbow: Rainbow, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    done = rainbow("init", "file/shop", code=2)

    assert done.err == "Error: cannot write file/shop: not a directory\n"


def test_a_name_that_is_too_long_is_told(rainbow: Rainbow) -> None:
    done = rainbow("init", "a" * 300, code=2)

    assert done.err == f"Error: cannot write {'a' * 300}: file name too long\n"
