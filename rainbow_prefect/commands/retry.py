"""`rainbow retry RUN`: run again what did not complete in an earlier run."""

from __future__ import annotations

from pathlib import Path

import click

from .. import plan as plans
from .. import server
from ..plan import Plan
from .execution import (
    finish,
    given_parameters,
    interruptible,
    load,
    param_option,
    pipeline_named,
    quiet_option,
    watched,
)
from .options import json_option, quiet_prefect
from .runs import find_run


@click.command()
@click.argument("run")
@click.option("--path", type=click.Path(path_type=Path), default=".", help="Where its rainbow.yml is.")
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
    connection = server.connect(tell=lambda text: click.echo(text, err=True))
    quiet_prefect()
    found = find_run(run)
    checked = load(path, ready=lambda: connection)
    plan: Plan = plans.plan(pipeline_named(checked, found.pipeline), executor=executor)
    from .. import engine

    with watched(plan, quiet=quiet, as_json=as_json) as observers, interruptible():
        report = engine.retry(plan, found.id, parameters, observers=observers)
    return finish(report, connection, plan, path, as_json=as_json)
