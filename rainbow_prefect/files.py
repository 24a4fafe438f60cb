"""Where config files are; nothing is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .errors import CallError

NAMES = frozenset({"rainbow.yml", "rainbow.yaml", "liminal.yml", "liminal.yaml"})
"""The files that a search finds."""

SKIPPED = frozenset({".git", ".venv", "venv", "node_modules", "__pycache__"})
"""The folders that a search never enters."""


def find(path: Path) -> list[Path]:
    """The config files at or below `path`, sorted; a file gives itself.

    Raises:
        CallError: there is nothing at `path`.
    """
    path = Path(path)
    if os.path.isdir(path):  # noqa: PTH112  Path raises for a name that is too long, or one that may not be looked at
        return sorted(_walk(path))
    if os.path.exists(path):  # noqa: PTH110
        return [path]
    raise CallError(f"'{path}' does not exist")


def _walk(top: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(top):
        folders[:] = [name for name in folders if name not in SKIPPED]
        for name in NAMES.intersection(files):
            yield Path(folder, name)
