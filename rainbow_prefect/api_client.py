"""Prefect's REST API for what deploys and operates; Prefect itself is not imported here.

    with connect() as api:
        found = api.pages("deployments/filter", {"deployments": {"name": {"any_": ["shop"]}}})
        api.post(f"deployments/{found[0]['id']}/create_flow_run", {"parameters": {}, "idempotency_key": key})

The address, the API key and the basic auth are those of Prefect's settings. A server that is busy (429, 502, 503, 504)
or drops the connection is asked again, so each request must be one that may be sent twice: an upsert, a filter, a
removal, or a run with an `idempotency_key`.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

import httpx

from . import server
from .errors import CallError, RunError
from .server import Connection

T = TypeVar("T")
Tell = Callable[[str], None]

PAGE = 200
"""As many as Prefect gives at once, unless its administrator says otherwise."""

_BUSY = (429, 502, 503, 504)
_TRIES = 8
_LONGEST_PAUSE = 5.0
_SECONDS = 60.0
_AT_ONCE = 4
_SHOWN_CHARACTERS = 600


class ApiError(RunError):
    """The server refused a request; `status` is that of HTTP."""

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        super().__init__(message)


class Api:
    """One server, for any number of threads; `url` is shown to people and holds no password."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.url = server.bare(connection.api_url)
        self.is_busy = False
        """Whether the server has been too busy for several requests at once: SQLite writes one at a time."""
        self._client = httpx.Client(
            base_url=f"{self.url}/",
            headers=_headers(),
            auth=_basic_auth(connection.api_url),
            timeout=float(server.setting("PREFECT_API_REQUEST_TIMEOUT", "api", "request_timeout") or _SECONDS),
            verify=_verify(),
            follow_redirects=True,
            trust_env=not self.url.startswith(f"http://{server.HOST}"),
        )
        self._lock = threading.Lock()

    def close(self) -> None:
        self._client.close()

    def get(self, path: str) -> Any:
        """The JSON at a path.

        Raises:
            ApiError: the server refused it.
            RunError: it does not answer.
        """
        return self._ask("GET", path)

    def post(self, path: str, data: Any) -> Any:
        """The JSON answer to a request that may be sent twice; raises as `get`."""
        return self._ask("POST", path, data)

    def make(self, path: str, data: Any) -> tuple[Any, bool]:
        """As `post`, for what is made unless it is there: its JSON, and whether this request made it."""
        answer = self._send("POST", path, data)
        return self._read(answer, "POST", path), answer.status_code == 201

    def patch(self, path: str, data: Any) -> Any:
        """The JSON answer to a change; raises as `get`."""
        return self._ask("PATCH", path, data)

    def put(self, path: str, data: Any) -> Any:
        """The JSON answer to a whole new value; raises as `get`."""
        return self._ask("PUT", path, data)

    def delete(self, path: str) -> bool:
        """Remove what is at a path; False when it is gone already. Raises as `get`."""
        try:
            self._ask("DELETE", path)
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    def pages(self, path: str, data: Mapping[str, Any]) -> list[Any]:
        """All that a filter finds; raises as `get`."""
        found: list[Any] = []
        size = PAGE
        while True:
            try:
                page = self.post(path, {"limit": size, **data, "offset": len(found)})
            except ApiError as error:
                if error.status != 422 or size < 10 or "limit" not in str(error):
                    raise
                size //= 2  # its administrator allows less
                continue
            found += page
            if len(page) < size:
                return found

    def variable(self, name: str) -> Any:
        """The value of a Prefect Variable, else of the environment; None without either."""
        try:
            return self.get(f"variables/name/{quote(name, safe='')}")["value"]
        except ApiError as error:
            if error.status not in (404, 422):
                raise
            return os.environ.get(name)

    @property
    def version(self) -> str:
        """The version of Prefect that the server runs; '' for Prefect Cloud, which has none."""
        try:
            return str(self.get("admin/version"))
        except ApiError as error:
            if error.status in (403, 404):
                return ""
            raise

    def each(self, work: Callable[[T], None], items: Sequence[T]) -> None:
        """Do the work for each item: a few at once, or one at a time on a server that keeps its data in SQLite.

        After the first failure nothing more is begun; what is under way is waited for.

        Raises:
            The first error of `work`.
        """
        ended = threading.Event()
        errors: list[BaseException] = []
        turn = threading.Lock()

        def one(item: T) -> None:
            if ended.is_set():
                return
            try:
                if self.is_busy:
                    with turn:
                        work(item)
                else:
                    work(item)
            except BaseException as error:
                errors.append(error)
                ended.set()

        if len(items) < 2 or self._is_sqlite:
            for item in items:
                one(item)
        else:
            with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
                try:
                    list(pool.map(one, items))
                except BaseException:
                    ended.set()
                    raise
        if errors:
            raise errors[0]

    @property
    def _is_sqlite(self) -> bool:
        """Whether it is known: a server does not tell its database, so a busy one is taken for it."""
        own = server.running()
        return self.is_busy or (own is not None and own.api_url == self.url and not server.has_own_database())

    def _ask(self, method: str, path: str, data: Any = None) -> Any:
        return self._read(self._send(method, path, data), method, path)

    def _send(self, method: str, path: str, data: Any) -> httpx.Response:
        content = None if data is None else json.dumps(data, ensure_ascii=False).encode()
        for attempt in range(_TRIES):
            try:
                answer = self._client.request(method, path, content=content)
            except httpx.TransportError as error:
                if attempt == _TRIES - 1 or isinstance(error, httpx.UnsupportedProtocol):
                    raise self._unreachable(error) from error
                self.is_busy = True
                _pause(attempt)
                continue
            if answer.status_code == 403 and "CSRF" in answer.text and self._get_token():
                continue
            if answer.status_code not in _BUSY or attempt == _TRIES - 1:
                break
            self.is_busy = True
            _pause(attempt, answer.headers.get("Retry-After"))
        return answer

    def _read(self, answer: httpx.Response, method: str, path: str) -> Any:
        if answer.is_success:
            return _parsed(answer, self.url)
        if answer.status_code in (401, 403):
            raise ApiError(
                f"the Prefect server at {self.url} does not let us in ({answer.status_code}); "
                "set PREFECT_API_KEY, or PREFECT_API_AUTH_STRING for basic auth",
                answer.status_code,
            )
        raise ApiError(
            f"the Prefect server at {self.url} refused {method} {path.partition('?')[0]} "
            f"({answer.status_code}): {_reason(answer)}",
            answer.status_code,
        )

    def _unreachable(self, error: Exception) -> RunError:
        why = str(error) or type(error).__name__
        return RunError(f"the Prefect server at {self.url} does not answer ({why}); is it running?")

    def _get_token(self) -> bool:
        """Fetch a token against forged requests, which some servers ask for."""
        with self._lock:
            name = f"rainbow-{random.getrandbits(64):x}"
            answer = self._client.get(f"csrf-token?client={quote(name)}")
            if not answer.is_success:
                return False
            self._client.headers.update({"Prefect-Csrf-Client": name, "Prefect-Csrf-Token": answer.json()["token"]})
            return True


@contextmanager
def connect(*, tell: Tell = lambda text: None) -> Iterator[Api]:
    """The server that Prefect's settings name, else the local one that runs.

    `tell` is given a warning about a server that is older than what is installed here.

    Raises:
        CallError: no server is named and none runs here.
        RunError: it does not answer, does not let us in, or is of another major version.
    """
    connection = server.lasting()
    if connection is None:
        raise CallError(
            "there is no Prefect server to talk to; start one: rainbow server start, or name one: "
            f"export PREFECT_API_URL=http://{server.HOST}:{server.PORT}/api"
        )
    api = Api(connection)
    try:
        _check_version(api, tell)
        yield api
    finally:
        api.close()


def _check_version(api: Api, tell: Tell) -> None:
    found, ours = api.version, version("prefect")
    if not found:
        return
    if _numbers(found)[:1] != _numbers(ours)[:1]:
        raise RunError(
            f"the server at {api.url} runs Prefect {found}, which does not understand Prefect {ours} here; "
            f"install a matching one: pip install 'prefect=={found}', or upgrade the server"
        )
    if _numbers(found)[:2] < _numbers(ours)[:2]:
        tell(f"warning: the server runs Prefect {found}, older than {ours} here; it may refuse what it does not know")


def _numbers(text: str) -> list[int]:
    """`3.8.8.dev1+x` as [3, 8, 8]."""
    numbers = []
    for part in text.split("+", maxsplit=1)[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return numbers


def _headers() -> dict[str, str]:
    found = {"Content-Type": "application/json", "User-Agent": f"rainbow-prefect/{version('rainbow-prefect')}"}
    if key := server.setting("PREFECT_API_KEY", "api", "key"):
        found["Authorization"] = f"Bearer {key}"
    if custom := server.setting("PREFECT_CLIENT_CUSTOM_HEADERS", "client", "custom_headers"):
        try:
            found |= {str(name): str(value) for name, value in json.loads(custom).items()}
        except (ValueError, AttributeError):
            raise CallError('PREFECT_CLIENT_CUSTOM_HEADERS must be a JSON object, e.g. {"X-Team": "data"}') from None
    return found


def _basic_auth(url: str) -> tuple[str, str] | None:
    """What the address itself says, else Prefect's setting; an API key goes before."""
    parts = urlsplit(url)
    if parts.username is not None:
        return unquote(parts.username), unquote(parts.password or "")
    if server.setting("PREFECT_API_KEY", "api", "key"):
        return None
    text = server.setting("PREFECT_API_AUTH_STRING", "api", "auth_string")
    if not text:
        return None
    name, _, password = text.partition(":")
    return name, password


def _verify() -> Any:
    import ssl

    skip = server.setting("PREFECT_API_TLS_INSECURE_SKIP_VERIFY", "api", "tls_insecure_skip_verify") or ""
    if skip.lower() in ("1", "true", "yes", "on"):
        return False
    file = server.setting("PREFECT_API_SSL_CERT_FILE", "api", "ssl_cert_file")
    if not file:
        return True
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise CallError(f"the certificates in '{file}' (PREFECT_API_SSL_CERT_FILE) cannot be read: {why}") from error


def _pause(attempt: int, wanted: str | None = None) -> None:
    seconds = float(wanted) if wanted and wanted.isdigit() else 0.1 * 2**attempt
    time.sleep(min(seconds, _LONGEST_PAUSE) * (0.75 + random.random() / 2))


def _parsed(answer: httpx.Response, url: str) -> Any:
    if not answer.content:
        return None
    try:
        return answer.json()
    except ValueError:
        raise RunError(f"what answers at {url} is not a Prefect server; PREFECT_API_URL ends in /api") from None


def _reason(answer: httpx.Response) -> str:
    """What the server says that is wrong, without what was sent, which may hold a secret."""
    try:
        told = answer.json()
    except ValueError:
        return answer.reason_phrase or "no reason"
    told = told.get("detail") or told.get("exception_detail") or told if isinstance(told, dict) else told
    if isinstance(told, list):
        told = "; ".join(_flaw(one) for one in told)
    return str(told)[:_SHOWN_CHARACTERS]


def _flaw(one: Any) -> str:
    if not isinstance(one, dict):
        return str(one)
    where = ".".join(str(part) for part in one.get("loc", ()) if part != "body")
    return f"{where}: {one.get('msg', 'wrong')}" if where else str(one.get("msg", "wrong"))
