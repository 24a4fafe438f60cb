"""uvicorn's HTTP protocol with the limits it lacks: a request arrives in time, and its headers are not endless.

Each connection has a deadline that the server looks at once a second; a slow one is closed, whoever sends it byte by byte.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

HEAD_SECONDS = 10.0
BODY_SECONDS = 60.0
HEAD_BYTES = 65_536
CONNECTIONS = 8_192

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain\r\n"
    b"content-length: 33\r\nconnection: close\r\n\r\nthe headers are larger than 64 KB"
)


class Limits:
    """What both protocols share."""

    deadline: float = math.inf
    transport: asyncio.Transport
    connections: set[Any]
    loop: asyncio.AbstractEventLoop

    def is_late(self, now: float) -> bool:
        """Whether what was to arrive did not arrive in time."""
        return now > self.deadline

    def close(self) -> None:
        """End the connection at once."""
        self.transport.abort()

    def _is_one_too_many(self) -> bool:
        if len(self.connections) <= CONNECTIONS:
            return False
        self.transport.abort()
        return True


def _with_httptools() -> type[asyncio.Protocol]:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class HttpTools(Limits, HttpToolsProtocol):
        """The quick one."""

        in_head = False
        head_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.deadline = self.loop.time() + HEAD_SECONDS
            self._is_one_too_many()

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            super().data_received(data)
            if self.in_head:
                self.head_bytes += len(data)
                self._look_at_head()
            elif self.deadline == math.inf and (self.cycle is None or self.cycle.response_complete):
                self.deadline = self.loop.time() + HEAD_SECONDS  # something came that begins no request

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.in_head, self.head_bytes = True, 0
            self.deadline = self.loop.time() + HEAD_SECONDS

        def on_header(self, name: bytes, value: bytes) -> None:
            self.head_bytes += len(name) + len(value)
            if self.head_bytes <= HEAD_BYTES:
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self.in_head = False
            self._look_at_head()
            if self.transport.is_closing():
                return
            super().on_headers_complete()
            self.deadline = self.loop.time() + BODY_SECONDS

        def on_body(self, body: bytes) -> None:
            if self.cycle is not None:
                super().on_body(body)

        def on_message_complete(self) -> None:
            self.deadline = math.inf
            if self.cycle is not None:
                super().on_message_complete()

        def _look_at_head(self) -> None:
            if self.head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()

    return HttpTools


def _with_h11() -> type[asyncio.Protocol]:
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class H11(Limits, H11Protocol):
        """The one that needs nothing compiled."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.deadline = self.loop.time() + HEAD_SECONDS
            self._is_one_too_many()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
                self.deadline = math.inf
            elif self.deadline == math.inf:
                self.deadline = self.loop.time() + (HEAD_SECONDS if self.conn.their_state is h11.IDLE else BODY_SECONDS)

    return H11


def protocol() -> type[asyncio.Protocol]:
    """The protocol of httptools where that is installed, else that of h11."""
    try:
        return _with_httptools()
    except ImportError:
        return _with_h11()
