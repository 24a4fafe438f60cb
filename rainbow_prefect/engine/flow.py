"""A plan as a real Prefect flow, and running it: the only module of the engine that makes flows and states."""

from __future__ import annotations

import inspect
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import Flow
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRunResult
from prefect.context import FlowRunContext, SettingsContext, SyncClientContext, TaskRunContext, get_settings_context
from prefect.events import emit_event
from prefect.exceptions import Abort, ObjectNotFound, Pause, PrefectHTTPStatusError, TerminationSignal
from prefect.flow_engine import run_flow
from prefect.serializers import JSONSerializer
from prefect.states import Cancelled as CancelledState
from prefect.states import Completed, Failed, Pending
from prefect.tasks import Task as PrefectTask
from prefect.utilities.urls import url_for

from ..app import Parameter
from ..errors import CallError, RainbowError, RunError
from ..files import NAMES
from ..masking import STARS, Masker, secret_values, sensitive
from ..observers.base import Observer
from ..observers.metrics import observers_of
from ..plan import Plan
from ..plan import plan as plan_of
from ..run import Report
from ..secrets import Secrets
from .artifacts import Artifacts
from .console import outlive_readers
from .crashes import crash_hook, late_seconds
from .events import Events
from .executors import executors_of
from .images import build_images, images_of
from .logs import Logs
from .logs import Slice as LogSource
from .loop import Loop
from .slices import Slice, StepRun, World
from .storage import Hold, Kept, Storage, holding, scratch_folder, was_here
from .threads import MAX_AT_ONCE, Runner

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_POLL_SHARE = 0.05
"""Of the time that a run has taken, the longest pause between two looks at its state, up to `_POLL_MOST_SECONDS`."""
_POLL_MOST_SECONDS = 3.0
_HEED_SECONDS = 0.5
_APP = "app:"
"""Before the name of the app in the tags of its runs."""

PATH = "rainbow.path"
"""In the context of a flow run: the folder or file that its pipeline was found in."""

Loader = Callable[[str], Plan]
"""Gives the plan of the pipeline of this name."""


@dataclass
class _Job:
    """One execution of a flow: what its body is given beside the flow's parameters, and what it leaves."""

    observers: Sequence[Observer] = ()
    bound: Plan | None = None
    in_process: bool = False
    stop: threading.Event | None = None
    report: Report | None = None
    loop: Loop | None = None
    heartbeat_seconds: int | None = None
    error: RainbowError | None = None


def build_flow(plan: Plan) -> Flow[..., Any]:
    """A Prefect flow of its own: it can be run, deployed, and started by a worker.

    Its name is the pipeline's, its parameters are those of the pipeline with their types; task runs are named as the
    tasks, slices as `add[0]`, `add[1]`. It ends as Completed, Failed, TimedOut or Cancelled.
    """
    return _build(plan, _Job)


def _build(plan: Plan, job: Callable[[], _Job]) -> Flow[..., Any]:
    pipeline = plan.pipeline

    def body(**parameters: Any) -> State[Any]:
        hidden = {one.name: STARS for one in pipeline.run_parameters if _is_hidden(one)}
        given = {name: value for name, value in parameters.items() if hidden.get(name) != value}
        return _Body(plan, given, job()).run()

    body.__name__ = body.__qualname__ = pipeline.pipeline
    body.__module__ = "rainbow_prefect.flows"  # where a worker finds it by its name
    body.__doc__ = pipeline.description or f"Pipeline '{pipeline.pipeline}' of {plan.app.shown}."
    setattr(body, "__signature__", _signature(plan))  # noqa: B010
    return Flow(
        body,
        name=pipeline.pipeline,
        description=pipeline.description or None,
        version=plan.app.document.digest[:12],
        retries=0,
        retry_delay_seconds=0,
        task_runner=cast(Any, Runner(max_workers=MAX_AT_ONCE)),
        persist_result=False,
        log_prints=False,
        on_crashed=[cast(Any, crash_hook(plan))],
    )


def _signature(plan: Plan) -> inspect.Signature:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [
            inspect.Parameter(
                one.name,
                kind,
                default=inspect.Parameter.empty if one.is_required else _default(one),
                annotation=one.python_type | str if _is_hidden(one) else one.python_type,
            )
            for one in plan.pipeline.run_parameters
        ]
    )


def _is_hidden(parameter: Parameter) -> bool:
    """Whether Prefect must not know its default, which it stores with deployments and runs."""
    return sensitive(parameter.name) and not parameter.is_required


def _default(parameter: Parameter) -> Any:
    return STARS if _is_hidden(parameter) else parameter.default


# -- one execution, inside the flow


class _Body:
    """What a flow does while it runs."""

    def __init__(self, plan: Plan, parameters: Mapping[str, Any], job: _Job) -> None:
        context = FlowRunContext.get()
        assert context is not None and context.flow_run is not None, "a pipeline's flow is run by Prefect"
        self.plan = plan
        self.parameters = dict(parameters)
        self.job = job
        self.context = context
        self.flow_run: FlowRun = context.flow_run
        self.run_id = str(self.flow_run.id)
        self.tasks: dict[str, PrefectTask[..., Any]] = {}
        self.ended = threading.Event()
        self.stopping = threading.Event()
        self.log = LogSource(
            flow_run_id=self.run_id,
            flow_run_name=self.flow_run.name,
            flow_name=plan.pipeline.pipeline,
            task_run_name="images",
        )
        self.began = time.monotonic()

    def run(self) -> State[Any]:
        outlive_readers()
        try:
            with ExitStack() as stack:
                if not self.job.in_process:
                    stack.enter_context(holding(self.run_id))
                scratch = stack.enter_context(scratch_folder(lambda: self.job.report))
                return self._run(scratch)
        except RainbowError as error:
            self.job.error = error  # for who started it in this process
            return Failed(message=str(error))

    def _run(self, scratch: Path) -> State[Any]:
        self.parameters = bound_values(self.plan, self.parameters)
        plan = self.job.bound or bind(self.plan, self.parameters)
        secrets = _secrets(plan, self.parameters)
        executors = executors_of(plan, secrets)
        events = Events([*observers_of(plan.app, plan.pipeline, secrets.render), *self.job.observers])
        minutes = plan.pipeline.timeout_minutes
        world = World(
            plan=plan,
            parameters=self.parameters,
            run_id=self.run_id,
            link=url_for(self.flow_run) or "",
            secrets=secrets,
            events=events,
            logs=Logs(),
            storage=Storage(self.context.result_store, self.run_id, scratch),
            executors=executors,
            artifacts=Artifacts(cast(SyncPrefectClient, self.context.client), self.run_id, plan.pipeline.pipeline),
            env=secrets.render({**plan.app.env_vars, **plan.pipeline.env_vars}),
            deadline=None if minutes is None else self.began + 60 * minutes,
            images=images_of(plan, executors),
            is_continued=self.flow_run.run_count > 0,
        )
        loop = Loop(world, self._submit, self._find)
        self.job.loop = loop
        world.send("run_started", seconds=late_seconds(self.flow_run))
        try:
            self._watched(loop)
        finally:
            self.ended.set()
            self._clean(world)
            world.logs.close()
        return self._end(loop)

    def _watched(self, loop: Loop) -> None:
        threading.Thread(target=copy_context().run, args=(self._watch, loop), name="watch", daemon=True).start()
        if self.job.stop is not None:
            threading.Thread(target=self._heed, args=(loop, self.job.stop), name="heed", daemon=True).start()
        try:
            failed = build_images(loop.world, lambda line: self._say(loop.world, line), self.stopping)
            if failed:
                loop.refuse(failed)
            else:
                loop.run()
        except (KeyboardInterrupt, TerminationSignal) as error:
            word = "interrupted" if isinstance(error, KeyboardInterrupt) else "ended by SIGTERM"
            loop.halt("cancelled", word)
            if not self.job.in_process:
                self._end(loop)
                raise
        except BaseException:
            loop.halt("cancelled", "the run broke")
            raise

    def _watch(self, loop: Loop) -> None:
        """Look about each second whether somebody cancelled the run."""
        pause = _POLL_SECONDS
        beat = time.monotonic()
        while not self.ended.wait(pause):
            asked = time.monotonic()
            if self.job.heartbeat_seconds and asked >= beat:
                self._beat()
                beat = asked + self.job.heartbeat_seconds
            try:
                state = self.context.client.read_flow_run(self.flow_run.id).state  # type: ignore[union-attr]
            except Exception as error:  # a server that is busy or away: ask again
                logger.debug("could not read the state of the run: %s", error)
                pause = 2 * _POLL_SECONDS
                continue
            if state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED):
                self._stop(loop, "the run was cancelled")
                return
            longest = min(_POLL_SHARE * (asked - self.began), _POLL_MOST_SECONDS)
            pause = max(_POLL_SECONDS, longest, 4 * (time.monotonic() - asked))

    def _beat(self) -> None:
        """Say that the run is alive, in the words of Prefect's own heartbeat."""
        run = self.flow_run
        with suppress(Exception):
            emit_event(
                event="prefect.flow-run.heartbeat",
                resource={"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name},
                related=[
                    {"prefect.resource.id": f"prefect.flow.{run.flow_id}", "prefect.resource.role": "flow"},
                    *(
                        {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}
                        for tag in run.tags
                    ),
                ],
            )

    def _heed(self, loop: Loop, stop: threading.Event) -> None:
        """Cancel the run once it is asked to stop."""
        while not self.ended.is_set():
            if stop.wait(_HEED_SECONDS):
                self._stop(loop, "interrupted")
                return

    def _stop(self, loop: Loop, message: str) -> None:
        loop.stop("cancelled", message)
        self.stopping.set()

    def _say(self, world: World, line: str) -> None:
        """A line in the log of the run that no task printed."""
        line = world.secrets.mask(line)
        world.logs.write(self.log, line)
        if world.events.wants_logs:
            world.send("log", line=line)

    def _clean(self, world: World) -> None:
        for executor in {id(one): one for one in world.executors.values()}.values():
            try:
                executor.clean(self.run_id)
            except RainbowError as error:
                logger.warning("executor '%s' could not clean up: %s", executor.type, error)
            except Exception:
                logger.warning("executor '%s' could not clean up", executor.type, exc_info=True)

    # -- slices

    def _submit(self, run: StepRun, one: Slice, before: Sequence[str]) -> Callable[[], str | None]:
        loop = self.job.loop
        assert loop is not None
        future = self.context.task_runner.submit(
            self._task(run),
            {"index": one.index},
            dependencies={"index": {TaskRunResult(id=UUID(task_run)) for task_run in before}},
        )
        one.id = str(future.task_run_id)
        future.add_done_callback(lambda _: loop.over(run, one))
        return lambda: _went_wrong(future)

    def _find(self, run: StepRun, key: str) -> Kept | None:
        if not run.world.is_continued:
            return None
        return run.world.storage.find(self._task(run), key)

    def _task(self, run: StepRun) -> PrefectTask[..., Any]:
        if run.name not in self.tasks:
            self.tasks[run.name] = _task(run)
        return self.tasks[run.name]

    # -- the end

    def _end(self, loop: Loop) -> State[Any]:
        world = loop.world
        state, message = _verdict(loop)
        seconds = time.monotonic() - self.began
        world.send("run_finished", state=state, message=message, seconds=seconds)
        world.events.close()
        self._tell_abandoned(world)
        self.job.report = Report(
            world.plan.pipeline.pipeline,
            self.run_id,
            state,
            message,
            seconds,
            world.link,
            [run.report() for run in loop.reports()],
            world.events.metrics(),
            [world.secrets.mask(text) for text in world.events.warnings()],
        )
        world.artifacts.close(self.job.report)
        match state:
            case "completed":
                return Completed(message=message)
            case "timed_out":
                return Failed(name="TimedOut", message=message)
            case "cancelled":
                return CancelledState(message=message)
            case _:
                return Failed(message=message)

    def _tell_abandoned(self, world: World) -> None:
        for one in world.abandoned:
            name = "TimedOut" if one.report.state == "timed_out" else None
            with suppress(Exception):
                self.context.client.set_task_run_state(
                    UUID(one.id), Failed(name=name, message=one.report.message), force=True
                )


def _verdict(loop: Loop) -> tuple[str, str]:
    world = loop.world
    if world.stopped is not None:
        return world.stopped, world.message
    failed = loop.failed()
    if failed:
        told = "; ".join(f"task '{run.name}' failed: {run.message}" for run in failed)
        return "failed", told[:20_000]
    return "completed", ""


def _task(run: StepRun) -> PrefectTask[..., Any]:
    """The Prefect task of a step: each run of it is one slice."""
    step = run.step
    is_split = step.task.is_split and not run.broken

    def named(parameters: Mapping[str, Any]) -> str:
        return f"{step.name}[{parameters['index']}]" if is_split else step.name

    def work(index: int) -> Any:
        context = TaskRunContext.get()
        assert context is not None
        one = run.slices[index]
        report = one.report
        packed = run.work(one, task_run_id=str(context.task_run.id), task_run_name=context.task_run.name)
        if packed is not None:
            return packed
        if report.state == "cancelled":
            return CancelledState(message=report.message)
        return Failed(name="TimedOut" if report.state == "timed_out" else None, message=report.message)

    def may_retry(task: Any, task_run: Any, state: Any) -> bool:
        return run.world.stopped is None and not run.broken

    task: PrefectTask[..., Any] = PrefectTask(
        work,
        name=step.name,
        description=step.task.description or None,
        tags=[run.world.secrets.mask(f"{key}:{value}") for key, value in step.task.labels.items()],
        task_run_name=cast(Any, named),
        retries=step.retries,
        retry_delay_seconds=0,
        retry_condition_fn=may_retry,
        persist_result=True,
        result_serializer=JSONSerializer(),
        cache_policy=CacheKeyFnPolicy(cache_key_fn=lambda context, parameters: run.slices[parameters["index"]].key),
        refresh_cache=True,
        cache_result_in_memory=False,
        log_prints=False,
    )
    task.task_key = f"{run.world.plan.pipeline.pipeline}.{step.name}"
    return task


def _went_wrong(future: Any) -> str | None:
    """What Prefect itself could not do with a task run, None when all is well."""
    error = future.wrapped_future.exception() if future.wrapped_future.done() else None
    if error is not None:
        return f"{type(error).__name__}: {error}"
    return None


# -- before a run


def bind(plan: Plan, parameters: Mapping[str, Any]) -> Plan:
    """The plan with these run parameters in place of their placeholders.

    Raises:
        CallError: a parameter is unknown, missing or of another type.
        ConfigError: with these parameters the pipeline is wrong.
    """
    return plan_of(plan.pipeline.bind(parameters, lookup=variable), executor=plan.executor)


def variable(name: str) -> Any:
    """A Prefect Variable, else an environment variable."""
    from prefect.variables import Variable

    try:
        found = Variable.get(name, _sync=True)  # type: ignore[call-overload]
    except (httpx.HTTPError, PrefectHTTPStatusError, ValueError):
        found = None
    return os.environ.get(name) if found is None else found


def _secrets(plan: Plan, parameters: Mapping[str, Any]) -> Secrets:
    from ..blocks import aws, secret

    secrets = Secrets(plan.app.secrets, plan.app.root, secret, load_aws=aws.secret)
    secrets.learn_from(plan.app.data)
    secrets.learn_from(dict(parameters))
    return secrets


def _stored(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as Prefect may keep them: none that is a secret."""
    return {name: _stored_value(name, value) for name, value in parameters.items()}


def _stored_value(name: str, value: Any) -> Any:
    if sensitive(name):
        return STARS
    return value.isoformat() if isinstance(value, date | datetime) else value


def run(
    plan: Plan,
    parameters: Mapping[str, Any] | None = None,
    *,
    observers: Sequence[Observer] = (),
    on_started: Callable[[str, str], None] | None = None,
    stop: threading.Event | None = None,
) -> Report:
    """Run a pipeline now, in this process, as a Prefect run, and wait until it ends; a failure is in the report.

    `on_started` is called with the flow-run id and its address in the UI ('' without one) before the first task.
    When `stop` is set the run is cancelled, and its report is given once all has stopped.

    Raises:
        CallError, ConfigError: nothing was started.
        RunError: Prefect cannot be reached.
    """
    bound = bind(plan, parameters or {})
    values = bound_values(plan, parameters or {})
    job = _Job(observers, bound, in_process=True, stop=stop)
    flow = _build(bound, lambda: job)
    with _client() as client:
        flow_run = client.create_flow_run(
            flow,
            parameters=_stored(values),
            tags=_tags(bound, values),
            context={PATH: str(_searched(bound))},
            state=Pending(message="started by rainbow run"),
        )
        return _execute(flow, flow_run, values, job, on_started)


def retry(
    plan: Plan | Loader,
    flow_run_id: str | UUID,
    parameters: Mapping[str, Any] | None = None,
    *,
    observers: Sequence[Observer] = (),
    on_started: Callable[[str, str], None] | None = None,
    stop: threading.Event | None = None,
) -> Report:
    """Run again what did not complete in a flow run, and what depends on it, in this process.

    `plan` is the plan of its pipeline, or a function that gives it by name. `parameters` win over those of the run;
    secret ones, which Prefect does not know, must be given again.

    Raises:
        CallError: there is no such run, it has completed, it is under way, or it is of another pipeline.
        RunError: Prefect cannot be reached.
    """
    with _client() as client:
        flow_run = _read(client, flow_run_id)
        name = client.read_flow(flow_run.flow_id).name
        found = plan if isinstance(plan, Plan) else plan(name)
        if found.pipeline.pipeline != name:
            raise CallError(f"run {flow_run.id} is of pipeline '{name}', not of '{found.pipeline.pipeline}'")
        _check_app(found, flow_run)
        given = _given(found, flow_run, parameters or {})
        bound = bind(found, given)
        values = bound_values(found, given)
        job = _Job(observers, bound, in_process=True, stop=stop)
        flow = _build(bound, lambda: job)
        with holding(str(flow_run.id)) as hold:
            _check_over(client, flow_run)
            client.set_flow_run_state(flow_run.id, Pending(message="started again by rainbow retry"), force=True)
            flow_run = client.read_flow_run(flow_run.id)
            # a run that was killed before it began has no earlier results, but looking for them does no harm
            flow_run.run_count = max(flow_run.run_count, 1)
            return _execute(flow, flow_run, values, job, on_started, hold)


def _read(client: SyncPrefectClient, flow_run_id: str | UUID) -> FlowRun:
    try:
        return client.read_flow_run(UUID(str(flow_run_id)))
    except (ObjectNotFound, ValueError):
        raise CallError(f"there is no run '{flow_run_id}'; `rainbow runs` lists them") from None


def _check_app(plan: Plan, flow_run: FlowRun) -> None:
    """A pipeline of the same name in another file is another pipeline."""
    apps = [tag.removeprefix(_APP) for tag in flow_run.tags if tag.startswith(_APP)]
    if apps and plan.app.name not in apps:
        raise CallError(
            f"run {flow_run.id} is of the app '{apps[-1]}', not of '{plan.app.name}' in {plan.app.root}; "
            "name the file or folder that it is in: --path"
        )


def _check_over(client: SyncPrefectClient, flow_run: FlowRun) -> None:
    state = flow_run.state
    if state is None:
        return
    if state.is_completed():
        raise CallError(f"run {flow_run.id} has completed; there is nothing to retry")
    if state.is_running() and not was_here(str(flow_run.id)):
        raise CallError(
            f"run {flow_run.id} is under way on another machine; wait for it, or stop it: rainbow cancel {flow_run.id}"
        )


def _given(plan: Plan, flow_run: FlowRun, parameters: Mapping[str, Any]) -> dict[str, Any]:
    known = {one.name for one in plan.pipeline.run_parameters}
    given = {name: value for name, value in flow_run.parameters.items() if name in known} | dict(parameters)
    hidden = [name for name, value in given.items() if value == STARS and sensitive(name)]
    if hidden:
        names = " ".join(f"--param {name}=..." for name in hidden)
        raise CallError(f"Prefect does not know secret parameters; give them again: {names}")
    return given


def bound_values(plan: Plan, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of a run, each as its type."""
    return plan.pipeline.values(parameters)


def _searched(plan: Plan) -> Path:
    """Where a search finds the pipeline again, with the supers that it needs."""
    file = plan.app.document.file.absolute()
    if file.name not in NAMES:
        return file
    return file.parents[len(Path(plan.app.shown).parts) - 1]


def _tags(plan: Plan, parameters: Mapping[str, Any]) -> list[str]:
    """The tags of a run; Prefect shows them to everybody."""
    mask = Masker([*secret_values(plan.app.data), *secret_values(parameters)]).mask
    app, pipeline = plan.app, plan.pipeline
    labels = {**app.labels, **pipeline.labels}
    owner = pipeline.owner or app.owner
    return list(
        dict.fromkeys(
            [
                *map(mask, app.tags),
                *map(mask, pipeline.tags),
                *(mask(f"{key}:{value}") for key, value in labels.items()),
                *([f"owner:{owner}"] if owner else []),
                f"{_APP}{app.name}",
            ]
        )
    )


class _client:
    """Prefect's client for all that a run asks; errors of the connection are told as `RunError`."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> SyncPrefectClient:
        try:
            return self._stack.enter_context(SyncClientContext.get_or_create()).client
        except (httpx.HTTPError, RuntimeError) as error:
            raise RunError(f"the Prefect API cannot be reached: {error}") from error

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._stack.__exit__(kind, error, trace)
        if isinstance(error, httpx.TransportError):
            with get_client(sync_client=True) as client:
                url = client.api_url
            raise RunError(f"the Prefect API at {url} cannot be reached: {error}") from error


@contextmanager
def _own_heartbeat() -> Iterator[int | None]:
    """Switch off Prefect's heartbeat, whose end a run would wait for, up to a second; gives its seconds for our own."""
    context = get_settings_context()
    flows = context.settings.flows
    silent = flows.model_copy(update={"heartbeat_frequency": None})
    with SettingsContext(profile=context.profile, settings=context.settings.model_copy(update={"flows": silent})):
        yield flows.heartbeat_frequency


def _execute(
    flow: Flow[..., Any],
    flow_run: FlowRun,
    values: Mapping[str, Any],
    job: _Job,
    on_started: Callable[[str, str], None] | None,
    hold: Hold | None = None,
) -> Report:
    with ExitStack() as stack:
        hold = hold or stack.enter_context(holding(str(flow_run.id)))
        if on_started is not None:
            on_started(str(flow_run.id), url_for(flow_run) or "")
        job.heartbeat_seconds = stack.enter_context(_own_heartbeat())
        try:
            run_flow(flow, flow_run=flow_run, parameters=dict(values), return_type="state")
        except (Abort, Pause) as error:
            if job.report is None:
                raise RunError(f"Prefect did not let the run start: {error}") from error
        except httpx.HTTPError as error:
            if job.report is None:
                raise
            hold.is_untold = True
            _tell_untold(job.report, error)
    if job.error is not None:
        raise job.error
    report, job.report = job.report, None  # Prefect keeps the flow and so the job: the report is the caller's alone
    assert report is not None, "a flow that ran left a report"
    return report


def _tell_untold(report: Report, error: Exception) -> None:
    """A run whose end Prefect does not know has not completed, whatever its tasks did."""
    text = (
        f"the Prefect server was not told that the run {report.state.replace('_', ' ')} ({error}); when it answers again, "
        f"run `rainbow retry {report.flow_run_id}`, which runs nothing again that completed"
    )
    if report.completed:
        report.state, report.message = "failed", text
    report.warnings.append(text)
