"""`rainbow check [PATH]`."""

from __future__ import annotations

import gc
from pathlib import Path

import click

from .. import check
from ..errors import ConfigError
from .options import json_option, path_argument, print_json, print_problems


@click.command()
@path_argument
@click.option("--no-cache", is_flag=True, help="Check everything anew, whatever was found the last time.")
@json_option
def command(path: Path, no_cache: bool, as_json: bool) -> int:
    """Check every rainbow.yml and tell all problems, each with its line; the exit status is 2 when there is an error."""
    gc.disable()  # the process ends soon: looking for garbage would take a fifth of its time
    checked = check.check(path, cache=not no_cache)
    gc.freeze()
    if as_json:
        print_json(
            {
                "apps": checked.app_names,
                "pipelines": checked.pipeline_names,
                "services": checked.service_names,
                "problems": [one.as_dict() for one in checked.problems],
            }
        )
    else:
        print_problems(checked.problems, err=False)
        found = [
            _count(len(checked.files), "file"),
            _count(len(checked.pipeline_names), "pipeline"),
            _count(len(checked.service_names), "service"),
            _count(len(checked.errors), "error"),
            _count(len(checked.problems) - len(checked.errors), "warning"),
        ]
        click.echo(", ".join(one for one in found if one))
    return ConfigError.exit_code if checked.errors else 0


def _count(number: int, what: str) -> str:
    """`2 pipelines`, `no errors`; nothing for no services and no warnings."""
    if not number:
        return f"no {what}s" if what in ("file", "error", "pipeline") else ""
    return f"{number} {what}{'s' if number > 1 else ''}"
