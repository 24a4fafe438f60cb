"""The threads in which slices run: Prefect's thread pool, on threads that cannot keep the process from ending."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Self

from prefect.task_runners import ThreadPoolTaskRunner

MAX_AT_ONCE = 256
"""How many slices of a run are under way at most; a slice that waits for its child holds a thread."""

Work = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Threads(Executor):
    """A pool like `ThreadPoolExecutor` that never waits for a thread that does not come back."""

    def __init__(self, most: int, started: Callable[[], None]) -> None:
        self._most = most
        self._started = started
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._work.put((future, fn, args, kwargs))
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._most:
                thread = threading.Thread(target=self._loop, name=f"slice-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; a thread that is still busy is left to itself."""
        with self._lock:
            self._closed = True
            while cancel_futures:
                try:
                    work = self._work.get_nowait()
                except queue.Empty:
                    break
                if work is not None:
                    work[0].cancel()
            for _ in self._threads:
                self._work.put(None)

    def _loop(self) -> None:
        self._started()
        while (work := self._work.get()) is not None:
            future, fn, args, kwargs = work
            if future.set_running_or_notify_cancel():
                try:
                    result = fn(*args, **kwargs)
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del work, future, fn, args, kwargs
            self._idle.release()


class Runner(ThreadPoolTaskRunner[Any]):
    """Prefect's thread runner on `Threads`."""

    def __enter__(self) -> Self:
        super().__enter__()
        if self._executor is not None:
            self._executor.shutdown(wait=False)
        self._executor = Threads(self._max_workers, self._register_worker_thread)  # type: ignore[assignment]
        return self
