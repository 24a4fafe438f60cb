"""What the serving part knows of a service: plain data, read from JSON. Imports nothing but the standard library."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import RunError

METHODS = ("GET", "POST")
MAX_BODY_BYTES = 10 * 1024 * 1024
TIMEOUT_SECONDS = 60.0
THREADS = 40


@dataclass(frozen=True)
class Batch:
    """So many requests are given to one call at most, after so many milliseconds at most."""

    max_size: int = 32
    max_wait_ms: float = 5.0


@dataclass(frozen=True)
class Endpoint:
    """One path and its function. `auth`: None as the service says, False open, True any token, a text: its scope."""

    endpoint: str
    module: str
    function: str
    methods: tuple[str, ...] = METHODS
    description: str = ""
    status: int | None = None
    blocking: bool | None = None
    timeout_seconds: float | None = None
    auth: bool | str | None = None
    batch: Batch | None = None


@dataclass(frozen=True)
class Token:
    """A token that opens the service; `env` is the variable that holds it where `value` is empty."""

    name: str
    value: str = field(default="", repr=False)
    env: str = ""
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RateLimit:
    """So many requests in so many seconds, for each client."""

    requests: int
    seconds: float = 60.0


@dataclass(frozen=True)
class Definition:
    """One service: `folder` holds its code, `name` is that folder's own name where the YAML file is."""

    service: str
    folder: Path
    name: str = ""
    description: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    hidden: tuple[str, ...] = field(default=(), repr=False)
    on_start: str | None = None
    on_stop: str | None = None
    auth: tuple[Token, ...] = ()
    cors: tuple[str, ...] = ()
    gzip: bool = False
    docs: bool = True
    max_body_bytes: int = MAX_BODY_BYTES
    max_in_flight: int | None = None
    rate_limit: RateLimit | None = None
    timeout_seconds: float = TIMEOUT_SECONDS
    threads: int = THREADS

    def as_json(self) -> str:
        """The text that `read` takes; it holds secrets."""
        return json.dumps({**asdict(self), "folder": str(self.folder)})


def read(text: str, folder: Path | None = None) -> Definition:
    """A service from JSON; `folder` is where its code is, if the text does not say it.

    Raises:
        RunError: a variable with a token is not set.
    """
    data: dict[str, Any] = json.loads(text)
    data["folder"] = folder or Path(data["folder"])
    data["endpoints"] = tuple(map(_endpoint, data.get("endpoints") or ()))
    data["auth"] = tuple(map(_token, data.get("auth") or ()))
    data["rate_limit"] = RateLimit(**data["rate_limit"]) if data.get("rate_limit") else None
    for key in ("hidden", "cors"):
        data[key] = tuple(data.get(key) or ())
    return Definition(**data)


def _endpoint(data: dict[str, Any]) -> Endpoint:
    batch = Batch(**data["batch"]) if data.get("batch") else None
    return Endpoint(**{**data, "methods": tuple(data.get("methods") or METHODS), "batch": batch})


def _token(data: dict[str, Any]) -> Token:
    token = Token(**{**data, "scopes": tuple(data.get("scopes") or ())})
    if token.value:
        return token
    value = os.environ.get(token.env, "").strip()
    if not value:
        raise RunError(f"the token '{token.name}' is not given; set the variable {token.env}")
    return Token(token.name, value, token.env, token.scopes)
