"""Credentials of image registries out of Prefect: the blocks of prefect-docker and prefect-aws, read when they are needed."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any

import httpx
from prefect.blocks.core import Block, UnknownBlockType

from ..errors import CallError, MissingExtra, RunError

_PACKAGES = {"docker-registry-credentials": ("prefect_docker", "docker"), "aws-credentials": ("prefect_aws", "aws")}


def credentials(reference: str) -> Any:
    """The Prefect block `TYPE/NAME`.

    Raises:
        CallError: there is no such block, or its package is not installed.
        RunError: Prefect cannot be reached.
    """
    slug, _, name = reference.partition("/")
    if slug in _PACKAGES:
        package, extra = _PACKAGES[slug]
        try:
            import_module(package)  # its block types are known from then on
        except ImportError as error:
            raise MissingExtra(f"the block '{reference}'", extra) from error
    try:
        kind = Block.get_block_class_from_key(slug)
    except UnknownBlockType:
        raise CallError(f"unknown block type '{slug}' in 'block:{reference}'; known: {', '.join(_PACKAGES)}") from None
    with suppress(ValueError):
        try:
            return kind.load(name, _sync=True)  # type: ignore[call-arg]
        except httpx.HTTPError as error:
            raise RunError(f"the block '{reference}' cannot be read: {error}") from error
    raise CallError(f"there is no block '{name}' of type '{slug}'; save it in the Prefect UI")
