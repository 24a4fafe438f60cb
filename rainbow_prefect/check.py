"""Check files: read, resolve, build and prove all of them, and tell every problem; `load` for those who want to run."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CallError, ConfigError, Problem, near

if TYPE_CHECKING:
    from .app import App, Pipeline, Service
    from .variables import Lookup


@dataclass
class Checked:
    """What was found: the apps without an error, all problems in file and line order, all files.

    The names are those of all apps whose keys and values are right, also when a proof failed.
    """

    problems: list[Problem]
    files: list[Path]
    apps: list[App] = field(default_factory=list)
    loaded: list[App] = field(default_factory=list)

    @property
    def errors(self) -> list[Problem]:
        """The problems that are not warnings."""
        return [one for one in self.problems if one.severity == "error"]

    @property
    def app_names(self) -> list[str]:
        return [app.name for app in self.loaded]

    @property
    def pipeline_names(self) -> list[str]:
        return [one.pipeline for app in self.loaded for one in app.pipelines]

    @property
    def service_names(self) -> list[str]:
        return [one.service for app in self.loaded for one in app.services]


def check(path: Path | str = ".", *, lookup: Lookup | None = None, cache: bool = True) -> Checked:
    """Everything that is wrong with the files at or below `path`; a bad file is told, not raised.

    `lookup` is asked for names in placeholders that the files do not define; default: the environment.

    Raises:
        CallError: there is nothing at `path`.
    """
    path = Path(path)
    files = found(path)
    with _without_pydantic_plugins(), _without_gc():
        return _checked(path, files, lookup)


@contextmanager
def _without_pydantic_plugins() -> Iterator[None]:
    """Our models need none, and looking for them reads the metadata of all that is installed (40 ms)."""
    name = "PYDANTIC_DISABLE_PLUGINS"
    if "pydantic" in sys.modules or name in os.environ:
        yield
        return
    os.environ[name] = "__all__"
    try:
        yield
    finally:
        del os.environ[name]


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


def _checked(path: Path, files: list[Path], lookup: Lookup | None) -> Checked:
    from .building import build
    from .document import read
    from .looking import Look
    from .proofs import across
    from .resolve import resolve
    from .variables import environment

    look = Look()
    problems: list[Problem] = []
    documents = []
    for file in files:
        document, wrong = read(file, shown=shown(file, path))
        problems += wrong
        if document is not None:
            documents.append(document)
    resolved, wrong = resolve(documents, lookup=lookup or environment)
    problems += wrong
    built = [build(one, look) for one in resolved]
    for one in built:
        problems += one.problems
    problems += across(built)
    unresolved = {one.mark.file for one in wrong if one.severity == "error"}
    loaded = [one.app for one in built if one.is_sound and one.app.shown not in unresolved]
    wrong_files = {one.mark.file for one in problems if one.severity == "error"}
    apps = [one for one in loaded if one.shown not in wrong_files]
    problems = sorted(dict.fromkeys(problems), key=lambda one: one.mark)
    return Checked(problems, files, apps, loaded)


def found(path: Path) -> list[Path]:
    """The config files at or below `path`.

    Raises:
        CallError: there is none.
    """
    from .document import find

    files = find(path)
    if files:
        return files
    raise CallError(f"there is no rainbow.yml in '{path}' or below; `rainbow init` writes one")


def shown(file: Path, path: Path) -> str:
    """A file as it is printed: relative to the folder that was searched."""
    return os.path.relpath(file, path if path.is_dir() else path.parent)


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
