"""Where the outputs of slices are kept: Prefect's result storage, read back by whoever continues a run."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.exceptions import PrefectException
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore
from prefect.settings import get_current_settings
from prefect.tasks import Task as PrefectTask
from prefect.utilities.asyncutils import run_coro_as_sync

from ..errors import CallError, TaskFailed
from ..run import LARGE_OUTPUT_BYTES, Large, Report

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """A slice that completed: its output, and how it went. `id` is the task run that made it."""

    id: str
    output: Any
    attempts: int = 1
    seconds: float = 0.0


class Storage:
    """The results of one flow run in Prefect's result storage, and a scratch folder for as long as it runs."""

    def __init__(self, store: ResultStore, run_id: str, scratch: Path) -> None:
        self._store = store
        self.run_id = run_id
        self.scratch = scratch
        files = store.result_storage
        self._base = Path(files.basepath or ".").expanduser() if isinstance(files, LocalFileSystem) else None

    def key(self, task: str, index: int, lineage: str) -> str:
        """Where the result of a slice is kept; a slice of other data or after another history is another one."""
        return f"rainbow/{self.run_id}/{task}/{index}-{lineage}"

    def find(self, task: PrefectTask[..., Any], key: str) -> Kept | None:
        """What was kept under this key, None when nothing was or it is damaged."""
        if self._base is not None and not (self._base / key).is_file():
            return None
        try:
            store: Any = self._store.update_for_task(task, _sync=True)  # type: ignore[call-arg]
            if not store.exists(key):
                return None
            return self._unpacked(store.read(key).result)
        except (
            ValueError,
            KeyError,
            OSError,
            PrefectException,
        ):  # half a file after `kill -9`: it runs again
            return None

    def pack(self, kept: Kept, key: str) -> dict[str, Any]:
        """The JSON data that Prefect keeps as the result of a slice; a large output goes to a file beside it."""
        packed = {"rainbow": FORMAT, "id": kept.id, "attempts": kept.attempts, "seconds": round(kept.seconds, 3)}
        if isinstance(kept.output, Large):
            return packed | {
                "large": {"key": f"{key}.json", "bytes": kept.output.size_bytes, "items": kept.output.items}
            }
        return packed | {"output": kept.output}

    def settle(self, output: Any, key: str, path: Path) -> Any:
        """The output of a slice as JSON data, or as `Large` in the result storage when it is that.

        Raises:
            TaskFailed: it is not JSON data.
        """
        if not isinstance(output, Large):
            text = _json(output)
            if len(text) <= LARGE_OUTPUT_BYTES and len(data := text.encode()) <= LARGE_OUTPUT_BYTES:
                return json.loads(text) if isinstance(output, dict | list | tuple) else output
            path.write_bytes(text.encode() if len(text) > LARGE_OUTPUT_BYTES else data)
            output = Large(path, path.stat().st_size, len(output) if isinstance(output, list | tuple) else None)
        return self._stored(output, f"{key}.json", own=path.parent)

    def _stored(self, large: Large, key: str, *, own: Path) -> Large:
        """A file below `own` is moved into the storage, any other one, such as the input itself, is copied."""
        if self._base is None:
            _call(self._files.write_path, key, large.path.read_bytes())
            return large
        target = self._base / key
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        (shutil.move if large.path.is_relative_to(own) else shutil.copyfile)(large.path, part)
        part.replace(target)
        return Large(target, large.size_bytes, large.items)

    @property
    def _files(self) -> Any:
        return self._store.result_storage

    def _unpacked(self, packed: Any) -> Kept | None:
        if not isinstance(packed, dict) or packed.get("rainbow") != FORMAT:
            return None
        output = packed.get("output")
        if "large" in packed:
            output = self._large(packed["large"])
            if output is None:
                return None
        return Kept(packed["id"], output, packed["attempts"], packed["seconds"])

    def _large(self, large: dict[str, Any]) -> Large | None:
        key, size = large["key"], large["bytes"]
        if self._base is not None:
            path = self._base / key
        else:
            path = self.scratch / hashlib.blake2b(key.encode(), digest_size=12).hexdigest()
            path.write_bytes(_call(self._files.read_path, key))
        return Large(path, size, large["items"]) if path.is_file() and path.stat().st_size == size else None


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TaskFailed(f"its output is not JSON data: {error}") from None
    except RecursionError:
        raise TaskFailed("its output is not JSON data: it is nested too deep") from None


def _call(method: Any, *args: Any) -> Any:
    """Call a method of a storage block, which may be async."""
    found = method(*args)
    return run_coro_as_sync(found) if hasattr(found, "__await__") else found


# -- who runs it


def _locks() -> Path:
    return get_current_settings().home / "rainbow" / "runs"


@dataclass
class Hold:
    """That this process executes a flow run; `is_untold`: it has ended, which Prefect does not know."""

    is_untold: bool = False


@contextlib.contextmanager
def holding(run_id: str) -> Iterator[Hold]:
    """Be the one process that executes this flow run; a killed process lets go of it by itself.

    Raises:
        CallError: another process does.
    """
    folder = _locks()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run_id}.lock"
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = path.exists() and path.stat().st_ino == os.fstat(lock.fileno()).st_ino
        except OSError:
            is_ours = False
        if not is_ours:  # held, or removed by its holder in this very moment
            raise CallError(
                f"run {run_id} is under way in another process; wait for it, or stop it: rainbow cancel {run_id}"
            )
        hold = Hold()
        yield hold
        if not hold.is_untold:
            path.unlink(missing_ok=True)


def was_here(run_id: str) -> bool:
    """Whether a process of this machine executed this flow run and ended without Prefect's knowledge."""
    return (_locks() / f"{run_id}.lock").exists()


def is_dead(run_id: str) -> bool:
    """Whether the process of this machine that executed this flow run was killed, and no other has taken over."""
    try:
        with (_locks() / f"{run_id}.lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:  # there is no such file, or its process holds it
        return False


_ALIVE = "alive"


@contextlib.contextmanager
def scratch_folder(report: Callable[[], Report | None]) -> Iterator[Path]:
    """A folder for the files of a run; it lives as long as the report of the run, whose values may be in it.

    Those of processes that were killed are removed at the next start: their lock is free.
    """
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix="rainbow-"))
    lock = os.open(folder / "new", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (folder / "new").rename(folder / _ALIVE)  # only now, with its lock held, may others look at it
    try:
        yield folder
    finally:
        if (reader := report()) is None:
            _forget(folder, lock)
        else:
            weakref.finalize(reader, _forget, folder, lock)


def _forget(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def _sweep() -> None:
    """Remove the folders of runs whose processes are gone."""
    for path in Path(tempfile.gettempdir()).glob(f"rainbow-*/{_ALIVE}"):
        try:
            if path.stat().st_uid != os.getuid():
                continue
            with path.open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parent, ignore_errors=True)
        except OSError:  # under way, or removed by somebody else in this moment
            continue
