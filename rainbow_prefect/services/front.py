"""The one ASGI middleware of a service: ids, limits, tokens, metrics, log, security headers, and the untyped endpoints.

An endpoint without types is answered here: its path is looked up in a dictionary, its body decoded, its function called.
Only what has types, or a path with parameters, goes on to FastAPI.
"""

from __future__ import annotations

import asyncio
import gzip
import inspect
import itertools
import os
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from .answers import Answer, Refused, decoded, has_body, kind_of_piece, piece, problem
from .metrics import OTHER
from .routes import Route, request_id

if TYPE_CHECKING:
    from .running import Running

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

CALL = "rainbow.call"
"""The key of a scope under which the call is found."""

SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
OPEN = frozenset({"/healthz", "/readyz", "/favicon.ico"})
"""Paths of ours that need no token: they tell nothing."""

_OWN_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
_GZIP_BYTES = 1_024
_GZIP_THREAD_BYTES = 65_536
_GONE = 499
"""The status in the log of a request whose client went away, as nginx writes it."""


class Gone(Exception):
    """The client went away."""


class Call:
    """One request: what is known of it, and how it is answered."""

    __slots__ = (
        "begun",
        "headers",
        "id",
        "is_begun",
        "method",
        "path",
        "receive",
        "route",
        "running",
        "scope",
        "sent",
        "size",
        "status",
    )

    def __init__(self, running: Running, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        self.running = running
        self.scope = scope
        self.receive = receive
        self.sent = send
        self.begun = time.perf_counter()
        self.method: str = scope["method"]
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        self.path = path[len(root) :] if root and path.startswith(root) else path
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.route: Route | None = None
        self.status = 0
        self.size = 0
        self.is_begun = False
        given = self.headers.get(b"x-request-id")
        self.id = given.decode() if given is not None and _OWN_ID.match(given) else running.next_id()

    async def body(self) -> bytes:
        """The body of the request.

        Raises:
            Refused: it is larger than it may be.
            Gone: the client went away before its end.
        """
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise Gone
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            self._within(len(body))
            return body
        parts, size = [body], len(body)
        while message.get("more_body"):
            self._within(size)
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        self._within(size)
        return b"".join(parts)

    async def limited(self) -> Message:
        """`receive` for FastAPI, which reads the body itself."""
        message = await self.receive()
        if message["type"] == "http.request":
            self.size += len(message.get("body", b""))
            try:
                self._within(self.size)
            except Refused as refused:  # of other errors FastAPI makes one of its own
                raise HTTPException(413, refused.detail, {"connection": "close"}) from None
        return message

    def _within(self, size: int) -> None:
        limit = self.running.definition.max_body_bytes
        if size > limit:
            raise Refused(413, f"the body is larger than {limit} bytes", headers=((b"connection", b"close"),))

    async def send(self, message: Message) -> None:
        """`send` for what others answer: the headers that all answers have are added."""
        if message["type"] == "http.response.start":
            self.is_begun = True
            self.status = message["status"]
            own = {name for name, _ in message["headers"]}
            extra = [one for one in SECURITY if one[0] not in own]
            message["headers"] = [*message["headers"], (b"x-request-id", self.id.encode()), *extra]
        await self.sent(message)

    async def finish(self, made: Answer) -> None:
        """Send an answer."""
        self.status = made.status
        headers = [(b"x-request-id", self.id.encode()), *SECURITY]
        own = made.headers or []
        if own:
            names = {name for name, _ in own}
            headers = [one for one in headers if one[0] not in names]
            headers += [one for one in own if one[0] not in (b"content-length", b"transfer-encoding")]
            kind = None if b"content-type" in names else made.kind
        else:
            kind = made.kind
        if made.stream is not None:
            await self._stream(made, headers, kind)
            return
        body = made.body
        if kind is not None:
            headers.append((b"content-type", kind))
        if self.running.definition.gzip and len(body) >= _GZIP_BYTES and self._takes_gzip(own):
            body = await _squeezed(body)
            headers += [(b"content-encoding", b"gzip"), (b"vary", b"accept-encoding")]
        if has_body(made.status):
            headers.append((b"content-length", b"%d" % len(body)))
        else:
            body = b""
        self.is_begun = True
        await self.sent({"type": "http.response.start", "status": made.status, "headers": headers})
        await self.sent({"type": "http.response.body", "body": body})

    def _takes_gzip(self, own: list[tuple[bytes, bytes]]) -> bool:
        is_done = any(name == b"content-encoding" for name, _ in own)
        return not is_done and b"gzip" in self.headers.get(b"accept-encoding", b"")

    async def _stream(self, made: Answer, headers: list[tuple[bytes, bytes]], kind: bytes | None) -> None:
        """Send what a generator gives, until its end or until the client is gone; then the generator is closed."""
        parts = _parts(made.stream, self.running)
        watch = asyncio.ensure_future(self._gone())
        begun = False
        try:
            async for value in parts:
                data = piece(value)
                if not begun:
                    begun = True
                    has_own = any(name == b"content-type" for name, _ in headers)
                    typed = [] if has_own else [(b"content-type", kind or kind_of_piece(value))]
                    start = {"type": "http.response.start", "status": made.status, "headers": [*headers, *typed]}
                    self.is_begun = True
                    await self.sent(start)
                await self.sent({"type": "http.response.body", "body": data, "more_body": True})
                if watch.done():
                    raise Gone
            if not begun:
                await self.sent({"type": "http.response.start", "status": made.status, "headers": headers})
            await self.sent({"type": "http.response.body", "body": b""})
        except Gone:
            self.status = _GONE
        except Exception as error:
            if not begun:
                raise
            # the answer has begun: the connection is closed without an end, so that the client knows
            self.running.log.failure("the function failed in its stream", error, request_id=self.id, path=self.path)
            self.status = 500
        finally:
            watch.cancel()
            with suppress(Exception):
                await parts.aclose()

    async def _gone(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass


async def _squeezed(body: bytes) -> bytes:
    if len(body) < _GZIP_THREAD_BYTES:
        return gzip.compress(body, 5)
    return await asyncio.to_thread(gzip.compress, body, 5)


async def _parts(stream: Any, running: Running) -> Any:
    """The parts of a generator; one that is not async runs in a thread."""
    if inspect.isasyncgen(stream):
        try:
            async for one in stream:
                yield one
        finally:
            await stream.aclose()
        return
    loop = asyncio.get_running_loop()
    end = object()
    try:
        while (one := await loop.run_in_executor(running.pool, next, stream, end)) is not end:
            yield one
    finally:
        with suppress(ValueError):  # it is at work in its thread
            stream.close()


class Front:
    """The middleware: every request comes in and every answer goes out here."""

    def __init__(self, app: Any, running: Running) -> None:
        self.app = app
        self.running = running

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        running = self.running
        if not running.is_started:
            await running.start()
        call = Call(running, scope, receive, send)
        route = running.route(call.path)
        call.route = route
        numbers = route.numbers if route is not None else running.others
        numbers.in_flight += 1
        running.in_flight += 1
        token = request_id.set(call.id)
        try:
            await self._answered(call)
        except Gone:
            call.status = _GONE
        except asyncio.CancelledError:
            call.status = call.status or _GONE
            raise
        finally:
            request_id.reset(token)
            numbers.in_flight -= 1
            running.in_flight -= 1
            seconds = time.perf_counter() - call.begun
            method = call.method if call.method in _METHODS else OTHER
            numbers.answered(method, call.status, seconds)
            if call.path not in OPEN:
                client = scope.get("client")
                running.log.request(
                    request_id=call.id,
                    method=call.method,
                    path=call.path,
                    status=call.status,
                    ms=round(seconds * 1000, 3),
                    client=client[0] if client else None,
                )

    async def _answered(self, call: Call) -> None:
        try:
            await self._answer(call)
        except Refused as refused:
            await call.finish(problem(refused, call.path, call.id))
        except (Gone, asyncio.CancelledError):
            raise
        except Exception as error:
            if call.is_begun:
                raise
            await call.finish(problem(self.running.failed(error, call), call.path, call.id))

    async def _answer(self, call: Call) -> None:
        running, route = self.running, call.route
        definition = running.definition
        if route is None:
            await self._own(call)
            return
        if call.method not in route.methods:
            if call.method == "OPTIONS":
                await call.finish(Answer(204, None, b"", [(b"allow", route.allow)]))
                return
            raise Refused(405, f"{call.method} is not allowed here", headers=((b"allow", route.allow),))
        if running.guards:
            self._guard(call, route)
        length = call.headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length[:20]) > definition.max_body_bytes:
            call._within(int(length[:20]))
        if not route.is_raw:
            await self._typed(call)
            return
        data: Any = None
        if route.takes_body:
            body = await call.body()
            data = decoded(body) if body else None
        value = await route.raw(lambda: data)
        await running.respond(call, value, route.status)

    def _guard(self, call: Call, route: Route) -> None:
        running = self.running
        client = call.scope.get("client")
        who = client[0] if client else ""
        if running.rate is not None:
            running.rate.check(who)
        if route.needs_token:
            self._token(call, route.scope)
        limit = running.definition.max_in_flight
        if limit is not None and running.in_flight > limit:
            raise Refused(503, f"{limit} requests are being answered already", headers=((b"retry-after", b"1"),))

    def _token(self, call: Call, scope: str | None) -> None:
        tokens = self.running.tokens
        assert tokens is not None
        tokens.check(call.headers.get(b"authorization") or call.headers.get(b"x-api-key", b""), scope)

    async def _typed(self, call: Call) -> None:
        """FastAPI's part; HEAD is GET whose body the server leaves out."""
        scope = {**call.scope, CALL: call}
        if call.method == "HEAD":
            scope["method"] = "GET"
        await self.app(scope, call.limited, call.send)

    async def _own(self, call: Call) -> None:
        """What every service has."""
        running = self.running
        if call.path not in running.own:
            raise Refused(404, f"there is no endpoint '{call.path}'")
        if call.method not in ("GET", "HEAD"):
            text = f"{call.method} is not allowed here"
            raise Refused(405, text, headers=((b"allow", b"GET, HEAD"),))
        if running.tokens is not None and call.path not in OPEN:
            self._token(call, None)
        made = running.own_answer(call.path)
        if made is None:
            await self._typed(call)
        else:
            await call.finish(made)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


class Ids:
    """Ids of requests: what tells this process from others, and a count."""

    def __init__(self) -> None:
        self._head = os.urandom(6).hex()
        self._count = itertools.count(1)

    def __call__(self) -> str:
        return f"{self._head}-{next(self._count):08x}"
