"""The statements that make a table in PostgreSQL, its enum types and comments; names that the server would cut are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .base import Job, Refused
from .postgres_ledger import quoted
from .types import Column, Type

NAME_BYTES = 63


def refuse_long_names(job: Job) -> None:
    """PostgreSQL cuts a longer name and says so in a notice only.

    Raises:
        Refused: there is one, or a column comes twice.
    """
    named = [("schema", job.table[0] or ""), ("table", job.table[1]), *(("column", one) for one in job.schema.names)]
    for what, name in named:
        size = len(name.encode())
        if size > NAME_BYTES:
            raise Refused(
                f"the name of the {what} '{name}' has {size} bytes, PostgreSQL takes {NAME_BYTES}; shorten it"
            )
    names = job.schema.names
    twice = sorted({one for one in names if names.count(one) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise Refused(f"the query gives the column '{twice[0]}' more than once; name each column once with AS")


def create_table(job: Job, schema: str) -> list[str]:
    """The statements that make the table of a job: its enum types, the table with its keys, and comments.

    Raises:
        Refused: PostgreSQL has no type that holds all values of a column.
    """
    table = quoted(schema, job.table[1])
    lines = [_column(one, job, schema) for one in job.schema.columns]
    if job.keys:
        lines.append(f"PRIMARY KEY ({', '.join(map(quoted, job.keys))})")
    inner = "".join(f"\n    {one}" + ("," if one is not lines[-1] else "") for one in lines)
    enums = [_enum(one.type, schema) for one in job.schema.columns if _enum_of(one.type) is not None]
    comments = [
        f"COMMENT ON COLUMN {table}.{quoted(one.name)} IS {text(one.comment)}"
        for one in job.schema.columns
        if one.comment
    ]
    about = [f"COMMENT ON TABLE {table} IS {text(job.schema.comment)}"] if job.schema.comment else []
    return [*dict.fromkeys(enums), f"CREATE TABLE {table} ({inner}\n)", *about, *comments]


def alter_table(job: Job, schema: str, added: Sequence[Column], widened: Sequence[Column]) -> list[str]:
    """The statements that add columns, which may be NULL, and give others their types; a list that is empty does nothing."""
    table = quoted(schema, job.table[1])
    enums = [_enum(one.type, schema) for one in added if _enum_of(one.type) is not None]
    bare = replace(job, keys=())
    steps = [f"ADD COLUMN {_column(replace(one, nullable=True), bare, schema)}" for one in added]
    steps += [f"ALTER COLUMN {quoted(one.name)} TYPE {_type(one, schema)}" for one in widened]
    return [*dict.fromkeys(enums), *(f"ALTER TABLE {table} {one}" for one in steps)]


def text(value: str) -> str:
    """A text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"


def _column(column: Column, job: Job, schema: str) -> str:
    must = "" if column.nullable and column.name not in job.keys else " NOT NULL"
    return f"{quoted(column.name)} {_type(column, schema)}{must}"


def _type(column: Column, schema: str) -> str:
    from .postgres_types import type_of

    enum = _enum_of(column.type)
    return type_of(column) if enum is None else _enum_name(enum, schema) + "[]" * (column.type.kind == "array")


# -- enum types


def _enum_of(kind: Type) -> Type | None:
    """The enum that a column or its items are, when a type of the database says its labels."""
    one = kind.item if kind.kind == "array" and kind.item is not None else kind
    return one if one.kind == "enum" and one.labels and one.dialect == "postgresql" else None


def _enum_name(kind: Type, schema: str) -> str:
    """The own name of a type, in the schema of the table."""
    bare = kind.native.rpartition(".")[2].strip('"') or "enum"
    return quoted(schema, bare)


def _enum(column: Type, schema: str) -> str:
    """Make an enum type unless it is there; another one of its name has other labels, which is found by its proof."""
    kind = _enum_of(column)
    assert kind is not None
    name = _enum_name(kind, schema)
    labels = ", ".join(text(one) for one in kind.labels)
    made = f"CREATE TYPE {name} AS ENUM ({labels})"
    return f"DO $do$ BEGIN {made}; EXCEPTION WHEN duplicate_object THEN NULL; END $do$"
