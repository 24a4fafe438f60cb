"""The base class of observers: no-op hooks on the events of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, PrivateAttr

from ..registry import observers
from ..schema import Config

if TYPE_CHECKING:
    from ..run import Event, Metric


class Observer(Config):
    """Is told what happens in a run; a subclass has a `type`, its fields, and the hooks it wants.

    Hooks are called one at a time, in the order of the events, from one thread of their own: a slow observer never
    slows a run, one that raises is told about once as a warning and never fails the run.

    `log` events, one for each line that user code prints, come only to a class that says `wants_logs = True`.

        class Ntfy(Observer):
            type: Literal["ntfy"] = "ntfy"
            topic: str

            def on_run_finished(self, event: Event) -> None:
                httpx.post(f"https://ntfy.sh/{self.topic}", content=f"{event.pipeline}: {event.state}")
    """

    wants_logs: ClassVar[bool] = False
    type: str = Field(description="The type of the observer.")

    def on_event(self, event: Event) -> None:
        """Every event passes here first; the default calls the hook of its kind."""
        getattr(self, f"on_{event.kind}")(event)

    def on_run_started(self, event: Event) -> None: ...
    def on_run_finished(self, event: Event) -> None: ...
    def on_task_started(self, event: Event) -> None: ...
    def on_task_finished(self, event: Event) -> None: ...
    def on_slice_started(self, event: Event) -> None: ...
    def on_slice_finished(self, event: Event) -> None: ...
    def on_progress(self, event: Event) -> None:
        """How far a slice that moves rows has come, about twice a second."""

    def on_log(self, event: Event) -> None:
        """A line of user code; needs `wants_logs = True`."""

    def sent(self) -> Sequence[Metric]:
        """The metrics that it sent in this run, for the report."""
        return ()

    def warnings(self) -> Sequence[str]:
        """What the person who started the run should know, once (e.g. 'metrics were not sent: no credentials')."""
        return ()


class RecordingObserver(Observer):
    """Remembers every event in `events`; for tests."""

    type: str = "recording"
    wants_logs: ClassVar[bool] = True
    _events: list[Event] = PrivateAttr(default_factory=list)

    @property
    def events(self) -> list[Event]:
        return self._events

    def on_event(self, event: Event) -> None:
        self._events.append(event)


AnyObserver = Annotated[Observer, observers]
