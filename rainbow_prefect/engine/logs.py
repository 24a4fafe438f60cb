"""Lines that slices print, on their way to the Prefect logs: line by line, together only when they come in masses."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from contextvars import copy_context

from prefect.logging.handlers import APILogHandler

_NAME = "prefect.task_runs"
_TICK_SECONDS = 0.1
_SINGLE_LINES = 100
"""So many lines of a tick are records of their own; more are told a hundred at a time, as are those right after many.

A server takes some hundred records a second, and a process ends when it has taken all.
"""

_TOGETHER = 100
_LINE_CHARACTERS = 200_000
"""Prefect drops a record of more than 1 MB; a longer line is cut."""

_WAITING_LINES = 50_000
"""Whoever prints more than this ahead of the pump waits for it."""

Line = tuple["Slice", float, str]


class Slice:
    """What a record needs to know about the task run that printed it."""

    __slots__ = ("extra",)

    def __init__(self, **extra: str) -> None:
        self.extra = extra


class Logs:
    """Collects lines of all slices of a run and hands them to the Prefect logs from one thread."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque()
        self._wake = threading.Event()
        self._room = threading.Event()
        self._room.set()
        self._sending = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._was_much = False
        self._logger = logging.getLogger(_NAME)
        self._api = APILogHandler()
        self._start = threading.Lock()
        self._context = copy_context()  # the settings of Prefect are in it

    def write(self, source: Slice, line: str) -> None:
        """Take one line; waits when far too many are on their way."""
        if len(line) > _LINE_CHARACTERS:
            line = f"{line[:_LINE_CHARACTERS]} ... ({len(line) - _LINE_CHARACTERS} more characters)"
        if len(self._lines) >= _WAITING_LINES:
            self._room.clear()
            self._room.wait(5)
        self._lines.append((source, time.time(), line))
        if self._thread is None:
            self._begin()
        self._wake.set()

    def flush(self) -> None:
        """Hand on all that was written until now."""
        with self._sending:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            self._room.set()
            by_source: dict[Slice, list[Line]] = {}
            for one in lines:
                by_source.setdefault(one[0], []).append(one)
            singles = 0 if self._was_much else _SINGLE_LINES
            self._was_much = len(lines) > _SINGLE_LINES
            for source, group in by_source.items():
                self._send(source, group, singles)
                singles = max(0, singles - len(group))

    def close(self) -> None:
        self._closed = True
        self._wake.set()
        self.flush()

    def _begin(self) -> None:
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(target=self._context.run, args=(self._loop,), name="logs", daemon=True)
                self._thread.start()

    def _loop(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._wake.clear()
            self.flush()
            time.sleep(_TICK_SECONDS)

    def _send(self, source: Slice, lines: list[Line], singles: int) -> None:
        for _, when, line in lines[:singles]:
            self._emit(source, when, line)
        rest = lines[singles:]
        for first in range(0, len(rest), _TOGETHER):
            group = rest[first : first + _TOGETHER]
            while group:  # a record has its limit in characters, too
                size, count = 0, 0
                while count < len(group) and (count == 0 or size + len(group[count][2]) <= _LINE_CHARACTERS):
                    size += len(group[count][2])
                    count += 1
                self._emit(source, group[0][1], "\n".join(line for _, _, line in group[:count]))
                group = group[count:]

    def _emit(self, source: Slice, when: float, text: str) -> None:
        record = logging.LogRecord(_NAME, logging.INFO, "", 0, text, (), None)
        record.created = when
        record.msecs = (when % 1) * 1000
        record.__dict__.update(source.extra)
        if self._logger.isEnabledFor(logging.INFO):
            self._logger.handle(record)
        else:
            self._api.handle(record)


class _Quiet(logging.Filter):
    """Leaves out what says nothing: the end of each of very many slices, and empty tracebacks.

    Prefect logs the failure of a task with the exception of the moment; there is none when a state says it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info is not None and record.exc_info[0] is None:
            record.exc_info = None
        if record.levelno != logging.INFO or not record.getMessage().startswith("Finished in state Completed"):
            return True
        found = _SLICE.search(str(getattr(record, "task_run_name", "")))
        return found is None or int(found[1]) < _SINGLE_LINES


_SLICE = re.compile(r"\[(\d+)\]$")
logging.getLogger(_NAME).addFilter(_Quiet())
