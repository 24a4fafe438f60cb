"""The objects of one slice in a cluster, as plain data: a Job, and a Secret that the Job owns. No client here."""

from __future__ import annotations

import base64
import math
import re
import secrets as random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from ..errors import TaskFailed
from ..run import FileMount, Run

if TYPE_CHECKING:
    from .kubernetes import Kubernetes

Json = dict[str, Any]

CONTAINER = "task"
"""The container of the user's code: a `pod_template` adds to it by this name."""
TERMINATION_LOG = "/dev/termination-log"
INPUT = "/rainbow_input.json"
FOLDER = "/rainbow"
"""Where files of ours are seen in the container."""
MANAGED_BY = {"app.kubernetes.io/managed-by": "rainbow-prefect"}

_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*\Z")
_NO_LABEL = re.compile(r"[^A-Za-z0-9._-]+")
_NO_NAME = re.compile(r"[^a-z0-9]+")
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
"""The keys by which Kubernetes itself merges lists (`patchMergeKey` in its API)."""


@dataclass(frozen=True)
class Slice:
    """What differs from slice to slice: the program, its variables and the files that only it may see.

    `hidden` are variables whose values are kept in the Secret, `input` is the content of `/rainbow_input.json` when that
    is small enough for the Secret, `blank` are absolute paths at which an empty file that the code may write must be.
    """

    name: str
    image: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    hidden: Mapping[str, str] = field(default_factory=dict)
    input: bytes | None = None
    mounts: Sequence[FileMount] = ()
    resources: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    exchange_claim: str | None = None
    exchange_path: str = ""
    exchange_sub_path: str = ""
    blank: Sequence[str] = ()
    deadline_seconds: int = 86_400


def name_of(run: Run, *, base: str | None = None) -> str:
    """A name that no other Job has, of at most 63 characters as a DNS label has them: pods get five more and a dash."""
    words = base or f"{run.pipeline}-{run.task}-{run.index}"
    return f"{_NO_NAME.sub('-', words.lower())[:46].strip('-') or 'rainbow'}-{random.token_hex(4)}"


def labels_of(run: Run) -> dict[str, str]:
    """What finds the objects of a run, a task run, a slice."""
    return {**MANAGED_BY, **{key: label(value) for key, value in _facts(run).items() if value}}


def label(value: str) -> str:
    """A value as a label may have it; the annotation of the same key has it unchanged."""
    return _NO_LABEL.sub("_", value)[:63].strip("._-")


def _facts(run: Run) -> dict[str, str]:
    return {
        "rainbow.flow-run": run.run_id,
        "rainbow.task-run": run.task_run_id,
        "rainbow.app": run.app,
        "rainbow.pipeline": run.pipeline,
        "rainbow.task": run.task,
        "rainbow.slice": str(run.index),
    }


# -- the Job


def job(settings: Kubernetes, one: Slice, run: Run) -> Json:
    """The Job of a slice: one pod, tried once, bounded in time and gone after `ttl_seconds` whoever started it."""
    labels = {**_labels(settings.labels), **_labels(one.labels), **labels_of(run)}
    annotations = {**settings.annotations, **{key: value for key, value in _facts(run).items() if value}}
    template: Json = {"metadata": {"labels": labels, "annotations": annotations}, "spec": _pod(settings, one)}
    if settings.pod_template:
        template = merged(template, settings.pod_template)
        metadata = template.setdefault("metadata", {})
        metadata["labels"] = {**(metadata.get("labels") or {}), **labels_of(run)}
        template["spec"]["restartPolicy"] = "Never"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": one.name, "labels": labels, "annotations": annotations},
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": one.deadline_seconds,
            "ttlSecondsAfterFinished": settings.ttl_seconds,
            "template": template,
        },
    }


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    named = {"/".join(label(part) for part in key.split("/", 1)): label(value) for key, value in labels.items()}
    return {key: value for key, value in named.items() if key and "//" not in key and key.strip("/") == key}


def _pod(settings: Kubernetes, one: Slice) -> Json:
    volumes, mounts = _volumes(one)
    pod: Json = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": math.ceil(settings.stop_grace_seconds),
        "automountServiceAccountToken": settings.service_account is not None,
        "enableServiceLinks": False,
        "securityContext": _pod_security(settings.user),
        "containers": [_container(settings, one, mounts)],
        "volumes": volumes,
    }
    if one.blank:
        pod["initContainers"] = [_first(settings, one)]
    optional = {
        "serviceAccountName": settings.service_account,
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
        "nodeSelector": dict(settings.node_selector),
        "tolerations": [dict(one) for one in settings.tolerations],
    }
    return {**pod, **{key: value for key, value in optional.items() if value}}


def _pod_security(user: int | None) -> Json:
    context: Json = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if user is not None:
        # The files of a Secret are root's: only through the group of the pod can the code read them.
        context |= {"runAsUser": user, "runAsGroup": user, "fsGroup": user, "fsGroupChangePolicy": "OnRootMismatch"}
    return context


_SECURITY: Json = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _container(settings: Kubernetes, one: Slice, mounts: list[Json]) -> Json:
    container: Json = {
        "name": CONTAINER,
        "image": one.image,
        **_pull_policy(settings),
        "command": [literal(word) for word in one.argv],
        "env": _env(one),
        "securityContext": dict(_SECURITY),
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "volumeMounts": mounts,
    }
    resources = resources_of(one.resources)
    return {**container, "resources": resources} if resources else container


def _pull_policy(settings: Kubernetes) -> Json:
    return {} if settings.image_pull_policy is None else {"imagePullPolicy": settings.image_pull_policy}


def _first(settings: Kubernetes, one: Slice) -> Json:
    """Makes the empty files that are put in places where the user of the image may write none."""
    files = " ".join(f"{FOLDER}/files/{index}" for index, _ in enumerate(one.blank))
    return {
        "name": "files",
        "image": one.image,
        **_pull_policy(settings),
        "command": ["sh", "-c", f"umask 0; for file in {files}; do : > $file; done"],
        "securityContext": dict(_SECURITY),
        "volumeMounts": [{"name": "files", "mountPath": f"{FOLDER}/files"}],
    }


def takes(name: str) -> bool:
    """Whether Kubernetes takes an environment variable of this name."""
    return bool(_VARIABLE.match(name))


def literal(text: str) -> str:
    """Text in which the cluster sees no `$(VARIABLE)`."""
    return text.replace("$", "$$")


def _env(one: Slice) -> list[Json]:
    plain = [{"name": name, "value": literal(value)} for name, value in one.env.items()]
    hidden = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": one.name, "key": f"env-{index}"}}}
        for index, name in enumerate(one.hidden)
    ]
    return plain + hidden


def resources_of(asked: Mapping[str, str]) -> Json:
    """`{"requests": {"cpu": ...}, "limits": {...}}` of `request_cpu`, `limit_memory` and so on."""
    found: Json = {}
    for key, value in asked.items():
        kind, _, what = key.partition("_")
        found.setdefault(f"{kind}s", {})[what] = value
    return found


# -- files


def _volumes(one: Slice) -> tuple[list[Json], list[Json]]:
    volumes: list[Json] = []
    mounts: list[Json] = []
    for claim, mount in _claims(one):
        volume = _volume_name(claim, volumes)
        mounts.append({"name": volume, **mount})
    for folder, files in _secret_folders(one.mounts).items():
        volume = f"secret-{len(volumes)}"
        volumes.append({"name": volume, "secret": {**_of_secret(one.name), "items": files}})
        if folder != "/":
            mounts.append({"name": volume, "mountPath": folder, "readOnly": True})
            continue
        for file in files:
            mounts.append({"name": volume, "mountPath": f"/{file['path']}", "subPath": file["path"], "readOnly": True})
    if one.input is not None:
        items = [{"key": "input", "path": "input.json", "mode": 0o444}]
        volumes.append({"name": "input", "secret": {**_of_secret(one.name), "items": items}})
        mounts.append({"name": "input", "mountPath": INPUT, "subPath": "input.json", "readOnly": True})
    if one.blank:
        volumes.append({"name": "files", "emptyDir": {}})
        mounts += [{"name": "files", "mountPath": path, "subPath": str(index)} for index, path in enumerate(one.blank)]
    return volumes, mounts


def _of_secret(name: str) -> Json:
    return {"secretName": name, "defaultMode": 0o400}


def _claims(one: Slice) -> list[tuple[str, Json]]:
    found: list[tuple[str, Json]] = []
    for file in one.mounts:
        if file.text is not None:
            continue
        if file.claim_name is None:
            raise TaskFailed(
                f"the volume at {file.target} has no claim in the cluster; give the volume `claim_name`, "
                "or run the task with the executor 'process'"
            )
        mount: Json = {"mountPath": _absolute(file.target)}
        if file.sub_path:
            mount["subPath"] = file.sub_path
        if file.read_only:
            mount["readOnly"] = True
        found.append((file.claim_name, mount))
    if one.exchange_claim is not None:
        mount = {"mountPath": one.exchange_path}
        if one.exchange_sub_path:
            mount["subPath"] = one.exchange_sub_path
        found.append((one.exchange_claim, mount))
    return found


def _volume_name(claim: str, volumes: list[Json]) -> str:
    """The volume of a claim: the same one however often that is mounted."""
    for volume in volumes:
        if volume["persistentVolumeClaim"]["claimName"] == claim:
            return str(volume["name"])
    name = f"volume-{len(volumes)}"
    volumes.append({"name": name, "persistentVolumeClaim": {"claimName": claim}})
    return name


def _secret_folders(mounts: Sequence[FileMount]) -> dict[str, list[Json]]:
    """The files of secrets by the folder in which they are seen."""
    folders: dict[str, list[Json]] = {}
    for index, file in enumerate(mounts):
        if file.text is None:
            continue
        path = PurePosixPath(_absolute(file.target))
        files = folders.setdefault(str(path.parent), [])
        if any(one["path"] == path.name for one in files):
            raise TaskFailed(f"two secrets are the file {path}; give them different `remote_path` or `sub_path`")
        files.append({"key": f"file-{index}", "path": path.name})
    return folders


def _absolute(path: str) -> str:
    if path.startswith("/"):
        return str(PurePosixPath(path))
    raise TaskFailed(f"the path '{path}' of a mount or secret must be absolute in a cluster; write /{path}")


# -- the Secret


def secret(one: Slice, run: Run, *, owner: Json) -> Json:
    """All that only the slice may see; `owner` is its Job as the cluster has it: with it the Secret goes too."""
    data = {f"env-{index}": value.encode() for index, value in enumerate(one.hidden.values())}
    data |= {f"file-{index}": file.text.encode() for index, file in enumerate(one.mounts) if file.text is not None}
    if one.input is not None:
        data["input"] = one.input
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": one.name,
            "labels": labels_of(run),
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "name": one.name,
                    "uid": owner["metadata"]["uid"],
                    "blockOwnerDeletion": False,
                    "controller": True,
                }
            ],
        },
        "type": "Opaque",
        "immutable": True,
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


# -- merging


def merged(base: Any, extra: Any) -> Any:
    """`extra` laid over `base` as `kubectl patch` does: mappings by key, lists of named things by name, null removes.

    Source: "strategic merge patch" of the Kubernetes API; `$patch` directives are not known here.
    """
    if isinstance(base, Mapping) and isinstance(extra, Mapping):
        result = {key: value for key, value in base.items() if key not in extra}
        for key, value in extra.items():
            if value is None:
                continue
            result[key] = _merged_lists(key, base.get(key), value) if key in base else value
        return result
    return extra


def _merged_lists(key: str, base: Any, extra: Any) -> Any:
    name = _MERGE_KEYS.get(key)
    if not (isinstance(base, list) and isinstance(extra, list)):
        return merged(base, extra)
    if name is None or not all(isinstance(one, Mapping) and name in one for one in (*base, *extra)):
        return [*base, *(one for one in extra if one not in base)] if key == "tolerations" else list(extra)
    by_name = {one[name]: one for one in base}
    for one in extra:
        by_name[one[name]] = merged(by_name[one[name]], one) if one[name] in by_name else one
    return list(by_name.values())
