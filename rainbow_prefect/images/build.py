"""Builds what is to be built: independent images side by side, each with its log file and a word on every step."""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled, RainbowError, RunError
from . import builder, daemon
from .decide import Decision, cache_folder, keep_manifest
from .place import place
from .recipe import tagged

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

AT_ONCE = 4
"""How many images are built side by side."""

_KEPT_LOGS = 100
_HEAD_START_SECONDS = 0.5

Tell = Callable[[str, str], None]
"""Is given an image and what happens to it."""


@dataclass(frozen=True)
class Built:
    """How the build of an image ended; `log` is the file with all that the builder said."""

    decision: Decision
    state: str
    message: str = ""
    seconds: float = 0.0
    log: Path | None = None

    @property
    def completed(self) -> bool:
        return self.state == "completed"

    def as_dict(self) -> dict[str, Any]:
        """What `rainbow build --json` prints for it."""
        more: dict[str, Any] = {"state": self.state, "message": self.message, "seconds": round(self.seconds, 3)}
        return {**self.decision.as_dict(), **more, "log": str(self.log) if self.log else None}


def build(
    decisions: Sequence[Decision],
    *,
    tell: Tell = lambda image, text: None,
    no_cache: bool = False,
    stop: threading.Event | None = None,
    address: str | None = None,
) -> list[Built]:
    """Build the images whose action is `build`, in their order and up to four side by side, each after its base.

    A failure is in the result, as is an image that was not built because its base was not. `address` is the engine that
    is to have them; None: that of the environment.
    """
    wanted = [one for one in decisions if one.action == "build"]
    work = _Work(tell, no_cache, stop or threading.Event(), address)
    if len(wanted) == 1:
        return [work.one(wanted[0], threading.Event(), is_on_built=False)]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="build") as pool:
        try:
            return work.all(pool, wanted)
        except BaseException:
            work.stop.set()
            raise


@dataclass
class _Work:
    tell: Tell
    no_cache: bool
    stop: threading.Event
    address: str | None

    @property
    def env(self) -> dict[str, str]:
        """The environment of the Docker client; an address wins over a chosen context there."""
        return {**os.environ, **({"DOCKER_HOST": self.address} if self.address else {})}

    def all(self, pool: ThreadPoolExecutor, wanted: Sequence[Decision]) -> list[Built]:
        from concurrent.futures import FIRST_COMPLETED, wait

        ended: dict[str, Built] = {}
        under_way: dict[Future[Built], str] = {}
        waiting = {tagged(one.image): one for one in wanted}
        while waiting or under_way:
            for name, one in list(waiting.items()):
                bases = [base for base in map(tagged, one.recipe.bases) if base != name]
                if any(base in waiting or base in under_way.values() for base in bases):
                    continue
                if len(under_way) >= AT_ONCE:
                    break
                del waiting[name]
                failed = next((base for base in bases if base in ended and not ended[base].completed), None)
                if failed is not None:
                    ended[name] = Built(one, "not_built", f"its base image {failed} was not built")
                    continue
                is_on_built = any(base in ended for base in bases)
                started = threading.Event()
                under_way[pool.submit(self.one, one, started, is_on_built)] = name
                started.wait(_HEAD_START_SECONDS)  # in the order of the file, and one asks for a base before the next
            done, _ = wait(under_way, return_when=FIRST_COMPLETED) if under_way else (set(), set())
            for future in done:
                ended[under_way.pop(future)] = future.result()
        return [ended[tagged(one.image)] for one in wanted]

    def one(self, decision: Decision, started: threading.Event, is_on_built: bool) -> Built:
        begun = time.monotonic()
        image = decision.image
        log: Path | None = None
        try:
            if is_on_built:
                decision = _with_base(decision, self.address)
            self.tell(image, f"building: {decision.reason}")
            with _log(image) as (log, write), place(f"{decision.recipe.app} {image}") as folder:
                mask = _Mask(decision)

                def heard(line: str) -> None:
                    started.set()
                    write(mask(line))

                builder.build(
                    decision,
                    folder,
                    tell=lambda text: self.tell(image, mask(text)),
                    write=heard,
                    no_cache=self.no_cache,
                    stop=self.stop,
                    env=self.env,
                )
        except (RainbowError, OSError) as error:
            state = "cancelled" if isinstance(error, Cancelled) else "failed"
            what = "its files cannot be written: " if isinstance(error, OSError) else ""
            message = _masker(decision)(f"{what}{error}")
            self.tell(image, f"{state} after {time.monotonic() - begun:.1f} s")
            return Built(decision, state, message, time.monotonic() - begun, log)
        finally:
            started.set()
        keep_manifest(decision.content)
        seconds = time.monotonic() - begun
        self.tell(image, f"built in {seconds:.1f} s")
        return Built(decision, "completed", "", seconds, log)


def _with_base(decision: Decision, address: str | None) -> Decision:
    """The same decision with the base image as it is now."""
    bases = [tagged(base) for base in decision.recipe.bases]
    there = daemon.images(bases, address=address)
    ids = [found.id for base in bases if (found := there.get(base)) is not None]
    return replace(decision, base_id=" ".join(ids) if len(ids) == len(bases) else "")


class _Mask:
    """Hides what nobody should read; made when there is something to read."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision
        self._mask: Callable[[str], str] | None = None

    def __call__(self, text: str) -> str:
        if self._mask is None:
            self._mask = _masker(self._decision)
        return self._mask(text)


def _masker(decision: Decision) -> Callable[[str], str]:
    """Hides what a build may print and nobody should read: values named like secrets, and passwords of URLs."""
    from ..masking import Masker, secret_values  # while the builder is at work already

    recipe = decision.recipe
    masker = Masker([*secret_values(dict(os.environ)), *secret_values(dict(recipe.build_args))])
    with suppress(OSError, UnicodeDecodeError):
        for line in recipe.pip_conf.read_text().splitlines() if recipe.pip_conf else ():
            if found := re.search(r"://[^\s/@:]*:([^\s/@]+)@", line):
                masker.learn(found[1])
    return masker.mask


# -- the log file


@contextmanager
def _log(image: str) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A new file for the output of a build, below the user's cache; old ones are removed."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", image)
    try:
        folder = cache_folder() / "builds"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = sorted(folder.glob("*.log"), key=lambda one: one.stat().st_mtime)
        for one in kept[: max(0, len(kept) - _KEPT_LOGS)]:
            one.unlink(missing_ok=True)
        handle, path = tempfile.mkstemp(dir=folder, prefix=f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-", suffix=".log")
    except OSError as error:
        raise RunError(f"the log of the build cannot be written: {error}") from error

    def write(line: str) -> None:
        with suppress(OSError):  # a full disk is no reason to build no image
            os.write(handle, f"{line}\n".encode(errors="replace"))

    try:
        yield Path(path), write
    finally:
        os.close(handle)


# -- both at once


def failure(built: Sequence[Built]) -> str:
    """What went wrong, of all that did; '' when all is well."""
    return "; ".join(_told(one) for one in built if not one.completed)


def _told(one: Built) -> str:
    where = f" (full log: {one.log})" if one.log is not None else ""
    return f"image '{one.decision.image}' could not be built: {one.message}{where}"
