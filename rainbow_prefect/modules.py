"""Modules and functions of user code, found by reading the source; nothing of it is imported."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

from .errors import near
from .looking import Look

_CONSTANT = "constant"
_UNKNOWN = "unknown"


class Flaw(NamedTuple):
    """Why there is no such module or function, and what to do."""

    message: str
    hint: str = ""


class Found(NamedTuple):
    """The file of a module, and how it is shown."""

    file: Path
    shown: str


class Names(NamedTuple):
    """The names at the top of a module: functions with how many arguments they need (None: it cannot be told).

    `is_open`: names may come from elsewhere (`from x import *`, `__getattr__`).
    """

    functions: dict[str, int | None]
    others: dict[str, str]
    is_open: bool = False


def find(look: Look, source: Path, module: str) -> Found | Flaw:
    """The file of `module` in the folder `source`; a first part that is the folder's own name may be there or not."""
    parts = module.split(".")
    if not all(part.isidentifier() for part in parts):
        hint = "write it without .py" if module.endswith(".py") else "write a dotted name, e.g. `package.module`"
        if "/" in module:
            hint = f"write '{module.removesuffix('.py').strip('/').replace('/', '.')}'"
        return Flaw(f"'{module}' is not the name of a module", hint)
    found = _file(look, source, parts)
    if found is None and len(parts) > 1 and parts[0] == source.name:
        found = _file(look, source, parts[1:])
    if found is None and parts == [source.name]:
        found = _file(look, source.parent, parts)
    if found is not None:
        return Found(found, f"{source.name}/{found.relative_to(source)}" if source in found.parents else found.name)
    return Flaw(f"there is no module '{module}' in '{source.name}'", near(module, modules_of(look, source)))


def _file(look: Look, source: Path, parts: list[str]) -> Path | None:
    base = source.joinpath(*parts)
    for file in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
        if look.is_file(file):
            return file
    return None


def modules_of(look: Look, source: Path, prefix: str = "", depth: int = 3) -> list[str]:
    """The modules below a folder, dotted."""
    found = []
    for name in look.names(source)[:500]:
        if name.endswith(".py") and name != "__init__.py":
            found.append(prefix + name.removesuffix(".py"))
        elif depth and name.isidentifier() and name != "__pycache__" and look.is_folder(source / name):
            if look.is_file(source / name / "__init__.py"):
                found.append(prefix + name)
            found += modules_of(look, source / name, f"{prefix}{name}.", depth - 1)
    return found


def function_flaw(look: Look, found: Found, module: str, function: str, most: int | None) -> Flaw | None:
    """Why `function` of a module cannot be called with `most` arguments at most (None: with any); None when it can."""
    names = look.once(("names", str(found.file)), lambda: _names(look, found))
    function = function.partition(".")[0]  # of `Class.method` only the class can be told
    if isinstance(names, Flaw):
        return names
    if function in names.functions:
        needed = names.functions[function]
        if most is None or needed is None or needed <= most:
            return None
        text = f"function '{function}' of module '{module}' needs {needed} arguments; it is called with the input alone"
        return Flaw(text, "give the others defaults")
    if names.others.get(function) == _CONSTANT:
        return Flaw(f"'{function}' of module '{module}' is not a function", near(function, names.functions))
    if function in names.others or names.is_open:
        return None
    return Flaw(f"module '{module}' has no function '{function}'", near(function, names.functions))


def _names(look: Look, found: Found) -> Names | Flaw:
    text = look.text(found.file)
    if text is None:
        return Flaw(f"'{found.shown}' cannot be read", "make it readable")
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        reason = getattr(error, "msg", None) or str(error) or type(error).__name__
        return Flaw(f"'{found.shown}' is not valid Python: {f'line {line}: ' if line else ''}{reason}", "correct it")
    names = Names({}, {})
    is_open = _collect(tree.body, names)
    return Names(names.functions, names.others, is_open or "__getattr__" in names.functions)


def _collect(body: list[ast.stmt], names: Names) -> bool:
    """Add the names that statements define; True when some may come from elsewhere."""
    is_open = False
    for one in body:
        match one:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                needed = None if one.decorator_list else _needed(one.args)
                names.functions[one.name] = needed
                names.others.pop(one.name, None)
            case ast.ClassDef():
                names.functions[one.name] = None
            case ast.Import() | ast.ImportFrom():
                for alias in one.names:
                    is_open = is_open or alias.name == "*"
                    names.others[alias.asname or alias.name.partition(".")[0]] = _UNKNOWN
            case ast.Assign():
                for target in one.targets:
                    _assign(target, one.value, names)
            case ast.AnnAssign() if one.value is not None:
                _assign(one.target, one.value, names)
            case ast.If() | ast.For() | ast.AsyncFor() | ast.While():
                is_open = _collect([*one.body, *one.orelse], names) or is_open
            case ast.With() | ast.AsyncWith():
                is_open = _collect(one.body, names) or is_open
            case ast.Match():
                is_open = _collect([each for case in one.cases for each in case.body], names) or is_open
            case ast.Expr() if "globals" in ast.dump(one.value):
                is_open = True
            case ast.Try() | ast.TryStar():
                handlers = [each for handler in one.handlers for each in handler.body]
                is_open = _collect([*one.body, *handlers, *one.orelse, *one.finalbody], names) or is_open
            case _:
                pass
    return is_open


def _assign(target: ast.expr, value: ast.expr, names: Names) -> None:
    if isinstance(target, ast.Tuple | ast.List):
        for one in target.elts:
            _assign(one, ast.Name("_"), names)
    elif isinstance(target, ast.Name):
        if isinstance(value, ast.Lambda):
            names.functions[target.id] = _needed(value.args)
            return
        is_there = target.id in names.functions or target.id in names.others
        names.functions.pop(target.id, None)
        is_constant = isinstance(value, ast.Constant | ast.List | ast.Dict | ast.Set | ast.Tuple | ast.JoinedStr)
        names.others[target.id] = _CONSTANT if is_constant and not is_there else _UNKNOWN


def _needed(arguments: ast.arguments) -> int:
    """How many arguments a call must give."""
    positional = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return positional + sum(default is None for default in arguments.kw_defaults)
