"""What a command prints, cut into lines as it comes; bounded whatever it prints."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

LINE_BYTES = 16 * 1024
"""A longer line is cut there; the rest is counted."""
TAIL_LINES = 20
TAIL_CHARACTERS = 500


class Lines:
    """Feeds `write` with one line after the other: split at LF, CRLF and CR (progress bars), UTF-8, NUL replaced.

    After `limit` lines nothing is written any more, only counted; `tail` always has the last ones.
    """

    def __init__(self, write: Callable[[str], None], *, limit: int) -> None:
        self.count = 0
        self.size_bytes = 0
        self._write = write
        self._limit = limit
        self._tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self._rest = b""
        self._cut = 0
        self._after_cr = False
        self._is_told = False

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines that are not empty."""
        texts = (text(line[: 4 * TAIL_CHARACTERS]).rstrip() for line in self._tail)
        return tuple(line[:TAIL_CHARACTERS] for line in texts if line)

    def feed(self, data: bytes) -> None:
        """Take what was just read."""
        self.size_bytes += len(data)
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
        if data:
            self._after_cr = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in data:
            self._keep(data)
            return
        first, *lines = data.split(b"\n")
        self._keep(first)
        self._end()
        self._rest = b""
        last = lines.pop() if lines else b""
        self._take(lines)
        self._keep(last)

    def close(self) -> None:
        """The last line may have no newline."""
        if self._rest or self._cut:
            self._end()

    def _keep(self, data: bytes) -> None:
        room = LINE_BYTES - len(self._rest)
        self._rest += data[:room]
        self._cut += max(0, len(data) - room)

    def _end(self) -> None:
        line, cut = self._rest, self._cut
        self._rest, self._cut = b"", 0
        if cut:
            line += f" ... ({cut} more bytes in this line)".encode()
        self._take([line])

    def _take(self, lines: list[bytes]) -> None:
        self._tail.extend(lines)
        room = self._limit - self.count
        self.count += len(lines)
        if room > 0:
            for line in lines[:room]:
                self._write(text(line if len(line) <= LINE_BYTES + 64 else _short(line)))
        if self.count > self._limit and not self._is_told:
            self._is_told = True
            self._write(f"... the log ends here: more than {self._limit} lines; later ones are not kept")


def _short(line: bytes) -> bytes:
    return line[:LINE_BYTES] + f" ... ({len(line) - LINE_BYTES} more bytes in this line)".encode()


def text(line: bytes) -> str:
    """Bytes as text that every database can store."""
    return line.decode("utf-8", "replace").replace("\0", "\ufffd")
