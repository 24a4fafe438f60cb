"""A service on a Docker engine: its replicas, the proxy before them, and the way from one version to the next.

An update starts all new replicas beside the old ones, waits until each is ready, lets the proxy take the new ones in one
step, and ends the old ones, which finish what they have begun. When a new one does not become ready, the new ones are
removed and the old ones have served all the time.
"""

from __future__ import annotations

import io
import json
import tarfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import CallError, MissingExtra, RunError
from ..executors._docker_limits import cpus, size_bytes
from ..secrets import Secrets
from .local import variable_of

if TYPE_CHECKING:
    from ..app import App, Service

SERVICE = "rainbow.service"
APP = "rainbow.app"
ROLE = "rainbow.role"
GENERATION = "rainbow.generation"
SECRETS = "run/rainbow/env.json"
READY_SECONDS = 180.0
STOP_SECONDS = 40

_LOOK_SECONDS = 0.3
_PORT = 8000
_READY = (
    "import os, urllib.request as r; "
    "r.urlopen('http://127.0.0.1:' + os.environ.get('RAINBOW_PORT', '8000') + '/readyz', timeout=4)"
)
_USER = 10001

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What the containers of a service are made with."""

    app: str
    service: str
    image: str
    replicas: int
    env: Mapping[str, str]
    secrets: Mapping[str, str]
    labels: Mapping[str, str]
    binds: Mapping[str, Mapping[str, str]]
    limits: Mapping[str, Any]


def settings_of(
    service: Service,
    app: App,
    *,
    image: str | None = None,
    replicas: int | None = None,
    secrets: Secrets | None = None,
) -> Settings:
    """What a service asks for; its secrets are read.

    Raises:
        CallError: it has no image.
        RunError: a secret cannot be read.
    """
    name = image or service.image
    if name is None:
        raise CallError(f"service '{service.service}' has no image; add `image: NAME`")
    secrets = secrets or Secrets(app.secrets, app.root)
    written = {**app.env_vars, **service.env_vars}
    rendered = dict(secrets.render(written))
    hidden = {key: value for key, value in rendered.items() if value != written[key]}
    hidden |= {one.env: secrets.get(one.secret) for one in service.secrets if one.env is not None}
    hidden |= {variable_of(one.secret): secrets.get(one.secret) for one in service.auth}
    env = {key: value for key, value in rendered.items() if key not in hidden}
    volumes = {one.volume: one for one in app.volumes}
    binds = {}
    for one in service.mounts:
        volume = volumes.get(one.volume)
        if volume is None or volume.local is None:
            raise CallError(f"service '{service.service}': volume '{one.volume}' is no folder of this machine")
        path = (app.root / volume.local.path / one.sub_path).resolve()
        binds[str(path)] = {"bind": one.path, "mode": "ro" if one.read_only else "rw"}
    limits: dict[str, Any] = {}
    if service.resources is not None and service.resources.limit_memory:
        limits["mem_limit"] = size_bytes(service.resources.limit_memory)
    if service.resources is not None and service.resources.limit_cpu:
        limits["nano_cpus"] = int(cpus(service.resources.limit_cpu) * 1_000_000_000)
    return Settings(
        app=app.name,
        service=service.service,
        image=name,
        replicas=replicas or service.replicas or 1,
        env={**env, "RAINBOW_SERVICE": service.service, "RAINBOW_PORT": str(_PORT)},
        secrets=hidden,
        labels={**app.labels, **service.labels},
        binds=binds,
        limits=limits,
    )


class Engine:
    """The containers of services on one Docker engine."""

    def __init__(self, tell: Tell = lambda text: None) -> None:
        try:
            import docker
            import docker.errors
        except ImportError as error:
            raise MissingExtra("`rainbow service`", "docker") from error
        self._errors = docker.errors
        self.tell = tell
        try:
            self._docker: Any = docker.from_env(timeout=300)
            self._docker.ping()
        except docker.errors.DockerException as error:
            raise RunError(f"no Docker engine answers: {error}") from None

    # -- looking

    def containers(self, app: str, service: str, role: str | None = None) -> list[Any]:
        """The containers of a service, the oldest first."""
        labels = [f"{APP}={app}", f"{SERVICE}={service}", *([f"{ROLE}={role}"] if role else [])]
        found = self._docker.containers.list(all=True, filters={"label": labels}, ignore_removed=True)
        return sorted(found, key=lambda one: str(one.attrs["Created"]))

    def status(self, app: str, service: str) -> dict[str, Any]:
        """What runs of a service."""
        replicas = [
            {"container": one.name, "state": _state(one), "image": one.attrs["Config"]["Image"]}
            for one in self.containers(app, service, "replica")
        ]
        proxies = self.containers(app, service, "proxy")
        port = _published(proxies[0]) if proxies else None
        is_up = bool(replicas) and port is not None
        url = f"http://127.0.0.1:{port}" if port else None
        return {"service": service, "state": "up" if is_up else "down", "url": url, "replicas": replicas}

    def logs(self, app: str, service: str, *, tail: int) -> list[tuple[str, str]]:
        """The last lines of each replica."""
        return [
            (one.name, one.logs(tail=tail).decode(errors="replace")) for one in self.containers(app, service, "replica")
        ]

    # -- doing

    def up(self, wanted: Settings, *, port: int) -> None:
        """Start a service.

        Raises:
            RunError: it runs already, its image is missing, or a replica does not become ready; nothing is left then.
        """
        if self.containers(wanted.app, wanted.service):
            raise RunError(f"service '{wanted.service}' is up already; `rainbow service update` exchanges it")
        self._image(wanted.image)
        network = self._network(wanted)
        try:
            replicas = self._start(wanted, network)
            proxy = self._proxy(wanted, network, port)
            self._take(proxy, replicas)
        except BaseException:
            self.down(wanted.app, wanted.service)
            raise

    def update(self, wanted: Settings) -> None:
        """Exchange all replicas for new ones.

        Raises:
            RunError: it is not up, or a new replica does not become ready: the old ones serve on.
        """
        proxies = self.containers(wanted.app, wanted.service, "proxy")
        old = self.containers(wanted.app, wanted.service, "replica")
        if not proxies:
            raise RunError(f"service '{wanted.service}' is not up; start it with `rainbow service up`")
        self._image(wanted.image)
        try:
            new = self._start(wanted, self._network(wanted))
        except RunError as error:
            raise RunError(f"{error}; rolled back: the {len(old)} old replicas serve on") from None
        self._take(proxies[0], new)
        self.tell(f"{len(new)} new replicas serve; ending {len(old)} old ones")
        self._end(old)

    def down(self, app: str, service: str) -> int:
        """End a service; gives how many containers there were."""
        found = self.containers(app, service)
        self._end([one for one in found if one.labels.get(ROLE) == "proxy"])
        self._end([one for one in found if one.labels.get(ROLE) != "proxy"])
        for network in self._docker.networks.list(filters={"label": [f"{APP}={app}", f"{SERVICE}={service}"]}):
            with suppress(self._errors.APIError):
                network.remove()
        return len(found)

    # -- parts

    def _image(self, name: str) -> None:
        try:
            self._docker.images.get(name)
        except self._errors.ImageNotFound:
            raise RunError(f"there is no image '{name}'; build it with `rainbow build`") from None

    def _network(self, wanted: Settings) -> Any:
        labels = {APP: wanted.app, SERVICE: wanted.service}
        found = self._docker.networks.list(filters={"label": [f"{key}={value}" for key, value in labels.items()]})
        if found:
            return found[0]
        return self._docker.networks.create(_name(wanted, "net"), driver="bridge", labels=labels)

    def _start(self, wanted: Settings, network: Any) -> list[Any]:
        """New replicas, once all are ready; none is left when one is not."""
        generation = uuid.uuid4().hex[:8]
        made: list[Any] = []
        try:
            for index in range(wanted.replicas):
                made.append(self._replica(wanted, network, f"{generation}-{index + 1}"))
            deadline = time.monotonic() + READY_SECONDS
            for one in made:
                self._wait(one, deadline)
                self.tell(f"{one.name} is ready")
        except BaseException as error:
            text = f"; its last lines: {_tail(made[-1])}" if made and isinstance(error, RunError) else ""
            self._end(made, at_once=True)
            if isinstance(error, self._errors.APIError):
                raise RunError(f"the engine refused: {error.explanation or error}") from None
            if text:
                raise RunError(f"{error}{text}") from None
            raise
        return made

    def _replica(self, wanted: Settings, network: Any, suffix: str) -> Any:
        one = self._docker.containers.create(
            wanted.image,
            name=_name(wanted, suffix),
            environment=dict(wanted.env),
            labels={**wanted.labels, APP: wanted.app, SERVICE: wanted.service, ROLE: "replica", GENERATION: suffix},
            network=network.name,
            restart_policy={"Name": "unless-stopped"},
            volumes={path: dict(bind) for path, bind in wanted.binds.items()},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            **wanted.limits,
        )
        if wanted.secrets:
            one.put_archive("/", _archive(wanted.secrets))
        one.start()
        return one

    def _wait(self, one: Any, deadline: float) -> None:
        while time.monotonic() < deadline:
            one.reload()
            if one.status == "exited" or one.attrs.get("RestartCount", 0):
                raise RunError(f"{one.name} ended before it was ready")
            with suppress(self._errors.APIError):
                if one.status == "running" and one.exec_run(["python3", "-c", _READY]).exit_code == 0:
                    return
            time.sleep(_LOOK_SECONDS)
        raise RunError(f"{one.name} was not ready after {READY_SECONDS:g} s")

    def _proxy(self, wanted: Settings, network: Any, port: int) -> Any:
        try:
            one = self._docker.containers.run(
                wanted.image,
                ["python3", "-m", "rainbow_prefect.services.proxy"],
                detach=True,
                name=_name(wanted, "proxy"),
                labels={APP: wanted.app, SERVICE: wanted.service, ROLE: "proxy"},
                network=network.name,
                ports={f"{_PORT}/tcp": ("127.0.0.1", port or None)},
                restart_policy={"Name": "unless-stopped"},
                healthcheck={"test": ["NONE"]},
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
            )
        except self._errors.APIError as error:
            raise RunError(f"the proxy cannot be started: {error.explanation or error}") from None
        one.reload()
        return one

    def _take(self, proxy: Any, replicas: Sequence[Any]) -> None:
        """Let the proxy send requests to these replicas and no others."""
        addresses = []
        for one in replicas:
            one.reload()
            networks = one.attrs["NetworkSettings"]["Networks"]
            addresses += [f"{found['IPAddress']}:{_PORT}" for found in list(networks.values())[:1]]
        command = ["python3", "-m", "rainbow_prefect.services.proxy", "--set", json.dumps(addresses)]
        deadline = time.monotonic() + 60
        done: Any = None
        while time.monotonic() < deadline:
            done = proxy.exec_run(command)
            if done.exit_code == 0:
                return
            time.sleep(_LOOK_SECONDS)
        raise RunError(f"the proxy does not listen: {done.output.decode(errors='replace')[-300:] if done else ''}")

    def _end(self, containers: Sequence[Any], *, at_once: bool = False) -> None:
        for one in containers:
            with suppress(self._errors.APIError):
                one.kill("SIGTERM")  # all at the same time
        for one in containers:
            with suppress(self._errors.APIError):
                one.stop(timeout=1 if at_once else STOP_SECONDS)
            with suppress(self._errors.APIError):
                one.remove(force=True, v=True)


def _archive(secrets: Mapping[str, str]) -> bytes:
    """The secrets as a file that only the user of the image can read: nothing of them is in `docker inspect`."""
    data = json.dumps(dict(secrets)).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        folder = tarfile.TarInfo(SECRETS.rpartition("/")[0])
        folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, 0o500, _USER, _USER
        tar.addfile(folder)
        file = tarfile.TarInfo(SECRETS)
        file.size, file.mode, file.uid, file.gid = len(data), 0o400, _USER, _USER
        tar.addfile(file, io.BytesIO(data))
    return out.getvalue()


def _name(wanted: Settings, suffix: str) -> str:
    text = f"rainbow-{wanted.app}-{wanted.service}-{suffix}"
    return "".join(one if one.isascii() and (one.isalnum() or one in "_.-") else "-" for one in text)


def _state(one: Any) -> str:
    health = one.attrs["State"].get("Health", {}).get("Status")
    return f"{one.status} ({health})" if health else str(one.status)


def _published(one: Any) -> int | None:
    found = (one.attrs["NetworkSettings"].get("Ports") or {}).get(f"{_PORT}/tcp") or []
    return int(found[0]["HostPort"]) if found else None


def _tail(one: Any) -> str:
    with suppress(Exception):
        return str(one.logs(tail=3).decode(errors="replace").strip())[-1500:]
    return ""
