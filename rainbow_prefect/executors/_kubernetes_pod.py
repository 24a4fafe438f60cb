"""What a pod tells of itself: whether it waits, runs or has ended, why, and what to do about it. Plain data only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ._kubernetes_manifest import CONTAINER

Json = Mapping[str, Any]

NEVER_STARTS = frozenset({"InvalidImageName", "ErrImageNeverPull", "CreateContainerError", "RunContainerError"})
"""Reasons to wait that do not pass."""
PULLING = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError"})

_NOT_THERE = re.compile(
    r"not found|manifest unknown|does not exist|unauthorized|authentication required|denied|forbidden|no match for platform",
    re.IGNORECASE,
)
_AT_NODE = ("NodeLost", "NodeShutdown", "Terminated", "Shutdown", "NodeAffinity")
_DISRUPTIONS = {
    "PreemptionByScheduler": "a pod of a higher priority took its place",
    "DeletionByTaintManager": "its node was lost or tainted",
    "EvictionByEvictionAPI": "it was evicted, as `kubectl drain` does",
    "DeletionByPodGC": "its node is gone",
}


@dataclass(frozen=True)
class Look:
    """A pod at one moment.

    `status` is the exit status of the container, None when that is not known; `told` the container's termination message.
    `why` says in words why it waits, or ended otherwise than by its own exit; `is_final` that waiting will not help.
    """

    state: Literal["waiting", "running", "ended"]
    why: str = ""
    reason: str = ""
    status: int | None = None
    told: str = ""
    is_final: bool = False

    @property
    def out_of_memory(self) -> bool:
        return self.reason == "OOMKilled"


def look(pod: Json) -> Look:
    """What the pod tells now."""
    status = pod.get("status") or {}
    container = _container(status.get("containerStatuses") or ())
    state = container.get("state") or {}
    phase = status.get("phase")
    if "terminated" in state:
        return _terminated(pod, state["terminated"])
    if phase in ("Failed", "Succeeded"):
        return Look("ended", _pod_end(pod), str(status.get("reason") or "Failed"))
    if "running" in state:
        return Look("running")
    for one in status.get("initContainerStatuses") or ():
        ended = (one.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            why = f"the container '{one.get('name')}' that runs first failed with exit status {ended['exitCode']}"
            return Look("ended", why, str(ended.get("reason") or "Error"))
        if found := _waiting(pod, (one.get("state") or {}).get("waiting") or {}):
            return found
    return _waiting(pod, state.get("waiting") or {}) or Look("waiting", _unscheduled(pod), "Pending")


def _container(statuses: Sequence[Json]) -> Json:
    return next((one for one in statuses if one.get("name") == CONTAINER), {})


def _terminated(pod: Json, ended: Json) -> Look:
    reason = str(ended.get("reason") or "")
    told = str(ended.get("message") or "")
    status = ended.get("exitCode")
    if reason in ("StartError", "ContainerCannotRun"):
        return Look("ended", _cannot_run(told), reason, status)
    if reason == "OOMKilled":
        return Look("ended", out_of_memory(pod), reason, status, told)
    if reason in ("ContainerStatusUnknown", "NodeLost") or status is None:
        return Look("ended", _pod_end(pod) or "the node lost track of it", reason)
    pod_reason = str((pod.get("status") or {}).get("reason") or "")
    if status != 0 and (pod_reason or _disruption(pod)):
        return Look("ended", _pod_end(pod), pod_reason or "Disrupted", status, told)
    return Look("ended", "", reason, status, told)


def _pod_end(pod: Json) -> str:
    """Why the whole pod ended, when that was not the doing of its container."""
    status = pod.get("status") or {}
    reason, message = str(status.get("reason") or ""), _line(status.get("message"))
    node = (pod.get("spec") or {}).get("nodeName")
    again = "give the task `retries`"
    if reason == "Evicted":
        asks = "ask for what it needs by `request_memory`" if "memory" in message else "write less to its disk"
        return f"its node evicted the pod: {message}; {asks}, and {again}"
    if reason == "DeadlineExceeded":
        return "the pod ran longer than the Job may; raise `active_deadline_seconds`"
    if reason in _AT_NODE:
        return f"its node '{node}' was lost or shut down ({reason}): {message or 'no more is known'}; {again}"
    if reason.startswith("OutOf") or reason in ("UnexpectedAdmissionError", "Preempting"):
        return f"its node '{node}' did not take the pod ({reason}): {message}; {again}"
    if disruption := _disruption(pod):
        return f"the cluster ended the pod: {disruption}; {again}"
    return f"the pod ended ({reason or 'Failed'}): {message}".rstrip(": ") if reason or message else ""


def _disruption(pod: Json) -> str:
    for one in (pod.get("status") or {}).get("conditions") or ():
        if one.get("type") == "DisruptionTarget" and one.get("status") == "True":
            return _DISRUPTIONS.get(str(one.get("reason")), _line(one.get("message")) or str(one.get("reason")))
    return ""


def out_of_memory(pod: Json) -> str:
    """What to do about a container that was ended for want of memory."""
    limit = next(
        (
            ((one.get("resources") or {}).get("limits") or {}).get("memory")
            for one in (pod.get("spec") or {}).get("containers") or ()
            if one.get("name") == CONTAINER
        ),
        None,
    )
    if limit is None:
        return (
            "out of memory: its node had none left and ended it; ask for what it needs by `request_memory`, "
            "or make its slices smaller"
        )
    return f"out of memory: it needed more than its limit of {limit}; raise `limit_memory`, or make its slices smaller"


def _cannot_run(message: str) -> str:
    text = _line(message)
    if "executable file not found" in text or "no such file" in text:
        return (
            f"the container could not start: {text}; the image needs a shell and Python: rainbow's own program, which "
            "hands over inputs and outputs, runs with them"
        )
    return f"the container could not start: {text}"


def _waiting(pod: Json, waiting: Json) -> Look | None:
    """Why a container does not run yet; None while it is just on its way."""
    reason, message = str(waiting.get("reason") or ""), _line(waiting.get("message"))
    if reason in PULLING:
        is_final = reason == "ImagePullBackOff" and bool(_NOT_THERE.search(message))
        is_final = is_final or (reason == "ErrImagePull" and bool(_NOT_THERE.search(message)))
        return Look("waiting", _pull(_image(pod), message or reason), reason, is_final=is_final)
    if reason == "ErrImageNeverPull":
        why = f"the image '{_image(pod)}' is not on the node, and `image_pull_policy` is Never; load it there first"
        return Look("waiting", why, reason, is_final=True)
    if reason == "InvalidImageName":
        why = f"'{_image(pod)}' is not the name of an image; correct `image`"
        return Look("waiting", why, reason, is_final=True)
    if reason == "CreateContainerConfigError":
        is_final = "run as non-root" in message or "runAsNonRoot" in message or "non-numeric user" in message
        advice = (
            "set `user` of the executor to the number of a user of the image"
            if is_final
            else "see what it names in the namespace"
        )
        return Look("waiting", f"the container cannot be made: {message}; {advice}", reason, is_final=is_final)
    if reason in NEVER_STARTS:
        return Look("waiting", _cannot_run(message or reason), reason, is_final=True)
    return None


def _pull(image: str, message: str) -> str:
    return (
        f"the image '{image}' cannot be pulled: {message}; push it (`rainbow build --push`), correct `image`, "
        "or name the Secret of the registry in `image_pull_secrets`"
    )


def _image(pod: Json) -> str:
    containers = (pod.get("spec") or {}).get("containers") or ()
    return next((str(one.get("image")) for one in containers if one.get("name") == CONTAINER), "?")


def _unscheduled(pod: Json) -> str:
    for one in (pod.get("status") or {}).get("conditions") or ():
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return (
                f"no node takes the pod: {_line(one.get('message')) or one.get('reason')}; ask for less by `request_cpu` "
                "and `request_memory`, or correct `node_selector` and `tolerations`"
            )
    return ""


def _line(text: Any) -> str:
    return " ".join(str(text or "").split())[:1000].rstrip(".")
