"""The executor `kubernetes`: each slice is a Job of a cluster, and nothing of it stays."""

from __future__ import annotations

import contextlib
import logging
import math
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from ..errors import Cancelled, TaskFailed
from ..masking import sensitive
from ..run import ENV_INPUT_BYTES, Command, Large, Output, Run
from ..schema import Config, EnvVars, Many, Positive, Seconds, Text, wrong
from . import _kubernetes_api as api
from . import _kubernetes_manifest as manifest
from . import _kubernetes_pod as pods
from . import _remote
from ._exchange import Exchange
from ._kubernetes_api import Away, Cluster, Refused
from ._kubernetes_follow import GONE_SECONDS, Follow, stopped
from ._kubernetes_pod import Look
from ._lines import Lines
from .base import Executor

logger = logging.getLogger(__name__)

LOG_LINES = 1_000_000
"""So many lines of a slice are kept in the log; later ones only count."""

_QUANTITY = re.compile(r"(\d+(\.\d*)?|\.\d+)(m|[kMGTPE]i?|Ki|[eE][+-]?\d+)?\Z")
_WRITABLE = ("/tmp/", "/var/tmp/", "/dev/shm/", "/app/")  # noqa: S108  paths of the container
_OURS = re.compile(r"(PATH|IFS|ENV|BASH_ENV|SHELLOPTS)\Z|(LD_|PYTHON|RAINBOW_|LIMINAL_|GLIBC_|MALLOC_)")
_LEGACY = {
    "cluster_context": "context",
    "config_file": "kubeconfig",
    "service_account_name": "service_account",
    "node_selectors": "node_selector",
}
_IN_TEMPLATE = {
    "affinity": "spec: {affinity: ...}",
    "hostnetwork": "spec: {hostNetwork: true}",
    "priority_class_name": "spec: {priorityClassName: ...}",
    "schedulername": "spec: {schedulerName: ...}",
    "security_context": "spec: {securityContext: ...}",
    "init_containers": "spec: {initContainers: [...]}",
    "dnspolicy": "spec: {dnsPolicy: ...}",
}


def _quantity(value: str) -> str:
    if _QUANTITY.match(value):
        return value
    raise wrong(f"'{value}' is not a quantity of Kubernetes", hint="write e.g. 500m, 2, 512Mi or 4Gi")


def _names(value: Any) -> Any:
    """`regcred`, `a, b`, or a list of names or `{name: ...}` as Kubernetes has it."""
    if isinstance(value, str):
        return [one for one in re.split(r"[,\s]+", value) if one]
    if isinstance(value, list | tuple):
        return [one.get("name", one) if isinstance(one, Mapping) else one for one in value]
    return value


Quantity = Annotated[Text, AfterValidator(_quantity)]


class Resources(Config):
    """What each slice asks of its node."""

    request_cpu: Quantity | None = Field(default=None, description="CPUs that are kept for it, e.g. `500m` or `2`.")
    request_memory: Quantity | None = Field(default=None, description="Memory that is kept for it, e.g. `512Mi`.")
    limit_cpu: Quantity | None = Field(default=None, description="CPUs it may use at most.")
    limit_memory: Quantity | None = Field(default=None, description="Memory it may use at most; more ends it.")


class Kubernetes(Executor):
    """Runs each slice as a Job of a Kubernetes cluster, in the image of its task.

    A Job has one pod, which is tried once: retries are the task's. When the slice ends, in whichever way, the Job is
    deleted with its pod and its Secret; when the flow itself is killed, `active_deadline_seconds` and `ttl_seconds` bound
    how long they stay.
    """

    type: Literal["kubernetes"] = "kubernetes"
    runs_images: ClassVar[bool] = True

    namespace: Text | None = Field(
        default=None, description="The namespace; absent: that of the context, else `default`."
    )
    kubeconfig: str | None = Field(
        default=None, description="The kubeconfig, relative to this file; absent: KUBECONFIG or ~/.kube/config."
    )
    context: Text | None = Field(default=None, description="The context of the kubeconfig; absent: the current one.")
    in_cluster: bool | None = Field(
        default=None,
        description="Use the account of the pod in which the flow runs; absent: when there is no kubeconfig.",
    )
    image: Text = Field(default="python:3.11-slim", description="The image of tasks without one.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        default=None, description="When the node pulls it; absent: `Always` for the tag `latest`, else `IfNotPresent`."
    )
    image_pull_secrets: Annotated[tuple[Text, ...], BeforeValidator(_names)] = Field(
        default=(), description="Secrets of the namespace that open registries."
    )
    resources: Resources = Field(
        default_factory=Resources, description="What each slice asks for; the same keys of a task win."
    )
    service_account: Text | None = Field(
        default=None, description="The account of the pod; absent: none, and no token in the pod."
    )
    user: int | None = Field(
        default=10001,
        ge=1,
        description="The number of the user and group of the code, not root; null: the user of the image.",
    )
    node_selector: dict[str, Text] = Field(default_factory=dict, description="Labels that its node must have.")
    tolerations: tuple[dict[str, Any], ...] = Field(
        default=(), description="Taints of nodes that it tolerates, as Kubernetes has them."
    )
    labels: dict[str, Text] = Field(default_factory=dict, description="More labels of the Job and its pod.")
    annotations: dict[str, Text] = Field(default_factory=dict, description="More annotations of the Job and its pod.")
    env_vars: EnvVars = Field(default_factory=dict, description="Environment variables of all that runs here.")
    pod_template: dict[str, Any] | None = Field(
        default=None,
        description="A pod template (`metadata`, `spec`) laid over ours as `kubectl patch` does; our container is `task`.",
    )
    startup_timeout_seconds: Seconds = Field(
        default=1200, description="Seconds that a pod may take to start: waiting for a node, pulling the image."
    )
    active_deadline_seconds: Positive = Field(
        default=86_400,
        description="Seconds after which the cluster itself ends a Job; a shorter timeout of the task wins.",
    )
    ttl_seconds: int = Field(
        default=600, ge=0, description="Seconds after which the cluster removes an ended Job that the flow did not."
    )
    stop_grace_seconds: Seconds = Field(
        default=10, description="Seconds between SIGTERM and SIGKILL when a slice is cancelled or timed out."
    )
    keep_failed: bool = Field(
        default=False, description="Leave the Job of a failed slice to look at, until `ttl_seconds` have passed."
    )
    get_logs: bool = Field(default=True, description="Follow what the pod prints.")
    max_lines: Many = Field(default=2_000_000, description="A slice that prints more lines fails.")
    name: Text | None = Field(
        default=None, description="What names of Jobs begin with; absent: pipeline, task and slice."
    )
    exchange: Exchange | None = Field(
        default=None, description="A bucket or volume for inputs above 64 KiB and outputs above 256 KiB."
    )

    @model_validator(mode="before")
    @classmethod
    def _legacy(cls, data: Any) -> Any:
        """The keys that the predecessor's `kubernetes` executor handed to Airflow's operator."""
        if not isinstance(data, Mapping):
            return data
        found = {_LEGACY.get(key, key): value for key, value in data.items()}
        if "is_delete_operator_pod" in found:
            found.setdefault("keep_failed", not found.pop("is_delete_operator_pod"))
        for key in ("volumes", "volume_mounts"):
            if key in found:
                raise wrong(
                    f"'{key}' is no key of this executor",
                    hint="write root `volumes` and `mounts` of the task, or `pod_template`",
                    at=key,
                )
        for key, place in _IN_TEMPLATE.items():
            if key in found:
                raise wrong(f"'{key}' is no key of this executor", hint=f"write pod_template: {{{place}}}", at=key)
        return found

    @field_validator("pod_template")
    @classmethod
    def _of_pod(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        odd = sorted(set(value or ()) - {"metadata", "spec", "apiVersion", "kind"})
        if odd:
            raise wrong(
                f"'{odd[0]}' is no part of a pod template", hint="write it below `spec`, e.g. spec: {nodeName: a}"
            )
        return value and {key: one for key, one in value.items() if key in ("metadata", "spec")}

    # -- what the engine calls

    def prepare(self, command: Command, run: Run) -> None:
        """Delete what an earlier try of the same run left of this task: a run that was killed and is run again."""
        cluster = self._cluster(run)
        selector = f"rainbow.flow-run={manifest.label(run.run_id)},rainbow.task={manifest.label(run.task)}"
        try:
            for job in api.again(lambda: cluster.jobs(selector), stop=run.stop):
                written = job["metadata"].get("annotations") or {}
                if written.get("rainbow.task") == run.task:  # labels of different names may be the same
                    cluster.delete_job(job["metadata"]["name"], propagation="Background")
        except (Away, Refused) as error:
            raise api.failure(error, "the Jobs of the run cannot be listed", cluster) from error

    def run(self, command: Command, run: Run) -> Output:
        if run.stop.is_set() or run.remaining_seconds() == 0:
            raise stopped(run, 0)
        self._check_shown(run)
        with _under_way(run.run_id) as ended:
            cluster = self._cluster(run)
            command = replace(command, image=command.image or self.image)
            plain, hidden, left = _variables({**self.env_vars, **run.env, **command.env}, run)
            remote = self._prepared(replace(command, env=left), run)
            try:
                one = self._slice(command, run, remote, plain, {**hidden, **remote.secret_env})
                return _Attempt(self, cluster, one, run, remote, ended).run()
            finally:
                remote.clean()

    def clean(self, run_id: str) -> None:
        with _lock:
            for one in _running.get(run_id, ()):
                one.set()
            known = _used.pop((run_id, self._place), None)
        try:
            self._delete_jobs(known or self._connected(Path()), run_id)
        except TaskFailed as error:
            if known is not None:
                raise
            logger.debug("nothing of the run was started here, and the cluster cannot be asked: %s", error)
        if self.exchange is not None:
            self.exchange.clean(run_id)

    def _delete_jobs(self, cluster: Cluster, run_id: str) -> None:
        try:
            for job in cluster.jobs(f"rainbow.flow-run={manifest.label(run_id)}"):
                if not (self.keep_failed and _has_failed(job)):
                    cluster.delete_job(job["metadata"]["name"], propagation="Background")
        except (Away, Refused) as error:
            raise api.failure(error, "the Jobs of the run cannot be deleted", cluster) from error

    # -- one slice

    def _cluster(self, run: Run) -> Cluster:
        cluster = self._connected(run.root)
        with _lock:
            _used[run.run_id, self._place] = cluster
        return cluster

    @property
    def _place(self) -> tuple[Any, ...]:
        return self.kubeconfig, self.context, self.in_cluster, self.namespace

    def _connected(self, root: Path) -> Cluster:
        return api.connect(
            kubeconfig=None if self.kubeconfig is None else root / Path(self.kubeconfig).expanduser(),
            context=self.context,
            in_cluster=self.in_cluster,
            namespace=self.namespace,
        )

    def _check_shown(self, run: Run) -> None:
        """Refuse a secret where everybody who may look at Jobs would see it."""
        for key in ("labels", "annotations", "pod_template"):
            written = getattr(self, key)
            if written and run.secrets.mask_data(written) != written:
                raise TaskFailed(
                    f"`{key}` of the executor holds a secret, which the Job would show; give it to the task by `secrets`"
                )

    def _prepared(self, command: Command, run: Run) -> _remote.Remote:
        """What runs the command in the container and brings back what it leaves."""
        return _remote.prepare(
            command,
            replace(run, env={}),
            self.exchange,
            hides=True,
            hand="either" if self.get_logs else "termination",
            inline_bytes=1 << 20 if self.get_logs else 3000,
            what="executor 'kubernetes'",
            start_seconds=self.startup_timeout_seconds + 600,
            with_secret_files=False,
        )

    def _slice(
        self,
        command: Command,
        run: Run,
        remote: _remote.Remote,
        plain: Mapping[str, str],
        hidden: Mapping[str, str],
    ) -> manifest.Slice:
        data = None if isinstance(run.input, Large) else run.input_bytes()
        small = data is not None and len(data) <= ENV_INPUT_BYTES
        volume = self.exchange.volume if self.exchange is not None else None
        return manifest.Slice(
            name=manifest.name_of(run, base=self.name),
            image=command.image or self.image,
            argv=remote.argv,
            env={**plain, **remote.env},
            hidden=hidden,
            input=data if small else None,
            mounts=command.mounts,
            resources=self._resources(command),
            labels=command.labels,
            exchange_claim=volume.claim_name if volume else None,
            exchange_path=volume.mount if volume else "",
            exchange_sub_path=(volume.sub_path or "") if volume else "",
            blank=tuple(_blank(command, is_small=small)),
            deadline_seconds=self._deadline_seconds(run),
        )

    def _resources(self, command: Command) -> dict[str, str]:
        for key, value in command.resources.items():
            if not _QUANTITY.match(value):
                raise TaskFailed(f"{key}: '{value}' is not a quantity of Kubernetes; write e.g. 500m, 2, 512Mi or 4Gi")
        own = {key: value for key, value in self.resources.model_dump().items() if value is not None}
        return {**own, **command.resources}

    def _deadline_seconds(self, run: Run) -> int:
        """When the cluster itself ends the Job: a little later than we would, if we still are there."""
        remaining = run.remaining_seconds()
        if remaining is None:
            return self.active_deadline_seconds
        return min(self.active_deadline_seconds, math.ceil(remaining + self.stop_grace_seconds) + 60)


_lock = threading.Lock()
_used: dict[tuple[str, tuple[Any, ...]], Cluster] = {}
"""The clusters of the runs of this process; what names them may be relative to the folder of a run."""

_running: dict[str, set[threading.Event]] = {}
"""The slices under way in this process by their runs; an event that is set ends its slice."""


@contextlib.contextmanager
def _under_way(run_id: str) -> Iterator[threading.Event]:
    ended = threading.Event()
    with _lock:
        _running.setdefault(run_id, set()).add(ended)
    try:
        yield ended
    finally:
        with _lock:
            _running[run_id].discard(ended)
            if not _running[run_id]:
                del _running[run_id]


def _has_failed(job: Mapping[str, Any]) -> bool:
    return bool((job.get("status") or {}).get("failed"))


def _variables(variables: Mapping[str, str], run: Run) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Variables that the pod may show, those that are secret, and those that only the command itself may be given.

    The last would change the program that starts the command, or have names that Kubernetes does not take.
    """
    plain: dict[str, str] = {}
    hidden: dict[str, str] = {}
    left: dict[str, str] = {}
    for name, value in variables.items():
        if not manifest.takes(name) or _OURS.match(name) or "\0" in value:
            left[name] = value
        elif sensitive(name) or run.secrets.mask(value) != value:
            hidden[name] = value
        else:
            plain[name] = value
    return plain, hidden, left


def _blank(command: Command, *, is_small: bool) -> Iterator[str]:
    """Files that the code, or we, may write although the image gives its user no right to."""
    if not is_small:
        yield manifest.INPUT
    path = command.output_path or ""
    writable = (*_WRITABLE, *(f"{one.target.rstrip('/')}/" for one in command.mounts if not one.read_only))
    if path.startswith("/") and not path.startswith(writable):
        yield path


class _Attempt:
    """One Job from its creation to its deletion."""

    def __init__(
        self,
        settings: Kubernetes,
        cluster: Cluster,
        one: manifest.Slice,
        run: Run,
        remote: _remote.Remote,
        ended: threading.Event,
    ) -> None:
        self.settings = settings
        self.cluster = cluster
        self.one = one
        self.run_ = run
        self.remote = remote
        self.ended = ended
        self.lines = Lines(run.write, limit=LOG_LINES)
        self._marker = remote.marker.encode()

    def run(self) -> Output:
        begun = time.monotonic()
        follow: Follow | None = None
        is_kept = False
        try:
            self._create()
            follow = self._follow()
            look = follow.until_end()
            self.lines.close()
            return self._result(look, follow)
        except TaskFailed as error:
            self.lines.close()
            is_kept = self.settings.keep_failed and not isinstance(error, Cancelled)
            raise type(error)(error.message, status=error.status, tail=error.tail or self._tail()) from error
        except (Away, Refused) as error:
            raise api.failure(error, "the Job cannot be created", self.cluster) from error
        finally:
            self._end(follow, is_kept=is_kept, seconds=time.monotonic() - begun)

    def _create(self) -> None:
        run, cluster = self.run_, self.cluster
        job = manifest.job(self.settings, self.one, run)
        owner = api.again(lambda: cluster.create_job(job), stop=run.stop)
        secret = manifest.secret(self.one, run, owner=owner)
        try:
            api.again(lambda: cluster.create_secret(secret), stop=run.stop)
        except (Away, Refused) as error:
            raise api.failure(error, "the Secret of the Job cannot be created", cluster) from error

    def _follow(self) -> Follow:
        return Follow(
            self.cluster,
            self.one.name,
            self.run_,
            self.lines,
            feed=self._feed,
            startup_seconds=self.settings.startup_timeout_seconds,
            max_lines=self.settings.max_lines,
            get_logs=self.settings.get_logs,
            ended=self.ended,
        )

    def _feed(self, data: bytes) -> None:
        """Lines of the log, without what our own program handed over in them."""
        if self._marker not in data:
            self.lines.feed(data)
            return
        for line in data.splitlines(keepends=True):
            if self._marker not in line:
                self.lines.feed(line)
            elif shown := self.remote.take(line.decode("utf-8", "replace").rstrip("\n")):
                self.lines.feed(shown.encode() + b"\n")

    def _tail(self) -> tuple[str, ...]:
        return tuple(self.run_.secrets.mask(line) for line in self.lines.tail)

    def _result(self, look: Look, follow: Follow) -> Output:
        tail = self._tail()
        outcome = self.remote.outcome(look.told)
        if outcome is not None and outcome.status == 0:
            return self.remote.result(outcome, tail)
        status = look.status if outcome is None else outcome.status
        last = f": {tail[-1]}" if tail else ""
        if look.out_of_memory or (outcome is not None and outcome.oom):
            raise TaskFailed(f"{pods.out_of_memory(follow.pod or {})}{last}", status=status, tail=tail)
        if outcome is not None:
            if look.why:  # what the code made of its SIGTERM is not the reason
                raise TaskFailed(look.why, status=outcome.status, tail=tail)
            return self.remote.result(outcome, tail)
        raise TaskFailed(self._without_outcome(look, follow, tail), status=status, tail=tail)

    def _without_outcome(self, look: Look, follow: Follow, tail: tuple[str, ...]) -> str:
        """Why a container handed nothing over."""
        if look.why:
            return look.why
        broken = next((line for line in reversed(tail) if line.startswith("rainbow: ")), "")
        if look.status == _remote.BROKEN and broken:
            return f"the container could not run the command: {broken.removeprefix('rainbow: ')}"
        if look.status == 0:
            error = follow.log.error if follow.log is not None else None
            reason, fix = "nobody knows why", ""
            if error is not None:
                reason, fix = (
                    f"its log cannot be read ({error})",
                    "give the account the role of docs/kubernetes.md, or ",
                )
            return f"the command ended well, but what it left did not arrive: {reason}; {fix}name an `exchange` in the executor"
        status = look.status or 0
        return _remote.failure(128 - status if status > 128 else status, tail)

    # -- its end

    def _end(self, follow: Follow | None, *, is_kept: bool, seconds: float) -> None:
        """Delete the Job; when its container may still run, wait until it does not."""
        name, namespace, write = self.one.name, self.cluster.namespace, self.run_.write
        try:
            if is_kept:
                write(f"kept the Job {name}; look at it: kubectl -n {namespace} describe job,pod -l job-name={name}")
                return
            runs = follow is not None and follow.pod is not None and not follow.has_ended
            propagation = "Foreground" if runs else "Background"
            never = threading.Event()
            api.again(lambda: self.cluster.delete_job(name, propagation=propagation), stop=never)
            if follow is not None and runs:
                limit = self.settings.stop_grace_seconds + GONE_SECONDS
                if not follow.until_gone(limit):
                    write(f"the pod of the Job {name} is not gone after {limit:g} s; the cluster goes on deleting it")
        except (Away, Refused) as error:
            write(
                f"the Job {name} could not be deleted ({error}); the cluster removes it when it has ended, or: "
                f"kubectl -n {namespace} delete job {name}"
            )
        except TaskFailed as error:  # from the watch, while it waited
            write(f"the pod of the Job {name} may still run: {error}")
        finally:
            if follow is not None:
                follow.close()


# -- what killed runs left


@dataclass(frozen=True)
class Orphan:
    """A Job of some run: `created` is its time in UTC as the cluster writes it."""

    name: str
    namespace: str
    run_id: str
    task: str
    created: str
    is_running: bool
    has_failed: bool


def orphans(executor: Kubernetes, root: Path) -> list[Orphan]:
    """All Jobs in the executor's namespace that rainbow made; who knows which runs are under way picks from them.

    Raises:
        TaskFailed: the cluster cannot be asked.
    """
    cluster = executor._connected(root)
    try:
        jobs = cluster.jobs(",".join(f"{key}={value}" for key, value in manifest.MANAGED_BY.items()))
    except (Away, Refused) as error:
        raise api.failure(error, "the Jobs cannot be listed", cluster) from error
    return [_orphan(job) for job in jobs]


def _orphan(job: Mapping[str, Any]) -> Orphan:
    metadata = job["metadata"]
    labels = metadata.get("labels") or {}
    return Orphan(
        name=metadata["name"],
        namespace=metadata.get("namespace", ""),
        run_id=labels.get("rainbow.flow-run", ""),
        task=labels.get("rainbow.task", ""),
        created=metadata.get("creationTimestamp", ""),
        is_running=bool((job.get("status") or {}).get("active")),
        has_failed=_has_failed(job),
    )


def remove(executor: Kubernetes, root: Path, orphan: Orphan) -> None:
    """Delete a Job with its pod and its Secret; one that is gone already is no error.

    Raises:
        TaskFailed: the cluster refuses.
    """
    cluster = executor._connected(root)
    try:
        cluster.delete_job(orphan.name, propagation="Background")
    except (Away, Refused) as error:
        raise api.failure(error, f"the Job {orphan.name} cannot be deleted", cluster) from error
