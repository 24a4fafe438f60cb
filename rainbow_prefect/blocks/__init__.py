"""What is kept as Prefect blocks: secrets, and executors, sources and sinks with the fields that they have in a file.

`prefect block register -m rainbow_prefect.blocks` puts them into Prefect's catalogue. Prefect is imported only
when a name of this module is asked for, or a function of it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import RunError

if TYPE_CHECKING:
    from ..executors.base import Executor
    from ..sql_etl.config import Sink, Source
    from .executors import DockerExecutor, EcsExecutor, ExecutorBlock, KubernetesExecutor, ProcessExecutor
    from .sql import SqlBlock, SqlSink, SqlSource

__all__ = [
    "DockerExecutor",
    "EcsExecutor",
    "ExecutorBlock",
    "KubernetesExecutor",
    "ProcessExecutor",
    "SqlBlock",
    "SqlSink",
    "SqlSource",
    "docker_host",
    "executor",
    "secret",
    "store",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from . import executors, sql

    return getattr(sql if name.startswith("Sql") else executors, name)


def __dir__() -> list[str]:
    return __all__


def secret(reference: str) -> str:
    """The value of the Prefect block `TYPE/NAME`: of a `secret`, an `aws-secret`, or any block that holds one value.

    Raises:
        RunError: the block holds no such value, or what keeps it for the block says no.
        Exception: Prefect's own, e.g. ValueError when there is no such block.
    """
    from prefect.blocks.core import Block

    block: Any = Block.load(reference)
    if hasattr(block, "read_secret"):  # it is kept elsewhere, e.g. by AWS
        value: Any = _kept_elsewhere(block, reference)
    else:
        value = block.get() if hasattr(block, "get") else getattr(block, "value", None)
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if value is None:
        raise RunError(
            f"the Prefect block {reference} holds no single value; name a block of type secret or aws-secret"
        )
    return value.decode() if isinstance(value, bytes) else str(value)


def _kept_elsewhere(block: Any, reference: str) -> Any:
    from ..executors._aws import reason

    try:
        return block.read_secret()
    except Exception as error:  # of the library of whatever keeps it
        raise RunError(f"the Prefect block {reference} cannot read its secret: {reason(error)}") from None


def executor(reference: str, *, name: str | None = None) -> Executor:
    """The executor that is saved as the Prefect block `TYPE/NAME`, as an executor of this name.

    Raises:
        CallError: there is no such block, it is no executor, or its fields are wrong; the text says what to do.
        RunError: Prefect cannot be reached.
    """
    from .loading import load

    return load(reference, name=name)


def store(reference: str, what: str) -> Source | Sink:
    """The source or sink (`what`) that is saved as the Prefect block `TYPE/NAME`.

    Raises:
        CallError: there is no such block, it is none such, or its fields are wrong; the text says what to do.
        RunError: Prefect cannot be reached.
    """
    from .loading import load_store

    return load_store(reference, what)


def docker_host(reference: str) -> str | None:
    """The address of the Docker engine of a block `docker-host/NAME` of prefect-docker; None is the environment's.

    Raises:
        CallError: there is no such block, or it says what cannot be used.
        RunError: Prefect cannot be reached.
    """
    from .loading import load_host

    return load_host(reference)
