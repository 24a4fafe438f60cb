"""Amounts as people write them, and what the engine is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import TaskFailed
from ..schema import wrong

if TYPE_CHECKING:
    from .docker import Resources

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\Z")
_UNITS = {"": 1, "b": 1} | {
    unit: 1024**power for power, letter in enumerate("kmgt", 1) for unit in (letter, f"{letter}b", f"{letter}i")
}
"""As Docker has them: all are powers of 1024."""
_TOO_MANY = 1 << 63
_LEAST_NANO_CPUS = 10_000_000
"""A hundredth of a CPU; the kernel refuses a share of time below a millisecond."""


def size_bytes(text: str) -> int:
    """`512Mi`, `512m`, `512MB`, `536870912` as bytes.

    Raises:
        PydanticCustomError: it is no size.
    """
    found = _SIZE.match(text.strip())
    unit = found[2].lower().removesuffix("b") if found else ""
    if found is None or unit not in _UNITS or not 0 < float(found[1]) * _UNITS[unit] < _TOO_MANY:
        raise wrong(f"'{text}' is not an amount of memory", hint="write e.g. 512Mi or 2g")
    return int(float(found[1]) * _UNITS[unit])


def cpus(text: str) -> float:
    """`2`, `0.5` or `500m` as a number of CPUs.

    Raises:
        PydanticCustomError: it is no such number.
    """
    word = text.strip()
    try:
        number = float(word.removesuffix("m")) / (1000 if word.endswith("m") else 1)
    except ValueError:
        number = 0
    if not 0 < number < 1e6:
        raise wrong(f"'{text}' is not a number of CPUs", hint="write e.g. 2 or 500m")
    return number


def settings(resources: Resources, task: Mapping[str, str]) -> dict[str, Any]:
    """The part of a HostConfig about resources; what a task says wins.

    Raises:
        TaskFailed: an amount of the task is none.
    """
    memory, cpu = task.get("limit_memory") or resources.memory, task.get("limit_cpu") or resources.cpu
    found: dict[str, Any] = {}
    try:
        if memory:
            found |= {"Memory": size_bytes(memory), "MemorySwap": size_bytes(memory)}
        if cpu:
            found["NanoCpus"] = max(_LEAST_NANO_CPUS, int(cpus(cpu) * 1e9))
        if "request_memory" in task:
            asked = size_bytes(task["request_memory"])
            found["MemoryReservation"] = min(asked, found.get("Memory", asked))
        if "request_cpu" in task:
            found["CpuShares"] = max(2, int(cpus(task["request_cpu"]) * 1024))
        if resources.shm:
            found["ShmSize"] = size_bytes(resources.shm)
        if resources.gpus:
            found["DeviceRequests"] = [_gpus(resources.gpus)]
    except ValueError as error:
        raise TaskFailed(f"{error}; correct it in the task or the executor") from None
    return found


def _gpus(text: str) -> dict[str, Any]:
    if text != "all" and not text.isdigit():
        raise ValueError(f"'{text}' is not a number of GPUs, nor 'all'")
    return {"Driver": "", "Count": -1 if text == "all" else int(text), "Capabilities": [["gpu"]]}
