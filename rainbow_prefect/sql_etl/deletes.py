"""Rows that the source no longer has, or says are deleted: as SQL of the sink, done before the stage goes into the table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from ..schema import Config, wrong
from .base import BadValue, Counts, Job, Mode, Refused, Writer

MODES: tuple[Mode, ...] = ("upsert", "insert_new", "scd2")
"""The modes that tell rows by their keys, one row for each."""

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%\Z")
_TIMES = ("date", "timestamp", "timestamptz")


def _share(value: Any) -> Any:
    if isinstance(value, str) and (found := _PERCENT.match(value.strip())):
        value = float(found[1]) / 100
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise wrong(f"must be a share such as 10% or 0.1, got {value!r}")
    return float(value)


_Share = Annotated[float, BeforeValidator(_share), WithJsonSchema({"type": ["string", "number"]}, mode="validation")]


class DeleteMissing(Config):
    """What may go with the rows that the source no longer has."""

    max_share: _Share | None = Field(
        default=None, description="The largest share of the table's rows that may go in one load, e.g. `10%`."
    )
    allow_empty: bool = Field(
        default=False, description="Let a source without a row empty the table; else such a load fails."
    )


class DeletedFlag(Config):
    """How the source says that a row is deleted."""

    column: str = Field(
        min_length=1, description="The column: true, a number other than 0, or any time or date means deleted."
    )


@dataclass(frozen=True)
class Deletes:
    """Which rows go: those that did not come, and those that came with a flag."""

    missing: DeleteMissing | None = None
    flag: str | None = None


def refuse(job: Job) -> None:
    """What the columns that come tell before anything is written.

    Raises:
        Refused: the flag does not come, or cannot say yes or no.
    """
    flag = job.deletes.flag if job.deletes is not None else None
    if flag is None:
        return
    if flag not in job.schema:
        listed = ", ".join(job.schema.names)
        raise Refused(f"`deleted_flag` names '{flag}', which the query does not give (columns: {listed})")
    kind = job.schema[flag].type
    if kind.kind not in ("bool", "int", "decimal", "float", *_TIMES):
        raise Refused(f"`deleted_flag` names '{flag}', which is {kind}; cast it to a boolean, a number or a time")


def flagged(job: Job, writer: Writer, of: str = "s") -> str:
    """Whether a row says of itself that it is deleted, as SQL."""
    assert job.deletes is not None and job.deletes.flag is not None
    column = f"{of}.{writer.quoted(job.deletes.flag)}"
    kind = job.schema[job.deletes.flag].type.kind
    if kind == "bool":
        return f"({column} IS NOT NULL AND {column} = {writer.literal(True)})"
    return f"{column} IS NOT NULL" if kind in _TIMES else f"({column} IS NOT NULL AND {column} <> 0)"


def missing(job: Job, writer: Writer, stage: str, of: str = "s") -> str:
    """Whether a row of the table did not come, as SQL."""
    keys = [writer.quoted(one) for one in job.keys]
    if writer.dialect == "sqlite":  # it looks a row of values up, and would search the stage for each row else
        named = ", ".join(f"{of}.{one}" for one in keys)
        given = named if len(keys) == 1 else f"({named})"
        return f"{given} NOT IN (SELECT {', '.join(keys)} FROM {stage})"
    same = " AND ".join(f"c.{one} = {of}.{one}" for one in keys)
    return f"NOT EXISTS (SELECT 1 FROM {stage} AS c WHERE {same})"


def steps(job: Job, writer: Writer, table: str, stage: str) -> Iterator[tuple[str, bool]]:
    """The statements that delete rows of the table (True), then what is deleted from the stage (False)."""
    wanted = job.deletes
    if wanted is None or job.mode == "scd2":
        return
    if wanted.missing is not None:
        yield writer.deletion(table, missing(job, writer, stage)), True
    if wanted.flag is not None:
        same = " AND ".join(f"c.{writer.quoted(one)} = s.{writer.quoted(one)}" for one in job.keys)
        came = f"SELECT 1 FROM {stage} AS c WHERE {same} AND {flagged(job, writer, 'c')}"
        yield writer.deletion(table, f"EXISTS ({came})"), True
        yield writer.deletion(stage, flagged(job, writer)), False


def done(job: Job, writer: Writer, counts: Counts) -> int:
    """Delete them; gives how many rows of the table went.

    Raises:
        BadValue: the source gave no row at all, or more would go than may.
    """
    wanted = job.deletes
    if wanted is None:
        return 0
    table, stage = named(job, writer), writer.staged()
    if wanted.missing is not None:
        _refuse_many(job, wanted.missing, writer, counts)
    gone = 0
    for sql, is_of_table in steps(job, writer, table, stage):
        rows = writer.do(sql)
        gone += rows if is_of_table else 0
    return gone


def _refuse_many(job: Job, wanted: DeleteMissing, writer: Writer, counts: Counts) -> None:
    shown = ".".join(one for one in job.table if one)
    if counts.read == 0 and not wanted.allow_empty:
        raise BadValue(
            f"the source gave no row, so all of the table '{shown}' would be deleted; if that is right, write "
            "`delete_missing: {allow_empty: true}`; nothing was written"
        )
    if wanted.max_share is None:
        return
    current = f" AND s.{writer.quoted(job.versions.is_current)} = {writer.literal(True)}" if job.versions else ""
    table, gone = named(job, writer), missing(job, writer, writer.staged())
    ((count, total),) = writer.query(
        f"SELECT count(CASE WHEN {gone} THEN 1 END), count(*) FROM {table} AS s WHERE 1 = 1{current}"
    )
    if count > wanted.max_share * total:
        raise BadValue(
            f"{count} of {total} rows of the table '{shown}' are no longer in the source, more than `max_share: "
            f"{wanted.max_share:.0%}` of `delete_missing`; nothing was written"
        )


def named(job: Job, writer: Writer) -> str:
    """The table of the job as SQL names it."""
    return ".".join(writer.quoted(one) for one in job.table if one)
