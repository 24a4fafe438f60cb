"""What a task asks of its rows and its table beyond moving them, in the order of a load; `move` calls it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from . import checks as checking
from . import contract as agreements
from . import deletes, rejects
from .base import BadValue, Counts, Job, Query, Reader, Refused, Rejected, Writer
from .checks import Checks
from .contract import Contract
from .deletes import Deletes
from .deletes import refuse as refuse_deletes
from .history import History, refuse_late, versions
from .history import refuse as refuse_history
from .shape import Shape, shaped
from .sieve import Sieve, fixes
from .types import Schema


@dataclass(frozen=True)
class Quality:
    """`pre` and `post` are statements of the sink in the transaction; `max_bad_rows` may be put aside in one part."""

    shape: Shape | None = None
    contract: Contract = field(default_factory=Contract)
    checks: Checks | None = None
    on_bad_row: Literal["fail", "quarantine"] = "fail"
    max_bad_rows: int = 1000
    pre: tuple[str, ...] = ()
    post: tuple[str, ...] = ()
    deletes: Deletes | None = None
    history: History | None = None

    @property
    def puts_aside(self) -> bool:
        """Whether rows may go to `TABLE__rejected`."""
        if self.on_bad_row == "quarantine":
            return True
        several = self.checks.columns.values() if self.checks is not None else ()
        return any(one.on_fail == "quarantine" for each in several for one in each)


_STAGED = ("insert_new", "upsert", "delete_insert", "scd2")
"""The modes whose rows come into a stage in any case."""


@dataclass(frozen=True)
class Fitted:
    """The job as its contract has it: what is read, the table as it will be, and the statements that change it first."""

    query: Query
    job: Job
    existing: Schema | None
    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def described(quality: Quality, query: Query, reader: Reader) -> tuple[Query, Schema]:
    """The query with what is done to its rows on the way, and the columns that it gives."""
    if quality.shape is None:
        return query, reader.describe(query)
    return shaped(quality.shape, query, reader)


def fitted(quality: Quality, query: Query, job: Job, existing: Schema | None, reader: Reader, writer: Writer) -> Fitted:
    """What is asked of the table, before it is looked at column by column.

    Raises:
        Refused: the contract does not let the load be.
    """
    checks = quality.checks
    kept = versions(quality.history) if job.mode == "scd2" else None
    job = replace(job, deletes=quality.deletes, versions=kept)
    refuse_deletes(job)
    refuse_history(job, existing, writer)
    if existing is None:
        agreements.refuse_new_table(quality.contract, job, writer.ddl(job))
    made: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    if existing is not None:
        agreed = agreements.agree(quality.contract, job, existing, writer)
        if agreed.discarded:
            query = agreements.narrowed(query, agreed.came, reader)
            warnings = (f"left out, since the table has no such column: {', '.join(agreed.discarded)}",)
        job, existing, made = replace(job, schema=agreed.came), agreed.existing, agreed.changes
    if checks is not None:
        checking.refuse_columns(checks, job)
        if not writer.is_database:
            checking.refuse_unasked(checks, job, existing, quality.on_bad_row)
            job = replace(job, asks=checking.asks(checks, job))
    if quality.puts_aside and not writer.is_database:
        raise Refused(
            "`on_bad_row: quarantine` needs a sink that is a database; write `fail`, or load into DuckDB first"
        )
    if quality.puts_aside:
        made = (*made, *rejects.changes(job, writer))
    most = quality.max_bad_rows if quality.on_bad_row == "quarantine" else 0
    needs_stage = existing is not None and (
        (checks is not None and checking.needs_stage(checks, job))
        or (most > 0 and job.mode == "append" and not writer.finds_bad_rows)
    )
    return Fitted(query, replace(job, stage=needs_stage, most_rejected=most), existing, made, warnings)


def sieve_of(quality: Quality, job: Job, target: Schema, writer: Writer) -> Sieve | None:
    """What leaves out the rows that the table cannot hold, where that is asked for and some may be there.

    Raises:
        Refused: rows are asked to be left out for a column whose values cannot be looked at.
    """
    discards = quality.contract.types == "discard_row"
    most = quality.max_bad_rows if quality.on_bad_row == "quarantine" else None
    if writer.dialect == "sqlite" or (not discards and (most is None or writer.finds_bad_rows)):
        return None  # SQLite takes any value in any column, and puts rows aside itself
    # NULLs that are appended are found in the stage, with those keys that come twice
    found = fixes(job.schema, target, writer.dialect, nulls=most is not None and job.mode != "append")
    secret = frozenset(job.options.get("secret_columns") or ())
    return Sieve(job.schema.names, found, most, secret) if found else None


def before(quality: Quality, writer: Writer) -> None:
    """The statements of the sink that come before the rows."""
    for one in quality.pre:
        writer.do(one)


def finished(
    quality: Quality,
    job: Job,
    existing: Schema | None,
    writer: Writer,
    counts: Counts,
    say: Callable[[str], None],
    sieve: Sieve | None = None,
) -> tuple[Counts, list[str]]:
    """Ask the checks, let the writer finish, put aside what is bad; gives the counts and the warnings.

    `existing` are the columns of the table, None when it was made with this load. What `sieve` left out did not come.

    Raises:
        BadValue: a check does not hold, or too many rows are bad.
    """
    warnings: list[str] = []
    counts.quarantined = len(writer.rejected)
    checked: list[Rejected] = []
    sifted = list(sieve.rejected) if sieve is not None and sieve.most is not None else []
    if existing is not None and (job.stage or job.mode in _STAGED) and job.most_rejected and not writer.finds_bad_rows:
        left = quality.max_bad_rows - len(sifted)
        checked = checking.put_aside_refused(job, existing, writer, most_bad=left)
        counts.quarantined += len(checked)
    if quality.checks is not None:
        left = quality.max_bad_rows - counts.quarantined - len(sifted)
        found = checking.look(quality.checks, job, writer, counts, most_bad=left, on_bad_row=quality.on_bad_row)
        warnings = found.warnings
        checked += found.rejected
        counts.quarantined += len(found.rejected)
    gone = deletes.done(job, writer, counts)
    refuse_late(job, writer)
    counts = writer.finish(counts)
    if gone:
        counts.deleted = (counts.deleted or 0) + gone
    rejected = [*sifted, *writer.rejected, *checked]
    if len(rejected) > quality.max_bad_rows:
        raise BadValue(checking.too_many(quality.max_bad_rows, rejected[-1].error))
    counts.quarantined = len(rejected)
    if sieve is not None and sieve.count:
        counts.read += sieve.count
        counts.discarded = sieve.count - len(sifted)
    if sieve is not None and counts.discarded:
        warnings.append(f"left out {counts.discarded} rows that do not fit, e.g. {sieve.rejected[0].error}")
    rejects.store(rejected, job, writer)
    for one in quality.post:
        writer.do(one)
    if rejected:
        say(f"put {len(rejected)} bad rows into {job.table[1]}__rejected, e.g. {rejected[0].error}")
    for text in warnings:
        say(f"warning: {text}")
    return counts, warnings
