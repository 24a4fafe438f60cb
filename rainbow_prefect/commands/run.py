"""`rainbow run [PATH] --pipeline NAME`: run a pipeline now, as a Prefect run."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import click

from .. import plan as plans
from .. import server
from .execution import finish, load, param_option, quiet_option, typed, watched
from .options import json_option, path_argument, pipeline_option, quiet_prefect


@click.command()
@path_argument
@pipeline_option
@click.option("--executor", metavar="NAME", help="Run every task there: a name of `executors` or an executor type.")
@param_option
@quiet_option
@json_option
def command(
    path: Path, pipeline: str | None, executor: str | None, params: tuple[str, ...], quiet: bool, as_json: bool
) -> int:
    """Run a pipeline now, as a Prefect run, and wait until it ends.

    Exit status: 0 the run completed, 1 it did not, 2 the file or the call is wrong.
    """

    @cache
    def ready() -> server.Connection:
        return server.connect(tell=lambda text: click.echo(text, err=True))

    chosen = load(path, pipeline, ready=ready)
    parameters = typed(chosen, params)
    plan = plans.plan(chosen, executor=executor)
    connection = ready()
    quiet_prefect()
    from .. import engine

    with watched(plan, quiet=quiet, as_json=as_json) as watch:
        report = engine.run(plan, parameters, observers=watch.observers, on_started=watch.started, stop=watch.stop)
    return finish(report, connection, as_json=as_json)
