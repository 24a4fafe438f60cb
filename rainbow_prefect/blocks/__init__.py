"""What is kept as Prefect blocks; each function here imports Prefect when it is called."""

from __future__ import annotations

from typing import Any


def secret(reference: str) -> str:
    """The value of the Prefect block `TYPE/NAME`: a `secret`, or any block that has a `value` or a `get`.

    Raises:
        Exception: Prefect's own, e.g. ValueError when there is no such block.
    """
    from prefect.blocks.core import Block

    block: Any = Block.load(reference)
    value: Any = block.get() if hasattr(block, "get") else getattr(block, "value", None)
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if value is None:
        raise ValueError(f"the block {reference} has no value")
    return value if isinstance(value, str) else str(value)
