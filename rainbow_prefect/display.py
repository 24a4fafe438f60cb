"""What a person sees while a pipeline runs: a live tree in a terminal, one line an event elsewhere. No Prefect here."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, ClassVar

from pydantic import PrivateAttr

from .observers.base import Observer
from .run import Event, Progress, together

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from .plan import Plan

_MARKS = {
    "completed": ("✓", "+", "green"),
    "failed": ("✗", "x", "red"),
    "timed_out": ("✗", "x", "red"),
    "crashed": ("✗", "x", "red"),
    "cancelled": ("■", "x", "yellow"),
    "skipped": ("-", "-", "dim"),
    "not_run": ("-", "-", "dim"),
    "running": ("●", "*", "cyan"),
    "waiting": ("·", ".", "dim"),
}
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN_SPINNER = "-\\|/"
_BAR_CELLS = 20
_NARROW = 60
_FRAMES_PER_SECOND = 8
_TAIL_LINES = 3
_LAST_LINES = 4
_DETAILS = ((8, _TAIL_LINES), (3, 1), (1, 0), (0, 0))
"""How many slices and how many last lines each task may show, from plenty of room to none."""

_FEW_SLICES = 20
_PROGRESS_SECONDS = 10.0
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def duration(seconds: float) -> str:
    """A time as people say it: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def words(state: str) -> str:
    """A state as people say it."""
    return state.replace("_", " ")


def harmless(line: str) -> str:
    """A line of user code as a terminal may be given it: without escape sequences and control characters."""
    if line.isprintable():
        return line
    return _CONTROLS.sub("", _ESCAPES.sub("", line)).expandtabs(8)


def mark_of(state: str, *, plain: bool = False) -> str:
    """The sign in front of a task."""
    return _MARKS.get(state, ("?", "?", ""))[1 if plain else 0]


def can_write(out: IO[str], text: str = "✓✗■●·━─⠋") -> bool:
    """Whether this stream can take more than ASCII."""
    try:
        text.encode(getattr(out, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with columns of equal width; the last column is not padded."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


# -- lines


class Plain(Observer):
    """One line for each event, and the lines that tasks print, each behind its task's name.

    Of a task with many slices only those that fail have a line, and every ten seconds there is one for all.
    """

    type: str = "plain"
    wants_logs: ClassVar[bool] = True
    _out: IO[str] = PrivateAttr()
    _split: frozenset[str] = PrivateAttr(default=frozenset())
    _ended: dict[str, int] = PrivateAttr(default_factory=dict)
    _told: dict[str, float] = PrivateAttr(default_factory=dict)

    def __init__(self, out: IO[str], plan: Plan) -> None:
        super().__init__(type="plain")
        self._out = out
        self._split = frozenset(step.name for step in plan.steps if step.task.is_split)

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *_: object) -> None: ...

    def say(self, text: str) -> None:
        """Tell something that is no event of the run."""
        self._line(time.time(), text)

    def on_run_started(self, event: Event) -> None:
        self._say(event, f"pipeline {event.pipeline} started, run {event.run_id}")

    def on_task_started(self, event: Event) -> None:
        task = str(event.task)
        self._ended[task], self._told[task] = 0, event.time
        of = f" with {event.count} {'slice' if event.count == 1 else 'slices'}" if task in self._split else ""
        self._say(event, f"{task}: started{of}")

    def on_slice_started(self, event: Event) -> None:
        if event.attempt > 1:
            self._say(event, f"{self._name(event)}: attempt {event.attempt}")

    def on_slice_finished(self, event: Event) -> None:
        task = str(event.task)
        if task not in self._split:
            return
        self._ended[task] = self._ended.get(task, 0) + 1
        if event.state != "completed" or (event.count or 1) <= _FEW_SLICES:
            self._say(event, f"{self._name(event)}: {_told(event)}")
        elif event.time - self._told.get(task, 0.0) >= _PROGRESS_SECONDS:
            self._told[task] = event.time
            self._say(event, f"{task}: {self._ended[task]} of {event.count} slices are over")

    def on_progress(self, event: Event) -> None:
        if event.time - self._told.get(str(event.task), 0.0) >= _PROGRESS_SECONDS:
            self._told[str(event.task)] = event.time
            self._say(event, f"{self._name(event)}: {event.progress}")

    def on_task_finished(self, event: Event) -> None:
        self._say(event, f"{event.task}: {_told(event)}")

    def on_log(self, event: Event) -> None:
        self._say(event, event.line if event.task is None else f"{self._name(event)} | {event.line}")

    def _say(self, event: Event, text: str) -> None:
        self._line(event.time, text)

    def _line(self, when: float, text: str) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(when))
        self._out.write(f"{clock} {text}\n")
        self._out.flush()

    def _name(self, event: Event) -> str:
        return _name_of(event, event.task in self._split)


def _name_of(event: Event, is_split: bool) -> str:
    return f"{event.task}[{event.index}]" if is_split and event.index is not None else str(event.task)


def _told(event: Event) -> str:
    after = f" in {duration(event.seconds)}" if event.seconds else ""
    return f"{words(event.state)}{after}{_reason(event)}"


def _reason(event: Event) -> str:
    """`: exit status 3`; nothing when the state says it all."""
    says_all = event.state == "completed" or event.message in ("", words(event.state))
    return "" if says_all else f": {event.message}"


# -- live


@dataclass(slots=True)
class _Slice:
    began: float
    attempt: int = 1


@dataclass(slots=True)
class _Row:
    """One task as it stands; `lines` are the last that it printed."""

    name: str
    needs: tuple[str, ...] = ()
    when: str = "on_success"
    is_split: bool = False
    state: str = "waiting"
    began: float = 0.0
    seconds: float = 0.0
    message: str = ""
    count: int | None = None
    done: int = 0
    failed: int = 0
    running: dict[int, _Slice] = field(default_factory=dict)
    lines: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))
    moved: dict[int, Progress] = field(default_factory=dict)
    errors: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))


class Live(Observer):
    """A tree of tasks and slices that is drawn again several times a second; needs a terminal."""

    type: str = "live"
    wants_logs: ClassVar[bool] = True
    _console: Console = PrivateAttr()
    _rows: dict[str, _Row] = PrivateAttr(default_factory=dict)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)
    _clock: Callable[[], float] = PrivateAttr(default=time.time)
    _title: str = PrivateAttr(default="")
    _run: str = PrivateAttr(default="")
    _note: str = PrivateAttr(default="")
    _began: float = PrivateAttr(default=0.0)
    _plain: bool = PrivateAttr(default=False)
    _live: Any = PrivateAttr(default=None)

    def __init__(self, console: Console, plan: Plan, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(type="live")
        self._console = console
        self._clock = clock
        self._title = plan.pipeline.pipeline
        self._began = clock()
        self._plain = not can_write(console.file)
        self._rows = {
            step.name: _Row(step.name, step.needs, step.when, step.task.is_split, count=step.partitions)
            for step in plan.steps
        }

    def __enter__(self) -> Live:
        from rich.live import Live as RichLive

        self._live = RichLive(
            console=self._console,
            get_renderable=self.drawing,
            refresh_per_second=_FRAMES_PER_SECOND,
            transient=True,
            vertical_overflow="crop",
        )
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Show a sentence below the tree from now on."""
        self._note = text

    def on_run_started(self, event: Event) -> None:
        self._run, self._began = event.link or event.run_id, event.time

    def on_task_started(self, event: Event) -> None:
        with self._lock:
            if self._note.startswith("image"):
                self._note = ""
            row = self._row(event)
            row.state, row.began, row.count = "running", event.time, event.count or 1

    def on_task_finished(self, event: Event) -> None:
        with self._lock:
            row = self._row(event)
            row.state, row.seconds, row.message = event.state, event.seconds, harmless(event.message)
            row.running.clear()

    def on_slice_started(self, event: Event) -> None:
        with self._lock:
            self._row(event).running[event.index or 0] = _Slice(event.time, event.attempt)

    def on_slice_finished(self, event: Event) -> None:
        with self._lock:
            row = self._row(event)
            row.done += 1
            row.running.pop(event.index or 0, None)
            if event.state != "completed":
                row.failed += 1
            if event.state != "completed" and row.is_split:
                told = f"{words(event.state)}{_reason(event)}".replace("\n", " ")
                row.errors.append((_name_of(event, row.is_split), harmless(told)))

    def on_progress(self, event: Event) -> None:
        with self._lock:
            if event.progress is not None:
                self._row(event).moved[event.index or 0] = event.progress

    def on_log(self, event: Event) -> None:
        if event.task is None:  # of the run, such as building an image
            self.say(harmless(event.line))
            return
        with self._lock:
            row = self._row(event)
            row.lines.append((_name_of(event, row.is_split), harmless(event.line)))

    def _row(self, event: Event) -> _Row:
        return self._rows.setdefault(str(event.task), _Row(str(event.task)))

    # -- drawing

    def drawing(self) -> Text:
        """The tree as it stands now, no higher and no wider than the terminal."""
        from rich.text import Text

        width, height = self._console.size
        now = self._clock()
        with self._lock:
            head = Text(f"{self._title}  {duration(now - self._began)}", style="bold")
            if self._run and width >= _NARROW:
                head.append(f"  {self._run}", style="not bold dim")
            note = [Text(self._note, style="yellow")] if self._note else []
            lines = [head, *self._tree(now, width, max(1, height - 2 - len(note))), *note]
        for line in lines:
            line.truncate(max(1, width - 1), overflow="crop" if self._plain else "ellipsis")
        return Text("\n", no_wrap=True, overflow="crop").join(lines)

    def _tree(self, now: float, width: int, room: int) -> list[Text]:
        """As much of each task as there is room for; when even one line each is too much, those that matter stay."""
        rows = list(self._rows.values())
        forecast = self._forecast()
        more: list[Text] = []
        if len(rows) > room:
            rows, more = self._most_important(rows, forecast, room - 1)
        blocks = [[self._line(row, now, width, *forecast[row.name])] for row in rows]
        for slices, tail in () if more else _DETAILS:
            full = [[*block, *self._details(row, now, slices, tail)] for block, row in zip(blocks, rows, strict=True)]
            if sum(map(len, full)) <= room:
                blocks = full
                break
        return [*(line for block in blocks for line in block), *more]

    def _most_important(
        self, rows: list[_Row], forecast: Mapping[str, tuple[str, str]], room: int
    ) -> tuple[list[_Row], list[Text]]:
        """Tasks under way first, then failed ones, the next that wait, the last that ended; the others as a count."""
        from rich.text import Text

        states = [forecast[row.name][0] for row in rows]
        order = sorted(range(len(rows)), key=lambda at: _rank(states[at], at))
        kept = set(order[: max(0, room)])
        hidden = [state for at, state in enumerate(states) if at not in kept]
        counts = ", ".join(f"{hidden.count(state)} {words(state)}" for state in dict.fromkeys(hidden))
        return [rows[at] for at in sorted(kept)], [Text(f"  ... and {counts}", style="dim")]

    def _details(self, row: _Row, now: float, slices: int, tail: int) -> Iterator[Text]:
        """The slices of a task that are under way, then the last lines that tell most."""
        from rich.text import Text

        if row.is_split and slices:
            shown = sorted(row.running.items(), key=lambda item: (item[1].began, item[0]))[:slices]
            for index, one in sorted(shown):
                again = f", attempt {one.attempt}" if one.attempt > 1 else ""
                mark, style = self._mark("running", now)
                text = f" {row.name}[{index}]  {duration(now - one.began)}{again}"
                yield Text.assemble("    ", (mark, style), text)
            if len(row.running) > slices:
                yield Text(f"      ... and {len(row.running) - slices} more under way", style="dim")
        lines = list(row.errors or (row.lines if row.state in ("running", "failed") else ()))
        style = "dim" if row.state == "running" and not row.errors else "red"
        for name, text in lines[len(lines) - min(tail, len(lines)) :]:
            yield Text(f"      {name} | {text}" if row.is_split else f"      | {text}", style=style)

    def _line(self, row: _Row, now: float, width: int, state: str, why: str) -> Text:
        from rich.text import Text

        mark, style = self._mark(state, now)
        line = Text.assemble("  ", (mark, style), (f" {row.name}", "bold" if state == "running" else style))
        if state == "running":
            line.append(f"  {duration(now - row.began)}")
        elif row.seconds:
            line.append(f"  {duration(row.seconds)}", style="dim")
        if row.is_split and row.count and state not in ("skipped", "not_run"):
            line.append_text(self._bar(row, width))
        if row.moved and state == "running":
            line.append(f"  {together(row.moved.values(), row.count or 1)}", style="cyan")
        again = max((one.attempt for one in row.running.values()), default=1)
        if again > 1 and not row.is_split:
            line.append(f"  attempt {again}", style="yellow")
        if why:
            line.append(f"  {why}", style="dim")
        if row.message and state not in ("completed", "running"):
            line.append(f"  {row.message.splitlines()[0]}", style=style)
        return line

    def _forecast(self) -> dict[str, tuple[str, str]]:
        """The state of each task and a word on it: what it waits for, or that it will not run."""
        forecast: dict[str, tuple[str, str]] = {}
        after_failure: set[str] = set()
        for row in self._rows.values():
            needs = [name for name in row.needs if name in forecast]
            state, why = row.state, ""
            if state == "waiting":
                missing = [name for name in needs if forecast[name][0] in ("waiting", "running")]
                state = "waiting" if missing else _verdict(row.when, not after_failure.isdisjoint(needs))
                more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
                why = f"waits for {', '.join(missing[:3])}{more}" if missing else ""
                why = words(state) if state != "waiting" else why
            if state in ("failed", "not_run") or not after_failure.isdisjoint(needs):
                after_failure.add(row.name)
            forecast[row.name] = state, why
        return forecast

    def _mark(self, state: str, now: float) -> tuple[str, str]:
        style = _MARKS.get(state, ("", "", ""))[2]
        if state == "running":
            frames = _PLAIN_SPINNER if self._plain else _SPINNER
            return frames[int(now * _FRAMES_PER_SECOND) % len(frames)], style
        return mark_of(state, plain=self._plain), style

    def _bar(self, row: _Row, width: int) -> Text:
        from rich.text import Text

        text = Text("  ")
        count = row.count or 1
        if width >= _NARROW and row.state != "waiting":
            done, left = "=." if self._plain else "━─"
            full = int(_BAR_CELLS * min(1.0, row.done / count))
            text.append(done * full, style="red" if row.failed else "green")
            text.append(left * (_BAR_CELLS - full) + " ", style="bright_black")
        text.append(f"{row.done}/{count}")
        if row.failed:
            text.append(f", {row.failed} failed", style="red")
        return text


def _verdict(when: str, has_failed: bool) -> str:
    """What becomes of a task once all before it are over: `waiting` for its start, `skipped` or `not_run`."""
    if when == "on_failure":
        return "waiting" if has_failed else "skipped"
    return "not_run" if has_failed and when != "always" else "waiting"


def _rank(state: str, at: int) -> tuple[int, int]:
    rank = {"running": 0, "failed": 1, "waiting": 2}.get(state, 3)
    return rank, -at if rank == 3 else at


def display_of(plan: Plan, out: IO[str], *, is_terminal: bool) -> Plain | Live:
    """The display that fits: live in a terminal that can move its cursor, else plain lines."""
    if not is_terminal:
        return Plain(out, plan)
    from rich.console import Console

    console = Console(file=out, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        return Plain(out, plan)
    return Live(console, plan)
