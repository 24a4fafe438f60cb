"""The front of a service with several replicas: one address, requests to whichever replica has the least to do.

    python -m rainbow_prefect.services.proxy                 serve on port 8000
    python -m rainbow_prefect.services.proxy --set JSON      tell the one that serves here its replicas: ["10.0.0.2:8000", ...]

It runs in the image of the service itself, which has all it needs: no other image must be fetched, and it knows requests,
not bytes, so that replicas can be exchanged between two of them. A replica that is no longer named gets no new request;
what it has begun is finished. A request that no replica has seen yet is tried elsewhere; one that was sent is sent once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import h11
import uvicorn

from .protocol import HEAD_BYTES, protocol

CONTROL = "/tmp/rainbow-proxy"  # noqa: S108  in a container of its own
PORT = 8000
TRIES = 4
IDLE_SECONDS = 5.0
"""A connection that was idle longer may be closed by the replica at any moment: it keeps them for 15 s."""

_CONNECT_SECONDS = 3.0
_CHUNK = 65_536
_AGAIN_SECONDS = 0.2
_HOPS = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"}
)
_ONCE_MORE = frozenset({"GET", "HEAD", "OPTIONS"})

Message = MutableMapping[str, Any]


class Unsent(Exception):
    """No replica has seen the request."""


class Link:
    """A connection to a replica."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.state = h11.Connection(h11.CLIENT)
        self.since = time.monotonic()
        self.is_used = False

    async def next(self) -> Any:
        """The next event of the answer."""
        while (event := self.state.next_event()) is h11.NEED_DATA:
            self.state.receive_data(await self.reader.read(_CHUNK))
        return event

    async def send(self, event: Any) -> None:
        data = self.state.send(event)
        if data:
            self.writer.write(data)
            await self.writer.drain()

    def close(self) -> None:
        self.writer.close()


class Replica:
    """One replica: what it has to do, and connections that wait."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self.in_flight = 0
        self.failed_at = -10.0
        self.is_named = True
        self._idle: deque[Link] = deque()

    async def link(self, *, fresh: bool) -> Link:
        """A connection.

        Raises:
            Unsent: there is none to be had.
        """
        while self._idle and not fresh:
            link = self._idle.pop()
            if time.monotonic() - link.since < IDLE_SECONDS and not link.reader.at_eof():
                return link
            link.close()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return Link(*await asyncio.open_connection(self.host, self.port, limit=4 * _CHUNK))
        except (OSError, TimeoutError) as error:
            self.failed_at = time.monotonic()
            raise Unsent from error

    def keep(self, link: Link) -> None:
        """Keep a connection for the next request, if it can be."""
        is_done = link.state.our_state is h11.DONE and link.state.their_state is h11.DONE
        if not is_done or not self.is_named:
            link.close()
            return
        link.state.start_next_cycle()
        link.since = time.monotonic()
        link.is_used = True
        self._idle.append(link)

    def forget(self) -> None:
        """It is not named any more."""
        self.is_named = False
        while self._idle:
            self._idle.pop().close()


class Proxy:
    """An ASGI app that passes requests on."""

    def __init__(self) -> None:
        self.replicas: list[Replica] = []

    def name(self, addresses: Sequence[str]) -> None:
        """The replicas from now on."""
        known = {one.address: one for one in self.replicas}
        for address, one in known.items():
            if address not in addresses:
                one.forget()
        self.replicas = [known.get(address) or Replica(address) for address in addresses]

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            return
        request = _request(scope)
        first = await receive()
        if first["type"] == "http.disconnect":
            return
        tried: set[str] = set()
        for attempt in range(TRIES):
            replica = self._least(tried)
            if replica is None:
                await asyncio.sleep(_AGAIN_SECONDS)
                tried.clear()
                continue
            tried.add(replica.address)
            replica.in_flight += 1
            try:
                await self._pass(replica, request, scope, first, receive, send, fresh=attempt > 0)
                return
            except Unsent:
                continue
            finally:
                replica.in_flight -= 1
        await _say(send, 503, "no replica answers", [(b"retry-after", b"1")])

    def _least(self, tried: set[str]) -> Replica | None:
        now = time.monotonic()
        found = [one for one in self.replicas if one.address not in tried]
        well = [one for one in found if now - one.failed_at > 1.0]
        return min(well or found, key=lambda one: one.in_flight, default=None)

    async def _pass(
        self,
        replica: Replica,
        request: h11.Request,
        scope: Message,
        first: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
        *,
        fresh: bool,
    ) -> None:
        link = await replica.link(fresh=fresh)
        begun = False
        try:
            try:
                await link.send(request)
                with contextlib.suppress(OSError):  # it may have answered before it had all
                    await _send_body(link, first, receive)
                event = await link.next()
                while isinstance(event, h11.InformationalResponse):
                    event = await link.next()
            except (OSError, h11.RemoteProtocolError):
                event = None
            if not isinstance(event, h11.Response):
                is_whole = not first.get("more_body") and not first.get("body")
                if is_whole and scope["method"] in _ONCE_MORE:
                    raise Unsent
                await _say(send, 502, "the replica ended before it answered", [])
                return
            headers = [(name, value) for name, value in event.headers if name not in _HOPS]
            begun = True
            await send({"type": "http.response.start", "status": event.status_code, "headers": headers})
            while isinstance(event := await link.next(), h11.Data):
                await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
            if isinstance(event, h11.EndOfMessage):
                await send({"type": "http.response.body", "body": b""})
                replica.keep(link)
                link = None  # type: ignore[assignment]
        except (OSError, h11.RemoteProtocolError):
            if not begun:
                raise
        finally:
            if link is not None:
                link.close()


async def _send_body(link: Link, message: Message, receive: Callable[[], Awaitable[Message]]) -> None:
    while True:
        if body := message.get("body"):
            await link.send(h11.Data(data=body))
        if not message.get("more_body"):
            break
        message = await receive()
        if message["type"] == "http.disconnect":
            raise h11.RemoteProtocolError("the client went away")
    await link.send(h11.EndOfMessage())


def _request(scope: Message) -> h11.Request:
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    headers = [(name, value) for name, value in scope["headers"] if name not in _HOPS and name != b"x-forwarded-for"]
    names = {name for name, _ in headers}
    has_body = any(name == b"transfer-encoding" for name, _ in scope["headers"])
    if has_body:
        headers = [one for one in headers if one[0] != b"content-length"] + [(b"transfer-encoding", b"chunked")]
    if b"host" not in names:
        headers.append((b"host", b"service"))
    client = scope.get("client")
    if client:
        headers.append((b"x-forwarded-for", client[0].encode()))
    return h11.Request(method=scope["method"], target=target, headers=headers)


async def _say(
    send: Callable[[Message], Awaitable[None]], status: int, text: str, headers: list[tuple[bytes, bytes]]
) -> None:
    body = json.dumps({"type": "about:blank", "status": status, "detail": text}).encode()
    headers = [*headers, (b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Server(uvicorn.Server):
    """Listens for words about its replicas, too."""

    def __init__(self, config: uvicorn.Config, proxy: Proxy) -> None:
        super().__init__(config)
        self.proxy = proxy

    async def startup(self, sockets: Any = None) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(CONTROL)  # noqa: PTH108
        with contextlib.suppress(OSError, ValueError), open(f"{CONTROL}.json") as file:  # noqa: PTH123  as before a restart
            self.proxy.name(json.load(file))
        self._control = await asyncio.start_unix_server(self._heard, CONTROL)
        await super().startup(sockets=sockets)

    async def _heard(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        with contextlib.suppress(ValueError):
            addresses = json.loads(line)
            self.proxy.name(addresses)
            with open(f"{CONTROL}.json", "w") as file:  # noqa: PTH123  a hundred bytes
                json.dump(addresses, file)
            writer.write(json.dumps(addresses).encode())
            await writer.drain()
        writer.close()

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for one in [one for one in self.server_state.connections if one.is_late(now)]:  # type: ignore[union-attr]
                one.close()  # type: ignore[union-attr]
        return await super().on_tick(counter)


def serve() -> None:
    """Serve until SIGTERM."""
    proxy = Proxy()
    config = uvicorn.Config(
        proxy,
        host="0.0.0.0",  # noqa: S104  a container is reached from outside
        port=PORT,
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,
        ws="none",
        lifespan="off",
        http=protocol(),
        proxy_headers=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=30,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )
    _Server(config, proxy).run()


async def tell(addresses: str) -> str:
    """Tell the proxy of this container its replicas; gives what it took."""
    reader, writer = await asyncio.open_unix_connection(CONTROL)
    writer.write(f"{addresses}\n".encode())
    await writer.drain()
    found = await reader.read()
    writer.close()
    return found.decode()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--set"]:
        print(asyncio.run(tell(sys.argv[2])))  # noqa: T201
    else:
        serve()
