"""`rainbow service up | down | status | logs | update | manifest`: services on a Docker engine, and for a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import json_option, path_argument, print_json
from .serve import chosen

if TYPE_CHECKING:
    from ..app import Service

service_option = click.option("--service", "-s", metavar="NAME", help="This service only.")


@click.group()
def command() -> None:
    """Run services on a Docker engine, several replicas behind one address."""


@command.command()
@path_argument
@service_option
@click.option(
    "--replicas", type=click.IntRange(1, 100), help="How many run side by side. Default: its `replicas`, else 1."
)
@click.option("--port", type=click.IntRange(0, 65535), help="The port on this machine. Default: its `port`, else 8000.")
@json_option
def up(path: Path, service: str | None, replicas: int | None, port: int | None, as_json: bool) -> None:
    """Start services; each is ready when this ends."""

    def start(engine: Any, one: Service) -> None:
        from ..services.on_docker import settings_of

        engine.up(settings_of(one, one.app, replicas=replicas), port=(one.port or 8000) if port is None else port)

    _each(path, service, start, as_json)


@command.command()
@path_argument
@service_option
@click.option("--replicas", type=click.IntRange(1, 100), help="How many run side by side. Default: as many as now.")
@click.option("--image", metavar="NAME", help="The new image. Default: that of the file.")
@json_option
def update(path: Path, service: str | None, replicas: int | None, image: str | None, as_json: bool) -> None:
    """Exchange all replicas for new ones without a failed request; when these do not become ready, keep the old ones."""

    def exchange(engine: Any, one: Service) -> None:
        from ..services.on_docker import settings_of

        count = replicas or len(engine.containers(one.app.name, one.service, "replica")) or None
        engine.update(settings_of(one, one.app, image=image, replicas=count))

    _each(path, service, exchange, as_json)


@command.command()
@path_argument
@service_option
@json_option
def down(path: Path, service: str | None, as_json: bool) -> None:
    """End services; what is in flight is finished."""
    _each(path, service, lambda engine, one: engine.down(one.app.name, one.service), as_json)


@command.command()
@path_argument
@service_option
@json_option
def status(path: Path, service: str | None, as_json: bool) -> None:
    """Tell what runs of each service."""
    _each(path, service, lambda engine, one: None, as_json)


@command.command()
@path_argument
@service_option
@click.option(
    "--tail", type=click.IntRange(1, 100_000), default=100, show_default=True, help="So many last lines of each."
)
def logs(path: Path, service: str | None, tail: int) -> None:
    """Print the logs of the replicas."""
    from ..services.on_docker import Engine

    services = chosen(path, service)
    engine = Engine(_say)
    for one in services:
        for name, text in engine.logs(one.app.name, one.service, tail=tail):
            for line in text.splitlines():
                click.echo(f"{name} | {line}")


@command.command()
@path_argument
@service_option
@click.option(
    "--for",
    "target",
    type=click.Choice(["kubernetes", "compose"]),
    default="kubernetes",
    show_default=True,
    help="What it is for.",
)
def manifest(path: Path, service: str | None, target: str) -> None:
    """Print the files for a Kubernetes cluster, or for docker compose."""
    from ..services import manifests

    made = manifests.kubernetes if target == "kubernetes" else manifests.compose
    click.echo(made(chosen(path, service)), nl=False)


def _each(path: Path, name: str | None, do: Callable[[Any, Any], Any], as_json: bool) -> None:
    from ..services.on_docker import Engine

    services = chosen(path, name)
    engine = Engine(_say)
    for one in services:
        do(engine, one)
    found = [engine.status(one.app.name, one.service) for one in services]
    if as_json:
        print_json({"services": found})
        return
    for each in found:
        click.echo(" ".join(filter(None, (f"{each['service']}:", each["state"], each["url"]))))
        for replica in each["replicas"]:
            click.echo(f"  {replica['container']}  {replica['state']}  {replica['image']}")


def _say(text: str) -> None:
    click.echo(text, err=True)
