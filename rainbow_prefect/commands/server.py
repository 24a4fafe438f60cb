"""`rainbow server start | stop | status`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from .. import server
from .options import json_option, print_json

_NOT_RUNNING = 1


@click.group()
def command() -> None:
    """Keep a local Prefect server with its UI in the background.

    It listens on this machine only and keeps its runs in Prefect's own database (PREFECT_HOME). `rainbow run` finds it.
    """


@command.command()
@click.option("--port", type=click.IntRange(1, 65535), help="The port; default: 4200, else the next free one.")
@click.option("--wait", "seconds", type=click.FloatRange(min=1), default=server.START_SECONDS, show_default=True,
              help="Seconds until it must be healthy.")  # fmt: skip
@json_option
def start(port: int | None, seconds: float, as_json: bool) -> None:
    """Start it and wait until it is healthy."""
    found, is_new = server.start(port=port, seconds=seconds, tell=lambda text: click.echo(text, err=True))
    if as_json:
        print_json({**_shown("running", found), "started": is_new})
        return
    click.echo(f"The Prefect server {'is up' if is_new else 'runs already'}: {found.ui_url}")
    _tell_uses(server.configured_url(), found)


@command.command()
@json_option
def stop(as_json: bool) -> None:
    """Stop it; runs stay in the database."""
    found = server.stop()
    if as_json:
        print_json({**_shown("stopped", None), "stopped": found is not None})
    else:
        click.echo("No server was running." if found is None else f"The Prefect server (pid {found.pid}) has stopped.")


@command.command()
@json_option
def status(as_json: bool) -> int:
    """Tell whether it runs; the exit status is 1 when it does not."""
    found = server.status()
    if as_json:
        print_json({**_shown(found.state, found.server), "uses": found.uses})
    elif found.server is None:
        click.echo("The server is stopped; `rainbow server start` starts it.")
        click.echo(f"rainbow run uses {found.uses or 'a temporary server of its own'}.")
    else:
        click.echo(f"The server is {found.state}: {found.server.ui_url}")
        click.echo(f"  pid   {found.server.pid}, since {_when(found.server)}")
        click.echo(f"  log   {found.server.log}")
        _tell_uses(found.uses, found.server)
    return 0 if found.state == "running" else _NOT_RUNNING


def _tell_uses(uses: str | None, found: server.Server) -> None:
    if uses is not None and uses != found.api_url:
        click.echo(f"But Prefect's settings name another one, which rainbow run uses: {uses}")


def _shown(state: str, found: server.Server | None) -> dict[str, Any]:
    if found is None:
        return {"state": state, "api_url": None, "ui_url": None, "pid": None, "since": None, "log": None}
    return {
        "state": state,
        "api_url": found.api_url,
        "ui_url": found.ui_url,
        "pid": found.pid,
        "since": _when(found),
        "log": found.log,
    }


def _when(found: server.Server) -> str:
    return datetime.fromtimestamp(found.since, UTC).isoformat(timespec="seconds")
