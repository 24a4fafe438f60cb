"""The types of DuckDB, as its catalogue spells them, and the best of them for a column of any database; needs no DuckDB."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from .arrow_types import facts_of, type_of_facts  # the same words for what a text holds
from .base import Refused
from .types import Column, Type

DIALECT = "duckdb"
HELD_AS_TEXT = "rainbow.type "
"""How the comment of a VARCHAR column begins that holds values DuckDB has no type for; the facts follow as JSON."""

_PLAIN: dict[str, Type] = {
    "BOOLEAN": Type("bool"),
    "TINYINT": Type("int", bits=8),
    "SMALLINT": Type("int", bits=16),
    "INTEGER": Type("int", bits=32),
    "BIGINT": Type("int", bits=64),
    "UTINYINT": Type("int", bits=8, unsigned=True),
    "USMALLINT": Type("int", bits=16, unsigned=True),
    "UINTEGER": Type("int", bits=32, unsigned=True),
    "UBIGINT": Type("int", bits=64, unsigned=True),
    "HUGEINT": Type("decimal", precision=39, scale=0),
    "UHUGEINT": Type("decimal", precision=39, scale=0),
    "BIGNUM": Type("decimal"),
    "VARINT": Type("decimal"),
    "FLOAT": Type("float", bits=32),
    "DOUBLE": Type("float", bits=64),
    "VARCHAR": Type("text"),
    "BLOB": Type("bytes"),
    "DATE": Type("date"),
    "TIME": Type("time"),
    "TIME_NS": Type("time", precision=9),
    "TIME WITH TIME ZONE": Type("timetz"),
    "TIMESTAMP": Type("timestamp"),
    "TIMESTAMP_S": Type("timestamp", precision=0),
    "TIMESTAMP_MS": Type("timestamp", precision=3),
    "TIMESTAMP_NS": Type("timestamp", precision=9),
    "TIMESTAMP WITH TIME ZONE": Type("timestamptz"),
    "INTERVAL": Type("interval"),
    "UUID": Type("uuid"),
    "JSON": Type("json"),
}
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)\Z")
_ENUM = re.compile(r"ENUM\((.*)\)\Z", re.DOTALL)
_LABEL = re.compile(r"'((?:[^']|'')*)'")
_LIST = re.compile(r"(.*)\[\d*\]\Z", re.DOTALL)
_LOST_INSIDE = re.compile(r"\bU?HUGEINT\b|\bBIGNUM\b|\bVARINT\b|TIME WITH TIME ZONE|\bBIT\b|\bUNION\(")


def type_of(spelling: str, comment: str = "") -> Type:
    """What a type of DuckDB holds; the comment of a column may say that text holds something else."""
    _, found, facts = comment.rpartition(HELD_AS_TEXT)
    if found and spelling == "VARCHAR":
        one = type_of_facts(json.loads(facts))
        return replace(one, native=f"VARCHAR of {one}", dialect=DIALECT)
    return replace(_bare_type(spelling), native=spelling, dialect=DIALECT)


def _bare_type(spelling: str) -> Type:
    if spelling in _PLAIN:
        return _PLAIN[spelling]
    decimal = _DECIMAL.match(spelling)
    if decimal:
        return Type("decimal", precision=int(decimal[1]), scale=int(decimal[2]))
    enum = _ENUM.match(spelling)
    if enum:
        return Type("enum", labels=tuple(one.replace("''", "'") for one in _LABEL.findall(enum[1])))
    if spelling.startswith(("STRUCT", "MAP", "UNION")) and not spelling.endswith("]"):
        return Type("json")
    of_list = _LIST.match(spelling)
    if of_list:
        item = type_of(of_list[1])
        return Type("array", item=item) if item.kind not in ("array", "json", "other") else Type("json")
    return Type("other")


def read_as(column: Column, name: str) -> str:
    """The expression that gives a column to Arrow without a loss: some types go as their text.

    Raises:
        Refused: a nested value holds what Arrow would change.
    """
    one = column.type
    is_nested = one.kind == "json" and one.native != "JSON"
    if is_nested and _LOST_INSIDE.search(one.native):
        raise Refused(f"column '{column.name}' is {one.native}, which cannot be read exactly; cast it, e.g. to VARCHAR")
    if one.kind in ("uuid", "timetz", "enum", "other") or one.native in ("HUGEINT", "UHUGEINT", "BIGNUM", "VARINT"):
        return f"CAST({name} AS VARCHAR)"
    if one.kind == "json" and not is_nested:
        return f"CAST({name} AS VARCHAR)"
    if one.kind == "array" and one.item is not None and _is_read_as_text(one.item):
        return f"CAST({name} AS VARCHAR[])"
    return name


def _is_read_as_text(item: Type) -> bool:
    return item.kind in ("uuid", "timetz", "enum") or item.native in ("HUGEINT", "UHUGEINT", "BIGNUM", "VARINT")


def spelled(column: Column) -> str:
    """The type of DuckDB that holds all values of a column: its own, else the best; VARCHAR where there is none.

    Raises:
        Refused: there is no such type, for an array.
    """
    one = column.type
    if one.dialect == DIALECT and one.native:
        return "VARCHAR" if one.native.startswith("VARCHAR of ") else one.native
    return _spelled(one, column.name)


def _spelled(one: Type, name: str) -> str:
    match one.kind:
        case "int":
            size = next(bits for bits in (8, 16, 32, 64) if bits >= one.bits)
            word = {8: "TINYINT", 16: "SMALLINT", 32: "INTEGER", 64: "BIGINT"}[size]
            return f"U{word}" if one.unsigned else word
        case "float":
            return "FLOAT" if one.bits == 32 else "DOUBLE"
        case "decimal":
            return _decimal(one)
        case "time":
            return "TIME" if (one.precision or 0) <= 6 else "VARCHAR"
        case "timestamp":
            return "TIMESTAMP" if (one.precision or 0) <= 6 else "TIMESTAMP_NS"
        case "timestamptz":
            return "TIMESTAMP WITH TIME ZONE" if (one.precision or 0) <= 6 else "VARCHAR"
        case "enum" if one.labels:
            return "ENUM(" + ", ".join("'" + label.replace("'", "''") + "'" for label in one.labels) + ")"
        case "array" if one.item is not None:
            item = _spelled(one.item, name)
            if item == "VARCHAR" and one.item.kind not in ("text", "enum"):
                raise Refused(f"column '{name}' is {one}, and DuckDB has no type for its items; cast it to text")
            return f"{item}[]"
        case _:
            return _WORDS.get(one.kind, "VARCHAR")


_WORDS = {
    "bool": "BOOLEAN",
    "bytes": "BLOB",
    "date": "DATE",
    "timetz": "TIME WITH TIME ZONE",
    "interval": "INTERVAL",
    "uuid": "UUID",
    "json": "JSON",
}


def _decimal(one: Type) -> str:
    if one.precision is None:
        return "VARCHAR"
    scale = max(one.scale or 0, 0)
    digits = max(one.precision - min(one.scale or 0, 0), scale, 1)
    return f"DECIMAL({digits},{scale})" if digits <= 38 else "VARCHAR"


def comment_of(column: Column) -> str:
    """The comment that a new column gets: its own, and what its text holds where DuckDB has no type for it."""
    if spelled(column) != "VARCHAR" or column.type.kind in ("text", "enum"):
        return column.comment
    facts = HELD_AS_TEXT + json.dumps(facts_of(column.type), separators=(",", ":"), ensure_ascii=False)
    return f"{column.comment}\n{facts}" if column.comment else facts
