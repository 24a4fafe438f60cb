"""What is kept as Prefect blocks; each function here imports Prefect when it is called."""

from __future__ import annotations

from typing import Any


def secret(reference: str) -> str:
    """The value of the Prefect block `TYPE/NAME`: of a `secret`, an `aws-secret`, or any block that holds one value.

    Raises:
        Exception: Prefect's own, e.g. ValueError when there is no such block.
    """
    from prefect.blocks.core import Block

    block: Any = Block.load(reference)
    if hasattr(block, "read_secret"):  # it is kept elsewhere, e.g. by AWS
        value: Any = block.read_secret()
    else:
        value = block.get() if hasattr(block, "get") else getattr(block, "value", None)
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if value is None:
        raise ValueError(f"the block {reference} has no value")
    return value.decode() if isinstance(value, bytes) else str(value)


def executor(reference: str, *, name: str | None = None) -> Executor:
    """The executor that is saved as the Prefect block `TYPE/NAME`, as an executor of this name.

    Raises:
        CallError: there is no such block, it is no executor, or its fields are wrong; the text says what to do.
        RunError: Prefect cannot be reached.
    """
    from .loading import load

    return load(reference, name=name)
