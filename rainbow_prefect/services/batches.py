"""Single requests gathered into one call: the function gets a list and returns a list of the same length."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .definition import Batch
from .metrics import Numbers

Call = Callable[[list[Any]], Awaitable[Any]]


class Batcher:
    """Gathers items until there are `max_size`, or the first one has waited `max_wait_ms`; one call at a time.

    While a call is under way the next items gather, so that batches grow with the load. When a call with several items
    fails, each of them is tried alone: a bad item fails only its own request. So is one whose place in the returned list
    holds an exception.
    """

    def __init__(self, call: Call, batch: Batch, numbers: Numbers) -> None:
        self._call = call
        self._batch = batch
        self._numbers = numbers
        self._waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def one(self, item: Any) -> Any:
        """What the function returned for this item.

        Raises:
            Exception: what the function raised for it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((item, future))
        if self._task is None:
            if len(self._waiting) >= self._batch.max_size:
                self._begin()
            elif self._timer is None:
                self._timer = loop.call_later(self._batch.max_wait_ms / 1000, self._begin)
        return await future

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._next()
        finally:
            self._task = None

    async def _next(self) -> None:
        taken: list[tuple[Any, asyncio.Future[Any]]] = []
        while self._waiting and len(taken) < self._batch.max_size:
            one = self._waiting.popleft()
            if not one[1].done():  # its request timed out while it waited
                taken.append(one)
        if not taken:
            return
        self._numbers.batches.add(len(taken))
        results = await self._results([item for item, _ in taken])
        for (_, future), result in zip(taken, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    async def _results(self, items: list[Any]) -> Sequence[Any]:
        try:
            return _listed(await self._call(items), len(items))
        except Exception as error:
            if len(items) == 1:
                return [error]
        return [(await self._results([item]))[0] for item in items]


def _listed(result: Any, count: int) -> list[Any]:
    if isinstance(result, str | bytes | dict) or not hasattr(result, "__iter__"):
        raise TypeError(f"a function with `batch` returns a list, this one returned a {type(result).__name__}")
    found = list(result)
    if len(found) != count:
        raise ValueError(f"a function with `batch` returns a list as long as the one it got: {len(found)} for {count}")
    return found
