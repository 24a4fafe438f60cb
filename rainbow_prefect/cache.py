"""What an earlier check of the same files found, kept in the user's cache folder; a wrong or old entry is no entry.

An entry holds for the same bytes of all files, the same environment values, the same state of every file and folder
that a proof looked at, the same installed packages and the same version of this one. Nothing secret is in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .errors import Mark, Problem
from .looking import Seen, seen

MOST_ENTRIES = 200
"""How many checked folders are remembered; the oldest is forgotten first."""


class Entry(NamedTuple):
    """What a check found."""

    problems: list[Problem]
    app_names: list[str]
    pipeline_names: list[str]
    service_names: list[str]


def folder() -> Path:
    """Where entries are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "rainbow" / "check"


def digests(files: Iterable[Path]) -> dict[str, str] | None:
    """The digest of the bytes of each file; None when one is no regular file that can be read."""
    found = {}
    for file in files:
        try:
            if not stat.S_ISREG(file.stat().st_mode):
                return None
            found[str(file.absolute())] = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError:
            return None
    return found


def entry_file(path: Path) -> Path:
    """The file in which the entry of a path is kept."""
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]
    return folder() / f"{name}.json"


def installed() -> list[Any]:
    """What changes when this package, another one or Python does."""
    package = Path(__file__).parent
    own = [[file, *(seen(file) or ())] for file in sorted(_modules(str(package)))]
    others = [[entry, seen(entry)] for entry in sys.path]
    return json.loads(json.dumps([sys.version, own, others]))  # type: ignore[no-any-return]


def _modules(folder: str) -> Iterator[str]:
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (f"{here}/{name}" for name in names if name.endswith(".py"))


def _environment_digest(names: Sequence[str]) -> str:
    """One digest for all values, so that none of them can be guessed from it."""
    values = json.dumps([[name, os.environ.get(name)] for name in names])
    return hashlib.sha256(values.encode(errors="surrogateescape")).hexdigest()


def read(path: Path, files: Mapping[str, str]) -> Entry | None:
    """What was found the last time, when nothing has changed since."""
    try:
        data = json.loads(entry_file(path).read_bytes())
        if data["files"] != files or data["installed"] != installed():
            return None
        if data["environment"] != _environment_digest(data["names"]):
            return None
        if any(seen(one) != (None if was is None else tuple(was)) for one, was in data["looks"].items()):
            return None
        problems = [Problem(Mark(*mark), *rest) for mark, *rest in data["problems"]]
        return Entry(problems, *(list(map(str, data[key])) for key in ("apps", "pipelines", "services")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def write(
    path: Path, files: Mapping[str, str], entry: Entry, *, names: Iterable[str], looks: Mapping[str, Seen]
) -> None:
    """Keep what was found; a folder that cannot be written is no problem."""
    used = sorted(names)
    data = {
        "files": dict(files),
        "installed": installed(),
        "names": used,
        "environment": _environment_digest(used),
        "looks": dict(looks),
        "problems": [
            [[one.mark.file, one.mark.line, one.mark.column], one.path, one.message, one.hint, one.where, one.severity]
            for one in entry.problems
        ],
        "apps": entry.app_names,
        "pipelines": entry.pipeline_names,
        "services": entry.service_names,
    }
    with contextlib.suppress(OSError, ValueError):
        target = entry_file(path)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _forget_oldest(target.parent)
        new = target.with_name(f".new-{os.getpid()}-{threading.get_ident()}")
        try:
            new.touch(mode=0o600)
            new.write_text(json.dumps(data))
            new.replace(target)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


def _forget_oldest(entries: Path) -> None:
    kept = [one for one in entries.iterdir() if one.suffix == ".json"]
    if len(kept) < MOST_ENTRIES:
        return
    for one in sorted(kept, key=lambda one: one.stat().st_mtime)[: len(kept) - MOST_ENTRIES + 1]:
        one.unlink(missing_ok=True)
