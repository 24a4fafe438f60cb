"""Resolved data to an App: each part is validated by itself, so that a broken one hides no other, then proved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from .app import App, Image, Parameter, Pipeline, Service, Volume
from .deployment import WorkPool
from .document import List, Map
from .errors import ConfigError, Problem, near
from .executors.base import AnyExecutor
from .looking import Look
from .problems import Keys, told
from .registry import Registry
from .resolve import Resolved
from .schema import Config
from .secrets import Secret
from .sql_etl.config import AnySink, AnySource
from .tasks.base import AnyTask
from .variables import Lookup


@dataclass(slots=True)
class Site:
    """A part of the file: the data at `keys`, the object made of it (None: it is broken) and its keys that are wrong."""

    keys: Keys
    data: Any
    made: Any = None
    wrong: frozenset[str] = frozenset()

    def name(self, key: str) -> str | None:
        """The name as written under `key`, also of a broken part, also when the key is misspelled."""
        if not isinstance(self.data, dict):
            return None
        written = self.data.get(key)
        if written is None and self.made is None:
            meant = (other for other in self.data if near(other, [key], list_up_to=0))
            written = self.data.get(next(meant, key))
        return None if written is None or isinstance(written, dict | list) else str(written)


@dataclass(slots=True)
class PipelineSite(Site):
    tasks: list[Site] = field(default_factory=list)
    parameters: list[Site] = field(default_factory=list)


@dataclass
class Built:
    """An app as far as it could be made, where its parts are, and all that is wrong; `is_sound`: it is all there."""

    app: App
    resolved: Resolved
    is_sound: bool
    problems: list[Problem]
    pipelines: list[PipelineSite] = field(default_factory=list)
    sections: dict[str, list[Site]] = field(default_factory=dict)
    wrong: frozenset[str] = frozenset()


def build(resolved: Resolved, look: Look) -> Built:
    """The app of one file and all problems of its keys and types, then of what the proofs find."""
    from .proofs import prove

    root = resolved.document.file.parent
    problems: list[Problem] = []
    if "plugins" in resolved.data:
        from . import plugins

        problems = plugins.load(resolved.data, root)
    built = _Builder(resolved.data, problems).app(resolved)
    built.problems += prove(built, look)
    return built


def bound(pipeline: Pipeline, values: Mapping[str, Any], lookup: Lookup | None) -> Pipeline:
    """`pipeline` rendered with these values of its parameters, validated and proved again.

    Raises:
        ConfigError: with these values it is wrong.
    """
    from .proofs import prove

    app = pipeline.app
    data = app.resolved.pipeline_data(pipeline.pipeline, values, lookup)
    index = next(index for index, one in enumerate(app.pipelines) if one.pipeline == pipeline.pipeline)
    shell = _shell(app.data, index, data)
    problems: list[Problem] = []
    site = _Builder(shell, problems, is_load=False).pipeline(("pipelines", index), data)
    if site.made is None or problems:
        raise ConfigError(problems)
    pipelines = tuple(site.made if number == index else one for number, one in enumerate(app.pipelines))
    changed = app.model_copy(update={"pipelines": pipelines})
    changed.__dict__.pop("image_sources", None)
    adopt(changed, app.resolved)
    resolved = Resolved(app.resolved.document, app.resolved.name, shell, app.resolved.variables)
    built = Built(changed, resolved, True, [], [site], _named(shell))
    errors = [one for one in prove(built, Look()) if one.severity == "error"]
    if errors:
        raise ConfigError(errors)
    made: Pipeline = site.made
    return made


def _named(data: Map) -> dict[str, list[Site]]:
    """The sections whose names tasks use, proved already: names only."""
    return {
        key: [Site((key, index), one, None) for index, one in enumerate(data[key])]
        for key in ("executors", "volumes", "secrets", "sources", "sinks")
        if isinstance(data.get(key), list)
    }


def _shell(data: Map, index: int, pipeline: Map) -> Map:
    """The data of the file with another pipeline at its place."""
    pipelines = List(data["pipelines"].file, data["pipelines"].line, data["pipelines"].column)
    for number, one in enumerate(data["pipelines"]):
        pipelines.put(pipeline if number == index else one, data["pipelines"].marks[number])
    result = data.shallow()
    result["pipelines"] = pipelines
    return result


def adopt(app: App, resolved: Resolved) -> App:
    """Tell an app, its pipelines and services where they come from."""
    app._resolved = resolved
    for pipeline in app.pipelines:
        pipeline._app = app
    for service in app.services:
        service._app = app
    return app


_SECTIONS: Mapping[str, Any] = {
    "images": Image,
    "executors": AnyExecutor,
    "sources": AnySource,
    "sinks": AnySink,
    "volumes": Volume,
    "secrets": Secret,
    "work_pools": WorkPool,
    "services": Service,
}


class _Builder:
    """Makes the parts of one file; `is_load`: some values are known only in a run."""

    def __init__(self, data: Map, problems: list[Problem], *, is_load: bool = True) -> None:
        self.data = data
        self.problems = problems
        self.is_load = is_load

    def app(self, resolved: Resolved) -> Built:
        data: dict[str, Any] = dict(self.data)
        sections: dict[str, list[Site]] = {}
        before = len(self.problems)
        for key, kind in _SECTIONS.items():
            if isinstance(data.get(key), list):
                sections[key] = list(self.items((key,), data[key], kind))
                data[key] = [site.made for site in sections[key] if site.made is not None]
        pipelines: list[PipelineSite] = []
        if isinstance(data.get("pipelines"), list):
            pipelines = [self.pipeline(("pipelines", index), one) for index, one in enumerate(data["pipelines"])]
            data["pipelines"] = [site.made for site in pipelines if site.made is not None]
        made, wrong = self.made(App, data, ())
        if made is None:
            sound = tuple(site.made for site in pipelines if site.made is not None)
            made = App(name=resolved.name or "-", pipelines=sound)
        is_sound = not any(one.severity == "error" for one in self.problems[before:])
        return Built(adopt(made, resolved), resolved, is_sound, self.problems, pipelines, sections, wrong)

    def items(self, keys: Keys, written: Any, kind: Any) -> Iterator[Site]:
        if isinstance(written, list):
            for index, one in enumerate(written):
                yield self.site((*keys, index), one, kind)

    def site(self, keys: Keys, data: Any, kind: Any) -> Site:
        made, wrong = self.made(_class_of(kind, data), data, keys)
        return Site(keys, data, made, wrong)

    def pipeline(self, keys: Keys, written: Any) -> PipelineSite:
        if not isinstance(written, dict):
            made, wrong = self.made(Pipeline, written, keys)
            return PipelineSite(keys, written, made, wrong)
        data: dict[str, Any] = dict(written)
        tasks: list[Site] = []
        parameters: list[Site] = []
        if isinstance(data.get("tasks"), list):
            tasks = [self.task((*keys, "tasks", index), one) for index, one in enumerate(data["tasks"])]
            data["tasks"] = [site.made for site in tasks if site.made is not None]
        elif "tasks" in data and data["tasks"] is None:
            del data["tasks"]
        if isinstance(data.get("parameters"), list):
            parameters = list(self.items((*keys, "parameters"), data["parameters"], Parameter))
            data["parameters"] = [site.made for site in parameters if site.made is not None]
        made, wrong = self.made(Pipeline, data, keys)
        return PipelineSite(keys, written, made, wrong, tasks, parameters)

    def task(self, keys: Keys, data: Any) -> Site:
        made, wrong = self.made(_class_of(AnyTask, data), data, keys)
        return Site(keys, data, made, wrong)

    def made(self, kind: Any, data: Any, keys: Keys) -> tuple[Any, frozenset[str]]:
        """The object, without the keys that are wrong; None when it cannot be without them."""
        try:
            if isinstance(kind, TypeAdapter):
                return kind.validate_python(data), frozenset()
            return kind.model_validate(data), frozenset()
        except ValidationError as error:
            if not isinstance(kind, type):
                self.problems += told(error, Config, self.data, keys)
                return None, frozenset()
            made, wrong = _healed(kind, data, error)
            self.problems += told(error, kind, self.data, keys, later=self.is_load and made is not None)
            return made, wrong


def _class_of(kind: Any, data: Any) -> Any:
    """The model for an item: of a registry, the class that its `type` names, else what says that there is none."""
    if isinstance(kind, type):
        return kind
    found: Registry = kind.__metadata__[0]
    if isinstance(data, dict):
        name = data.get("type", found.default)
        known = found.added(name) if isinstance(name, str) else None
        if known is not None and known.__pydantic_complete__:
            return known
        if isinstance(name, str) and name in found:
            try:
                return found[name]
            except ImportError:
                pass  # told by the registry's own validation
    return _adapter(kind)


_adapters: dict[str, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    group = kind.__metadata__[0].group
    if group not in _adapters:
        _adapters[group] = TypeAdapter(kind)
    return _adapters[group]


def _healed(kind: type[BaseModel], data: Any, error: ValidationError) -> tuple[Any, frozenset[str]]:
    """What can be made without the keys that are wrong, so that the rest can be proved."""
    wrong: set[str] = set()
    for _ in range(3):
        keys = {str(one["loc"][0]) for one in error.errors(include_url=False, include_input=False) if one["loc"]}
        if not isinstance(data, dict) or not keys & data.keys() - wrong:
            return None, frozenset(wrong | keys)
        wrong |= keys
        try:
            return kind.model_validate({key: one for key, one in data.items() if key not in wrong}), frozenset(wrong)
        except ValidationError as again:
            error = again
    return None, frozenset(wrong)
