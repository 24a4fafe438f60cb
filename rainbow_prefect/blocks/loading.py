"""Executors out of Prefect: found by reference, checked, and told in plain words when that fails."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any

import httpx
from prefect.blocks.core import Block, UnknownBlockType
from prefect.client.orchestration import get_client
from pydantic import ValidationError

from ..errors import CallError, MissingExtra, RunError, near
from ..executors.base import Executor
from .executors import BLOCKS, ExecutorBlock, is_executor

HOST = "docker-host/"
REGISTER = "prefect block register -m rainbow_prefect.blocks"
_SHOWN = 20


def load(reference: str, *, name: str | None) -> Executor:
    """See `blocks.executor`."""
    slug, _, document = reference.partition("/")
    kind = _kind(slug, reference)
    try:
        block: Any = kind.load(document, _sync=True)  # type: ignore[call-arg]
    except ValueError:
        raise CallError(_not_there(slug, document)) from None
    except RuntimeError as error:
        raise CallError(_not_valid(reference, error)) from error
    except httpx.HTTPError as error:
        raise RunError(f"the block '{reference}' cannot be read, the Prefect API did not answer: {error}") from error
    made: Executor = block.executor_named(name) if isinstance(block, ExecutorBlock) else block
    return made


def load_host(reference: str) -> str | None:
    """See `blocks.docker_host`."""
    try:
        kind: Any = import_module("prefect_docker").DockerHost
    except ImportError as error:
        raise MissingExtra(f"the host 'block:{reference}'", "docker") from error
    name = reference.removeprefix(HOST)
    try:
        block = kind.load(name, _sync=True)
    except ValueError:
        text = f"the host 'block:{reference}': there is no block '{name}' of type 'docker-host'"
        raise CallError(f"{text}; make it in the Prefect UI under Blocks") from None
    except (httpx.HTTPError, RuntimeError) as error:
        raise RunError(f"the host 'block:{reference}' cannot be read: {error}") from error
    if block.client_kwargs:
        raise CallError(
            f"the host 'block:{reference}': its additional configuration cannot be used; "
            "certificates are those of DOCKER_CERT_PATH"
        )
    address: str | None = block.base_url
    return address


def _kind(slug: str, reference: str) -> type[Block]:
    """The class of this slug: one of ours at once, without importing all collections that are installed."""
    kind: type[Block] | None = BLOCKS.get(slug)
    if kind is not None:
        return kind
    try:
        kind = Block.get_block_class_from_key(slug)
    except UnknownBlockType:
        hint = near(slug, BLOCKS) or "install the package that has it"
        raise CallError(f"the executor 'block:{reference}': unknown block type '{slug}'; {hint}") from None
    if is_executor(kind):
        return kind
    raise CallError(
        f"the executor 'block:{reference}': a block of type '{slug}' is no executor; "
        f"use one of type {', '.join(sorted(BLOCKS))}"
    )


def _not_there(slug: str, document: str) -> str:
    """That there is no such block, with those there are."""
    text = f"the executor 'block:{slug}/{document}': there is no block '{document}' of type '{slug}'"
    with get_client(sync_client=True) as client:
        path: Any = f"/block_types/slug/{slug}/block_documents"
        with suppress(httpx.HTTPStatusError):  # the type itself is not registered
            names = sorted(one["name"] for one in client.request("GET", path).json())
            if names:
                return f"{text}; {near(document, names) or 'there are: ' + ', '.join(names[:_SHOWN])}"
        where = str(client.api_url).removesuffix("/").removesuffix("/api")
    return f"{text}; run `{REGISTER}` and make it in the Prefect UI: {where}/blocks/catalog/{slug}/create"


def _not_valid(reference: str, error: RuntimeError) -> str:
    """What is wrong with the fields of a saved block."""
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return f"the executor 'block:{reference}' cannot be used: {error}"
    flaws = [_flaw(".".join(map(str, one["loc"])), one) for one in cause.errors(include_url=False)]
    return (
        f"the executor 'block:{reference}' cannot be used: {'; '.join(flaws)}; "
        "correct it in the Prefect UI, or delete it there and make it again"
    )


def _flaw(field: str, error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return f"it has no field '{field}', or has it no longer"
    hint = error.get("ctx", {}).get("hint")
    text = f"{error['msg']} ({hint})" if hint else error["msg"]
    return f"'{field}': {text}" if field else str(text)
