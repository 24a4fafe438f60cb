"""What a container writes, as the engine sends it: frames of two streams, cut wherever they happened to be read."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from ._lines import Lines

MAGIC = b"\x00rainbow "
"""What comes first in the second stream when it carries our own data, `<MAGIC><word> <size>\\n` and the bytes."""

LARGE_BYTES = 1 << 20
_HEADER = 8
_SECOND = 2
_PARTIAL_BYTES = 64 * 1024
_HEAD_BYTES = 200


class Frames:
    """Takes frames apart: `first` and `second` are fed with what is in them, many frames at once.

    Source: the section "Stream format" of the engine's API, `POST /containers/{id}/attach`.
    """

    def __init__(self, first: Text, second: Text | Channel) -> None:
        self._first = first
        self._second = second
        self._rest = b""
        self._left = 0
        self._stream = 0

    def feed(self, data: bytes) -> None:
        """Take what was just read."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, size = 0, len(data)
        found: list[bytes] = []
        kind = self._stream
        while at < size:
            if not self._left:
                if size - at < _HEADER:
                    break
                if data[at] != kind:
                    self._give(kind, found)
                    found, kind = [], data[at]
                self._left = int.from_bytes(data[at + 4 : at + _HEADER], "big")
                at += _HEADER
            taken = data[at : at + self._left]
            found.append(taken)
            at += len(taken)
            self._left -= len(taken)
        self._rest = data[at:]
        self._stream = kind
        self._give(kind, found)

    def _give(self, kind: int, found: list[bytes]) -> None:
        data = b"".join(found)
        if data:
            (self._second if kind == _SECOND else self._first).feed(data)

    def close(self) -> None:
        """Nothing comes any more."""
        self._first.close()
        self._second.close()


class Text:
    """One of two streams that share the same lines: gives on whole lines only, so that they do not run into each other."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._rest = b""

    def feed(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        cut = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if not cut and len(data) > _PARTIAL_BYTES:
            cut = len(data)
        self._rest = data[cut:]
        if cut:
            self._lines.feed(data[:cut])

    def close(self) -> None:
        if self._rest:
            self._lines.feed(self._rest)
            self._lines.close()
            self._rest = b""


class Channel:
    """The second stream when our own side in the container may use it: for lines until `MAGIC` comes, then for data.

    `word` and `size` are what was announced; the data is in `data`, or in `file` when it is more than 1 MiB.
    """

    def __init__(self, text: Text, path: Path) -> None:
        self.word = ""
        self.size = -1
        self.data = b""
        self.path = path
        self.got = 0
        self._text = text
        self._head: bytes | None = b""
        self._file: IO[bytes] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all that was announced has come."""
        return self.size >= 0 and self.got == self.size

    @property
    def is_file(self) -> bool:
        return self.size > LARGE_BYTES

    def feed(self, data: bytes) -> None:
        if self.size >= 0:
            self._take(data)
        elif self._head is None:
            self._text.feed(data)
        else:
            self._begin(self._head + data)

    def _begin(self, head: bytes) -> None:
        line, newline, rest = head.partition(b"\n")
        if not head.startswith(MAGIC[: len(head)]) or (not newline and len(head) > _HEAD_BYTES):
            self._head = None
            self._text.feed(head)
        elif not newline:
            self._head = head
        else:
            word, _, size = line.removeprefix(MAGIC).decode("ascii", "replace").partition(" ")
            self.word, self.size = word, int(size) if size.strip().isdigit() else 0
            self._take(rest)

    def _take(self, data: bytes) -> None:
        self.got += len(data)
        if not self.is_file:
            self.data += data
            return
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("wb")
        self._file.write(data)

    def close(self) -> None:
        if self._head:
            self._text.feed(self._head)
        if self._file is not None:
            self._file.close()
            self._file = None
        self._text.close()
