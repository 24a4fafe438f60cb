"""Files of other tools as a `rainbow.yml`: Apache Liminal and dag-factory. What has no counterpart is told, not guessed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from .registry import tasks
from .schema import NAME_PATTERN

_MARKERS = ("job_start", "job_end", "pipeline")


@dataclass
class Migration:
    """A `rainbow.yml` as data, and what was not mapped, each with its place."""

    data: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, place: str, text: str) -> None:
        self.notes.append(f"{place}: {text}")


# -- Apache Liminal

_ROOT = frozenset(
    [
        "name",
        "owner",
        "type",
        "super",
        "description",
        "variables",
        "pipelines",
        "services",
        "images",
        "executors",
        "volumes",
        "secrets",
        "metrics",
        "monitoring",
        "pipeline_defaults",
        "task_defaults",
        "service_defaults",
        "always_run",
    ]
)
_PIPELINE = frozenset(
    [
        "pipeline",
        "description",
        "owner",
        "start_date",
        "timeout_minutes",
        "schedule",
        "schedule_interval",
        "tasks",
        "metrics",
        "monitoring",
        "always_run",
        "retries",
        "labels",
        "tags",
        "before_tasks",
        "after_tasks",
    ]
)
_IGNORED_PIPELINE = {
    "depends_on_past": "has no counterpart; a pipeline that waits for its last run has `concurrency_limit: 1`",
    "catchup": "is not needed: nothing is caught up; `rainbow backfill` runs periods of the past",
    "retry_delay": "is `retry_delay_seconds` here, in seconds",
    "email": "is an entry of `alerts` of type `email` here",
}
_EXECUTORS = {"kubernetes": "kubernetes", "airflow": "process", "emr": None}


def of_liminal(data: Mapping[str, Any], shown: str) -> Migration:
    """One file of Liminal or Rainbow; most of it is taken as it is, since the language is the same."""
    made = Migration()
    for key, value in data.items():
        if key in _ROOT or key.startswith("x-"):
            made.data[key] = value
        else:
            made.note(f"{shown}: {key}", "is no key here; left out")
    if "name" not in made.data:
        made.data["name"] = "app"
        made.note(f"{shown}: name", "was missing; written as 'app'")
    if "executors" in data:
        made.data["executors"] = list(_executors(data["executors"] or (), made, shown))
        if not made.data["executors"]:
            del made.data["executors"]
    gone = {one.get("executor") for one in data.get("executors") or () if isinstance(one, Mapping)}
    gone -= {one.get("executor") for one in made.data.get("executors", ())}
    if "pipelines" in data:
        made.data["pipelines"] = [_pipeline(one, made, shown, gone) for one in data["pipelines"] or ()]
    for key in ("pipeline_defaults", "task_defaults"):
        if isinstance(made.data.get(key), Mapping):
            made.data[key] = _defaults(made.data[key], made, f"{shown}: {key}")
    return made


def _executors(entries: Any, made: Migration, shown: str) -> Iterator[dict[str, Any]]:
    keep = {"executor", "type", "namespace", "image_pull_secrets", "cluster", "context"}
    for one in entries:
        kind = _EXECUTORS.get(str(one.get("type")), one.get("type"))
        place = f"{shown}: executor '{one.get('executor')}'"
        if kind is None:
            made.note(place, f"type '{one.get('type')}' has no counterpart; left out, its tasks run in a process")
            continue
        kept = {key: value for key, value in one.items() if key in keep} | {"type": kind}
        for key in one.keys() - keep:
            made.note(place, f"`{key}` has no counterpart; left out")
        yield kept


def _pipeline(pipeline: Mapping[str, Any], made: Migration, shown: str, gone: set[Any]) -> dict[str, Any]:
    place = f"{shown}: pipeline '{pipeline.get('pipeline')}'"
    kept = {key: value for key, value in pipeline.items() if key in _PIPELINE}
    for key in pipeline.keys() - _PIPELINE:
        made.note(place, f"`{key}` {_IGNORED_PIPELINE.get(key, 'is no key here; left out')}")
    for key in ("schedule", "schedule_interval"):
        if isinstance(kept.get(key), str) and kept[key].strip() in ("None", "@once"):
            made.note(place, f"`{key}: {kept.pop(key)}` is left out: it has no schedule")
    if "tasks" in kept:
        kept["tasks"] = [_task(one, made, place, gone) for one in kept["tasks"] or () if _is_task(one, made, place)]
    return kept


def _is_task(task: Mapping[str, Any], made: Migration, place: str) -> bool:
    kind = str(task.get("type"))
    if kind in _MARKERS or kind in tasks:
        return True
    made.note(place, f"task '{task.get('task')}' of type '{kind}' has no counterpart; left out")
    return False


def _task(task: Mapping[str, Any], made: Migration, place: str, gone: set[Any]) -> dict[str, Any]:
    kept = dict(task)
    here = f"{place}, task '{task.get('task')}'"
    if str(task.get("type")) in _MARKERS:
        return kept
    known = set(tasks[str(task["type"])].model_fields)
    if kept.get("executor") in gone and kept.get("executor") is not None:
        del kept["executor"]
    if "env" in kept and "env_vars" not in kept and isinstance(kept["env"], Mapping):
        kept["env_vars"] = kept.pop("env")
        made.note(here, "`env`, which Liminal ignores, is taken as `env_vars`")
    for key in sorted(kept.keys() - known):
        if key == "class" or key.startswith("x-"):
            continue
        del kept[key]
        made.note(here, f"`{key}` is no key of type '{task['type']}'; left out")
    return kept


def _defaults(defaults: Mapping[str, Any], made: Migration, place: str) -> dict[str, Any]:
    kept = {}
    for key, value in defaults.items():
        if place.endswith("task_defaults") and key not in tasks:
            made.note(place, f"'{key}' is no task type here; left out")
        else:
            kept[key] = value
    return kept


# -- dag-factory

_DAG = {"description": "description", "schedule_interval": "schedule", "schedule": "schedule", "tags": "tags"}
_BASH = re.compile(r"(^|\.)(BashOperator|bash)$")
_PYTHON = re.compile(r"(^|\.)PythonOperator$")
_SQL = re.compile(r"(SQLExecuteQuery|Postgres|MySql|Sqlite)Operator$")
_NONE = re.compile(r"(^|\.)(EmptyOperator|DummyOperator)$")
_JINJA = {"{{ ds }}": "{{period_start}}", "{{ds}}": "{{period_start}}"}


def of_dag_factory(data: Mapping[str, Any], shown: str, name: str) -> Migration:
    """One YAML file of dag-factory: each DAG is a pipeline."""
    made = Migration({"name": name, "pipelines": []})
    default = data.get("default") or {}
    for key, dag in data.items():
        if key != "default" and isinstance(dag, Mapping):
            made.data["pipelines"].append(_dag(key, {**default, **dag}, default, made, shown))
    return made


def _dag(name: str, dag: Mapping[str, Any], default: Mapping[str, Any], made: Migration, shown: str) -> dict[str, Any]:
    place = f"{shown}: DAG '{name}'"
    pipeline: dict[str, Any] = {"pipeline": _named(name, made, place)}
    args = {**(default.get("default_args") or {}), **(dag.get("default_args") or {})}
    for key, value in dag.items():
        if key in _DAG and value not in (None, "None", "@once"):
            pipeline[_DAG[key]] = value
        elif key not in ("default_args", "tasks", *_DAG):
            made.note(place, f"`{key}` has no counterpart; left out")
    if "schedule" in pipeline and not isinstance(pipeline["schedule"], str):
        made.note(place, f"the schedule {pipeline.pop('schedule')!r} is no cron text; left out")
    pipeline |= _args(args, made, place)
    listed = dag.get("tasks") or {}
    entries = listed.items() if isinstance(listed, Mapping) else [(one.get("task_id"), one) for one in listed]
    found = [_operator(str(key), one, made, place) for key, one in entries]
    pipeline["tasks"] = [one for one in found if one is not None]
    if "{{period_start}}" in str(pipeline["tasks"]):
        pipeline["parameters"] = [{"name": "period_start", "type": "date", "default": "2024-01-01"}]
        made.note(
            place, "`{{ ds }}` is the parameter `period_start`, which `rainbow backfill` gives; check its default"
        )
    return pipeline


def _args(args: Mapping[str, Any], made: Migration, place: str) -> dict[str, Any]:
    """The `default_args` of a DAG that a pipeline has, too."""
    kept: dict[str, Any] = {}
    for key, value in args.items():
        match key:
            case "owner" | "retries":
                kept[key] = value
            case "start_date" if isinstance(value, date | datetime):
                kept[key] = value
            case "retry_delay_sec":
                kept["retry_delay_seconds"] = value
            case "dagrun_timeout_sec" | "execution_timeout_sec" | "execution_timeout_secs":
                kept["timeout_minutes"] = value / 60
            case _:
                made.note(place, f"`default_args.{key}` has no counterpart; left out")
    return kept


def _operator(name: str, task: Mapping[str, Any], made: Migration, place: str) -> dict[str, Any] | None:
    operator = str(task.get("operator") or task.get("decorator") or "")
    here = f"{place}, task '{name}'"
    known = {"operator", "dependencies", "task_id", "retries"}
    made_task: dict[str, Any] = {"task": _named(name, made, here), "type": "python"}
    if _BASH.search(operator):
        made_task["cmd"] = _templated(str(task.get("bash_command", "true")), made, here)
        known |= {"bash_command", "env"}
        if isinstance(task.get("env"), Mapping):
            made_task["env_vars"] = dict(task["env"])
    elif _PYTHON.search(operator):
        known |= {"python_callable_name", "python_callable_file", "op_kwargs", "python_callable"}
        made_task |= _callable(task, made, here)
    elif _SQL.search(operator) and task.get("sql"):
        known |= {"sql", "conn_id", "postgres_conn_id", "mysql_conn_id", "sqlite_conn_id"}
        source = next((str(task[key]) for key in sorted(known) if key.endswith("conn_id") and key in task), "db")
        made_task |= {
            "type": "sql",
            "source": source,
            "query": _templated(str(task["sql"]), made, here),
            "writes": True,
        }
        made.data.setdefault("sources", [])
        if source not in [one["source"] for one in made.data["sources"]]:
            made.data["sources"].append({"source": source, "url": f"{{{{secret.{source}}}}}"})
            made.data.setdefault("secrets", []).append({"secret": source, "env": f"{source.upper()}_URL"})
            made.note(here, f"the connection '{source}' is the secret of that name: set {source.upper()}_URL")
    elif _NONE.search(operator):
        made_task["cmd"] = "true"
    else:
        made_task["cmd"] = "echo 'write this task' && exit 1"
        made.note(here, f"operator '{operator}' has no counterpart; a task that fails stands for it")
    made_task["depends_on"] = [re.sub(r"[^A-Za-z0-9_-]", "_", str(one)) for one in task.get("dependencies") or ()]
    if "retries" in task:
        made_task["retries"] = task["retries"]
    for key in sorted(task.keys() - known):
        made.note(here, f"`{key}` has no counterpart; left out")
    return made_task


def _callable(task: Mapping[str, Any], made: Migration, here: str) -> dict[str, Any]:
    """A function of a file, as a command that calls it."""
    import json
    import shlex
    from pathlib import PurePosixPath

    file, function = str(task.get("python_callable_file", "")), str(task.get("python_callable_name", ""))
    if not file:
        module, _, function = str(task.get("python_callable", "")).rpartition(".")
        code = f"from {module} import {function}"
    else:
        code = f"import runpy; {function} = runpy.run_path({file!r})[{function!r}]"
        made.note(here, f"it calls {function} of {PurePosixPath(file).name}; put `source` where that file is")
    given = json.dumps(task.get("op_kwargs") or {})
    call = f"import json; {code}; {function}(**json.loads({given!r}))"
    return {"cmd": f"python -c {shlex.quote(call)}"}


def _templated(text: str, made: Migration, here: str) -> str:
    for old, new in _JINJA.items():
        text = text.replace(old, new)
    left = [one for one in re.findall(r"\{\{.*?\}\}|\{%.*?%\}", text, re.S) if one not in _JINJA.values()]
    for one in left:
        made.note(here, f"the template {one} of Airflow is kept as text")
        text = text.replace(one, "\\" + one)
    return text


def _named(name: str, made: Migration, place: str) -> str:
    if NAME_PATTERN.match(name):
        return name
    fixed = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    made.note(place, f"the name is written '{fixed}': only letters, digits, '-' and '_' are allowed")
    return fixed
