"""Types of PostgreSQL from its catalogue and back, and the proof that binary COPY may carry a column as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .base import Refused
from .types import Column, Schema, Type

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

DIALECT = "postgresql"
_MOST_DIGITS = 1000
_LONGEST_TEXT = 10_485_760
_OF_OTHER_OBJECTS = re.compile(r"reg[a-z]+")
_NO_BINARY = frozenset(
    {"aclitem", "gtsvector", "record", "pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list"}
)
_SCHEMA_OF = re.compile(r'^(?:"(?:[^"]|"")*"|[^".]+)\.')

_PLAIN: dict[str, Type] = {
    "bool": Type("bool"),
    "int2": Type("int", bits=16),
    "int4": Type("int", bits=32),
    "int8": Type("int", bits=64),
    "oid": Type("int", bits=32, unsigned=True),
    "float4": Type("float", bits=32),
    "float8": Type("float", bits=64),
    "numeric": Type("decimal"),
    "text": Type("text"),
    "varchar": Type("text"),
    "bpchar": Type("text"),
    "bytea": Type("bytes"),
    "date": Type("date"),
    "time": Type("time"),
    "timetz": Type("timetz"),
    "timestamp": Type("timestamp"),
    "timestamptz": Type("timestamptz"),
    "interval": Type("interval"),
    "uuid": Type("uuid"),
    "json": Type("json"),
    "jsonb": Type("json"),
}
"""Kinds of the types in `pg_catalog`, by name; `name` is none, since it would cut text silently."""

_CATALOGUE = """
select t.oid, w.typmod, t.typname::text, t.typtype::text, n.nspname = 'pg_catalog',
    case when n.nspname <> 'pg_catalog' and pg_type_is_visible(t.oid) then quote_ident(n.nspname) || '.' else '' end
        || format_type(t.oid, w.typmod),
    case when e.typarray = t.oid then e.oid end,
    t.typbasetype, t.typtypmod, r.rngsubtype,
    array(select enumlabel::text from pg_enum where enumtypid = t.oid order by enumsortorder),
    array(select a.attname::text from pg_attribute a
        where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped order by a.attnum),
    array(select a.atttypid from pg_attribute a
        where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped order by a.attnum),
    array(select a.atttypmod from pg_attribute a
        where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped order by a.attnum)
from unnest(%s::oid[], %s::int4[]) as w(oid, typmod)
join pg_type t on t.oid = w.oid join pg_namespace n on n.oid = t.typnamespace
left join pg_type e on e.oid = t.typelem and t.typelem <> 0
left join pg_range r on t.oid = r.rngtypid
"""

Place = tuple[int, int]
"""OID and typmod of a type."""


def types(connection: Connection, wanted: Iterable[Place]) -> dict[Place, Type]:
    """The types of these OIDs and typmods; a domain is the type below it, for its values and bytes are the same."""
    rows: dict[Place, tuple[Any, ...]] = {}
    missing = set(wanted)
    while missing:
        oids, typmods = zip(*sorted(missing), strict=True)
        for row in connection.execute(_CATALOGUE.encode(), [list(oids), list(typmods)]):
            rows[row[0], row[1]] = row
        missing = {one for row in rows.values() for one in _needed(row)} - set(rows)
    return {place: _type(place, rows) for place in rows}


def _needed(row: tuple[Any, ...]) -> list[Place]:
    _, typmod, _, kind, is_system, _, item, base, base_typmod, subtype, _, _, fields, typmods = row
    if item is not None:
        return [(item, typmod)]
    if kind == "d":
        return [(base, base_typmod)]
    if subtype is not None:
        return [(subtype, -1)]
    return [] if is_system else list(zip(fields, typmods, strict=True))


def _type(place: Place, rows: dict[Place, tuple[Any, ...]]) -> Type:
    _, typmod, name, kind, is_system, native, item, base, base_typmod, subtype, labels, attributes, *_ = rows[place]
    if item is not None:
        inner = _type((item, typmod), rows)
        return Type("array", item=inner, native=f"{inner.native}[]", dialect=DIALECT)
    if kind == "d":
        return _type((base, base_typmod), rows)
    if kind == "e":
        return Type("enum", labels=tuple(labels), native=native, dialect=DIALECT)
    if subtype is not None:
        return Type("other", item=_type((subtype, -1), rows), native=native, dialect=DIALECT)
    if is_system:
        return replace(_system_type(name, typmod, native), native=native, dialect=DIALECT)
    fields = zip(attributes, (_type(one, rows) for one in _needed(rows[place])), strict=True)
    plain = Type("text") if name == "citext" else Type("other", fields=tuple(fields))
    return replace(plain, native=native, dialect=DIALECT)


def _system_type(name: str, typmod: int, native: str) -> Type:
    found = _PLAIN.get(name, Type("other"))
    if typmod < 0:
        return found
    match name:
        case "numeric":
            scale = (typmod - 4) & 0x7FF
            return replace(found, precision=((typmod - 4) >> 16) & 0xFFFF, scale=(scale ^ 1024) - 1024)
        case "varchar" | "bpchar":
            return replace(found, length=typmod - 4, fixed=name == "bpchar")
        case "interval":  # one of certain fields cuts the others off
            digits = typmod & 0xFFFF
            if (typmod >> 16) & 0x7FFF != 0x7FFF:
                return Type("other")
            return replace(found, precision=None if digits == 0xFFFF else digits)
        case "time" | "timetz" | "timestamp" | "timestamptz":
            return replace(found, precision=typmod)
        case _:
            return found


# -- tables

_TABLE = """
select c.oid, coalesce(obj_description(c.oid, 'pg_class'), '')
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = %s and c.relname = %s and c.relkind in ('r', 'p', 'v', 'm', 'f')
"""

_COLUMNS = """
with recursive base as (
    select a.attnum, a.atttypid as oid, false as must from pg_attribute a where a.attrelid = %(table)s and a.attnum > 0
    union all
    select b.attnum, t.typbasetype, t.typnotnull from base b join pg_type t on t.oid = b.oid where t.typtype = 'd'
)
select a.attname::text, a.atttypid, a.atttypmod,
    not (a.attnotnull or exists (
        select from base b join pg_type t on t.oid = b.oid where b.attnum = a.attnum and (b.must or t.typnotnull)
    )),
    coalesce(col_description(a.attrelid, a.attnum), ''),
    pg_get_expr(d.adbin, d.adrelid), a.attgenerated::text, a.attidentity::text,
    exists (
        select from pg_depend s join pg_class q on q.oid = s.objid and q.relkind = 'S'
        where s.classid = 'pg_class'::regclass and s.refclassid = 'pg_class'::regclass and s.deptype = 'a'
        and s.refobjid = a.attrelid and s.refobjsubid = a.attnum
    )
from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attrelid = %(table)s and a.attnum > 0 and not a.attisdropped order by a.attnum
"""

_KEYS = """
select a.attname::text from pg_index i
cross join unnest(i.indkey::int2[]) with ordinality as k(attnum, n)
join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
where i.indrelid = %s and i.indisprimary and k.n <= i.indnkeyatts order by k.n
"""


def table_schema(connection: Connection, schema: str, name: str) -> Schema | None:
    """The columns, primary key and comments of a table or view, None when there is none of this name."""
    found = connection.execute(_TABLE.encode(), [schema, name]).fetchone()
    if found is None:
        return None
    table, comment = found
    rows = connection.execute(_COLUMNS.encode(), {"table": table}).fetchall()
    known = types(connection, {(row[1], row[2]) for row in rows})
    keys = connection.execute(_KEYS.encode(), [table]).fetchall()
    return Schema(tuple(_column(row, known) for row in rows), tuple(row[0] for row in keys), comment)


def _column(row: tuple[Any, ...], known: dict[Place, Type]) -> Column:
    name, oid, typmod, nullable, comment, default, generated, identity, is_serial = row
    if generated:
        return Column(name, known[oid, typmod], nullable, comment, default, "stored")
    if identity:
        return Column(name, known[oid, typmod], nullable, comment, default, "always" if identity == "a" else "default")
    return Column(name, known[oid, typmod], nullable, comment, default, "serial" if is_serial and default else "")


# -- the type of a new column


def type_of(column: Column) -> str:
    """The type of PostgreSQL for a column of any database that holds all its values as they are.

    Raises:
        Refused: there is none.
    """
    spelled = _spelled(column.type)
    if spelled is None:
        raise Refused(
            f"column '{column.name}' is {column.type}, and PostgreSQL has no type that holds all its values;"
            " cast it in the query, e.g. to text"
        )
    return spelled


def _spelled(one: Type) -> str | None:
    if one.dialect == DIALECT and one.native:
        return None if one.native in ("record", "unknown") or one.native.startswith("record[") else one.native
    match one.kind:
        case "bool" | "date" | "uuid" | "json":
            return {"bool": "boolean"}.get(one.kind, one.kind)
        case "int":
            return _int(one)
        case "float":
            return "real" if one.bits <= 32 else "double precision"
        case "decimal":
            return _decimal(one)
        case "text":
            return f"character varying({one.length})" if 0 < (one.length or 0) <= _LONGEST_TEXT else "text"
        case "bytes":
            return "bytea"
        case "time" | "timetz" | "timestamp" | "timestamptz":
            return _time(one)
        case "interval":
            return "interval" if (one.precision or 0) <= 6 else None
        case "enum" | "other":
            return "text"
        case "array" if one.item is not None:
            inner = _spelled(one.item)
            return f"{inner}[]" if inner else None
        case _:
            return None


def _int(one: Type) -> str:
    bits = one.bits + one.unsigned
    return "smallint" if bits <= 16 else "integer" if bits <= 32 else "bigint" if bits <= 64 else "numeric(20,0)"


def _decimal(one: Type) -> str:
    """Of a scale from 0 to the precision, which servers before 15 ask for."""
    if one.precision is None:
        return "numeric"
    scale = max(one.scale or 0, 0)
    digits = max(one.precision - min(one.scale or 0, 0), scale, 1)
    return f"numeric({digits},{scale})" if digits <= _MOST_DIGITS else "numeric"


def _time(one: Type) -> str | None:
    """Without the digits of what has them all: 6 is what PostgreSQL has at most."""
    if (one.precision or 0) > 6:
        return None
    name, zone = one.kind.removesuffix("tz"), "with" if one.kind.endswith("tz") else "without"
    digits = "" if one.precision in (None, 6) else f"({one.precision})"
    return f"{name}{digits} {zone} time zone"


# -- binary COPY


def is_binary_equal(source: Column, sink: Column) -> bool:
    """Whether the bytes of one column's binary COPY mean the same in the other one.

    PostgreSQL takes those of any type that happens to have the same length (a date becomes an integer): the types must be
    equal, with their lengths and digits. Types of users must have the same name, in whichever schema, and the same parts.
    """
    return _is_equal(source.type, sink.type)


def _is_equal(source: Type, sink: Type) -> bool:
    if source.dialect != DIALECT or sink.dialect != DIALECT or source.kind != sink.kind or not source.native:
        return False
    if source.item is not None and sink.item is not None and source.kind == "array":
        return _is_equal(source.item, sink.item)
    if _OF_OTHER_OBJECTS.fullmatch(source.native) or source.native in _NO_BINARY:  # numbers of objects, not their names
        return False
    if _SCHEMA_OF.sub("", source.native) != _SCHEMA_OF.sub("", sink.native):
        return False
    if bool(_SCHEMA_OF.match(source.native)) != bool(_SCHEMA_OF.match(sink.native)):
        return False
    if source.kind == "enum":
        return source.labels == sink.labels
    return _are_parts_equal(source, sink)


def _are_parts_equal(source: Type, sink: Type) -> bool:
    """The subtype of a range, the attributes of a composite."""
    if (source.item is None) != (sink.item is None) or len(source.fields) != len(sink.fields):
        return False
    if source.item is not None and sink.item is not None and not _is_equal(source.item, sink.item):
        return False
    return all(a[0] == b[0] and _is_equal(a[1], b[1]) for a, b in zip(source.fields, sink.fields, strict=True))
