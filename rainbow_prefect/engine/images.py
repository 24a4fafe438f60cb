"""The images of a run: what is missing is built before the first slice starts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from ..errors import CallError, RunError
from ..executors.base import Executor
from ..plan import Plan
from ..tasks.base import Task
from .slices import World

_LOOK_SECONDS = 0.5


def images_of(plan: Plan, executors: Mapping[str, Executor]) -> dict[str, str]:
    """The image of each step whose executor runs images, by the name of the step; only those that have one."""
    if not any(executors[step.name].runs_images for step in plan.steps):
        return {}
    from ..images.recipes import image_of

    found = {step.name: image_of(plan.app, step.task) for step in plan.steps if executors[step.name].runs_images}
    return {name: image for name, image in found.items() if image is not None}


def build_images(world: World, tell: Callable[[str], None], stop: threading.Event) -> str:
    """Build what the tasks of a run need and what is missing or changed; gives what went wrong, '' when all is well.

    Ends early when `stop` is set, and at the deadline of the run.
    """
    hosts = {one.image_host() for one in world.executors.values() if one.runs_images}
    if not hosts:
        return ""
    over = threading.Event()
    ended = threading.Event()
    threading.Thread(target=_watch, args=(world, stop, over, ended), name="images", daemon=True).start()
    try:
        return "; ".join(filter(None, [_build(world, host, tell, over) for host in sorted(hosts, key=str)]))
    except (RunError, CallError) as error:
        return str(error)
    finally:
        ended.set()


def _watch(world: World, stop: threading.Event, over: threading.Event, ended: threading.Event) -> None:
    """Set `over` when the run is stopped, or its time is over."""
    while not ended.is_set() and not over.is_set():
        if stop.wait(_LOOK_SECONDS) or world.is_late:
            over.set()


def _build(world: World, host: str | None, tell: Callable[[str], None], over: threading.Event) -> str:
    from ..images.decide import decide
    from ..images.recipes import needed

    def in_image(task: Task) -> bool:
        executor = world.executors[task.task]
        return executor.runs_images and executor.image_host() == host

    recipes = needed(world.plan, in_image)
    if not recipes or over.is_set():
        return ""
    decisions = decide(recipes, address=host or None)
    if host is None and any(one.is_unknown for one in decisions):
        tell("images are not built here, where no Docker engine answers; they come from their registries as they are")
        return ""
    if not any(one.action == "build" for one in decisions):
        return ""
    from ..images.build import build, failure

    begun = time.monotonic()
    built = build(decisions, tell=partial(_tell, tell), stop=over, address=host or None)
    tell(f"{len(built)} of {len(decisions)} images built in {time.monotonic() - begun:.1f} s")
    if host is None:
        tell("the executor takes images from their registries: `rainbow build --push` puts them there")
    if over.is_set():
        return ""
    return failure([replace(one, message=world.secrets.mask(one.message)) for one in built])


def _tell(tell: Callable[[str], None], image: str, text: str) -> None:
    tell(f"image {image}: {text}")
