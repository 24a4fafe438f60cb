"""Unknown types and keys in the defaults of a file as written, so that they are told even when nothing uses them.

What a default becomes in a task, a pipeline or a service, and whether its values are right, is told there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError

from .app import Pipeline, Service
from .document import List, Map, mark_of
from .errors import Problem
from .problems import Keys, problem, unknown_keys
from .registry import tasks
from .resolve import DEFAULTS
from .schema import kind_of

_AROUND = ("before_tasks", "after_tasks", "tasks")
"""The lists of tasks in `pipeline_defaults`."""

_MARKERS = ("pipeline", "job_start", "job_end")
"""What may stand as a type in these lists only."""


def flaws(data: Map) -> list[Problem]:
    """What is wrong in the defaults of one file, each problem with its section as `where`."""
    sections = {"task_defaults": _of_tasks, "service_defaults": _of_services, "pipeline_defaults": _of_pipelines}
    found = []
    for key in DEFAULTS:
        if isinstance(data.get(key), Map):
            found += [replace(one, where=f"`{key}`") for one in sections[key](data, data[key])]
    return found


def _of_tasks(data: Map, section: Map) -> Iterator[Problem]:
    for name, value in section.items():
        keys = ("task_defaults", name)
        if name.startswith("x-") or name in _MARKERS or "{{" in name:
            continue
        if name not in tasks:
            yield problem(data, keys, *tasks.unknown(name), on_key=True)
        elif isinstance(value, Map):
            yield from _of_type(name, data, keys)
        elif value is not None and not _is_placeholder(value):
            message = f"must be a mapping, got {kind_of(value)}"
            yield Problem(mark_of(data, keys), f"task_defaults.{name}", message)


def _of_services(data: Map, section: Map) -> Iterator[Problem]:
    yield from _unknown(Service, section, data, ("service_defaults",))


def _of_pipelines(data: Map, section: Map) -> Iterator[Problem]:
    own = section.shallow()
    for key in _AROUND:
        items = own.pop(key, None)
        if isinstance(items, List):
            for index, item in enumerate(items):
                yield from _of_task(item, data, ("pipeline_defaults", key, index))
        elif items is not None and not _is_placeholder(items):
            keys = ("pipeline_defaults", key)
            yield Problem(mark_of(data, keys), ".".join(keys), f"must be a list, got {kind_of(items)}")
    yield from _unknown(Pipeline, own, data, ("pipeline_defaults",), also=_AROUND)


def _of_task(item: Any, data: Map, keys: Keys) -> Iterator[Problem]:
    name = item.get("type") if isinstance(item, Map) else None
    if not isinstance(name, str) or name in _MARKERS or "{{" in name:
        return
    if name in tasks:
        yield from _of_type(name, data, keys)
    else:
        yield problem(data, (*keys, "type"), *tasks.unknown(name))


def _of_type(name: str, data: Map, keys: Keys) -> Iterator[Problem]:
    try:
        kind = tasks[name]
    except ImportError:
        return  # a broken plugin does no harm until a task uses it
    part: Any = data
    for key in keys:
        part = part[key]
    yield from _unknown(kind, part, data, keys)


def _unknown(
    kind: type[BaseModel], part: Map, data: Map, keys: Keys, *, also: tuple[str, ...] = ()
) -> Iterator[Problem]:
    """The keys that a `kind` does not have, `x-` keys aside, at any depth."""
    try:
        kind.model_validate({key: value for key, value in part.items() if key[:2] != "x-"})
    except ValidationError as error:
        yield from unknown_keys(error, kind, data, keys, also=also)


def _is_placeholder(value: Any) -> bool:
    return isinstance(value, str) and "{{" in value
