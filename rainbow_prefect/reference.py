"""Writes `docs/reference.md`, the YAML reference, from the models: `python -m rainbow_prefect.reference FILE`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from .json_schema import PLACEHOLDER, json_schema
from .registry import Registry, alerts, executors, observers, sinks, sources, tasks

INTRODUCTION = """\
# YAML reference

Written from the models by `make docs`: every key of `rainbow.yml`, with its type, default and meaning. `rainbow schema`
prints the same as a JSON Schema; an editor that reads it completes keys and shows these texts.

`rainbow check [PATH]` finds `rainbow.yml`, `rainbow.yaml`, `liminal.yml` and `liminal.yaml` in `PATH` and below, in
sorted order, past `.git`, `.venv`, `venv`, `node_modules` and `__pycache__`. An unknown key is an error, a duplicate
key too. A key that starts with `x-` is yours: it is never read. Relative paths start at the folder of the file. A
section that is left empty is as absent.

## Inheritance and defaults

A file with `type: super` gives others defaults and runs nothing itself; `super: NAME` inherits from the one of that
name, which may have a `super` itself. The nearest value wins: mappings are merged key by key, lists and single values
are replaced. `executors`, `images`, `sources`, `sinks`, `volumes`, `secrets`, `work_pools`, `alerts`, `metrics` and
`monitoring` are merged by name. `pipelines` and `services` are not inherited.

The tasks of a pipeline are the `before_tasks` of the outermost super first, then of the nearer ones and of the file
itself, then its own, then the `after_tasks` the other way round. `tasks` in `pipeline_defaults` surround the
pipeline's own, which stand where `type: pipeline` is. `task_defaults` are keyed by type.

## Placeholders

`{{ name }}` in a value is replaced by the value of `name`; a value that is one placeholder keeps the type of what it
stands for. Placeholders may be nested, `{{url-{{stage}}}}`, and their values may hold others. `\\{{` is a plain `{{`.
What is looked through, in this order:

1. the parameters of the run,
2. the `variables` of the task: a mapping, or the name of a root variable that is one,
3. the root `variables`,
4. Prefect Variables, when it runs,
5. the environment.

A name that none of them has is an error. `{{secret.NAME}}` is the value of an entry of the root `secrets`; it is read
when a task starts and never shown. `{{prefect.variables.NAME}}` is a Prefect Variable. Keys are not replaced.

## References

`task:NAME` is the output of a task, `file:PATH` a file or a glob, `block:TYPE/NAME` a Prefect block. `input: task:make`
is short for `input_type: task` and `input_path: make`.
"""

_SECTIONS = (
    ("Parameter", "Parameters", "Entries of `parameters` of a pipeline."),
    ("Schedule", "Schedules", "`schedule` and entries of `schedules` of a pipeline, when they are mappings."),
    ("ConcurrencyLimit", "Limits of runs", "`concurrency_limit` of a pipeline, when it is a mapping."),
    ("WorkPool", "Work pools", "Entries of the root `work_pools`."),
    ("Code", "Code", "`code` of a file or a pipeline; a text alone is its `type`."),
    ("Trigger", "Triggers", "Entries of `triggers` of a pipeline: either `after` or `event`."),
    ("Service", "Services", "Entries of the root `services`."),
    ("Endpoint", "Endpoints", "Entries of `endpoints` of a service."),
    ("Image", "Images", "Entries of the root `images`."),
    ("Volume", "Volumes", "Entries of the root `volumes`."),
    ("LocalFolder", "Local folders", "`local` of a volume."),
    (
        "Secret",
        "Secrets",
        "Entries of the root `secrets`: exactly one of `env`, `local_path_file`, `block` and `aws_secret`.",
    ),
    ("Cursor", "Incremental loads", "`incremental` of a task of type `sql_etl`."),
    (
        "Contract",
        "Contracts",
        "`contract` of a task of type `sql_etl`; `freeze` or `evolve` alone is for all three. Every change is in the report.",
    ),
    (
        "Checks",
        "Checks",
        "`checks` of a task of type `sql_etl`. Every other key is the name of a column, with a mapping of the next table, or a "
        "list of them. They are asked of the sink when all rows are there and before they are committed; what does not "
        "hold is told with how many rows and the first five values.",
    ),
    (
        "ColumnChecks",
        "Checks of a column",
        "`checks` of a task, under the name of a column. NULL passes all but `not_null`.",
    ),
    ("ForeignKey", "Foreign keys", "`foreign_key` among the checks of a column."),
    ("RowChecks", "Checks of the number of rows", "`rows` among the checks."),
    ("SqlCheck", "Checks by statements", "Entries of `sql` among the checks; a text alone is its `sql`."),
    ("Dedupe", "Rows with the same keys", "`dedupe` of a task of type `sql_etl`; a column alone is its `by`."),
    (
        "DeleteMissing",
        "Rows that are gone",
        "`delete_missing` of a task of type `sql_etl`; `true` is a mapping without keys.",
    ),
    ("DeletedFlag", "Rows with a flag", "`deleted_flag` of a task of type `sql_etl`; a text alone is its `column`."),
    ("History", "History", "`history` of a task of type `sql_etl` with `mode: scd2`."),
    ("Mount", "Mounts", "Entries of `mounts` of a task or service."),
    ("TaskSecret", "Secrets of a task", "Entries of `secrets` of a task or service."),
    ("Resources", "Resources", "`resources` of a service."),
    ("Metrics", "Metrics", "`metrics` of a file or a pipeline."),
    (
        "Monitoring",
        "Monitoring",
        "`monitoring` of a file or a pipeline: metrics and alerts as the predecessor wrote them.",
    ),
)


def reference() -> str:
    """The whole reference as Markdown; types of other packages are left out."""
    schema = json_schema()
    definitions = schema["definitions"]
    parts = [INTRODUCTION, *_table("The file", "The keys at the root.", schema)]
    parts += _table("Pipelines", "Entries of the root `pipelines`.", definitions["Pipeline"])
    defaults = {
        key: one
        for key, one in definitions["PipelineDefaults"]["properties"].items()
        if key in ("before_tasks", "after_tasks", "tasks")
    }
    text = "`pipeline_defaults` takes every key of a pipeline except its name, and these."
    parts += _table("Defaults of pipelines", text, {"properties": defaults})
    text = "Entries of `tasks` of a pipeline. These keys are those of every type."
    parts += _table("Tasks", text, definitions["Task"])
    common = set(definitions["Task"]["properties"])
    parts += _types("Tasks of type", "Task", tasks, definitions, common)
    text = "Entries of the root `executors`. A task names one with `executor:`. These keys are those of every type."
    parts += _table("Executors", text, definitions["Executor"])
    parts += _types("Executors of type", "Executor", executors, definitions, set(definitions["Executor"]["properties"]))
    for title, name, registry in (("Sources", "Source", sources), ("Sinks", "Sink", sinks)):
        text = f"Entries of the root `{registry.what}s`. A task of type `sql_etl` names one with `{registry.what}:`."
        parts += _table(title, text, definitions[name])
        parts += _types(f"{title} of type", name, registry, definitions, set(definitions[name]["properties"]))
    parts += _table("Observers", "Entries of `observers` of a file or a pipeline.", definitions["Observer"])
    parts += _types("Observers of type", "Observer", observers, definitions, set(definitions["Observer"]["properties"]))
    text = "Entries of `alerts` of a file, a pipeline or a task. These keys are those of every type."
    parts += _table("Alerts", text, definitions["Alert"])
    parts += _types("Alerts of type", "Alert", alerts, definitions, set(definitions["Alert"]["properties"]))
    for name, title, text in _SECTIONS:
        parts += _table(title, text, definitions[name])
    return "\n".join(parts).rstrip() + "\n"


def _types(
    title: str, name: str, registry: Registry, definitions: Mapping[str, Any], common: set[str]
) -> Iterator[str]:
    """A section for each built-in type, with the keys that are its own."""
    for kind in registry:
        if registry.origin(kind) != "rainbow-prefect itself":
            continue
        own = definitions[f"{name}:{kind}"]
        properties = {key: one for key, one in own["properties"].items() if key not in common}
        shown = {"properties": properties, "required": own.get("required", own.get("x-required", ()))}
        yield from _table(f"{title} `{kind}`", _text(registry[kind]), shown)


def _text(model: type[BaseModel]) -> str:
    """The docstring as one paragraph after the other."""
    paragraphs = (model.__doc__ or "").strip().split("\n\n")
    return "\n\n".join(" ".join(line.strip() for line in one.splitlines()) for one in paragraphs)


def _table(title: str, text: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n## {title}\n\n{text}\n"
    if not schema["properties"]:
        yield "It has no keys of its own.\n"
        return
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    required = schema.get("required", ())
    for key, one in schema["properties"].items():
        default = "**required**" if key in required else _default(one)
        cells = (f"`{key}`", _type(one), default, str(one.get("description", "")))
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
    yield ""


def _default(schema: Mapping[str, Any]) -> str:
    value = schema.get("default")
    if value in (None, "", [], {}):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{', '.join(map(str, value)) if isinstance(value, list) else value}`"


_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
}


def _type(schema: Mapping[str, Any]) -> str:
    words = list(dict.fromkeys(_words(schema))) or ["any"]
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _words(schema: Mapping[str, Any]) -> Iterator[str]:
    """The types that a value may have, without placeholders and nothing, which every value may be."""
    if "const" in schema:
        yield f"`{schema['const']}`"
    elif "enum" in schema:
        yield from (f"`{one}`" for one in schema["enum"])
    elif "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name != PLACEHOLDER:
            yield "mapping"
    elif "anyOf" in schema or "allOf" in schema or "oneOf" in schema:
        for one in [*schema.get("anyOf", ()), *schema.get("allOf", ()), *schema.get("oneOf", ())]:
            yield from _words(one)
    else:
        yield from _plain_words(schema)


def _plain_words(schema: Mapping[str, Any]) -> Iterator[str]:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0]
    if kind is None or kind == "null":
        return
    if kind == "array":
        inner = _of(schema.get("items"))
        yield f"list of {inner}" if inner else "list"
    elif kind in ("integer", "number"):
        yield _WORDS[kind] + _range(schema)
    else:
        yield _WORDS[kind]


def _of(items: Any) -> str:
    words: Iterable[str] = _words(items) if isinstance(items, dict) else ()
    plural = {"mapping": "mappings", "text": "texts", "list": "lists", "number": "numbers"}
    return " or ".join(dict.fromkeys(plural.get(one, one) for one in words))


def _range(schema: Mapping[str, Any]) -> str:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum")
    if low is None:
        return ""
    sign = "≥" if "minimum" in schema else ">"
    return f" {sign} {low:g}" + (f", ≤ {high:g}" if high is not None else "")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference())
