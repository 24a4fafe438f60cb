"""Prefect's own server, with write transactions that wait for each other on SQLite instead of failing.

Prefect begins most transactions as DEFERRED: two that read and then write at the same time cannot both go on, and one
answers 503. IMMEDIATE takes the write lock first and waits for it. Started as
`python -m rainbow_prefect._prefect_server SOCKET [PARENT_PID]` with the number of an inherited, bound socket, so that
nobody else can have its port meanwhile; with a parent it ends when that process is gone.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any


def create_app() -> Any:
    """The ASGI app of a full Prefect server: API, UI, services."""
    from prefect.server.api import server
    from prefect.server.database import configurations

    @asynccontextmanager
    async def begin_transaction(self: Any, session: Any, with_for_update: bool = False) -> AsyncGenerator[Any, None]:
        token = configurations.SQLITE_BEGIN_MODE.set("IMMEDIATE")
        try:
            async with session.begin() as transaction:
                yield transaction
        finally:
            configurations.SQLITE_BEGIN_MODE.reset(token)

    configurations.AioSqliteConfiguration.begin_transaction = begin_transaction  # type: ignore[method-assign]
    _remember_timezones()
    return server.create_app(final=True)


def _remember_timezones() -> None:
    """Prefect looks through the whole time zone database for each schedule that it reads: 10 ms, twice for each deployment."""
    from functools import cache

    from prefect._internal.schemas import validators

    if hasattr(validators, "get_timezones"):
        validators.get_timezones = cache(validators.get_timezones)


def _end_with(parent: int) -> None:
    while True:
        try:
            os.kill(parent, 0)
        except OSError:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        time.sleep(2)


def main(argv: list[str]) -> None:
    import uvicorn

    if len(argv) > 1:
        threading.Thread(target=_end_with, args=(int(argv[1]),), daemon=True).start()
    config = uvicorn.Config(
        create_app(),
        log_level="warning",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,  # an open browser page would hold it for ever
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(argv[0]))])


if __name__ == "__main__":
    main(sys.argv[1:])
