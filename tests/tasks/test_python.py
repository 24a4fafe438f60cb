"""The task type `python`, run with real processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect.check import check
from rainbow_prefect.errors import TaskFailed
from rainbow_prefect.executors.base import StubExecutor
from rainbow_prefect.executors.process import Process
from rainbow_prefect.run import FileMount
from rainbow_prefect.secrets import Secret, Secrets
from rainbow_prefect.tasks._code import script_of
from rainbow_prefect.tasks.python import Python

from ..executors.contract import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(Process(), tmp_path)


def task(**keys: Any) -> Python:
    return Python.model_validate({"task": "t", **keys})


def test_cmd_runs_in_its_source(bench: Bench) -> None:
    bench.code({"main.py": "print('hello')"})

    assert task(cmd="python main.py", source="code").run(bench.run()) is None
    assert bench.lines == ["hello"]


def test_code_of_the_image_is_taken_without_a_source(bench: Bench) -> None:
    source = bench.code({"main.py": "print('hello')"})

    task(cmd="python main.py", image="i").run(bench.run(source=source))

    assert bench.lines == ["hello"]


def test_output_path_gives_the_output(bench: Bench) -> None:
    assert task(cmd="echo '[1]' > out.json", output_path="out.json").run(bench.run()) == [1]


def test_function_gives_the_output(bench: Bench) -> None:
    bench.code({"m.py": "def f(x): return x * 2"})

    assert task(module="m", function="f", source="code").run(bench.run(input=[1])) == [1, 1]


def test_env_vars_win_over_those_of_the_pipeline(bench: Bench) -> None:
    task(cmd='echo "$A $B"', env_vars={"A": "task"}).run(bench.run(env={"A": "pipeline", "B": "pipeline"}))

    assert bench.lines == ["task pipeline"]


def secrets() -> Secrets:
    return Secrets([Secret(secret="db", env="DB")], environ={"DB": "s3cret-value"})


def test_secrets_in_values_are_filled_in(bench: Bench) -> None:
    run = bench.run(StubExecutor(), secrets=secrets())
    StubExecutor.seen.clear()

    task(cmd="load --key {{secret.db}}", env_vars={"URL": "x://{{secret.db}}@host"}).run(run)

    command, _ = StubExecutor.seen[0]
    assert command.shell == "load --key s3cret-value"
    assert command.env == {"URL": "x://s3cret-value@host"}


def test_secret_as_a_variable(bench: Bench) -> None:
    task(cmd='test "$PASSWORD" = s3cret-value', secrets=[{"secret": "db", "env": "PASSWORD"}]).run(
        bench.run(secrets=secrets())
    )


def test_secret_as_a_file(bench: Bench) -> None:
    task(cmd="cat secret/credentials", secrets=[{"secret": "db", "remote_path": "/secret"}]).run(
        bench.run(secrets=secrets())
    )

    assert bench.lines == ["s3cret-value"]


def test_secret_that_cannot_be_read_is_told(bench: Bench) -> None:
    run = bench.run(secrets=Secrets([Secret(secret="db", env="DB")], environ={}))

    with pytest.raises(TaskFailed) as caught:
        task(cmd="true", secrets=[{"secret": "db", "env": "X"}]).run(run)

    assert caught.value.message == "secret 'db': the environment variable DB is not set; set it before the run"


def test_mounts_are_folders_of_volumes(bench: Bench) -> None:
    folder = bench.folder / "data"
    run = bench.run(StubExecutor(), volumes={"data": folder, "claim": None}, claims={"claim": "team-pvc"})
    StubExecutor.seen.clear()

    task(
        cmd="true",
        mounts=[
            {"mount": "a", "volume": "data", "path": "/mnt/data", "sub_path": "in", "read_only": True},
            {"mount": "b", "volume": "claim", "path": "/mnt/claim"},
        ],
    ).run(run)

    command, _ = StubExecutor.seen[0]
    assert command.mounts == (
        FileMount("/mnt/data", source=folder / "in", read_only=True, claim_name="data-pvc", sub_path="in"),
        FileMount("/mnt/claim", read_only=False, claim_name="team-pvc"),
    )


def test_command_line_is_the_shell_line() -> None:
    assert task(cmd="python a.py | tee b").command_line() == ["bash", "-c", "python a.py | tee b"]


# -- what check finds

Project = Callable[..., Path]


def problems(project: Project, lines: str, files: dict[str, str] | None = None) -> list[str]:
    text = "name: a\npipelines:\n  - pipeline: p\n    tasks:\n      - task: t\n        type: python\n"
    folder = project(
        {"rainbow.yml": text + "".join(f"        {line}\n" for line in lines.split("; ")), **(files or {})}
    )
    return [str(one) for one in check(folder, cache=False).problems]


WHERE = "pipeline 'p', task 't'"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("description: x", "5:9: {}: the key 'cmd' is missing; add cmd: python -u main.py, or module and function"),
        ("cmd: ''", "7:14: {}: the command is empty; write a shell line, e.g. python -u main.py"),
        ("cmd: x; module: m; function: f", None),
        ("module: m", "7:9: {}: 'module' needs 'function'; add the function to call"),
        ("function: f", "7:9: {}: 'function' needs 'module'; add the module that has it"),
        (
            "cmd: echo; output_path: ../out.json",
            "8:22: {}: '../out.json' leads out of the working directory; write a path below it, e.g. output.json",
        ),
        (
            "cmd: echo; output_path: out/",
            "8:22: {}: 'out/' is not the path of a file; write a file name, e.g. output.json",
        ),
        (
            "cmd: echo; python_version: 3.10",
            "8:25: {}: 'python_version' must be text, got the number 3.10; quote it: '3.10' ('3.10' is not 3.1)",
        ),
    ],
)
def test_wrong_keys_are_told(project: Project, lines: str, message: str | None) -> None:
    found = problems(project, lines)

    if message is None:
        assert f"rainbow.yml:8:9: {WHERE}: 'module' and 'cmd' exclude each other; keep one of them" in found
        assert f"rainbow.yml:9:9: {WHERE}: 'function' and 'cmd' exclude each other; keep one of them" in found
    else:
        assert [one.replace("`", "'") for one in found] == [f"rainbow.yml:{message.format(WHERE)}"]


def test_output_path_of_a_function_is_told(project: Project) -> None:
    lines = "source: code; module: m; function: f; output_path: out.json"

    assert problems(project, lines, {"code/m.py": "def f(): ..."}) == [
        f"rainbow.yml:10:9: {WHERE}: 'output_path' and 'function' exclude each other; "
        "remove it: what the function returns is the output"
    ]


def test_a_script_that_is_missing_is_a_warning_with_the_nearest(project: Project) -> None:
    lines = "source: helloworld; cmd: python -u helloworld.py"

    assert problems(project, lines, {"helloworld/hello_world.py": ""}) == [
        f"rainbow.yml:8:14: warning: {WHERE}: `cmd` runs 'helloworld.py', which is not in 'helloworld'; "
        "did you mean 'hello_world.py'?"
    ]


@pytest.mark.parametrize(
    ("cmd", "script"),
    [
        ("python -u main.py", "main.py"),
        ("python3.12 -X dev -W error -u a/b.py --x y.py", "a/b.py"),
        ("A=1 B=2 python main.py", "main.py"),
        ("bash run.sh && echo done", "run.sh"),
        ("./run.sh", "./run.sh"),
        ("/usr/bin/python main.py", "main.py"),
        ("python -c 'print(1)'", None),
        ("python -m http.server", None),
        ("cd inner && python main.py", None),
        ("python $MAIN.py", None),
        ("python /opt/main.py", None),
        ("python {a,b}.py", None),
        ("python 'unclosed", None),
        ("echo main.py", None),
        ("", None),
        ("A=1", None),
    ],
)
def test_the_script_of_a_command(cmd: str, script: str | None) -> None:
    assert script_of(cmd) == script
