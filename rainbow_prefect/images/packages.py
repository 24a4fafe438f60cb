"""Which packages go into an image: from `requirements.txt`, or from `pyproject.toml` and the lock beside it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import RunError

REQUIREMENTS = "requirements.txt"
CONSTRAINTS = "rainbow-constraints.txt"
PYPROJECT = "pyproject.toml"
LOCKS = ("uv.lock", "poetry.lock", "pdm.lock", "pylock.toml")

_REFERENCE = re.compile(r"\s*(?:-r|--requirement|-c|--constraint)[ =]?\s*(?:\"([^\"]+)\"|'([^']+)'|(\S+))")
_LOCAL = re.compile(
    r"\s*(?:(?:-e|--editable)[ =]?\s*)?((?:\.{1,2}(?:/[^\s;\[]*)?|[^\s;#@\[]*/[^\s;#@\[]*))(?:\[[^\]]*\])?\s*(?:[;#].*)?$"
)
_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(\[[^\]]*\])?")


@dataclass(frozen=True)
class Packages:
    """What pip is given: `copied` must be in the image before it runs, `made` are files that the source lacks.

    `with_code`: pip needs all of the code, for a requirements file names a part of it. `is_project`: the code itself is
    a package, which is installed when it is in the image.
    """

    file: str = REQUIREMENTS
    copied: tuple[str, ...] = (REQUIREMENTS,)
    made: Mapping[str, str] = field(default_factory=dict)
    is_empty: bool = True
    with_code: bool = False
    is_project: bool = False


def packages_of(folder: Path, written: str | None) -> Packages:
    """The packages of the code in `folder`; `written` is the requirements file that the config names.

    Raises:
        RunError: a file cannot be read, or is no TOML.
    """
    name = written or REQUIREMENTS
    try:
        if (folder / name).is_file():
            return _of_requirements(folder, name)
        if written is not None:
            raise RunError(f"there is no requirements file '{written}' in {folder}; correct `requirements`")
        if (folder / PYPROJECT).is_file():
            return _of_pyproject(folder)
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"the packages of {folder} cannot be read: {error}") from error
    return Packages(made={REQUIREMENTS: ""})


def _of_requirements(folder: Path, name: str) -> Packages:
    files: dict[str, None] = {}
    with_code = False
    is_empty = True
    for file, line in _lines(folder, name, files):
        bare = line.split("#")[0].strip()
        is_empty = is_empty and not bare
        found = _LOCAL.match(line)
        if found and not _REFERENCE.match(line) and (file.parent / found[1]).exists():
            with_code = True
    return Packages(file=name, copied=tuple(files), is_empty=is_empty, with_code=with_code)


def _lines(folder: Path, name: str, files: dict[str, None], inside: tuple[str, ...] = ()) -> Iterator[tuple[Path, str]]:
    """Every line of a requirements file and of those that it names, which are added to `files`."""
    path = folder / name
    relative = _below(folder, path)
    if relative is not None and relative in inside:
        circle = " -> ".join([*inside[inside.index(relative) :], relative])
        raise RunError(f"the requirements files name each other in a circle: {circle}; remove one of these lines")
    if relative is None or relative in files or not path.is_file():
        return
    files[relative] = None
    for line in _text(path).splitlines():
        yield path, line
        if found := _REFERENCE.match(line):
            written = found[1] or found[2] or found[3]
            named = _below(folder, path.parent / written)
            if named is not None:
                yield from _lines(folder, named, files, (*inside, relative))
            elif (path.parent / written).is_file() and not written.startswith("/"):  # that may be one of the base image
                raise RunError(
                    f"{path} names '{written}', which is not in the source {folder}; copy it into that folder"
                )


def _text(path: Path) -> str:
    """A requirements file as pip reads it: UTF-8, or what a mark at its begin says, as PowerShell's `>` writes it."""
    data = path.read_bytes()
    return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")


def _below(folder: Path, path: Path) -> str | None:
    try:
        return path.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return None


def _of_pyproject(folder: Path) -> Packages:
    data = _toml(folder / PYPROJECT)
    project = _table(data, "project")
    tool = _table(data, "tool")
    wanted = _of_uv(_texts(project, "dependencies"), _table(_table(tool, "uv"), "sources"))
    if not project:
        poetry = _table(_table(tool, "poetry"), "dependencies")
        wanted = [_of_poetry(name, value) for name, value in poetry.items() if name != "python"]
    is_computed = "dependencies" in _texts(project, "dynamic")  # by the build system, so pip must ask it
    if is_computed:
        wanted = ["."]
    locked = sorted(_locked(folder))
    made = {REQUIREMENTS: "".join(f"{one}\n" for one in [*([f"-c {CONSTRAINTS}"] if locked else []), *wanted])}
    if locked:
        made[CONSTRAINTS] = "".join(f"{one}\n" for one in locked)
    return Packages(
        copied=tuple(made),
        made=made,
        is_empty=not wanted,
        with_code=is_computed,
        is_project="build-system" in data and bool(project) and not is_computed,
    )


def _table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = data.get(key, {})
    if not isinstance(found, Mapping):
        raise RunError(f"{PYPROJECT}: `{key}` is not a table; correct it, or write a {REQUIREMENTS} beside it")
    return found


def _texts(data: Mapping[str, Any], key: str) -> list[str]:
    found = data.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise RunError(f"{PYPROJECT}: `{key}` is not a list of texts; correct it, or write a {REQUIREMENTS} beside it")
    return found


def _of_poetry(name: str, value: Any) -> str:
    """One of Poetry's own dependencies as a requirement: `^1.2` is at least 1.2 and below 2."""
    extras = ""
    if isinstance(value, Mapping):
        if isinstance(value.get("extras", []), list):
            extras = f"[{','.join(map(str, value['extras']))}]" if value.get("extras") else ""
        place = _place_of(value)
        if place:
            return f"{name}{extras} @ {place}"
        value = None if "path" in value or "file" in value else value.get("version", "*")
    ranges = [_range(one) for one in value.split(",")] if isinstance(value, str) else [None]
    if None in ranges:
        raise RunError(f"{PYPROJECT}: the dependency '{name}' cannot be read; write a {REQUIREMENTS} beside it")
    return f"{name}{extras}{','.join(map(str, ranges))}"


def _of_uv(wanted: list[str], sources: Mapping[str, Any]) -> list[str]:
    """The requirements, those that uv fetches from elsewhere with their place.

    Source: "Dependency sources" of uv's documentation.
    """
    places = {_normal(name): source for name, source in sources.items()}
    found = []
    for one in wanted:
        name = _NAME.match(one)
        source = places.get(_normal(name[1])) if name else None
        if name is None or source is None:
            found.append(one)
            continue
        place = _place_of(source) if isinstance(source, Mapping) and "marker" not in source else ""
        if not place:
            raise RunError(
                f"{PYPROJECT}: pip cannot fetch '{name[1]}' from where `tool.uv.sources` says; "
                f"write a {REQUIREMENTS} beside it"
            )
        _, semicolon, marker = one.partition(";")
        found.append(f"{name[1]}{name[2] or ''} @ {place}{' ; ' if semicolon else ''}{marker.strip()}")
    return found


def _normal(name: str) -> str:
    """A name of a package as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _place_of(value: Mapping[str, Any]) -> str:
    """Where a dependency that no index has is fetched from."""
    if "git" not in value:
        return str(value.get("url", ""))
    version = next((f"@{value[key]}" for key in ("rev", "tag", "branch") if key in value), "")
    below = f"#subdirectory={value['subdirectory']}" if "subdirectory" in value else ""
    return f"git+{value['git']}{version}{below}"


def _range(text: str) -> str | None:
    """One range of Poetry as pip has it; None: pip has no such thing."""
    text = text.strip()
    if text in ("", "*"):
        return ""
    if "|" in text or not any(one.isdigit() for one in text):
        return None
    if not text.startswith(("^", "~")) or text.startswith("~="):
        return text if text[0] in "<>=!~" else f"=={text}"
    numbers = [int(one) for one in re.findall(r"\d+", text)]
    kept = 1 if text[0] == "~" and len(numbers) > 1 else 0
    if text[0] == "^":
        kept = next((index for index, one in enumerate(numbers) if one), len(numbers) - 1)
    upper = [*numbers[:kept], numbers[kept] + 1]
    return f">={'.'.join(map(str, numbers))},<{'.'.join(map(str, upper))}"


def _locked(folder: Path) -> Iterator[str]:
    """The versions of the lock beside the project; a package that it has in several versions is left to pip."""
    lock = next((folder / name for name in LOCKS if (folder / name).is_file()), None)
    if lock is None:
        return
    data = _toml(lock)
    versions: dict[str, set[str]] = {}
    for one in _packages_in(data, lock):
        source = one.get("source")
        is_own = isinstance(source, Mapping) and any(key in source for key in ("virtual", "editable", "directory"))
        if not is_own and "version" in one:
            versions.setdefault(one["name"], set()).add(str(one["version"]))
    for name, found in versions.items():
        if len(found) == 1:
            yield f"{name}=={next(iter(found))}"


def _packages_in(data: Mapping[str, Any], lock: Path) -> list[Mapping[str, Any]]:
    found = data.get("package") or data.get("packages") or []
    if isinstance(found, list) and all(isinstance(one, Mapping) and isinstance(one.get("name"), str) for one in found):
        return found
    raise RunError(f"{lock} is not a lock: a package in it has no name; make it anew, or remove it")


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"{path} is no TOML: {error}") from error
