"""A `Service` of a checked file as the definition that serves it here: its secrets read, its folder found."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CallError
from ..secrets import Secrets
from .definition import Batch, Definition, Endpoint, RateLimit, Token

if TYPE_CHECKING:
    from ..app import App, Service


def definition_of(service: Service, app: App | None = None) -> Definition:
    """The definition of a service with the values of its secrets.

    Raises:
        CallError: the folder with its code is not known.
        RunError: a secret cannot be read.
    """
    app = app or service.app
    secrets = Secrets(app.secrets, app.root)
    secrets.learn_from(app.data)
    folder = folder_of(service, app)
    env = {**secrets.render({**app.env_vars, **service.env_vars})}
    env |= {one.env: secrets.get(one.secret) for one in service.secrets if one.env is not None}
    shared = settings(service)
    tokens = tuple(Token(one.secret, secrets.get(one.secret), "", one.scopes) for one in service.auth)
    values = tuple(secrets.get(name) for name in {one.secret for one in service.secrets if one.env is not None})
    return Definition(folder=folder, name=folder.name, env=env, hidden=values, auth=tokens, **shared)


def folder_of(service: Service, app: App) -> Path:
    """The folder with the code of a service: its own `source`, else that of its image.

    Raises:
        CallError: neither is known.
    """
    written = service.source or app.image_sources.get(service.image or "")
    if written is None:
        raise CallError(f"service '{service.service}' has no code; add `source: FOLDER`")
    return (app.root / written).resolve()


def variable_of(secret: str) -> str:
    """The variable by which an image is given a token."""
    return "RAINBOW_TOKEN_" + re.sub(r"[^A-Z0-9]", "_", secret.upper())


def settings(service: Service) -> dict[str, Any]:
    """What a definition says of a service that is the same here and in an image, without secrets."""
    made: dict[str, Any] = {
        "service": service.service,
        "description": service.description,
        "endpoints": tuple(_endpoint(one) for one in service.endpoints),
        "on_start": service.on_start,
        "on_stop": service.on_stop,
        "cors": service.cors,
        "gzip": service.gzip,
        "docs": service.docs,
        "max_in_flight": service.max_in_flight,
    }
    if service.rate_limit is not None:
        made["rate_limit"] = RateLimit(service.rate_limit.requests, service.rate_limit.seconds)
    for key in ("max_body_bytes", "timeout_seconds", "threads"):
        if getattr(service, key) is not None:
            made[key] = getattr(service, key)
    return made


def _endpoint(one: Any) -> Endpoint:
    batch = None if one.batch is None else Batch(one.batch.max_size, one.batch.max_wait_ms)
    return Endpoint(
        endpoint=one.endpoint,
        module=one.module,
        function=one.function,
        methods=tuple(one.methods),
        description=one.description,
        status=one.status,
        blocking=one.blocking,
        timeout_seconds=one.timeout_seconds,
        auth=one.auth,
        batch=batch,
    )
