"""Follows what a container prints: no line is lost and none is told twice, however often the stream breaks."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from ._kubernetes_api import MAX_LINE_BYTES, Away, Cluster, Refused, Stream
from ._kubernetes_manifest import CONTAINER

MARGIN_SECONDS = 120
"""How much further back than the last line is asked: the clocks of the node and of this machine may differ."""
PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 10.0
END_SECONDS = 5.0
"""How much later than the end of its log the end of a container may be told."""
TRIES_AFTER_END = 6
"""How often the rest of the log is asked for when nothing new comes."""

_TIME = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z ?")


class Position:
    """How far a log has been read, by the times that the node puts before its lines.

    All lines before the second of the latest are known, and of those of that second the first `count` in the order of the
    log: reading it again from any earlier place gives the same lines in the same order.
    """

    def __init__(self) -> None:
        self._second = b""
        self._latest = (b"", b"")
        self._count = 0
        self._skip = 0
        self._is_skipped = False
        self.last = b""

    def again(self) -> None:
        """The log is read again, from an earlier place."""
        self._skip = self._count
        self._is_skipped = bool(self._second)

    def take(self, line: bytes) -> bytes | None:
        """The line without its time; None when it is known already."""
        found = _TIME.match(line)
        if found is None:  # the rest of a line that the node had cut
            return None if self._is_skipped else line
        second, key = found[1], (found[1], (found[2] or b"").ljust(9, b"0"))
        self._is_skipped = second < self._second or (self._skip > 0 and second >= self._second and key <= self._latest)
        if self._is_skipped:
            self._skip -= second >= self._second
            return None
        self._skip = 0
        if second > self._second:
            self._second, self._count = second, 0
        self._count += second == self._second
        self._latest = max(self._latest, key)
        self.last = line
        return line[found.end() :]

    def since_seconds(self) -> int | None:
        """How many seconds ago the next reading must begin; None for all of it."""
        if not self._second:
            return None
        then = datetime.fromisoformat(self._second.decode()).replace(tzinfo=UTC)
        return max(1, int(time.time() - then.timestamp()) + MARGIN_SECONDS)


class Log:
    """Reads the log of one container in a thread of its own and hands on its lines, a few thousand at a time.

    `ended` is set by whoever sees that the container has ended; `error` is why it cannot be read at present.
    """

    def __init__(self, cluster: Cluster, pod: str, hand: Callable[[bytes], None]) -> None:
        self.ended = threading.Event()
        self.closed = threading.Event()
        self.is_done = threading.Event()
        self.error: Refused | Away | None = None
        self.reconnects = 0
        self._cluster = cluster
        self._pod = pod
        self._hand = hand
        self._position = Position()
        self._stream: Stream | None = None
        self._has_more = False
        threading.Thread(target=self._run, name=f"log-{pod}", daemon=True).start()

    def close(self) -> None:
        """Read no more."""
        self.closed.set()
        self.ended.set()
        self.interrupt()

    def interrupt(self) -> None:
        """End the present connection: one that hangs would hide the last lines."""
        stream = self._stream
        if stream is not None:
            stream.close()

    def _run(self) -> None:
        pause = PAUSE_SECONDS
        left = TRIES_AFTER_END
        try:
            while left and not self.closed.is_set():
                left = TRIES_AFTER_END if self._has_more else left - self.ended.is_set()
                self._has_more = False
                try:
                    if self._read() and self._is_whole():
                        return
                    pause = PAUSE_SECONDS
                except Away as error:
                    self.error = error
                    pause = min(2 * pause, MAX_PAUSE_SECONDS)
                except Refused as error:
                    self.error = error
                    if not _may_pass(error):
                        return
                except Exception as error:
                    self.error = Away(f"{type(error).__name__}: {error}")
                    return
                self.reconnects += 1
                self.closed.wait(min(pause, 2) if self.ended.is_set() else pause)
        finally:
            self.is_done.set()

    def _read(self) -> bool:
        """Read until the stream ends by itself."""
        self._position.again()
        stream = self._cluster.log(self._pod, CONTAINER, follow=True, since_seconds=self._position.since_seconds())
        self._stream = stream
        rest = b""
        try:
            if self.closed.is_set():
                return False
            for data in stream:
                *lines, rest = (rest + data).split(b"\n")
                self._give(lines)
                rest = rest[:MAX_LINE_BYTES]
        finally:
            self._stream = None
            stream.close()
        self.error = None
        if rest and self.ended.wait(END_SECONDS):  # of a container that runs, the rest of the line is still to come
            self._give([rest])
        return True

    def _give(self, lines: list[bytes]) -> None:
        fresh = [text for line in lines if (text := self._position.take(line)) is not None]
        if fresh:
            self._has_more = True
            self._hand(b"\n".join(fresh) + b"\n")

    def _is_whole(self) -> bool:
        """Whether the container has ended and its last line was read."""
        if not self.ended.wait(END_SECONDS) or self.closed.is_set():
            return False
        last = self._cluster.last_line(self._pod, CONTAINER).rstrip(b"\n")
        return not last or last == self._position.last.rstrip(b"\n")


def _may_pass(error: Refused) -> bool:
    """Whether the log may be there later: the container is just being made."""
    return error.status == 400 and ("ContainerCreating" in error.message or "waiting to start" in error.message)
