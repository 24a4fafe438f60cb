"""The command `rainbow` itself: help, versions, wrong calls, errors, completion, and what it may not import."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from importlib.metadata import version

import click
import pytest

from rainbow_prefect import cli
from rainbow_prefect.errors import CallError, ConfigError, Mark, Problem, RunError
from tests.conftest import Project, Rainbow


def test_help_lists_every_command(rainbow: Rainbow) -> None:
    shown = rainbow("--help").out

    for name, text in cli.COMMANDS.items():
        assert name in shown
        assert text.split()[0] in shown


@pytest.mark.parametrize("name", [*cli.COMMANDS])
def test_every_command_has_help(name: str) -> None:
    command = cli.cli.get_command(click.Context(cli.cli), name)

    assert command is not None
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_without_arguments_help_is_printed(rainbow: Rainbow) -> None:
    done = rainbow(code=2)

    assert "Usage: rainbow [OPTIONS] COMMAND [ARGS]..." in done.err


def test_version_names_what_matters(rainbow: Rainbow) -> None:
    python = ".".join(map(str, sys.version_info[:3]))

    assert rainbow("--version").out == (
        f"rainbow-prefect {version('rainbow-prefect')} (prefect {version('prefect')}, python {python})\n"
    )


def test_module_is_the_command_too() -> None:
    done = subprocess.run([sys.executable, "-m", "rainbow_prefect", "--version"], capture_output=True, text=True)

    assert done.stdout.startswith("rainbow-prefect ")


def test_unknown_command_has_a_near_match(rainbow: Rainbow) -> None:
    done = rainbow("chek", code=2)

    assert done.err.endswith("Error: no such command 'chek'; did you mean 'check'?\n")


def test_unknown_option_is_a_wrong_call(rainbow: Rainbow) -> None:
    done = rainbow("check", "--jsn", code=2)

    assert done.out == ""
    assert "No such option" in done.err


def test_wrong_call_is_json_when_asked_for(rainbow: Rainbow) -> None:
    done = rainbow("schedule", ".", "--json", "--count", "x", code=2)

    assert done.json == {"error": "Invalid value for '--count': 'x' is not a valid integer range."}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_names_the_command(rainbow: Rainbow, shell: str) -> None:
    assert "_RAINBOW_COMPLETE" in rainbow("completion", shell).out


def test_completion_offers_commands(rainbow: Rainbow) -> None:
    words = {"_RAINBOW_COMPLETE": "bash_complete", "COMP_WORDS": "rainbow sch", "COMP_CWORD": "1"}

    assert rainbow(env=words).out.split() == ["plain,schedule", "plain,schema"]


def test_completion_offers_pipelines(rainbow: Rainbow, project: Project) -> None:
    text = "name: a\npipelines:\n  - {pipeline: sales, tasks: []}\n  - {pipeline: stock, tasks: []}\n  - {pipeline: other, tasks: []}\n"
    words = {"_RAINBOW_COMPLETE": "bash_complete", "COMP_WORDS": "rainbow plan --pipeline s", "COMP_CWORD": "3"}

    shown = rainbow(cwd=project({"rainbow.yml": text}), env=words)

    assert shown.out.split() == ["plain,sales", "plain,stock"]


def test_completion_in_an_empty_folder_offers_nothing(rainbow: Rainbow) -> None:
    words = {"_RAINBOW_COMPLETE": "bash_complete", "COMP_WORDS": "rainbow plan --pipeline s", "COMP_CWORD": "3"}

    shown = rainbow(env=words)

    assert (shown.out.strip(), shown.err) == ("", "")


PROBLEM = Problem(Mark("rainbow.yml", 3, 5), "pipelines[0].x", "unknown key 'x'", "did you mean 'y'?", "pipeline 'p'")


@pytest.mark.parametrize(
    ("error", "words", "code", "out", "err"),
    [
        (CallError("no such pipeline"), [], 2, "", "Error: no such pipeline\n"),
        (RunError("the disk is full"), [], 1, "", "Error: the disk is full\n"),
        (RunError("the disk is full"), ["--json"], 1, '{\n  "error": "the disk is full"\n}\n', "Error: the disk is full\n"),
        (ConfigError([PROBLEM]), [], 2, "", "rainbow.yml:3:5: pipeline 'p': unknown key 'x'; did you mean 'y'?\n"),
        (KeyboardInterrupt(), [], 130, "", "Interrupted.\n"),
    ],
)  # fmt: skip
def test_errors_are_text_and_exit_status(
    error: BaseException,
    words: list[str],
    code: int,
    out: str,
    err: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @click.command()
    @click.option("--json", is_flag=True)
    def fail(json: bool) -> None:
        raise error

    monkeypatch.setattr(cli, "cli", fail)

    with pytest.raises(SystemExit) as end:
        cli.main(words)

    assert end.value.code == code
    shown = capsys.readouterr()
    assert (shown.out, shown.err.lstrip("\n")) == (out, err)


def test_problems_are_json_when_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    @click.option("--json", is_flag=True)
    def fail(json: bool) -> None:
        raise ConfigError([PROBLEM])

    monkeypatch.setattr(cli, "cli", fail)

    with pytest.raises(SystemExit):
        cli.main(["--json"])

    assert '"file": "rainbow.yml",\n      "line": 3,\n      "column": 5,' in capsys.readouterr().out


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def fail() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(cli, "cli", fail)

    with pytest.raises(ZeroDivisionError):
        cli.main([])


@pytest.mark.parametrize("reader", ["head -c 10", "true"])
def test_reader_that_goes_away_is_no_error(reader: str) -> None:
    command = f"{sys.executable} -m rainbow_prefect schema | {reader}"

    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("closed", "told"), [(">&-", ""), ("2>&- >&-", ""), ("<&-", "1 file, no pipelines, no errors\n")]
)
def test_closed_streams_are_no_error(project: Project, closed: str, told: str) -> None:
    folder = project({"rainbow.yml": "name: a\n"})

    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m rainbow_prefect check --no-cache {folder} {closed}"],
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, told, "")


@pytest.mark.parametrize("device", ["/dev/full"] if os.path.exists("/dev/full") else [])
def test_full_disk_is_told(project: Project, device: str) -> None:
    folder = project({"rainbow.yml": "name: a\n"})

    with open(device, "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "rainbow_prefect", "check", folder], stdout=full, stderr=subprocess.PIPE
        )

    assert (done.returncode, done.stderr) == (1, b"Error: cannot write the output: no space left on device\n")


HEAVY = ("prefect", "rich", "asyncio", "fastapi", "sqlalchemy", "httpx", "docker", "boto3")


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["server", "--help"], ["check", "{project}"],
                                   ["show", "{project}"], ["plan", "{project}"], ["schedule", "{project}"], ["schema"]])  # fmt: skip
def test_light_commands_import_nothing_heavy(words: list[str], project: Project) -> None:
    folder = project(
        {
            "rainbow.yml": """
                name: small
                pipelines:
                  - pipeline: p
                    schedule: 0 6 * * *
                    tasks:
                      - {task: t, type: python, cmd: echo hello}
            """
        }
    )
    code = (
        "import sys\nfrom rainbow_prefect.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as end: code = end.code\n"
        f"print(code, [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, *(word.format(project=folder) for word in words)], capture_output=True, text=True
    )

    assert done.stderr.splitlines()[-1] == "0 []", done.stderr


def _cpu_seconds(*words: str) -> float:
    """The least of five, after one for the compiled files: what the command costs, not what else the machine does."""
    costs = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "rainbow_prefect", *words], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(costs[1:])


@pytest.mark.parametrize("words", [["--help"], ["check", "{project}"]])
def test_light_commands_cost_little(words: list[str], project: Project) -> None:
    """The bar is 0.35 CPU s on a quiet machine, as `make bench` measures; here others run at the same time."""
    folder = project({"rainbow.yml": "name: small\npipelines:\n  - pipeline: p\n    tasks:\n      - {task: a, type: python, cmd: echo}\n"})  # fmt: skip

    assert _cpu_seconds(*(word.format(project=folder) for word in words)) <= 0.7


def test_output_survives_a_terminal_without_unicode(rainbow: Rainbow, project: Project) -> None:
    folder = project({"rainbow.yml": "name: small\npipelines:\n  - pipeline: p\n    tasks:\n      - {task: a, type: python, cmd: echo}\n"})  # fmt: skip

    done = rainbow("plan", folder, env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"})

    assert "* a" in done.out
    assert os.linesep in done.out
