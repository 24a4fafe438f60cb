"""A Docker engine: its client, made once for all that use it, what is known of its images, and its errors for people."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..errors import Cancelled, MissingExtra, RunError, TaskFailed, TimedOut
from ..run import Run

T = TypeVar("T")

TIMEOUT_SECONDS = 120
"""For one answer of the engine; creating and removing take long on a busy machine."""
REMOVAL_SECONDS = 60.0
"""How long the removal of a container by another is waited for."""
REMOVAL_LOOK_SECONDS = 0.1
POOL = 64
FLOW_RUN = "rainbow.flow-run"
OWNER = "rainbow.owner"
KEEP = "rainbow.keep-failed"
_PASSWD_BYTES = 4 << 20


class Away(TaskFailed):
    """The engine does not answer, or stopped to."""


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image: `user` as it says, `work` its working directory."""

    reference: str
    id: str
    user: str
    work: str
    labels: Mapping[str, str]

    @property
    def is_root(self) -> bool:
        return is_root(self.user)


@dataclass
class Engine:
    """One engine; `host` is its address, None for that of the environment."""

    host: str | None
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _client: Any = None
    _images: dict[tuple[str, str], ImageFacts] = field(default_factory=dict)
    _image_locks: dict[tuple[str, str], threading.Lock] = field(default_factory=dict)
    _users: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    _unwritable: set[str] = field(default_factory=set)

    # -- the client

    @property
    def api(self) -> Any:
        """The low-level client of the Docker SDK.

        Raises:
            TaskFailed: the SDK is missing.
            Away: the engine does not answer.
        """
        with self._lock:
            if self._client is None:
                self._client = self._connected()
            return self._client

    @property
    def shown(self) -> str:
        """The address for messages, without a name and password."""
        address = self.address or "unix:///var/run/docker.sock"
        scheme, separator, rest = address.partition("://")
        return f"{scheme}{separator}{rest.rpartition('@')[2]}"

    @property
    def address(self) -> str | None:
        """The address: `host`, DOCKER_HOST, that of the chosen Docker context; None for the default socket."""
        return self.host or os.environ.get("DOCKER_HOST") or _of_context()

    @property
    def is_local(self) -> bool:
        """Whether the engine surely sees the same folders as this process."""
        return (self.address or "unix").startswith("unix")

    def _connected(self) -> Any:
        try:
            import docker
        except ImportError:
            raise TaskFailed(str(MissingExtra("the executor 'docker'", "docker"))) from None
        from docker.errors import DockerException
        from docker.utils import kwargs_from_env

        environment = {**os.environ, **({"DOCKER_HOST": self.address} if self.address else {})}
        try:
            settings = kwargs_from_env(environment=environment)
            return docker.APIClient(
                **settings, version="auto", timeout=TIMEOUT_SECONDS, max_pool_size=POOL, num_pools=POOL
            )
        except (DockerException, ValueError) as error:  # a port that is none
            raise self.away(error) from None

    def away(self, error: BaseException) -> Away:
        """That the engine does not answer, and what to do."""
        text = str(error)
        if "Permission denied" in text or "PermissionError" in text:
            return Away(
                f"the Docker engine at {self.shown} may not be used by this user; "
                "add the user to the group `docker`, or name another engine in DOCKER_HOST or the executor's `host`"
            )
        return Away(
            f"the Docker engine at {self.shown} does not answer{_reason(text)}; start it, "
            "or name another one in DOCKER_HOST or the executor's `host`"
        )

    def answers(self) -> bool:
        """Whether the engine answers now."""
        try:
            return bool(self.api.ping())
        except Exception:
            return False

    @contextlib.contextmanager
    def told(self, doing: str = "") -> Iterator[None]:
        """Tell errors of the SDK as ours; `doing` comes before what the engine says."""
        import requests
        from docker.errors import APIError, DockerException

        try:
            yield
        except APIError as error:
            raise TaskFailed(f"{doing}: {explained(error)}" if doing else explained(error)) from error
        except (requests.exceptions.RequestException, DockerException, ConnectionError, TimeoutError) as error:
            raise self.away(error) from error

    def archive(self, container: str, path: str) -> Any:
        """The response with the tar file of a path in a container; the caller closes it.

        Raises:
            docker.errors.NotFound: there is no such path.
            docker.errors.APIError: anything else that the engine says.
        """
        import requests
        from docker.errors import create_api_error_from_http_exception

        url = f"{self.api.base_url}/v{self.api.api_version}/containers/{container}/archive"
        response = self.api.get(url, params={"path": path}, stream=True, timeout=self.api.timeout)
        try:
            response.raise_for_status()
        except requests.exceptions.HTTPError as error:
            with contextlib.closing(response):
                create_api_error_from_http_exception(error)
        return response

    # -- images

    def image(self, reference: str, run: Run, *, pull_policy: str) -> ImageFacts:
        """What is known of an image, looked at once for each run; it is pulled as the policy says.

        Raises:
            TaskFailed: it is not there and cannot be pulled.
        """
        key = (run.run_id, reference)
        with self._lock:
            lock = self._image_locks.setdefault(key, threading.Lock())
        while not lock.acquire(timeout=0.2):
            look(run)
        try:
            if key not in self._images:
                self._images[key] = self._looked_up(reference, run, pull_policy)
            return self._images[key]
        finally:
            lock.release()

    def _looked_up(self, reference: str, run: Run, pull_policy: str) -> ImageFacts:
        from docker.errors import NotFound

        with self.told(f"the image '{reference}' cannot be used"):
            if pull_policy == "always":
                self._pull(reference, run)
            try:
                found = self.api.inspect_image(reference)
            except NotFound:
                if pull_policy != "missing":
                    raise TaskFailed(
                        f"the image '{reference}' is not on the engine at {self.shown}; build it (rainbow build), "
                        "or let it be pulled (`pull_policy: missing`)"
                    ) from None
                self._pull(reference, run)
                found = self.api.inspect_image(reference)
        config = found.get("Config") or {}
        return ImageFacts(
            reference,
            found["Id"],
            (config.get("User") or "").strip(),
            config.get("WorkingDir") or "/",
            config.get("Labels") or {},
        )

    def _pull(self, reference: str, run: Run) -> None:
        from docker.errors import APIError
        from docker.utils import parse_repository_tag

        run.write(f"pulling the image {reference}")
        repository, tag = parse_repository_tag(reference)
        try:
            for event in self.api.pull(repository, tag or "latest", stream=True, decode=True):
                look(run)
                if "error" in event:
                    raise _not_pulled(reference, event["error"])
        except APIError as error:
            raise _not_pulled(reference, explained(error)) from None

    def user_of(self, image: ImageFacts, user: str, container: str) -> tuple[int, int]:
        """The numbers of a user and its group in a container; names are looked up in its /etc/passwd, once."""
        name, _, group = user.partition(":")
        if is_root(name):
            return 0, int(group) if group.isdigit() else 0
        if name.isdigit():
            return int(name), int(group) if group.isdigit() else int(name)
        key = (image.id, user)
        if key not in self._users:
            self._users[key] = self._in_passwd(name, container)
        return self._users[key]

    def _in_passwd(self, name: str, container: str) -> tuple[int, int]:
        with self.told(f"the user '{name}' cannot be looked up in the image"):
            chunks, _ = self.api.get_archive(container, "/etc/passwd")
            with tarfile.open(fileobj=io.BytesIO(b"".join(chunks)[:_PASSWD_BYTES])) as archive:
                file = archive.extractfile("passwd")
                text = file.read().decode("utf-8", "replace") if file is not None else ""
        for line in text.splitlines():
            fields = line.split(":")
            if fields[0] == name and len(fields) > 3:
                return int(fields[2]), int(fields[3])
        raise TaskFailed(f"the image has no user '{name}' in its /etc/passwd; correct `user`")

    def is_writable(self, image: ImageFacts, user: str) -> bool:
        """Whether a container's user can surely, or as far as is known, write to `/` and to its working directory."""
        key = f"{image.id} {user}"
        return key not in self._unwritable and (is_root(user) or image.labels.get("rainbow.contract") == "1")

    def note_unwritable(self, image: ImageFacts, user: str) -> None:
        """A container of this image and user could not write its input."""
        self._unwritable.add(f"{image.id} {user}")

    # -- containers

    def containers(self, *labels: str) -> list[dict[str, Any]]:
        """All containers with these labels, running or not."""
        with self.told():
            found: list[dict[str, Any]] = self.api.containers(all=True, filters={"label": list(labels)})
            return found

    def is_link(self, container: str, path: str) -> bool:
        """Whether a path in a container is a link; False when there is nothing.

        Source: the engine's API, `HEAD /containers/{id}/archive`, which the SDK has no method for.
        """
        with self.told("the working directory of the image cannot be looked at"):
            url = self.api._url("/containers/{0}/archive", container)
            answer = self.api.head(url, params={"path": path}, timeout=TIMEOUT_SECONDS)
        found = answer.headers.get("X-Docker-Container-Path-Stat")
        return bool(found and json.loads(base64.b64decode(found)).get("linkTarget"))

    def remove(self, container: str) -> None:
        """End and remove a container with its anonymous volumes; one that is gone already is fine.

        When another asked for the same a moment before, this waits until it is gone.

        Raises:
            TaskFailed: the engine did not do it.
        """
        from docker.errors import APIError, NotFound

        until = time.monotonic() + REMOVAL_SECONDS
        with self.told(f"the container {container[:12]} could not be removed"):
            while True:
                try:
                    self.api.remove_container(container, force=True, v=True)
                except NotFound:
                    return
                except APIError as error:
                    if "already in progress" not in explained(error) or time.monotonic() > until:
                        raise
                    time.sleep(REMOVAL_LOOK_SECONDS)
                else:
                    return

    def forget(self, run_id: str) -> None:
        """What was known for this run only."""
        with self._lock:
            for known in (self._images, self._image_locks):
                for key in [one for one in known if one[0] == run_id]:
                    del known[key]


_engines: dict[tuple[int, str | None], Engine] = {}
_lock = threading.Lock()


def engine(host: str | None) -> Engine:
    """The engine at this address; None is that of the environment."""
    address = host or os.environ.get("DOCKER_HOST")
    with _lock:
        return _engines.setdefault((os.getpid(), address), Engine(address))


def _of_context() -> str | None:
    """The engine that `docker context use` chose."""
    try:
        from docker.context import ContextAPI

        context = ContextAPI.get_current_context()
        address: str | None = None if context is None or context.name == "default" else context.Host
    except Exception:
        return None
    return address


def is_root(user: str) -> bool:
    """Whether this is how an image says `root`."""
    return user.partition(":")[0] in ("", "0", "root")


def explained(error: Any) -> str:
    """What the engine says, without its own prefixes."""
    text = str(getattr(error, "explanation", None) or error).strip()
    return text.removeprefix("Error response from daemon: ").rstrip(".")


def _reason(text: str) -> str:
    """The words of the system in an error of a connection."""
    for words in ("No such file or directory", "Connection refused", "timed out", "Name or service not known"):
        if words in text:
            return f" ({words[0].lower()}{words[1:]})"
    return ""


def _not_pulled(reference: str, reason: str) -> TaskFailed:
    return TaskFailed(
        f"the image '{reference}' is not on the engine and cannot be pulled: {reason.strip()}; "
        "build it (rainbow build), or correct `image`"
    )


def look(run: Run) -> None:
    """Stop here when the run was stopped or its time is over."""
    if run.stop.is_set() and not run.timed_out:
        raise Cancelled("cancelled; its container was stopped")
    if run.stop.is_set() or run.remaining_seconds() == 0:
        raise TimedOut("timed out; its container was stopped")


def patiently(what: Callable[[], T], seconds: float, *, engine: Engine) -> T:
    """Try again while the engine is away, for so long."""
    until = time.monotonic() + seconds
    while True:
        try:
            return what()
        except Away:
            if time.monotonic() >= until:
                raise
            time.sleep(0.5)


def labelled(labels: Mapping[str, str]) -> Sequence[str]:
    """Labels as a filter has them."""
    return [f"{key}={value}" for key, value in labels.items()]


def remove_all(engine: Engine, *labels: str) -> list[str]:
    """Remove all containers with these labels, but those that failed and are to be kept; gives their ids."""
    removed = []
    for one in engine.containers(*labels):
        if one["State"] != "running" and one["Labels"].get(KEEP) == "true" and one["State"] != "created":
            continue
        with contextlib.suppress(RunError):
            engine.remove(one["Id"])
            removed.append(one["Id"])
    return removed
