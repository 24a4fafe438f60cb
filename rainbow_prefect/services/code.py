"""User code of a service: its modules imported, its functions found; what is missing is told with what is near."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..errors import RunError, near
from .definition import Definition

Function = Callable[..., Any]


def find(definition: Definition, module: str, function: str, where: str) -> Function:
    """The function; `where` is what asks for it, for messages.

    Raises:
        RunError: there is no such module or function, or importing it failed.
    """
    place = f"service '{definition.service}', {where}"
    folder = str(definition.folder)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = _module(definition, module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise RunError(f"{place}: there is no module '{module}' in '{definition.name}'") from error
        hint = "add it to requirements.txt beside the code and install it"
        raise RunError(f"{place}: module '{module}' cannot be imported: {_reason(error)}; {hint}") from error
    except Exception as error:
        raise RunError(f"{place}: module '{module}' cannot be imported: {_reason(error)}") from error
    names = dir(found)
    for part in function.split("."):
        found = getattr(found, part, None)
    if found is None:
        known = [name for name in names if not name.startswith("_")]
        hint = near(function, known, list_up_to=0)
        raise RunError(f"{place}: module '{module}' has no function '{function}'{f'; {hint}' if hint else ''}")
    if not callable(found):
        raise RunError(f"{place}: '{function}' of module '{module}' is not a function")
    made: Function = found
    return made


def _reason(error: BaseException) -> str:
    """What went wrong and in which line of whose file."""
    text = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    frames = [one for one in traceback.extract_tb(error.__traceback__) if "importlib" not in one.filename]
    frames = [one for one in frames if one.filename != __file__]
    return f"{text} ({frames[-1].filename}:{frames[-1].lineno})" if frames else text


def _module(definition: Definition, module: str) -> ModuleType:
    """`source.module` means the same as `module`: in an image the folder has another name than beside the YAML file."""
    first, _, rest = module.partition(".")
    if first != definition.name:
        return importlib.import_module(module)
    if not _is_ours(definition, first):
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:  # the folder has the name of another module, such as `code`
            if not rest or error.name not in (first, module):
                raise
        return importlib.import_module(rest)
    if not rest and (definition.folder / f"{first}.py").is_file():
        return importlib.import_module(module)
    if first not in sys.modules:
        _import_as_package(definition, first)
    return importlib.import_module(module)


def _is_ours(definition: Definition, first: str) -> bool:
    """Whether the first part of a module is the folder itself: not a module in it, nor one that is installed."""
    known = sys.modules.get(first)
    if known is not None:
        return str(definition.folder) in map(str, getattr(known, "__path__", ()))
    if (definition.folder / first).is_dir() or (definition.folder / f"{first}.py").is_file():
        return False
    try:
        return importlib.util.find_spec(first) is None
    except (ImportError, ValueError):
        return True


def _import_as_package(definition: Definition, name: str) -> None:
    init = definition.folder / "__init__.py"
    if not init.is_file():
        package = ModuleType(name)
        package.__path__ = [str(definition.folder)]
        sys.modules[name] = package
        return
    spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(definition.folder)])
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    try:
        spec.loader.exec_module(package)
    except BaseException:
        sys.modules.pop(name, None)
        raise
