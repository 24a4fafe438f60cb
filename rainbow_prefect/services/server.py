"""One process that serves one service with uvicorn, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from ..errors import RunError
from .application import create_service
from .definition import Definition
from .log import Log
from .protocol import HEAD_BYTES, protocol
from .running import Running

GRACE_SECONDS = 30
KEEP_ALIVE_SECONDS = 15
BACKLOG = 2_048
_TICKS = 10
"""uvicorn looks around ten times a second; the deadlines are looked at once."""

_DROPPED = ("Invalid HTTP request received.", "Unsupported upgrade request.", "No supported WebSocket library")


def bound(host: str, port: int) -> socket.socket:
    """A socket that is bound and does not listen yet.

    Raises:
        RunError: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError as error:
        made.close()
        reason = (error.strerror or str(error)).lower()
        raise RunError(f"cannot listen on {host}:{port}: {reason}; choose another port with --port") from None
    made.set_inheritable(True)
    return made


def serve(
    definition: Definition, sock: socket.socket, *, tell: Callable[[], None] = lambda: None, parent: int | None = None
) -> None:
    """Serve until SIGINT or SIGTERM, then finish what is in flight; `tell` is called once it is ready.

    `parent` is a file whose end means that nobody looks after this process any more: it ends, too.

    Raises:
        RunError: the service cannot be started.
    """
    app = create_service(definition)
    running: Running = app.state.rainbow
    _log_to(running.log)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        http=protocol(),
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=HEAD_BYTES,
        backlog=BACKLOG,
    )
    server = _Server(config, running, tell, parent)
    server.run(sockets=[sock])
    if server.failure is not None:
        raise server.failure


class _Server(uvicorn.Server):
    """Starts the service before it listens, closes slow connections, ends without raising its signal again."""

    def __init__(self, config: uvicorn.Config, running: Running, tell: Callable[[], None], parent: int | None) -> None:
        super().__init__(config)
        self.running = running
        self.tell = tell
        self.parent = parent
        self.failure: RunError | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await self.running.start()
        except RunError as error:
            self.failure = error
            self.should_exit = True
            self.running.pool.shutdown(wait=False, cancel_futures=True)
            return
        await super().startup(sockets=sockets)
        if self.parent is not None:
            asyncio.get_running_loop().add_reader(self.parent, self._look_at_parent)
        self.tell()

    def _look_at_parent(self) -> None:
        assert self.parent is not None
        if not os.read(self.parent, 4096):
            asyncio.get_running_loop().remove_reader(self.parent)
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.running.is_ending = True
        await super().shutdown(sockets=sockets)

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS == 0:
            now = asyncio.get_running_loop().time()
            for one in [one for one in self.server_state.connections if one.is_late(now)]:  # type: ignore[union-attr]
                one.close()  # type: ignore[union-attr]
            self.running.metrics.keep()
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _ToLog(logging.Handler):
    """uvicorn's warnings as lines of the service's log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if not text.startswith(_DROPPED):
            error: Any = record.exc_info[1] if record.exc_info else None
            self._log.failure(text, error)


def _log_to(log: Log) -> None:
    logger = logging.getLogger("uvicorn.error")
    logger.handlers = [_ToLog(log)]
    logger.propagate = False
    logger.setLevel(logging.WARNING)
