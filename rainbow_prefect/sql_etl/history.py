"""`mode: scd2`: a table that keeps each version of a row, from when to when it was so; as SQL of the sink."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field

from ..schema import Config, Text
from . import deletes
from .base import BadValue, Job, Passing, Refused, Writer
from .shape import Listed
from .types import Column, Schema, Type

DIALECTS = ("postgresql", "mysql", "mariadb", "sqlite", "duckdb")
_SHOWN_KEYS = 5

Count = Literal["inserted", "updated", "deleted"]


class History(Config):
    """How `mode: scd2` keeps versions: the columns that it adds to the table, and what makes a new version."""

    valid_from: Text = Field(default="valid_from", min_length=1, description="The column: since when a version holds.")
    valid_to: Text = Field(
        default="valid_to", min_length=1, description="The column: until when it held; NULL while it holds."
    )
    is_current: Text = Field(default="is_current", min_length=1, description="The column: whether it holds now.")
    by: Text | None = Field(
        default=None,
        min_length=1,
        description="The column of the query that says since when a row is so; absent: the time of the load.",
    )
    columns: Listed = Field(
        default=(), description="A new version is made when one of these differs; absent: any but `keys` and `by`."
    )


@dataclass(frozen=True)
class Versions:
    """How one load keeps versions: the names of the columns, and the moment of the load, in UTC."""

    valid_from: str = "valid_from"
    valid_to: str = "valid_to"
    is_current: str = "is_current"
    by: str | None = None
    columns: tuple[str, ...] = ()
    moment: datetime = datetime(1970, 1, 1, tzinfo=UTC)

    @property
    def names(self) -> tuple[str, str, str]:
        """The columns that the load fills by itself."""
        return self.valid_from, self.valid_to, self.is_current


def versions(wanted: History | None) -> Versions:
    """Those of a load that begins now."""
    one = wanted or History()
    moment = datetime.now(UTC)
    return Versions(one.valid_from, one.valid_to, one.is_current, one.by, tuple(one.columns), moment)


def as_made(job: Job, dialect: str) -> Job:
    """The job with the columns that its table has beside those that come; other jobs as they are."""
    one = job.versions
    if one is None:
        return job
    moment = Type("timestamptz" if dialect in ("postgresql", "duckdb") else "timestamp", precision=6)
    since = job.schema[one.by].type if one.by is not None else moment
    added = (
        Column(one.valid_from, since, nullable=False),
        Column(one.valid_to, since),
        Column(one.is_current, Type("bool"), nullable=False),
    )
    schema = Schema((*job.schema.columns, *added), job.schema.keys, job.schema.comment)
    return replace(job, schema=schema, keys=(*job.keys, one.valid_from))


def refuse(job: Job, existing: Schema | None, writer: Writer) -> None:
    """What the columns on both sides tell before anything is written.

    Raises:
        Refused: the sink keeps no versions, columns are missing, or come that the load fills by itself.
    """
    one = job.versions
    if one is None:
        return
    if writer.dialect not in DIALECTS:
        raise Refused("`mode: scd2` is for sinks of PostgreSQL, MySQL, MariaDB, SQLite and DuckDB")
    own = [name for name in one.names if name in job.schema]
    if own:
        raise Refused(f"the query gives '{own[0]}', a column that `mode: scd2` fills; rename it, or set `history`")
    asked = [name for name in (*one.columns, *([one.by] if one.by else ())) if name not in job.schema]
    if asked:
        listed = ", ".join(job.schema.names)
        raise Refused(f"`history` names '{asked[0]}', which the query does not give (columns: {listed})")
    lost = [] if existing is None else [name for name in one.names if name not in existing]
    if lost:
        shown = ".".join(part for part in job.table if part)
        raise Refused(
            f"the table '{shown}' has no column {', '.join(map(repr, lost))}, which `mode: scd2` needs; add it, name it in "
            "`history`, or load into a new table"
        )


def steps(job: Job, writer: Writer, table: str, stage: str) -> Iterator[tuple[str, Count]]:
    """The statements that bring the stage into the table, each with what its rows count.

    Versions that changed are closed and made anew; those that the source deleted are closed.
    """
    one = job.versions
    assert one is not None
    current = f"t.{writer.quoted(one.is_current)} = {writer.literal(True)}"
    since = _since(job, writer)
    if job.deletes is not None and job.deletes.missing is not None:
        gone = deletes.missing(job, writer, stage, "t")
        sets = ", ".join(_sets(job, writer, _moment(one, writer)))
        yield f"UPDATE {table} AS t SET {sets} WHERE {current} AND {gone}", "deleted"
    if job.deletes is not None and job.deletes.flag is not None:
        yield _closing(job, writer, table, stage, deletes.flagged(job, writer)), "deleted"
    yield _closing(job, writer, table, stage, f"({_differs(job, writer)}){_unflagged(job, writer)}"), "updated"
    names = [writer.quoted(name) for name in job.schema.names]
    own = [writer.quoted(name) for name in one.names]
    there = f"SELECT 1 FROM {table} AS t WHERE {_same(job, writer)} AND {current}"
    yield (
        f"INSERT INTO {table} ({', '.join([*names, *own])})"
        f" SELECT {', '.join(f's.{name}' for name in names)}, {since}, NULL, {writer.literal(True)} FROM {stage} AS s"
        f" WHERE NOT EXISTS ({there}){_unflagged(job, writer)}",
        "inserted",
    )


def refuse_late(job: Job, writer: Writer) -> None:
    """Rows that would change a version before it began.

    Raises:
        BadValue: the source gave an older state of a row than the table has, or none that has a time.
        Passing: the clock is behind the one of the last load.
    """
    one = job.versions
    if one is None:
        return
    table, stage, since = deletes.named(job, writer), writer.staged(), _since(job, writer)
    if one.by is not None:
        ((empty,),) = writer.query(f"SELECT count(*) FROM {stage} AS s WHERE {since} IS NULL")
        if empty:
            raise BadValue(
                f"{empty} rows have no value in `by` ('{one.by}'); fill it in the query; nothing was written"
            )
    valid_from, valid_to, is_current = (f"t.{writer.quoted(name)}" for name in one.names)
    yes, no = (writer.literal(value) for value in (True, False))
    flag = f" OR {deletes.flagged(job, writer)}" if job.deletes is not None and job.deletes.flag is not None else ""
    is_open = (
        f"SELECT 1 FROM {table} AS o WHERE {_same(job, writer, 'o')} AND o.{writer.quoted(one.is_current)} = {yes}"
    )
    keys = ", ".join(f"s.{writer.quoted(name)}" for name in job.keys)
    rows = writer.query(
        f"SELECT {keys} FROM {stage} AS s JOIN {table} AS t ON {_same(job, writer)}"
        f" WHERE ({is_current} = {yes} AND ({_differs(job, writer)}{flag}) AND {since} <= {valid_from})"
        f" OR ({is_current} = {no} AND {valid_to} > {since} AND NOT EXISTS ({is_open}){_unflagged(job, writer)})"
        f" LIMIT {_SHOWN_KEYS}"
    )
    if not rows:
        return
    if one.by is None:
        raise Passing("the clock of this machine is behind that of the last load")
    shown = "; ".join(", ".join(f"{name}={value}" for name, value in zip(job.keys, row, strict=True)) for row in rows)
    raise BadValue(
        f"rows came late: their '{one.by}' is not after that of the version in the table ({shown}); leave them out in the "
        "query; nothing was written"
    )


# -- pieces


def _closing(job: Job, writer: Writer, table: str, stage: str, where: str) -> str:
    """The statement that ends the versions of the rows in the stage for which something holds."""
    one = job.versions
    assert one is not None
    sets = ", ".join(_sets(job, writer, _since(job, writer)))
    current = f"t.{writer.quoted(one.is_current)} = {writer.literal(True)}"
    if writer.dialect in ("mysql", "mariadb"):
        return f"UPDATE {table} AS t JOIN {stage} AS s ON {_same(job, writer)} SET {sets} WHERE {current} AND {where}"
    return f"UPDATE {table} AS t SET {sets} FROM {stage} AS s WHERE {_same(job, writer)} AND {current} AND {where}"


def _sets(job: Job, writer: Writer, until: str) -> Iterator[str]:
    one = job.versions
    assert one is not None
    prefix = "t." if writer.dialect in ("mysql", "mariadb") else ""
    yield f"{prefix}{writer.quoted(one.valid_to)} = {until}"
    yield f"{prefix}{writer.quoted(one.is_current)} = {writer.literal(False)}"


def _since(job: Job, writer: Writer) -> str:
    """Since when a row of the stage is so, as SQL."""
    one = job.versions
    assert one is not None
    return f"s.{writer.quoted(one.by)}" if one.by is not None else _moment(one, writer)


def _moment(one: Versions, writer: Writer) -> str:
    if writer.dialect in ("postgresql", "duckdb"):
        return f"TIMESTAMPTZ '{one.moment.isoformat(sep=' ', timespec='microseconds')}'"
    return f"'{one.moment.replace(tzinfo=None).isoformat(sep=' ', timespec='microseconds')}'"


def _unflagged(job: Job, writer: Writer) -> str:
    if job.deletes is None or job.deletes.flag is None:
        return ""
    return f" AND NOT {deletes.flagged(job, writer)}"


def _same(job: Job, writer: Writer, of: str = "t") -> str:
    return " AND ".join(f"{of}.{writer.quoted(name)} = s.{writer.quoted(name)}" for name in job.keys)


def _differs(job: Job, writer: Writer) -> str:
    one = job.versions
    assert one is not None
    tracked = one.columns or tuple(
        name for name in job.schema.names if name not in job.keys and name != one.by and name != _flag(job)
    )
    return " OR ".join(_distinct(job.schema[name], writer) for name in tracked) or "1 = 0"


def _flag(job: Job) -> Any:
    return job.deletes.flag if job.deletes is not None else None


def _distinct(column: Column, writer: Writer) -> str:
    """Whether a column differs; NULL is equal to NULL."""
    mine, other = (f"{of}.{writer.quoted(column.name)}" for of in ("t", "s"))
    match writer.dialect:
        case "mysql" | "mariadb":
            if column.type.kind in ("text", "enum", "json", "other"):  # `a` and `A` differ, whatever the collation says
                mine, other = f"CAST({mine} AS BINARY)", f"CAST({other} AS BINARY)"
            return f"NOT ({mine} <=> {other})"
        case "sqlite":
            return f"{mine} IS NOT {other}"
        case "postgresql" if column.type.kind in ("json", "other"):  # some of these have no equality
            return f"CAST({mine} AS text) IS DISTINCT FROM CAST({other} AS text)"
        case _:
            return f"{mine} IS DISTINCT FROM {other}"
