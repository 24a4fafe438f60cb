"""What our blocks share: the fields of a class that files have, saved with Prefect and edited in its UI."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from types import NoneType
from typing import Any, ClassVar, Self, get_args

from prefect.blocks.core import Block
from prefect.client.schemas import BlockDocument
from pydantic import BaseModel, model_validator
from pydantic.fields import FieldInfo

_OF_PREFECT = ("block_type_slug", "_block_document_id", "_block_document_name", "_is_anonymous")
"""What Prefect adds to the data of a document."""


class SavedBlock(Block, ABC):
    """The base class of blocks that have the fields of an executor, a source or a sink."""

    _of_a_file: ClassVar[tuple[str, ...]] = ()
    """The fields that a file says and a block does not: it has a name and a type of its own."""

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
        for field in cls._of_a_file:
            schema["properties"].pop(field, None)
        parts = schema.get("definitions", {}).values()
        for one in (schema, *parts):
            if "properties" in one:
                one["properties"] = {name: _simple(name, each) for name, each in one["properties"].items()}
        for part in parts:
            part.pop("required", None)
        return schema

    def model_dump(self, **kwargs: Any) -> dict[str, Any]:
        """Its fields, as they are saved."""
        return {key: value for key, value in super().model_dump(**kwargs).items() if key not in self._of_a_file}


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
