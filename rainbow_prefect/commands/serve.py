"""`rainbow serve [PATH]`: serve the services of the files that were found, on this machine."""

from __future__ import annotations

import gc
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import check
from ..errors import CallError, ConfigError, RainbowError, near
from .options import json_option, path_argument, print_json, print_problems

if TYPE_CHECKING:
    from ..app import Service
    from ..services.definition import Definition

_LAST_PORT = 65_535


@click.command()
@path_argument
@click.option("--service", "-s", metavar="NAME", help="Serve this service only.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on; 0.0.0.0: all.")
@click.option(
    "--port",
    type=click.IntRange(0, _LAST_PORT),
    help="The port, and those after it for more services. Default: `port` of each, else from 8000 on.",
)
@click.option(
    "--workers", type=click.IntRange(1, 256), help="Processes for each service. Default: its `workers`, else 1."
)
@click.option("--reload", is_flag=True, help="Take over code and settings as they change.")
@json_option
def command(
    path: Path, service: str | None, host: str, port: int | None, workers: int | None, reload: bool, as_json: bool
) -> int:
    """Serve the endpoints of all services, or of one, until Ctrl-C; what is in flight is finished.

    Exit status: 0 it was told to stop, 1 it could not be started, 2 the file or the call is wrong.
    """
    services = chosen(path, service)
    from ..services.local import definition_of
    from ..services.server import bound

    definitions = [definition_of(one) for one in services]
    ports = _ports(services, port)
    socks = [bound(host, one) for one in ports]
    told = _told(services, host, socks)

    def ready() -> None:
        _show(told, as_json)

    gc.freeze()
    counts = [workers or one.workers or 1 for one in services]
    if len(services) == 1 and counts == [1] and not reload:
        from ..services.server import serve

        serve(definitions[0], socks[0], tell=ready)
        return 0
    from ..services.supervisor import Group, supervise

    groups = [Group(*one) for one in zip(definitions, socks, counts, strict=True)]
    changed = _Changes(path, service, definitions) if reload else None
    supervise(groups, tell=_say, ready=ready, changed=changed)
    return 0


def chosen(path: Path, name: str | None) -> list[Service]:
    """The service of this name, or all; warnings go to stderr.

    Raises:
        ConfigError: the file of the service is wrong, or no service is named and any file is.
        CallError: there is no such service.
    """
    checked = check.check(path)
    found = {one.service: one for app in checked.apps for one in app.services}
    if checked.errors and name not in found:
        raise ConfigError(checked.problems)
    print_problems(checked.problems)
    if name is not None and name not in found:
        hint = near(name, found)
        raise CallError(f"there is no service '{name}'{f'; {hint}' if hint else ''}")
    services = [found[name]] if name is not None else list(found.values())
    if not services:
        raise CallError("there is no service in the files that were found; add one under `services`")
    return services


def _ports(services: Sequence[Service], port: int | None) -> list[int]:
    """The port of each: counted from `--port`, else its own, else the next free number from 8000 on."""
    if port is not None:
        return [port + index if port else 0 for index in range(len(services))]
    taken = {one.port for one in services if one.port is not None}
    free = iter(one for one in range(8000, _LAST_PORT + 1) if one not in taken)
    return [one.port or next(free) for one in services]


def _told(services: Sequence[Service], host: str, socks: Sequence[socket.socket]) -> list[dict[str, Any]]:
    shown = f"[{host}]" if ":" in host else host
    return [
        {
            "service": one.service,
            "url": f"http://{shown}:{sock.getsockname()[1]}",
            "endpoints": [each.endpoint for each in one.endpoints],
        }
        for one, sock in zip(services, socks, strict=True)
    ]


def _show(told: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json({"services": told})
    else:
        for one in told:
            click.echo(f"{one['service']}: {one['url']} ({', '.join(one['endpoints'])}; docs: /docs)")
    sys.stdout.flush()


def _say(text: str) -> None:
    click.echo(text, err=True)


class _Changes:
    """Gives the definitions anew when a file below `path` or in the code changed; those of wrong files are told."""

    def __init__(self, path: Path, service: str | None, definitions: Sequence[Definition]) -> None:
        from ..services.supervisor import Files

        self._path = path
        self._service = service
        self._names = [one.service for one in definitions]
        top = path if path.is_dir() else path.parent
        self._files = Files([top, *(one.folder for one in definitions if top.resolve() not in one.folder.parents)])

    def __call__(self) -> list[Definition] | None:
        if not self._files.changed():
            return None
        from ..services.local import definition_of

        try:
            found = {one.service: definition_of(one) for one in chosen(self._path, self._service)}
        except RainbowError as error:
            _say(f"Error: {error}" if not hasattr(error, "problems") else str(error))
            return None
        if list(found) != self._names:
            _say("Error: other services than before; start `rainbow serve` again")
            return None
        _say("a file changed; taking it over")
        return list(found.values())
