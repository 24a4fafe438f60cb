"""Why a task of ECS did not run or did not end well, and what to do about it: pure functions on what AWS says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import TaskFailed
from ._remote import BROKEN, failure

MEMORY = "out of memory: it needed more than the container may use; raise `memory` of the executor"
KILLED = 137

NO_ROOM = ("RESOURCE:", "AGENT", "Capacity is unavailable", "capacity", "limit on the number of")
"""Beginnings or parts of reasons that may go away by waiting."""


def is_passing(reason: str) -> bool:
    """Whether a task may be started later that cannot be started now."""
    return any(one in reason for one in NO_ROOM)


def not_started(reason: str, detail: str, cluster: str, seconds: float) -> str:
    """Why RunTask placed no task."""
    shown = f"{reason} ({detail})" if detail else reason
    if reason.startswith("RESOURCE:"):
        what = reason.removeprefix("RESOURCE:").lower()
        return (
            f"no machine of the cluster '{cluster}' had enough {what} left within {seconds:g} s; add machines, "
            f"lower `cpu` and `memory` of the executor, or use `launch_type: FARGATE`"
        )
    if is_passing(reason):
        return (
            f"AWS had no capacity for the task within {seconds:g} s: {shown}; "
            "try later, add subnets in other availability zones, or use another `capacity_provider`"
        )
    if reason == "ATTRIBUTE" or reason.startswith("ATTRIBUTE"):
        return (
            f"no machine of the cluster '{cluster}' has what the task needs: {shown}; correct `cpu`, `task_definition`"
        )
    if reason == "MISSING":
        return f"the cluster '{cluster}' does not know the task or its machine: {shown}; correct `cluster`"
    return f"the task could not be started in the cluster '{cluster}': {shown}"


def why(task: Mapping[str, Any], container: Mapping[str, Any], image: str, tail: tuple[str, ...]) -> TaskFailed:
    """Why a stopped task handed nothing over, by what AWS says of it."""
    status = container.get("exitCode")
    reason = " ".join(str(container.get("reason") or task.get("stoppedReason") or "").split())
    text = _told(str(task.get("stopCode") or ""), reason, status, image, tail)
    return TaskFailed(text, status=status, tail=tail)


def _told(code: str, reason: str, status: int | None, image: str, tail: tuple[str, ...]) -> str:
    if "OutOfMemory" in reason:
        return f"{MEMORY}: {tail[-1]}" if tail else MEMORY
    if "CannotPull" in reason:
        return (
            f"the image '{image}' cannot be pulled: {reason}; push it (rainbow build --push), let `execution_role` "
            "pull it, and give the subnets a way to the registry (`assign_public_ip`, a NAT or VPC endpoints)"
        )
    if "ResourceInitializationError" in reason:
        return (
            f"ECS could not prepare the task: {reason}; check `execution_role` and the way of the subnets to AWS "
            "(`assign_public_ip`, a NAT or VPC endpoints)"
        )
    if any(one in reason for one in ("CannotStartContainer", "CannotCreateContainer", "ContainerRuntimeError")):
        if "executable file not found" in reason or "no such file" in reason:
            return f"the image '{image}' has no /bin/sh; its code needs sh and Python 3.6 or newer: {reason}"
        return f"the container could not be started: {reason}"
    if code == "SpotInterruption" or "Spot" in reason:
        return f"AWS took the spot capacity back: {reason}; set `retries`, or use `capacity_provider: FARGATE`"
    if "Host EC2" in reason or code == "TerminationNotice":
        return f"the machine that it ran on went away: {reason}; set `retries`"
    if code == "UserInitiated":
        return f"somebody stopped the task: {reason or 'no reason was given'}"
    if status == BROKEN and tail and tail[-1].startswith("rainbow: "):
        return f"the container could not run the command: {tail[-1].removeprefix('rainbow: ')}"
    if code == "TaskFailedToStart" or (status is None and reason):
        return f"the task did not start: {reason or 'ECS gave no reason'}"
    if status is None:
        return "the task stopped, and ECS gave neither an exit status nor a reason"
    if status == KILLED:
        last = f": {tail[-1]}" if tail else ""
        return f"killed (exit status 137), perhaps for want of memory; raise `memory` of the executor{last}"
    return failure(status, tail)
