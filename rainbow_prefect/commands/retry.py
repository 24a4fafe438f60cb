"""`rainbow retry RUN`: run again what did not complete in an earlier run."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .. import plan as plans
from ..errors import CallError
from ..files import find
from .execution import finish, given_parameters, load, param_option, quiet_option, watched
from .options import json_option
from .runs import Found, find_run, known_server


@click.command()
@click.argument("run")
@click.option(
    "--path", type=click.Path(path_type=Path), help="Where its rainbow.yml is; default: where the run found it."
)
@click.option("--executor", metavar="NAME", help="As `rainbow run --executor`.")
@param_option
@quiet_option
@json_option
def command(
    run: str, path: Path | None, executor: str | None, params: tuple[str, ...], quiet: bool, as_json: bool
) -> int:
    """Run again what did not complete in an earlier run, and what depends on it.

    RUN is its id, the first letters of it, its name, or `last`. Slices that completed are not run again.
    `--param` gives secret parameters again, which Prefect does not keep.
    """
    parameters = given_parameters(params)
    connection = known_server()
    found = find_run(run)
    plan = plans.plan(load(path or _path(found), found.pipeline, ready=lambda: connection), executor=executor)
    from .. import engine

    with watched(plan, quiet=quiet, as_json=as_json) as watch:
        report = engine.retry(
            plan, found.id, parameters, observers=watch.observers, on_started=watch.started, stop=watch.stop
        )
    return finish(report, connection, as_json=as_json)


def _path(found: Found) -> Path:
    """Where the run found its pipeline; here, when that is not known or has moved here.

    Raises:
        CallError: it is not there any more.
    """
    if found.path is None or _has_config(found.path):
        return found.path or Path()
    if _has_config(Path()):
        return Path()
    raise CallError(
        f"run {found.id} found its pipeline in '{found.path}', where there is no rainbow.yml any more; "
        "name the file or folder that it is in: --path"
    )


def _has_config(path: Path) -> bool:
    return os.path.exists(path) and bool(find(path))  # noqa: PTH110  which is False, too, for what may not be looked at
