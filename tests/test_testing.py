"""The pytest plugin for users: their tests run in a pytest of their own, as they would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Project

YAML = """
    name: words
    secrets: [{secret: cloud, env: CLOUD}]
    env_vars: {COLOUR: teal}
    pipelines:
      - pipeline: words
        parameters: [{name: mark, type: str, default: "!"}]
        env_vars: {SHAPE: round}
        tasks:
          - task: make
            type: python
            source: code
            module: words
            function: make
          - task: loud
            type: python
            source: code
            module: words
            function: shout
            input: task:make
            env_vars: {MARK: "{{mark}}", TOKEN: "{{secret.cloud}}"}
            split_input: true
            executors: 2
          - task: fails
            type: python
            cmd: echo oh no && exit 3
"""
CODE = """
    import os


    def make():
        return ["a", "b", "c"]


    def shout(words):
        print("token", os.environ["TOKEN"])
        return [word + os.environ["MARK"] + os.environ["COLOUR"] + os.environ["SHAPE"] for word in words]
"""
TESTS = """
    def test_one_task(run_task):
        report = run_task("loud", ["x", "y", "z"])

        assert report.state == "completed"
        assert report.output == [["x!tealround", "y!tealround"], ["z!tealround"]]
        assert [one.input for one in report.partitions] == [["x", "y"], ["z"]]
        assert report.log_tail == ["token ********", "token ********"]


    def test_one_task_with_a_parameter(run_task):
        assert run_task("loud", ["x"], parameters={"mark": "?"}).output == [["x?tealround"], []]


    def test_one_task_without_input(run_task):
        assert run_task("make").output == ["a", "b", "c"]


    def test_a_task_that_fails(run_task):
        report = run_task("fails")

        assert report.state == "failed"
        assert "exit status 3" in report.message
        assert report.partitions[0].exit_code == 3
        assert report.log_tail == ["oh no"]


    def test_a_task_that_is_not_there(run_task):
        import pytest
        from rainbow_prefect import CallError

        with pytest.raises(CallError) as told:
            run_task("lowd")

        assert "did you mean 'loud'?" in str(told.value)
"""
PIPELINE = """
    def test_the_whole_pipeline(run_pipeline):
        report = run_pipeline("words", {"mark": "?"})

        assert report.state == "failed"
        assert report["loud"].output == [["a?tealround", "b?tealround"], ["c?tealround"]]
        assert report["fails"].state == "failed"


    def test_events_can_be_watched(run_pipeline):
        from rainbow_prefect import RecordingObserver

        seen = RecordingObserver()
        run_pipeline(observers=[seen])

        assert [one.task for one in seen.events if one.kind == "task_finished"] == ["make", "loud", "fails"]


    def test_the_app_is_there(rainbow_app, rainbow_config):
        assert rainbow_app.name == "words"
        assert rainbow_config.name == "rainbow.yml"


    def test_prefect_keeps_to_itself(rainbow_server, tmp_path_factory):
        import os
        from prefect.settings import PREFECT_API_URL, PREFECT_HOME

        assert PREFECT_API_URL.value() == rainbow_server
        assert str(PREFECT_HOME.value()).startswith(str(tmp_path_factory.getbasetemp().parent))
"""
Pytest = Callable[..., str]


@pytest.fixture
def root(project: Project) -> Path:
    return project(
        {
            "rainbow.yml": YAML,
            "code/words.py": CODE,
            "pytest.ini": "[pytest]\n",
        }
    )


@pytest.fixture
def users_pytest(tmp_path: Path) -> Pytest:
    def run(root: Path, *args: str, passed: int, **env: str) -> str:
        hidden = ("PREFECT_", "PYTEST_", "RAINBOW_")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args],
            cwd=root,
            env={**inherited, "CLOUD": "tok-12345", "HOME": str(tmp_path), **env},
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{passed} passed" in done.stdout
        return done.stdout

    return run


def test_importing_the_plugin_costs_nothing() -> None:
    code = (
        "import pytest, sys; before = set(sys.modules); import rainbow_prefect.testing\n"
        "heavy = {'prefect', 'pydantic', 'yaml', 'rich', 'asyncio'} & (set(sys.modules) - before)\n"
        "ours = {one for one in sys.modules if one.startswith('rainbow_prefect')}\n"
        "sys.exit(f'{heavy} {ours}' if heavy or len(ours) > 2 else 0)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


def test_pytest_lists_the_fixtures(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--fixtures", "-q"], cwd=root, capture_output=True, text=True, timeout=60
    )

    for name in (
        *("rainbow_app", "rainbow_config", "rainbow_project", "rainbow_server"),
        *("run_pipeline", "run_task", "service_client"),
    ):
        assert f"{name} " in done.stdout or f"{name}\n" in done.stdout
    ours = done.stdout.partition("fixtures defined from rainbow_prefect.testing")[2].partition("fixtures defined from")[
        0
    ]
    assert "no docstring available" not in ours


def test_one_task_runs_without_a_server(root: Path, project: Project, users_pytest: Pytest) -> None:
    project({"tests/test_words.py": TESTS})

    users_pytest(root, passed=5, PREFECT_API_URL="http://127.0.0.1:9/api")


def test_one_task_runs_without_prefect(root: Path, project: Project, users_pytest: Pytest) -> None:
    project(
        {
            "tests/test_words.py": """
                import sys


                def test_one_task(run_task):
                    assert run_task("make").completed
                    assert "prefect" not in sys.modules
            """
        }
    )

    users_pytest(root, passed=1)


def test_a_pipeline_runs_on_the_server_that_is_named(
    root: Path, project: Project, users_pytest: Pytest, prefect_server: str
) -> None:
    project({"tests/test_words.py": PIPELINE})

    users_pytest(root, passed=4, RAINBOW_TEST_API_URL=prefect_server)


@pytest.mark.slow
def test_a_server_of_its_own_is_shared_by_all_workers(root: Path, project: Project, users_pytest: Pytest) -> None:
    """A server that the developer has configured is not touched."""
    project({"tests/test_words.py": PIPELINE})

    users_pytest(root, "-n2", "--dist", "load", passed=4, PREFECT_API_URL="http://127.0.0.1:9/api")


def test_a_config_may_be_chosen(root: Path, project: Project, users_pytest: Pytest) -> None:
    (root / "rainbow.yml").rename(root / "code" / "rainbow.yml")
    (root / "code" / "code").mkdir()
    (root / "code" / "words.py").rename(root / "code" / "code" / "words.py")
    project(
        {
            "conftest.py": """
                from pathlib import Path

                import pytest


                @pytest.fixture
                def rainbow_config():
                    return Path(__file__).parent / "code" / "rainbow.yml"
            """,
            "tests/test_words.py": """
                def test_one_task(run_task):
                    assert run_task("make").output == ["a", "b", "c"]
            """,
        }
    )

    users_pytest(root, passed=1)


def test_a_choice_that_is_not_clear(root: Path, project: Project, users_pytest: Pytest) -> None:
    (root / "rainbow.yml").unlink()
    project(
        {
            "one/rainbow.yml": "name: one\n",
            "two/rainbow.yml": "name: two\n",
            "tests/test_words.py": """
                import pytest
                from rainbow_prefect import CallError


                def test_which(request, pytestconfig):
                    with pytest.raises(CallError) as told:
                        request.getfixturevalue("rainbow_config")

                    assert str(told.value) == (
                        "which rainbow.yml is under test? none is above test_words.py, and below "
                        f"{pytestconfig.rootpath} there are: one/rainbow.yml, two/rainbow.yml; "
                        "write a fixture rainbow_config that returns its path"
                    )
            """,
        }
    )

    users_pytest(root, passed=1)


SERVICES = """
    name: words
    secrets: [{secret: key, env: CLOUD}]
    env_vars: {COLOUR: teal}
    services:
      - service: loud
        source: code
        on_start: words:begin
        on_stop: words:stop
        auth: key
        endpoints:
          - {endpoint: /shout, module: code.words, function: shout}
          - {endpoint: /fails, module: words, function: fails, auth: false}
      - service: quiet
        source: other
        endpoints: [{endpoint: /shout, module: words, function: shout}]
"""
LOUD = """
    import os


    def begin():
        return {"mark": "!" + os.environ["COLOUR"]}


    def stop():
        print("over")


    def shout(word: str, mark):
        return {"word": word.upper() + mark}


    def fails():
        raise ValueError("secret reason")
"""
TESTS_OF_SERVICES = """
    import os


    def test_an_endpoint(service_client):
        client = service_client("loud")

        assert client.get("/readyz").json()["status"] == "ready"
        assert client.post("/shout?word=a").status_code == 401
        answer = client.post("/shout?word=a", headers={"authorization": "Bearer tok-12345"})
        assert answer.json() == {"word": "A!teal"}


    def test_an_error_is_an_answer(service_client):
        answer = service_client("loud").post("/fails")

        assert answer.status_code == 500
        assert "secret reason" not in answer.text


    def test_other_code_under_the_same_name(service_client):
        assert service_client("quiet").post("/shout", json="x").json() == ["quiet", "x"]
        assert "COLOUR" in os.environ


    def test_nothing_stays():
        assert "COLOUR" not in os.environ


    def test_a_service_that_is_not_there(service_client):
        import pytest
        from rainbow_prefect import CallError

        with pytest.raises(CallError, match="did you mean 'loud'"):
            service_client("lowd")
        with pytest.raises(CallError, match="which service. there are: loud, quiet"):
            service_client()
"""


def test_services_are_asked_without_a_server(root: Path, project: Project, users_pytest: Pytest) -> None:
    project(
        {
            "rainbow.yml": SERVICES,
            "code/words.py": LOUD,
            "other/words.py": "def shout(word):\n    return ['quiet', word]\n",
            "tests/test_services.py": TESTS_OF_SERVICES,
        }
    )

    assert "over" in users_pytest(root, "-s", passed=5)
