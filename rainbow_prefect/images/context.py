"""The files of a source that go into an image: what is left out, and a copy for the builder."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import RunError
from ..executors._folders import SKIPPED, copy_file

IGNORE = ".dockerignore"
_NEVER = SKIPPED | {".ipynb_checkpoints", ".hypothesis", ".eggs", ".DS_Store", IGNORE}
_MOST_NAMED = 200
"""So many lines of a `.dockerignore` are quicker than a copy: the builder tries each on every file."""


class File(NamedTuple):
    """One file of a context: `path` below it, `real` where it is read; `link` is the aim of a symbolic link."""

    path: str
    real: str
    executable: bool = False
    link: str = ""


def files_of(folder: Path, *, ignore: Path | None = None, kept_out: Collection[str] = ()) -> list[File]:
    """The files of a source in the order of their names; folders without any are left out.

    `.git`, virtual environments and caches are never among them, nor what `.dockerignore` names (or `ignore`, where
    that is the file), nor the real paths `kept_out`. A link that leads out of the source is what it leads to.

    Raises:
        RunError: the folder is missing or cannot be read.
    """
    ignore = ignore if ignore is not None else folder / IGNORE
    try:
        ignored = Ignored(ignore.read_text(encoding="utf-8").splitlines() if ignore.is_file() else ())
        found = list(_walk(str(folder), "", ignored, os.path.realpath(folder), ()))
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"the source {folder} cannot be read: {error}") from error
    if kept_out:
        found = [one for one in found if os.path.realpath(one.real) not in kept_out]
    return sorted(found, key=lambda one: one.path)


def _walk(folder: str, below: str, ignored: Ignored, root: str, inside: tuple[str, ...]) -> Iterator[File]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in _NEVER or entry.name.endswith((".pyc", ".pyo")):
                continue
            path = f"{below}{entry.name}"
            is_out = ignored.matches(path)
            if is_out and not ignored.has_exceptions:
                continue
            leads_out = entry.is_symlink() and not _is_below(os.path.realpath(entry.path), root)
            if entry.is_symlink() and not leads_out:
                if not is_out:
                    yield File(path, entry.path, link=_inner_link(entry.path, root))
            elif entry.is_dir():
                real = os.path.realpath(entry.path)
                if real not in inside and not Path(entry.path, "pyvenv.cfg").exists():
                    out = real if leads_out else root
                    yield from _walk(entry.path, f"{path}/", ignored, out, (*inside, real))
            elif entry.is_file() and not is_out:
                yield File(path, entry.path, executable=bool(entry.stat().st_mode & 0o100))


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root.rstrip('/')}/")


def _inner_link(path: str, root: str) -> str:
    """The aim of a link inside the source, relative: the image has the source elsewhere."""
    aim = Path(path).readlink()
    if not aim.is_absolute():
        return str(aim)
    return os.path.relpath(aim.resolve(), Path(path).parent.resolve())


def copy(files: Iterable[File], target: Path, made: Mapping[str, str]) -> None:
    """Copy the files into a folder, the same for every umask, and write those that are made for the image.

    Raises:
        RunError: the disk is full, or a file cannot be read.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        target.chmod(0o755)
        folders = {target}
        for one in files:
            to = target / one.path
            _make_folders(to.parent, folders)
            if one.link:
                to.symlink_to(one.link)
            else:
                copy_file(one.real, to)
                to.chmod(0o755 if one.executable else 0o644)
        for name, text in made.items():
            _make_folders((target / name).parent, folders)
            (target / name).write_text(text, encoding="utf-8")
            (target / name).chmod(0o644)
    except OSError as error:
        raise RunError(f"the files for the image cannot be copied: {error}") from error


def ignored_in(folder: Path, files: Collection[File]) -> str | None:
    """The `.dockerignore` with which the source itself is the context: it names all that is not among the files.

    None when a copy is needed: a link leads out of the source or must be another one, a file comes from elsewhere, or
    too much would have to be named.
    """
    wanted = {one.path: one for one in files}
    if any(one.real != f"{folder}/{one.path}" for one in files):
        return None
    parents = {parent for path in wanted for parent in _parents(path)}
    lines: list[str] = []
    try:
        if not _name_others(str(folder), "", wanted, parents, lines):
            return None
    except OSError:
        return None
    return "".join(f"{line}\n" for line in lines)


def _parents(path: str) -> Iterator[str]:
    end = path.rfind("/")
    while end > 0:
        yield path[:end]
        end = path.rfind("/", 0, end)


def _name_others(
    folder: str, below: str, wanted: Mapping[str, File], parents: Collection[str], lines: list[str]
) -> bool:
    """Add a line for each entry that is not wanted; False when this source cannot be the context."""
    with os.scandir(folder) as entries:
        for entry in entries:
            path = f"{below}{entry.name}"
            if path in parents:
                if entry.is_symlink() or not _name_others(entry.path, f"{path}/", wanted, parents, lines):
                    return False
            elif path not in wanted:
                if not path.isprintable() or path != path.strip() or len(lines) >= _MOST_NAMED:
                    return False
                lines.append("/" + re.sub(r"([\\*?\[\]])", r"\\\1", path))
            elif entry.is_symlink() and str(Path(entry.path).readlink()) != wanted[path].link:
                return False
    return True


def _make_folders(folder: Path, made: set[Path]) -> None:
    if folder not in made:
        _make_folders(folder.parent, made)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        made.add(folder)


class Ignored:
    """The patterns of a `.dockerignore`: the last one that matches a path, or a folder above it, counts.

    Source: moby/patternmatcher, and "dockerignore file" of the Dockerfile reference.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._patterns = [made for line in lines if (made := _pattern(line)) is not None]
        self.has_exceptions = any(is_exception for _, is_exception in self._patterns)

    def matches(self, path: str) -> bool:
        """Whether this path stays out of the context."""
        out = False
        for pattern, is_exception in self._patterns:
            if out == is_exception and pattern.fullmatch(path):
                out = not is_exception
        return out


def _pattern(line: str) -> tuple[re.Pattern[str], bool] | None:
    text = line.lstrip("\ufeff").strip()
    if not text or line.startswith("#"):
        return None
    is_exception = text.startswith("!")
    text = posixpath.normpath(text[1:].strip() if is_exception else text).lstrip("/")
    if text in ("", "."):
        return None
    try:
        return re.compile(_regex(text) + r"(?:/.*)?", re.DOTALL), is_exception
    except re.error as error:
        raise RunError(f"the line '{line.strip()}' of {IGNORE} is no pattern: {error.msg}; correct it") from None


def _regex(text: str) -> str:
    """The pattern as a regular expression; `**` is any number of folders, `*` and `?` stop at a slash."""
    made, index = "", 0
    while index < len(text):
        rest = text[index:]
        if rest.startswith("**/"):
            made, index = f"{made}(?:.*/)?", index + 3
        elif rest.startswith("**"):
            made, index = f"{made}.*", index + 2
        elif rest[0] == "*":
            made, index = f"{made}[^/]*", index + 1
        elif rest[0] == "?":
            made, index = f"{made}[^/]", index + 1
        elif (found := re.match(r"\[(\^?)((?:\\.|[^\]\\])+)\]", rest)) is not None:
            inner = re.sub(r"\\(.)|([\[&~|])", lambda one: "\\" + (one[1] or one[2]), found[2])
            made, index = f"{made}[{found[1]}{inner}]", index + found.end()
        elif rest[0] == "\\" and len(rest) > 1:
            made, index = f"{made}{re.escape(rest[1])}", index + 2
        else:
            made, index = f"{made}{re.escape(rest[0])}", index + 1
    return made
