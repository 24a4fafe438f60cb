"""The JSON Schema of a `rainbow.yml` as people write it, before inheritance and variables; made from the models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema

from .app import App
from .executors.base import Executor
from .observers.alerts import Alert
from .observers.base import Observer
from .registry import Registry, alerts, executors, observers, sinks, sources, tasks
from .sql_etl.config import Sink, Source
from .tasks.base import Task

DIALECT = "http://json-schema.org/draft-07/schema#"
"""The dialect that editors know best."""

PLACEHOLDER = "placeholder"
_MARKERS = ("pipeline", "job_start", "job_end")


class _Generator(GenerateJsonSchema):
    """Says nothing of values that YAML cannot write; registries become references to the types they hold."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}


def json_schema() -> dict[str, Any]:
    """The schema: every key with its description, the keys of each installed type, defaults and `x-` keys."""
    definitions: dict[str, Any] = {}
    root = _object(App, definitions)
    pipeline, service = definitions["Pipeline"], definitions["Service"]
    for name, registry, base in (("Task", tasks, Task), ("Executor", executors, Executor)):
        _types(name, registry, base, definitions)
    _types("Observer", observers, Observer, definitions)
    _types("Alert", alerts, Alert, definitions)
    _types("Source", sources, Source, definitions)
    _types("Sink", sinks, Sink, definitions)
    pipeline["properties"]["tasks"]["items"] = {"$ref": "#/definitions/Task"}
    root["properties"]["executors"]["items"] = {"$ref": "#/definitions/Executor"}
    root["properties"]["sources"]["items"] = {"$ref": "#/definitions/Source"}
    root["properties"]["sinks"]["items"] = {"$ref": "#/definitions/Sink"}
    for owner in (root, pipeline):
        owner["properties"]["observers"]["items"] = {"$ref": "#/definitions/Observer"}
    tasks_of_all_types = [one for key, one in definitions.items() if key == "Task" or key.startswith("Task:")]
    for owner in (root, pipeline, *tasks_of_all_types):
        owner["properties"]["alerts"]["items"] = {"$ref": "#/definitions/Alert"}
    _services(service)
    for key in ("schedule", "schedule_interval"):
        _also(pipeline["properties"][key], {"type": "string"})
    for owner in (root, pipeline):
        _also(owner["properties"]["metrics"], {"$ref": "#/definitions/Metrics"})
    root["properties"] |= _defaults(definitions)
    root["properties"]["services"]["items"] = {"$ref": "#/definitions/Service"}
    root["properties"]["plugins"] = {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "description": root["properties"]["plugins"]["description"],
    }
    for one in (root, *definitions.values()):
        _open(one)
    definitions[PLACEHOLDER] = {"type": "string", "pattern": r"\{\{", "description": "A placeholder: {{ name }}."}
    return {
        "$schema": DIALECT,
        "title": "rainbow.yml",
        "description": "Pipelines, services and images of rainbow-prefect.",
        **{key: root[key] for key in ("type", "properties", "required", "patternProperties", "additionalProperties")},
        "definitions": definitions,
    }


def _object(kind: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of one model; those it needs are added to `definitions`."""
    schema = kind.model_json_schema(ref_template="#/definitions/{model}", schema_generator=_Generator)
    for name, one in schema.pop("$defs", {}).items():
        definitions.setdefault(name, _renamed(one))
    made: dict[str, Any] = _renamed(schema)
    return made


def _renamed(value: Any) -> Any:
    """References as draft 7 spells them; titles, which repeat the key, are left out."""
    if isinstance(value, dict):
        result = {}
        for key, one in value.items():
            if key == "$ref":
                result[key] = one.replace("#/$defs/", "#/definitions/")
            elif key == "properties":
                result[key] = {name: _renamed(each) for name, each in one.items()}
            elif key != "title":
                result[key] = _renamed(one)
        return result
    return [_renamed(one) for one in value] if isinstance(value, list) else value


def _types(name: str, registry: Registry, base: type[BaseModel], definitions: dict[str, Any]) -> None:
    """A definition `name` that picks the keys by `type`."""
    schema = _object(base, definitions)
    kinds = {}
    for kind in registry:
        try:
            kinds[kind] = registry[kind]
        except ImportError:
            continue
    rules = []
    for kind, model in list(kinds.items()):
        try:
            own = _object(model, definitions)
        except PydanticInvalidForJsonSchema:  # a plugin's own kind of value
            del kinds[kind]
            continue
        own["properties"]["type"] = {"const": kind, "description": _first_line(model)}
        if name == "Task" and "required" in own:  # `task_defaults` may have them
            own["x-required"] = [key for key in own.pop("required") if key not in ("task", "type")]
        definitions[f"{name}:{kind}"] = own
        rules.append(
            {
                "if": {"required": ["type"], "properties": {"type": {"const": kind}}},
                "then": {"$ref": f"#/definitions/{name}:{kind}"},
            }
        )
    choices = [{"const": kind, "description": _first_line(model)} for kind, model in kinds.items()]
    schema["properties"]["type"] = {
        "description": schema["properties"]["type"]["description"],
        "anyOf": choices,
    }
    if name == "Task":
        schema["required"] = ["task", "type"]
    if registry.default is not None:
        schema.pop("required", None)
        default = {"$ref": f"#/definitions/{name}:{registry.default}"}
        rules.append({"if": {"not": {"required": ["type"]}}, "then": default})
    schema["allOf"] = rules
    schema["open"] = True
    definitions[name] = schema


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().split("\n")[0]


def _services(service: dict[str, Any]) -> None:
    """`service: NAME`, or an empty `service:` with `name: NAME` below."""
    properties = service["properties"]
    properties["service"] = {"type": ["string", "null"], "description": properties["service"]["description"]}
    properties["name"] = {"type": "string", "description": "The name, when `service:` is left empty."}
    service.pop("required", None)


def _also(schema: dict[str, Any], other: dict[str, Any]) -> None:
    """Let a key have another shape, too."""
    own = {key: schema.pop(key) for key in list(schema) if key not in ("description", "default")}
    schema["anyOf"] = [*own.get("anyOf", [own]), other]


def _defaults(definitions: dict[str, Any]) -> dict[str, Any]:
    """The root keys that are gone once a file is resolved."""
    task_list = {"type": "array", "items": {"$ref": "#/definitions/DefaultTask"}}
    markers = [{"const": one, "description": _marker(one)} for one in _MARKERS]
    any_task = definitions["Task"]
    definitions["DefaultTask"] = {
        **any_task,
        "properties": {
            **any_task["properties"],
            "type": {
                "description": any_task["properties"]["type"]["description"],
                "anyOf": [*any_task["properties"]["type"]["anyOf"], *markers],
            },
        },
    }
    pipeline = {key: one for key, one in definitions["Pipeline"]["properties"].items() if key != "pipeline"}
    pipeline["tasks"] = {**task_list, "description": "The tasks; `type: pipeline` stands for the pipeline's own."}
    pipeline["before_tasks"] = {**task_list, "description": "Tasks before those of each pipeline."}
    pipeline["after_tasks"] = {**task_list, "description": "Tasks after those of each pipeline."}
    definitions["PipelineDefaults"] = {"type": "object", "properties": pipeline}
    definitions["ServiceDefaults"] = {
        "type": "object",
        "properties": {key: one for key, one in definitions["Service"]["properties"].items() if key != "service"},
    }
    kinds = {}
    for name, one in list(definitions.items()):
        if name.startswith("Task:"):
            properties = {key: each for key, each in one["properties"].items() if key not in ("task", "type")}
            definitions[f"Default{name}"] = {"type": "object", "properties": properties}
            kinds[name.removeprefix("Task:")] = {"$ref": f"#/definitions/Default{name}"}
    return {
        "type": {
            "enum": ["sub", "super"],
            "description": "`super`: a file that gives others defaults and has no pipelines of its own.",
        },
        "super": {
            "type": "string",
            "description": "The name of the file whose defaults and sections this one inherits.",
        },
        "pipeline_defaults": {
            "$ref": "#/definitions/PipelineDefaults",
            "description": "Keys of every pipeline that does not say them itself.",
        },
        "task_defaults": {
            "type": "object",
            "description": "Keys of every task of a type that does not say them itself.",
            "properties": kinds,
            "additionalProperties": {"type": "object"},
        },
        "service_defaults": {
            "$ref": "#/definitions/ServiceDefaults",
            "description": "Keys of every service that does not say them itself.",
        },
    }


def _marker(name: str) -> str:
    if name == "pipeline":
        return "Stands for the tasks of the pipeline itself."
    return "A marker of the predecessor; it is left out."


def _open(schema: dict[str, Any]) -> None:
    """`x-` keys everywhere, placeholders for every value, nothing where a section is empty."""
    if "properties" not in schema:
        return
    is_open = schema.pop("open", False)
    if is_open:
        schema.pop("additionalProperties", None)
    elif schema.get("additionalProperties") is not True:
        schema["additionalProperties"] = False
    schema["patternProperties"] = {"^x-": {"description": "Yours: never read."}}
    schema["properties"] = {key: _lenient(one) for key, one in schema["properties"].items()}


def _lenient(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A value or the placeholder of one; free text may be a placeholder anyway."""
    if not set(schema) - {"description", "default"}:
        return dict(schema)
    if _is_text(schema):
        return {**schema, "type": list(_TEXTS)}
    inner = {key: _texts(one) for key, one in schema.items() if key not in ("description", "default")}
    outer = {key: one for key, one in schema.items() if key in ("description", "default")}
    return {**outer, "anyOf": [inner, {"$ref": f"#/definitions/{PLACEHOLDER}"}, {"type": "null"}]}


# YAML reads 3.12 and 2024 as numbers: they are text here.
_TEXTS = ("string", "number", "boolean", "null")


def _is_text(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "string" and not {"pattern", "enum", "const"} & set(schema)


def _texts(schema: Any) -> Any:
    """The same, with the texts in lists and mappings as YAML may write them."""
    if isinstance(schema, list):
        return [_texts(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if _is_text(schema):
        return {**schema, "type": list(_TEXTS)}
    return {key: one if key == "properties" else _texts(one) for key, one in schema.items()}
