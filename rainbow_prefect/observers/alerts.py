"""Alerts: what is told to people when a run fails, hangs or recovers, and once only; the channels are in `channels`."""

from __future__ import annotations

import json
import threading
import time as clock
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from ..registry import alerts
from ..schema import Minutes, Name, Seconds, wrong
from .base import Observer

if TYPE_CHECKING:
    from logging import Logger

    from ..run import Event

Occasion = Literal["failure", "timeout", "crash", "late_start", "long_run", "recovery", "success"]

BAD: Mapping[str, Occasion] = {"failed": "failure", "timed_out": "timeout", "crashed": "crash"}
"""What the end of a run is an occasion for; one that was cancelled is none."""

LINES = 10
"""How many of the last lines of the task that failed a message has."""

_WORDS = {
    "failure": "failed",
    "timeout": "timed out",
    "crash": "crashed",
    "late_start": "started late",
    "long_run": "runs long",
    "recovery": "completes again",
    "success": "completed",
    "test": "sends a test alert",
}


class Message(NamedTuple):
    """What an alert says; no secret is in it.

    `cause` is why, `lines` are the last lines of the task that failed; `link` ('' without one) is the run in the Prefect
    UI, `retry` the command that runs again what did not complete. `key` is the same for all messages of one trouble.
    """

    occasion: str
    app: str
    pipeline: str
    task: str | None
    run_id: str
    time: float
    key: str
    cause: str = ""
    lines: tuple[str, ...] = ()
    link: str = ""
    retry: str = ""
    seconds: float = 0.0
    failures: int = 0

    @property
    def title(self) -> str:
        """One line: `sales failed`, `sales.load timed out`."""
        name = self.pipeline if self.task is None else f"{self.pipeline}.{self.task}"
        return f"{name} {_WORDS.get(self.occasion, self.occasion)}"

    @property
    def text(self) -> str:
        """The message as a person reads it; the title is not in it."""
        told = [self.cause]
        if self.lines:
            told += ["", "the last lines:", *(f"    {line}" for line in self.lines)]
        if self.failures > 1:
            told += ["", f"{self.failures} runs failed since it began"]
        facts = {"run": self.link or self.run_id, "retry": self.retry, "app": self.app}
        told += ["", *(f"{name:<6} {value}" for name, value in facts.items() if value)]
        return "\n".join(told).strip("\n")

    def as_dict(self) -> dict[str, Any]:
        """The JSON that a webhook is sent."""
        return {
            "occasion": self.occasion,
            "title": self.title,
            "text": self.text,
            "app": self.app,
            "pipeline": self.pipeline,
            "task": self.task,
            "flow_run_id": self.run_id,
            "time": datetime.fromtimestamp(self.time, UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "seconds": round(self.seconds, 3),
            "cause": self.cause,
            "last_lines": list(self.lines),
            "link": self.link,
            "retry": self.retry,
            "failures": self.failures,
            "key": self.key,
        }


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Alert(Observer):
    """Tells people of a run: a subclass has a `type`, its fields, and `send`.

    Entered as `ntfy = "my_package:Ntfy"` in the entry points `rainbow_prefect.alerts`, it is an entry of `alerts`:

        class Ntfy(Alert):
            type: Literal["ntfy"] = "ntfy"
            topic: str

            def send(self, message: Message) -> None:
                httpx.post(f"https://ntfy.sh/{self.topic}", content=f"{message.title}: {message.cause}")

    What `send` raises becomes one warning of the run, which goes on, and the next failure is told again.
    """

    alert: Name | None = Field(default=None, description="A name, by which a super's entry is merged with this one.")
    on: Annotated[tuple[Occasion, ...], BeforeValidator(_listed)] = Field(
        default=("failure", "timeout", "crash", "recovery"),
        min_length=1,
        description="What it tells; `late_start` is of deployed pipelines only.",
    )
    long_run_minutes: Minutes | None = Field(
        default=None, description="Minutes after which a run or a task that goes on is told; needs `on: [long_run]`."
    )
    late_minutes: Minutes = Field(
        default=5.0, description="Minutes after its time from which on a run that starts is told as late."
    )
    dedupe_minutes: Seconds = Field(
        default=1440.0,
        description="Minutes in which a trouble that goes on is told once only; 0: each failure is told.",
    )
    _task: str | None = PrivateAttr(default=None)
    _identity: str = PrivateAttr(default="")
    _late: set[str] = PrivateAttr(default_factory=set)
    _lines: dict[str, tuple[str, ...]] = PrivateAttr(default_factory=dict)
    _timer: threading.Timer | None = PrivateAttr(default=None)
    _warnings: list[str] = PrivateAttr(default_factory=list)

    @model_validator(mode="after")
    def _long_run_has_minutes(self) -> Alert:
        if "long_run" in self.on and self.long_run_minutes is None:
            raise wrong("`long_run` needs `long_run_minutes`", hint="add `long_run_minutes: 60`", at="on")
        if self.long_run_minutes is not None and "long_run" not in self.on:
            raise wrong("`long_run_minutes` is for `on: [long_run]`", hint="add `long_run`", at="long_run_minutes")
        return self

    def send(self, message: Message) -> None:
        """Send one message; raises when it was not taken."""
        raise TypeError(f"alert type '{self.type}' does not implement send()")

    def told_as(self, identity: str, task: str | None = None) -> Alert:
        """The same for one run: `identity` tells it from the other alerts of its pipeline, `task` is the only one it is of."""
        made = self.model_copy()
        made.__pydantic_private__ = {
            **(made.__pydantic_private__ or {}),
            "_task": task,
            "_identity": identity,
            "_late": set(),
            "_lines": {},
            "_warnings": [],
        }
        return made

    @property
    def name(self) -> str:
        """What people call it."""
        return self.alert or self.type

    def warnings(self) -> Sequence[str]:
        return tuple(self._warnings[:1])

    # -- what happens in a run

    def on_run_started(self, event: Event) -> None:
        if self._task is not None:
            return
        self._watch(event)
        if "late_start" in self.on and event.seconds >= 60 * self.late_minutes:
            self.tell(
                self._message(event, "late_start", cause=f"it started {event.seconds / 60:.0f} min after its time")
            )

    def on_task_started(self, event: Event) -> None:
        if event.task == self._task:
            self._watch(event)

    def on_slice_finished(self, event: Event) -> None:
        if event.state == "timed_out" and event.task is not None:
            self._late.add(event.task)

    def on_task_finished(self, event: Event) -> None:
        task = event.task or ""
        if event.state == "failed":
            self._lines[task] = event.tail[-LINES:]
        if self._task == task:
            state = "timed_out" if event.state == "failed" and task in self._late else event.state
            self._ended(event, state)

    def on_run_finished(self, event: Event) -> None:
        if self._task is None:
            failed = set(self._lines)
            is_late = event.state == "failed" and failed and failed <= self._late
            self._ended(event, "timed_out" if is_late else event.state)

    def _ended(self, event: Event, state: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        occasion = BAD.get(state)
        if occasion is not None:
            self._failed(event, occasion)
        elif state == "completed":
            self._completed(event)

    def _failed(self, event: Event, occasion: Occasion) -> None:
        wanted = occasion in self.on
        with _remembered(self._key(event)) as trouble:
            trouble["failures"] = trouble.get("failures", 0) + 1
            is_told = wanted and event.time - trouble.get("told", 0) < 60 * self.dedupe_minutes
            if not wanted or is_told:
                return
            before = trouble.get("told", 0)
            trouble["told"] = event.time
            failures = trouble["failures"]
        if not self.tell(self._message(event, occasion, failures=failures)):
            with _remembered(self._key(event)) as trouble:
                trouble["told"] = before

    def _completed(self, event: Event) -> None:
        with _remembered(self._key(event)) as trouble:
            earlier = dict(trouble)
            trouble.clear()
        if earlier and "recovery" in self.on:
            text = f"completed after {earlier['failures']} failed run{'s' if earlier['failures'] > 1 else ''}"
            if not self.tell(self._message(event, "recovery", cause=text)):
                with _remembered(self._key(event)) as trouble:
                    trouble.update(earlier)
        if "success" in self.on:
            self.tell(self._message(event, "success", cause=f"completed in {event.seconds:.0f} s"))

    def _watch(self, event: Event) -> None:
        if self.long_run_minutes is None:
            return
        cause = f"it has run for more than {self.long_run_minutes:g} min and goes on"
        message = self._message(event, "long_run", cause=cause)
        self._timer = threading.Timer(60 * self.long_run_minutes, self.tell, [message])
        self._timer.daemon = True
        self._timer.start()

    # -- telling it

    def tell(self, message: Message) -> bool:
        """Send a message; whether it was taken. What went wrong is a warning of the run."""
        try:
            self.send(message)
        except Exception as error:
            text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            self._warnings.append(f"alert '{self.name}' was not sent: {text[:300]}")
            _logger().debug("alert %s was not sent", self.name, exc_info=True)
            return False
        return True

    def _key(self, event: Event) -> str:
        import hashlib

        words = "\0".join((event.app, event.pipeline, self._task or "", self._identity))
        return hashlib.blake2b(words.encode(), digest_size=12).hexdigest()

    def _message(self, event: Event, occasion: str, *, cause: str | None = None, failures: int = 0) -> Message:
        lines = self._lines.get(self._task) if self._task else next(iter(self._lines.values()), ())
        return Message(
            occasion=occasion,
            app=event.app,
            pipeline=event.pipeline,
            task=self._task,
            run_id=event.run_id,
            time=event.time,
            key=self._key(event),
            cause=event.message if cause is None else cause,
            lines=(lines or ()) if occasion in BAD.values() else (),
            link=event.link,
            retry=f"rainbow retry {event.run_id}" if occasion in BAD.values() else "",
            seconds=event.seconds,
            failures=failures,
        )


def _logger() -> Logger:
    """A check reads the settings of alerts, and logs nothing."""
    import logging

    return logging.getLogger(__name__)


@contextmanager
def _remembered(key: str) -> Iterator[dict[str, Any]]:
    """What is known of a trouble, in a file that one process at a time has; {} when there is none.

    A folder that cannot be written to makes each failure a new one: better told twice than never.
    """
    import fcntl

    from ..server import state_folder

    folder = state_folder() / "alerts"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (folder / f"{key}.json").open("a+")
    except OSError as error:
        _logger().debug("alerts are not remembered: %s", error)
        yield {}
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        known = _known(file.read())
        before = dict(known)
        try:
            yield known
        finally:
            if known != before:
                file.seek(0)
                file.truncate()
                file.write(json.dumps(known) if known else "")


def _known(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except ValueError:  # a machine that stopped in the middle of a word
        return {}
    return found if isinstance(found, dict) else {}


def sample(app: str, pipeline: str) -> Message:
    """What `rainbow alert test` sends."""
    return Message(
        "test",
        app,
        pipeline,
        None,
        "",
        clock.time(),
        f"test-{app}-{pipeline}"[:200],
        cause="nothing is wrong: somebody called `rainbow alert test`",
    )


AnyAlert = Annotated[Alert, alerts]
