"""Columns and rows as Arrow and back, exactly or not at all; pyarrow is imported by the functions, never with this module.

What Arrow has no type for is text with the type in the field's metadata (`rainbow.type`, and `pg_type` for PostgreSQL):
decimals without a precision, JSON, UUIDs, times with an offset, enums and what only one database knows.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ..errors import MissingExtra
from . import _calendar
from .base import BadValue, Refused, Rows
from .types import Column, Schema, Type

if TYPE_CHECKING:
    import pyarrow

BATCH_BYTES = 8 << 20
"""About so many bytes are in a batch; a single value may pass it."""

ROWS_BYTES = 4 << 20
"""About so many bytes of Arrow become one list of rows."""

MOST_DIGITS = 76
"""Arrow's longest decimal."""

_TYPE = b"rainbow.type"
_PG_TYPE = b"pg_type"
_AS_TEXT = frozenset({"text", "timetz", "uuid", "json", "enum", "other"})
_SHOWN = 80


def arrow() -> Any:
    """The module pyarrow.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import pyarrow
    except ImportError:
        raise MissingExtra("Arrow, Parquet and typed CSV", "arrow") from None
    return pyarrow


# -- types


def arrow_schema(schema: Schema, *, intervals: bool = True) -> pyarrow.Schema:
    """The Arrow schema of columns; without `intervals` (Parquet has none) these are text."""
    return arrow().schema([field_of(one, intervals=intervals) for one in schema.columns])


def field_of(column: Column, *, intervals: bool = True) -> pyarrow.Field:
    """The Arrow field that holds every value of a column that Arrow can hold."""
    pa = arrow()
    found = _arrow_type(column.type, pa, intervals=intervals)
    one = column.type
    metadata: dict[bytes, bytes] = {}
    is_text = pa.types.is_string(found)
    if (is_text and one.kind != "text") or (is_text and one.length is not None):
        metadata[_TYPE] = json.dumps(facts_of(one), separators=(",", ":"), ensure_ascii=False).encode()
    if is_text and one.kind not in ("text", "enum") and one.dialect == "postgresql" and one.native:
        metadata[_PG_TYPE] = one.native.encode()
    if column.comment:
        metadata[b"comment"] = column.comment.encode()
    return pa.field(column.name, found, nullable=column.nullable, metadata=metadata or None)


def facts_of(one: Type) -> dict[str, Any]:
    """What a type holds as JSON data, without its spelling; the other way of `type_of_facts`."""
    facts: dict[str, Any] = {"kind": one.kind}
    if one.bits:
        facts["bits"] = one.bits
    if one.unsigned:
        facts["unsigned"] = True
    for name in ("precision", "scale", "length"):
        if getattr(one, name) is not None:
            facts[name] = getattr(one, name)
    if one.labels:
        facts["labels"] = list(one.labels)
    if one.fixed:
        facts["fixed"] = True
    if one.kind == "array" and one.item is not None:
        facts["item"] = facts_of(one.item)
    return facts


def type_of_facts(facts: dict[str, Any]) -> Type:
    """The type that `facts_of` told."""
    item = facts.get("item")
    plain = {name: value for name, value in facts.items() if name not in ("item", "labels")}
    labels = tuple(facts.get("labels", ()))
    return Type(**plain, labels=labels, item=type_of_facts(item) if item else None, dialect="arrow")


def _arrow_type(one: Type, pa: Any, *, intervals: bool) -> Any:
    match one.kind:
        case "bool":
            return pa.bool_()
        case "int":
            bits = next(size for size in (8, 16, 32, 64) if size >= one.bits)
            return getattr(pa, f"{'u' if one.unsigned else ''}int{bits}")()
        case "float":
            return pa.float32() if one.bits == 32 else pa.float64()
        case "decimal":
            return _decimal(one, pa) or pa.string()
        case "bytes":
            return pa.binary()
        case "date":
            return pa.date32()
        case "time":
            return pa.time64("us" if _digits(one) <= 6 else "ns")
        case "timestamp":
            return pa.timestamp("us" if _digits(one) <= 6 else "ns")
        case "timestamptz":
            return pa.timestamp("us" if _digits(one) <= 6 else "ns", "UTC")
        case "interval":
            return pa.month_day_nano_interval() if intervals else pa.string()
        case "array" if one.item is not None and one.item.kind != "array":
            return pa.list_(_arrow_type(one.item, pa, intervals=False))
        case _:
            return pa.string()


def _digits(one: Type) -> int:
    return 6 if one.precision is None else one.precision


def _decimal(one: Type, pa: Any) -> Any:
    """The decimal of Arrow, None when none is long enough; Parquet wants a scale from 0 to the precision."""
    if one.precision is None:
        return None
    scale = max(one.scale or 0, 0)
    digits = max(one.precision - min(one.scale or 0, 0), scale, 1)
    if digits > MOST_DIGITS:
        return None
    return pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale)


def schema_of(found: pyarrow.Schema) -> Schema:
    """The columns of an Arrow schema.

    Raises:
        Refused: two have one name, or a type cannot be a column.
    """
    columns = []
    for field in found:
        comment = ((field.metadata or {}).get(b"comment") or b"").decode()
        columns.append(Column(field.name, type_of(field), nullable=field.nullable, comment=comment))
    names = [one.name for one in columns]
    doubled = sorted({one for one in names if names.count(one) > 1})
    if doubled:
        raise Refused(f"the columns {', '.join(map(repr, doubled))} occur more than once; rename them")
    return Schema(tuple(columns))


def type_of(field: pyarrow.Field) -> Type:
    """What a field of Arrow holds."""
    pa = arrow()
    kept = (field.metadata or {}).get(_TYPE)
    if kept is not None and _is_text(field.type, pa):
        try:
            one = type_of_facts(json.loads(kept))
        except (ValueError, TypeError, AttributeError):
            pass  # another's metadata of the same name: what Arrow says is right as well
        else:
            return replace(one, native=str(one))
    return replace(_plain_type(field.type, pa), native=str(field.type), dialect="arrow")


def _is_text(found: Any, pa: Any) -> bool:
    types = pa.types
    is_view = getattr(types, "is_string_view", lambda _: False)
    return bool(types.is_string(found) or types.is_large_string(found) or is_view(found))


def _plain_type(found: Any, pa: Any) -> Type:
    types = pa.types
    extension = _extension(found)
    if extension == "arrow.uuid":
        return Type("uuid")
    if extension == "arrow.json":
        return Type("json")
    if extension:
        return _plain_type(found.storage_type, pa)
    if types.is_dictionary(found):
        return _plain_type(found.value_type, pa)
    if getattr(types, "is_run_end_encoded", lambda _: False)(found):
        return _plain_type(found.value_type, pa)
    if types.is_boolean(found):
        return Type("bool")
    if types.is_integer(found):
        return Type("int", bits=found.bit_width, unsigned=types.is_unsigned_integer(found))
    if types.is_floating(found):
        return Type("float", bits=64 if types.is_float64(found) else 32)
    if types.is_decimal(found):
        return Type("decimal", precision=found.precision, scale=found.scale)
    if _is_text(found, pa) or types.is_null(found):
        return Type("text")
    if types.is_fixed_size_binary(found):
        return Type("bytes", length=found.byte_width)
    if types.is_binary(found) or types.is_large_binary(found) or str(found) == "binary_view":
        return Type("bytes")
    if types.is_date(found):
        return Type("date")
    if types.is_time(found):
        return Type("time", precision=_PRECISION[found.unit])
    if types.is_timestamp(found):
        return Type("timestamptz" if found.tz else "timestamp", precision=_PRECISION[found.unit])
    if types.is_interval(found) or types.is_duration(found):
        return Type("interval")
    if _is_list(found, pa):
        item = type_of(found.value_field)
        return Type("array", item=item) if item.kind not in ("array", "json", "other") else Type("json")
    if types.is_nested(found):
        return Type("json")
    raise Refused(f"Arrow's type {found} cannot be a column; cast it")


_PRECISION = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def _extension(found: Any) -> str:
    return str(getattr(found, "extension_name", ""))


def _is_list(found: Any, pa: Any) -> bool:
    types = pa.types
    views = [getattr(types, name, None) for name in ("is_list_view", "is_large_list_view")]
    return bool(
        types.is_list(found)
        or types.is_large_list(found)
        or types.is_fixed_size_list(found)
        or any(one(found) for one in views if one)
    )


# -- types as people write them

_SPELLED: dict[str, Type] = {
    "bool": Type("bool"),
    "boolean": Type("bool"),
    "tinyint": Type("int", bits=8),
    "int8": Type("int", bits=8),
    "smallint": Type("int", bits=16),
    "int16": Type("int", bits=16),
    "int": Type("int", bits=32),
    "integer": Type("int", bits=32),
    "int32": Type("int", bits=32),
    "bigint": Type("int", bits=64),
    "int64": Type("int", bits=64),
    "uint8": Type("int", bits=8, unsigned=True),
    "uint16": Type("int", bits=16, unsigned=True),
    "uint32": Type("int", bits=32, unsigned=True),
    "uint64": Type("int", bits=64, unsigned=True),
    "real": Type("float", bits=32),
    "float32": Type("float", bits=32),
    "float": Type("float", bits=64),
    "double": Type("float", bits=64),
    "double precision": Type("float", bits=64),
    "float64": Type("float", bits=64),
    "decimal": Type("decimal"),
    "numeric": Type("decimal"),
    "text": Type("text"),
    "string": Type("text"),
    "varchar": Type("text"),
    "bytes": Type("bytes"),
    "binary": Type("bytes"),
    "bytea": Type("bytes"),
    "date": Type("date"),
    "time": Type("time"),
    "timetz": Type("timetz"),
    "timestamp": Type("timestamp"),
    "datetime": Type("timestamp"),
    "timestamptz": Type("timestamptz"),
    "timestamp with time zone": Type("timestamptz"),
    "interval": Type("interval"),
    "uuid": Type("uuid"),
    "json": Type("json"),
    "jsonb": Type("json"),
}
_SIZED = re.compile(r"(decimal|numeric|varchar|text)\s*\(\s*(\d+)\s*(?:,\s*(-?\d+)\s*)?\)\Z")


def named(spelling: str) -> Type:
    """The type that people write as `decimal(10,2)`, `bigint` or `timestamptz`; `int8` has 8 bits, as in Arrow.

    Raises:
        ValueError: nobody knows it; the text has the known ones.
    """
    text = " ".join(spelling.lower().split())
    sized = _SIZED.match(text)
    if sized and sized[1] in ("decimal", "numeric"):
        if not 1 <= int(sized[2]) <= 1000:
            raise ValueError(f"'{spelling}' has no precision from 1 to 1000")
        return Type("decimal", precision=int(sized[2]), scale=int(sized[3] or 0), dialect="arrow")
    if sized and sized[3] is None:
        return Type("text", length=int(sized[2]), dialect="arrow")
    if text not in _SPELLED:
        raise ValueError(
            f"'{spelling}' is no known type; known: {', '.join(sorted(_SPELLED))}, decimal(p,s), varchar(n)"
        )
    return replace(_SPELLED[text], dialect="arrow")


# -- rows to Arrow

_PLAIN: dict[str, frozenset[type]] = {
    "bool": frozenset({bool}),
    "int": frozenset({int}),
    "float": frozenset({float}),
    "decimal": frozenset({Decimal, int}),
    "text": frozenset({str}),
    "bytes": frozenset({bytes}),
    "date": frozenset({date}),
    "time": frozenset({time}),
    "timestamp": frozenset({datetime}),
    "timestamptz": frozenset({datetime}),
}
"""The types of values that pyarrow takes as they are, by kind; the others go through `_to_arrow` one by one."""


def batches_of(
    rows: Iterable[Rows], schema: Schema, *, target: pyarrow.Schema | None = None, first: int = 1
) -> Iterator[pyarrow.RecordBatch]:
    """Rows as record batches, one or more for each list; `target` is the Arrow schema when it is not `arrow_schema(schema)`.

    `first` is the number of the first row, for messages.

    Raises:
        BadValue: Arrow cannot hold a value; names column, row and value.
    """
    pa = arrow()
    goal = target or arrow_schema(schema)
    for some in rows:
        if some:
            yield from _batches(some, schema, goal, pa, first)
        first += len(some)


def _batches(some: Rows, schema: Schema, goal: Any, pa: Any, first: int) -> Iterator[Any]:
    arrays = []
    for column, field, values in zip(schema.columns, goal, zip(*some, strict=True), strict=True):
        found = _array(values, column, field.type, pa, first)
        if isinstance(found, pa.ChunkedArray):  # over 2 GiB of text
            middle = len(some) // 2
            yield from _batches(some[:middle], schema, goal, pa, first)
            yield from _batches(some[middle:], schema, goal, pa, first + middle)
            return
        arrays.append(found)
    yield pa.RecordBatch.from_arrays(arrays, schema=goal)


def _array(values: Sequence[Any], column: Column, target: Any, pa: Any, first: int) -> Any:
    one = column.type
    kinds = set(map(type, values))
    kinds.discard(type(None))
    is_annotated = _is_text(target, pa) and one.kind not in ("text", "json", "enum", "other")
    plain = frozenset({str}) if one.kind in ("json", "enum", "other") else _PLAIN.get(one.kind, frozenset())
    if kinds <= plain and not is_annotated and not _is_odd(values, one):
        try:
            found = pa.array(values, target)
        except (pa.ArrowException, OverflowError, UnicodeError, TypeError, ValueError):
            pass  # found again below, where the row is known
        else:
            if one.kind != "float" or one.bits == 64 or not _lost_infinity(found, values):
                return found
    return _array_one_by_one(values, column, target, pa, first)


def _is_odd(values: Sequence[Any], one: Type) -> bool:
    """Whether a time has an offset where none should be, or the other way round, or is not UTC."""
    if one.kind not in ("time", "timestamp", "timestamptz"):
        return False
    zones = {value.tzinfo for value in values if value is not None}
    return bool(zones - ({UTC} if one.kind == "timestamptz" else {None}))


def _lost_infinity(found: Any, values: Sequence[Any]) -> bool:
    return any(
        after is not None and math.isinf(after) != math.isinf(before)
        for before, after in zip(values, found.to_pylist(), strict=True)
    )


def _array_one_by_one(values: Sequence[Any], column: Column, target: Any, pa: Any, first: int) -> Any:
    is_moment = column.type.kind in ("date", "timestamp", "timestamptz") and not _is_text(target, pa)
    stored = (pa.int32() if pa.types.is_date(target) else pa.int64()) if is_moment else target
    made: list[Any] = []
    for index, value in enumerate(values):
        try:
            made.append(None if value is None else _to_arrow(value, column.type, target, pa))
        except (OverflowError, TypeError, ValueError, InvalidOperation) as error:
            raise bad(column.name, first + index, value, f"cannot be {target}: {error}") from None
    try:
        found = pa.array(made, stored)
        if column.type.kind != "float" or not _lost_infinity(found, made):
            return found.cast(target) if is_moment else found
    except (pa.ArrowException, OverflowError, UnicodeError, TypeError, ValueError):
        pass  # found again below, where the row is known
    raise _first_bad(values, made, column, target, stored, pa, first)


def _first_bad(
    values: Sequence[Any], made: Sequence[Any], column: Column, target: Any, stored: Any, pa: Any, first: int
) -> BadValue:
    """The error for the first value that Arrow does not take."""
    for index, (value, one) in enumerate(zip(values, made, strict=True)):
        try:
            found = pa.array([one], stored)
        except (pa.ArrowException, OverflowError, UnicodeError, TypeError, ValueError) as error:
            return bad(column.name, first + index, value, f"cannot be {target}: {_reason(error)}")
        if column.type.kind == "float" and _lost_infinity(found, [one]):
            return bad(column.name, first + index, value, f"cannot be {target}: it is too large")
    return BadValue(f"column '{column.name}': the rows from {first} on are too large together for {target}")


def _reason(error: Exception) -> str:
    text = str(error)
    if "data loss" in text:
        return "it has more digits after the point"
    if "does not fit into precision" in text:
        return "it has more digits before the point"
    if isinstance(error, UnicodeError):
        return "it is no valid Unicode text"
    return text


def _to_arrow(value: Any, one: Type, target: Any, pa: Any) -> Any:
    """A value as `pa.array` takes it for this type.

    Raises:
        ValueError: Arrow cannot hold it; also TypeError, OverflowError.
    """
    match one.kind:
        case "bool":
            if value in (0, 1) and isinstance(value, int):
                return bool(value)
        case "int":
            if isinstance(value, int) and not isinstance(value, bool):
                return int(value)
        case "float":
            if isinstance(value, float | int | Decimal) and not isinstance(value, bool):
                return _float(value)
        case "decimal":
            if isinstance(value, Decimal | int) and not isinstance(value, bool):
                return _plain_decimal(value) if _is_text(target, pa) else _finite(value)
        case "text" | "json" | "enum" | "other":
            if isinstance(value, str):
                return value
        case "uuid":
            if isinstance(value, UUID | str):
                found = value if isinstance(value, UUID) else UUID(value)
                return str(found) if _is_text(target, pa) else found.bytes
        case "bytes":
            if isinstance(value, bytes | bytearray | memoryview):
                return bytes(value)
        case "timetz":
            if isinstance(value, time) and value.tzinfo is not None:
                return value.isoformat()
            if isinstance(value, str):
                return value
        case "interval":
            return _interval(value, as_text=_is_text(target, pa))
        case "array":
            if isinstance(value, str | list | tuple):
                return value if _is_text(target, pa) else _list(value, one, target, pa)
        case _:
            return _moment(value, one, target)
    raise TypeError(f"it is {_a(value)}")


def _a(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _float(value: float | int | Decimal) -> float:
    found = float(value)
    if not isinstance(value, float) and Decimal(value) != Decimal(found) and not found != found:  # noqa: PLR0124  NaN
        raise ValueError("it would be rounded")
    return found


def _finite(value: Decimal | int) -> Decimal | int:
    if isinstance(value, Decimal) and not value.is_finite():
        raise ValueError("a decimal of Arrow has no NaN and no infinity")
    return value


def _plain_decimal(value: Decimal | int) -> str:
    """As databases write it, `1E+2` is `100`."""
    return str(value) if isinstance(value, int) or not value.is_finite() else format(value, "f")


def _interval(value: Any, *, as_text: bool) -> Any:
    if isinstance(value, timedelta):
        micros = value // timedelta(microseconds=1)
        days, rest = divmod(abs(micros), _calendar.DAY_MICROSECONDS)
        sign = -1 if micros < 0 else 1
        months, days, nanoseconds = 0, sign * days, sign * rest * 1000
        return _calendar.text_of_interval(months, days, nanoseconds) if as_text else (months, days, nanoseconds)
    if not isinstance(value, str):
        raise TypeError(f"it is {_a(value)}")
    return value if as_text else _calendar.interval_of(value)


def _moment(value: Any, one: Type, target: Any) -> Any:
    """A time; a date or timestamp as the number that Arrow stores, also of text that Python cannot hold."""
    if isinstance(value, str):
        return _moment_of_text(value, one, target)
    if one.kind == "date" and isinstance(value, date) and not isinstance(value, datetime):
        return (value - date(1970, 1, 1)).days
    if one.kind == "time" and isinstance(value, time):
        if value.tzinfo is not None:
            raise ValueError("it has an offset from UTC")
        return value
    if one.kind in ("timestamp", "timestamptz") and isinstance(value, datetime):
        if one.kind == "timestamp" and value.tzinfo is not None:
            raise ValueError("it has a time zone")
        if one.kind == "timestamptz" and value.tzinfo is None:
            raise ValueError("it has no time zone")
        start = datetime(1970, 1, 1, tzinfo=UTC if value.tzinfo else None)
        return _in_unit((value - start) // timedelta(microseconds=1) * 1000, target)
    raise TypeError(f"it is {_a(value)}")


def _moment_of_text(value: str, one: Type, target: Any) -> Any:
    if one.kind == "date":
        return _calendar.days_of(value)
    if one.kind == "time":
        return time.fromisoformat(value)
    return _in_unit(_calendar.nanoseconds_of(value, zoned=one.kind == "timestamptz"), target)


def _in_unit(nanoseconds: int, target: Any) -> int:
    step = 10 ** (9 - _PRECISION[target.unit])
    if nanoseconds % step:
        raise ValueError("it has more digits after the second")
    return int(nanoseconds // step)


def _list(value: str | Sequence[Any], one: Type, target: Any, pa: Any) -> list[Any]:
    item = one.item
    if item is None:
        raise TypeError("it has no type of items")
    items = array_items(value) if isinstance(value, str) else value
    made = []
    for each in items:
        held = value_of(each, item) if isinstance(each, str) and isinstance(value, str) else each
        if held is not None and item.kind in ("date", "timestamp", "timestamptz"):
            made.append(_array_one_by_one([held], Column("", item), target.value_type, pa, 1)[0])
        else:
            made.append(None if held is None else _to_arrow(held, item, target.value_type, pa))
    return made


def bad(column: str, row: int, value: Any, reason: str) -> BadValue:
    """The error for a value: column, row from 1, the value's first characters, why."""
    text = value if isinstance(value, str) else str(value) if isinstance(value, Decimal) else repr(value)
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    shown = shown.encode("unicode_escape").decode() if not shown.isprintable() else shown
    return BadValue(f"column '{column}', row {row}: the value {shown!r} {reason}")


# -- text to values

_INT = re.compile(r"[+-]?\d+\Z", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\Z", re.ASCII)
_SPECIAL = re.compile(r"([+-]?inf(inity)?|nan)\Z", re.IGNORECASE)
_BOOLS = {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}


def value_of(text: str, one: Type) -> Any:
    """The value that a text is of this type, as rows have it.

    Raises:
        ValueError: it is none.
    """
    match one.kind:
        case "bool":
            if text.lower() not in _BOOLS:
                raise ValueError("it is neither true nor false")
            return _BOOLS[text.lower()]
        case "int":
            if not _INT.match(text):
                raise ValueError("it is no whole number")
            return int(text)
        case "float":
            return _float_of(text)
        case "decimal":
            if not (_NUMBER.match(text) or _SPECIAL.match(text)):
                raise ValueError("it is no number")
            return Decimal(text)
        case "bytes":
            return bytes_of(text)
        case "uuid":
            return str(UUID(text))
        case "date" | "time" | "timetz" | "timestamp" | "timestamptz":
            return _moment_value(text, one)
        case "text" if one.length is not None and len(text) > one.length:
            raise ValueError(f"it has {len(text)} characters")
        case _:
            return text


def _float_of(text: str) -> float:
    if not (_NUMBER.match(text) or _SPECIAL.match(text)):
        raise ValueError("it is no number")
    found = float(text)
    if math.isinf(found) and not _SPECIAL.match(text):
        raise ValueError("it is too large")
    if found == 0 and Decimal(text) != 0:
        raise ValueError("it is too small")
    return found


def bytes_of(text: str) -> bytes:
    r"""The bytes of `\xdeadbeef`."""
    if not text.startswith("\\x"):
        raise ValueError("bytes are written as \\x and hexadecimal digits")
    return bytes.fromhex(text[2:])


_LOOKS: dict[str, re.Pattern[str]] = {
    "date": re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII),
    "time": re.compile(r"\d\d:\d\d(:\d\d(\.\d{1,6})?)?\Z", re.ASCII),
    "timetz": re.compile(r"\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d(:?\d\d)?)\Z", re.ASCII),
    "timestamp": re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?\Z", re.ASCII),
    "timestamptz": re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d(:?\d\d)?)\Z", re.ASCII),
}


def _moment_value(text: str, one: Type) -> Any:
    """As Python has it; text when it is a date or time that Python cannot hold."""
    if _LOOKS[one.kind].match(text):
        match one.kind:
            case "date":
                return date.fromisoformat(text)
            case "time" | "timetz":
                if not text.startswith("24:"):
                    return time.fromisoformat(text)
            case _:
                return datetime.fromisoformat(text)
    if text.lower() in ("infinity", "-infinity") or text.startswith("24:00:00"):
        return text
    if one.kind == "date":
        _calendar.days_of(text)
    elif one.kind in ("timestamp", "timestamptz"):
        _calendar.nanoseconds_of(text, zoned=one.kind == "timestamptz")
    else:
        raise ValueError("it is no time")
    return text


def array_items(text: str) -> list[str | None]:
    """The items of PostgreSQL's `{1,NULL,"a b"}`.

    Raises:
        ValueError: it has more than one dimension or bounds of its own, which a list cannot hold.
    """
    if text.startswith("["):
        raise ValueError("a list has no bounds of its own")
    if not (text.startswith("{") and text.endswith("}")):
        raise ValueError("it is no array")
    items: list[str | None] = []
    body, at = text[1:-1], 0
    while body:
        found = _ITEM.match(body, at)
        if found is None:
            raise ValueError("a list has one dimension" if body[at : at + 1] == "{" else "it is no array")
        if found[1] is not None:
            items.append(_ESCAPED.sub(r"\1", found[1]))
        else:
            items.append(None if found[2].upper() == "NULL" else _ESCAPED.sub(r"\1", found[2]))
        at = found.end()
        if at == len(body):
            break
        if body[at] != ",":
            raise ValueError("it is no array")
        at += 1
    return items


_ITEM = re.compile(r'"((?:[^"\\]|\\.)*)"|((?:[^,{}"\\]|\\.)+)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def array_text(items: Iterable[Any]) -> str:
    """Items as PostgreSQL writes an array; the other way of `array_items`."""
    return "{" + ",".join("NULL" if one is None else _item_text(one) for one in items) + "}"


def _item_text(one: Any) -> str:
    text = text_of(one)
    if text and not re.search(r'[\s,{}"\\]', text) and text.upper() != "NULL":
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def text_of(value: Any) -> str:
    """A value of a row as PostgreSQL writes it; the other way of `value_of`."""
    match value:
        case bool():
            return "t" if value else "f"
        case Decimal():
            return _plain_decimal(value)
        case float():
            return _float_text(value)
        case datetime():
            return _without_zeros(value.isoformat(" ")).replace("+00:00", "+00")
        case date() | time():
            return _without_zeros(value.isoformat())
        case bytes():
            return "\\x" + value.hex()
        case timedelta():
            return str(_interval(value, as_text=True))
        case _:
            return str(value)


def _without_zeros(text: str) -> str:
    """A time without the zeros at the end of its fraction, as PostgreSQL writes it."""
    return _ZEROS.sub(lambda found: f".{found[1]}" if found[1] else "", text) if "." in text else text


_ZEROS = re.compile(r"\.(\d*?)0*(?=$|[+-])")


def _float_text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    text = repr(value).removesuffix(".0")
    if "e" in text or abs(value) < 1e15:
        return text
    digits = str(int(value)).rstrip("0").lstrip("-")
    exponent = len(str(abs(int(value)))) - 1
    return f"{'-' if value < 0 else ''}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e+{exponent}"


# -- Arrow to rows


def rows_of(batches: Iterable[pyarrow.RecordBatch], schema: Schema | None = None) -> Iterator[Rows]:
    """Record batches as rows, some at a time; `schema` says what text is (`schema_of` of the batches when None).

    Raises:
        BadValue: a row cannot hold a value; names column, row and value.
    """
    pa = arrow()
    first = 1
    for batch in batches:
        known = schema or schema_of(batch.schema)
        size = max(1, min(batch.num_rows, batch.num_rows * ROWS_BYTES // max(batch.nbytes, 1)))
        for start in range(0, batch.num_rows, size):
            part = batch.slice(start, size)
            columns = [
                _values(array, column, pa, first) for array, column in zip(part.columns, known.columns, strict=True)
            ]
            yield list(zip(*columns, strict=True))
            first += part.num_rows


def values_of(array: Any, column: Column, first: int = 1) -> list[Any]:
    """The values of one array as rows have them; `first` is the number of the first row, for messages."""
    return _values(array, column, arrow(), first)


def _values(array: Any, column: Column, pa: Any, first: int) -> list[Any]:
    """The values of an array as rows have them."""
    array = decoded(array, pa)
    found = array.type
    types = pa.types
    if _extension(found) == "arrow.uuid" or _extension(found) == "arrow.json" or _extension(found):
        is_uuid = _extension(found) == "arrow.uuid"
        kept = array.storage.to_pylist()
        return [None if one is None else str(UUID(bytes=one)) for one in kept] if is_uuid else kept
    if _is_text(found, pa):
        return _of_text(array.to_pylist(), column, first)
    if types.is_date(found):
        return _dates(array if types.is_date32(found) else array.cast(pa.date32()), pa)
    if types.is_time(found):
        return _times(array, pa)
    if types.is_timestamp(found):
        return _moments(array, pa, zoned=column.type.kind == "timestamptz")
    if types.is_duration(found):
        step = 10 ** (9 - _PRECISION[found.unit])
        return [None if one is None else _duration_text(one * step) for one in array.cast(pa.int64()).to_pylist()]
    if types.is_interval(found):
        return [
            None if one is None else _interval_text(one, column, first + at) for at, one in enumerate(array.to_pylist())
        ]
    if _is_list(found, pa) and column.type.kind == "array":
        return _lists(array, column, pa, first)
    if types.is_nested(found):
        return [None if one is None else json_text(one) for one in array.to_pylist()]
    values: list[Any] = array.to_pylist()
    return values


def decoded(array: Any, pa: Any) -> Any:
    """The array itself, without a dictionary or run lengths."""
    if pa.types.is_dictionary(array.type):
        return array.dictionary_decode()
    if str(array.type).startswith("run_end_encoded"):
        import pyarrow.compute

        return pyarrow.compute.run_end_decode(array)
    return array


def _of_text(texts: list[Any], column: Column, first: int) -> list[Any]:
    one = column.type
    if one.kind in ("text", "json", "enum", "other", "array", "interval") and (
        one.kind != "text" or one.length is None
    ):
        return texts
    made = []
    for at, text in enumerate(texts):
        try:
            made.append(None if text is None else value_of(text, one))
        except (ValueError, InvalidOperation) as error:
            raise bad(column.name, first + at, text, f"is no {one}: {error}") from None
    return made


def _dates(array: Any, pa: Any) -> list[Any]:
    try:
        values: list[Any] = array.to_pylist()
    except (ValueError, OverflowError):
        return [None if one is None else _date(one) for one in array.cast(pa.int32()).to_pylist()]
    return values


def _date(days: int) -> date | str:
    try:
        return date(1970, 1, 1) + timedelta(days=days)
    except OverflowError:
        return _calendar.text_of_days(days)


def _times(array: Any, pa: Any) -> list[Any]:
    step = 10 ** (9 - _PRECISION[array.type.unit])
    whole = pa.int64() if array.type.bit_width == 64 else pa.int32()
    return [None if one is None else _time(one * step) for one in array.cast(whole).to_pylist()]


def _time(nanoseconds: int) -> time | str:
    """The time of a day; text when it is 24:00:00 or has nanoseconds."""
    micros, rest = divmod(nanoseconds, 1000)
    if rest or not 0 <= micros < _calendar.DAY_MICROSECONDS:
        return _calendar.clock(nanoseconds)
    seconds, micros = divmod(micros, 1_000_000)
    return time(seconds // 3600, seconds // 60 % 60, seconds % 60, micros)


def _moments(array: Any, pa: Any, *, zoned: bool) -> list[Any]:
    zone = "UTC" if array.type.tz else None
    try:
        micros = array.cast(pa.timestamp("us", zone)).cast(pa.timestamp("us"))
        values: list[Any] = micros.to_pylist()
    except (pa.ArrowInvalid, ValueError, OverflowError):
        step = 10 ** (9 - _PRECISION[array.type.unit])
        return [None if one is None else _moment_of(one * step, zoned) for one in array.cast(pa.int64()).to_pylist()]
    return [None if one is None else one.replace(tzinfo=UTC) for one in values] if zoned else values


def _moment_of(nanoseconds: int, zoned: bool) -> datetime | str:
    if nanoseconds % 1000 == 0:
        start = datetime(1970, 1, 1, tzinfo=UTC if zoned else None)
        try:
            return start + timedelta(microseconds=nanoseconds // 1000)
        except OverflowError:
            pass
    return _calendar.text_of_nanoseconds(nanoseconds, zoned=zoned)


def _duration_text(nanoseconds: int) -> str:
    return _calendar.text_of_interval(0, 0, nanoseconds)


def _interval_text(one: Any, column: Column, row: int) -> str:
    text = _calendar.text_of_interval(*one)
    if one[2] % 1000:
        raise bad(column.name, row, text, "has nanoseconds, which no interval of a database holds")
    return text


def _lists(array: Any, column: Column, pa: Any, first: int) -> list[Any]:
    item = Column(column.name, column.type.item or Type("text"))
    made: list[Any] = []
    for at, one in enumerate(array):
        values = one.values
        made.append(None if values is None else array_text(_values(values, item, pa, first + at)))
    return made


def json_text(value: Any) -> str:
    """A struct, a map or a list of lists as JSON; numbers keep all their digits."""
    match value:
        case dict():
            return (
                "{"
                + ", ".join(f"{json.dumps(str(k), ensure_ascii=False)}: {json_text(v)}" for k, v in value.items())
                + "}"
            )
        case list():
            if value and all(isinstance(one, tuple) and len(one) == 2 for one in value):  # a map
                return json_text(dict(value))
            return "[" + ", ".join(map(json_text, value)) + "]"
        case None | bool() | int() | str():
            return json.dumps(value, ensure_ascii=False)
        case float() if math.isfinite(value):
            return repr(value)
        case Decimal() if value.is_finite():
            return _plain_decimal(value)
        case _:
            return json.dumps(text_of(value), ensure_ascii=False)


# -- Arrow to Arrow


def conformed(
    batch: pyarrow.RecordBatch, schema: Schema, target: pyarrow.Schema, first: int = 1
) -> pyarrow.RecordBatch:
    """A batch with exactly the fields of `target`, by position; what would lose something is refused.

    Raises:
        BadValue: a value does not fit; names column, row and value.
    """
    pa = arrow()
    if batch.schema.equals(target, check_metadata=True):
        return batch
    arrays = [
        _conformed(array, column, field.type, pa, first)
        for array, column, field in zip(batch.columns, schema.columns, target, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=target)


def _may_cast(found: Any, target: Any, pa: Any) -> bool:
    """Whether Arrow's own checked cast keeps each value or fails: the others go through rows."""
    types = pa.types
    if found.equals(target) or (_is_text(found, pa) and _is_text(target, pa)):
        return True
    if types.is_integer(found) and (types.is_integer(target) or types.is_decimal(target)):
        return True
    if types.is_decimal(found) and types.is_decimal(target):
        return True
    if types.is_timestamp(found) and types.is_timestamp(target):
        return bool(found.tz) == bool(target.tz)
    kinds = (types.is_time, types.is_date, types.is_null)
    binary = types.is_large_binary(found) and types.is_binary(target)
    return bool(binary) or types.is_null(found) or any(one(found) and one(target) for one in kinds)


def _conformed(array: Any, column: Column, target: Any, pa: Any, first: int) -> Any:
    array = decoded(array, pa)
    if array.type.equals(target):
        return array
    if _may_cast(array.type, target, pa):
        try:
            return array.cast(target)
        except pa.ArrowException:
            pass  # found again below, where the row is known
    known = Column(column.name, type_of(pa.field(column.name, array.type)))
    if _is_text(array.type, pa):
        known = column
    return _array(_values(array, known, pa, first), column, target, pa, first)
