"""The executor `docker`: each slice in a container of its own, of the image of its task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from ..errors import TaskFailed
from ..run import Command, Output, Run
from ..schema import Config, Count, EnvVars, Many, Seconds, Text, wrong
from . import _docker_engine, _docker_limits, _docker_watch
from ._docker_container import Limits, Slice
from ._docker_engine import FLOW_RUN, KEEP, OWNER, ImageFacts
from .base import Executor

DEFAULT_IMAGE = "python:3.11-slim"
LOG_LINES = 1_000_000
"""So many lines of a slice are kept in the log; later ones only count."""

PREFIX = "rainbow."
"""Before the names of the labels that are ours."""


_VARIABLE = re.compile(r"[^\s=]+")


def _amount(value: str) -> str:
    _docker_limits.size_bytes(value)
    return value


def _cpus(value: str) -> str:
    _docker_limits.cpus(value)
    return value


def _mount(value: str) -> str:
    source, colon, rest = value.partition(":")
    target, _, mode = rest.partition(":")
    if not colon or not source or not target.startswith("/") or mode not in ("", "ro", "rw"):
        raise wrong(f"'{value}' is not a mount", hint="write FOLDER:/path/in/the/container, `:ro` after it if need be")
    return value


class Resources(Config):
    """What each container may use; `limit_cpu` and `limit_memory` of a task win over `cpu` and `memory`."""

    cpu: Annotated[Text, AfterValidator(_cpus)] | None = Field(default=None, description="CPUs, e.g. `2` or `500m`.")
    memory: Annotated[Text, AfterValidator(_amount)] | None = Field(
        default=None, description="Memory, e.g. `512Mi` or `2g`; what needs more is ended."
    )
    gpus: Text | None = Field(default=None, description="How many GPUs, or `all`.")
    shm: Annotated[Text, AfterValidator(_amount)] | None = Field(
        default=None, description="Shared memory, e.g. `1g`; absent: the engine's 64 MiB."
    )


class Docker(Executor):
    """Runs each slice in a container of its own, on the Docker engine of this machine or another.

    However a slice ends, its container is removed; so it is when this process is killed.
    """

    runs_images: ClassVar[bool] = True

    type: Literal["docker"] = "docker"
    host: str | None = Field(
        default=None,
        description="The engine, e.g. `unix:///var/run/docker.sock`, `tcp://HOST:2376` or `block:docker-host/NAME`; "
        "absent: that of DOCKER_HOST or of the Docker context.",
    )
    image: Text = Field(
        default=DEFAULT_IMAGE, min_length=1, description="The image of tasks that have neither `image` nor `source`."
    )
    resources: Resources = Field(default_factory=Resources, description="What each container may use.")
    network: str | None = Field(default=None, description="The network, e.g. `none`; absent: the engine's default.")
    pull_policy: Literal["missing", "always", "never"] = Field(
        default="missing", description="When an image is pulled: if it is missing, before each run, or never."
    )
    user: Text | None = Field(default=None, description="The user, `UID:GID` or a name; absent: that of the image.")
    read_only: bool = Field(default=False, description="Let containers write to their working directory and /tmp only.")
    cap_drop: tuple[str, ...] = Field(default=("ALL",), description="Linux capabilities that are taken away.")
    cap_add: tuple[str, ...] = Field(default=(), description="Linux capabilities that are given back.")
    mounts: tuple[Annotated[str, AfterValidator(_mount)], ...] = Field(
        default=(), description="Folders that all containers see: `FOLDER:/path`, read-only with `:ro` after it."
    )
    env_vars: EnvVars = Field(default_factory=dict, description="Environment variables of all that runs here.")
    env_file: str | None = Field(
        default=None, description="A file of NAME=value lines with more of them, relative to the YAML."
    )
    labels: dict[str, Text] = Field(default_factory=dict, description="Labels of all containers.")
    stop_grace_seconds: Seconds = Field(
        default=10, description="Seconds between SIGTERM and SIGKILL when a slice is cancelled or timed out."
    )
    keep_failed: bool = Field(default=False, description="Keep the container of a slice that failed, to look at it.")
    max_lines: Many = Field(default=2_000_000, description="A slice that prints more lines fails.")
    pids: Count = Field(default=0, description="How many processes a container may have at once; 0: no limit.")

    def image_host(self) -> str:
        return self._engine.address or ""

    def prepare(self, command: Command, run: Run) -> None:
        """Look at the image, pull it if need be."""
        self._image(command, run)

    def run(self, command: Command, run: Run) -> Output:
        engine = self._engine
        image = self._image(command, run)
        watch = _docker_watch.watch(engine)
        watch.begin(run.run_id)
        slice_ = Slice(
            engine=engine,
            command=command,
            run=run,
            image=image,
            settings=self._settings(command, run),
            env={"PYTHONUNBUFFERED": "1", **self._file_env(run), **self.env_vars, **run.env, **command.env},
            labels=self._labels(command, run),
            user=self.user or image.user,
            is_read_only=self.read_only,
            limits=Limits(self.stop_grace_seconds, self.max_lines, LOG_LINES),
            keeps=lambda container: self._keeps(container, run, watch),
        )
        return slice_.execute()

    def clean(self, run_id: str) -> None:
        """Remove what still belongs to the run: in most cases nothing."""
        engine = self._engine
        _docker_engine.remove_all(engine, f"{FLOW_RUN}={run_id}")
        engine.forget(run_id)
        if (watch := _docker_watch.known(engine)) is not None:
            watch.end(run_id)

    @property
    def _engine(self) -> _docker_engine.Engine:
        return _docker_engine.engine(self.host)

    def _image(self, command: Command, run: Run) -> ImageFacts:
        return self._engine.image(command.image or self.image, run, pull_policy=self.pull_policy)

    def _keeps(self, container: str, run: Run, watch: _docker_watch.Watch) -> bool:
        if self.keep_failed:
            watch.keep(container)
            run.write(f"kept the container: docker logs {container[:12]}; `rainbow gc --kept` removes it")
        return self.keep_failed

    def _labels(self, command: Command, run: Run) -> dict[str, str]:
        mine = {
            FLOW_RUN: run.run_id,
            f"{PREFIX}task-run": run.task_run_id,
            f"{PREFIX}app": run.app,
            f"{PREFIX}pipeline": run.pipeline,
            f"{PREFIX}task": run.task,
            f"{PREFIX}slice": str(run.index),
            OWNER: _docker_watch.owner(),
            **({KEEP: "true"} if self.keep_failed else {}),
        }
        users = {key: run.secrets.mask(value) for key, value in {**self.labels, **command.labels}.items()}
        return {**users, **mine}

    def _settings(self, command: Command, run: Run) -> dict[str, Any]:
        """What the engine is asked for, as its API names it."""
        host: dict[str, Any] = {
            "Init": True,
            "CapDrop": list(self.cap_drop),
            "CapAdd": list(self.cap_add),
            "SecurityOpt": ["no-new-privileges:true"],
            "Mounts": [_mount_of(one, run.root) for one in self.mounts],
            **({} if self.keep_failed else {"LogConfig": {"Type": "none", "Config": {}}}),
            **_docker_limits.settings(self.resources, command.resources),
        }
        if self.network:
            host["NetworkMode"] = self.network
        if self.read_only:
            host |= {"ReadonlyRootfs": True, "Tmpfs": {"/tmp": "mode=1777"}}  # noqa: S108
        if self.pids:
            host["PidsLimit"] = self.pids
        return {"HostConfig": host}

    def _file_env(self, run: Run) -> dict[str, str]:
        if self.env_file is None:
            return {}
        path = run.root / self.env_file
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise TaskFailed(f"the env_file {path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise TaskFailed(f"the env_file {path} is not UTF-8 text (byte {error.start})") from error
        return dict(_variables(lines, path))


def _variables(lines: list[str], path: Path) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name = name.strip()
        if not equals or not _VARIABLE.fullmatch(name):  # what the line holds may be nobody's business
            raise TaskFailed(f"{path}:{number}: this line is not NAME=value; correct it")
        found[name] = value
    return found


def _mount_of(text: str, root: Path) -> dict[str, Any]:
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    return {"Type": "bind", "Source": str(root / source), "Target": target, "ReadOnly": mode == "ro"}
