"""Events of a run on their way to observers: a thread of its own, so that no observer slows or fails a run."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from contextvars import copy_context

from ..observers.base import Observer
from ..run import Event, Metric

logger = logging.getLogger(__name__)

_LOGS_WAITING = 20_000
"""Lines that wait for slow observers; more of them are left out."""

_LAST_SECONDS = 20.0
"""How long the end of a run waits for observers."""


class Events:
    """Gives each event to each observer, in order, from one thread."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self.observers = tuple(observers)
        self.wants_logs = any(one.wants_logs for one in self.observers)
        self._waiting: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._failed: dict[int, str] = {}
        self._late: list[str] = []
        self._thread = threading.Thread(target=copy_context().run, args=(self._loop,), name="events", daemon=True)
        if self.observers:
            self._thread.start()

    def send(self, event: Event) -> None:
        """Tell all observers, soon; never waits."""
        if self.observers and (event.kind != "log" or self._waiting.qsize() < _LOGS_WAITING):
            self._waiting.put(event)

    def close(self) -> None:
        """Wait until all events are told, but not for an observer that hangs."""
        if not self.observers:
            return
        self._waiting.put(None)
        self._thread.join(_LAST_SECONDS)
        if self._thread.is_alive():
            self._late.append(f"observers were not done {_LAST_SECONDS:g} s after the end of the run")

    def metrics(self) -> list[Metric]:
        """The metrics that observers have sent."""
        return [metric for one in self.observers for metric in one.sent()]

    def warnings(self) -> list[str]:
        """What the person who started the run should know, each text once."""
        told = [*self._late, *self._failed.values()]
        told += [text for one in self.observers for text in one.warnings()]
        return list(dict.fromkeys(told))

    def _loop(self) -> None:
        while (event := self._waiting.get()) is not None:
            for observer in self.observers:
                if event.kind == "log" and not observer.wants_logs:
                    continue
                try:
                    observer.on_event(event)
                except Exception as error:  # an observer never fails a run
                    self._failed.setdefault(
                        id(observer), f"observer '{observer.type}' failed: {type(error).__name__}: {error}"
                    )
                    logger.debug("observer %s failed", observer.type, exc_info=True)
