"""`rainbow cancel RUN`: stop a run and everything it started."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import UUID

import click

from ..display import words
from ..errors import RunError
from .options import json_option, print_json
from .runs import OVER, STATES, Found, find_run, known_server, prefect_client, read_run

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

_LOOK_SECONDS = 0.3
_UNDER_WAY = tuple(one for one in STATES if one not in (*OVER, "scheduled"))
_NOT_BEGUN = ("scheduled", "pending", "paused")


@click.command()
@click.argument("run")
@click.option(
    "--wait",
    "seconds",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until it has stopped.",
)
@json_option
def command(run: str, seconds: float, as_json: bool) -> int:
    """Stop a run and everything it started.

    RUN is its id, the first letters of it, its name, or `last`, the latest that is under way. A run that is over stays as it is.
    """
    known_server()
    found = find_run(run, states=_UNDER_WAY)
    was_over = found.state in OVER
    if not was_over:
        found = _cancelled(found, seconds)
    if as_json:
        print_json({"flow_run_id": found.id, "pipeline": found.pipeline, "state": found.state})
    else:
        click.echo(f"run {found.id} of {found.pipeline} {_told(found, was_over=was_over)}")
    return 0 if found.state in OVER else RunError.exit_code


def _told(found: Found, *, was_over: bool) -> str:
    if was_over:
        return f"is over already: {words(found.state)}"
    if found.state == "cancelled":
        return "is cancelled"
    if found.state in OVER:
        return f"had ended before it was cancelled: {words(found.state)}"
    return "has not stopped yet; is the process alive that runs it? `rainbow cancel` can be called again"


def _cancelled(found: Found, seconds: float) -> Found:
    """The run as it is once it has stopped, or when the time is up."""
    from ..engine.storage import is_dead

    if found.state in _NOT_BEGUN or is_dead(found.id):
        set_cancelled(found.id, "cancelled by rainbow cancel")
    else:
        _ask(found.id)
    until = time.monotonic() + seconds
    with prefect_client() as client:
        while (now := read_run(client, UUID(found.id))).state not in OVER and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
            if is_dead(found.id):
                set_cancelled(found.id, "cancelled by rainbow cancel")
    return now


def _ask(run_id: str) -> None:
    """Ask the process of a run, wherever it is, to stop it."""
    from prefect.states import Cancelling

    state: State[None] = Cancelling(message="cancelled by rainbow cancel")
    with prefect_client() as client:
        answer = client.set_flow_run_state(UUID(run_id), state)
    if answer.status.value == "ABORT" and read_again(run_id).state not in OVER:
        raise RunError(f"Prefect did not take the cancel: {getattr(answer.details, 'reason', '')}")


def read_again(run_id: str) -> Found:
    """The run as it is now."""
    with prefect_client() as client:
        return read_run(client, UUID(run_id))


def set_cancelled(run_id: str, message: str) -> None:
    """Write down that a run is cancelled, which nothing executes."""
    from prefect.states import Cancelled

    state: State[None] = Cancelled(message=message)
    with prefect_client() as client:
        client.set_flow_run_state(UUID(run_id), state, force=True)
