"""App, Pipeline, Service, Image: what a checked `rainbow.yml` holds. How it is read and proved is in `building`, `proofs`."""

from __future__ import annotations

import json
import keyword
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from .deployment import AnyCode, AnyConcurrencyLimit, JobVariables, PoolName, Slug, Trigger, WorkPool
from .errors import CallError, near
from .executors.base import AnyExecutor, Executor
from .observers.alerts import AnyAlert
from .observers.base import AnyObserver, Observer
from .registry import executors, observers
from .schedule import cron_flaw, zone_flaw
from .schema import (
    BuildArgs,
    Config,
    Count,
    EnvVars,
    ImageName,
    Many,
    Minutes,
    Name,
    Positive,
    PythonVersion,
    Seconds,
    Text,
    kind_of,
    wrong,
)
from .secrets import Secret
from .sql_etl.config import AnySink, AnySource
from .tasks.base import AnyTask, Mount, Resources, Task, TaskSecret

if TYPE_CHECKING:
    from .document import Document, Map
    from .plan import Plan
    from .resolve import Resolved
    from .run import Report
    from .variables import Lookup

DEFAULT_EXECUTOR = "process"
"""The type of executor of a task that names none."""

BLOCK = "block:"
"""What a reference to a Prefect block starts with: `block:TYPE/NAME`."""


# -- parameters

Kind = Literal["str", "int", "float", "bool", "date", "datetime", "list", "dict"]

_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "date": "a date such as 2024-01-31",
    "datetime": "a time such as 2024-01-31T08:00:00",
    "list": "a list",
    "dict": "a mapping",
}
_TYPES: Mapping[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "date": date,
    "datetime": datetime,
    "list": list,
    "dict": dict,
}
_TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _kind_of_default(value: Any) -> Kind:
    kinds: tuple[Kind, ...] = ("bool", "int", "float", "str", "datetime", "date", "list", "dict")
    return next((kind for kind in kinds if isinstance(value, _TYPES[kind])), "str")


class Parameter(Config):
    """What a run may be given: `{{name}}` is its value, and it is a typed parameter of the Prefect flow."""

    name: Annotated[str, Field(min_length=1)] = Field(description="The name: letters, digits and `_`.")
    type: Kind = Field(default="str", description="The type; absent: that of the default.")
    default: Any = Field(default=None, description="The value when a run gives none; absent: a run must give one.")
    description: str = Field(default="", description="What it is for; shown in the Prefect UI.")

    @model_validator(mode="after")
    def _fits(self) -> Parameter:
        if not self.name.isidentifier() or keyword.iskeyword(self.name):
            raise wrong(
                f"'{self.name}' is not a valid name of a parameter", hint="use letters, digits and '_' only", at="name"
            )
        if "type" not in self.model_fields_set:
            object.__setattr__(self, "type", _kind_of_default(self.default))
        if self.default is not None:
            try:
                object.__setattr__(self, "default", self.value_of(self.default))
            except ValueError as error:
                raise wrong(f"`default` {error}", hint=f"the type is {self.type}", at="default") from None
        return self

    @property
    def is_required(self) -> bool:
        """Whether a run must give a value."""
        return self.default is None

    @property
    def python_type(self) -> Any:
        """The type of its values."""
        return _TYPES[self.type]

    def value_of(self, given: Any) -> Any:
        """A value from a file, a command line or an API, as this type.

        Raises:
            ValueError: it is none; the text goes after the name: `must be a whole number, got 'x'`.
        """
        value = _converted(self.type, given)
        if value is None:
            raise ValueError(f"must be {_WORDS[self.type]}, got {_shown(given)}")
        return value


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else f"{value[:60]}...")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)[:60]
    return kind_of(value)


def _converted(kind: Kind, given: Any) -> Any:
    """The value as this type, None when it is no such value."""
    if isinstance(given, str) and kind != "str":
        return _from_text(kind, given.strip())
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    match kind:
        case "str":
            if isinstance(given, date):
                return given.isoformat()
            return given if isinstance(given, str) else str(given) if is_number else None
        case "int":
            return int(given) if is_number and math.isfinite(given) and given == int(given) else None
        case "float":
            return float(given) if is_number else None
        case "date":
            is_midnight = isinstance(given, datetime) and (given.hour, given.minute, given.second) == (0, 0, 0)
            if isinstance(given, datetime):
                return given.date() if is_midnight else None
            return given if isinstance(given, date) else None
        case "datetime":
            if isinstance(given, date) and not isinstance(given, datetime):
                return datetime(given.year, given.month, given.day)
            return given if isinstance(given, datetime) else None
        case "list" if isinstance(given, tuple):
            return list(given)
        case _:
            return given if isinstance(given, _TYPES[kind]) else None


def _from_text(kind: Kind, text: str) -> Any:
    try:
        match kind:
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "bool":
                return _TRUTHS.get(text.lower())
            case "date":
                return date.fromisoformat(text)
            case "datetime":
                return datetime.fromisoformat(text)
            case _:
                found = json.loads(text)
                return found if isinstance(found, _TYPES[kind]) else None
    except (ValueError, RecursionError):
        return None


# -- times


def _cron(value: str) -> str:
    flaw = cron_flaw(value)
    if flaw is None:
        return value
    raise wrong(flaw[0], hint=flaw[1])


def _zone(value: str) -> str:
    flaw = zone_flaw(value)
    if flaw is None:
        return value
    raise wrong(flaw[0], hint=flaw[1])


def _skipped(value: Any) -> date | str:
    """A date, or the path of a calendar."""
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(_text(value).strip())
    except ValueError:
        pass
    if value.lower().endswith((".ics", ".ical")):
        return str(value)
    raise wrong(f"must be a date such as 2024-12-25 or a calendar such as holidays.ics, got {_shown(value)}")


def _days(value: Any) -> Any:
    return [value] if isinstance(value, str | date) else value


class Schedule(Config):
    """When a pipeline starts by itself."""

    cron: Annotated[str, PlainValidator(lambda value: _cron(_text(value)))] = Field(
        description="Cron text, e.g. `0 6 * * *`, or `@daily` and the like.", json_schema_extra={"type": "string"}
    )
    timezone: Annotated[str, PlainValidator(lambda value: _zone(_text(value)))] = Field(
        default="UTC",
        description="The IANA time zone of the cron text, e.g. `Europe/Berlin`.",
        json_schema_extra={"type": "string"},
    )
    slug: Slug | None = Field(
        default=None, description="What tells it from the others when its time changes; absent: its place in the list."
    )
    parameters: dict[str, Any] = Field(default_factory=dict, description="What its runs are given.")
    active: bool = Field(default=True, description="Whether it starts runs once it is deployed.")
    skip: Annotated[tuple[Annotated[date | str, PlainValidator(_skipped)], ...], BeforeValidator(_days)] = Field(
        default=(),
        description="Days without a run: dates, and iCalendar files (.ics) relative to this file, whose events are such days.",
        json_schema_extra={"items": {"type": "string"}},
    )


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise wrong(f"must be text, got {kind_of(value)}", hint="quote it")


def _schedule(value: Any) -> Any:
    return Schedule(cron=value) if isinstance(value, str) else value


def _start(value: Any) -> date | datetime:
    if isinstance(value, date):
        return value
    if isinstance(value, str):
        for read in (date.fromisoformat, datetime.fromisoformat):
            try:
                return read(value.strip())
            except ValueError:
                continue
    raise wrong(f"must be a date such as 2024-01-31 or a time such as 2024-01-31 08:00:00, got {_shown(value)}")


AnySchedule = Annotated[Schedule, BeforeValidator(_schedule)]
StartDate = Annotated[date | datetime, PlainValidator(_start), WithJsonSchema({"type": "string"})]


# -- metrics


def _backend(value: Any) -> Any:
    """A backend by name stays a name; a mapping with its settings becomes the observer."""
    if isinstance(value, str):
        if value in observers:
            return value
        text, hint = observers.unknown(value)
        raise wrong(text.replace("observer type", "metrics backend"), hint=hint)
    if isinstance(value, Mapping):
        data = {key: one for key, one in value.items() if key != "backend"}
        if "backend" in value:
            data.setdefault("type", value["backend"])
        return _observer().validate_python(data)
    if isinstance(value, Observer):
        return value
    raise wrong(f"must be a name or a mapping, got {kind_of(value)}")


def _observer() -> TypeAdapter[Any]:
    return TypeAdapter(AnyObserver)


Backend = Annotated[
    str | Observer, PlainValidator(_backend), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]})
]


class Metrics(Config):
    """Where JobStarted, JobResult and JobDuration of each run go."""

    metric: Name | None = Field(default=None, description="A name, by which a super's entry is merged with this one.")
    namespace: str = Field(default="", description="The namespace of the metrics.")
    backends: tuple[Backend, ...] = Field(default=(), description="Names of metrics backends: `log`, `cloudwatch`, ...")


def _metrics(value: Any) -> Any:
    return [value] if isinstance(value, Mapping | Metrics) else value


AnyMetrics = Annotated[tuple[Metrics, ...], BeforeValidator(_metrics)]


class Monitoring(Config):
    """The section of the predecessor: what it asks for is done by our metrics backends and alerts."""

    metrics_backends: tuple[dict[str, Any], ...] = Field(
        default=(), description="Metrics backends; of type `aws_cloudwatch`, with `namespace` and `AWS_REGION_NAME`."
    )
    alerts_backends: tuple[dict[str, Any], ...] = Field(
        default=(),
        description="Alerts backends; of type `aws_cloudwatch`, with `alarm_actions` and `ok_actions`: ARNs of SNS topics.",
    )
    alerts: tuple[dict[str, Any], ...] = Field(default=(), description="Alerts, as in the section `alerts`.")


# -- pipelines


RELOADING = (
    Parameter(
        name="full_refresh",
        type="bool",
        default=False,
        description="Incremental loads begin anew, and what their tables have of earlier ones goes.",
    ),
    Parameter(
        name="load_from",
        default="",
        description="Incremental loads read again what has at least this cursor; where they go on stays as it is.",
    ),
    Parameter(
        name="load_to",
        default="",
        description="As `load_from`: the first cursor that is not read again.",
    ),
)
"""What each run of a pipeline may be given that has incremental loads; a parameter of its own by such a name is taken for it."""


class Pipeline(Config):
    """A list of tasks with a schedule: one Prefect flow."""

    pipeline: Name = Field(description="The name of the pipeline; also that of its Prefect flow.")
    description: str = Field(default="", description="What it does; shown in the Prefect UI.")
    owner: str | None = Field(default=None, description="Who answers for it; absent: the `owner` of the file.")
    tags: tuple[Text, ...] = Field(default=(), description="Tags of its Prefect runs.")
    labels: dict[str, Text] = Field(default_factory=dict, description="Labels: Prefect tags, labels of containers.")
    schedule: AnySchedule | None = Field(
        default=None, description="When it starts by itself: cron text or `{cron, timezone}`; absent: never."
    )
    schedule_interval: AnySchedule | None = Field(
        default=None, description="The older spelling of `schedule`, which it wins over."
    )
    schedules: tuple[AnySchedule, ...] = Field(default=(), description="More than one `schedule`.")
    triggers: tuple[Trigger, ...] = Field(
        default=(), description="What starts it once it is deployed, beside its schedules."
    )
    start_date: StartDate | None = Field(
        default=None, description="The date or time before which it is not started by its schedule."
    )
    concurrency_limit: AnyConcurrencyLimit | None = Field(
        default=None, description="The most runs at once: a number, or `{limit, collision_strategy}`."
    )
    work_pool: PoolName | None = Field(
        default=None, description="The work pool that its deployment runs in; absent: that of the file."
    )
    job_variables: JobVariables = Field(
        default_factory=dict, description="What workers are told for its runs; they win over those of the pool."
    )
    code: AnyCode | None = Field(default=None, description="Where workers find the code; absent: that of the file.")
    timeout_minutes: Minutes | None = Field(
        default=None, description="Minutes after which a run is ended as timed out."
    )
    retries: Count | None = Field(default=None, description="`retries` of the tasks that have none of their own.")
    retry_delay_seconds: Seconds | None = Field(
        default=None, description="`retry_delay_seconds` of the tasks that have none of their own."
    )
    always_run: bool | None = Field(default=None, description="Run every task, whatever failed before it.")
    executor: Text | None = Field(default=None, description="Where its tasks run that do not say it themselves.")
    parameters: tuple[Parameter, ...] = Field(default=(), description="What a run may be given.")
    env_vars: EnvVars = Field(default_factory=dict, description="Environment variables of all its tasks.")
    metrics: AnyMetrics = Field(default=(), description="Where the metrics of its runs go.")
    monitoring: Monitoring | None = Field(default=None, description="Metrics and alerts as the predecessor wrote them.")
    observers: tuple[AnyObserver, ...] = Field(default=(), description="Who is told what happens in its runs.")
    alerts: tuple[AnyAlert, ...] = Field(
        default=(), description="Who is told when its runs fail, hang or recover; beside the `alerts` of the file."
    )
    tasks: tuple[AnyTask, ...] = Field(
        default=(), description="The steps, run as listed unless `depends_on` says else."
    )

    _app: App | None = PrivateAttr(default=None)
    _data: Map | None = PrivateAttr(default=None)

    @property
    def app(self) -> App:
        """The file it is in."""
        if self._app is None:
            raise CallError(f"pipeline '{self.pipeline}' is not part of a file; use rainbow_prefect.load")
        return self._app

    @property
    def cron(self) -> str | None:
        """The cron text that counts: `schedule_interval` wins; None when it never starts by itself."""
        chosen = self.schedule_interval or self.schedule
        return None if chosen is None else chosen.cron

    @property
    def all_schedules(self) -> tuple[Schedule, ...]:
        """Every schedule: `schedule` or what wins over it, then `schedules`."""
        chosen = self.schedule_interval or self.schedule
        return (*(() if chosen is None else (chosen,)), *self.schedules)

    @property
    def timezone(self) -> str:
        """The time zone of `cron`."""
        chosen = self.schedule_interval or self.schedule
        return "UTC" if chosen is None else chosen.timezone

    def task(self, name: str) -> Task:
        """One of its tasks.

        Raises:
            CallError: there is no such task.
        """
        for task in self.tasks:
            if task.task == name:
                return task
        raise CallError(_missing("task", name, [task.task for task in self.tasks], f"pipeline '{self.pipeline}'"))

    @property
    def run_parameters(self) -> tuple[Parameter, ...]:
        """What a run may be given: `parameters`, then those of tasks that load incrementally which have no such name."""
        if not any(task.is_incremental for task in self.tasks):
            return self.parameters
        own = {one.name for one in self.parameters}
        return (*self.parameters, *(one for one in RELOADING if one.name not in own))

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The value of each parameter in a run that is given these, each as its type.

        Raises:
            CallError: one is unknown, missing or of another type.
        """
        known = {one.name: one for one in self.run_parameters}
        problems = [
            _missing("parameter", name, known, f"pipeline '{self.pipeline}'") for name in given if name not in known
        ]
        values: dict[str, Any] = {}
        for name, parameter in known.items():
            if name not in given and parameter.is_required:
                problems.append(
                    f"pipeline '{self.pipeline}' needs a value for parameter '{name}' ({_WORDS[parameter.type]})"
                )
            elif name not in given:
                values[name] = parameter.default
            else:
                try:
                    values[name] = parameter.value_of(given[name])
                except ValueError as error:
                    problems.append(f"parameter '{name}' {error}")
        if problems:
            raise CallError("\n".join(problems))
        return values

    def bind(self, parameters: Mapping[str, Any] | None = None, *, lookup: Lookup | None = None) -> Pipeline:
        """The pipeline with these parameters in place of their placeholders.

        `lookup` is asked for names that neither parameters nor `variables` define.

        Raises:
            CallError: a parameter is unknown, missing or of another type.
            ConfigError: with these parameters the pipeline is wrong.
        """
        from .building import bound

        own = {one.name for one in self.parameters}
        values = self.values(parameters or {})
        return bound(self, {name: value for name, value in values.items() if name in own}, lookup)

    def plan(self, *, executor: str | None = None) -> Plan:
        """Its steps in an order that can run; `executor` is where all tasks run."""
        from .plan import plan

        made: Plan = plan(self, executor=executor)
        return made

    def run(
        self,
        parameters: Mapping[str, Any] | None = None,
        *,
        executor: str | None = None,
        observers: Sequence[Observer] = (),
    ) -> Report:
        """Run it now as a Prefect run, and wait until it ends; a failure is in the report.

        The server is the one that Prefect's settings name, else a local one, else one that ends with this process.

        Raises:
            CallError, ConfigError: nothing was started.
            RunError: there is no Prefect server to talk to.
        """
        from . import server

        planned = self.plan(executor=executor)
        self.values(parameters or {})
        connection = server.connect()
        from . import engine

        report: Report = engine.run(planned, dict(parameters or {}), observers=observers)
        if connection.ui_url is None:
            report.link = ""
        return report


# -- services and images


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Batch(Config):
    """Requests that are gathered into one call: the function gets a list and returns a list."""

    max_size: Positive = Field(default=32, description="So many requests at most.")
    max_wait_ms: Seconds = Field(default=5, description="So many milliseconds after the first one at most.")


def _batch(value: Any) -> Any:
    return {} if value is True else None if value is False else value


AnyBatch = Annotated[Batch | None, BeforeValidator(_batch)]


class Endpoint(Config):
    """One URL path of a service and the function behind it."""

    endpoint: str = Field(description="The path in the URL, e.g. `/predict`.")
    module: str = Field(description="The module with the function, as `source` sees it.")
    function: str = Field(description="The function; it is given the body of the request.")
    methods: tuple[Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"], ...] = Field(
        default=("GET", "POST"), description="The HTTP methods that it answers."
    )
    description: str = Field(default="", description="What it does; shown in the service's documentation.")
    status: Annotated[int, Field(ge=100, le=599)] | None = Field(
        default=None, description="The HTTP status of an answer that says none itself."
    )
    blocking: bool | None = Field(default=None, description="Run the function in a thread, though it is async.")
    timeout_seconds: Seconds | None = Field(default=None, description="Seconds after which a request is answered 504.")
    auth: bool | Text | None = Field(
        default=None,
        description="`false`: open to all; text: the scope that the token must have. Needs the service's `auth`.",
    )
    batch: AnyBatch | None = Field(
        default=None, description="Give several requests to one call: `true` or `{max_size, max_wait_ms}`."
    )


class RateLimit(Config):
    """How often one client may call."""

    requests: Positive = Field(description="So many requests.")
    seconds: Positive = Field(default=60, description="In so many seconds.")


class ServiceToken(Config):
    """A token that opens a service."""

    secret: Name = Field(description="The name of a secret in the root section `secrets`; its value is the token.")
    scopes: tuple[Text, ...] = Field(default=(), description="What the token may be used for: `auth` of endpoints.")


def _tokens(value: Any) -> Any:
    if isinstance(value, str | Mapping | ServiceToken):
        value = [value]
    if not isinstance(value, list | tuple):
        return value
    return [{"secret": one} if isinstance(one, str) else one for one in value]


def _hook(value: str) -> str:
    module, colon, function = value.partition(":")
    if colon and all(part.isidentifier() for part in (*module.split("."), *function.split("."))):
        return value
    raise wrong(f"'{value}' does not name a function", hint="write module:function")


Hook = Annotated[str, AfterValidator(_hook)]


class Service(Config):
    """Functions behind HTTP endpoints."""

    service: Name = Field(description="The name of the service.")
    type: Literal["python_server"] = Field(default="python_server", description="The type of the service.")
    description: str = Field(default="", description="What it serves.")
    labels: dict[str, Text] = Field(default_factory=dict, description="Labels of its containers.")
    image: Text | None = Field(default=None, description="The image it runs in.")
    source: str | None = Field(default=None, description="The folder with its code, relative to this file.")
    endpoints: tuple[Endpoint, ...] = Field(default=(), description="The URL paths and their functions.")
    env_vars: EnvVars = Field(default_factory=dict, description="Environment variables of its code.")
    secrets: tuple[TaskSecret, ...] = Field(default=(), description="Secrets it is given.")
    mounts: tuple[Mount, ...] = Field(default=(), description="Volumes it sees.")
    resources: Resources | None = Field(default=None, description="What it asks of the machine.")
    replicas: Positive | None = Field(default=None, description="How many of it run side by side.")
    workers: Positive | None = Field(default=None, description="How many processes serve in each replica.")
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(default=None, description="The port it listens on.")
    on_start: Hook | None = Field(
        default=None,
        description="`module:function` that each process calls before it serves; the keys of the mapping it returns are "
        "names by which functions ask for the values.",
    )
    on_stop: Hook | None = Field(default=None, description="`module:function` that each process calls at its end.")
    auth: Annotated[tuple[ServiceToken, ...], BeforeValidator(_tokens)] = Field(
        default=(), description="The tokens that open it: names of secrets, or `{secret, scopes}`; absent: open to all."
    )
    timeout_seconds: Seconds | None = Field(
        default=None, description="`timeout_seconds` of the endpoints that have none of their own; absent: 60."
    )
    max_body_bytes: Many | None = Field(default=None, description="The largest body of a request; absent: 10 MiB.")
    max_in_flight: Positive | None = Field(
        default=None, description="More requests at once than this are answered 503, in each process."
    )
    rate_limit: RateLimit | None = Field(
        default=None, description="How often one client may call, in each process, e.g. `{requests: 100, seconds: 60}`."
    )
    threads: Positive | None = Field(
        default=None, description="How many plain functions run at once in each process; absent: 40."
    )
    gzip: bool = Field(default=False, description="Compress answers for clients that take it.")
    cors: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        default=(), description="Origins whose pages may call it, e.g. `https://example.com`; absent: none."
    )
    docs: bool = Field(default=True, description="Serve `/docs` and `/openapi.json`.")
    no_cache: bool | None = Field(default=None, description="Build its image without the cache.")
    pip_conf: str | None = Field(default=None, description="A pip.conf for building, relative to this file.")
    python_version: PythonVersion | None = Field(default=None, description="The Python version of its image.")

    _app: App | None = PrivateAttr(default=None)

    @property
    def app(self) -> App:
        """The file it is in."""
        if self._app is None:
            raise CallError(f"service '{self.service}' is not part of a file; use rainbow_prefect.load")
        return self._app

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, data: Any) -> Any:
        """`service:` alone with `name: x` below is the older spelling of `service: x`."""
        if not isinstance(data, Mapping) or "name" not in data:
            return data
        if data.get("service") is None or data["service"] == data["name"]:
            return {key: value for key, value in data.items() if key != "name"} | {"service": data["name"]}
        return data


class Image(Config):
    """A container image that is built from a folder of code."""

    image: ImageName = Field(min_length=1, description="The name and tag of the image.")
    type: Literal["python", "python_server", "spark"] = Field(default="python", description="How it is built.")
    source: str | None = Field(default=None, description="The folder with the code, relative to this file.")
    python_version: PythonVersion | None = Field(default=None, description="The Python version, e.g. `3.12`.")
    base_image: ImageName | None = Field(default=None, description="The image to start from.")
    no_cache: bool = Field(default=False, description="Build without the cache.")
    pip_conf: str | None = Field(default=None, description="A pip.conf for building, relative to this file.")
    build_cmd: str | tuple[str, ...] | None = Field(
        default=None, description="Shell lines run in the image once the code is in it."
    )
    requirements: str | None = Field(
        default=None,
        description="The requirements file, relative to `source`; absent: `requirements.txt`, else `pyproject.toml`.",
    )
    dockerfile: str | None = Field(default=None, description="A Dockerfile of one's own, relative to this file.")
    build_args: BuildArgs = Field(default_factory=dict, description="Arguments of the Dockerfile.")
    platform: str | None = Field(default=None, description="The platform to build for, e.g. `linux/amd64`.")
    labels: dict[str, Text] = Field(default_factory=dict, description="Labels of the image.")
    endpoints: tuple[Endpoint, ...] = Field(default=(), description="Endpoints of an image that serves.")
    credentials: str | None = Field(
        default=None, description="What opens the registry: `block:TYPE/NAME`, or a secret `user:password`."
    )

    @model_validator(mode="after")
    def _one_recipe(self) -> Image:
        """A Dockerfile of one's own says what the other keys would."""
        if self.dockerfile is not None:
            for key in ("base_image", "python_version", "build_cmd", "requirements"):
                if getattr(self, key) is not None:
                    hint = "say it in the Dockerfile, or remove `dockerfile`"
                    raise wrong(f"'{key}' and 'dockerfile' exclude each other", hint=hint, at=key)
        return self


# -- volumes


class LocalFolder(Config):
    """A folder of this machine."""

    path: str = Field(min_length=1, description="The folder, relative to this file.")


class Volume(Config):
    """A folder or a claim that tasks mount."""

    volume: Name = Field(description="The name by which a mount finds it.")
    local: LocalFolder | None = Field(default=None, description="A folder of this machine.")
    claim_name: str | None = Field(default=None, description="The Kubernetes claim; absent: `<volume>-pvc`.")

    @property
    def claim(self) -> str:
        """The name of its claim in a cluster."""
        return self.claim_name or f"{self.volume}-pvc"


# -- the file


class App(Config):
    """One checked file."""

    name: Text = Field(min_length=1, description="The name of the file; `super:` of another one finds it by this.")
    owner: str | None = Field(default=None, description="Who answers for all of it.")
    description: str = Field(default="", description="What it is.")
    tags: tuple[Text, ...] = Field(default=(), description="Tags of all Prefect runs.")
    labels: dict[str, Text] = Field(default_factory=dict, description="Labels of everything.")
    always_run: bool | None = Field(default=None, description="Run every task, whatever failed before it.")
    executor: Text | None = Field(default=None, description="Where tasks run that do not say it themselves.")
    env_vars: EnvVars = Field(default_factory=dict, description="Environment variables of all tasks.")
    variables: dict[str, Any] = Field(default_factory=dict, description="Values for `{{ name }}`.")
    pipelines: tuple[Pipeline, ...] = Field(default=(), description="The pipelines.")
    services: tuple[Service, ...] = Field(default=(), description="The services.")
    images: tuple[Image, ...] = Field(default=(), description="The images.")
    executors: tuple[AnyExecutor, ...] = Field(default=(), description="Executors by name.")
    sources: tuple[AnySource, ...] = Field(default=(), description="Where SQL tasks read: databases, files, functions.")
    sinks: tuple[AnySink, ...] = Field(default=(), description="Where SQL tasks write: databases, files.")
    volumes: tuple[Volume, ...] = Field(default=(), description="Volumes by name.")
    secrets: tuple[Secret, ...] = Field(default=(), description="Secrets by name: where their values come from.")
    work_pools: tuple[WorkPool, ...] = Field(default=(), description="Work pools; `deploy` makes what is missing.")
    work_pool: PoolName | None = Field(
        default=None, description="The work pool of pipelines that name none; absent: `rainbow`, of type `process`."
    )
    code: AnyCode | None = Field(
        default=None, description="Where workers find this file and its code; absent: the folder that it is in."
    )
    metrics: AnyMetrics = Field(default=(), description="Where the metrics of pipelines without `metrics` go.")
    monitoring: Monitoring | None = Field(default=None, description="Metrics and alerts as the predecessor wrote them.")
    observers: tuple[AnyObserver, ...] = Field(default=(), description="Who is told what happens in all runs.")
    alerts: tuple[AnyAlert, ...] = Field(default=(), description="Who is told when a run fails, hangs or recovers.")
    plugins: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        default=(), description="Folders with task, executor and observer classes."
    )

    _resolved: Resolved | None = PrivateAttr(default=None)

    @property
    def resolved(self) -> Resolved:
        """What the file means before it was checked: data with places."""
        assert self._resolved is not None, "an App is made by check.check"
        return self._resolved

    @property
    def document(self) -> Document:
        """The file as written."""
        return self.resolved.document

    @property
    def data(self) -> Map:
        """The merged and rendered data."""
        return self.resolved.data

    @property
    def file(self) -> Path:
        """The YAML file."""
        return self.document.file

    @property
    def shown(self) -> str:
        """The file as it is printed, relative to the folder that was searched."""
        return self.document.shown

    @property
    def root(self) -> Path:
        """The folder of the YAML file: relative paths start here."""
        return self.file.parent.absolute()

    def pipeline(self, name: str) -> Pipeline:
        """One of its pipelines.

        Raises:
            CallError: there is no such pipeline.
        """
        for one in self.pipelines:
            if one.pipeline == name:
                return one
        raise CallError(_missing("pipeline", name, [one.pipeline for one in self.pipelines], self.shown))

    def service(self, name: str) -> Service:
        """One of its services.

        Raises:
            CallError: there is no such service.
        """
        for one in self.services:
            if one.service == name:
                return one
        raise CallError(_missing("service", name, [one.service for one in self.services], self.shown))

    @cached_property
    def mask(self) -> Callable[[str], str]:
        """Hides the values that the file has under names of secrets; made once, for it reads the whole file."""
        from .masking import Masker, secret_values

        return Masker(secret_values(self.data)).mask

    @cached_property
    def image_sources(self) -> dict[str, str]:
        """The folder of the code of each image, as written: where `images`, a task or a service names both."""
        found: dict[str, str] = {}
        for image, source in self._image_sources():
            if image and source:
                found.setdefault(image, source)
        return found

    def _image_sources(self) -> Iterator[tuple[str | None, str | None]]:
        for image in self.images:
            yield image.image, image.source
        for pipeline in self.pipelines:
            for task in pipeline.tasks:
                yield task.image_source()
        for service in self.services:
            yield service.image, service.source

    def source_of(self, task: Task) -> Path | None:
        """The folder with the code of a task: its own `source`, else that of its image; None without any."""
        image, source = task.image_source()
        written = source or self.image_sources.get(image or "")
        return None if written is None else self.root / written

    def executor_name(self, pipeline: Pipeline, task: Task) -> str:
        """The name of the executor of a task: its own, the pipeline's, the file's, else `process`."""
        return task.executor or pipeline.executor or self.executor or DEFAULT_EXECUTOR

    def executor_named(self, name: str) -> Executor:
        """The executor of this name: an entry of `executors`, or a type with its defaults.

        A reference `block:TYPE/NAME` is not resolved here: a config holds no secret.

        Raises:
            CallError: there is no such executor, or the type needs settings.
        """
        for one in self.executors:
            if name in (one.executor, one.type if one.executor is None else None):
                return one
        if name not in executors:
            raise CallError(_missing("executor", name, self.executor_names(), self.shown))
        try:
            made: Executor = executors[name]()
        except ValidationError as error:
            raise CallError(f"executor type '{name}' needs an entry in `executors`: {_flaws(error)}") from error
        except ImportError as error:
            raise CallError(str(error)) from error
        return made

    def executor_names(self) -> list[str]:
        """All names that `executor:` may have."""
        return sorted({*(one.executor or one.type for one in self.executors), *executors})


def _flaws(error: ValidationError) -> str:
    """What is wrong, in one line."""
    return "; ".join(_flaw(one) for one in error.errors(include_url=False, include_input=False))


def _flaw(error: Any) -> str:
    where, hint = ".".join(map(str, error["loc"])), error.get("ctx", {}).get("hint")
    if error["type"] == "missing":
        return f"`{where}` is missing"
    text = f"`{where}`: {error['msg']}" if where else str(error["msg"])
    return f"{text} ({hint})" if hint else text


def _missing(what: str, name: str, known: Mapping[str, Any] | Sequence[str], where: str) -> str:
    hint = near(name, known)
    return f"there is no {what} '{name}' in {where}{f'; {hint}' if hint else ''}"


Pipeline.model_rebuild()
Service.model_rebuild()


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a `rainbow.yml`, for editors; every type that is installed is in it."""
    from .json_schema import json_schema as made

    return made()
