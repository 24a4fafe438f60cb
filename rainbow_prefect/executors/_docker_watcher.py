"""Waits until the process that started it is gone, then removes the containers that it left behind.

    python -I -S _docker_watcher.py

Standard library only, so that it starts in a moment and needs little memory. Its standard input is a pipe from that
process: the first line is a JSON object (`address`, `owner`, `tls`, `prefect`), later ones are `keep ID`, `run ID`,
`over ID` and `bye`. The end of the pipe is the end of the process, whatever ended it.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import sys
import time
import urllib.parse
import urllib.request
from typing import Any

SWEEPS = (0, 1, 3)  # seconds between them: the engine may still be making a container that it was asked for
PATIENCE = 600  # seconds for an engine that is restarting
TIMEOUT = 60
FLOW_RUN = "rainbow.flow-run"
OWNER = "rainbow.owner"


class Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self.path)


def main() -> None:
    """Read until the end of the pipe, then act."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    first = sys.stdin.readline()
    if not first:
        return
    settings = json.loads(first)
    kept, runs, said_bye = heard()
    for run in runs:
        with contextlib.suppress(Exception):
            tell_prefect(settings.get("prefect") or {}, run)
    for pause in SWEEPS[:1] if said_bye else SWEEPS:
        time.sleep(pause)
        patiently(settings, kept)


def heard() -> tuple[set[str], set[str], bool]:
    """What the process said until it ended: containers to keep, runs that were under way, whether it went in peace."""
    kept: set[str] = set()
    runs: set[str] = set()
    said_bye = False
    for line in sys.stdin:
        word, _, name = line.strip().partition(" ")
        if word == "keep":
            kept.add(name)
        elif word == "run":
            runs.add(name)
        elif word == "over":
            runs.discard(name)
        elif word == "bye":
            said_bye = True
    return kept, runs, said_bye


def patiently(settings: dict[str, Any], kept: set[str]) -> None:
    """Remove the containers; wait for an engine that is away."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            sweep(settings, kept)
            return
        except (OSError, http.client.HTTPException, ValueError):
            time.sleep(1)


def sweep(settings: dict[str, Any], kept: set[str]) -> None:
    """Remove all containers of the process that is gone."""
    filters = urllib.parse.quote(json.dumps({"label": [OWNER + "=" + settings["owner"]]}))
    _, text = call(settings, "GET", "/containers/json?all=1&filters=" + filters)
    for one in json.loads(text):
        if one["Id"] not in kept:
            call(settings, "DELETE", "/containers/" + one["Id"] + "?force=1&v=1")


def call(settings: dict[str, Any], method: str, path: str) -> tuple[int, bytes]:
    """One call of the engine's API."""
    connection = connect(settings)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def connect(settings: dict[str, Any]) -> http.client.HTTPConnection:
    """A connection to the engine."""
    address = urllib.parse.urlsplit(settings["address"])
    if address.scheme == "unix":
        return Unix(address.path)
    host, port = address.hostname or "localhost", address.port
    tls = settings.get("tls")
    if not tls:
        return http.client.HTTPConnection(host, port or 2375, timeout=TIMEOUT)
    context = ssl.create_default_context(cafile=tls.get("ca") or None)
    if tls.get("cert"):
        context.load_cert_chain(tls["cert"], tls.get("key"))
    if not tls.get("verify", True):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port or 2376, timeout=TIMEOUT, context=context)


def tell_prefect(prefect: dict[str, str], run: str) -> None:
    """Write down that a run has crashed, when nobody else has written down how it ended."""
    url = prefect.get("url")
    if not url:
        return
    headers = {"Content-Type": "application/json"}
    if prefect.get("key"):
        headers["Authorization"] = "Bearer " + prefect["key"]
    elif prefect.get("auth"):
        headers["Authorization"] = "Basic " + base64.b64encode(prefect["auth"].encode()).decode()
    known = ask(url + "/flow_runs/" + run, headers, None)
    if (known.get("state") or {}).get("type") != "RUNNING":
        return
    state = {"type": "CRASHED", "name": "Crashed", "message": "the process that ran it was killed"}
    ask(url + "/flow_runs/" + run + "/set_state", headers, {"state": state})


def ask(url: str, headers: dict[str, str], data: Any) -> Any:
    """One call of the Prefect API."""
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(url, body, headers)  # noqa: S310  the address is Prefect's own setting
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
        return json.loads(answer.read())


if __name__ == "__main__":
    os.chdir("/")
    main()
