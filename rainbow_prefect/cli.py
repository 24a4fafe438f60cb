"""The command `rainbow`: finds the command's module, and turns errors into text and exit status; no work of its own.

Exit status: 0 done, 1 the run failed, 2 the config or the call is wrong, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from .errors import RainbowError, RunError, near

COMMANDS = {
    "init": "Write a small project that runs at once.",
    "check": "Check every rainbow.yml and tell all problems, each with its line.",
    "show": "Print the merged config: inheritance, defaults and variables applied.",
    "plan": "Draw the tasks of a pipeline in the order in which they run.",
    "explain": "Tell what a SQL task would do, and why so.",
    "etl": "Look at the rows of a SQL task, compare them with the sink, see where it goes on.",
    "schedule": "Tell when a pipeline runs next.",
    "schema": "Print the JSON Schema of rainbow.yml, for editors.",
    "trigger": "Start a run of a deployed pipeline.",
    "backfill": "Run a pipeline once for each day, week or month of the past.",
    "metrics": "Let Prometheus scrape the metrics of this machine's runs.",
    "alert": "Send a test message through the alerts of a pipeline.",
    "build": "Build the images whose code changed.",
    "diff": "Show what deploy would change on the Prefect server.",
    "deploy": "Deploy the pipelines: all changes, or none.",
    "run": "Run a pipeline now, as a Prefect run.",
    "serve": "Serve the endpoints of services over HTTP.",
    "service": "Run services on a Docker engine, several replicas behind one address.",
    "retry": "Run again what did not complete in an earlier run.",
    "runs": "List the latest runs.",
    "logs": "Print the logs of a run.",
    "cancel": "Stop a run and everything it started.",
    "doctor": "Look at the whole setup and say what to fix.",
    "ci": "Write a workflow of GitHub or GitLab that checks, shows the diff and deploys.",
    "import": "Write a rainbow.yml from files of Liminal or dag-factory.",
    "gc": "Remove what no run needs any more.",
    "server": "Keep a local Prefect server with its UI in the background.",
    "completion": "Print the completion script for a shell.",
}
"""The commands in the order in which a person meets them; each is `command` in `commands/<name>.py`."""

_MODULES = {"import": "import_"}
"""Commands whose names are words of Python."""

_INTERRUPTED = 130
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Commands(click.Group):
    """Imports the module of a command when it is called, so that `--help` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f".commands.{_MODULES.get(cmd_name, cmd_name)}", __package__).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            hint = near(args[0], COMMANDS, list_up_to=0)
            ctx.fail(f"no such command '{args[0]}'{f'; {hint}' if hint else ''}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    python = ".".join(map(str, sys.version_info[:3]))
    click.echo(f"rainbow-prefect {version('rainbow-prefect')} (prefect {version('prefect')}, python {python})")
    ctx.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start here: rainbow init my_project && cd my_project && rainbow run",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the versions."
)
def cli() -> None:
    """From one rainbow.yml to Prefect runs."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit status."""
    words = list(sys.argv[1:] if args is None else args)
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    code = _call(words)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
    sys.exit(code)


def _open_streams() -> None:
    """Give what was closed (`rainbow check >&-`) a place to go, before another file gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w"))


def _call(words: list[str]) -> int:
    as_json = "--json" in words
    try:
        result = cli.main(args=words, prog_name="rainbow", standalone_mode=False)
        return result if isinstance(result, int) and not isinstance(result, bool) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        _tell_call(error, as_json)
        return error.exit_code
    except RainbowError as error:
        _tell(error, as_json)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return _INTERRUPTED
    except (BrokenPipeError, SystemExit):  # what click makes of a broken pipe, here the only thing it exits for
        _forget_stdout()
        return 0
    except OSError as error:
        if error.errno not in _FULL:
            raise
        click.echo(f"Error: cannot write {error.filename or 'the output'}: {(error.strerror or '').lower()}", err=True)
        _forget_stdout()
        return RunError.exit_code


def _tell_call(error: click.ClickException, as_json: bool) -> None:
    if as_json:
        _print_json({"error": error.format_message()})
    error.show()


def _tell(error: RainbowError, as_json: bool) -> None:
    """Problems one per line, any other error as one sentence; on stdout as JSON too when that was asked for."""
    problems = getattr(error, "problems", None)
    if as_json:
        _print_json({"error": str(error)} if problems is None else {"problems": [one.as_dict() for one in problems]})
    click.echo(f"Error: {error}" if problems is None else str(error), err=True)


def _print_json(value: Any) -> None:
    from .commands.options import print_json

    print_json(value)


def _forget_stdout() -> None:
    """The reader went away (`rainbow show | head`): let the interpreter's last flush go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
