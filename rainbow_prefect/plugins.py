"""The `plugins:` folders of a file: Python files whose Task, Executor and Observer classes become types by name."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.machinery
import importlib.util
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from .document import Keys, mark_of, path_text
from .errors import Problem, near
from .executors.base import Executor
from .observers.alerts import Alert
from .observers.base import Observer
from .registry import Registry, alerts, executors, observers, tasks
from .schema import NAME_PATTERN, Config
from .tasks.base import Task

_KINDS: tuple[tuple[type[Config], Registry], ...] = (
    (Task, tasks),
    (Executor, executors),
    (Alert, alerts),
    (Observer, observers),
)


@dataclass(frozen=True)
class _Loaded:
    """A plugin file that was loaded: what it holds, by the digest of its text."""

    file: Path
    digest: str
    types: tuple[tuple[Registry, str, type[Config]], ...]
    flaws: tuple[str, ...]


class _Broken(Exception):
    """The file cannot be loaded; the text says why."""


_loaded: dict[Path, _Loaded] = {}
_lock = threading.RLock()


def folders(data: Any, root: Path) -> list[tuple[Keys, str, Path]]:
    """The entries of the root key `plugins` as (keys, as written, path); what is no text is left to the check of types.

    Shape: in the order of the file; relative paths are below `root`, the folder of the file.
    """
    written = data.get("plugins") if isinstance(data, dict) else None
    if isinstance(written, str):
        return [(("plugins",), written, root / written)]
    if not isinstance(written, list):
        return []
    return [(("plugins", index), one, root / one) for index, one in enumerate(written) if isinstance(one, str)]


def files(folder: Path) -> list[Path]:
    """The plugin files of a folder, sorted; those that start with `_` are for the others to import."""
    if folder.is_file():
        return [folder]
    return sorted(one for one in folder.glob("*.py") if not one.name.startswith("_"))


def load(data: Any, root: Path) -> list[Problem]:
    """Register every type that the `plugins` of a file declare, and tell what is wrong with them.

    The files are imported, once for each content. A file that is broken hides no other.
    """
    with _lock:
        return [problem for entry in folders(data, root) for problem in _load_folder(data, root, *entry)]


def _load_folder(data: Any, root: Path, keys: Keys, written: str, folder: Path) -> Iterator[Problem]:
    def problem(message: str, hint: str = "", severity: Any = "error") -> Problem:
        return Problem(mark_of(data, keys), path_text(keys), message, hint, severity=severity)

    if not folder.exists():
        hint = near(written, _siblings(root), list_up_to=0)
        yield problem(f"the plugins folder '{written}' does not exist", hint or "create it, or remove the entry")
        return
    found = files(folder)
    if folder.is_file() and folder.suffix != ".py":
        yield problem(f"'{written}' is no plugin", "name a folder with Python files")
        return
    if not found:
        yield problem(f"the plugins folder '{written}' holds no Python file", severity="warning")
    for file in found:
        shown = written if folder.is_file() else f"{written.rstrip('/')}/{file.name}"
        try:
            loaded = _load_file(file)
        except _Broken as error:
            yield problem(f"the plugin {shown} cannot be loaded: {error}")
            continue
        for flaw in loaded.flaws:
            yield problem(f"the plugin {shown}: {flaw}")
        for flaw in _register(loaded):
            yield problem(f"the plugin {shown}: {flaw}", "give it another `type`")


def _siblings(root: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return [one.name for one in root.iterdir() if one.is_dir() and not one.name.startswith(".")]
    return []


def _load_file(file: Path) -> _Loaded:
    file = file.resolve()
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise _Broken(str(error.strerror)) from None
    known = _loaded.get(file)
    if known is not None and known.digest == digest:
        return known
    if known is not None:
        _forget(known)
    module = _imported(file)
    types, flaws = _types_of(module)
    _loaded[file] = _Loaded(file, digest, tuple(types), tuple(flaws))
    return _loaded[file]


def _forget(old: _Loaded) -> None:
    """Take back what an earlier text of the file registered."""
    for registry, name, kind in old.types:
        if _owner(registry, name) is kind:
            registry.discard(name)
    del _loaded[old.file]


def _register(loaded: _Loaded) -> Iterator[str]:
    for registry, name, kind in loaded.types:
        owner = _owner(registry, name)
        if owner is kind:
            continue
        if name in registry and not _same(owner, kind):
            yield f"the {registry.what} type '{name}' is already taken by {_where(registry, name, owner)}"
        else:
            registry.add(name, kind)


def _owner(registry: Registry, name: str) -> type[Config] | None:
    """The plugin class that has this name, None when it is free or an entry point's (which is not imported for it)."""
    for loaded in _loaded.values():
        for other, taken, kind in loaded.types:
            if other is registry and taken == name and registry.added(name) is kind:
                return kind
    return None


def _same(owner: type[Config] | None, kind: type[Config]) -> bool:
    """Whether both come from copies of one file, e.g. of two projects in one repository."""
    return owner is not None and owner.__name__ == kind.__name__ and _digest(owner) == _digest(kind) is not None


def _digest(kind: type[Config]) -> str | None:
    return next((one.digest for one in _loaded.values() if any(kind is own for _, _, own in one.types)), None)


def _where(registry: Registry, name: str, owner: type[Config] | None) -> str:
    if owner is not None:
        file = next(one.file for one in _loaded.values() if any(owner is own for _, _, own in one.types))
        return f"class {owner.__name__} of {file.parent.name}/{file.name}"
    return registry.origin(name)


def _imported(file: Path) -> ModuleType:
    """The module of a plugin file; its folder is a package, so that `from . import other` works."""
    package = f"rainbow_plugins_{hashlib.sha256(str(file.parent).encode()).hexdigest()[:12]}"
    if package not in sys.modules:
        parent = ModuleType(package)
        parent.__path__ = [str(file.parent)]
        parent.__spec__ = importlib.machinery.ModuleSpec(package, None, is_package=True)
        sys.modules[package] = parent
    name = f"{package}.{file.stem}"
    importlib.invalidate_caches()
    loader = _Loader(name, str(file))
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout may be for JSON
            loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _Broken(_reason(error, file)) from error
    return module


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles the text each time: a .pyc file that is as old as an edit in the same second would hide the edit."""

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path), self.path)


def _reason(error: BaseException, file: Path) -> str:
    """The error in one line, with the line of the plugin file that raised it."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f"line {error.lineno}: {type(error).__name__}: {error.msg}"
    lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == str(file)]
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, ModuleNotFoundError) and error.name and (file.parent / f"{error.name}.py").exists():
        told += f" (for a file beside it write: from . import {error.name})"
    return f"line {lines[-1]}: {told}" if lines else told


def _types_of(module: ModuleType) -> tuple[list[tuple[Registry, str, type[Config]]], list[str]]:
    """The types that a module defines, and what is wrong with its classes."""
    own = [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__]
    types: list[tuple[Registry, str, type[Config]]] = []
    flaws: list[str] = []
    for kind, registry in _plugin_classes(own):
        name = kind.model_fields["type"].default if "type" in kind.__annotations__ else None
        if not isinstance(name, str) or not NAME_PATTERN.match(name):
            if not _is_base(kind, own):
                flaws.append(f'class {kind.__name__} has no type of its own; add: type: Literal["name"] = "name"')
        elif any(registry is other and name == taken for other, taken, _ in types):
            flaws.append(f"the {registry.what} type '{name}' is there twice")
        else:
            types.append((registry, name, kind))
    return types, flaws


def _plugin_classes(classes: Iterable[type]) -> Iterator[tuple[type[Config], Registry]]:
    for one in dict.fromkeys(classes):
        for base, registry in _KINDS:
            if issubclass(one, base):
                yield one, registry


def _is_base(kind: type, own: Iterable[type]) -> bool:
    """Whether a class without a type only serves others."""
    return kind.__name__.startswith("_") or any(one is not kind and issubclass(one, kind) for one in own)
