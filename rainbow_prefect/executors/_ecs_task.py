"""One task of ECS from RunTask to its end: states, log, stop. What AWS says is put into words by `_ecs_failures`."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled, TaskFailed, TimedOut
from ..run import Output, Run
from . import _aws, _ecs_definition, _ecs_failures
from ._lines import Lines
from ._remote import BROKEN, Remote

if TYPE_CHECKING:
    from .ecs import Ecs

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
LOG_CALLS_PER_SECOND = 8
"""All slices of a process together; an account has 25 calls of GetLogEvents a second in a region."""
LOG_LINES = 1_000_000
"""So many lines of a slice are kept in the log; later ones only count."""
LATE_LOG_SECONDS = 20.0
"""How long a log may be quiet before its last line, of which we know that it must come."""
QUIET_SECONDS = 4.0
"""How long a log must be quiet to be over when the container was killed."""
AFTER_STOP_SECONDS = 15.0
"""How long beyond the grace a stopped task may take until it is left to ECS, which ends it in any case."""
_GONE_POLLS = 5
_THROTTLED = ("ThrottlingException", "TooManyRequestsException", "ServiceUnavailable", "ServerException", "Throttling")
_BATCH = 100
_NO_TAG = re.compile(r"[^\w\s+\-=.:/@]")


@dataclass(frozen=True)
class Clients:
    """The clients of boto3 that a task needs."""

    ecs: Any
    logs: Any

    @property
    def region(self) -> str:
        return str(self.ecs.meta.region_name)


def run(executor: Ecs, clients: Clients, remote: Remote) -> Output:
    """Run one slice to its end; when this returns its task has stopped, or was told to.

    Raises:
        TaskFailed: it could not be started, or failed.
        TimedOut: the deadline passed.
        Cancelled: the run was stopped.
    """
    begun = time.monotonic()
    if _is_stopped(remote.run):
        raise _stopped(remote.run, 0)
    definition = _registered(executor, clients, remote)
    if executor.exchange is None and _log_settings(definition) is None:
        raise TaskFailed(
            "without an `exchange` the outcome comes back by the log driver awslogs, with a stream prefix; "
            "name an `exchange`, or correct `logConfiguration` in `task_definition`"
        )
    arn = _started(executor, clients, remote, definition["family"], begun)
    task = _Task(executor, clients, remote, arn, definition, begun)
    board = _board(clients, executor.cluster, executor.poll_seconds)
    board.watch(arn)
    try:
        return task.to_end(board)
    finally:
        board.forget(arn)
        if not task.is_over:
            _stop(clients, executor.cluster, arn, "rainbow: the run ended")


def stop_all(executor: Ecs, clients: Clients, run_id: str) -> None:
    """Stop every task of a run.

    Raises:
        RunError: AWS says no.
    """
    with _told("the tasks of the run cannot be listed"):
        pages = clients.ecs.get_paginator("list_tasks").paginate(cluster=executor.cluster, startedBy=started_by(run_id))
        arns = [arn for page in pages for arn in page["taskArns"]]
    for arn in arns:
        _stop(clients, executor.cluster, arn, "rainbow: the run ended")


def all_tasks(clients: Clients, cluster: str) -> list[dict[str, Any]]:
    """The tasks of all runs that have not stopped, with `tags` as a mapping.

    Raises:
        TaskFailed: AWS says no.
    """
    found = []
    with _told("the tasks of the cluster cannot be listed"):
        pages = clients.ecs.get_paginator("list_tasks").paginate(cluster=cluster)
        arns = [arn for page in pages for arn in page["taskArns"]]
        for at in range(0, len(arns), _BATCH):
            answer = clients.ecs.describe_tasks(cluster=cluster, tasks=arns[at : at + _BATCH], include=["TAGS"])
            for task in answer["tasks"]:
                tags = {one["key"]: one["value"] for one in task.get("tags", ())}
                if tags.get("rainbow.flow-run") and task.get("lastStatus") != "STOPPED":
                    found.append({**task, "tags": tags})
    return found


def stop(clients: Clients, cluster: str, arn: str, reason: str) -> None:
    """Stop a task. Raises TaskFailed when AWS says no."""
    from botocore.exceptions import ClientError

    try:
        with _told(f"the task {arn.rpartition('/')[2]} cannot be stopped", passing=(ClientError,)):
            clients.ecs.stop_task(cluster=cluster, task=arn, reason=reason)
    except ClientError as error:
        if _aws.code(error) != "InvalidParameterException":
            raise _aws.failed(f"the task {arn.rpartition('/')[2]} cannot be stopped", error, _hint(error)) from None


def made_definitions(clients: Clients) -> list[dict[str, Any]]:
    """The active definitions that were registered for slices, which their tag tells.

    Raises:
        TaskFailed: AWS says no.
    """
    found = []
    with _told("the task definitions cannot be listed"):
        pages = clients.ecs.get_paginator("list_task_definitions").paginate(status="ACTIVE")
        for arn in [arn for page in pages for arn in page["taskDefinitionArns"]]:
            if arn.rpartition("/")[2].startswith(_ecs_definition.FAMILY):
                answer = clients.ecs.describe_task_definition(taskDefinition=arn, include=["TAGS"])
                if _MADE in answer.get("tags", ()):
                    found.append(answer["taskDefinition"])
    return found


def deregister(clients: Clients, arn: str) -> None:
    """Deregister a definition. Raises TaskFailed when AWS says no."""
    with _told(f"the task definition {arn.rpartition('/')[2]} cannot be deregistered"):
        clients.ecs.deregister_task_definition(taskDefinition=arn)
    _forget(clients, arn.rpartition("/")[2].partition(":")[0])


def started_by(run_id: str) -> str:
    """What marks the tasks of a run."""
    return f"rainbow-{run_id}"[:128]


# -- before


_lock = threading.Lock()
_known: dict[tuple[int, str], Any] = {}
_bases: dict[tuple[int, str, str], tuple[Any, Mapping[str, Any]]] = {}
_BASES = 32
_MADE = {"key": "rainbow.made", "value": "yes"}


def _registered(executor: Ecs, clients: Clients, remote: Remote) -> dict[str, Any]:
    """The definition for this command, registered at its first use only."""
    base = _base(clients, executor.task_definition, remote.run.run_id)
    made = _ecs_definition.definition(executor, remote.command, remote.argv, base=base, region=clients.region)
    key = (id(clients.ecs), made["family"])
    with _lock:
        if key not in _known:
            _ensure_log_group(executor, clients)
            if not _is_active(clients, made["family"]):
                with _told("the task definition cannot be registered", "correct `task_definition` of the executor"):
                    clients.ecs.register_task_definition(**made, tags=[_MADE])
            _known[key] = clients.ecs  # keeps the client, so that its id stays its own
    return made


def _forget(clients: Clients, family: str) -> None:
    with _lock:
        _known.pop((id(clients.ecs), family), None)


def _base(clients: Clients, name: Any, run_id: str) -> Mapping[str, Any] | None:
    """The user's own definition of this name, read once in a run."""
    if not isinstance(name, str):
        return None
    key = (id(clients.ecs), name, run_id)
    with _lock:
        if key not in _bases:
            with _told(f"the task definition '{name}' cannot be read", "correct `task_definition` of the executor"):
                answer = clients.ecs.describe_task_definition(taskDefinition=name)
            _bases[key] = (clients.ecs, answer["taskDefinition"])
            while len(_bases) > _BASES:
                del _bases[next(iter(_bases))]
        found: Mapping[str, Any] = _bases[key][1]
        return found


def _is_active(clients: Clients, family: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        with _told("the task definition cannot be read", passing=(ClientError,)):
            answer = clients.ecs.describe_task_definition(taskDefinition=family)
        return bool(answer["taskDefinition"].get("status") == "ACTIVE")
    except ClientError as error:
        if _aws.code(error) in ("ClientException", "InvalidParameterException"):  # there is none of that name
            return False
        raise _aws.failed("the task definition cannot be read", error) from None


def _ensure_log_group(executor: Ecs, clients: Clients) -> None:
    """Make the log group; who may not has one, or is told by ECS that it is missing."""
    from botocore.exceptions import ClientError

    if executor.log_group is None:
        return
    try:
        with _told(f"the log group '{executor.log_group}' cannot be made", passing=(ClientError,)):
            clients.logs.create_log_group(logGroupName=executor.log_group)
    except ClientError as error:
        if _aws.code(error) not in (
            "ResourceAlreadyExistsException",
            "AccessDeniedException",
            "OperationAbortedException",
        ):
            raise _aws.failed(f"the log group '{executor.log_group}' cannot be made", error) from None


def _started(executor: Ecs, clients: Clients, remote: Remote, family: str, begun: float) -> str:
    """The ARN of a new task; what may pass (no capacity, too many calls) is waited for."""
    from botocore.exceptions import BotoCoreError, ClientError

    run, request = remote.run, _request(executor, remote, family)
    is_told, is_again, delay = False, False, 1.0
    while True:
        reason = detail = ""
        try:
            answer = clients.ecs.run_task(**request)
            if answer["tasks"]:
                return str(answer["tasks"][0]["taskArn"])
            failed = (answer.get("failures") or [{}])[0]
            reason, detail = str(failed.get("reason", "ECS gave no reason")), str(failed.get("detail") or "")
            if not _ecs_failures.is_passing(reason):
                raise TaskFailed(_ecs_failures.not_started(reason, detail, executor.cluster, 0))
        except ClientError as error:
            reason = _aws.reason(error)
            if _is_deregistered(error) and not is_again:
                is_again = True
                _forget(clients, family)
                _registered(executor, clients, remote)
                continue
            if _aws.code(error) not in _THROTTLED and not _ecs_failures.is_passing(reason):
                raise _aws.failed("the task cannot be started", error, _hint(error)) from None
        except BotoCoreError as error:
            raise _aws.failed("the task cannot be started", error) from None
        waited = time.monotonic() - begun
        if waited + delay > executor.startup_timeout_seconds:
            raise TaskFailed(
                _ecs_failures.not_started(reason, detail, executor.cluster, executor.startup_timeout_seconds)
            )
        if not is_told:
            run.write(f"waiting for ECS to take the task: {reason}")
            is_told = True
        _sleep(run, delay)
        if _is_stopped(run):
            raise _stopped(run, time.monotonic() - begun)
        delay = min(15.0, delay * 1.6)


def _is_deregistered(error: Exception) -> bool:
    """Whether somebody deregistered the definition since this process registered it."""
    return _aws.code(error) == "ClientException" and "definition" in _aws.reason(error).lower()


def _request(executor: Ecs, remote: Remote, family: str) -> dict[str, Any]:
    run = remote.run
    tags = {
        **executor.tags,
        **remote.command.labels,
        "rainbow.flow-run": run.run_id,
        "rainbow.task-run": run.task_run_id,
        "rainbow.app": run.app,
        "rainbow.pipeline": run.pipeline,
        "rainbow.task": run.task,
        "rainbow.slice": str(run.index),
    }
    environment = [{"name": name, "value": value} for name, value in remote.env.items()]
    request: dict[str, Any] = {
        "cluster": executor.cluster,
        "taskDefinition": family,
        "count": 1,
        "clientToken": remote.token,
        "startedBy": started_by(run.run_id),
        "tags": [
            {"key": _NO_TAG.sub("_", key)[:128], "value": _NO_TAG.sub("_", value)[:256]}
            for key, value in tags.items()
            if value
        ],
        "overrides": {"containerOverrides": [{"name": _ecs_definition.CONTAINER, "environment": environment}]},
    }
    if executor.capacity_provider is not None:
        request["capacityProviderStrategy"] = [{"capacityProvider": executor.capacity_provider, "weight": 1}]
    else:
        request["launchType"] = executor.launch_type or "FARGATE"
    if executor.subnets:
        network: dict[str, Any] = {"subnets": [*executor.subnets]}
        if executor.security_groups:
            network["securityGroups"] = [*executor.security_groups]
        if executor.is_fargate:
            network["assignPublicIp"] = "ENABLED" if executor.assign_public_ip else "DISABLED"
        request["networkConfiguration"] = {"awsvpcConfiguration": network}
    if executor.is_fargate and executor.platform_version is not None:
        request["platformVersion"] = executor.platform_version
    return request


def _hint(error: Exception) -> str:
    return {
        "ClusterNotFoundException": "correct `cluster`",
        "AccessDeniedException": "allow it to the credentials (docs/ecs.md has the policy)",
        "InvalidParameterException": "correct the fields of the executor",
        "UnrecognizedClientException": "correct the credentials",
        "ExpiredTokenException": "renew the credentials",
    }.get(_aws.code(error), "")


# -- while it runs


class _Board:
    """The states of all tasks that this process watches in a cluster; asked for once for all of them."""

    def __init__(self, clients: Clients, cluster: str, poll_seconds: float) -> None:
        self._clients = clients
        self._cluster = cluster
        self._poll_seconds = poll_seconds
        self._lock = threading.Lock()
        self._tasks: dict[str, Mapping[str, Any] | None] = {}
        self._misses: dict[str, int] = {}
        self._asked = 0.0
        self._pause = 0.0

    def watch(self, arn: str) -> None:
        with self._lock:
            self._tasks[arn] = None
            self._asked = 0.0

    def forget(self, arn: str) -> None:
        with self._lock:
            self._tasks.pop(arn, None)
            self._misses.pop(arn, None)

    @property
    def count(self) -> int:
        return max(1, len(self._tasks))

    def state(self, arn: str) -> Mapping[str, Any] | None:
        """What ECS says of a task, not older than `poll_seconds`; None before it says anything.

        Raises:
            TaskFailed: ECS says no, or does not know the task.
        """
        with self._lock:
            if time.monotonic() - self._asked >= self._poll_seconds + self._pause:
                self._ask()
            if self._misses.get(arn, 0) >= _GONE_POLLS:
                raise TaskFailed(f"ECS does not know the task any more: {arn.rpartition('/')[2]}")
            return self._tasks.get(arn)

    def _ask(self) -> None:
        from botocore.exceptions import ClientError

        arns = [arn for arn, task in self._tasks.items() if task is None or task.get("lastStatus") != "STOPPED"]
        try:
            for at in range(0, len(arns), _BATCH):
                with _told("the state of tasks cannot be asked for", passing=(ClientError,)):
                    answer = self._clients.ecs.describe_tasks(cluster=self._cluster, tasks=arns[at : at + _BATCH])
                for task in answer["tasks"]:
                    self._tasks[task["taskArn"]] = task
                    self._misses.pop(task["taskArn"], None)
                for one in answer.get("failures") or ():
                    if one.get("arn") in self._tasks:
                        self._misses[one["arn"]] = self._misses.get(one["arn"], 0) + 1
            self._pause = 0.0
        except ClientError as error:
            if _aws.code(error) not in _THROTTLED:
                raise _aws.failed("the state of tasks cannot be asked for", error, _hint(error)) from None
            self._pause = min(30.0, 2 * self._pause + 1)
        finally:
            self._asked = time.monotonic()


_boards: dict[tuple[int, str, float], _Board] = {}


def _board(clients: Clients, cluster: str, poll_seconds: float) -> _Board:
    with _lock:
        key = (id(clients.ecs), cluster, poll_seconds)
        if key not in _boards:
            _boards[key] = _Board(clients, cluster, poll_seconds)
        return _boards[key]


@dataclass
class _Log:
    """The log of one container, read forward: each event once, in order."""

    client: Any
    group: str
    stream: str
    feed: Callable[[str], None]
    token: str | None = None
    last_news: float = field(default_factory=time.monotonic)
    pause: float = 0.0

    def read(self) -> None:
        """Take all that is there."""
        from botocore.exceptions import ClientError

        try:
            with _told("the log cannot be read", passing=(ClientError,)):
                while self._page():
                    pass
            self.pause = 0.0
        except ClientError as error:
            if _aws.code(error) in _THROTTLED:
                self.pause = min(30.0, 2 * self.pause + 1)
            elif _aws.code(error) != "ResourceNotFoundException":  # there is no line yet
                raise _aws.failed(f"the log group '{self.group}' cannot be read", error, _hint(error)) from None

    def _page(self) -> bool:
        position = {"nextToken": self.token} if self.token else {}
        answer = self.client.get_log_events(
            logGroupName=self.group, logStreamName=self.stream, startFromHead=True, **position
        )
        for event in answer["events"]:
            self.feed(event["message"])
            self.last_news = time.monotonic()
        before, self.token = self.token, answer["nextForwardToken"]
        return bool(answer["events"]) or before is None or before != self.token


@dataclass
class _Task:
    """A task that was started."""

    executor: Ecs
    clients: Clients
    remote: Remote
    arn: str
    definition: Mapping[str, Any]
    begun: float
    is_over: bool = False
    _exit_code: int | None = None

    def __post_init__(self) -> None:
        self.run: Run = self.remote.run
        self.lines = Lines(self.run.write, limit=LOG_LINES)
        self.log = self._log()
        self.log_asked = 0.0

    def to_end(self, board: _Board) -> Output:
        """Watch it until it has stopped."""
        stopped_by_us: TaskFailed | None = None
        left_to_ecs_at = float("inf")
        has_run = False
        while True:
            task = board.state(self.arn) or {}
            status = str(task.get("lastStatus", "PROVISIONING"))
            has_run = has_run or status in ("RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED")
            if has_run:
                self._read_log(board)
            now = time.monotonic()
            if status == "STOPPED" or now > left_to_ecs_at:
                self.is_over = True
                return self._ended(task, stopped_by_us)
            if stopped_by_us is None:
                stopped_by_us = self._reason_to_stop(status, has_run=has_run)
                if stopped_by_us is not None:
                    self._stop(stopped_by_us.message)
                    left_to_ecs_at = now + self.executor.stop_grace_seconds + AFTER_STOP_SECONDS
                    continue
            if stopped_by_us is None:
                _sleep(self.run, LOOK_SECONDS)
            else:
                time.sleep(LOOK_SECONDS)

    def _reason_to_stop(self, status: str, *, has_run: bool) -> TaskFailed | None:
        run = self.run
        if _is_stopped(run):
            return _stopped(run, time.monotonic() - self.begun)
        if self.lines.count > self.executor.max_lines:
            return self._printed_too_much()
        limit = self.executor.startup_timeout_seconds
        if not has_run and time.monotonic() - self.begun > limit:
            return TaskFailed(
                f"the task did not start within {limit:g} s, its state is {status}; raise `startup_timeout_seconds`, "
                "or look at the task in the ECS console"
            )
        return None

    def _printed_too_much(self) -> TaskFailed:
        return TaskFailed(
            f"it printed more than {self.executor.max_lines} lines and was ended; print less, "
            "or raise `max_lines` of the executor"
        )

    def _stop(self, reason: str) -> None:
        _stop(self.clients, self.executor.cluster, self.arn, f"rainbow: {reason}")

    def _log(self) -> _Log | None:
        found = _log_settings(self.definition)
        if found is None:
            return None
        group, prefix = found
        stream = f"{prefix}/{_ecs_definition.CONTAINER}/{self.arn.rpartition('/')[2]}"
        return _Log(self.clients.logs, group, stream, self._take)

    def _take(self, message: str) -> None:
        shown = self.remote.take(message)
        if shown is not None:
            self.lines.feed(shown.encode("utf-8", "replace") + b"\n")

    def _read_log(self, board: _Board) -> None:
        if self.log is None:
            return
        every = max(self.executor.poll_seconds, board.count / LOG_CALLS_PER_SECOND) + self.log.pause
        if time.monotonic() - self.log_asked >= every:
            self.log.read()
            self.log_asked = time.monotonic()

    def _drain(self, *, wait: bool) -> None:
        """Read the log to its end: CloudWatch shows the last lines a little after the task has stopped."""
        if self.log is None:
            return
        self.log.read()
        while wait and not self.remote.is_log_whole and not _is_stopped(self.run):
            quiet = time.monotonic() - self.log.last_news
            if self._says_more() and quiet > LATE_LOG_SECONDS:
                self.run.write("... the end of the log did not arrive in CloudWatch Logs")
                break
            if not self._says_more() and quiet > QUIET_SECONDS:
                break
            time.sleep(max(LOOK_SECONDS, min(1.0, self.executor.poll_seconds)) + self.log.pause)
            self.log.read()
        self.lines.close()

    def _says_more(self) -> bool:
        """Whether the container ended by itself, so that the last line of its log is still to come."""
        return self._exit_code is not None and self._exit_code not in (BROKEN, 137, 143)

    def _ended(self, task: Mapping[str, Any], stopped_by_us: TaskFailed | None) -> Output:
        container: Mapping[str, Any] = next(
            (one for one in task.get("containers") or () if one["name"] == _ecs_definition.CONTAINER), {}
        )
        self._exit_code = container.get("exitCode")
        never_ran = self._exit_code is None
        if self.log is not None:
            self.log.last_news = time.monotonic()
        self._drain(wait=not never_ran and stopped_by_us is None)
        tail = tuple(self.run.secrets.mask(line) for line in self.lines.tail)
        if stopped_by_us is None and self.lines.count > self.executor.max_lines:
            stopped_by_us = self._printed_too_much()
        if stopped_by_us is not None:
            raise type(stopped_by_us)(stopped_by_us.message, tail=tail)
        outcome = self.remote.outcome()
        if outcome is not None and not (outcome.status != 0 and "OutOfMemory" in str(container.get("reason"))):
            return self.remote.result(outcome, tail)
        image = _ecs_definition.container_of(self.definition)["image"]
        raise _ecs_failures.why(task, container, image, tail)


# -- small


def _log_settings(definition: Mapping[str, Any]) -> tuple[str, str] | None:
    """The group and the prefix of streams of CloudWatch; None when the user's definition has its log elsewhere."""
    settings = _ecs_definition.container_of(definition).get("logConfiguration") or {}
    options = settings.get("options") or {}
    if settings.get("logDriver") != "awslogs" or not options.get("awslogs-stream-prefix"):
        return None
    return options["awslogs-group"], options["awslogs-stream-prefix"]


def _stop(clients: Clients, cluster: str, arn: str, reason: str) -> None:
    """Ask ECS to stop a task; a task that has stopped already is no error."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        clients.ecs.stop_task(cluster=cluster, task=arn, reason=reason[:255])
    except (ClientError, BotoCoreError) as error:
        if _aws.code(error) != "InvalidParameterException":
            logger.warning("the task %s could not be stopped: %s", arn.rpartition("/")[2], _aws.reason(error))


def _is_stopped(run: Run) -> bool:
    return run.stop.is_set() or run.remaining_seconds() == 0


def _stopped(run: Run, seconds: float) -> TaskFailed:
    if run.stop.is_set() and not run.timed_out:
        return Cancelled("cancelled; its ECS task was stopped")
    return TimedOut(f"timed out after {seconds:.1f} s; its ECS task was stopped")


def _sleep(run: Run, seconds: float) -> None:
    remaining = run.remaining_seconds()
    run.stop.wait(seconds if remaining is None else min(seconds, remaining + 0.001))


@contextlib.contextmanager
def _told(doing: str, hint: str = "", *, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turns errors of AWS into TaskFailed, but for those of `passing`."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except passing:
        raise
    except (BotoCoreError, ClientError) as error:
        raise _aws.failed(doing, error, hint or _hint(error)) from None
