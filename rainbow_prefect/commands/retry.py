"""`rainbow retry RUN`: run again what did not complete in an earlier run."""

from __future__ import annotations

from pathlib import Path

import click

from .. import plan as plans
from .execution import finish, given_parameters, load, param_option, quiet_option, watched
from .options import json_option
from .runs import find_run, known_server


@click.command()
@click.argument("run")
@click.option("--path", type=click.Path(path_type=Path), default=".", help="Where its rainbow.yml is; default: here.")
@click.option("--executor", metavar="NAME", help="As `rainbow run --executor`.")
@param_option
@quiet_option
@json_option
def command(run: str, path: Path, executor: str | None, params: tuple[str, ...], quiet: bool, as_json: bool) -> int:
    """Run again what did not complete in an earlier run, and what depends on it.

    RUN is its id, the first letters of it, its name, or `last`. Slices that completed are not run again.
    `--param` gives secret parameters again, which Prefect does not keep.
    """
    parameters = given_parameters(params)
    connection = known_server()
    found = find_run(run)
    plan = plans.plan(load(path, found.pipeline, ready=lambda: connection), executor=executor)
    from .. import engine

    with watched(plan, quiet=quiet, as_json=as_json) as watch:
        report = engine.retry(
            plan, found.id, parameters, observers=watch.observers, on_started=watch.started, stop=watch.stop
        )
    return finish(report, connection, path, as_json=as_json)
