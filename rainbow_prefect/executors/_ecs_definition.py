"""The task definition of ECS for a command, as plain data: merged, sized, named by its content. No client here."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import TaskFailed
from ..run import Command

if TYPE_CHECKING:
    from ._exchange import ExchangeVolume
    from .ecs import Ecs

Json = dict[str, Any]

CONTAINER = "task"
"""The container of the user's code; a `task_definition` of the user adds to it by this name."""
STREAM_PREFIX = "rainbow"
FAMILY = "rainbow-"
EXCHANGE = "rainbow-exchange"

_MERGED_BY_NAME = ("containerDefinitions", "volumes", "environment", "secrets", "ulimits")
_READ_ONLY = (
    "taskDefinitionArn",
    "revision",
    "status",
    "requiresAttributes",
    "compatibilities",
    "registeredAt",
    "registeredBy",
    "deregisteredAt",
)
_GIB = 1024
_FARGATE: dict[int, Iterable[int]] = {
    256: (512, 1024, 2048),
    512: range(1024, 4 * _GIB + 1, 1024),
    1024: range(2048, 8 * _GIB + 1, 1024),
    2048: range(4096, 16 * _GIB + 1, 1024),
    4096: range(8192, 30 * _GIB + 1, 1024),
    8192: range(16384, 60 * _GIB + 1, 4096),
    16384: range(32768, 120 * _GIB + 1, 8192),
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*(m|[KMGT]i?|k)?[Bb]?\Z")
_MEBIBYTES = {
    "": 1 / (1 << 20),
    "k": 1e3 / (1 << 20),
    "K": 1e3 / (1 << 20),
    "Ki": 1 / (1 << 10),
    "M": 1e6 / (1 << 20),
    "Mi": 1,
    "G": 1e9 / (1 << 20),
    "Gi": 1 << 10,
    "T": 1e12 / (1 << 20),
    "Ti": 1 << 20,
}


def definition(
    executor: Ecs, command: Command, argv: tuple[str, ...], *, base: Mapping[str, Any] | None, region: str
) -> Json:
    """The request that registers it; `base` is a definition of the user that it is merged into.

    Raises:
        TaskFailed: resources or mounts that ECS cannot give.
    """
    cpu, memory = size(executor, command.resources)
    container: Json = {
        "name": CONTAINER,
        "image": command.image or executor.image,
        "essential": True,
        "entryPoint": [*argv[:-2]],
        "command": [*argv[-2:]],
        "stopTimeout": max(2, round(executor.stop_grace_seconds)),
    }
    if executor.log_group is not None:
        container["logConfiguration"] = {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": executor.log_group,
                "awslogs-region": region,
                "awslogs-stream-prefix": STREAM_PREFIX,
            },
        }
    ours: Json = {"cpu": str(cpu), "memory": str(memory), "containerDefinitions": [container]}
    if executor.is_fargate:
        ours["requiresCompatibilities"] = ["FARGATE"]
    else:
        container |= {"cpu": cpu, "memory": memory}
    if executor.is_fargate or executor.subnets:
        ours["networkMode"] = "awsvpc"
    for key, value in (("executionRoleArn", executor.execution_role), ("taskRoleArn", executor.task_role)):
        if value is not None:
            ours[key] = value
    if executor.exchange is not None and executor.exchange.volume is not None:
        _add_exchange(ours, container, executor.exchange.volume)
    theirs = {key: value for key, value in (base or {}).items() if key not in _READ_ONLY and value not in ([], None)}
    raw = executor.task_definition if isinstance(executor.task_definition, dict) else {}
    made = merge(merge(theirs, ours), raw)
    _add_mounts(made, command)
    made.pop("family", None)
    return {"family": family(made), **made}


def family(made: Mapping[str, Any]) -> str:
    """The name of a definition: the same for the same content."""
    text = json.dumps(made, sort_keys=True, default=str)
    return FAMILY + hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def container_of(made: Mapping[str, Any]) -> Json:
    """The container of the user's code in a definition."""
    found: Json = next(one for one in made["containerDefinitions"] if one["name"] == CONTAINER)
    return found


def merge(low: Any, high: Any, key: str = "") -> Any:
    """`high` over `low`: mappings by key, containers, volumes and variables by name, other lists as a whole."""
    if isinstance(low, Mapping) and isinstance(high, Mapping):
        return {**low, **{name: merge(low[name], one, name) if name in low else one for name, one in high.items()}}
    if key in _MERGED_BY_NAME and isinstance(low, list) and isinstance(high, list):
        merged = {one.get("name"): one for one in low}
        for one in high:
            name = one.get("name")
            merged[name] = merge(merged[name], one) if name in merged else one
        return [*merged.values()]
    return high


def size(executor: Ecs, resources: Mapping[str, str]) -> tuple[int, int]:
    """CPU units (1024 is one) and MiB: the task's own, else the executor's; on Fargate rounded up to what it has.

    Raises:
        TaskFailed: a quantity is none, or more than Fargate has.
    """
    cpu_text = resources.get("request_cpu") or resources.get("limit_cpu")
    memory_text = resources.get("limit_memory") or resources.get("request_memory")
    cpu = round(_cpus(cpu_text) * 1024) if cpu_text else executor.cpu
    memory = round(_mebibytes(memory_text)) if memory_text else executor.memory
    if not executor.is_fargate:
        return cpu, memory
    for units, choices in _FARGATE.items():
        if units >= cpu:
            fitting = [one for one in choices if one >= memory]
            if fitting:
                return units, fitting[0]
    raise TaskFailed(
        f"Fargate has no size for {cpu} CPU units and {memory} MiB; the largest is 16384 units and 122880 MiB"
    )


def _cpus(text: str) -> float:
    found = _QUANTITY.match(str(text).strip())
    if found is None or found[2] not in (None, "m"):
        raise TaskFailed(f"'{text}' is not an amount of CPU; write e.g. 0.5 or 500m")
    return float(found[1]) / (1000 if found[2] else 1)


def _mebibytes(text: str) -> float:
    found = _QUANTITY.match(str(text).strip())
    if found is None or found[2] == "m":
        raise TaskFailed(f"'{text}' is not an amount of memory; write e.g. 512Mi or 2Gi")
    return max(1, float(found[1]) * _MEBIBYTES[found[2] or ""])


def _add_exchange(made: Json, container: Json, volume: ExchangeVolume) -> None:
    if volume.file_system is None:
        return
    efs: Json = {"fileSystemId": volume.file_system, "transitEncryption": "ENABLED"}
    if volume.sub_path:
        efs["rootDirectory"] = f"/{volume.sub_path.strip('/')}"
    made["volumes"] = [{"name": EXCHANGE, "efsVolumeConfiguration": efs}]
    container["mountPoints"] = [{"sourceVolume": EXCHANGE, "containerPath": volume.mount, "readOnly": False}]


def _add_mounts(made: Json, command: Command) -> None:
    """Volumes of the task are those of the definition, by name."""
    known = {one.get("name") for one in made.get("volumes", ())}
    points = []
    for mount in command.mounts:
        if mount.text is not None:
            continue
        if mount.claim_name not in known:
            what = f"the claim '{mount.claim_name}'" if mount.claim_name else "a folder of this machine"
            raise TaskFailed(
                f"the volume at {mount.target} is {what}; ECS has no such thing: give the volume `claim_name: NAME`, "
                "and NAME a file system in `volumes` of the executor's `task_definition`"
            )
        if mount.sub_path:
            raise TaskFailed(
                f"the mount {mount.target} has a `sub_path`, which ECS cannot mount; "
                "use `rootDirectory` of the file system in `task_definition`"
            )
        points.append(
            {"sourceVolume": mount.claim_name, "containerPath": mount.target, "readOnly": mount.read_only},
        )
    if points:
        container = container_of(made)
        container["mountPoints"] = [*container.get("mountPoints", ()), *points]
