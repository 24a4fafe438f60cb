"""`rainbow run [PATH] --pipeline NAME`: run a pipeline now, as a Prefect run."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import plan as plans
from .. import server
from ..errors import CallError
from .execution import finish, load, param_option, quiet_option, typed, watched
from .options import json_option, path_argument, pipeline_option, quiet_prefect

if TYPE_CHECKING:
    from ..app import Pipeline


@click.command()
@path_argument
@pipeline_option
@click.option("--executor", metavar="NAME", help="Run every task there: a name of `executors` or an executor type.")
@param_option
@click.option("--full-refresh", is_flag=True, help="Load incremental SQL tasks anew: all rows are read, old ones go.")
@click.option("--from", "low", metavar="VALUE", help="Read again what incremental SQL tasks have from this cursor on.")
@click.option("--to", "high", metavar="VALUE", help="As --from: the first cursor that is not read again.")
@quiet_option
@json_option
def command(
    path: Path,
    pipeline: str | None,
    executor: str | None,
    params: tuple[str, ...],
    full_refresh: bool,
    low: str | None,
    high: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run a pipeline now, as a Prefect run, and wait until it ends.

    --full-refresh, --from and --to are the parameters full_refresh, load_from and load_to of the run.

    Exit status: 0 the run completed, 1 it did not, 2 the file or the call is wrong.
    """

    @cache
    def ready() -> server.Connection:
        return server.connect(tell=lambda text: click.echo(text, err=True))

    chosen = load(path, pipeline, ready=ready)
    parameters = typed(chosen, (*params, *_reloading(chosen, full_refresh=full_refresh, low=low, high=high)))
    plan = plans.plan(chosen, executor=executor)
    connection = ready()
    quiet_prefect()
    from .. import engine

    with watched(plan, quiet=quiet, as_json=as_json) as watch:
        report = engine.run(plan, parameters, observers=watch.observers, on_started=watch.started, stop=watch.stop)
    return finish(report, connection, as_json=as_json)


def _reloading(chosen: Pipeline, *, full_refresh: bool, low: str | None, high: str | None) -> list[str]:
    """The options as words of `--param`.

    Raises:
        CallError: no task of the pipeline would heed them, or they exclude each other.
    """
    given = {"--full-refresh": full_refresh, "--from": low is not None, "--to": high is not None}
    first = next((name for name, is_given in given.items() if is_given), None)
    if first is None:
        return []
    if not any(task.is_incremental for task in chosen.tasks):
        raise CallError(f"{first}: no task of pipeline '{chosen.pipeline}' has `incremental`")
    if full_refresh and (low is not None or high is not None):
        raise CallError("--full-refresh reads all again, and --from and --to a part of it; give one of the two")
    words = {"full_refresh": "true" if full_refresh else None, "load_from": low, "load_to": high}
    return [f"{name}={value}" for name, value in words.items() if value is not None]
