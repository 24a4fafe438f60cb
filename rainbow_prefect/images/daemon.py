"""What the Docker engine has: one question to its API, without a client library and without starting a program."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

_DEFAULT_HOST = "unix:///var/run/docker.sock"
_SECONDS = 30.0
_FEW = 8
"""So many images are asked for one by one, at 1 ms each: a list of all takes an engine that has many 100 ms."""


class Present(NamedTuple):
    """An image that the engine has."""

    id: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Images:
    """The images of an engine by name and tag; `unknown` says why nothing is known of them, '' when they are."""

    found: Mapping[str, Present] = field(default_factory=dict)
    unknown: str = ""

    def get(self, image: str) -> Present | None:
        """The image of this name; names of Docker Hub may be written short or long."""
        return self.found.get(_short(image))


class _NotThere(ValueError):
    """There is nothing of this name, or nothing can have it."""


def _short(image: str) -> str:
    for prefix in ("docker.io/library/", "index.docker.io/library/", "docker.io/", "index.docker.io/"):
        if image.startswith(prefix):
            return image.removeprefix(prefix)
    return image


def config_folder() -> Path:
    """The folder of the Docker client's settings."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def config() -> dict[str, Any]:
    """The Docker client's settings; none when they cannot be read."""
    try:
        found = json.loads((config_folder() / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def host() -> str:
    """Where the engine listens: `DOCKER_HOST`, else the Docker context, else the socket of this machine."""
    if given := os.environ.get("DOCKER_HOST"):
        return given
    context = os.environ.get("DOCKER_CONTEXT") or config().get("currentContext") or "default"
    if context == "default":
        return _DEFAULT_HOST
    digest = hashlib.sha256(str(context).encode()).hexdigest()
    try:
        data = json.loads((config_folder() / "contexts" / "meta" / digest / "meta.json").read_bytes())
        return str(data["Endpoints"]["docker"]["Host"])
    except (OSError, ValueError, KeyError, TypeError):
        return _DEFAULT_HOST


def images(names: Sequence[str], *, address: str | None = None) -> Images:
    """What the engine at `address` has; `names` are those of interest, for an engine that must be asked for each."""
    where = address or host()
    scheme = urlsplit(where).scheme
    try:
        if scheme not in ("unix", "tcp", "http", "https"):
            return Images(dict(_listed(_inspected(where, names))))
        if not 0 < len(names) <= _FEW:
            return Images(dict(_listed(_get(where, "/images/json"))))
        return Images(dict(_listed(one for name in names for one in _asked(where, name))))
    except (OSError, ValueError) as error:
        return Images(unknown=f"no Docker engine answers at {where} ({_why(error)})")


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _asked(where: str, name: str) -> list[dict[str, Any]]:
    """The image of this name; none when the engine has none."""
    try:
        return [_labelled(_get(where, f"/images/{quote(name, safe='/:@')}/json"))]
    except _NotThere:
        return []


def _labelled(one: dict[str, Any]) -> dict[str, Any]:
    """What an engine says of one image, in the form of its list of images."""
    return {**one, "Labels": (one.get("Config") or {}).get("Labels")}


def _listed(answer: Iterable[Any]) -> list[tuple[str, Present]]:
    return [
        (str(tag), Present(str(one["Id"]), one.get("Labels") or {}))
        for one in answer
        for tag in one.get("RepoTags") or ()
    ]


def _connection(where: str) -> socket.socket:
    parts = urlsplit(where)
    if parts.scheme == "unix":
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(_SECONDS)
        made.connect(parts.path)
        return made
    is_tls = parts.scheme == "https" or bool(os.environ.get("DOCKER_TLS_VERIFY"))
    name = parts.hostname or "localhost"
    plain = socket.create_connection((name, parts.port or (2376 if is_tls else 2375)), _SECONDS)
    if not is_tls:
        return plain
    import ssl

    folder = Path(os.environ.get("DOCKER_CERT_PATH") or config_folder())
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context.wrap_socket(plain, server_hostname=name)


def _get(where: str, path: str) -> Any:
    """The JSON at a path of the API; HTTP/1.0, where an answer ends with its connection, needs no library."""
    with _connection(where) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\nAccept: application/json\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
    status = head.partition(b"\r\n")[0].decode(errors="replace").split(" ", 1)
    if len(status) < 2 or not status[1].startswith("200"):
        kind = _NotThere if status[-1].startswith(("400", "404")) else ValueError
        raise kind(f"it answers {status[-1] or 'nothing'}")
    return json.loads(body)


def _inspected(where: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """By the Docker client, which knows engines that are reached by ssh; names that are not there are left out."""
    if not names:
        return []
    import subprocess

    argv = ["docker", "--host", where, "image", "inspect", "--format", "{{json .}}", *names]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"no answer within {_SECONDS:g} s") from None
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines and done.returncode and "No such image" not in done.stderr:
        raise ValueError((done.stderr.strip().splitlines() or ["docker image inspect failed"])[-1])
    return [_labelled(one) for one in lines]
