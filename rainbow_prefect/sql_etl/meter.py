"""Tells how far a load has come, about twice a second, by looking at the pieces that pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ..run import Progress
from .base import Reader, Rows

if TYPE_CHECKING:
    import pyarrow

EVERY_SECONDS = 0.5


class Meter:
    """Counts rows and bytes; `tell` is called with what has passed, `total_rows` is how many there will be, or None."""

    def __init__(self, tell: Callable[[Progress], None], total_rows: int | None = None) -> None:
        self.rows = 0
        self.size_bytes = 0
        self._tell = tell
        self._total = total_rows
        self._began = self._told = time.monotonic()

    def of_rows(self, pieces: Iterable[Rows]) -> Iterator[Rows]:
        for one in pieces:
            yield one
            self._passed(len(one), 0)

    def of_batches(self, pieces: Iterable[pyarrow.RecordBatch]) -> Iterator[pyarrow.RecordBatch]:
        for one in pieces:
            rows, size = one.num_rows, one.nbytes
            yield one
            self._passed(rows, size)

    def of_chunks(self, pieces: Iterable[bytes], reader: Reader) -> Iterator[bytes]:
        """Rows are counted by the reader, else lines are."""
        for one in pieces:
            yield one
            rows = one.count(b"\n") if reader.passed is None else reader.passed - self.rows
            self._passed(rows, len(one))

    def end(self, rows: int) -> None:
        """All rows have come."""
        self.rows = self._total = rows
        self._say(time.monotonic())

    def _passed(self, rows: int, size: int) -> None:
        self.rows += rows
        self.size_bytes += size
        now = time.monotonic()
        if now >= self._told + EVERY_SECONDS:
            self._say(now)

    def _say(self, now: float) -> None:
        self._told = now
        self._tell(Progress(self.rows, now - self._began, self.size_bytes, self._total))
