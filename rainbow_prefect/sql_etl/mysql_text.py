"""Values of MySQL and MariaDB: from the bytes of the wire to Python or to lines of COPY's text, and from Python to such lines."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from .base import BadValue, Refused, Rows
from .mysql_errors import short
from .mysql_link import Row
from .types import Column, Type

NULL = b"\\N"

_SPECIAL = re.compile(rb"[\\\t\n\r\x08\x0b\x0c]")
_ESCAPES = {
    b"\\": rb"\\",
    b"\t": rb"\t",
    b"\n": rb"\n",
    b"\r": rb"\r",
    b"\x08": rb"\b",
    b"\x0b": rb"\v",
    b"\x0c": rb"\f",
}
_ZERO = re.compile(rb"\d{4}-(?:00-\d\d|\d\d-00)")
_SPECIAL_TEXT = re.compile(r"[\\\t\n\r]")
_ESCAPES_TEXT = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
_PIECE_ROWS = 1000

Values = Sequence[bytes | None]


class ZeroDate(ValueError):
    """A date with a month or day that is zero, at this index."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


# -- from the wire to Python


def decoder(one: Type) -> Callable[[Values], Sequence[Any]]:
    """What makes Python values of one column of raw rows."""
    match one.kind:
        case "bool":
            return lambda values: [None if v is None else v in (b"\x01", b"1") for v in values]
        case "int" if one.native.startswith("bit"):
            return lambda values: [None if v is None else int.from_bytes(v, "big") for v in values]
        case "int":
            return lambda values: [None if v is None else int(v) for v in values]
        case "float" if one.bits == 32:
            return lambda values: [None if v is None else _single(v) for v in values]
        case "float":
            return lambda values: [None if v is None else float(v) for v in values]
        case "decimal":
            return lambda values: [None if v is None else Decimal(v.decode()) for v in values]
        case "bytes":
            return lambda values: values
        case "date":
            return lambda values: [None if v is None else _date(v, at) for at, v in enumerate(values)]
        case "timestamp":
            return lambda values: [None if v is None else _moment(v, at) for at, v in enumerate(values)]
        case "timestamptz":
            return lambda values: [None if v is None else _instant(v, at) for at, v in enumerate(values)]
        case "time":
            return lambda values: [None if v is None else _time(v) for v in values]
    return lambda values: [None if v is None else v.decode() for v in values]


def _single(value: bytes) -> float:
    """The float that is meant: the statement gives it as a double of the same value."""
    made: float = struct.unpack("f", struct.pack("f", float(value)))[0]
    return made


def _date(value: bytes, at: int) -> date | str:
    text = value.decode()
    try:
        return date.fromisoformat(text)
    except ValueError:
        return _beyond(value, at)


def _moment(value: bytes, at: int) -> datetime | str:
    try:
        return datetime.fromisoformat(value.decode())
    except ValueError:
        return _beyond(value, at)


def _instant(value: bytes, at: int) -> datetime | str:
    found = _moment(value, at)
    return found if isinstance(found, str) else found.replace(tzinfo=UTC)


def _beyond(value: bytes, at: int) -> str:
    if _ZERO.match(value):
        raise ZeroDate(at)
    return value.decode()


def _time(value: bytes) -> time | str:
    """The time of a day; what is below zero or reaches beyond a day stays text."""
    text = value.decode()
    try:
        return time.fromisoformat(text)
    except ValueError:
        return text


# -- from the wire to lines


def encoder(one: Type) -> Callable[[Values], Iterable[bytes]]:
    """What makes fields of COPY's text of one column of raw rows."""
    match one.kind:
        case "bool":
            return lambda values: [NULL if v is None else b"t" if v in (b"\x01", b"1") else b"f" for v in values]
        case "int" if one.native.startswith("bit"):
            return lambda values: [NULL if v is None else b"%d" % int.from_bytes(v, "big") for v in values]
        case "int" | "decimal" | "float" | "time" | "uuid":
            return _plain
        case "bytes":
            return lambda values: [NULL if v is None else rb"\\x" + v.hex().encode() for v in values]
        case "date" | "timestamp":
            return _checked
        case "timestamptz":
            return lambda values: [one if one is NULL else one + b"+00" for one in _checked(values)]
    return _escaped


def _plain(values: Values) -> Iterable[bytes]:
    return [NULL if v is None else v for v in values] if None in values else values  # type: ignore[return-value]


def _checked(values: Values) -> list[bytes]:
    for at, one in enumerate(values):
        if one is not None and _ZERO.match(one):
            raise ZeroDate(at)
    return [NULL if v is None else v for v in values]


def _escaped(values: Values) -> Iterable[bytes]:
    known = [v for v in values if v is not None]
    if _SPECIAL.search(b"".join(known)) is None:
        return _plain(values)
    return [NULL if v is None else _SPECIAL.sub(_escape, v) for v in values]


def _escape(found: re.Match[bytes]) -> bytes:
    return _ESCAPES[found.group()]


def lines_of(rows: Sequence[Row], encoders: Sequence[Callable[[Values], Iterable[bytes]]]) -> bytes:
    """Raw rows as lines of COPY's text."""
    columns = [make(values) for make, values in zip(encoders, zip(*rows, strict=True), strict=True)]
    return b"\n".join(map(b"\t".join, zip(*columns, strict=True))) + b"\n"


# -- from Python to lines


class _Flaw(ValueError):
    pass


def lines(
    batches: Iterable[Rows], columns: Sequence[Column], table: str, *, secret: Sequence[str] = ()
) -> Iterator[bytes]:
    """Rows of Python as lines of COPY's text, about a thousand in a piece.

    Raises:
        BadValue: a value has no text that MySQL could read back.
    """
    writers = [_written(one.type) for one in columns]
    before = 0
    for rows in batches:
        for start in range(0, len(rows), _PIECE_ROWS):
            piece = rows[start : start + _PIECE_ROWS]
            try:
                fields = [write(values) for write, values in zip(writers, zip(*piece, strict=True), strict=True)]
                yield ("\n".join(map("\t".join, zip(*fields, strict=True))) + "\n").encode()
            except (KeyError, ValueError):
                raise _bad_value(piece, before + start, columns, table, secret) from None
        before += len(rows)


def _text(value: str) -> str:
    return value if _SPECIAL_TEXT.search(value) is None else value.translate(_ESCAPES_TEXT)


def _float(value: float) -> str:
    if value - value != 0:
        raise _Flaw("MySQL has no NaN and no infinity; make it NULL in the query")
    return repr(value)


def _decimal(value: Decimal) -> str:
    if not value.is_finite():
        raise _Flaw("MySQL has no NaN and no infinity; make it NULL in the query")
    return format(value, "f")


def _bool(value: bool) -> str:
    return "t" if value else "f"


def _hex(value: bytes) -> str:
    return r"\\x" + value.hex()


def _duration(value: timedelta) -> str:
    """As time of MySQL, which may be below zero and beyond a day."""
    micros = value // timedelta(microseconds=1)
    seconds, rest = divmod(abs(micros), 1_000_000)
    return f"{'-' if micros < 0 else ''}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:06}"


def _naive(value: datetime) -> str:
    if value.tzinfo is not None:
        raise _Flaw("it has a time zone, and the column has none; say in the query which zone is meant")
    return value.isoformat(" ")


def _aware(value: datetime) -> str:
    if value.tzinfo is None:
        raise _Flaw("it has no time zone, and the column is an instant; say in the query which zone is meant")
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ") + "+00"


def _clock(value: time) -> str:
    if value.tzinfo is not None:
        raise _Flaw("time of MySQL has no time zone; cast it in the query")
    return value.isoformat()


def _zero_one(value: int) -> str:
    if value not in (0, 1):
        raise _Flaw("it is neither true nor false")
    return "t" if value else "f"


def _null(value: None) -> str:
    return r"\N"


def _not_bytes(value: object) -> str:
    raise _Flaw("it is bytes, and the column is text; decode it in the query")


_WRITERS: dict[type, Callable[[Any], str]] = {
    type(None): _null,
    str: _text,
    int: str,
    bool: lambda value: str(int(value)),
    float: _float,
    Decimal: _decimal,
    bytes: _hex,
    bytearray: _hex,
    memoryview: _hex,
    date: date.isoformat,
    datetime: _naive,
    time: _clock,
    timedelta: _duration,
    UUID: str,
}
_OF_KIND: dict[str, dict[type, Callable[[Any], str]]] = {
    "bool": {**_WRITERS, bool: _bool, int: _zero_one},
    "timestamptz": {**_WRITERS, datetime: _aware},
    "bytes": {**_WRITERS, str: lambda value: _hex(value.encode())},
    "text": {**_WRITERS, bytes: _not_bytes, bytearray: _not_bytes, memoryview: _not_bytes},
}


def _written(one: Type) -> Callable[[tuple[Any, ...]], Iterable[str]]:
    """What writes a column of values: column by column is 1.5 times as fast as value by value."""
    writers = _OF_KIND.get(one.kind, _WRITERS)

    def write(values: tuple[Any, ...]) -> Iterable[str]:
        kinds = set(map(type, values))
        if len(kinds) > 1:
            return [writers[type(value)](value) for value in values]
        kind = kinds.pop()
        if kind is str and writers[str] is _text and _SPECIAL_TEXT.search("".join(values)) is None:
            return values
        return [writers[kind](value) for value in values]

    return write


def _bad_value(rows: Rows, before: int, columns: Sequence[Column], table: str, secret: Sequence[str]) -> BadValue:
    """Which value it was: looked for once more, since it is rare."""
    for ordinal, row in enumerate(rows, before + 1):
        for column, value in zip(columns, row, strict=False):
            flaw = _flaw(value, column.type)
            if flaw is not None:
                shown = "" if column.name in secret else f", value {short(value)}"
                return BadValue(f"{table}: column '{column.name}', row {ordinal}{shown}: {flaw}; nothing was written")
    return BadValue(
        f"{table}: a row among {before + 1} to {before + len(rows)} has not {len(columns)} values; nothing was written"
    )


def _flaw(value: Any, one: Type) -> str | None:
    write = _OF_KIND.get(one.kind, _WRITERS).get(type(value))
    if write is None:
        return f"a value of type {type(value).__name__} cannot be written; cast it in the query"
    try:
        write(value).encode()
    except _Flaw as flaw:
        return str(flaw)
    except UnicodeEncodeError:
        return "it is no Unicode text (a lone surrogate); correct it in the query"
    return None


# -- as SQL


def literal(value: Any) -> str:
    """A value as SQL of MySQL writes it, in whatever sql_mode."""
    match value:
        case None:
            return "NULL"
        case bool():
            return "1" if value else "0"
        case int():
            return str(value)
        case Decimal() if value.is_finite():
            return format(value, "f")
        case float() if math.isfinite(value):
            return f"{value!r}e0" if "e" not in repr(value) else repr(value)
        case bytes():
            return f"x'{value.hex()}'"
        case datetime():
            moment = value if value.tzinfo is None else _utc(value)
            return f"TIMESTAMP'{moment.isoformat(' ')}'"
        case date():
            return f"DATE'{value.isoformat()}'"
        case time():
            return f"TIME'{value.isoformat()}'"
        case str():
            if value.isascii() and "\\" not in value and "\0" not in value:
                return "'" + value.replace("'", "''") + "'"
            return f"CONVERT(x'{value.encode().hex()}' USING utf8mb4)"
    raise Refused(f"a value of type {type(value).__name__} cannot be written as SQL of MySQL")


def _utc(value: datetime) -> datetime:
    return value.astimezone(UTC).replace(tzinfo=None)
