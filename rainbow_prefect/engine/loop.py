"""The small loop of a run: start what is ready, wait for any slice to end, decide, go on."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from ..errors import TaskFailed
from ..run import PartitionReport
from .inputs import as_json, joined, read_files, slices_of
from .slices import Cause, Slice, StepRun, World
from .storage import Kept
from .threads import MAX_AT_ONCE

logger = logging.getLogger(__name__)

GRACE_SECONDS = 30.0
"""How long a slice that was told to stop may take; then it is left to itself."""

_LOOK_SECONDS = 0.5
_LATE_SECONDS = 1.0
"""An executor ends a slice at its deadline by itself; so much later it is told to."""

Find = Callable[[StepRun, str], "Kept | None"]
"""What an earlier process of the same flow run kept under a key."""

Submit = Callable[[StepRun, Slice, Sequence[str]], Callable[[], str | None]]
"""Starts a slice, given the task runs before it; what it returns tells, once it is over, what went wrong outside it."""


class Loop:
    """Runs all steps of a plan; `submit` starts one slice in a thread and calls `over` when it has ended."""

    def __init__(self, world: World, submit: Submit, find: Find) -> None:
        self.world = world
        self._find = find
        self.runs = {step.name: StepRun(world, step) for step in world.plan.steps}
        self.started: list[StepRun] = []
        self._submit = submit
        self._messages: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._under_way: dict[int, tuple[StepRun, Slice, Callable[[], str | None]]] = {}

    # -- told by other threads

    def over(self, run: StepRun, one: Slice) -> None:
        """A slice has ended."""
        self._messages.put(lambda: self._finish(run, one))

    def stop(self, cause: Cause, message: str) -> None:
        """End the run early."""
        self._messages.put(lambda: self._stop(cause, message))

    # -- the loop

    def run(self) -> None:
        """Run until every task has ended or cannot run."""
        self._take_messages()  # it may have been stopped before it began
        self._look_at_deadline()
        while True:
            self._begin_ready()
            self._fill()
            if not self._under_way:
                if self.world.stopped is not None or all(run.is_over for run in self.runs.values()):
                    break
                if not any(run.state == "running" for run in self.runs.values()):
                    break
                continue
            self._wait()
            self._watch()
        self._close()

    def refuse(self, message: str) -> None:
        """End the run as failed before any task started."""
        self._stop("failed", message)
        self._close()

    def halt(self, cause: Cause, message: str) -> None:
        """Stop everything now, from the thread of the loop, and wait until it has."""
        self._stop(cause, message)
        while self._under_way:
            self._wait()
            self._watch()
        self._close()

    def _begin_ready(self) -> None:
        if self.world.stopped is not None:
            return
        changed = True
        while changed:
            changed = False
            for run in self.runs.values():
                if run.state == "pending" and (verdict := self._verdict(run)) is not None:
                    changed = True
                    if verdict == "start":
                        self._begin(run)
                    else:
                        run.state = verdict

    def _verdict(self, run: StepRun) -> str | None:
        """`start`, `skipped` or `not_run`; None while something before it is not over."""
        before = [self.runs[name] for name in run.step.needs if name in self.runs]
        if not all(one.is_over for one in before):
            return None
        if run.step.when == "always":
            return "start"
        failed = any(self._has_failed(one) for one in before)
        if run.step.when == "on_failure":
            return "start" if failed else "skipped"
        return "not_run" if failed else "start"

    def _has_failed(self, run: StepRun) -> bool:
        """Whether it, or anything before it, has failed."""
        seen, look = {run.name}, [run]
        while look:
            one = look.pop()
            if one.state in ("failed", "not_run"):
                return True
            for name in one.step.needs:
                if name in self.runs and name not in seen:
                    seen.add(name)
                    look.append(self.runs[name])
        return False

    def _begin(self, run: StepRun) -> None:
        run.state, run.began = "running", time.monotonic()
        self.started.append(run)
        try:
            value = self._input_of(run)
            inputs = slices_of(run.step.task, value, what=self._input_words(run))
        except TaskFailed as error:
            run.broken = self.world.secrets.mask(str(error))
            inputs, value = [None], None
        history = " ".join(self.runs[name].identity or self.runs[name].state for name in run.step.needs)
        lineage = run.lineage(value, len(inputs), history)
        for index, given in enumerate(inputs):
            key = self.world.storage.key(run.name, index, lineage)
            run.slices.append(Slice(PartitionReport(index, given, "pending"), key))
        run.most = max(1, run.step.task.slice_count)
        self.world.artifacts.begin(run)
        self.world.send("task_started", task=run.name, count=len(inputs))
        run.waiting.extend(self._not_kept(run))
        self._end(run)

    def _not_kept(self, run: StepRun) -> Iterator[int]:
        """The slices that did not complete in an earlier process of this flow run."""
        for one in run.slices:
            kept = self._find(run, one.key)
            if kept is None:
                yield one.index
                continue
            one.id, one.output, one.is_over = kept.id, kept.output, True
            one.report.state, one.report.attempts, one.report.exit_code = "completed", kept.attempts, 0
            one.report.seconds, one.report.message = kept.seconds, "completed before; not run again"

    def _input_of(self, run: StepRun) -> Any:
        task = run.step.task
        reads = task.input_of()
        if reads.kind == "file":
            return read_files(str(reads.value), self.world.plan.app.root)
        if reads.kind == "static":
            return as_json(self.world.secrets.render(reads.value))
        if reads.kind == "none":
            return None
        source = self.runs[str(reads.value)]
        if source.state != "completed":
            return {}
        if not source.step.task.is_split:
            return {} if source.output is None else source.output
        folder = self.world.storage.scratch / f"input-{run.name}"
        folder.mkdir(exist_ok=True)
        return joined(source.output, folder)

    def _input_words(self, run: StepRun) -> str:
        reads = run.step.task.input_of()
        match reads.kind:
            case "task":
                source = self.runs[str(reads.value)]
                ended = "" if source.state == "completed" else f", which {source.state.replace('_', ' ')}"
                return f"the output of task '{reads.value}'{ended}"
            case "file":
                return f"the data of '{reads.value}'"
            case _:
                return "the input"

    def _fill(self) -> None:
        """Start slices, one of each running task in turn, as many as may run at once."""
        filling = [run for run in self.started if run.waiting]
        while filling and len(self._under_way) < MAX_AT_ONCE:
            for run in list(filling):
                if not run.waiting or run.under_way >= run.most:
                    filling.remove(run)
                elif len(self._under_way) < MAX_AT_ONCE:
                    self._start(run, run.slices[run.waiting.popleft()])

    def _start(self, run: StepRun, one: Slice) -> None:
        run.under_way += 1
        one.began = time.monotonic()
        self._under_way[id(one)] = (run, one, lambda: None)
        self._under_way[id(one)] = (run, one, self._submit(run, one, self._before(run, one)))

    def _before(self, run: StepRun, one: Slice) -> list[str]:
        """The task runs that are drawn before a slice: all of a task, or its share when there would be too many lines."""
        ids = []
        for name in run.step.needs:
            sources = self.runs[name].slices if name in self.runs else []
            if len(sources) * len(run.slices) > 1000:
                first = one.index * len(sources) // len(run.slices)
                last = max(first + 1, (one.index + 1) * len(sources) // len(run.slices))
                sources = sources[first:last]
            ids += [source.id for source in sources if source.id]
        return ids

    def _wait(self) -> None:
        try:
            message = self._messages.get(timeout=self._patience())
        except queue.Empty:
            return
        message()
        self._take_messages()

    def _take_messages(self) -> None:
        """Heed what other threads told until now."""
        with suppress(queue.Empty):
            while True:
                self._messages.get_nowait()()

    def _patience(self) -> float:
        if self.world.deadline is None or self.world.stopped is not None:
            return _LOOK_SECONDS
        return min(_LOOK_SECONDS, max(0.01, self.world.deadline - time.monotonic()))

    def _finish(self, run: StepRun, one: Slice) -> None:
        entry = self._under_way.pop(id(one), None)
        if entry is None:
            return
        outside = entry[2]()
        report = one.report
        if report.state != "completed":  # its executor knows the deadline, too, and may be the first to act on it
            self._look_at_deadline()
        one.is_over = True
        run.under_way -= 1
        if report.state in ("pending", "running") or (outside and report.state == "completed"):
            report.state, report.message = "failed", self.world.secrets.mask(outside or "it ended without a result")
        self.world.send(
            "slice_finished",
            task=run.name,
            index=one.index,
            count=len(run.slices),
            state=report.state,
            message=report.message,
            seconds=report.seconds,
            attempt=report.attempts,
        )
        self._end(run)

    def _end(self, run: StepRun) -> None:
        if run.state == "running" and not run.waiting and not run.under_way:
            run.conclude()

    # -- deadlines

    def _watch(self) -> None:
        now = time.monotonic()
        self._look_at_deadline()
        for run, one, _ in list(self._under_way.values()):
            live = one.run
            if one.cause is None and live is not None and live.deadline is not None:
                if now >= live.deadline + _LATE_SECONDS:
                    run.stop_slice(one, "timed_out")
            elif one.cause is not None:
                if live is not None and not live.stop.is_set():
                    run.stop_slice(one, one.cause)
                if now >= one.stopped_at + GRACE_SECONDS:
                    self._abandon(run, one)

    def _look_at_deadline(self) -> None:
        """End the run when its time is over, unless all is done."""
        if self.world.is_late and self.world.stopped is None and not all(run.is_over for run in self.runs.values()):
            self._stop("timed_out", self.world.late_message)

    def _abandon(self, run: StepRun, one: Slice) -> None:
        """Go on without a slice that does not come back."""
        logger.warning("%s[%s] did not stop within %g s; its thread is left alone", run.name, one.index, GRACE_SECONDS)
        words = "timed out" if one.cause == "timed_out" else "cancelled"
        one.report = PartitionReport(
            one.index,
            one.report.input,
            one.cause or "failed",
            attempts=one.report.attempts,
            message=f"{words}; it did not stop within {GRACE_SECONDS:g} s and was left alone",
            seconds=time.monotonic() - one.began,
        )
        self.world.abandoned.append(one)
        self._finish(run, one)

    def _stop(self, cause: Cause, message: str) -> None:
        world = self.world
        if world.stopped is not None:
            return
        world.stopped, world.message = cause, message
        for run in self.started:
            if run.state == "running":
                run.stop(cause)
                self._end(run)

    def _close(self) -> None:
        for run in self.runs.values():
            if not run.is_over:
                if run.slices:
                    run.conclude()
                else:
                    run.state = "not_run"

    # -- the end

    def reports(self) -> list[StepRun]:
        """All tasks in the order in which they started, those that never started last."""
        never = [run for run in self.runs.values() if run not in self.started]
        return [*self.started, *never]

    def failed(self) -> list[StepRun]:
        return [run for run in self.runs.values() if run.state == "failed"]
