"""What goes into each image of an app, and which image a task runs in; reads the config, builds nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

from ..app import App, Endpoint, Image, Service
from ..errors import CallError
from ..masking import PLACEHOLDER, sensitive
from ..plan import Plan
from ..services.local import settings, variable_of
from ..tasks.base import Task
from .recipe import DEFAULT_PYTHON, Recipe, tagged, with_bases

DEFAULT_SPARK = "apache/spark:3.5.0-python3"

_LOSSLESS = re.compile(r"[a-z0-9]+(?:(?:[_./]|__|-+)[a-z0-9]+)*")


def recipes(app: App, *, derived: Callable[[Task], bool] = lambda task: False) -> list[Recipe]:
    """Every image that a file names with a source, and every one of its `images`, in the order of the file.

    `derived` says of a task with a source and without an image whether it gets one.

    Raises:
        CallError: an image has two sources, or would keep a secret.
    """
    found: dict[str, Recipe] = {}
    for one in _all(app, derived):
        name = tagged(one.image)
        found[name] = _merged(found[name], one) if name in found else one
    for one in found.values():
        _check(one)
    kept_out = frozenset(str(path.resolve()) for path in secret_files(app, found.values()))
    return [replace(one, kept_out=kept_out) for one in found.values()]


def secret_files(app: App, found: Iterable[Recipe]) -> Iterator[Path]:
    """The files of an app that hold secrets, and so never enter an image."""
    for secret in app.secrets:
        if secret.local_path_file is not None:
            yield app.root / Path(secret.local_path_file).expanduser()
    for executor in app.executors:
        if (env_file := getattr(executor, "env_file", None)) is not None:
            yield app.root / env_file
    yield from (one.pip_conf for one in found if one.pip_conf is not None)


def needed(plan: Plan, in_image: Callable[[Task], bool]) -> list[Recipe]:
    """The images that the tasks of a plan run in and that can be built, and those that these are built from.

    `in_image` says of a task whether its executor runs it in an image.
    """
    tasks = [step.task for step in plan.steps if in_image(step.task)]
    if not tasks:
        return []
    names = {task.task for task in tasks}
    every = [one for one in recipes(plan.app, derived=lambda task: task.task in names) if one.folder is not None]
    return with_bases(every, [image for task in tasks if (image := image_of(plan.app, task)) is not None])


def image_of(app: App, task: Task) -> str | None:
    """The image a task runs in: its own, else one made of its source; None for a task with neither."""
    image, source = task.image_source()
    if image:
        return image
    return _derived_name(app, task, source) if source else None


def _derived_name(app: App, task: Task, source: str) -> str:
    """`rainbow/APP-SOURCE:latest`; with a digest where that does not say all."""
    pip_conf, version = getattr(task, "pip_conf", None), getattr(task, "python_version", None)
    told = f"{app.name}-{source.removeprefix('./').strip('/')}"
    name = re.sub(r"[^a-z0-9]+$|^[^a-z0-9]+", "", re.sub(r"[^a-z0-9_-]+", ".", told.lower()))
    is_plain = _LOSSLESS.fullmatch(told) and "." not in told
    if not is_plain or not _LOSSLESS.fullmatch(name) or pip_conf or version or task.type != "python":
        digest = hashlib.sha256(repr((told, task.type, pip_conf, version)).encode()).hexdigest()[:8]
        name = f"{re.sub(r'[^a-z0-9]+', '-', name)[:80].strip('-') or 'app'}-{digest}"
    return f"rainbow/{name}:latest"


# -- from the config


def _all(app: App, derived: Callable[[Task], bool]) -> Iterator[Recipe]:
    for image in app.images:
        yield _of_image(app, image)
    for pipeline in app.pipelines:
        for task in pipeline.tasks:
            named, source = task.image_source()
            if source and (named or derived(task)):
                yield _of_task(app, task, named or _derived_name(app, task, source), source)
    for service in app.services:
        if service.image and service.source:
            yield _of_service(app, service)


def _of_image(app: App, one: Image) -> Recipe:
    services = [service for service in app.services if service.image and tagged(service.image) == tagged(one.image)]
    is_server = one.type == "python_server"
    source = one.source
    if source is None and one.dockerfile is not None:
        source = str(Path(one.dockerfile).parent)
    return Recipe(
        image=one.image,
        type=one.type,
        app=app.name,
        source=source,
        folder=app.root / source if source is not None else None,
        base_image=_base(one.type, one.base_image, one.python_version),
        no_cache=one.no_cache,
        pip_conf=app.root / one.pip_conf if one.pip_conf else None,
        build_cmd=(one.build_cmd,) if isinstance(one.build_cmd, str) else one.build_cmd or (),
        requirements=one.requirements,
        dockerfile=app.root / one.dockerfile if one.dockerfile else None,
        build_args=one.build_args,
        platform=one.platform,
        labels=one.labels,
        credentials=one.credentials,
        service=_definition(app, services, one) if is_server else None,
    )


def _of_task(app: App, task: Task, image: str, source: str) -> Recipe:
    pip_conf = getattr(task, "pip_conf", None)
    kind = "spark" if task.type == "spark" else "python"
    return Recipe(
        image=image,
        type=kind,
        app=app.name,
        source=source,
        folder=app.root / source,
        base_image=_base(kind, None, getattr(task, "python_version", None)),
        no_cache=bool(getattr(task, "no_cache", False)),
        pip_conf=app.root / pip_conf if pip_conf else None,
    )


def _of_service(app: App, one: Service) -> Recipe:
    assert one.image is not None and one.source is not None
    return Recipe(
        image=one.image,
        type=one.type,
        app=app.name,
        source=one.source,
        folder=app.root / one.source,
        base_image=_base(one.type, None, one.python_version),
        no_cache=bool(one.no_cache),
        pip_conf=app.root / one.pip_conf if one.pip_conf else None,
        service=_definition(app, [one]),
    )


def _base(kind: str, base_image: str | None, version: str | None) -> str:
    if base_image is not None:
        return base_image
    return DEFAULT_SPARK if kind == "spark" and version is None else f"python:{version or DEFAULT_PYTHON}-slim"


def _definition(app: App, services: Iterable[Service], image: Image | None = None) -> dict[str, Any]:
    """What an image that serves knows of itself: its endpoints, and each service that runs in it, without secrets."""
    services = list(services)
    own = image.endpoints if image is not None else ()
    every = [*own, *(endpoint for service in services for endpoint in service.endpoints)]
    shown = [one.model_dump(mode="json", exclude_none=True) for one in every]
    served = [_served(app, one, own) for one in services]
    if not services and image is not None and own:
        name = re.sub(r"[^A-Za-z0-9_-]", "-", image.image.rpartition("/")[2].partition(":")[0])
        served = [_served(app, Service(service=name, source=image.source, endpoints=own), ())]
    return {"services": [one.service for one in services], "endpoints": _unique(shown), "served": served}


def _served(app: App, service: Service, endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """One service of an image as `services.definition` reads it; tokens are told by variables when it runs."""
    every = _unique([*endpoints, *service.endpoints])
    shared = settings(service.model_copy(update={"endpoints": tuple(every)}))
    written = service.source or app.image_sources.get(service.image or "") or ""
    env = {**app.env_vars, **service.env_vars}
    return {
        "port": service.port,
        "workers": service.workers,
        "definition": {
            **{key: _plain(value) for key, value in shared.items()},
            "name": Path(written).name,
            "env": {name: value for name, value in env.items() if not (sensitive(name) or PLACEHOLDER.search(value))},
            "auth": [
                {"name": one.secret, "env": variable_of(one.secret), "scopes": list(one.scopes)} for one in service.auth
            ],
        },
    }


def _plain(value: Any) -> Any:
    """The same as data of JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _unique(every: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for one in every:
        if one not in found:
            found.append(one)
    return found


def _merged(first: Recipe, other: Recipe) -> Recipe:
    """What was named first counts; a source that it lacks comes from the other."""
    if other.folder is None:
        return first
    if first.folder is None:
        return replace(
            first,
            source=other.source,
            folder=other.folder,
            pip_conf=first.pip_conf or other.pip_conf,
            no_cache=first.no_cache or other.no_cache,
        )
    if first.folder.resolve() != other.folder.resolve() and first.dockerfile is None:
        raise CallError(
            f"image '{first.image}' has two sources, '{first.source}' and '{other.source}'; "
            "give one of them another name"
        )
    if first.service is not None and other.service is not None:
        every = [*first.service["endpoints"], *other.service["endpoints"]]
        names = list(dict.fromkeys([*first.service["services"], *other.service["services"]]))
        served = _unique([*first.service["served"], *other.service["served"]])
        return replace(first, service={"services": names, "endpoints": _unique(every), "served": served})
    return first


def _check(one: Recipe) -> None:
    texts = {
        "image": [one.image],
        "base_image": [one.base_image],
        "build_cmd": one.build_cmd,
        "build_args": [*one.build_args.values()],
        "labels": [*one.labels.values()],
    }
    if "@" in one.image and one.folder is not None:
        raise CallError(
            f"image '{one.image}': a digest names one finished image, so nothing can be built under that name; "
            "remove the digest, or the `source`"
        )
    for key, values in texts.items():
        if any(PLACEHOLDER.search(value) for value in values):
            raise CallError(
                f"image '{one.image}': `{key}` holds a secret, which anybody could read in the image; "
                "give secrets to its tasks, with their key `secrets`"
            )
