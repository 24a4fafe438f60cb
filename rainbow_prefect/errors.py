"""The errors and problems of rainbow-prefect; imports nothing of the project.

RainbowError
├── ConfigError      the file is wrong: carries every Problem, exit status 2
├── CallError        the call is wrong (unknown pipeline, missing parameter): exit status 2
├── MissingExtra     an optional dependency is not installed: exit status 2
└── RunError         the world said no while it ran: exit status 1
    ├── TaskFailed   user code ended with a failure; has `exit_code` and the last lines
    ├── TimedOut     a deadline passed
    └── Cancelled    somebody stopped the run
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

Severity = Literal["error", "warning"]


class Mark(NamedTuple):
    """A place in a file: line and column count from 1."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong (or odd, as a warning) at one place.

    `path` is the place in the data (`pipelines[0].tasks[2].type`), `where` the place in words
    (`pipeline 'sales', task 'load'`), `hint` how to fix it.
    """

    mark: Mark
    path: str
    message: str
    hint: str = ""
    where: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        warning = "warning: " if self.severity == "warning" else ""
        where = f"{self.where}: " if self.where else ""
        hint = f"; {self.hint}" if self.hint else ""
        return one_line(f"{self.mark}: {warning}{where}{self.message}{hint}")

    def as_dict(self) -> dict[str, Any]:
        """The JSON that `rainbow check --json` prints for it."""
        message = f"{self.where}: {self.message}" if self.where else self.message
        return {
            "severity": self.severity,
            "file": self.mark.file,
            "line": self.mark.line,
            "column": self.mark.column,
            "path": self.path,
            "message": message,
            "hint": self.hint,
        }


def one_line(text: str) -> str:
    """A text as a terminal may be given it: what breaks the line, moves the cursor or turns the text is escaped."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class RainbowError(Exception):
    """Everything that rainbow-prefect raises on purpose; `exit_code` is the command's exit status."""

    exit_code = 1


class ConfigError(RainbowError):
    """One or more files are wrong; `problems` holds all of them, in file and line order."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, problems)))


class CallError(RainbowError):
    """The command or the call is wrong, not the file."""

    exit_code = 2


class MissingExtra(CallError):
    """An optional dependency is needed and not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}'; install it: pip install 'rainbow-prefect[{extra}]'")


class RunError(RainbowError):
    """Something failed while it ran."""


class TaskFailed(RunError):
    """A slice of a task failed; `tail` holds the last lines it printed, `status` the exit status of its process."""

    def __init__(self, message: str, *, status: int | None = None, tail: Iterable[str] = ()) -> None:
        self.message = message
        self.status = status
        self.tail = tuple(tail)
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return _failed, (type(self), self.message, self.status, self.tail)


class TimedOut(TaskFailed):
    """A slice, a task or a pipeline ran longer than its `timeout_minutes`."""


class Cancelled(TaskFailed):
    """The run was cancelled; what was under way was stopped."""


def _failed(kind: type[TaskFailed], message: str, status: int | None, tail: tuple[str, ...]) -> TaskFailed:
    return kind(message, status=status, tail=tail)


def near(name: str, known: Iterable[str], *, list_up_to: int = 12) -> str:
    """The hint for an unknown name: `did you mean 'x'?`, else the known names when they are few, else ''."""
    names = tuple(sorted({str(one) for one in known}))
    found = _nearest(str(name), names)
    if found is not None:
        return f"did you mean '{found}'?"
    if names and len(names) <= list_up_to:
        return f"known: {', '.join(names)}"
    return ""


@lru_cache(maxsize=1024)
def _nearest(name: str, names: tuple[str, ...]) -> str | None:
    from difflib import get_close_matches

    found = get_close_matches(name, names, n=1, cutoff=0.6)
    if found:
        return found[0]
    lower = {one.lower(): one for one in names}
    found = get_close_matches(name.lower(), list(lower), n=1, cutoff=0.6)
    return lower[found[0]] if found else None
