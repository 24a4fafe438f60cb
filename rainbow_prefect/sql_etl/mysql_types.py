"""Types of MySQL and MariaDB, from their catalogue and from the description of a statement, and as new tables get them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .base import Refused
from .types import Column, Type

BINARY = 63
"""The number of the character set of bytes."""

MOST_COLUMNS = 1017
MOST_NAME = 64
MOST_KEY_BYTES = 3072

_LABEL = re.compile(r"'((?:[^']|'')*)'")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "0": "\0", "Z": "\x1a"}
_INTS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "integer": 32, "bigint": 64}
_BLOBS = {"tinyblob": 255, "blob": 65_535, "mediumblob": 16_777_215, "longblob": None}
_TEXTS = {"tinytext": 255, "text": 65_535, "mediumtext": 16_777_215, "longtext": None}
_GEOMETRY = ("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon")
_OWN_TEXT = ("inet4", "inet6", "xmltype")


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a statement as the server describes it before it runs."""

    name: str
    code: int
    charset: int
    length: int
    flags: int
    decimals: int
    database: str = ""
    table: str = ""
    column: str = ""

    @property
    def unsigned(self) -> bool:
        return bool(self.flags & 0x20)

    @property
    def not_null(self) -> bool:
        return bool(self.flags & 1)


# -- from the catalogue


def from_catalogue(row: Mapping[str, Any], dialect: str, *, is_sink: bool = False, is_json: bool = False) -> Type:
    """The type of a column of information_schema.columns (names in lower case).

    Of a source it is what values may come, of a sink what values are sure to fit: a `text` gives up to 65535 characters and
    takes 16383 of four bytes; `tinyint(1)` takes a bool and may give 2.
    """
    data, native = str(row["data_type"]).lower(), str(row["column_type"])
    unsigned = "unsigned" in native
    length = None if row["character_maximum_length"] is None else int(row["character_maximum_length"])

    def made(kind: Any, **more: Any) -> Type:
        return Type(kind, native=native, dialect=dialect, **more)

    if is_json or data == "json":
        return made("json")
    if data in _INTS:
        if is_sink and native.startswith("tinyint(1)"):
            return made("bool")
        bits = _INTS[data] if is_sink or data != "mediumint" else 32
        return made("int", bits=bits, unsigned=unsigned)
    if data in _TEXTS:
        return made("text", length=_characters(_TEXTS[data], row, is_sink))
    if data in _BLOBS:
        return made("bytes", length=_BLOBS[data])
    match data:
        case "decimal" | "numeric":
            return made("decimal", precision=int(row["numeric_precision"]), scale=int(row["numeric_scale"]))
        case "float" | "double" | "real":
            return made("float", bits=32 if data == "float" else 64)
        case "bit":
            return _bits(int(row["numeric_precision"]), native, dialect, is_sink=is_sink)
        case "year":
            return made("other") if is_sink else made("int", bits=16)
        case "date":
            return made("date")
        case "time" | "datetime" | "timestamp":
            kind = {"datetime": "timestamp", "timestamp": "timestamptz"}.get(data, data)
            return made(kind, precision=int(row["datetime_precision"] or 0))
        case "char" | "varchar":
            return made("text", length=length, fixed=data == "char")
        case "binary" | "varbinary":
            return made("bytes", length=length, fixed=data == "binary")
        case "enum":
            return made("enum", labels=labels(native))
        case "set":
            return made("text", length=length)
        case "uuid":
            return made("uuid")
    return made("other")


def labels(native: str) -> tuple[str, ...]:
    """The labels of `enum('a','b''c')`."""
    texts = (one.replace("''", "'") for one in _LABEL.findall(native[native.find("(") :]))
    return tuple(_ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), one) for one in texts)


def _characters(most: int | None, row: Mapping[str, Any], is_sink: bool) -> int | None:
    if most is None or not is_sink:
        return most
    return most // {"latin1": 1, "ascii": 1, "utf8mb3": 3, "utf8": 3, "ucs2": 2}.get(row["character_set_name"] or "", 4)


def _bits(width: int, native: str, dialect: str, *, is_sink: bool = False) -> Type:
    if width == 1:
        return Type("bool", native=native, dialect=dialect)
    bits = width if is_sink else next(one for one in (8, 16, 32, 64) if width <= one)
    return Type("int", bits=bits, unsigned=True, native=native, dialect=dialect)


# -- from the description of a statement

_CODES: dict[int, tuple[str, ...]] = {
    1: ("tinyint",),
    2: ("smallint",),
    3: ("int", "integer"),
    8: ("bigint",),
    9: ("mediumint",),
    4: ("float",),
    5: ("double", "real"),
    246: ("decimal", "numeric"),
    0: ("decimal", "numeric"),
    7: ("timestamp",),
    10: ("date",),
    14: ("date",),
    11: ("time",),
    12: ("datetime",),
    13: ("year",),
    16: ("bit",),
    245: ("json",),
    252: (*_TEXTS, *_BLOBS, "json"),
    249: (*_TEXTS, *_BLOBS),
    250: (*_TEXTS, *_BLOBS),
    251: (*_TEXTS, *_BLOBS),
    253: ("varchar", "varbinary", *_OWN_TEXT),
    15: ("varchar", "varbinary"),
    254: ("char", "binary", "enum", "set", "uuid", *_OWN_TEXT),
    255: _GEOMETRY,
}


def is_of(field: Field, row: Mapping[str, Any]) -> bool:
    """Whether a column of the catalogue is the one that the description speaks of: one table may be named as another one."""
    data = str(row["data_type"]).lower()
    if data not in _CODES.get(field.code, ()):
        return False
    if data in ("enum", "set"):
        return bool(field.flags & (0x100 if data == "enum" else 0x800)) and field.length == 4 * int(
            row["character_maximum_length"]
        )
    if data in ("char", "varchar"):
        return field.length == 4 * int(row["character_maximum_length"])
    if data in ("decimal", "numeric"):
        return (described(field, "").precision, field.decimals) == (
            int(row["numeric_precision"]),
            int(row["numeric_scale"]),
        )
    return True


def described(field: Field, dialect: str) -> Type:
    """What a column of a statement may hold, from its description alone."""
    code, unsigned = field.code, field.unsigned

    def made(kind: Any, native: str = "", **more: Any) -> Type:
        return Type(kind, native=native, dialect=dialect, **more)

    match code:
        case 1 | 2 | 3 | 8 | 9:
            bits = {1: 8, 2: 16, 3: 32, 8: 64, 9: 32}[code]
            name = {1: "tinyint", 2: "smallint", 3: "int", 8: "bigint", 9: "mediumint"}[code]
            return made("int", f"{name} unsigned" if unsigned else name, bits=bits, unsigned=unsigned)
        case 4 | 5:
            return made("float", "float" if code == 4 else "double", bits=32 if code == 4 else 64)
        case 0 | 246:
            digits = field.length - (field.decimals > 0) - (not unsigned)
            return made(
                "decimal",
                f"decimal({min(max(digits, 1), 65)},{field.decimals})",
                precision=min(max(digits, 1), 65),
                scale=field.decimals,
            )
        case 16:
            return _bits(field.length, f"bit({field.length})", dialect)
        case 13:
            return made("int", "year(4)", bits=16)
        case 10 | 14:
            return made("date", "date")
        case 7 | 11 | 12:
            digits = field.decimals if field.decimals <= 6 else 6
            kind = {7: "timestamptz", 11: "time", 12: "timestamp"}[code]
            name = {7: "timestamp", 11: "time", 12: "datetime"}[code]
            return made(kind, f"{name}({digits})" if digits else name, precision=digits)
        case 245:
            return made("json")
        case 255:
            return made("other", "geometry")
        case 6:
            return made("text", length=0)
    if field.charset == BINARY:
        return made("bytes", length=_limit(field.length))
    return made("text", length=_limit(field.length // 4))


def _limit(length: int) -> int | None:
    return None if length >= 1_000_000_000 else length


# -- as new tables get them


def native_of(column: Column, dialect: str, *, has_uuid: bool) -> str:
    """The type that a new table gives a column, without its nullability.

    Raises:
        Refused: there is none that holds all its values.
    """
    one = column.type
    if one.dialect == dialect and one.native and one.kind != "json":
        return one.native
    match one.kind:
        case "bool":
            return "tinyint(1)"
        case "int":
            name = next(name for name, bits in _INTS.items() if one.bits <= bits)
            return f"{name} unsigned" if one.unsigned else name
        case "float":
            return "float" if one.bits == 32 else "double"
        case "decimal":
            return _decimal(column)
        case "text":
            return _text(column)
        case "bytes":
            return _bytes(one)
        case "date":
            return "date"
        case "time" | "timestamp" | "timestamptz":
            name = {"timestamp": "datetime", "timestamptz": "timestamp"}.get(one.kind, one.kind)
            return f"{name}({6 if one.precision is None else one.precision})"
        case "enum" if one.labels and all(one.labels) and all(len(label) <= 255 for label in one.labels):
            return f"enum({','.join(_quoted(label) for label in one.labels)})"
        case "json":
            return f"longtext check (json_valid({ticked(column.name)}))"
        case "uuid" if has_uuid:
            return "uuid"
    raise _refused(column, dialect)


def ticked(name: str) -> str:
    """A name as SQL writes it."""
    return "`" + name.replace("`", "``") + "`"


def _quoted(label: str) -> str:
    return "'" + label.replace("\\", "\\\\").replace("'", "''") + "'"


def _decimal(column: Column) -> str:
    one = column.type
    if one.precision is None:
        raise Refused(
            f"column '{column.name}' is {one} without a limit of digits, and MySQL has no such type;"
            f" give it one in the query, e.g. cast({column.name} as decimal(38,10))"
        )
    scale = one.scale or 0
    precision = max(one.precision - scale, one.precision) if scale < 0 else max(one.precision, scale)
    scale = max(scale, 0)
    if precision > 65 or scale > 30:
        raise Refused(f"column '{column.name}' is {one}, and MySQL takes at most decimal(65,30); cast it in the query")
    return f"decimal({precision},{scale})"


def _text(column: Column) -> str:
    one = column.type
    if one.fixed and one.length is not None:
        if one.length > 255:
            raise Refused(
                f"column '{column.name}' is {one}, and char of MySQL takes at most 255 characters;"
                f" cast it to varchar({one.length}) in the query"
            )
        return f"char({one.length})"
    if one.length is None or one.length > 4_194_303:
        return "longtext"
    if one.length <= 1024:
        return f"varchar({max(one.length, 1)})"
    return "text" if one.length <= 16_383 else "mediumtext"


def wide_text(length: int) -> str:
    """The type of text of this length that takes no room of its row."""
    return "tinytext" if length <= 63 else "text"


def _bytes(one: Type) -> str:
    if one.length is None or one.length > 16_777_215:
        return "longblob"
    if one.fixed and one.length <= 255:
        return f"binary({one.length})"
    if one.length <= 1024:
        return f"varbinary({max(one.length, 1)})"
    return "blob" if one.length <= 65_535 else "mediumblob"


def _refused(column: Column, dialect: str) -> Refused:
    name = "MariaDB" if dialect == "mariadb" else "MySQL"
    if column.type.dialect == "postgresql":
        how = f"cast it in the query, e.g. {column.name}::text"
    else:
        how = "cast it in the query, e.g. to text"
    return Refused(f"column '{column.name}' is {column.type}, and {name} has no type that holds all its values; {how}")
