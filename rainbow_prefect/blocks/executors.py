"""Executors as Prefect blocks: the same classes, saved with Prefect and edited in its UI."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from types import NoneType
from typing import Any, ClassVar, Self, get_args

from prefect.blocks.core import Block
from prefect.client.schemas import BlockDocument
from pydantic import BaseModel, HttpUrl, model_validator
from pydantic.fields import FieldInfo

from ..executors.base import Executor
from ..executors.docker import Docker
from ..executors.ecs import Ecs
from ..executors.kubernetes import Kubernetes
from ..executors.process import Process

_OF_A_FILE = ("executor", "type")
"""The fields that a file says and a block does not: it has a name and a type of its own."""

_OF_PREFECT = ("block_type_slug", "_block_document_id", "_block_document_name", "_is_anonymous")
"""What Prefect adds to the data of a document."""

_IMAGES = "https://cdn.sanity.io/images/3ugk85nk/production"


class ExecutorBlock(Block, ABC):
    """The base class of executors that are saved as blocks; a task names one as `executor: block:TYPE/NAME`.

    Example, complete; `prefect block register -m my_package.blocks` puts it into Prefect's catalogue:

        class SshExecutor(ExecutorBlock, Ssh):
            _block_type_name = "SSH Executor"
    """

    @model_validator(mode="before")
    @classmethod
    def _cleaned(cls, data: Any) -> Any:
        """The data of a document without what Prefect adds, and without fields that a form left empty."""
        if not isinstance(data, Mapping):
            return data
        mine = {"block_type_slug": cls.get_block_type_slug()}
        given = {key: one for key, one in data.items() if not (key in _OF_PREFECT and mine.get(key, one) == one)}
        return _filled(given, cls)

    @classmethod
    def _from_block_document(cls, block_document: BlockDocument) -> Self:
        """As Prefect reads it; a field that is gone, and nobody had changed, is no mistake."""
        schema = block_document.block_schema
        was: Mapping[str, Any] = schema.fields.get("properties", {}) if schema is not None else {}
        data = {
            key: value
            for key, value in block_document.data.items()
            if key in cls.model_fields or value not in (was.get(key, {}).get("default"), None, "", [], {})
        }
        return super()._from_block_document(block_document.model_copy(update={"data": data}))

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The fields of its form: none asks for the type of what may be left out.

        Prefect's form has all fields of a part, also when the whole part may be left out; so it must require none.
        """
        schema = super().model_json_schema(*args, **kwargs)
        for field in _OF_A_FILE:
            schema["properties"].pop(field, None)
        parts = schema.get("definitions", {}).values()
        for one in (schema, *parts):
            if "properties" in one:
                one["properties"] = {name: _simple(name, each) for name, each in one["properties"].items()}
        for part in parts:
            part.pop("required", None)
        return schema

    @classmethod
    def get_code_example(cls) -> str:
        """How a file names it; Prefect's UI shows only what is marked as Python."""
        return (
            "```python\n# in rainbow.yml: at a task, a pipeline or the root\n"
            f"executor: block:{cls.get_block_type_slug()}/BLOCK_NAME\n```"
        )

    def model_dump(self, **kwargs: Any) -> dict[str, Any]:
        """Its fields, as they are saved."""
        return {key: value for key, value in super().model_dump(**kwargs).items() if key not in _OF_A_FILE}

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


def _simple(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of one field without the choice of null."""
    titled = {"title": name.replace("_", " ").title(), **schema}
    kinds = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if not kinds:
        return titled
    rest = {key: one for key, one in titled.items() if key != "anyOf" and not (key == "default" and one is None)}
    return {**(kinds[0] if len(kinds) == 1 else {"anyOf": kinds}), **rest}


def _filled(data: Mapping[str, Any], kind: type[BaseModel]) -> dict[str, Any]:
    """What a form that has the fields of this model was filled with."""
    filled = {}
    for key, value in data.items():
        field = kind.model_fields.get(key)
        part = None if field is None else _part(field)
        if part is not None and isinstance(value, Mapping):
            value = _changed(_filled(value, part), part) or None  # noqa: PLW2901  a part left as it was
        if value is not None or (part is None and field is not None and NoneType in get_args(field.annotation)):
            filled[key] = value
    return filled


def _changed(data: Mapping[str, Any], kind: type[BaseModel]) -> dict[str, Any]:
    """What differs from the defaults, which a form may send or not."""
    fields = kind.model_fields
    return {
        key: value
        for key, value in data.items()
        if key not in fields or value != fields[key].get_default(call_default_factory=True)
    }


def _part(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that has fields of its own."""
    kinds = [one for one in (field.annotation, *get_args(field.annotation)) if isinstance(one, type)]
    return next((one for one in kinds if issubclass(one, BaseModel)), None)


def _is_plain(kind: Any) -> bool:
    """Whether this is the class of an executor as files have it."""
    return is_executor(kind) and not Block.is_block_class(kind) and kind is not Executor


def is_executor(kind: Any) -> bool:
    """Whether a class, of a block or not, is one of executors."""
    return issubclass(kind, Executor)


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
