"""What may change in a table when other columns come than it has: asked before anything is written, done with the load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from ..schema import Config
from .base import Job, Query, Reader, Refused, Writer
from .types import Column, Schema, Type, fit


class Contract(Config):
    """What a load may change in its table: `evolve` changes it, `freeze` ends the load before anything is written."""

    tables: Literal["evolve", "freeze"] = Field(
        default="evolve", description="A table that does not exist: make it, or fail."
    )
    columns: Literal["evolve", "freeze", "discard_column"] = Field(
        default="freeze",
        description="A column that the table does not have: add it (it may be NULL), fail, or leave it out of the load.",
    )
    types: Literal["evolve", "freeze", "discard_row"] = Field(
        default="freeze",
        description="A column whose type in the table is too narrow: widen it to one that holds both, fail, or leave out the "
        "rows whose values do not fit.",
    )


@dataclass(frozen=True)
class Agreed:
    """The columns that are loaded, the table as it will be then, and the statements that make it so."""

    came: Schema
    existing: Schema
    changes: tuple[str, ...] = ()
    discarded: tuple[str, ...] = ()


def refuse_new_table(contract: Contract, job: Job, ddl: Sequence[str]) -> None:
    """For a table that is not there.

    Raises:
        Refused: the contract wants that it is.
    """
    if contract.tables == "freeze":
        shown = ".".join(one for one in job.table if one)
        made = " ".join("; ".join(ddl).split())
        raise Refused(
            f"the table '{shown}' does not exist, and `contract: {{tables: freeze}}` makes none; create it: {made}"
        )


def agree(contract: Contract, job: Job, existing: Schema, writer: Writer) -> Agreed:
    """What is loaded and changed so that the columns of the job fit the table as far as the contract lets them.

    What still does not fit is left for those who look at the columns next.

    Raises:
        Refused: all columns would be left out, or the sink cannot make a change that the contract asks for.
    """
    came = job.schema
    discarded: tuple[str, ...] = ()
    if contract.columns == "discard_column":
        discarded = tuple(one for one in came.names if one not in existing)
        came = _without(job, discarded)
    added = [one for one in came.columns if one.name not in existing] if contract.columns == "evolve" else []
    widened = _widened(came, existing, writer) if contract.types == "evolve" else []
    if not added and not widened:
        return Agreed(came, existing, (), discarded)
    changes = writer.alter(job, added, widened)
    changed = {one.name: one for one in widened}
    columns = [changed.get(one.name, one) for one in existing.columns]
    new = [_in_sink(replace(one, nullable=True), writer) for one in added]
    return Agreed(came, replace(existing, columns=(*columns, *new)), tuple(changes), discarded)


def narrowed(query: Query, came: Schema, reader: Reader) -> Query:
    """The query with these columns of it alone."""
    expressions = dict(query.columns)
    return replace(query, columns=tuple((one, expressions.get(one, reader.quoted(one))) for one in came.names))


def _without(job: Job, names: Sequence[str]) -> Schema:
    kept = [one for one in job.schema.names if one not in names]
    lost = [one for one in job.keys if one in names]
    if not kept or lost:
        shown = ".".join(one for one in job.table if one)
        what = f"the keys {', '.join(lost)}" if lost else "any of the columns of the query"
        raise Refused(
            f"the table '{shown}' does not have {what}, which cannot be left out; change the query or the table"
        )
    return job.schema.only(kept)


def _widened(came: Schema, existing: Schema, writer: Writer) -> list[Column]:
    """The columns of the table with the types that hold what they have and what comes."""
    if writer.dialect == "sqlite":
        return []  # its columns take values of any type; each value is looked at
    made = []
    for one in came.columns:
        if one.name not in existing or fit(one.type, existing[one.name].type):
            continue
        old = existing[one.name]
        wide = wider(old.type, one.type)
        if wide is None:
            raise Refused(
                f"column '{one.name}' is {one.type} and {old.type} in the table, and no type holds both; cast it in the query"
            )
        made.append(_in_sink(replace(old, type=wide), writer))
    return made


def _in_sink(column: Column, writer: Writer) -> Column:
    return replace(column, type=replace(column.type, native=writer.type_of(column), dialect=writer.dialect))


def wider(one: Type, other: Type) -> Type | None:
    """The narrowest type that holds all values of both, None when there is none that is sure to."""
    bare = [replace(each, native="", dialect="") for each in (one, other)]
    for narrow, wide in (bare, bare[::-1]):
        if fit(narrow, wide):
            return wide
    return _joined(*bare)


def _joined(one: Type, other: Type) -> Type | None:
    kinds = {one.kind, other.kind}
    if kinds == {"int"}:
        return Type("int", bits=64) if max(one.bits, other.bits) < 64 else Type("decimal", precision=20, scale=0)
    if kinds <= {"int", "decimal"}:
        return _decimal(_as_decimal(one), _as_decimal(other))
    if kinds <= {"text", "enum"}:
        lengths = [_characters(each) for each in (one, other)]
        return Type("text", length=None if None in lengths else max(each or 0 for each in lengths))
    if kinds == {"float"}:
        return Type("float", bits=64)
    return None


def _as_decimal(one: Type) -> Type:
    if one.kind == "decimal":
        return one
    return Type("decimal", precision=len(str(2**one.bits)), scale=0)


def _decimal(one: Type, other: Type) -> Type:
    if one.precision is None or other.precision is None:
        return Type("decimal")
    scale = max(one.scale or 0, other.scale or 0)
    whole = max(each.precision - (each.scale or 0) for each in (one, other) if each.precision is not None)
    return Type("decimal", precision=whole + scale, scale=scale)


def _characters(one: Type) -> int | None:
    return max(map(len, one.labels), default=0) if one.kind == "enum" else one.length
