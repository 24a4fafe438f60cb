"""What a check sees of the file system: each look is remembered, so that a later check knows whether all is as it was."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

Seen = tuple[int, int, int] | None
"""Kind and mode, size and time of change of a path; None when there is nothing."""


def seen(path: str) -> Seen:
    """How a path is now; of a folder only that it is one and what is in it counts."""
    try:
        found = os.stat(path)  # noqa: PTH116  a third of the time of Path.stat
    except (OSError, ValueError):
        return None
    return found.st_mode, 0 if stat.S_ISDIR(found.st_mode) else found.st_size, found.st_mtime_ns


class Look:
    """Looks at files and folders, each once; `looks` holds what was seen, `is_partial`: not all that counts."""

    def __init__(self) -> None:
        self.looks: dict[str, Seen] = {}
        self.is_partial = False
        self._known: dict[object, Any] = {}

    def once(self, key: object, make: Callable[[], T]) -> T:
        """What `make` gives; it is made the first time only."""
        if key not in self._known:
            self._known[key] = make()
        found: T = self._known[key]
        return found

    def _seen(self, path: str | Path) -> Seen:
        text = os.fspath(path)
        if text not in self.looks:
            self.looks[text] = seen(text)
        return self.looks[text]

    def is_folder(self, path: str | Path) -> bool:
        found = self._seen(path)
        return found is not None and stat.S_ISDIR(found[0])

    def is_file(self, path: str | Path) -> bool:
        found = self._seen(path)
        return found is not None and stat.S_ISREG(found[0])

    def exists(self, path: str | Path) -> bool:
        return self._seen(path) is not None

    def names(self, folder: str | Path) -> list[str]:
        """The names in a folder, sorted; none when it is no folder that can be read."""
        if not self.is_folder(folder):
            return []
        try:
            return sorted(one.name for one in Path(folder).iterdir())
        except OSError:
            return []

    def text(self, path: str | Path) -> bytes | None:
        """The bytes of a file; None when it cannot be read."""
        if not self.is_file(path):
            return None
        try:
            return Path(path).read_bytes()
        except OSError:
            return None
