"""Check files: read, resolve, build and prove all of them, and tell every problem; `load` for those who want to run."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import cache as cached
from .errors import CallError, ConfigError, Problem, near
from .looking import Look

if TYPE_CHECKING:
    from .app import App, Pipeline, Service
    from .building import Built
    from .document import Document
    from .variables import Lookup

_PYDANTIC_LOADER = "pydantic.plugin._loader"


class Checked:
    """What was found: all problems in file and line order, all files, the apps without an error.

    The names are those of all apps whose keys and values are right, also when a proof failed. `apps` is made when it
    is asked for.
    """

    def __init__(self, problems: list[Problem], files: list[Path], names: cached.Entry, path: Path) -> None:
        self.problems = problems
        self.files = files
        self._names = names
        self._path = path
        self._apps: list[App] | None = None

    @property
    def is_remembered(self) -> bool:
        """Whether this is what an earlier check found, and no app was made yet."""
        return self._apps is None

    @property
    def apps(self) -> list[App]:
        """The apps without an error."""
        if self._apps is None:
            self._apps = _checked(self._path, self.files, None).apps
        return self._apps

    @property
    def errors(self) -> list[Problem]:
        """The problems that are not warnings."""
        return [one for one in self.problems if one.severity == "error"]

    @property
    def app_names(self) -> list[str]:
        """The names of the apps that loaded."""
        return self._names.app_names

    @property
    def pipeline_names(self) -> list[str]:
        """The names of their pipelines."""
        return self._names.pipeline_names

    @property
    def service_names(self) -> list[str]:
        """The names of their services."""
        return self._names.service_names


def check(path: Path | str = ".", *, lookup: Lookup | None = None, cache: bool = True) -> Checked:
    """Everything that is wrong with the files at or below `path`; a bad file is told, not raised.

    `lookup` is asked for names in placeholders that the files do not define; default: the environment. With `cache`
    nothing is done again that is known from an earlier check of the same files.

    Raises:
        CallError: there is nothing at `path`.
    """
    path = Path(path)
    files = found(path)
    digests = cached.digests(files) if cache and lookup is None else None
    if digests is None:
        return _checked(path, files, lookup)
    entry = cached.read(path, digests)
    if entry is not None:
        return Checked(entry.problems, files, entry, path)
    names: set[str] = set()

    def seen_lookup(name: str) -> str | None:
        names.add(name)
        return os.environ.get(name)

    look = Look()
    checked = _checked(path, files, seen_lookup, look=look)
    if not look.is_partial:
        cached.write(path, digests, checked._names, names=names, looks=look.looks)
    return checked


def found(path: Path) -> list[Path]:
    """The config files at or below `path`.

    Raises:
        CallError: there is none.
    """
    from .files import find

    files = find(path)
    if files:
        return files
    raise CallError(f"there is no rainbow.yml in '{path}' or below; `rainbow init` writes one")


def shown(file: Path, path: Path) -> str:
    """A file as it is printed: relative to the folder that was searched."""
    return os.path.relpath(file, path if path.is_dir() else path.parent)


def _checked(path: Path, files: list[Path], lookup: Lookup | None, *, look: Look | None = None) -> Checked:
    with _without_pydantic_plugins(), _without_gc():
        return _everything(path, files, lookup, look or Look())


def _everything(path: Path, files: list[Path], lookup: Lookup | None, look: Look) -> Checked:
    from .building import build
    from .document import read
    from .proofs import across
    from .resolve import resolve
    from .variables import environment

    unread: list[Problem] = []
    documents = []
    for file in files:
        document, wrong = read(file, shown=shown(file, path))
        unread += wrong
        if document is not None:
            documents.append(document)
    resolved, problems = resolve(documents, lookup=lookup or environment)
    unresolved = {one.mark.file for one in problems if one.severity == "error"}
    supers = {one.shown for one in documents if one.data.get("type") == "super"}
    built = [build(one, look) for one in resolved]
    twice = list(across(built))
    loaded, apps = [], []
    for one in built:
        inherits = one.app.document.data.get("super") is not None
        if not one.is_sound or one.app.shown in unresolved or (inherits and unresolved & supers):
            continue
        loaded.append(one.app)
        if not any(problem.severity == "error" for problem in one.problems):
            apps.append(one.app)
    for one in built:
        problems += one.problems
    problems = [*_in_defaults(documents), *_without_echoes(problems, unread)]
    broken = {one.mark.file for one in [*problems, *twice] if one.severity == "error"}
    problems = _once([*problems, *twice])
    if problems:
        problems = _masked(problems, [one.data for one in documents])
    _look_at_types(look, built)
    names = cached.Entry(
        problems,
        [app.name for app in loaded],
        [one.pipeline for app in loaded for one in app.pipelines],
        [one.service for app in loaded for one in app.services],
    )
    checked = Checked(problems, files, names, path)
    checked._apps = [one for one in apps if one.shown not in broken]
    return checked


def _in_defaults(documents: Sequence[Document]) -> list[Problem]:
    """What no task, pipeline or service may use and so tell."""
    from .resolve import DEFAULTS

    written = [one.data for one in documents if not one.data.keys().isdisjoint(DEFAULTS)]
    if not written:
        return []
    from .defaults import flaws

    return [problem for data in written for problem in flaws(data)]


def _without_echoes(problems: Sequence[Problem], unread: Sequence[Problem]) -> list[Problem]:
    """All problems, without those at a place whose value could not be read: that says it all."""
    places = {one.mark for one in unread}
    return [*unread, *(one for one in problems if one.mark not in places)]


def _once(problems: Sequence[Problem]) -> list[Problem]:
    """In file and line order; what is told of one inherited value is told once."""
    first = {(one.mark, one.message, one.hint): one for one in reversed(problems)}
    return sorted(first.values(), key=lambda one: one.mark)


def _masked(problems: list[Problem], data: Sequence[Any]) -> list[Problem]:
    """The problems without what the files or the environment hold under names of secrets."""
    from dataclasses import replace

    from .masking import Masker, secret_values

    values = [value for one in (*data, dict(os.environ)) for value in secret_values(one)]
    if not values:
        return problems
    mask = Masker(values).mask
    return [replace(one, message=mask(one.message), hint=mask(one.hint), where=mask(one.where)) for one in problems]


def _look_at_types(look: Look, built: Sequence[Built]) -> None:
    """The files of the classes that were used count as looked at; what plugin folders hold cannot be told."""
    from .registry import executors, observers, tasks

    if any("plugins" in one.resolved.data for one in built):
        look.is_partial = True
    for registry in (tasks, executors, observers):
        for kind in registry.loaded():
            file = getattr(sys.modules.get(kind.__module__), "__file__", None)
            if file is not None:
                look.exists(file)


@contextmanager
def _without_pydantic_plugins() -> Iterator[None]:
    """Our models need none, and looking for them reads the metadata of all that is installed (70 ms)."""
    if "pydantic" in sys.modules:
        yield
        return
    loader = ModuleType(_PYDANTIC_LOADER)
    loader.__dict__["get_plugins"] = tuple
    sys.modules[_PYDANTIC_LOADER] = loader
    try:
        yield
    finally:
        del sys.modules[_PYDANTIC_LOADER]


@contextmanager
def _without_gc() -> Iterator[None]:
    """A check makes very many small objects and no garbage: the collector would take a third of its time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@dataclass
class Project:
    """The apps of all files below one folder, checked and without errors."""

    apps: Sequence[App]
    warnings: Sequence[Problem] = ()

    @cached_property
    def pipelines(self) -> dict[str, Pipeline]:
        """All pipelines by name."""
        return {one.pipeline: one for app in self.apps for one in app.pipelines}

    @cached_property
    def services(self) -> dict[str, Service]:
        """All services by name."""
        return {one.service: one for app in self.apps for one in app.services}

    def pipeline(self, name: str) -> Pipeline:
        """The pipeline of this name.

        Raises:
            CallError: there is none.
        """
        if name in self.pipelines:
            return self.pipelines[name]
        raise CallError(_missing("pipeline", name, self.pipelines))

    def service(self, name: str) -> Service:
        """The service of this name.

        Raises:
            CallError: there is none.
        """
        if name in self.services:
            return self.services[name]
        raise CallError(_missing("service", name, self.services))

    def __iter__(self) -> Iterator[App]:
        return iter(self.apps)


def _missing(what: str, name: str, known: dict[str, Pipeline] | dict[str, Service]) -> str:
    hint = near(name, known)
    return f"there is no {what} '{name}'{f'; {hint}' if hint else ''}"


def load(path: Path | str = ".", *, lookup: Lookup | None = None) -> Project:
    """The apps of the files at or below `path`.

    Raises:
        ConfigError: there is an error in one of them; it holds all problems.
        CallError: there is no file.
    """
    checked = check(path, lookup=lookup, cache=False)
    if checked.errors:
        raise ConfigError(checked.errors)
    return Project(checked.apps, checked.problems)
