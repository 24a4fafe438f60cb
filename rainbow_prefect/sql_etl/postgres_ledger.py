"""The ledger in PostgreSQL: made once, claimed first in each load, asked when nobody knows how a load ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from .base import Counts, Job, Refused
from .ledger import NAME, ledger

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

_AGAIN = (
    "do update set number = excluded.number, attempt = excluded.attempt, mode = excluded.mode, target = excluded.target,"
    " rows_read = null, rows_written = null, state = null, begun = excluded.begun, committed = null"
)

_LONGEST = {"name": 255, "run_key": 100, "part": 200}


@dataclass(frozen=True)
class Claim:
    """A claimed part; `is_again`: it was loaded before, and its rows are to be replaced."""

    begun: str
    is_again: bool = False


def quoted(*names: str) -> str:
    """A name as SQL writes it, each part quoted."""
    return ".".join('"' + one.replace('"', '""') + '"' for one in names)


def lock_key(*names: str) -> int:
    """The number of the advisory lock of these names; the same in every process."""
    digest = blake2b("\0".join(("rainbow_etl", *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def refuse_long_keys(job: Job) -> None:
    """A key that the ledger would have to cut.

    Raises:
        Refused: there is one.
    """
    for field, most in _LONGEST.items():
        length = len(getattr(job, field))
        if length > most:
            raise Refused(f"the {field} of the load has {length} characters, the ledger takes {most}; shorten it")


def is_there(connection: Connection, schema: str) -> bool:
    row = connection.execute("select to_regclass(%s) is not null", [quoted(schema, NAME)]).fetchone()
    return bool(row and row[0])


def create(connection: Connection, schema: str) -> None:
    """Make the ledger of a schema, in a transaction of its own; of two who do, one waits for the other."""
    if is_there(connection, schema):
        return
    from sqlalchemy.dialects.postgresql import dialect
    from sqlalchemy.schema import CreateTable

    made = str(CreateTable(ledger(schema), if_not_exists=True).compile(dialect=dialect()))  # type: ignore[no-untyped-call]
    with connection.transaction():
        connection.execute("select pg_advisory_xact_lock(%s)", [lock_key(schema, NAME)])
        connection.execute(made.encode())


def claim(connection: Connection, schema: str, job: Job, target: str) -> Claim | None:
    """The claim of this part, None when it was loaded before.

    It waits for another one that loads it at this moment. What was loaded before can be claimed only with `force`.
    """
    table = quoted(schema, NAME)
    begun = _now()
    row = connection.execute(
        f"insert into {table} as l (job, run_key, part, number, attempt, mode, target, begun)"
        f" values (%s, %s, %s, (select coalesce(max(number), 0) + 1 from {table} where job = %s), %s, %s, %s, %s)"
        f" on conflict (job, run_key, part) {_AGAIN if job.force else 'do nothing'} returning xmax <> 0".encode(),
        [job.name, job.run_key, job.part, job.name, job.attempt, job.mode, target[:255], begun],
    ).fetchone()
    return None if row is None else Claim(begun, is_again=bool(row[0]))


def close(connection: Connection, schema: str, job: Job, counts: Counts, state: Mapping[str, Any] | None) -> None:
    """Write the end of a load, in its transaction."""
    connection.execute(
        f"update {quoted(schema, NAME)} set rows_read = %s, rows_written = %s, state = %s, committed = %s"
        " where job = %s and run_key = %s and part = %s".encode(),
        [
            counts.read,
            counts.written,
            None if state is None else json.dumps(state, ensure_ascii=False),
            _now(),
            job.name,
            job.run_key,
            job.part,
        ],
    )


def is_committed(connection: Connection, schema: str, job: Job, ours: Claim) -> bool:
    """Whether the load was committed; it waits for a transaction that is still at it."""
    with connection.transaction(force_rollback=True):
        if claim(connection, schema, replace(job, force=False), "") is not None:
            return False
        row = connection.execute(
            f"select begun from {quoted(schema, NAME)} where job = %s and run_key = %s and part = %s".encode(),
            [job.name, job.run_key, job.part],
        ).fetchone()
    return row is not None and (row[0] == ours.begun or not job.force)


def state(connection: Connection, schema: str, job: Job) -> Mapping[str, Any]:
    """What the last committed load of this job left, {} at first."""
    if not is_there(connection, schema):
        return {}
    row = connection.execute(
        f"select state from {quoted(schema, NAME)} where job = %s and state is not null and committed is not null"
        " order by number desc, committed desc limit 1".encode(),
        [job.name],
    ).fetchone()
    return dict(json.loads(row[0])) if row else {}


def forget(connection: Connection, schema: str, job: Job) -> int:
    """Delete the states of this job; gives how many there were."""
    if not is_there(connection, schema):
        return 0
    done = connection.execute(
        f"update {quoted(schema, NAME)} set state = null where job = %s and state is not null".encode(), [job.name]
    )
    return done.rowcount


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
