"""Types by name, from entry points: the one door by which built-ins and third parties enter.

A registry is itself a pydantic annotation: `AnyTask = Annotated[Task, tasks]` reads the key `type`, loads that one
entry point and validates with its class, so only the types a file uses are imported and errors keep their path.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from .errors import near

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class Own(NamedTuple):
    """An entry point of this package, as `importlib.metadata.EntryPoint` has it, whose import takes 30 ms."""

    name: str
    value: str
    group: str
    dist: None = None

    def load(self) -> Any:
        module, _, name = self.value.partition(":")
        return getattr(import_module(module), name)


class Registry:
    """The types of one entry-point group, e.g. `rainbow_prefect.tasks`; `what` is the word for messages (`task`).

    `module` has the class that all of them subclass, named like `what`; absent: the module `base` of the group.
    """

    def __init__(self, group: str, what: str, *, default: str | None = None, module: str | None = None) -> None:
        self.group = group
        self.what = what
        self.default = default
        self.module = module or f"{group}.base"
        self._classes: dict[str, type[BaseModel]] = {}

    @cached_property
    def _built_in(self) -> dict[str, Own]:
        """The entry points of this package: found without reading those of all that is installed (30 ms)."""
        return {name: Own(name, value, self.group) for name, value in _own_points().get(self.group, {}).items()}

    @cached_property
    def _points(self) -> dict[str, EntryPoint | Own]:
        """The entry points by name; what is built in wins over a package that takes its name."""
        from importlib.metadata import entry_points

        return {point.name: point for point in entry_points(group=self.group)} | self._built_in

    @cached_property
    def _base(self) -> type[BaseModel]:
        """The class that all types of this registry subclass, e.g. `rainbow_prefect.tasks.base.Task`."""
        base: type[BaseModel] = getattr(import_module(self.module), self.what.capitalize())
        return base

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._points, *self._classes}))

    def __contains__(self, name: object) -> bool:
        return name in self._classes or name in self._built_in or name in self._points

    def __getitem__(self, name: str) -> type[Any]:
        """The class of this name.

        Raises:
            KeyError: no such type.
            ImportError, AttributeError: the plugin is broken; the text says which one.
        """
        if name not in self._classes:
            point = self._built_in.get(name) or self._points[name]
            try:
                kind = point.load()
            except (Exception, SystemExit) as error:
                raise ImportError(
                    f"{self.what} type '{name}' of {_origin(point)} cannot be loaded: {type(error).__name__}: {error}"
                ) from error
            if not (isinstance(kind, type) and issubclass(kind, self._base)):
                raise ImportError(
                    f"{self.what} type '{name}' of {_origin(point)} cannot be loaded: "
                    f"it is no subclass of {self._base.__name__}"
                )
            self._classes[name] = kind
        kind = self._classes[name]
        if not kind.__pydantic_complete__:
            try:
                kind.model_rebuild()
            except Exception as error:
                raise ImportError(
                    f"{self.what} type '{name}' cannot be used: {kind.__name__}: {_first_line(error)}"
                ) from error
        return kind

    def add(self, name: str, kind: type[BaseModel]) -> None:
        """Add a type that has no entry point (a file of the `plugins:` folder, a test)."""
        self._classes[name] = kind

    def discard(self, name: str) -> None:
        """Take back what `add` added."""
        self._classes.pop(name, None)

    def added(self, name: str) -> type[BaseModel] | None:
        """The class of this name when it is loaded already."""
        return self._classes.get(name)

    def loaded(self) -> list[type[BaseModel]]:
        """The classes that are loaded."""
        return list(self._classes.values())

    def origin(self, name: str) -> str:
        """Who offers this type, for messages; nothing is imported for it."""
        if name in self._built_in or name in self._points:
            return _origin(self._built_in.get(name) or self._points[name])
        kind = self._classes[name]
        return f"{kind.__module__}:{kind.__qualname__}"

    def unknown(self, name: object) -> tuple[str, str]:
        """Message and hint for a type that is not there."""
        known = ", ".join(self)
        hint = near(str(name), self)
        if hint.startswith("did you mean"):
            hint = f"{hint} (known: {known})"
        return f"unknown {self.what} type '{name}'", hint

    def _pick(self, value: Any, handler: Callable[[Any], Any]) -> Any:
        if not isinstance(value, dict):
            return handler(value)
        name = value.get("type", self.default)
        if name is None:
            raise PydanticCustomError(
                "missing_type", "{text}", {"text": f"the key 'type' is missing; known: {', '.join(self)}", "hint": ""}
            )
        if not isinstance(name, str) or name not in self:
            text, hint = self.unknown(name)
            raise PydanticCustomError("unknown_type", "{text}", {"text": text, "hint": hint})
        try:
            kind = self[name]
        except ImportError as error:
            raise PydanticCustomError("broken_type", "{text}", {"text": str(error), "hint": ""}) from error
        return kind.model_validate(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            self._pick,
            core_schema.is_instance_schema(source),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda one: one.model_dump(mode="json")),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """One schema per type that loads; a broken plugin is left out."""
        kinds = []
        for name in self:
            try:
                kinds.append(self[name])
            except ImportError:
                continue
        return {"oneOf": [handler(kind.__pydantic_core_schema__) for kind in kinds]}


@cache
def _own_points() -> Mapping[str, Mapping[str, str]]:
    """The entry points of this package by group and name, read from the file that its installation left."""
    for folder in [str(Path(__file__).parents[1]), *sys.path]:
        try:
            names = [one for one in os.listdir(folder or ".") if one.startswith("rainbow_prefect-")]  # noqa: PTH208  faster
            for name in names:
                if name.endswith(".dist-info"):
                    return _sections(Path(folder, name, "entry_points.txt").read_text(encoding="utf-8").splitlines())
        except OSError:
            continue
    return {}


def _sections(lines: Iterable[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in map(str.strip, lines):
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif "=" in line:
            name, _, value = line.partition("=")
            section[name.strip()] = value.strip()
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _is_built_in(point: EntryPoint | Own) -> bool:
    return point.value.startswith("rainbow_prefect.")


def _origin(point: EntryPoint | Own) -> str:
    if _is_built_in(point):
        return "rainbow-prefect itself"
    return f"{point.value} ({point.dist.name} {point.dist.version})" if point.dist else point.value


tasks = Registry("rainbow_prefect.tasks", "task")
executors = Registry("rainbow_prefect.executors", "executor")
observers = Registry("rainbow_prefect.observers", "observer")
alerts = Registry("rainbow_prefect.alerts", "alert", module="rainbow_prefect.observers.alerts")
sources = Registry("rainbow_prefect.sources", "source", default="sqlalchemy", module="rainbow_prefect.sql_etl.config")
sinks = Registry("rainbow_prefect.sinks", "sink", default="sqlalchemy", module="rainbow_prefect.sql_etl.config")
