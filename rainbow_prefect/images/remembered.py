"""The recipes of files that did not change since they were checked, so that they need not be read again.

They are kept beside what the check found and hold exactly as long as that does: see `cache`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import cache
from .recipe import Recipe

_PATHS = ("folder", "pip_conf", "dockerfile")


def load(path: Path) -> list[Recipe] | None:
    """The recipes at `path`, whose check was found to hold; None when they are not known."""
    try:
        data = json.loads(_file(path).read_bytes())
        if data["check"] != _check(path):
            return None
        return [_recipe(one) for one in data["recipes"]]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def keep(path: Path, files: Iterable[Path], recipes: Sequence[Recipe]) -> None:
    """Remember the recipes of files that were just checked.

    Not when they hold arguments of a build, which may be nobody's business, or files that must stay out, whose places are
    looked up each time. A folder that cannot be written is no problem.
    """
    digests = cache.digests(files)
    if any(one.build_args or one.kept_out for one in recipes) or digests is None or cache.read(path, digests) is None:
        return
    with suppress(OSError, TypeError):
        text = json.dumps({"check": _check(path), "recipes": [_plain(one) for one in recipes]}, default=str)
        target = _file(path)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = target.with_suffix(f".{os.getpid()}")
        part.write_text(text)
        part.replace(target)


def _plain(one: Recipe) -> dict[str, Any]:
    return {key: value for key, value in asdict(one).items() if key != "kept_out"}


def _recipe(data: dict[str, Any]) -> Recipe:
    paths = {key: Path(data[key]) for key in _PATHS if data[key] is not None}
    return Recipe(**{**data, **paths, "build_cmd": tuple(data["build_cmd"]), "kept_out": frozenset()})


def _file(path: Path) -> Path:
    return cache.folder().parent / "recipes" / cache.entry_file(path).name


def _check(path: Path) -> str:
    """Which check it was."""
    return hashlib.sha256(cache.entry_file(path).read_bytes()).hexdigest()
