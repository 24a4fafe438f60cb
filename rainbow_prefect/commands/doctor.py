"""`rainbow doctor`: look at the whole setup and say what to fix."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ..errors import CallError, RainbowError
from ..masking import mask_url
from .options import counted, json_option, path_argument, print_json

if TYPE_CHECKING:
    from ..api_client import Api
    from ..app import App

State = Literal["ok", "warning", "error", "not used"]
_MARKS = {"ok": "ok", "warning": "!!", "error": "XX", "not used": "--"}
_SECONDS = 15


@dataclass(frozen=True)
class Finding:
    """How one part of the setup is; `fix` is what to do about it."""

    part: str
    state: State
    text: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        return {"part": self.part, "state": self.state, "text": self.text, "fix": self.fix}


@click.command()
@path_argument
@json_option
def command(path: Path, as_json: bool) -> int:
    """Look at the setup: versions, files, server, work pools, workers, Docker, registry, sources, AWS.

    Exit status: 0 all that the files need is there, 1 something is not, 2 the call is wrong.
    """
    findings = []
    for one in _findings(path):
        findings.append(one)
        if not as_json:
            click.echo(f"{_MARKS[one.state]}  {one.part}: {one.text}")
            if one.fix:
                click.echo(f"      {one.fix}")
    is_sound = not any(one.state == "error" for one in findings)
    if as_json:
        print_json({"ok": is_sound, "findings": [one.as_dict() for one in findings]})
    return 0 if is_sound else 1


def _findings(path: Path) -> Iterator[Finding]:
    yield from _versions()
    apps, found = _files(path)
    yield found
    with _api() as (api, finding):
        yield finding
        yield from _pools(api, apps)
        yield from _deployments(api, apps)
    yield from _docker(apps)
    yield from _stores(apps)
    yield from _aws(apps)


def _versions() -> Iterator[Finding]:
    from importlib.metadata import version

    text = f"rainbow-prefect {version('rainbow-prefect')}, prefect {version('prefect')}, python {platform.python_version()}"
    yield Finding("versions", "ok", text)
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        yield Finding(
            "python", "warning", "PYTHONDONTWRITEBYTECODE is set, so each start compiles everything again",
            "unset PYTHONDONTWRITEBYTECODE",
        )  # fmt: skip


def _files(path: Path) -> tuple[tuple[App, ...], Finding]:
    from .. import check

    try:
        checked = check.check(path)
    except RainbowError as error:
        return (), Finding("files", "error", str(error), "rainbow init writes a first one")
    pipelines = sum(len(one.pipelines) for one in checked.apps)
    text = f"{counted(len(checked.apps), 'file')}, {counted(pipelines, 'pipeline')}"
    if checked.errors:
        return tuple(checked.apps), Finding(
            "files", "error", f"{text}, {counted(len(checked.errors), 'error')}", "rainbow check"
        )
    return tuple(checked.apps), Finding("files", "ok", text)


# -- the server


@contextmanager
def _api() -> Iterator[tuple[Api | None, Finding]]:
    from ..api_client import connect

    told: list[str] = []
    entered = False
    try:
        with connect(tell=told.append) as api:
            version = api.version or "Prefect Cloud"
            found = Finding("server", "ok", f"{api.url} runs Prefect {version}")
            if told:
                found = Finding("server", "warning", told[0].removeprefix("warning: "), "upgrade the server")
            entered = True
            yield api, found
    except RainbowError as error:
        if entered:
            raise
        state: State = "warning" if isinstance(error, CallError) else "error"
        text, _, fix = mask_url(str(error)).partition("; ")
        yield None, Finding("server", state, text, fix)


def _pools(api: Api | None, apps: tuple[App, ...]) -> Iterator[Finding]:
    """The work pools that the files name: whether they are there, ready, and somebody works for them."""
    from ..deployment import DEFAULT_POOL

    names = {
        one.work_pool or app.work_pool or DEFAULT_POOL for app in apps for one in app.pipelines if one.all_schedules
    }
    names |= {one.work_pool for app in apps for one in app.work_pools}
    if api is None or not names:
        return
    asked = {"work_pools": {"name": {"any_": sorted(names)}}}
    known = {one["name"]: one for one in api.pages("work_pools/filter", asked)}
    for name in sorted(names):
        if name not in known:
            yield Finding("work pool", "error", f"'{name}' is not on the server", "rainbow deploy makes it")
            continue
        yield _worker(api, name, known[name])


def _worker(api: Api, name: str, pool: dict[str, Any]) -> Finding:
    from urllib.parse import quote

    workers = api.post(f"work_pools/{quote(name, safe='')}/workers/filter", {})
    alive = [one for one in workers if one.get("status") == "ONLINE"]
    if pool.get("is_paused"):
        return Finding("work pool", "error", f"'{name}' is paused", f"prefect work-pool resume '{name}'")
    if alive:
        text = f"'{name}' ({pool['type']}): {len(alive)} worker{'s' if len(alive) > 1 else ''} alive"
        return Finding("work pool", "ok", text)
    seen = max((one["last_heartbeat_time"] for one in workers if one.get("last_heartbeat_time")), default=None)
    ago = "" if seen is None else f"; the last one was seen {_ago(seen)}"
    return Finding(
        "work pool", "error", f"'{name}' ({pool['type']}) has no worker that is alive{ago}",
        f"prefect worker start --pool '{name}' --type {pool['type']}",
    )  # fmt: skip


def _ago(stamp: str) -> str:
    minutes = (datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds() / 60
    return f"{minutes:.0f} min ago" if minutes < 120 else f"{minutes / 60:.0f} h ago"


def _deployments(api: Api | None, apps: tuple[App, ...]) -> Iterator[Finding]:
    from .. import deployed

    wanted = [(app.name, one.pipeline) for app in apps for one in app.pipelines if one.all_schedules]
    if api is None or not wanted:
        return
    missing = [pipeline for app, pipeline in wanted if deployed.find(api, pipeline, app) is None]
    if missing:
        text = f"{len(missing)} of {len(wanted)} pipelines with a schedule are not deployed: {', '.join(missing[:5])}"
        yield Finding("deployments", "warning", text, "rainbow deploy")
    else:
        yield Finding("deployments", "ok", f"{len(wanted)} pipelines with a schedule are deployed")


# -- what tasks need


def _docker(apps: tuple[App, ...]) -> Iterator[Finding]:
    """Docker, and the registries of images, where a task or an image needs them."""
    needed = any(app.images for app in apps) or "docker" in _executors(apps)
    if not needed:
        yield Finding("docker", "not used", "no image is built and no task runs in a container")
        return
    if shutil.which("docker") is None:
        yield Finding(
            "docker", "error", "the command `docker` is not installed", "install Docker, or use another executor"
        )
        return
    done = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"],
        capture_output=True, text=True, timeout=4 * _SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        yield Finding("docker", "error", why, "start it: sudo systemctl start docker, or set DOCKER_HOST")
        return
    yield Finding("docker", "ok", f"engine {done.stdout.strip()}")
    for host in sorted({_host(image.image) for app in apps for image in app.images} - {""}):
        yield _registry(host)


def _executors(apps: tuple[App, ...]) -> set[str]:
    """The types of executors that tasks use."""
    found = set()
    for app in apps:
        for pipeline in app.pipelines:
            for task in pipeline.tasks:
                name = app.executor_name(pipeline, task)
                named = next((one.type for one in app.executors if one.executor == name), name)
                found.add(named.partition(":")[0])
    return found


def _host(image: str) -> str:
    """The registry in the name of an image; '' for Docker Hub."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else ""


def _registry(host: str) -> Finding:
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, build_opener

    is_near = host.partition(":")[0] in ("localhost", "127.0.0.1")
    address = f"{'http' if is_near else 'https'}://{host}/v2/"
    try:
        with build_opener(*([ProxyHandler({})] if is_near else [])).open(address, timeout=_SECONDS):
            return Finding("registry", "ok", f"{host} answers")
    except HTTPError as error:
        if error.code == 401:
            return Finding("registry", "ok", f"{host} answers and asks for a login")
        return Finding("registry", "error", f"{host} answered {error.code}", "is it a registry of images?")
    except OSError as error:
        why = str(getattr(error, "reason", error))
        return Finding(
            "registry", "error", f"{host} does not answer ({why})", "correct the name of the image, or start it"
        )


def _stores(apps: tuple[App, ...]) -> Iterator[Finding]:
    """Whether each source and sink opens."""
    for app in apps:
        for what, stores in (("source", app.sources), ("sink", app.sinks)):
            for one in stores:
                name = getattr(one, what, None) or one.type
                yield _store(app, f"{what} '{name}'", one)


def _store(app: App, shown: str, store: Any) -> Finding:
    from .alert import secrets_of

    secrets = secrets_of(app)
    try:
        rendered = secrets.render(store)
        url = getattr(rendered, "url", None)
        if not isinstance(url, str) or url.startswith("block:"):
            return Finding("stores", "ok", f"{shown}: not opened")
        if "://" not in url or "{{" in url:
            return Finding("stores", "warning", f"{shown}: its address is known only in a run")
        _open(url)
    except RainbowError as error:
        text, _, fix = secrets.mask(str(error)).partition("; ")
        return Finding("stores", "error", f"{shown}: {text}", fix)
    except Exception as error:
        text = secrets.mask(mask_url(next(iter(str(error).splitlines()), type(error).__name__)))[:300]
        return Finding("stores", "error", f"{shown}: {text}", "is it running, and are its address and login right?")
    return Finding("stores", "ok", f"{shown} opens")


def _open(url: str) -> None:
    from sqlalchemy import create_engine, make_url

    made = make_url(url)
    if made.get_backend_name() == "sqlite" and made.database and not Path(made.database).exists():
        return  # made by the first load
    timeout = {"postgresql": "connect_timeout", "mysql": "connect_timeout", "mariadb": "connect_timeout"}
    key = timeout.get(made.get_backend_name())
    if made.drivername == "postgresql":
        made = made.set(drivername="postgresql+psycopg")
    engine = create_engine(made, connect_args={key: _SECONDS} if key else {})
    try:
        with engine.connect():
            pass
    finally:
        engine.dispose()


def _aws(apps: tuple[App, ...]) -> Iterator[Finding]:
    uses = "ecs" in _executors(apps) or any(one.aws_secret for app in apps for one in app.secrets)
    if not uses:
        yield Finding("aws", "not used", "no task runs on ECS and no secret is in AWS")
        return
    from ..observers.cloudwatch import client

    try:
        who = client("sts", os.environ.get("AWS_DEFAULT_REGION"), None).get_caller_identity()
        yield Finding("aws", "ok", str(who["Arn"]))
    except RainbowError as error:
        text, _, fix = str(error).partition("; ")
        yield Finding("aws", "error", text, fix)
    except Exception as error:
        yield Finding("aws", "error", f"{type(error).__name__}: {str(error)[:200]}", "aws configure")
