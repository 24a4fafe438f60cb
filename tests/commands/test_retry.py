"""`rainbow retry`: only what did not complete runs again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.conftest import Call, api, ran, three_tasks
from tests.conftest import Project

CONFIG = three_tasks("[ $RAINBOW_SPLIT_ID != 1 ] || [ -e $HERE/mended ] || exit 3")

SECRET = """
    name: vault
    pipelines:
      - pipeline: secret
        parameters:
          - {name: api_token, type: str}
          - {name: day, type: str, default: monday}
        tasks:
          - {task: call, type: python, cmd: "echo {{day}} {{api_token}} | wc -c > $HERE/got; [ -e $HERE/mended ]"}
"""


@pytest.fixture
def folder(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = project({"rainbow.yml": CONFIG, "other/rainbow.yml": SECRET})
    monkeypatch.setenv("HERE", str(root))
    return root


def fail(call: Call, folder: Path) -> str:
    """The id of a run that failed."""
    report = call("run", "--pipeline", "sales", "--quiet", "--json", cwd=folder, code=1).json
    return str(report["flow_run_id"])


@pytest.mark.parametrize("called", ["id", "prefix", "name"])
def test_only_what_did_not_complete_runs_again(call: Call, folder: Path, prefect_api: str, called: str) -> None:
    first = call("run", "--pipeline", "sales", "--quiet", "--json", cwd=folder, code=1).json
    at_first = ran(folder)
    run_id = first["flow_run_id"]
    name = api(prefect_api, f"flow_runs/{run_id}")["name"]
    (folder / "mended").touch()

    words = {"id": run_id, "prefix": run_id[:13], "name": name}
    second = call("retry", words[called], "--quiet", "--json", cwd=folder).json

    assert at_first == ["add 0", "add 1", "add 2", "make"]
    assert ran(folder) == ["add 1", "report"]
    assert (second["flow_run_id"], second["state"]) == (run_id, "completed")
    assert [one["output"] for one in second["tasks"]][:2] == [[1, 2, 3], [[1], [2], [3]]]
    assert second["tasks"][2]["log_tail"] == ["[[1], [2], [3]]"]
    assert api(prefect_api, f"flow_runs/{run_id}")["state"]["type"] == "COMPLETED"


def test_retry_ends_as_run_does(call: Call, folder: Path) -> None:
    run_id = fail(call, folder)

    again = call("retry", run_id, "--path", folder, "--quiet", code=1)
    (folder / "mended").touch()
    mended = call("retry", run_id, "--path", folder, "--quiet")

    assert "✗ add     failed" in again.out
    assert f"when it is mended: rainbow retry {run_id[:8]}\n" in again.out
    assert "✓ report  completed" in mended.out


def test_run_that_completed_has_nothing_to_retry(call: Call, folder: Path) -> None:
    (folder / "mended").touch()
    run_id = call("run", "--pipeline", "sales", "--quiet", "--json", cwd=folder).json["flow_run_id"]

    done = call("retry", run_id, cwd=folder, code=2)

    assert done.err == f"Error: run {run_id} has completed; there is nothing to retry\n"


def test_secret_parameters_must_be_given_again(call: Call, folder: Path, prefect_api: str) -> None:
    secret = "tok-5up3r"
    words = ["--param", f"api_token={secret}", "--param", "day=friday"]
    report = call("run", "--pipeline", "secret", *words, "--quiet", "--json", cwd=folder, code=1).json
    (folder / "mended").touch()

    without = call("retry", report["flow_run_id"], cwd=folder, code=2)
    given = call("retry", report["flow_run_id"], "--param", f"api_token={secret}", "--quiet", "--json", cwd=folder)

    assert api(prefect_api, f"flow_runs/{report['flow_run_id']}")["parameters"] == {
        "api_token": "********",
        "day": "friday",
    }
    assert without.err == ("Error: Prefect does not know secret parameters; give them again: --param api_token=...\n")
    assert given.json["state"] == "completed"
    assert (folder / "got").read_text().strip() == str(len(f"friday {secret}\n"))


def test_pipeline_that_is_not_in_the_files(call: Call, folder: Path, project: Project) -> None:
    run_id = fail(call, folder)
    elsewhere = project({"rainbow.yml": CONFIG.replace("pipeline: sales", "pipeline: sale")}, "elsewhere")

    done = call("retry", run_id, "--path", elsewhere, code=2)

    assert done.err == "Error: there is no pipeline 'sales'; did you mean 'sale'?\n"


# -- where the pipeline of a run is


def test_retry_works_from_any_folder(call: Call, folder: Path, tmp_path: Path) -> None:
    run_id = fail(call, folder)
    (folder / "mended").touch()
    other = tmp_path / "somewhere" / "else"
    other.mkdir(parents=True)

    done = call("retry", run_id, "--quiet", "--json", cwd=other)

    assert done.json["state"] == "completed"


def test_retry_finds_the_super_of_the_file_again(
    call: Call, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(
        {
            "base/rainbow.yml": "name: common\ntype: super\ntask_defaults: {python: {env_vars: {WORD: hello}}}\n",
            "app/deep/rainbow.yml": """
                name: deep
                super: common
                pipelines:
                  - pipeline: sup
                    tasks: [{task: a, type: python, cmd: "[ -e $HERE/mended ] && echo $WORD"}]
            """,
        }
    )
    monkeypatch.setenv("HERE", str(root))
    run_id = call("run", root, "--pipeline", "sup", "--quiet", "--json", code=1).json["flow_run_id"]
    (root / "mended").touch()

    done = call("retry", run_id, "--quiet", "--json", cwd=tmp_path)

    assert done.json["tasks"][0]["log_tail"] == ["hello"]


def test_retry_finds_a_file_with_a_name_of_its_own(call: Call, project: Project, tmp_path: Path) -> None:
    root = project({"mine.yml": CONFIG, "other.yml": CONFIG})
    run_id = call("run", root / "mine.yml", "--quiet", "--json", code=1).json["flow_run_id"]

    done = call("retry", run_id, "--quiet", "--json", cwd=tmp_path, code=1)

    assert done.json["flow_run_id"] == run_id


def test_a_project_that_moved_is_retried_where_it_is(
    call: Call, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = fail(call, folder)
    moved = folder.rename(tmp_path / "moved")
    monkeypatch.setenv("HERE", str(moved))
    (moved / "mended").touch()
    (tmp_path / "empty").mkdir()

    gone = call("retry", run_id, cwd=tmp_path / "empty", code=2)
    here = call("retry", run_id, "--quiet", "--json", cwd=moved)

    assert gone.err == (
        f"Error: run {run_id} found its pipeline in '{folder}', where there is no rainbow.yml any more; "
        "name the file or folder that it is in: --path\n"
    )
    assert here.json["state"] == "completed"


def test_wrong_parameter_is_told(call: Call, folder: Path) -> None:
    run_id = fail(call, folder)

    done = call("retry", run_id, "--param", "day=1", cwd=folder, code=2)

    assert done.err.startswith("Error: there is no parameter 'day' in pipeline 'sales'")


def test_unknown_run(call: Call, folder: Path) -> None:
    done = call("retry", "@@@@@@", cwd=folder, code=2)

    assert done.err == "Error: there is no run '@@@@@@'; `rainbow runs` lists them\n"
