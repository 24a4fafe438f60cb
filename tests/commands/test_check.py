"""`rainbow check`: its lines, its JSON, its exit status."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Project, Rainbow

GOOD = """
    name: good
    pipelines:
      - pipeline: p
        tasks:
          - {task: t, type: python, cmd: echo hello}
    services:
      - {service: s, type: python_server, image: i}
"""
BAD = """
    name: bad
    pipelines:
      - pipeline: p
        timeout_minutes: 0
        tasks:
          - {task: t, type: pyton, cmd: echo hello}
"""


def test_good_file_has_a_summary(rainbow: Rainbow, project: Project) -> None:
    done = rainbow("check", project({"rainbow.yml": GOOD}))

    assert (done.out, done.err) == ("1 file, 1 pipeline, 1 service, no errors\n", "")


def test_folder_is_the_current_one_by_default(rainbow: Rainbow, project: Project) -> None:
    assert rainbow("check", cwd=project({"rainbow.yml": GOOD})).out == "1 file, 1 pipeline, 1 service, no errors\n"


def test_every_problem_is_a_line_with_its_place(rainbow: Rainbow, project: Project) -> None:
    done = rainbow("check", project({"rainbow.yml": BAD}), code=2)

    lines = done.out.splitlines()
    assert (
        lines[0]
        == "rainbow.yml:4:22: pipeline 'p': `timeout_minutes` must be more than 0, got 0; leave the key out for no limit"
    )
    assert lines[1].startswith(
        "rainbow.yml:6:25: pipeline 'p', task 't': unknown task type 'pyton'; did you mean 'python'?"
    )
    assert lines[2] == "1 file, no pipelines, 2 errors"


def test_json_tells_what_loaded_and_every_problem(rainbow: Rainbow, project: Project) -> None:
    folder = project({"a/rainbow.yml": BAD, "b/rainbow.yml": GOOD})

    shown = rainbow("check", folder, "--json", code=2).json

    assert (shown["apps"], shown["pipelines"], shown["services"]) == (["good"], ["p"], ["s"])
    assert shown["problems"][0] == {
        "severity": "error",
        "file": "a/rainbow.yml",
        "line": 4,
        "column": 22,
        "path": "pipelines[0].timeout_minutes",
        "message": "pipeline 'p': `timeout_minutes` must be more than 0, got 0",
        "hint": "leave the key out for no limit",
    }


def test_warning_is_no_error(rainbow: Rainbow, project: Project) -> None:
    text = GOOD.replace(
        "pipeline: p\n", "pipeline: p\n        schedule: 0 1 * * *\n        schedule_interval: 0 2 * * *\n"
    )

    done = rainbow("check", project({"rainbow.yml": text}))

    assert done.out == (
        "rainbow.yml:4:5: warning: pipeline 'p': `schedule` is not used: `schedule_interval` wins; remove one of them\n"
        "1 file, 1 pipeline, 1 service, no errors, 1 warning\n"
    )


def test_folder_without_a_file_is_a_wrong_call(rainbow: Rainbow, tmp_path: Path) -> None:
    done = rainbow("check", tmp_path, code=2)

    assert done.err == f"Error: there is no rainbow.yml in '{tmp_path}' or below; `rainbow init` writes one\n"


def test_path_that_does_not_exist_is_a_wrong_call(rainbow: Rainbow, tmp_path: Path) -> None:
    done = rainbow("check", tmp_path / "nowhere", "--json", code=2)

    assert str(tmp_path / "nowhere") in done.json["error"]


def test_second_check_sees_what_changed(rainbow: Rainbow, project: Project) -> None:
    folder = project({"rainbow.yml": GOOD})
    first = rainbow("check", folder)
    project({"rainbow.yml": BAD})

    second = rainbow("check", folder, code=2)

    assert first.out != second.out
