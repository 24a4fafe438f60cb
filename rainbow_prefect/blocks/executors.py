"""Executors as Prefect blocks: the same classes, saved with Prefect and edited in its UI."""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar

from prefect.blocks.core import Block
from pydantic import HttpUrl

from ..executors.base import Executor
from ..executors.docker import Docker
from ..executors.ecs import Ecs
from ..executors.kubernetes import Kubernetes
from ..executors.process import Process
from .base import SavedBlock

_IMAGES = "https://cdn.sanity.io/images/3ugk85nk/production"


class ExecutorBlock(SavedBlock, ABC):
    """The base class of executors that are saved as blocks; a task names one as `executor: block:TYPE/NAME`.

    Example, complete; `prefect block register -m my_package.blocks` puts it into Prefect's catalogue:

        class SshExecutor(ExecutorBlock, Ssh):
            _block_type_name = "SSH Executor"
    """

    _of_a_file: ClassVar[tuple[str, ...]] = ("executor", "type")

    @classmethod
    def get_code_example(cls) -> str:
        """How a file names it; Prefect's UI shows only what is marked as Python."""
        return (
            "```python\n# in rainbow.yml: at a task, a pipeline or the root\n"
            f"executor: block:{cls.get_block_type_slug()}/BLOCK_NAME\n```"
        )

    def executor_named(self, name: str | None) -> Executor:
        """The executor that is saved here, under the name that an app has for it."""
        kind: Any = next(filter(_is_plain, type(self).__mro__), None)
        if kind is None:  # its fields are written in the block itself
            made: Any = self.model_copy(update={"executor": name})
        else:
            made = kind.model_validate(
                {field: getattr(self, field) for field in self.model_fields_set} | {"executor": name}
            )
        executor: Executor = made
        return executor


def _is_plain(kind: Any) -> bool:
    """Whether this is the class of an executor as files have it."""
    return issubclass(kind, Executor) and not Block.is_block_class(kind) and kind is not Executor


class ProcessExecutor(ExecutorBlock, Process):
    """Runs each slice of a task in a child process of the machine that runs the pipeline."""

    _block_type_name: ClassVar[str | None] = "Process Executor"
    _block_type_slug: ClassVar[str | None] = "process-executor"
    _logo_url: ClassVar[HttpUrl | None] = HttpUrl(f"{_IMAGES}/356e6766a91baf20e1d08bbe16e8b5aaef4d8643-48x48.png")


class DockerExecutor(ExecutorBlock, Docker):
    """Runs each slice of a task in a container of its own on a Docker engine."""

    _block_type_name: ClassVar[str | None] = "Docker Executor"
    _block_type_slug: ClassVar[str | None] = "docker-executor"
    _logo_url: ClassVar[HttpUrl | None] = HttpUrl(f"{_IMAGES}/14a315b79990200db7341e42553e23650b34bb96-250x250.png")


class KubernetesExecutor(ExecutorBlock, Kubernetes):
    """Runs each slice of a task as a Job of a Kubernetes cluster."""

    _block_type_name: ClassVar[str | None] = "Kubernetes Executor"
    _block_type_slug: ClassVar[str | None] = "kubernetes-executor"
    _logo_url: ClassVar[HttpUrl | None] = HttpUrl(f"{_IMAGES}/2d0b896006ad463b49c28aaac14f31e00e32cfab-250x250.png")


class EcsExecutor(ExecutorBlock, Ecs):
    """Runs each slice of a task as a task of Amazon ECS, on Fargate or on machines of a cluster."""

    _block_type_name: ClassVar[str | None] = "ECS Executor"
    _block_type_slug: ClassVar[str | None] = "ecs-executor"
    _logo_url: ClassVar[HttpUrl | None] = HttpUrl(f"{_IMAGES}/d74b16fe84ce626345adf235a47008fea2869a60-225x225.png")


_ALL: tuple[type[ExecutorBlock], ...] = (ProcessExecutor, DockerExecutor, KubernetesExecutor, EcsExecutor)
BLOCKS: dict[str, type[ExecutorBlock]] = {one.get_block_type_slug(): one for one in _ALL}
"""The executors of this package by the slug of their block type."""
