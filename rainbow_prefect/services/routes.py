"""Endpoints ready to be called: their path as a pattern, what their function takes, how it runs."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import re
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from ..errors import RunError
from .answers import Refused
from .batches import Batcher
from .definition import Batch, Definition, Endpoint
from .metrics import Numbers

_FLASK = re.compile(r"<(?:(\w+)(?:\([^)]*\))?:)?(\w+)>")
_PARAMETER = re.compile(r"\{(\w+)(?::(\w+))?\}")
_CONVERTERS: Mapping[str, Any] = {"": str, "str": str, "int": int, "float": float, "path": str, "uuid": uuid.UUID}
_PATTERNS: Mapping[str, str] = {
    "": "[^/]+",
    "str": "[^/]+",
    "int": "[0-9]+",
    "float": r"[0-9]+(?:\.[0-9]+)?",
    "path": ".*",
    "uuid": "[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}",
}
_OF_FLASK = {"string": "", "any": "", None: ""}

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
"""The id of the request that is being answered; also in the threads of functions."""


def path_of(endpoint: str) -> str:
    """The path as FastAPI writes it: `/item/<int:id>` is `/item/{id:int}`."""
    path = endpoint if endpoint.startswith("/") else f"/{endpoint}"

    def parameter(found: re.Match[str]) -> str:
        kind = _OF_FLASK.get(found[1], found[1])
        return f"{{{found[2]}:{kind}}}" if kind else f"{{{found[2]}}}"

    return _FLASK.sub(parameter, path)


def parameters_of(path: str) -> dict[str, Any]:
    """The parameters in a path, each with its type.

    Raises:
        RunError: it has a type that is none.
    """
    found = {}
    for name, kind in _PARAMETER.findall(path):
        if kind not in _CONVERTERS:
            known = ", ".join(sorted(filter(None, _CONVERTERS)))
            raise RunError(f"endpoint '{path}': there is no type '{kind}' of a parameter; known: {known}")
        found[name] = _CONVERTERS[kind]
    return found


def pattern_of(path: str) -> re.Pattern[str]:
    """What a path with parameters fits."""
    pieces, last = [], 0
    for found in _PARAMETER.finditer(path):
        pieces += [re.escape(path[last : found.start()]), f"(?:{_PATTERNS[found[2] or '']})"]
        last = found.end()
    return re.compile("".join([*pieces, re.escape(path[last:])]) + r"\Z")


class Route:
    """One endpoint: `is_raw` when the function takes no argument or the decoded body alone, without a type."""

    def __init__(
        self, endpoint: Endpoint, function: Callable[..., Any], definition: Definition, numbers: Numbers
    ) -> None:
        self.endpoint = endpoint
        self.function = function
        self.numbers = numbers
        self.path = path_of(endpoint.endpoint)
        self.parameters = parameters_of(self.path)
        self.methods = frozenset({*endpoint.methods, *(("HEAD",) if "GET" in endpoint.methods else ())})
        self.allow = ", ".join(sorted({*self.methods, "OPTIONS"})).encode()
        self.status = endpoint.status
        self.scope = endpoint.auth if isinstance(endpoint.auth, str) else None
        self.needs_token = bool(definition.auth) and endpoint.auth is not False
        self.timeout_seconds = endpoint.timeout_seconds or definition.timeout_seconds
        self.is_raw = False
        self.takes_body = False
        self.given: dict[str, Any] = {}
        self.batcher: Batcher | None = None
        self._call = self._chosen()

    def prepare(self, resources: Mapping[str, Any], pool: ThreadPoolExecutor) -> list[inspect.Parameter]:
        """Give the function what `on_start` returned, and tell the parameters that a request gives it.

        Raises:
            RunError: a parameter of the path is none of the function.
        """
        self.pool = pool
        every = _parameters(self.function)
        names = {one.name for one in every}
        is_open = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in every)
        for name in self.parameters:
            if name not in names and not is_open:
                raise RunError(
                    f"endpoint '{self.endpoint.endpoint}': function '{self.endpoint.function}' "
                    f"has no parameter '{name}', which its path names"
                )
        usable = [one for one in every if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
        self.given = {
            one.name: resources[one.name] for one in usable if one.name in resources and one.name not in self.parameters
        }
        asked = [one for one in usable if one.name not in self.given]
        is_plain = len(asked) == 1 and asked[0].name not in self.parameters and _has_no_type(asked[0])
        self.takes_body = is_plain
        self.by_name = is_plain and asked[0].kind is inspect.Parameter.KEYWORD_ONLY
        self.body_name = asked[0].name if is_plain else ""
        self.is_raw = (not asked or is_plain) and not self.parameters
        return asked

    def gather(self, batch: Batch) -> None:
        """Give several requests to one call from now on."""
        self.batcher = Batcher(self._invoke, batch, self.numbers)

    async def raw(self, body: Callable[[], Any]) -> Any:
        """What the function returns for a body.

        Raises:
            Refused: it took too long.
        """
        if self.takes_body:
            return await self.call(body()) if not self.by_name else await self.call(**{self.body_name: body()})
        return await self.call()

    async def call(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns for these arguments, single or in a batch.

        Raises:
            Refused: it took too long.
        """
        try:
            async with asyncio.timeout(self.timeout_seconds) as limit:
                if self.batcher is not None:
                    return await self.batcher.one(args[0])
                return await self._invoke(*args, **kwargs)
        except TimeoutError:
            if limit.expired():
                raise Refused(504, f"the function took longer than {self.timeout_seconds:g} s") from None
            raise

    async def _invoke(self, *args: Any, **kwargs: Any) -> Any:
        result = await self._call(*args, **kwargs, **self.given)
        if inspect.isawaitable(result):
            return await result
        return result

    def _chosen(self) -> Callable[..., Any]:
        function, blocking = self.function, self.endpoint.blocking
        target = inspect.unwrap(function)
        target = target if inspect.isroutine(target) or inspect.isclass(target) else type(target).__call__
        if inspect.iscoroutinefunction(target):
            return function if not blocking else self._in_thread_async
        if inspect.isasyncgenfunction(target) or inspect.isgeneratorfunction(target) or blocking is False:
            return self._at_once
        return self._in_thread

    async def _at_once(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    async def _in_thread(self, *args: Any, **kwargs: Any) -> Any:
        context = contextvars.copy_context()
        call = partial(context.run, _called, self.function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self.pool, call)

    async def _in_thread_async(self, *args: Any, **kwargs: Any) -> Any:
        def run() -> Any:
            return asyncio.run(self.function(*args, **kwargs))

        return await asyncio.get_running_loop().run_in_executor(self.pool, contextvars.copy_context().run, run)


def _called(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except StopIteration as error:  # cannot leave a future
        raise RuntimeError("the function raised StopIteration") from error


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function, eval_str=True).parameters.values())
    except NameError:
        return list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):  # written in C: as if it took the body
        return [inspect.Parameter("body", inspect.Parameter.POSITIONAL_ONLY)]


def _has_no_type(one: inspect.Parameter) -> bool:
    from fastapi import params

    is_marker = isinstance(one.default, params.Param | params.Body | params.Depends)
    return (one.annotation is inspect.Parameter.empty or one.annotation is Any) and not is_marker
