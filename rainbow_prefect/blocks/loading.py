"""Executors, sources and sinks out of Prefect: found by reference, checked, and told in plain words when that fails."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

import httpx
from prefect.blocks.core import Block, UnknownBlockType
from prefect.client.orchestration import get_client
from pydantic import ValidationError

from ..errors import CallError, MissingExtra, RunError, near
from ..executors.base import Executor
from ..sql_etl.config import Sink, Source
from .executors import BLOCKS, ExecutorBlock
from .sql import SINKS, SOURCES, SqlBlock

HOST = "docker-host/"
REGISTER = "prefect block register -m rainbow_prefect.blocks"
_SHOWN = 20


_KINDS: dict[str, tuple[type, Mapping[str, type[Block]]]] = {
    "executor": (Executor, BLOCKS),
    "source": (Source, SOURCES),
    "sink": (Sink, SINKS),
}
"""What a block may be asked for as: the class it must have, and the types of this package."""


def load(reference: str, *, name: str | None) -> Executor:
    """See `blocks.executor`."""
    block = _loaded(reference, "executor")
    made: Executor = block.executor_named(name) if isinstance(block, ExecutorBlock) else block
    return made


def load_store(reference: str, what: str) -> Source | Sink:
    """See `blocks.store`."""
    block = _loaded(reference, what)
    made: Source | Sink = block.plain() if isinstance(block, SqlBlock) else block
    return made


def _loaded(reference: str, what: str) -> Any:
    slug, _, document = reference.partition("/")
    shown = f"the {what} 'block:{reference}'"
    kind = _kind(slug, shown, what)
    try:
        return kind.load(document, _sync=True)  # type: ignore[call-arg]
    except ValueError:
        raise CallError(_not_there(slug, document, shown)) from None
    except RuntimeError as error:
        raise CallError(_not_valid(shown, error)) from error
    except httpx.HTTPError as error:
        raise RunError(f"the block '{reference}' cannot be read, the Prefect API did not answer: {error}") from error


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


def _kind(slug: str, shown: str, what: str) -> type[Block]:
    """The class of this slug: one of ours at once, without importing all collections that are installed."""
    wanted, known = _KINDS[what]
    kind = next((one[slug] for one in (known, *(others for _, others in _KINDS.values())) if slug in one), None)
    if kind is None:
        try:
            kind = Block.get_block_class_from_key(slug)
        except UnknownBlockType:
            hint = near(slug, known) or "install the package that has it"
            raise CallError(f"{shown}: unknown block type '{slug}'; {hint}") from None
    if issubclass(kind, wanted):
        return kind
    raise CallError(f"{shown}: a block of type '{slug}' is no {what}; use one of type {', '.join(sorted(known))}")


def _not_there(slug: str, document: str, shown: str) -> str:
    """That there is no such block, with those there are."""
    text = f"{shown}: there is no block '{document}' of type '{slug}'"
    with get_client(sync_client=True) as client:
        path: Any = f"/block_types/slug/{slug}/block_documents"
        with suppress(httpx.HTTPStatusError):  # the type itself is not registered
            names = sorted(one["name"] for one in client.request("GET", path).json())
            if names:
                return f"{text}; {near(document, names) or 'there are: ' + ', '.join(names[:_SHOWN])}"
        where = str(client.api_url).removesuffix("/").removesuffix("/api")
    return f"{text}; run `{REGISTER}` and make it in the Prefect UI: {where}/blocks/catalog/{slug}/create"


def _not_valid(shown: str, error: RuntimeError) -> str:
    """What is wrong with the fields of a saved block."""
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return f"{shown} cannot be used: {error}"
    flaws = [_flaw(".".join(map(str, one["loc"])), one) for one in cause.errors(include_url=False)]
    return (
        f"{shown} cannot be used: {'; '.join(flaws)}; "
        "correct it in the Prefect UI, or delete it there and make it again"
    )


def _flaw(field: str, error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return f"it has no field '{field}', or has it no longer"
    hint = error.get("ctx", {}).get("hint")
    text = f"{error['msg']} ({hint})" if hint else error["msg"]
    return f"'{field}': {text}" if field else str(text)
