"""The FastAPI app of a service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from .answers import Refused, problem
from .definition import Definition
from .front import CALL, Front
from .running import Running, refusal

if TYPE_CHECKING:
    from ..app import Service


def create_service(service: Service | Definition) -> FastAPI:
    """The app of a service, to be served or to be mounted in an app of one's own.

    Its modules are imported now; `on_start` is called when the server starts, or with the first request where the app is
    mounted, since a mounted app is not told.

    Raises:
        RunError: a module or function is missing, or a secret cannot be read.
    """
    if not isinstance(service, Definition):
        from .local import definition_of

        service = definition_of(service)
    running = Running(service)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await running.start()
        yield
        await running.stop()

    app = FastAPI(
        title=service.service,
        description=service.description,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url="/docs" if service.docs else None,
        redoc_url="/redoc" if service.docs else None,
        openapi_url="/openapi.json" if service.docs else None,
    )
    running.app = app
    app.state.rainbow = running
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Refused, _refused)
    if service.auth:
        _say_token(app)
    app.add_middleware(Front, running=running)
    if service.cors:  # outside of ours, which answers what has no types without going further in
        from starlette.middleware.cors import CORSMiddleware

        app.add_middleware(CORSMiddleware, allow_origins=list(service.cors), allow_methods=["*"], allow_headers=["*"])
    return app


class _Problem(Response):
    """A problem, answered where all answers are."""

    def __init__(self, refused: Refused) -> None:
        self.refused = refused
        self.background = None
        self.status_code = refused.status
        self.raw_headers = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        call = scope[CALL]
        await call.finish(problem(self.refused, call.path, call.id))


async def _refused(_: Request, error: Exception) -> Response:
    refused = error if isinstance(error, Refused) else refusal(error)
    assert refused is not None
    return _Problem(refused)


async def _invalid(_: Request, error: Exception) -> Response:
    """422 with each error, without what was sent; a body that is no JSON is 400, as everywhere."""
    assert isinstance(error, RequestValidationError)
    errors: Sequence[Any] = error.errors()
    if any(one["type"] == "json_invalid" for one in errors):
        return _Problem(Refused(400, "the body is not JSON"))
    told = [{"at": _place(one["loc"]), "message": one["msg"], "type": one["type"]} for one in errors]
    text = "; ".join(f"{one['at']}: {one['message']}" for one in told[:5])
    return _Problem(Refused(422, text, errors=told))


def _place(keys: Sequence[Any]) -> str:
    return ".".join(map(str, keys))


def _say_token(app: FastAPI) -> None:
    """Name the token in the OpenAPI document."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        made = plain()
        schemes = made.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer"}
        return made

    app.openapi = openapi  # type: ignore[method-assign]
