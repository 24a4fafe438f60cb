"""`rainbow trigger PIPELINE`: start a run of a deployed pipeline, and wait for its end if asked to."""

from __future__ import annotations

from uuid import uuid4

import click

from .. import deployed
from ..errors import CallError, near
from .execution import given_parameters, param_option
from .options import json_option, print_json


@click.command()
@click.argument("pipeline")
@click.option("--app", metavar="NAME", help="The `name` of its file, when several files have such a pipeline.")
@param_option
@click.option("--wait", is_flag=True, help="Follow its log and end as it ends.")
@json_option
def command(pipeline: str, app: str | None, params: tuple[str, ...], wait: bool, as_json: bool) -> int:
    """Start a run of a deployed pipeline; a worker of its work pool runs it.

    Exit status: 0 it was started (with --wait: it completed), 1 it did not complete, 2 the call is wrong.
    """
    from ..api_client import connect

    given = given_parameters(params)
    with connect(tell=lambda text: click.echo(text, err=True)) as api:
        found = deployed.find(api, pipeline, app)
        if found is None:
            hint = near(pipeline, deployed.names(api))
            raise CallError(
                f"pipeline '{pipeline}' is not deployed; {f'{hint}; ' if hint else ''}deploy it: rainbow deploy"
            )
        run, _ = deployed.start(api, found, deployed.typed(found, given), key=f"rainbow-trigger-{uuid4()}")
        link = api.connection.run_url(run.id)
        click.echo(f"{pipeline}: run {run.id}{f'  {link}' if link else ''}", err=as_json)
        if wait:
            run = deployed.follow(
                api,
                run.id,
                lambda line: click.echo(line, err=as_json),
                waiting=lambda: click.echo(f"no worker has taken it yet; is one running? {_worker(found)}", err=True),
            )
    if as_json:
        print_json(
            {
                "pipeline": pipeline,
                "flow_run_id": run.id,
                "state": run.state,
                "message": run.message,
                "seconds": round(run.seconds, 3),
                "link": link,
            }
        )
    elif wait:
        click.echo(f"{pipeline} {run.state.replace('_', ' ')}{f': {run.message}' if run.message else ''}")
    return 0 if not wait or run.state == "completed" else 1


def _worker(deployment: deployed.Deployment) -> str:
    return f"prefect worker start --pool {deployment.pool}" if deployment.pool else ""
