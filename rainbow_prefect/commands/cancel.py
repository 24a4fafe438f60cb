"""`rainbow cancel RUN`: stop a run and everything it started."""

from __future__ import annotations

import time
from uuid import UUID

import click

from ..display import words
from ..errors import RunError
from .options import json_option, print_json
from .runs import OVER, Found, find_run, known_server, prefect_client


@click.command()
@click.argument("run")
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until it has stopped.",
)
@json_option
def command(run: str, wait_seconds: float, as_json: bool) -> int:
    """Stop a run and everything it started.

    RUN is its id, the first letters of it, its name, or `last`. A run that is over stays as it is.
    """
    known_server()
    found = find_run(run)
    if found.state not in OVER:
        _cancel(found.id, begun=found.state not in ("scheduled", "pending"))
        found = _waited(found.id, wait_seconds)
        told = "cancelled" if found.state == "cancelled" else f"is {words(found.state)}"
    else:
        told = f"is over already: {words(found.state)}"
    if as_json:
        print_json({"flow_run_id": found.id, "pipeline": found.pipeline, "state": found.state})
    else:
        click.echo(f"run {found.id} of {found.pipeline} {told}")
    return 0 if found.state in OVER else 1


def _cancel(run: str, *, begun: bool) -> None:
    from prefect.client.schemas.objects import State, StateType

    kind = StateType.CANCELLING if begun else StateType.CANCELLED
    state: State[None] = State(type=kind, message="cancelled by rainbow cancel")
    with prefect_client() as client:
        answer = client.set_flow_run_state(UUID(run), state)
    if answer.status.value == "ABORT":
        raise RunError(f"Prefect did not take the cancel: {getattr(answer.details, 'reason', '')}")


def _waited(run: str, seconds: float) -> Found:
    until = time.monotonic() + seconds
    found = find_run(run)
    while found.state not in OVER and time.monotonic() < until:
        time.sleep(0.3)
        found = find_run(run)
    return found
