"""What the commands share: their options, and how JSON and problems are printed."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import CallError, ConfigError, Problem, RainbowError, near

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ..app import App, Pipeline

T = TypeVar("T")

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")

path_argument = click.argument("path", type=click.Path(path_type=Path), default=".", required=False)


def _pipeline_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The pipelines of the files, for the shell's Tab key."""
    from click.shell_completion import CompletionItem

    from .. import check

    try:
        names = check.check(ctx.params.get("path") or Path()).pipeline_names
    except RainbowError:
        return []
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


pipeline_option = click.option(
    "--pipeline",
    "-p",
    metavar="NAME",
    shell_complete=_pipeline_names,
    help="The pipeline; may be left out when there is only one.",
)


def plain(value: Any) -> Any:
    """A value as JSON data: dates as ISO 8601, numbers that JSON lacks (`nan`, `inf`) as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=ascii_only))


def print_problems(problems: Iterable[Problem], *, err: bool = True) -> None:
    """One line for each problem."""
    for problem in problems:
        click.echo(str(problem), err=err)


def choose(named: Mapping[str, T], name: str | None, what: str) -> T:
    """The one with this name, or the only one.

    Raises:
        CallError: there is no such name, or a name is needed.
    """
    if name is not None and name in named:
        return named[name]
    if name is not None:
        hint = near(name, named)
        raise CallError(f"there is no {what} '{name}'{f'; {hint}' if hint else ''}")
    if not named:
        raise CallError(f"there is no {what} in the files that were found")
    if len(named) > 1:
        raise CallError(f"which {what}? add --{what} NAME; known: {', '.join(named)}")
    return next(iter(named.values()))


def load_pipeline(path: Path, name: str | None) -> Pipeline:
    """The pipeline that `PATH --pipeline NAME` names; warnings, and the problems of other files, go to stderr.

    Raises:
        ConfigError: the file of the pipeline is wrong, or no pipeline is named and any file is.
        CallError: there is no such pipeline, or a name is needed.
    """
    from .. import check

    checked = check.check(path)
    named = {one.pipeline: one for app in checked.apps for one in app.pipelines}
    if checked.errors and name not in named:
        raise ConfigError(checked.problems)
    print_problems(checked.problems)
    return choose(named, name, "pipeline")


def load_apps(path: Path, name: str | None = None) -> tuple[App, ...]:
    """The apps of `PATH`; with `name` only the one that has this pipeline. Warnings go to stderr.

    Raises:
        ConfigError: any file is wrong, and no pipeline is named that loaded.
        CallError: there is no such pipeline.
    """
    from .. import check

    checked = check.check(path)
    named = {one.pipeline: app for app in checked.apps for one in app.pipelines}
    if checked.errors and name not in named:
        raise ConfigError(checked.problems)
    print_problems(checked.problems)
    return tuple(checked.apps) if name is None else (choose(named, name, "pipeline"),)


def quiet_prefect() -> None:
    """Keep Prefect's own log lines off the terminal; they still go to its API.

    Raises:
        CallError: Prefect does not start with its settings.
    """
    import gc
    import logging

    from pydantic import ValidationError

    gc.disable()  # what is imported lives until the end: looking through it for garbage would take a sixth of the time
    try:
        import prefect.main  # noqa: F401  sets its logging up
    except ValidationError as error:
        told = [one for one in error.errors() if one["type"] != "default_factory_not_called"]  # an echo of the others
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in told)
        raise CallError(f"a setting of Prefect cannot be used: {wrong}; correct the variable or the profile") from error
    finally:
        gc.freeze()
        gc.enable()
    from prefect.logging.handlers import PrefectConsoleHandler

    for name in ("", "prefect", *logging.Logger.manager.loggerDict):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            if isinstance(handler, PrefectConsoleHandler):
                logger.removeHandler(handler)
    logging.raiseExceptions = False  # a record that its API does not take would be told in the middle of a line


def counted(number: int, one: str, many: str = "") -> str:
    """`1 file`, `2 files`; `many` where that is not the word with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"
