"""The ledger in MySQL and MariaDB: made once, claimed first in each load, asked when nobody knows how a load ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from .base import Counts, Job, Passing, Refused
from .ledger import NAME, ledger
from .mysql_link import Link, name_of

_LONGEST = {"name": 255, "run_key": 100, "part": 200}
_MINE = "job = %s and run_key = %s and part = %s"
_SLICE_SECONDS = 1.0


def refuse_long_keys(job: Job) -> None:
    """A key that the ledger would have to cut.

    Raises:
        Refused: there is one.
    """
    for field, most in _LONGEST.items():
        length = len(getattr(job, field))
        if length > most:
            raise Refused(f"the {field} of the load has {length} characters, the ledger takes {most}; shorten it")


def create(link: Link, job: Job, collation: str) -> None:
    """Make the ledger of the table's schema, when it is not there; its keys are told apart letter by letter."""
    if is_there(link, job):
        return
    from sqlalchemy.dialects.mysql import dialect
    from sqlalchemy.schema import CreateTable

    made = str(CreateTable(ledger(job.table[0]), if_not_exists=True).compile(dialect=dialect())).strip()
    link.do(f"{made} ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE {collation}", doing="the ledger")


def is_there(link: Link, job: Job) -> bool:
    found = link.ask(
        "select 1 from information_schema.tables where table_schema = coalesce(%s, database()) and table_name = %s",
        [job.table[0], NAME],
    )
    return bool(found)


def claim(link: Link, job: Job) -> str | None:
    """Claim this part, first thing in the transaction; gives when, None when it was loaded before.

    It waits for another one that loads it at this moment. What was loaded before can be claimed only with `force`.
    """
    table, begun = _name(job), _now()
    if job.force:
        link.do(f"delete from {table} where {_MINE}", _mine(job))
    taken = link.do(
        f"insert into {table} (job, run_key, part, number, attempt, mode, target, begun)"
        f" select %s, %s, %s, coalesce(max(number), 0) + 1, %s, %s, %s, %s from {table} where job = %s"
        f" on duplicate key update {table}.job = {table}.job",
        [*_mine(job), job.attempt, job.mode, ".".join(one for one in job.table if one)[:255], begun, job.name],
        doing="the claim of this part",
    )
    return begun if taken == 1 else None


def close(link: Link, job: Job, counts: Counts, state: Mapping[str, Any] | None) -> None:
    """Write the end of a load, in its transaction."""
    link.do(
        f"update {_name(job)} set rows_read = %s, rows_written = %s, state = %s, committed = %s where {_MINE}",
        [
            counts.read,
            counts.written,
            None if state is None else json.dumps(state, ensure_ascii=False),
            _now(),
            *_mine(job),
        ],
    )


def is_committed(link: Link, job: Job, begun: str | None = None) -> bool:
    """Whether the load was committed (the one that began then); it waits for a transaction that is still at it."""
    row = link.ask(f"select begun from {_name(job)} where {_MINE} and committed is not null for update", _mine(job))
    return bool(row) and (begun is None or row[0][0] == begun or not job.force)


def state(link: Link, job: Job) -> Mapping[str, Any]:
    """What the last committed load of this job left, {} at first."""
    if not is_there(link, job):
        return {}
    row = link.ask(
        f"select state from {_name(job)} where job = %s and state is not null and committed is not null"
        " order by number desc, committed desc limit 1",
        [job.name],
    )
    return dict(json.loads(row[0][0])) if row else {}


def forget(link: Link, job: Job) -> int:
    """Delete the states of this job; gives how many there were."""
    if not is_there(link, job):
        return 0
    return link.do(f"update {_name(job)} set state = null where job = %s and state is not null", [job.name])


# -- locks by name, which end with the session


def lock_name(*names: str | None) -> str:
    """The name of a lock, the same in every process."""
    digest = blake2b("\0".join(("rainbow_etl", *(one or "" for one in names))).encode(), digest_size=16)
    return f"rainbow_{digest.hexdigest()}"


def lock(link: Link, name: str, doing: str) -> None:
    """Take a lock, waiting in short steps so that a cancel is seen.

    Raises:
        Passing: another one keeps it.
    """
    waited = 0.0
    while link.ask("select get_lock(%s, %s)", [name, _SLICE_SECONDS])[0][0] != "1":
        waited += _SLICE_SECONDS
        if waited >= link.lock_seconds:
            raise Passing(f"{doing}: another load is at it for {waited:g} s already")


def unlock(link: Link, name: str) -> None:
    link.ask("select release_lock(%s)", [name])


def _name(job: Job) -> str:
    return name_of((job.table[0], NAME))


def _mine(job: Job) -> list[str]:
    return [job.name, job.run_key, job.part]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
