"""A service in one process: its routes, what `on_start` returned, its limits and numbers."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from . import code
from .answers import TEXT, Answer, Refused, answer, json_bytes
from .definition import Definition
from .front import Call, Ids
from .guards import Rate, Tokens
from .log import Log
from .metrics import OTHER, Metrics
from .routes import Route, pattern_of

if TYPE_CHECKING:
    from fastapi import FastAPI

SHARED = "RAINBOW_SERVICE_FOLDER"
"""The variable with the folder that the workers of a service share."""


class Running:
    """All that the requests to one service share."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        shared = os.environ.get(SHARED)
        self.metrics = Metrics(definition.service, Path(shared) if shared else None)
        self.others = self.metrics.of(OTHER)
        self.log = Log(definition.service, [*definition.hidden, *(one.value for one in definition.auth)])
        self.next_id = Ids()
        self.tokens = Tokens(definition.auth) if definition.auth else None
        self.rate = Rate(definition.rate_limit) if definition.rate_limit else None
        self.guards = bool(definition.auth or definition.rate_limit or definition.max_in_flight)
        self.pool = ThreadPoolExecutor(definition.threads, thread_name_prefix=definition.service)
        self.in_flight = 0
        self.is_started = False
        self.is_ending = False
        self.resources: Mapping[str, Any] = {}
        self.own: frozenset[str] = frozenset()
        self._lock = asyncio.Lock()
        self._exact: dict[str, Route] = {}
        self._patterns: list[tuple[Any, Route]] = []
        os.environ.update(definition.env)
        self.routes = [self._found(index) for index in range(len(definition.endpoints))]
        self._on_start = self._hook(definition.on_start, "on_start")
        self._on_stop = self._hook(definition.on_stop, "on_stop")
        self.app: FastAPI | None = None

    def _found(self, index: int) -> Route:
        one = self.definition.endpoints[index]
        function = code.find(self.definition, one.module, one.function, f"endpoint '{one.endpoint}'")
        return Route(one, function, self.definition, self.metrics.of(one.endpoint))

    def _hook(self, written: str | None, what: str) -> Callable[..., Any] | None:
        if written is None:
            return None
        module, _, function = written.partition(":")
        return code.find(self.definition, module, function, what)

    # -- begin and end

    async def start(self) -> None:
        """Call `on_start` and make the routes of what it returned; once.

        Raises:
            RunError: it failed, or a function asks for what there is not.
        """
        async with self._lock:
            if self.is_started:
                return
            if self._on_start is not None:
                self.resources = await self._set_up(self._on_start)
            from .typed import add

            assert self.app is not None
            for route in self.routes:
                add(self.app, route, self)
                if self.parameters_in(route):
                    self._patterns.append((pattern_of(route.path), route))
                else:
                    self._exact[route.path] = route
            self.own = frozenset({"/healthz", "/readyz", "/metrics", "/favicon.ico", *_documents(self.definition)})
            self.is_started = True

    @staticmethod
    def parameters_in(route: Route) -> bool:
        """Whether the path of a route has parameters."""
        return bool(route.parameters)

    async def _set_up(self, function: Callable[..., Any]) -> Mapping[str, Any]:
        what = f"service '{self.definition.service}': on_start '{self.definition.on_start}'"
        try:
            found: Any = await self._hooked(function, {})
        except Exception as error:
            self.log.failure(f"{what} failed", error)
            raise RunError(f"{what} failed: {type(error).__name__}: {self.log.mask(str(error))}") from error
        if found is None:
            return {}
        if not isinstance(found, Mapping):
            raise RunError(
                f"{what} returned a {type(found).__name__}; return a dictionary: its keys are the names by which "
                "functions ask for its values"
            )
        return {str(key): value for key, value in found.items()}

    async def stop(self) -> None:
        """Call `on_stop`, which is given what it asks for of what `on_start` returned."""
        self.is_ending = True
        if self._on_stop is not None and self.is_started:
            try:
                await self._hooked(self._on_stop, self.resources)
            except Exception as error:
                self.log.failure(f"on_stop '{self.definition.on_stop}' failed", error)
        self.metrics.keep()
        self.log.flush()
        self.pool.shutdown(wait=False, cancel_futures=True)

    async def _hooked(self, function: Callable[..., Any], given: Mapping[str, Any]) -> Any:
        names = inspect.signature(function).parameters
        kwargs = {name: value for name, value in given.items() if name in names}
        if inspect.iscoroutinefunction(function):
            return await function(**kwargs)
        return await asyncio.get_running_loop().run_in_executor(self.pool, lambda: function(**kwargs))

    # -- requests

    def route(self, path: str) -> Route | None:
        """The endpoint of a path."""
        found = self._exact.get(path)
        if found is not None or not self._patterns:
            return found
        return next((route for pattern, route in self._patterns if pattern.match(path)), None)

    async def respond(self, call: Call, value: Any, status: int | None) -> None:
        """Answer with what a function returned; a response of FastAPI or Starlette sends itself."""
        if hasattr(value, "render") and callable(value):
            await value({**call.scope}, call.receive, call.send)
            return
        await call.finish(answer(value, status))

    def failed(self, error: Exception, call: Call) -> Refused:
        """What is told of an error of a function: nothing but where to look; the log has it all."""
        told = refusal(error)
        if told is not None:
            return told
        what = "the function failed" if call.route is not None else "the service failed"
        self.log.failure(what, error, request_id=call.id, method=call.method, path=call.path)
        return Refused(500, f"{what}; the log has the reason under this request id")

    def own_answer(self, path: str) -> Answer | None:
        """The answer of a path of ours; None: FastAPI has it."""
        match path:
            case "/healthz":
                return Answer(200, b"application/json", b'{"status":"ok"}')
            case "/readyz":
                is_ready = self.is_started and not self.is_ending
                told = {"status": "ready" if is_ready else "not ready", "service": self.definition.service}
                return Answer(200 if is_ready else 503, b"application/json", json_bytes(told))
            case "/metrics":
                return Answer(200, TEXT + b"; version=0.0.4", self.metrics.text().encode())
            case "/favicon.ico":
                return Answer(204, None, b"")
            case _:
                return None


def _documents(definition: Definition) -> tuple[str, ...]:
    return ("/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect") if definition.docs else ()


def refusal(error: Exception) -> Refused | None:
    """An `HTTPException` that user code raised on purpose."""
    from starlette.exceptions import HTTPException

    if not isinstance(error, HTTPException):
        return None
    headers = tuple((name.lower().encode(), text.encode("latin-1")) for name, text in (error.headers or {}).items())
    detail: Any = error.detail  # FastAPI's may be any data
    if isinstance(detail, str):
        return Refused(error.status_code, detail, headers=headers)
    return Refused(error.status_code, "see `errors`", headers=headers, errors=detail)
