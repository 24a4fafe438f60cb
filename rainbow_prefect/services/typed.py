"""Functions with types, as FastAPI sees them: what is validated, and what the OpenAPI document says."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from fastapi import Depends, FastAPI, Request, params
from fastapi.exceptions import FastAPIError
from pydantic.errors import PydanticUserError
from starlette.responses import Response

from ..errors import RunError
from .answers import decoded
from .definition import Batch
from .front import CALL, Call
from .routes import Route

if TYPE_CHECKING:
    from .running import Running

_PROBLEM = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "request_id": {"type": "string"},
    },
}
_DEFAULT: dict[int | str, dict[str, Any]] = {
    "default": {"description": "A problem (RFC 9457).", "content": {"application/problem+json": {"schema": _PROBLEM}}}
}
_ANY_BODY: dict[str, Any] = {"requestBody": {"content": {"application/json": {"schema": {}}}, "required": False}}
_BYTES_BODY: dict[str, Any] = {
    "requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}


class Returned(Response):
    """What a function returned; it is answered where all answers are."""

    def __init__(self, running: Running, route: Route, value: Any) -> None:
        self.running = running
        self.route = route
        self.value = value
        self.background = None
        self.status_code = route.status or 200
        self.raw_headers = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        call: Call = scope[CALL]
        await self.running.respond(call, self.value, self.route.status)


def add(app: FastAPI, route: Route, running: Running) -> None:
    """Add an endpoint to an app.

    Raises:
        RunError: a type of its function cannot be read from a request.
    """
    asked = route.prepare(running.resources, running.pool)
    item: Any = None
    if route.endpoint.batch is not None:
        item = _batched(route, asked, route.endpoint.batch)
    called, extra = _untyped(route, running) if route.is_raw else _typed(route, running, asked, item)
    if route.needs_token:
        extra = {**extra, "security": [{"token": []}]}
    endpoint = route.endpoint
    try:
        for method in endpoint.methods:
            app.add_api_route(
                route.path,
                called,
                methods=[method],
                name=endpoint.function,
                description=endpoint.description or inspect.getdoc(route.function) or "",
                status_code=route.status or 200,
                response_model=None,
                responses=_DEFAULT,
                openapi_extra=extra if method != "GET" or not route.is_raw else _without_body(extra),
                operation_id=f"{endpoint.function}_{route.path.strip('/') or 'root'}_{method.lower()}",
            )
    except (FastAPIError, PydanticUserError, RuntimeError) as error:
        text = str(error).strip().splitlines()[0]
        raise RunError(
            f"endpoint '{endpoint.endpoint}': a type of function '{endpoint.function}' cannot be used: {text}"
        ) from error


def _without_body(extra: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in extra.items() if key != "requestBody"}


def _untyped(route: Route, running: Running) -> tuple[Any, dict[str, Any]]:
    async def through(request: Request) -> Returned:
        body = await request.body() if route.takes_body else b""
        data = decoded(body) if body else None
        return Returned(running, route, await route.raw(lambda: data))

    return through, _ANY_BODY if route.takes_body else {}


def _batched(route: Route, asked: list[inspect.Parameter], batch: Batch) -> Any:
    """The type of one item of a function with `batch`, None without one.

    Raises:
        RunError: the function takes more than the list.
    """
    if len(asked) != 1 or route.parameters:
        raise RunError(
            f"endpoint '{route.endpoint.endpoint}': a function with `batch` takes one parameter, the list of requests"
        )
    route.gather(batch)
    found = asked[0].annotation
    if found in (inspect.Parameter.empty, Any):
        return None
    items = get_args(found) if get_origin(found) in (list,) else ()
    route.is_raw = not items or items[0] is Any
    route.takes_body = route.is_raw
    return None if route.is_raw else items[0]


def _typed(route: Route, running: Running, asked: list[inspect.Parameter], item: Any) -> tuple[Any, dict[str, Any]]:
    if item is not None:
        only = inspect.Parameter(
            asked[0].name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[item, params.Body()]
        )
        return _called(route, running, [only], lambda values: ((values[only.name],), {})), {}
    shown: list[inspect.Parameter] = []
    extra: dict[str, Any] = {}
    has_body = False
    for one in asked:
        made = one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        if one.name in route.parameters:
            if one.annotation is inspect.Parameter.empty:
                made = made.replace(annotation=route.parameters[one.name])
        elif one.annotation is bytes and one.default is inspect.Parameter.empty:
            made, extra = made.replace(annotation=Annotated[bytes, Depends(_raw_body)]), _BYTES_BODY
        elif one.annotation is inspect.Parameter.empty and one.default is inspect.Parameter.empty and not has_body:
            made, extra = made.replace(annotation=Annotated[Any, Depends(_json_body)]), _ANY_BODY
            has_body = True
        shown.append(made)
    positional = [one.name for one in asked if one.kind is inspect.Parameter.POSITIONAL_ONLY]

    def arguments(values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tuple(values.pop(name) for name in positional), values

    return _called(route, running, shown, arguments), extra


def _called(route: Route, running: Running, shown: list[inspect.Parameter], arguments: Any) -> Any:
    async def typed(**values: Any) -> Returned:
        args, kwargs = arguments(values)
        return Returned(running, route, await route.call(*args, **kwargs))

    typed.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return typed


async def _raw_body(request: Request) -> bytes:
    return await request.body()


async def _json_body(request: Request) -> Any:
    body = await request.body()
    return decoded(body) if body else None
