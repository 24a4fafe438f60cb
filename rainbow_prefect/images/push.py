"""Pushes images to their registries with the Docker client, and opens registries that Docker's settings do not."""

from __future__ import annotations

import base64
import json
import os
import re
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..app import BLOCK
from ..errors import Cancelled, RainbowError, RunError
from ..masking import Masker
from . import daemon
from .builder import run
from .recipe import Recipe, tagged

_PROGRESS = re.compile(r"[0-9a-f]{12}: |The push refers to repository ")

DOCKER_HUB = "https://index.docker.io/v1/"


@dataclass(frozen=True)
class Login:
    """What opens a registry; `registry` is its host, as image names begin with it."""

    registry: str
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Login({self.registry}, {self.user})"


Logins = Callable[[Recipe], Login | None]
"""Gives the login of an image's `credentials`; None: Docker's own settings open its registry."""


def registry_of(image: str) -> str:
    """The registry of an image as Docker's settings name it: a host, or the address of Docker Hub."""
    first, slash, _ = image.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost")
    return first if is_host and first not in ("docker.io", "index.docker.io") else DOCKER_HUB


def push(
    recipes: Sequence[Recipe],
    *,
    logins: Logins,
    tell: Callable[[str, str], None],
    stop: threading.Event | None = None,
    env: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Push each of these images; gives what went wrong by image, '' for one that is in its registry."""
    stop = stop or threading.Event()
    return {one.image: _pushed(one, logins, tell, stop, dict(os.environ if env is None else env)) for one in recipes}


def _pushed(
    one: Recipe, logins: Logins, tell: Callable[[str, str], None], stop: threading.Event, env: dict[str, str]
) -> str:
    last: deque[str] = deque(maxlen=5)
    masker = Masker()
    try:
        login = logins(one)
        if login is not None:
            masker.learn(login.password)
        tell(one.image, f"pushing to {_host(registry_of(one.image))}")
        with login_env(login) as more:
            argv = ["docker", "push", tagged(one.image)]
            status = run(argv, {**env, **more}, last.append, lambda line: None, stop)
            told = [line for line in last if line.strip() and not _PROGRESS.match(line)]
    except Cancelled:
        return "cancelled"
    except (RainbowError, OSError) as error:
        message = str(error).removeprefix(f"image '{one.image}': ")
    else:
        message = masker.mask(" | ".join(told)[-500:]) if status else ""
        message = message or (f"exit status {status}" if status else "")
    tell(one.image, f"could not be pushed: {message}" if message else "pushed")
    return message


@contextmanager
def login_env(login: Login | None) -> Iterator[dict[str, str]]:
    """The variables with which the Docker client has this login, beside all that its own settings say.

    The password is in a file for this user alone, which is removed at the end; never in an argument.
    """
    if login is None:
        yield {}
        return
    settings = daemon.config()
    token = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
    settings["auths"] = {**(settings.get("auths") or {}), login.registry: {"auth": token}}
    # '' is the file itself: else a keychain that the settings name would be asked
    settings["credHelpers"] = {**(settings.get("credHelpers") or {}), login.registry: ""}
    own = daemon.config_folder()
    with tempfile.TemporaryDirectory(prefix="rainbow-docker-") as name:
        folder = Path(name)
        for entry in own.iterdir() if own.is_dir() else ():
            if entry.name != "config.json":
                (folder / entry.name).symlink_to(entry.absolute())
        file = os.open(folder / "config.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as out:
            json.dump(settings, out)
        yield {"DOCKER_CONFIG": name}


def logins(read_secret: Callable[[str], str], read_block: Callable[[str], Any]) -> Logins:
    """The login of each image from its `credentials`: `block:TYPE/NAME`, or a secret by its name."""

    def login(one: Recipe) -> Login | None:
        if not one.credentials:
            return None
        if one.credentials.startswith(BLOCK):
            reference = one.credentials.removeprefix(BLOCK)
            return login_of_block(one.image, read_block(reference), reference)
        return login_of(one.image, read_secret(one.credentials), one.credentials)

    return login


def login_of(image: str, text: str, what: str) -> Login:
    """The login of a secret's text, `user:password`.

    Raises:
        RunError: it is no such text.
    """
    user, colon, password = text.strip().partition(":")
    if not colon or not user or not password:
        raise RunError(f"image '{image}': the secret '{what}' is not `user:password`")
    return Login(registry_of(image), user, password)


def login_of_block(image: str, block: Any, reference: str) -> Login:
    """The login that a Prefect block holds: DockerRegistryCredentials, or AwsCredentials for a registry of ECR.

    Raises:
        RunError: the block is of another type, or AWS gives no token.
    """
    if hasattr(block, "registry_url") and hasattr(block, "password"):
        host = registry_of(image)
        if _host(block.registry_url) != _host(host):
            raise RunError(
                f"image '{image}': the block '{reference}' opens {_host(block.registry_url)}, not {_host(host)}"
            )
        return Login(host, block.username, block.password.get_secret_value())
    if hasattr(block, "get_boto3_session"):
        return _ecr(image, block)
    raise RunError(
        f"image '{image}': the block '{reference}' is a {type(block).__name__}; "
        "`credentials` takes DockerRegistryCredentials or AwsCredentials"
    )


def _host(registry: str) -> str:
    """A registry without scheme and path, so that two spellings are one."""
    host = registry.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io", "hub.docker.com") else host


def _ecr(image: str, block: Any) -> Login:
    """A login that AWS gives for twelve hours.

    Source: GetAuthorizationToken of the ECR API; the token is base64 of `AWS:password`.
    """
    host = registry_of(image)
    region = host.split(".")[3] if ".dkr.ecr." in host and host.count(".") >= 5 else None
    try:
        client = block.get_boto3_session().client("ecr", **_client_options(block, region))
        answer = client.get_authorization_token()
        token = base64.b64decode(answer["authorizationData"][0]["authorizationToken"]).decode()
    except Exception as error:  # botocore's errors have no base of ours, and the block's none at all
        raise RunError(f"image '{image}': AWS gives no token for its registry: {error}") from error
    user, _, password = token.partition(":")
    return Login(host, user, password)


def _client_options(block: Any, region: str | None) -> dict[str, Any]:
    parameters: Any = getattr(block, "aws_client_parameters", None)
    options: dict[str, Any] = {} if parameters is None else dict(parameters.get_params_override())
    if region is not None and not getattr(block, "region_name", None):
        options["region_name"] = region
    return options
