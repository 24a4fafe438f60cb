"""What a function returned as an HTTP answer: status, headers and bytes. Knows no function and no request."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from http import HTTPStatus
from typing import Any

import orjson

Header = tuple[bytes, bytes]

TEXT = b"text/plain; charset=utf-8"
JSON = b"application/json"
BYTES = b"application/octet-stream"
LINES = b"application/x-ndjson"
PROBLEM = b"application/problem+json"

MAX_DEPTH = 250
"""Lists and mappings in one another; the writer of JSON follows no further."""

_NO_BODY = (204, 304)
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


class Refused(Exception):
    """A request that is answered with a problem: never a failure of the function."""

    def __init__(self, status: int, detail: str, *, headers: tuple[Header, ...] = (), errors: Any = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers
        self.errors = errors


class Answer:
    """Status, type, headers of the function's own, and bytes or a stream of them."""

    __slots__ = ("body", "headers", "kind", "status", "stream")

    def __init__(
        self,
        status: int,
        kind: bytes | None,
        body: bytes,
        headers: list[Header] | None = None,
        stream: Iterator[Any] | AsyncIterator[Any] | None = None,
    ) -> None:
        self.status = status
        self.kind = kind
        self.body = body
        self.headers = headers
        self.stream = stream


def decoded(body: bytes) -> Any:
    """The JSON in a request.

    Raises:
        Refused: it is none, or deeper than what could be answered.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON in UTF-8: {error.msg} at line {error.lineno}") from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        try:
            orjson.dumps(value)
        except TypeError:
            raise Refused(400, f"the body is nested more than {MAX_DEPTH} levels deep") from None
    return value


def answer(value: Any, status: int | None = None) -> Answer:
    """The answer for what a function returned; `status` is that of its endpoint, for values that say none.

    Text stays text, `None` is empty (204), bytes stay bytes, generators are streamed, everything else is JSON. A tuple
    `(body, status[, headers])` says more.

    Raises:
        TypeError, ValueError: there is no answer for it.
    """
    if type(value) is tuple and _is_answer(value):
        own = [_header(name, text) for name, text in value[2].items()] if len(value) == 3 and value[2] else None
        made = answer(value[0], int(value[1]))
        made.headers = own
        return made
    code = status or 200
    kind = type(value)
    if kind is dict or kind is list:
        return Answer(code, JSON, json_bytes(value))
    if isinstance(value, str):
        return Answer(code, TEXT, value.encode(errors="replace"))
    if value is None:
        return Answer(status or 204, None, b"")
    if isinstance(value, bytes | bytearray | memoryview):
        return Answer(code, BYTES, bytes(value))
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        return Answer(code, None, b"", stream=value)
    return Answer(code, JSON, json_bytes(value))


def _is_answer(value: tuple[Any, ...]) -> bool:
    return (
        len(value) in (2, 3)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
        and 200 <= value[1] <= 599
        and (len(value) == 2 or value[2] is None or isinstance(value[2], Mapping))
    )


def _header(name: Any, text: Any) -> Header:
    """A header; one that would end the line is refused, since what follows would be another header."""
    key, value = str(name).strip().lower().encode("ascii"), str(text).strip().encode("latin-1")
    if not key or any(one in key + value for one in (b"\r", b"\n", b"\0")) or b":" in key or b" " in key:
        raise ValueError(f"the function returned a header that is none: {name!r}")
    return key, value


def json_bytes(value: Any) -> bytes:
    """JSON of nearly anything: numpy, pandas, pydantic, dataclasses, dates, decimals, sets; NaN is null.

    Raises:
        TypeError: it holds what is no data.
    """
    try:
        return orjson.dumps(value, default=plain, option=_OPTIONS)
    except TypeError as error:
        if error.__cause__ is not None and isinstance(error.__cause__, TypeError):
            raise error.__cause__ from None
        return _slowly(value, error)


def _slowly(value: Any, first: TypeError) -> bytes:
    """What the quick writer does not take: keys that are no text, large integers, half characters, great depth."""
    try:
        return orjson.dumps(value, default=plain, option=_OPTIONS | orjson.OPT_NON_STR_KEYS)
    except TypeError:
        pass
    try:
        return json.dumps(value, default=plain, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"what the function returned is not JSON: {error or first}") from None


def plain(value: Any) -> Any:
    """A value of another type as data for JSON.

    Raises:
        TypeError: there is no data in it.
    """
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode(errors="replace")
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return value.to_dict(orient="records")
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "__fspath__"):
        return value.__fspath__()
    raise TypeError(f"what the function returned is not JSON: it holds a {type(value).__name__}")


def piece(value: Any) -> bytes:
    """One part of a stream: text and bytes as they are, anything else as a line of JSON."""
    if isinstance(value, str):
        return value.encode(errors="replace")
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return json_bytes(value) + b"\n"


def kind_of_piece(value: Any) -> bytes:
    """The type of a stream by its first part."""
    if isinstance(value, str):
        return TEXT
    return BYTES if isinstance(value, bytes | bytearray | memoryview) else LINES


def problem(refused: Refused, path: str, request_id: str) -> Answer:
    """A problem as RFC 9457 writes it."""
    try:
        title = HTTPStatus(refused.status).phrase
    except ValueError:
        title = "Error"
    told = {
        "type": "about:blank",
        "title": title,
        "status": refused.status,
        "detail": refused.detail,
        "instance": path,
        "request_id": request_id,
    }
    if refused.errors is not None:
        told["errors"] = refused.errors
    return Answer(refused.status, PROBLEM, json_bytes(told), list(refused.headers))


def has_body(status: int) -> bool:
    """Whether an answer with this status may have a body."""
    return status not in _NO_BODY
