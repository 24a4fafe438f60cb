"""What runs left on Docker engines, in clusters and at AWS: where a folder's files say that their tasks run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import check
from ..errors import RainbowError
from ..executors._docker_engine import FLOW_RUN, KEEP, OWNER, Engine, engine
from ..executors.base import BlockReference, Executor
from ..secrets import Secrets

if TYPE_CHECKING:
    from ..app import App
    from ..executors.ecs import Ecs
    from ..executors.kubernetes import Kubernetes
    from ..secrets import Secret

_SHOWN = 12
Place = Callable[[], "list[Left]"]


@dataclass(frozen=True)
class Left:
    """A thing that some run made and that is still there; `owner` is the process that made it, if it says so."""

    executor: str
    kind: str
    id: str
    task: str
    run_id: str
    age_seconds: float
    remove: Callable[[], None]
    owner: str = ""
    is_kept: bool = False

    @property
    def shown(self) -> str:
        """Its id as people read it."""
        return self.id[:_SHOWN] if self.kind == "container" else self.id.rpartition("/")[2]


@dataclass(frozen=True)
class Found:
    """Everything that is left, each thing once, and which places could not be looked at."""

    things: Sequence[Left]
    problems: Sequence[str]


def look(path: Path, host: str | None, *, with_definitions: bool, connect: Callable[[], None]) -> Found:
    """Look at the Docker engine, and at the executors of the files at `path`.

    `host` is the engine of who names none. `connect` makes the Prefect server known; it is called when a block is read.

    Raises:
        CallError: `path` does not exist.
    """
    problems: list[str] = []
    declared = list(_declared(path, connect, problems))
    things: dict[tuple[str, str, str], Left] = {}
    for name, place in _places(declared, host, with_definitions):
        try:
            for one in place():
                things.setdefault((one.kind, one.id, one.run_id), one)
        except RainbowError as error:
            problems.append(_problem(name, declared, error))
    return Found(list(things.values()), list(dict.fromkeys(problems)))


# -- the executors of the files


@dataclass(frozen=True)
class _Declared:
    """An executor that is ready to use."""

    name: str
    executor: Executor
    root: Path
    secrets: Secrets

    @property
    def host(self) -> str | None:
        host: str | None = getattr(self.executor, "host", None)
        return host


def _declared(path: Path, connect: Callable[[], None], problems: list[str]) -> Iterator[_Declared]:
    """The executors of all files that run things elsewhere; what cannot be read is told."""
    from ..files import find

    if not find(path):
        return
    checked = check.check(path)
    for file in dict.fromkeys(one.mark.file for one in checked.errors):
        problems.append(f"{file} has errors, which `rainbow check` tells: what its executors left was not looked for")
    for app in checked.apps:
        secrets = _secrets(app, connect)
        for name, executor in _executors(app).items():
            try:
                yield _Declared(name, _ready(executor, secrets, connect), app.root, secrets)
            except RainbowError as error:
                problems.append(secrets.mask(f"executor '{name}': {error}"))


def _executors(app: App) -> dict[str, Executor]:
    """All that the file lists or its tasks name, but those that run on this machine itself."""
    from ..plan import executor_named

    found = {one.executor or one.type: one for one in app.executors}
    for pipeline in app.pipelines:
        for task in pipeline.tasks:
            name = app.executor_name(pipeline, task)
            found[name] = found.get(name) or executor_named(app, name)
    return {name: one for name, one in found.items() if one.runs_images}


def _ready(executor: Executor, secrets: Secrets, connect: Callable[[], None]) -> Executor:
    fields = (getattr(executor, key, None) for key in ("host", "credentials"))
    if not isinstance(executor, BlockReference) and not any(str(one).startswith("block:") for one in fields):
        made: Executor = secrets.render(executor)
        return made
    connect()
    from ..engine.executors import ready  # which imports Prefect

    return ready(executor, secrets)


def _secrets(app: App, connect: Callable[[], None]) -> Secrets:
    def block(reference: str) -> str:
        from ..blocks import secret

        connect()
        return secret(reference)

    def aws(declared: Secret) -> str:
        from ..blocks.aws import secret

        if declared.credentials is not None:
            connect()
        return secret(declared)

    secrets = Secrets(app.secrets, app.root, block, load_aws=aws)
    secrets.learn_from(app.data)
    return secrets


# -- the places


def _places(declared: Sequence[_Declared], host: str | None, with_definitions: bool) -> Iterator[tuple[str, Place]]:
    """The places to look at, each once, with the name of its executor; '' is the engine that no file names."""
    from ..executors.docker import Docker
    from ..executors.ecs import Ecs
    from ..executors.kubernetes import Kubernetes

    is_named = any(isinstance(one.executor, Docker) and one.host is None for one in declared)
    default = engine(host)
    if host is not None or is_named or not declared or default.answers():
        yield "", lambda: _containers("docker", default)
    seen: set[tuple[Any, ...]] = {("docker", default.shown)}
    for one in sorted(declared, key=lambda one: not getattr(one.executor, "keep_failed", False)):
        executor = one.executor
        place: Place
        if isinstance(executor, Docker):
            where = engine(executor.host or host)
            key: tuple[Any, ...] = ("docker", where.shown)
            place = _bound(_containers, one.name, where)
        elif isinstance(executor, Kubernetes):
            config = executor.kubeconfig and one.root / Path(executor.kubeconfig).expanduser()
            key = ("kubernetes", config, executor.context, executor.in_cluster, executor.namespace)
            place = _bound(_jobs, one.name, executor, one.root)
        elif isinstance(executor, Ecs):
            key = ("ecs", executor.cluster, executor.region, executor.endpoint_url, executor.credentials)
            place = _bound(_ecs_tasks, one.name, executor, with_definitions)
        else:
            continue
        if key not in seen:
            seen.add(key)
            yield one.name, place


def _bound(look: Callable[..., list[Left]], *words: Any) -> Place:
    return lambda: look(*words)


def _problem(name: str, declared: Sequence[_Declared], error: RainbowError) -> str:
    text = f"executor '{name}': {error}" if name else str(error)
    for one in declared:
        text = one.secrets.mask(text)
    return text


def _containers(name: str, where: Engine) -> list[Left]:
    return [_container(name, where, one) for one in where.containers(FLOW_RUN)]


def _container(name: str, where: Engine, one: Mapping[str, Any]) -> Left:
    labels = one["Labels"]
    return Left(
        name,
        "container",
        one["Id"],
        labels.get("rainbow.task", ""),
        labels[FLOW_RUN],
        max(0.0, time.time() - one["Created"]),
        lambda: where.remove(one["Id"]),
        labels.get(OWNER, ""),
        labels.get(KEEP) == "true" and one["State"] == "exited",
    )


def _jobs(name: str, executor: Kubernetes, root: Path) -> list[Left]:
    from ..executors import kubernetes

    return [
        Left(
            name,
            "job",
            f"{one.namespace}/{one.name}",
            one.task,
            one.run_id,
            _age(one.created),
            _removal(kubernetes.remove, executor, root, one),
            is_kept=executor.keep_failed and one.has_failed,
        )
        for one in kubernetes.orphans(executor, root)
    ]


def _ecs_tasks(name: str, executor: Ecs, with_definitions: bool) -> list[Left]:
    from ..executors import ecs

    found = [
        Left(
            name,
            "ecs_task",
            one.name,
            one.task,
            one.run_id,
            _age(one.created),
            _removal(ecs.remove, executor, one),
        )
        for one in ecs.orphans(executor)
    ]
    if with_definitions:
        found += [
            Left(name, "task_definition", one.name, "", "", _age(one.created), _removal(ecs.deregister, executor, one))
            for one in ecs.definitions(executor)
        ]
    return found


def _removal(remove: Callable[..., None], *words: Any) -> Callable[[], None]:
    return lambda: remove(*words)


def _age(created: str) -> float:
    """The seconds since a time in ISO 8601; what does not tell its time is new."""
    try:
        return max(0.0, time.time() - datetime.fromisoformat(created).timestamp())
    except ValueError:
        return 0.0
