"""Types of SQLite and of other dialects as SQLAlchemy tells them, there and back."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import types as sa

from .base import Refused
from .types import Column, Type

_DECLARED = re.compile(r"\s*(?P<name>[A-Za-z_ ]*?)\s*(?:\(\s*(?P<first>\d+)\s*(?:,\s*(?P<second>\d+)\s*)?\))?\s*$")
_EXACT_DIGITS = 18
"""So many digits fit into an integer of SQLite."""


def sqlite_type(declared: str) -> Type | None:
    """What a column of SQLite that was declared so holds; None when the word says nothing."""
    found = _DECLARED.match(declared.upper())
    name = found["name"] if found else ""
    first = int(found["first"]) if found and found["first"] else None
    second = int(found["second"]) if found and found["second"] else None

    def made(kind: Any, **more: Any) -> Type:
        return Type(kind, native=declared, dialect="sqlite", **more)

    if name in ("BOOLEAN", "BOOL"):
        return made("bool")
    if "INT" in name:
        return made("int", bits=64)
    if any(word in name for word in ("CHAR", "CLOB", "TEXT")):
        return made("text")  # SQLite keeps no text to its length
    if "BLOB" in name:
        return made("bytes")
    if any(word in name for word in ("REAL", "FLOA", "DOUB")):
        return made("float", bits=64)
    if name in ("NUMERIC", "DECIMAL"):
        return made("decimal", precision=first, scale=second if first is None else second or 0)
    if name == "DATE":
        return made("date")
    if name in ("DATETIME", "TIMESTAMP"):
        return made("timestamp", precision=6)
    if name == "TIME":
        return made("time", precision=6)
    return None


def type_from(one: Any, dialect: str) -> Type:
    """What a column holds, from the type that SQLAlchemy's inspection gives it."""
    native = str(one)
    if dialect == "sqlite":
        return sqlite_type(native) or Type("other", native=native, dialect=dialect)

    def made(kind: Any, **more: Any) -> Type:
        return Type(kind, native=native, dialect=dialect, **more)

    match one:
        case sa.Boolean():
            return made("bool")
        case sa.SmallInteger():
            return made("int", bits=16)
        case sa.BigInteger():
            return made("int", bits=64)
        case sa.Integer():
            return made("int", bits=32)
        case sa.Float():
            return made("float", bits=64)
        case sa.Numeric():
            return made("decimal", precision=one.precision, scale=one.scale)
        case sa.Enum():
            return made("enum", labels=tuple(one.enums))
        case sa.String():
            return made("text", length=one.length)
        case sa.LargeBinary():
            return made("bytes")
        case sa.Uuid():
            return made("uuid")
        case sa.JSON():
            return made("json")
        case sa.DateTime():
            return made("timestamptz" if one.timezone else "timestamp")
        case sa.Date():
            return made("date")
        case sa.Time():
            return made("time")
        case sa.Interval():
            return made("interval")
        case _:
            return made("other")


def sqlalchemy_type(column: Column, dialect: str) -> sa.TypeEngine[Any]:
    """The type that a new table gives a column.

    Raises:
        Refused: this dialect has none that holds all its values.
    """
    one = column.type
    if dialect == "sqlite":
        return _Native(one.native if one.dialect == "sqlite" and one.native else _for_sqlite(column))
    if one.native and one.dialect == dialect:
        return _Native(one.native)
    match one.kind:
        case "bool":
            return sa.Boolean()
        case "int" if one.unsigned and one.bits == 64:
            return sa.Numeric(20, 0)
        case "int":
            wide = one.bits * 2 if one.unsigned else one.bits
            return sa.SmallInteger() if wide <= 16 else sa.Integer() if wide <= 32 else sa.BigInteger()
        case "float":
            return sa.Double()
        case "decimal" if one.precision is not None:
            return sa.Numeric(one.precision, one.scale or 0)
        case "text":
            return sa.String(one.length) if one.length else sa.Text()
        case "enum" | "json":
            return sa.Text()
        case "bytes":
            return sa.LargeBinary()
        case "date":
            return sa.Date()
        case "time":
            return sa.Time()
        case "timestamp" | "timestamptz":
            return sa.DateTime(timezone=one.kind == "timestamptz")
        case "uuid":
            return sa.String(36)
        case _:
            raise Refused(
                f"column '{column.name}' is {one}, for which '{dialect}' has no type that holds all its values; "
                "cast it in the query"
            )


def _for_sqlite(column: Column) -> str:
    """The declared type of a new column of SQLite; what its numbers would round is kept as text."""
    one = column.type
    match one.kind:
        case "bool":
            return "BOOLEAN"
        case "int":
            return "TEXT" if one.unsigned and one.bits == 64 else "INTEGER"
        case "float":
            return "REAL"
        case "decimal" if one.precision is not None and not one.scale and one.precision <= _EXACT_DIGITS:
            return "INTEGER"
        case "bytes":
            return "BLOB"
        case "date":
            return "DATE"
        case "time":
            return "TIME"
        case "timestamp":
            return "DATETIME"
        case _:
            return "TEXT"


class _Native(sa.UserDefinedType[Any]):
    """A type as its database writes it; values are given to the driver as they are."""

    cache_ok = True

    def __init__(self, native: str) -> None:
        self.native = native

    def get_col_spec(self, **_: Any) -> str:
        return self.native
