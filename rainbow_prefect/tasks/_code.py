"""What tasks that run the user's code share: image, source, mounts, secrets, and the checks of files and modules."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from ..errors import RunError, TaskFailed, near
from ..run import Command, FileMount, Output, Run
from ..schema import Text, wrong
from .base import Flaw, Mount, Place, Task, TaskSecret


def _inside(value: str) -> str:
    """An output path names a file, and stays below the working directory when it is relative."""
    if "\0" in value or value.endswith("/") or value in (".", ".."):
        raise wrong(f"'{value}' is not the path of a file", hint="write a file name, e.g. output.json")
    depth = 0
    for part in value.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            raise wrong(f"'{value}' leads out of the working directory", hint="write a path below it, e.g. output.json")
    return value


OutputPath = Annotated[str, AfterValidator(_inside)]


class Code(Task):
    """A task whose code runs as a `Command` of an executor; a subclass says which."""

    image: Text | None = Field(
        default=None, description="The image with its code and packages; `process` takes the image's source."
    )
    source: str | None = Field(
        default=None, description="The folder with its code, relative to this file; absent: that of the image."
    )
    output_path: OutputPath | None = Field(
        default=None, description="The JSON file that it writes: its output. Relative to the working directory."
    )
    mounts: tuple[Mount, ...] = Field(default=(), description="Volumes that it sees.")
    secrets: tuple[TaskSecret, ...] = Field(default=(), description="Secrets that it is given as files or variables.")
    no_cache: bool = Field(default=False, description="Build its image without the cache.")
    pip_conf: str | None = Field(default=None, description="A pip.conf for installing packages, relative to this file.")

    def command(self, run: Run) -> Command:
        """What the executor starts; `fill` adds what all code has."""
        raise TypeError(f"task type '{self.type}' does not implement command()")

    def run(self, run: Run) -> object:
        output: Output = run.executor.run(self._filled(run), run)
        return output.value

    def prepare(self, run: Run) -> None:
        run.executor.prepare(self._filled(run), run)

    def image_source(self) -> tuple[str | None, str | None]:
        return self.image, self.source

    def _filled(self, run: Run) -> Command:
        mine: Code = run.secrets.render(self)
        command = mine.command(run)
        source = run.root / mine.source if mine.source else run.source
        env, files = mine._secret_places(run)
        return replace(
            command,
            env={**command.env, **mine.env_vars, **env},
            source=source,
            image=mine.image,
            output_path=command.output_path or mine.output_path or None,
            mounts=(*mine._volume_places(run), *files),
            pip_conf=run.root / mine.pip_conf if mine.pip_conf else None,
        )

    def _secret_places(self, run: Run) -> tuple[dict[str, str], list[FileMount]]:
        env: dict[str, str] = {}
        files: list[FileMount] = []
        for one in self.secrets:
            try:
                if one.env is not None:
                    env[one.env] = run.secrets.get(one.secret)
                if one.remote_path is not None or one.env is None:
                    target = f"{(one.remote_path or '/secrets').rstrip('/')}/{one.sub_path or 'credentials'}"
                    files.append(FileMount(target, text=run.secrets.raw(one.secret), read_only=True, secret=True))
            except RunError as error:
                raise TaskFailed(str(error)) from error
        return env, files

    def _volume_places(self, run: Run) -> Iterator[FileMount]:
        for one in self.mounts:
            folder = run.volumes.get(one.volume)
            below = folder / one.sub_path if folder is not None and one.sub_path else folder
            claim = None if folder is not None else one.volume
            yield FileMount(one.path, source=below, read_only=one.read_only, claim_name=claim)

    # -- proofs: the source is read, never imported

    def code_folder(self, place: Place) -> Path | None:
        """The folder of its code, its own or that of its image."""
        return place.root / self.source if self.source else place.app.source_of(self)

    def check_source(self, place: Place, *, needed: bool) -> Iterator[Flaw]:
        """Whether its `source` is a folder; only a warning when nothing in it is named."""
        if self.source is None:
            return
        folder = place.root / self.source
        if folder.is_dir():
            return
        what = "is not a folder" if folder.exists() else "does not exist"
        names = [path.name for path in _entries(folder.parent) if path.is_dir() and not path.name.startswith(".")]
        close = near(folder.name, names, list_up_to=0)
        if close and (parent := Path(self.source).parent) != Path():
            close = close.replace("did you mean '", f"did you mean '{parent}/")
        yield Flaw(
            ("source",),
            f"the source folder '{self.source}' {what}",
            close or "make it, or correct the path",
            "error" if needed else "warning",
        )

    def check_pip_conf(self, place: Place) -> Iterator[Flaw]:
        """Whether `pip_conf` is a file."""
        if self.pip_conf and not (place.root / self.pip_conf).is_file():
            names = [path.name for path in _entries((place.root / self.pip_conf).parent) if path.is_file()]
            close = near(Path(self.pip_conf).name, names, list_up_to=0)
            yield Flaw(("pip_conf",), f"the file '{self.pip_conf}' does not exist", close or "correct the path")


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def file_of_module(folder: Path, module: str) -> Path | None:
    """The file of a module as the code sees it: from inside of `folder`, and from beside it.

    A package without `__init__.py` gives its folder.
    """
    for root in (folder, folder.parent):
        path = root.joinpath(*module.split("."))
        if root != folder and module.split(".", maxsplit=1)[0] != folder.name:
            continue
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                return file
        if path.is_dir():
            return path
    return None


def module_names(folder: Path) -> list[str]:
    """The modules that code in this folder can import from it, at most two deep."""
    names = []
    for path in _entries(folder):
        if path.suffix == ".py" and path.stem != "__init__":
            names.append(path.stem)
        elif path.is_dir() and path.name.isidentifier() and path.name != "__pycache__":
            inner = [
                f"{path.name}.{one.stem}" for one in _entries(path) if one.suffix == ".py" and one.stem != "__init__"
            ]
            names += inner if not (path / "__init__.py").is_file() else [path.name, *inner]
    return names


def module_flaw(folder: Path, module: str, function: str) -> tuple[str, str, str] | None:
    """What is wrong with `module` or `function`, as (key, message, hint); None when both are found."""
    if not all(part.isidentifier() for part in module.split(".")):
        return "module", f"'{module}' is not a valid module name", _as_module(module)
    file = file_of_module(folder, module)
    if file is None:
        hint = near(module, [*module_names(folder), *(f"{folder.name}.{one}" for one in module_names(folder))])
        return "module", f"there is no module '{module}' in the source folder '{folder.name}'", hint
    if file.is_dir():
        return "function", f"module '{module}' is a folder without __init__.py; it has no function '{function}'", ""
    found = names_of(file)
    if isinstance(found, str):
        return "module", f"module '{module}' cannot be read: {found}", ""
    if found is None or "." in function:
        return None
    if function not in found:
        functions = [name for name, kind in found.items() if kind == "function"]
        return "function", f"module '{module}' has no function '{function}'", near(function, functions)
    if found[function] == "value":
        functions = [name for name, kind in found.items() if kind == "function"]
        return "function", f"'{function}' in module '{module}' is not a function", near(function, functions)
    return None


def _as_module(module: str) -> str:
    name = module.removesuffix(".py").strip("./").replace("/", ".")
    is_valid = bool(name) and all(part.isidentifier() for part in name.split("."))
    return f"write it as Python imports it: {name}" if is_valid and name != module else "write it as Python imports it"


def names_of(file: Path) -> Mapping[str, str] | str | None:
    """The names a module defines, each a `function`, a `value` or `something`; a text when it cannot be read.

    None when it may define any name: `from x import *`, a module `__getattr__`, `globals()`.
    """
    try:
        found = file.stat()
    except OSError as error:
        return str(error.strerror)
    return _names_of(file, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=4096)
def _names_of(file: Path, changed: int, size: int) -> Mapping[str, str] | str | None:
    try:
        tree = ast.parse(file.read_bytes(), filename=file.name)
    except SyntaxError as error:
        return f"{error.msg} ({file.name}, line {error.lineno})"
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        return str(error)
    names: dict[str, str] = {}
    return names if _collect(tree.body, names) else None


_PLAIN = (ast.Constant, ast.List, ast.Dict, ast.Set, ast.Tuple, ast.JoinedStr, ast.ListComp, ast.DictComp, ast.SetComp)


def _collect(body: list[ast.stmt], names: dict[str, str]) -> bool:
    """Add what these statements define; False when that cannot be told."""
    for one in body:
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if one.name == "__getattr__":
                return False
            names[one.name] = "function" if not isinstance(one, ast.ClassDef) else "something"
        elif isinstance(one, ast.Import | ast.ImportFrom):
            if any(alias.name == "*" for alias in one.names):
                return False
            names.update({alias.asname or alias.name.partition(".")[0]: "something" for alias in one.names})
        elif isinstance(one, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = one.targets if isinstance(one, ast.Assign) else [one.target]
            kind = "value" if isinstance(one.value, _PLAIN) else "something"
            for target in targets:
                names.update({name.id: kind for name in ast.walk(target) if isinstance(name, ast.Name)})
        elif isinstance(one, ast.Expr) and "globals" in ast.dump(one.value):
            return False
        else:
            for inner in _blocks(one):
                if not _collect(inner, names):
                    return False
    return True


def _blocks(one: ast.stmt) -> Iterator[list[ast.stmt]]:
    for key in ("body", "orelse", "finalbody"):
        if isinstance(inner := getattr(one, key, None), list):
            yield inner
    for handler in getattr(one, "handlers", ()):
        yield handler.body
    for case in getattr(one, "cases", ()):
        yield case.body


_SCRIPTS = (".py", ".sh", ".bash")
_WITH_VALUE = ("-W", "-X")


def script_of(cmd: str) -> str | None:
    """The file of the user's code that a shell line starts, when that is plain to see; else None."""
    try:
        words = shlex.split(cmd, comments=True)
    except ValueError:
        return None
    if "cd" in words or any(word in ("&&", "||", ";", "|", "&") for word in words[:1]):
        return None
    while words and "=" in words[0] and words[0].partition("=")[0].isidentifier():
        words = words[1:]
    if not words:
        return None
    program = words[0].rpartition("/")[2]
    if words[0].startswith("./") and words[0].endswith(_SCRIPTS):
        return _plain_path(words[0])
    if program.rstrip("0123456789.") != "python" and program not in ("bash", "sh"):
        return None
    rest = iter(words[1:])
    for word in rest:
        if word in _WITH_VALUE:
            next(rest, None)
        elif word in ("-c", "-m", "-"):
            return None
        elif not word.startswith("-"):
            return _plain_path(word) if word.endswith(_SCRIPTS) else None
    return None


def _plain_path(word: str) -> str | None:
    """A relative path without anything that the shell or a variable would change."""
    return None if word.startswith(("/", "~")) or any(one in word for one in "$`*?[{;&|<>") else word


def files_below(folder: Path, suffix: str) -> list[str]:
    """The files with this ending in a folder and in the folders in it, as paths from it."""
    found = [path.name for path in _entries(folder) if path.suffix == suffix]
    for inner in _entries(folder):
        if inner.is_dir() and not inner.name.startswith((".", "__")):
            found += [f"{inner.name}/{path.name}" for path in _entries(inner) if path.suffix == suffix]
    return found
