"""What a person sees while a pipeline runs: a live tree in a terminal, one line an event elsewhere. No Prefect here."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, ClassVar

from pydantic import PrivateAttr

from .observers.base import Observer
from .run import Event

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from .plan import Plan

_MARKS = {
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "timed_out": ("✗", "red"),
    "cancelled": ("■", "yellow"),
    "skipped": ("-", "dim"),
    "not_run": ("-", "dim"),
    "running": ("●", "cyan"),
    "waiting": ("·", "dim"),
}
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_BAR_CELLS = 20
_SHOWN_SLICES = 8
_FRAMES_PER_SECOND = 8


def duration(seconds: float) -> str:
    """A time as people say it: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def words(state: str) -> str:
    """A state as people say it."""
    return state.replace("_", " ")


@dataclass(slots=True)
class _Slice:
    state: str = "waiting"
    began: float = 0.0
    seconds: float = 0.0
    message: str = ""
    attempt: int = 1


@dataclass(slots=True)
class _Row:
    """One task as it stands."""

    name: str
    state: str = "waiting"
    began: float = 0.0
    seconds: float = 0.0
    message: str = ""
    count: int = 1
    is_split: bool = False
    slices: dict[int, _Slice] = field(default_factory=dict)
    done: int = 0
    failed: int = 0


class Plain(Observer):
    """One line for each event, and the lines that tasks print, each behind its task's name."""

    type: str = "plain"
    wants_logs: ClassVar[bool] = True
    _out: IO[str] = PrivateAttr()
    _split: set[str] = PrivateAttr(default_factory=set)

    def __init__(self, out: IO[str], plan: Plan) -> None:
        super().__init__(type="plain")
        self._out = out
        self._split = {step.name for step in plan.steps if step.task.is_split}

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.flush()

    def _say(self, event: Event, text: str) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(event.time))
        self._out.write(f"{clock} {text}\n")
        self._out.flush()

    def _name(self, event: Event) -> str:
        if event.index is None or event.task not in self._split:
            return str(event.task)
        return f"{event.task}[{event.index}]"

    def on_run_started(self, event: Event) -> None:
        self._say(event, f"pipeline {event.pipeline} started")

    def on_task_started(self, event: Event) -> None:
        of = f" with {event.count} slices" if event.task in self._split else ""
        self._say(event, f"{event.task}: started{of}")

    def on_slice_started(self, event: Event) -> None:
        if event.attempt > 1:
            self._say(event, f"{self._name(event)}: attempt {event.attempt}")

    def on_slice_finished(self, event: Event) -> None:
        if event.task in self._split or event.state != "completed":
            self._say(event, f"{self._name(event)}: {_told(event)}")

    def on_task_finished(self, event: Event) -> None:
        if event.task in self._split or event.state == "completed" or not event.seconds:
            self._say(event, f"{event.task}: {_told(event)}")

    def on_log(self, event: Event) -> None:
        self._say(event, f"{self._name(event)} | {event.line}")


def _told(event: Event) -> str:
    time_ = f" in {duration(event.seconds)}" if event.seconds else ""
    message = f": {event.message}" if event.message and event.state != "completed" else ""
    return f"{words(event.state)}{time_}{message}"


class Live(Observer):
    """A tree of tasks and slices that is drawn again several times a second; needs a terminal."""

    type: str = "live"
    wants_logs: ClassVar[bool] = True
    _console: Console = PrivateAttr()
    _rows: dict[str, _Row] = PrivateAttr(default_factory=dict)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)
    _lines: deque[tuple[str, str]] = PrivateAttr(default_factory=lambda: deque(maxlen=5))
    _title: str = PrivateAttr(default="")
    _began: float = PrivateAttr(default=0.0)
    _live: Any = PrivateAttr(default=None)

    def __init__(self, console: Console, plan: Plan) -> None:
        super().__init__(type="live")
        self._console = console
        self._title = plan.pipeline.pipeline
        self._began = time.time()
        self._rows = {step.name: _Row(step.name, is_split=step.task.is_split) for step in plan.steps}

    def __enter__(self) -> Live:
        from rich.live import Live as RichLive

        self._live = RichLive(
            console=self._console,
            get_renderable=self.drawing,
            refresh_per_second=_FRAMES_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def on_task_started(self, event: Event) -> None:
        with self._lock:
            row = self._row(event)
            row.state, row.began, row.count = "running", event.time, event.count or 1

    def on_task_finished(self, event: Event) -> None:
        with self._lock:
            row = self._row(event)
            row.state, row.seconds, row.message = event.state, event.seconds, event.message
            row.slices = {index: one for index, one in row.slices.items() if one.state not in ("completed", "running")}

    def on_slice_started(self, event: Event) -> None:
        with self._lock:
            row = self._row(event)
            row.slices[event.index or 0] = _Slice("running", event.time, attempt=event.attempt)

    def on_slice_finished(self, event: Event) -> None:
        with self._lock:
            row = self._row(event)
            row.done += 1
            row.slices.pop(event.index or 0, None)
            if event.state != "completed":
                row.failed += 1
                if len(row.slices) < 1000:
                    row.slices[event.index or 0] = _Slice(
                        event.state, seconds=event.seconds, message=event.message, attempt=event.attempt
                    )

    def on_log(self, event: Event) -> None:
        with self._lock:
            row = self._row(event)
            name = f"{event.task}[{event.index}]" if row.is_split else str(event.task)
            self._lines.append((name, event.line))

    def _row(self, event: Event) -> _Row:
        return self._rows.setdefault(str(event.task), _Row(str(event.task)))

    # -- drawing

    def drawing(self) -> Text:
        """The tree as it stands now, no higher than the terminal."""
        from rich.text import Text

        with self._lock:
            now = time.time()
            height = max(3, self._console.size.height - 1)
            head = Text(f"{self._title}  {duration(now - self._began)}", style="bold")
            tail = [Text(f"  {name} | {line}", style="dim") for name, line in self._lines]
            if height < 14:
                tail = tail[-1:] if height >= 6 else []
            lines = self._tree_lines(now, height - 1 - len(tail))
            text = Text("\n").join([head, *lines, *tail])
        text.no_wrap = True
        text.overflow = "ellipsis"
        return text

    def _tree_lines(self, now: float, room: int) -> list[Text]:
        """Each task with its slices; when they are too many, those under way and failed ones stay."""
        from rich.text import Text

        rows = list(self._rows.values())
        blocks = [list(self._block(row, now, _SHOWN_SLICES)) for row in rows]
        if sum(map(len, blocks)) > room:
            blocks = [list(self._block(row, now, 2)) for row in rows]
        if sum(map(len, blocks)) > room:
            blocks = [block[:1] for block in blocks]
        if len(blocks) <= room:
            return [line for block in blocks for line in block]
        ranks = {"running": 0, "failed": 1, "timed_out": 1, "waiting": 2}
        order = sorted(range(len(rows)), key=lambda at: (ranks.get(rows[at].state, 3), at))
        kept = sorted(order[: max(0, room - 1)])
        hidden = [rows[at].state for at in range(len(rows)) if at not in set(kept)]
        counts = {state: hidden.count(state) for state in dict.fromkeys(hidden)}
        told = ", ".join(f"{count} {words(state)}" for state, count in counts.items())
        return [*(blocks[at][0] for at in kept), Text(f"  ... and {told}", style="dim")]

    def _block(self, row: _Row, now: float, slices: int) -> Iterator[Text]:
        from rich.text import Text

        mark, style = _mark(row.state, now)
        line = Text.assemble(("  ", ""), (mark, style), (f" {row.name}", "bold" if row.state == "running" else style))
        if row.state == "running":
            line.append(f"  {duration(now - row.began)}")
        elif row.seconds:
            line.append(f"  {duration(row.seconds)}", style="dim")
        if row.is_split and row.count and row.state != "waiting":
            line.append_text(_bar(row))
        if row.message and row.state not in ("completed", "running"):
            line.append(f"  {row.message}", style=style)
        yield line
        if not row.is_split:
            return
        shown = sorted(row.slices.items(), key=lambda item: (item[1].state != "running", item[0]))
        for index, one in sorted(shown[:slices]):
            mark, style = _mark(one.state, now)
            seconds = now - one.began if one.state == "running" else one.seconds
            again = f", attempt {one.attempt}" if one.attempt > 1 else ""
            text = f" {row.name}[{index}]  {duration(seconds)}{again}  {one.message}".rstrip()
            yield Text.assemble(("    ", ""), (mark, style), (text, style if one.message else ""))
        if len(shown) > slices:
            yield Text(f"      ... and {len(shown) - slices} more", style="dim")


def _mark(state: str, now: float) -> tuple[str, str]:
    mark, style = _MARKS.get(state, ("?", ""))
    if state == "running":
        mark = _SPINNER[int(now * _FRAMES_PER_SECOND) % len(_SPINNER)]
    return mark, style


def _bar(row: _Row) -> Text:
    from rich.text import Text

    full = round(_BAR_CELLS * min(1.0, row.done / row.count))
    text = Text("  ")
    text.append("━" * full, style="red" if row.failed else "green")
    text.append("━" * (_BAR_CELLS - full), style="bright_black")
    text.append(f" {row.done}/{row.count}")
    if row.failed:
        text.append(f", {row.failed} failed", style="red")
    return text


def display_of(plan: Plan, out: IO[str], *, is_terminal: bool) -> Plain | Live:
    """The display that fits: live in a terminal that can move its cursor, else plain lines."""
    if not is_terminal:
        return Plain(out, plan)
    from rich.console import Console

    console = Console(file=out, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        return Plain(out, plan)
    return Live(console, plan)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with columns of equal width; the last column is not padded."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
