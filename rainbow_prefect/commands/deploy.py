"""`rainbow deploy [PATH]`: make the Prefect server as the files say."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import check
from ..errors import CallError, ConfigError
from .diff import changes_of, lines_of, pipelines_of, prune_option, redacted, say
from .options import json_option, path_argument, pipeline_option, print_json

if TYPE_CHECKING:
    from ..app import Pipeline
    from ..deploy import Changes


@click.command()
@path_argument
@pipeline_option
@prune_option
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option(
    "--build", is_flag=True, help="Build and push the worker images, or fill the bucket, also where nothing changes."
)
@click.option("--write", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write a prefect.yaml for `prefect deploy --all` instead, and ask no server.")  # fmt: skip
@json_option
def command(
    path: Path, pipeline: str | None, prune: bool, yes: bool, build: bool, write: Path | None, as_json: bool
) -> None:
    """Deploy the pipelines: all changes of `rainbow diff`, or none.

    Exit status: 0 done, 1 the server refused it and all is put back, 2 the file or the call is wrong.
    """
    if prune and pipeline is not None:
        raise CallError("--prune looks at all pipelines; leave out --pipeline")
    if write is not None:
        _write(path, pipeline, write)
        return
    from ..api_client import connect
    from ..deploy import apply
    from ..shipping import ship

    with connect(tell=say) as api:
        pipelines = pipelines_of(api, path, pipeline)
        changes = changes_of(api, pipelines, is_whole=pipeline is None, prune=prune)
        if not as_json:
            click.echo("\n".join(lines_of(changes, pipelines)))
        if changes.changes:
            _ask(changes, yes=yes, as_json=as_json)
        ship(pipelines if build else pipelines_in(changes, pipelines), tell=say)
        apply(api, changes.changes)
    if as_json:
        print_json(redacted(changes, pipelines))
    elif changes.changes:
        click.echo(_next(pipelines))


def _write(path: Path, pipeline: str | None, file: Path) -> None:
    from ..deployable import chosen
    from ..prefect_yaml import prefect_yaml

    checked = check.check(path)
    if checked.errors:
        raise ConfigError(checked.problems)
    text = prefect_yaml(chosen((one for app in checked.apps for one in app.pipelines), pipeline), path)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CallError(f"'{file}' cannot be written: {(error.strerror or str(error)).lower()}") from error
    click.echo(f"wrote {file}; next: prefect deploy --all --prefect-file {file}")


def pipelines_in(changes: Changes, pipelines: Sequence[Pipeline]) -> list[Pipeline]:
    """Those whose deployment is new or changes: the code of the others is where workers find it."""
    from ..deployable import name_of

    names = {one.name for one in changes.changes}
    return [one for one in pipelines if name_of(one) in names]


def _ask(changes: Changes, *, yes: bool, as_json: bool) -> None:
    if yes:
        return
    if sys.stdin.isatty() and not as_json:
        click.confirm("Deploy this?", abort=True)
        return
    removed = [one.name for one in changes.changes if one.action == "-"]
    if removed:
        raise CallError(f"this removes {', '.join(removed[:5])}; add --yes to do it")


def _next(pipelines: Sequence[Pipeline]) -> str:
    from ..deployable import name_of
    from ..deployment import DEFAULT_POOL

    first = pipelines[0]
    pool = first.work_pool or first.app.work_pool or DEFAULT_POOL
    return (
        f"deployed. A worker runs them: prefect worker start --pool {pool}; "
        f"a run now: prefect deployment run {name_of(first)}"
    )
