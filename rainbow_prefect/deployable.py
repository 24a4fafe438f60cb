"""What checked files want on a Prefect server: work pools and deployments as plain data. No server is asked here."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from .app import App, Parameter, Pipeline, Schedule
from .calendars import days
from .deployment import CODE_FOLDER, DEFAULT_POOL, Code, WorkPool
from .errors import CallError, near
from .files import NAMES
from .masking import STARS, sensitive
from .recurrence import recurrence
from .schedule import moment, next_runs

PROJECT = "rainbow.project"
"""The label that names the project of a deployment: the `name` of its file. Only such a deployment is ever removed."""

INACTIVE = "rainbow.inactive"
"""The label with the slugs of schedules that the file switched off; any other that is off was paused by a person."""

TAG = "app:"
PULL = "rainbow_prefect.steps.pull_config"

_LONGEST_RULE = 6500
"""As many characters as Prefect takes."""

_CONTAINERS = ("docker", "kubernetes", "ecs")


@dataclass(frozen=True)
class Item:
    """One thing on a server: `fields` is what is compared and sent; `also` are other values that are as good."""

    kind: str
    name: str
    fields: Mapping[str, Any]
    project: str = ""
    also: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Places:
    """Where workers find the code: the images and folders that this deploy fills, by the app they are of."""

    images: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)


def wanted(pipelines: Sequence[Pipeline], places: Places) -> list[Item]:
    """The work pools and deployments of these pipelines, pools first.

    Raises:
        CallError: one cannot be deployed: a schedule cannot start it, its code cannot be where its work pool runs it.
    """
    items: dict[tuple[str, str], Item] = {}
    for pipeline in pipelines:
        pool = pool_of(pipeline)
        if pool is not None:
            made = _pool(pool)
            known = items.setdefault((made.kind, made.name), made)
            if known != made:
                raise CallError(
                    f"work pool '{made.name}' is declared in two files, and not alike; say the same in both"
                )
    for pipeline in pipelines:
        one = deployment(pipeline, places)
        items[one.kind, one.name] = one
    return list(items.values())


def pool_of(pipeline: Pipeline) -> WorkPool | None:
    """The work pool of a pipeline as its file declares it; None when it names one of the server's."""
    name = pipeline.work_pool or pipeline.app.work_pool or DEFAULT_POOL
    declared = {one.work_pool: one for one in pipeline.app.work_pools}
    if name in declared:
        return declared[name]
    return WorkPool(work_pool=DEFAULT_POOL) if name == DEFAULT_POOL else None


def code_of(pipeline: Pipeline) -> Code:
    """Where the workers of a pipeline find its code."""
    return pipeline.code or pipeline.app.code or Code()


def name_of(pipeline: Pipeline) -> str:
    """FLOW/DEPLOYMENT, as Prefect's own commands take it."""
    return f"{pipeline.pipeline}/{pipeline.app.name}"


def _pool(pool: WorkPool) -> Item:
    fields = {"type": pool.type, "concurrency_limit": pool.concurrency_limit}
    return Item("work pool", pool.work_pool, fields | ({"description": pool.description} if pool.description else {}))


def deployment(pipeline: Pipeline, places: Places) -> Item:
    """The deployment of a pipeline."""
    app, pool, code = pipeline.app, pool_of(pipeline), code_of(pipeline)
    if code.type == "image" and pool is not None and pool.type not in _CONTAINERS:
        raise CallError(
            f"pipeline '{pipeline.pipeline}' has its code in an image, but its work pool '{pool.work_pool}' is of type "
            f"'{pool.type}', which runs no images; use a pool of type {', '.join(_CONTAINERS)}"
        )
    _check_startable(pipeline)
    schedules, also = _schedules(pipeline)
    limit = pipeline.concurrency_limit
    fields = {
        "description": pipeline.description or f"Pipeline '{pipeline.pipeline}' of {app.shown}.",
        "entrypoint": f"rainbow_prefect.flows.{pipeline.pipeline}",
        "work_pool_name": pipeline.work_pool or app.work_pool or DEFAULT_POOL,
        "job_variables": _job_variables(pipeline, pool, code, places),
        "pull_steps": [{PULL: _pull(pipeline, code, places)}],
        "schedules": schedules,
        "concurrency_limit": None if limit is None else limit.limit,
        "concurrency_options": None
        if limit is None
        else {
            "collision_strategy": limit.collision_strategy,
            "grace_period_seconds": limit.grace_period_seconds,
        },
        "parameter_openapi_schema": parameter_schema(pipeline.run_parameters),
        "parameters": {},
        "tags": tags(pipeline),
        "labels": {**app.labels, **pipeline.labels, PROJECT: app.name, **_inactive(schedules)},
    }
    return Item("deployment", name_of(pipeline), fields, app.name, also)


def _inactive(schedules: Mapping[str, Any]) -> dict[str, str]:
    slugs = sorted(slug for slug, one in schedules.items() if not one["active"])
    return {INACTIVE: ",".join(slugs)} if slugs else {}


def _check_startable(pipeline: Pipeline) -> None:
    needed = [one.name for one in pipeline.run_parameters if one.is_required]
    for slug, schedule in _slugs(pipeline):
        missing = [name for name in needed if name not in schedule.parameters]
        if missing:
            raise CallError(
                f"pipeline '{pipeline.pipeline}': its schedule '{slug}' gives no value to parameter '{missing[0]}', "
                "which has no default; add a default, or `parameters` to the schedule"
            )


def tags(pipeline: Pipeline) -> list[str]:
    """The tags of a deployment and its runs; everybody sees them."""
    app = pipeline.app
    owner = pipeline.owner or app.owner
    found = [*app.tags, *pipeline.tags, *(f"{key}:{one}" for key, one in {**app.labels, **pipeline.labels}.items())]
    return list(dict.fromkeys([*map(app.mask, found), *([f"owner:{owner}"] if owner else []), f"{TAG}{app.name}"]))


# -- schedules


def _slugs(pipeline: Pipeline) -> Iterator[tuple[str, Schedule]]:
    for index, one in enumerate(pipeline.all_schedules):
        yield one.slug or (f"schedule-{index + 1}" if index else "schedule"), one


def _schedules(pipeline: Pipeline) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schedules by slug; and for those whose start is over, what they were before it, which is as good."""
    known = {one.name: one for one in pipeline.run_parameters}
    found: dict[str, Any] = {}
    also: dict[str, Any] = {}
    for slug, one in _slugs(pipeline):
        given = {name: plain(known[name].value_of(value)) for name, value in one.parameters.items()}
        common = {"active": one.active, "parameters": given}
        if one.skip:
            found[slug] = {"schedule": _skipping(one, pipeline), **common}
            continue
        cron = {"cron": one.cron.strip(), "timezone": one.timezone}
        later = _recurrence(one, pipeline.start_date)
        if later is not None and _is_future(pipeline.start_date, one.timezone):
            found[slug] = {"schedule": later, **common}
            continue
        found[slug] = {"schedule": cron, **common}
        if later is not None:
            also[slug] = later
    return found, also


def _skipping(schedule: Schedule, pipeline: Pipeline) -> dict[str, Any]:
    """The schedule as a rule that leaves out the times on the days of `skip`.

    It begins with `start_date`, else with the year of the first of these days: a rule is walked from its beginning.
    """
    left_out = sorted(days(schedule.skip, pipeline.app.root))
    zone = ZoneInfo(schedule.timezone)
    first = datetime(left_out[0].year, 1, 1) if left_out else datetime(datetime.now(UTC).year, 1, 1)
    if pipeline.start_date is not None:
        first = moment(pipeline.start_date, zone).astimezone(zone).replace(tzinfo=None)
    times = [one for day in left_out for one in _times_of(schedule, day, zone) if one >= first]
    lines = [recurrence(schedule.cron, first)]
    lines += [f"EXDATE:{','.join(f'{one:%Y%m%dT%H%M%S}' for one in times)}"] if times else []
    text = "\n".join(lines)
    if len(text) > _LONGEST_RULE:
        raise CallError(
            f"pipeline '{pipeline.pipeline}': its schedule '{schedule.cron}' skips {len(times):,} times, more than a rule of "
            "Prefect holds; skip fewer days, or run it less often"
        )
    return {"rrule": text, "timezone": schedule.timezone}


def _times_of(schedule: Schedule, day: date, zone: ZoneInfo) -> Iterator[datetime]:
    """When it would run on a day, on the clock on the wall."""
    eve = datetime(day.year, day.month, day.day, tzinfo=zone) - timedelta(seconds=1)
    for run in next_runs(schedule.cron, timezone=schedule.timezone, after=eve, count=1440):
        local = run.astimezone(zone).replace(tzinfo=None)
        if local.date() != day:
            return
        yield local


def _recurrence(schedule: Schedule, start: date | datetime | None) -> dict[str, Any] | None:
    if start is None:
        return None
    since = moment(start, ZoneInfo(schedule.timezone)).astimezone(ZoneInfo(schedule.timezone))
    return {"rrule": recurrence(schedule.cron, since.replace(tzinfo=None)), "timezone": schedule.timezone}


def _is_future(start: date | datetime | None, timezone: str) -> bool:
    return start is not None and moment(start, ZoneInfo(timezone)) > datetime.now(UTC)


# -- parameters

_SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "list": {"type": "array", "items": {}},
    "dict": {"type": "object", "additionalProperties": True},
}


def parameter_schema(parameters: Sequence[Parameter]) -> dict[str, Any]:
    """The JSON Schema of a run's parameters, as Prefect makes it of a flow; a secret default is stars."""
    properties = {one.name: _parameter(one, position) for position, one in enumerate(parameters)}
    required = [one.name for one in parameters if one.is_required]
    schema = {"title": "Parameters", "type": "object", "properties": properties, "definitions": {}}
    return schema | ({"required": required} if required else {})


def _parameter(one: Parameter, position: int) -> dict[str, Any]:
    kind = dict(_SCHEMAS[one.type])
    is_hidden = sensitive(one.name) and not one.is_required
    if is_hidden and one.type != "str":
        kind = {"anyOf": [kind, {"type": "string"}]}
    default = {} if one.is_required else {"default": STARS if is_hidden else plain(one.default)}
    told = {"description": one.description} if one.description else {}
    return {"title": one.name, "position": position, **default, **told, **kind}


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    return json.loads(json.dumps(value, default=lambda one: one.isoformat()))


# -- where the code is


def searched(app: App) -> Path:
    """What a worker is to look at: the folder that was searched, which has the supers too, else the file itself."""
    file = app.document.file.absolute()
    return file if file.name not in NAMES else file.parents[len(Path(app.shown).parts) - 1]


def _job_variables(pipeline: Pipeline, pool: WorkPool | None, code: Code, places: Places) -> dict[str, Any]:
    given = plain({**(pool.job_variables if pool else {}), **pipeline.job_variables})
    if code.type == "image":
        given["image"] = places.images[pipeline.app.name]
    return dict(given)


def _pull(pipeline: Pipeline, code: Code, places: Places) -> dict[str, Any]:
    here = searched(pipeline.app)
    file = here.name if here.is_file() else None
    folder = here.parent if file else here
    named = {"file": file} if file else {}
    match code.type:
        case "image":
            return {"path": CODE_FOLDER, **named}
        case "git":
            return {**_git(folder, code), **named}
        case "s3":
            given = {"bucket": code.bucket, "folder": places.folders[pipeline.app.name]}
            return {"s3": given | _opened(code), **named}
        case _:
            return {"path": code.path or str(folder), **named}


def _git(folder: Path, code: Code) -> dict[str, Any]:
    path = code.path if code.path is not None else _asked(folder, "rev-parse", "--show-prefix").strip("/")
    branch = {"branch": code.branch} if code.branch else {}
    commit = code.commit or _asked(folder, "rev-parse", "HEAD")
    given = {"repository": code.repository, **branch, "commit_sha": commit, **_opened(code)}
    return {"git": given} | ({"path": path} if path else {})


def _opened(code: Code) -> dict[str, str]:
    """Prefect's own placeholder for a block, which it fills where the code is pulled."""
    if code.credentials is None:
        return {}
    kind, _, name = code.credentials.removeprefix("block:").partition("/")
    return {"credentials": f"{{{{ prefect.blocks.{kind}.{name} }}}}"}


@cache
def _asked(folder: Path, *words: str) -> str:
    """What git says of a folder."""
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CallError(f"git cannot be asked for the commit of {folder}: {error}; write `commit: ...`") from error
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        raise CallError(f"git does not know the commit of {folder} ({why}); write `commit: ...` and `path: ...`")
    return done.stdout.strip()


def unsaved(folder: Path) -> bool:
    """Whether git knows of changes in a folder that no commit has."""
    return bool(_asked(folder, "status", "--porcelain", "--", "."))


def chosen(pipelines: Iterable[Pipeline], name: str | None) -> list[Pipeline]:
    """All, or the one of this name.

    Raises:
        CallError: there is none of this name.
    """
    known = list(pipelines)
    found = [one for one in known if name in (None, one.pipeline)]
    if not found and name is not None:
        hint = near(name, [one.pipeline for one in known])
        raise CallError(f"there is no pipeline '{name}'{f'; {hint}' if hint else ''}")
    return found
