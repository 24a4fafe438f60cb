"""The executor `ecs`: each slice is a task of Amazon ECS, on Fargate or on machines of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from ..errors import MissingExtra, RunError
from ..run import Command, Output, Run
from ..schema import EnvVars, Many, Positive, Seconds, Text, wrong
from . import _aws, _ecs_definition, _ecs_task, _ecs_watch, _remote
from ._exchange import Exchange
from .base import Executor

OVERRIDE_CHARACTERS = 6000
"""ECS takes 8192 characters of overrides, names and braces included."""
LOG_OUTPUT_BYTES = 200_000
"""An output whose packed form is larger does not come back by the log."""


def _s_grace(value: float) -> float:
    if 2 <= value <= 120:
        return value
    raise wrong(f"must be from 2 to 120, got {value:g}", hint="ECS waits no longer")


class Ecs(Executor):
    """Runs each slice as a task of Amazon ECS. Logs come from CloudWatch, files pass through an exchange."""

    runs_images: ClassVar[bool] = True

    type: Literal["ecs"] = "ecs"
    cluster: str = Field(default="default", min_length=1, description="The name or ARN of the cluster.")
    launch_type: Literal["FARGATE", "EC2"] | None = Field(
        default=None, description="Where tasks run; absent: FARGATE, unless `capacity_provider` says it."
    )
    capacity_provider: str | None = Field(
        default=None, description="A capacity provider of the cluster, e.g. FARGATE_SPOT, instead of `launch_type`."
    )
    subnets: tuple[str, ...] = Field(default=(), description="Subnets of the tasks; Fargate needs one at least.")
    security_groups: tuple[str, ...] = Field(default=(), description="Security groups; absent: the VPC's default.")
    assign_public_ip: bool = Field(default=False, description="Give tasks a public address (in public subnets).")
    cpu: Positive = Field(default=256, description="CPU units, 1024 are one CPU; on Fargate rounded up to what it has.")
    memory: Positive = Field(default=512, description="Memory in MiB; on Fargate rounded up to what it has.")
    execution_role: str | None = Field(
        default=None, description="ARN of the role by which ECS pulls the image and writes the log."
    )
    task_role: str | None = Field(default=None, description="ARN of the role that the code has.")
    task_definition: str | dict[str, Any] | None = Field(
        default=None,
        description="A family or ARN to start from, or fields of RegisterTaskDefinition to merge in; its container "
        f"`{_ecs_definition.CONTAINER}` is the code's.",
    )
    log_group: str | None = Field(
        default="/rainbow/ecs", description="The CloudWatch log group, made when missing; null: no log is kept."
    )
    region: str | None = Field(default=None, description="The AWS region; else that of the block or the environment.")
    endpoint_url: str | None = Field(default=None, description="Another address of ECS and CloudWatch Logs.")
    credentials: Annotated[str, AfterValidator(_aws.credentials_of)] | None = Field(
        default=None, description="block:aws-credentials/NAME; else the environment's credentials."
    )
    exchange: Exchange | None = Field(
        default=None, description="Where secrets, large inputs and large outputs pass: a bucket or a volume."
    )
    image: Text = Field(default="python:3.11-slim", description="The image of tasks that have none.")
    platform_version: str | None = Field(default=None, description="The platform version of Fargate, e.g. 1.4.0.")
    tags: EnvVars = Field(default_factory=dict, description="More tags of the tasks.")
    env_vars: EnvVars = Field(default_factory=dict, description="Environment variables of all that runs here.")
    stop_grace_seconds: Annotated[Seconds, AfterValidator(_s_grace)] = Field(
        default=10, description="Seconds between SIGTERM and SIGKILL when a slice is cancelled or timed out."
    )
    startup_timeout_seconds: Seconds = Field(
        default=600, description="How long a task may wait for capacity, its image and its start."
    )
    active_deadline_seconds: Positive = Field(
        default=86_400, description="Seconds after which a task ends itself; a shorter timeout of the task wins."
    )
    poll_seconds: Seconds = Field(default=2, description="How often states and logs are asked for, at most.")
    max_lines: Many = Field(default=2_000_000, description="A slice that prints more lines fails.")

    @model_validator(mode="after")
    def _fits(self) -> Ecs:
        if self.launch_type is not None and self.capacity_provider is not None:
            raise wrong("`launch_type` and `capacity_provider` exclude each other", hint="keep one of them")
        if self.is_fargate and not self.subnets:
            raise wrong("Fargate needs `subnets`", hint="name one or more, e.g. subnets: [subnet-0abc]")
        if self.log_group is None and self.exchange is None:
            raise wrong(
                "without a log and an exchange nothing can come back", hint="name a `log_group` or an `exchange`"
            )
        return self

    @property
    def is_fargate(self) -> bool:
        """Whether tasks run on Fargate."""
        if self.capacity_provider is not None:
            return self.capacity_provider.startswith("FARGATE")
        return self.launch_type != "EC2"

    def run(self, command: Command, run: Run) -> Output:
        remote = _remote.prepare(
            command,
            run,
            self.exchange,
            hides=False,
            hand="log" if self.exchange is None else "exchange",
            inline_bytes=LOG_OUTPUT_BYTES,
            what="the executor 'ecs'",
            env=self.env_vars,
            env_characters=OVERRIDE_CHARACTERS,
            marks_log=self.log_group is not None,
            longest_seconds=self.active_deadline_seconds,
            start_seconds=self.startup_timeout_seconds + 60,
        )
        _ecs_watch.begin(self, run.run_id)
        try:
            return _ecs_task.run(self, self.aws(run), remote)
        finally:
            remote.clean()

    def clean(self, run_id: str) -> None:
        try:
            _ecs_task.stop_all(self, self.aws(), run_id)
        except (RunError, MissingExtra) as error:
            _ecs_task.logger.warning("tasks of run %s could not be looked for: %s", run_id, error)
        if self.exchange is not None:
            self.exchange.clean(run_id)
        _ecs_watch.end(self, run_id)

    def aws(self, run: Run | None = None) -> _ecs_task.Clients:
        """The clients of ECS and CloudWatch Logs; raises RunError."""
        ecs, logs = (
            _aws.client(
                service,
                credentials=self.credentials,
                region=self.region,
                endpoint_url=self.endpoint_url,
                what="the executor 'ecs'",
                learn=run.secrets.learn if run is not None else lambda _: None,
            )
            for service in ("ecs", "logs")
        )
        return _ecs_task.Clients(ecs, logs)


# -- what killed runs left


@dataclass(frozen=True)
class Orphan:
    """A task of some run that has not stopped: `created` is its time in UTC."""

    name: str
    cluster: str
    run_id: str
    task: str
    created: str
    is_running: bool


def orphans(executor: Ecs) -> list[Orphan]:
    """All tasks in the executor's cluster that rainbow started; who knows which runs are under way picks from them.

    Raises:
        RunError: AWS cannot be asked.
    """
    return [
        Orphan(
            name=one["taskArn"],
            cluster=executor.cluster,
            run_id=one["tags"].get("rainbow.flow-run", ""),
            task=one["tags"].get("rainbow.task", ""),
            created=str(one.get("createdAt", "")),
            is_running=one.get("lastStatus") == "RUNNING",
        )
        for one in _ecs_task.all_tasks(executor.aws(), executor.cluster)
    ]


def remove(executor: Ecs, orphan: Orphan) -> None:
    """Stop a task; one that has stopped already is no error. Raises RunError."""
    _ecs_task.stop(executor.aws(), orphan.cluster, orphan.name, "rainbow: gc")


@dataclass(frozen=True)
class Definition:
    """A task definition that was made for slices: `created` is its time in UTC."""

    name: str
    created: str


def definitions(executor: Ecs) -> list[Definition]:
    """The active task definitions of the region that were made for slices.

    Raises:
        RunError: AWS cannot be asked.
    """
    found = _ecs_task.made_definitions(executor.aws())
    return [Definition(one["taskDefinitionArn"], str(one.get("registeredAt", ""))) for one in found]


def deregister(executor: Ecs, definition: Definition) -> None:
    """Deregister a task definition.

    A run that is under way keeps the tasks that have started; its next ones register what they need again.

    Raises:
        RunError: AWS says no.
    """
    _ecs_task.deregister(executor.aws(), definition.name)
