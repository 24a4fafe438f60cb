"""One load into a table of PostgreSQL as SQL: what runs before its COPY, the COPY, what runs after it; nothing is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from . import history
from .base import Job, Lane, Mode, Refused, Writer
from .postgres_ledger import lock_key, quoted
from .types import Schema

STAGE = "pg_temp._rainbow_stage"
KEYS_SHOWN = 5

Strategy = Literal["truncate", "swap", "delete"]
"""How `replace` empties a table: in place, by a new one that takes its name, or row by row."""

_FORMATS: dict[Lane, str] = {
    "pg_binary": "FORMAT binary",
    "pg_text": "FORMAT text",
    "csv": "FORMAT csv",
    "rows": "FORMAT text",
}


@dataclass(frozen=True)
class Step:
    """A statement; `gives` says what its row, or else the number of its rows, counts."""

    sql: str
    gives: tuple[Literal["inserted", "updated", "deleted"], ...] = ()


@dataclass(frozen=True)
class Table:
    """A table that is loaded.

    `is_unique`: a unique index has just the keys of the load, so that ON CONFLICT finds it. `is_new`: it was made in the
    transaction of this load.
    """

    schema: str
    name: str
    columns: Schema
    is_unique: bool = False
    is_partitioned: bool = False
    is_new: bool = False

    @property
    def quoted(self) -> str:
        return quoted(self.schema, self.name)

    def __str__(self) -> str:
        return f"table {self.schema}.{self.name}"


@dataclass(frozen=True)
class Load:
    """What a load does, in this order: `locks`, `before`, the COPY into `into`, `unwanted`, `after`, and `last` at its commit.

    `unwanted` gives the keys that occur more than once or are empty.
    """

    into: str
    columns: tuple[str, ...]
    locks: tuple[str, ...] = ()
    before: tuple[Step, ...] = ()
    unwanted: str | None = None
    after: tuple[Step, ...] = ()
    last: tuple[str, ...] = ()
    is_frozen: bool = False

    def copy(self, lane: Lane) -> str:
        options = _FORMATS[lane] + (", FREEZE true" if self.is_frozen else "")
        return f"COPY {self.into} ({names(self.columns)}) FROM STDIN ({options})"

    def statements(self, lane: Lane) -> list[str]:
        """All of them as people read them."""
        before = [one.sql for one in self.before]
        unwanted = [self.unwanted] if self.unwanted else []
        return [*self.locks, *before, self.copy(lane), *unwanted, *(one.sql for one in self.after), *self.last]


def load(job: Job, table: Table, *, strategy: Strategy = "truncate", is_again: bool = False) -> Load:
    """What this job does to this table; `is_again`: rows that an earlier load of the same part left are replaced.

    Raises:
        Refused: the mode needs keys, or a predicate, that are not there.
    """
    _refuse_missing_keys(job, table)
    mode = _mode_again(job, table) if is_again and job.mode in ("append", "fail") else job.mode
    if mode == "replace":
        return _replace(job, table, strategy)
    if mode == "delete_insert" and job.where:
        return _delete_where(job, table)
    if mode in ("append", "fail"):
        return _append(job, table)
    if mode == "scd2":
        return _history(job, table)
    return _by_keys(job, table, mode)


def names(columns: Sequence[str], of: str = "") -> str:
    prefix = f"{of}." if of else ""
    return ", ".join(prefix + quoted(one) for one in columns)


def stage_of(job: Job) -> str:
    """The name of the table that a swap fills."""
    return f"_rainbow_{lock_key(job.name, job.run_key, job.part) & (2**64 - 1):016x}"


def _mode_again(job: Job, table: Table) -> Mode:
    if job.where:
        return "delete_insert"
    if job.keys:
        return "upsert"
    raise Refused(
        f"{table}: this part of this run was loaded before, and nothing tells its rows from others:"
        " give `keys`, or use mode delete_insert or replace; nothing was written"
    )


def _refuse_missing_keys(job: Job, table: Table) -> None:
    if job.mode in ("insert_new", "upsert", "scd2") and not job.keys:
        raise Refused(f"{table}: mode {job.mode} needs `keys`")
    if job.mode == "delete_insert" and not job.keys and not job.where:
        raise Refused(f"{table}: mode delete_insert needs `keys`, or a part with a predicate")
    missing = [one for one in job.keys if one not in job.schema]
    if missing:
        known = ", ".join(job.schema.names)
        raise Refused(f"{table}: the keys {', '.join(missing)} are no columns of the query (columns: {known})")


# -- modes


def _append(job: Job, table: Table) -> Load:
    shared = (_lock(table, shared=True),)
    if _given(job, table) == job.schema.names and not (job.stage and job.mode == "append"):
        return Load(table.quoted, job.schema.names, shared, is_frozen=table.is_new and not table.is_partitioned)
    return _staged(job, table, (_come(job, table),), shared)


def _delete_where(job: Job, table: Table) -> Load:
    """The rows of a part go, and come anew; parts do not wait for each other."""
    gone = Step(f"DELETE FROM {table.quoted} WHERE {' AND '.join(f'({one})' for one in job.where)}", ("deleted",))
    bare = _append(job, table)
    return replace(bare, locks=(*bare.locks, _lock_part(job, table)), before=(gone, *bare.before))


def _replace(job: Job, table: Table, strategy: Strategy) -> Load:
    bare = replace(_append(job, table), locks=(_lock(table),))
    if table.is_new:
        return bare
    if strategy == "swap":
        return _swap(job, table, bare)
    if strategy == "delete":
        return replace(bare, before=(Step(f"DELETE FROM {table.quoted}", ("deleted",)), *bare.before))
    frozen = bare.is_frozen or not table.is_partitioned
    return replace(bare, before=(Step(f"TRUNCATE {table.quoted}"), *bare.before), is_frozen=frozen)


def _swap(job: Job, table: Table, bare: Load) -> Load:
    new = quoted(table.schema, stage_of(job))
    made = Step(f"CREATE TABLE {new} (LIKE {table.quoted} INCLUDING ALL)")
    last = (
        f"LOCK TABLE {table.quoted} IN ACCESS EXCLUSIVE MODE",
        f"DROP TABLE {table.quoted}",
        f"ALTER TABLE {new} RENAME TO {quoted(table.name)}",
    )
    if bare.into == table.quoted:
        return replace(bare, into=new, before=(made,), last=last, is_frozen=True)
    after = tuple(replace(one, sql=one.sql.replace(table.quoted, new, 1)) for one in bare.after)
    return replace(bare, before=(made, *bare.before), after=after, last=last)


def _by_keys(job: Job, table: Table, mode: Mode) -> Load:
    if mode == "delete_insert":
        keys = f"SELECT DISTINCT {names(job.keys)} FROM {STAGE}"
        gone = Step(f"DELETE FROM {table.quoted} AS t USING ({keys}) AS s WHERE {_same(job.keys)}", ("deleted",))
        steps: tuple[Step, ...] = (gone, _come(job, table))
        locks = (_lock(table),) if job.part == "all" else (_lock(table, shared=True), _lock_part(job, table))
        return _staged(job, table, steps, locks, _unwanted(job.keys, "false"))
    # Without an index that ON CONFLICT could use, nobody else may add a key between the look and the insert.
    locks = (_lock(table, shared=table.is_unique),)
    steps = _upsert(job, table) if mode == "upsert" else (_insert_new(job, table),)
    return _staged(job, table, steps, locks, _unwanted(job.keys, "count(*) > 1"))


def _history(job: Job, table: Table) -> Load:
    steps = tuple(Step(sql, (count,)) for sql, count in history.steps(job, _Words(), table.quoted, STAGE))
    return _staged(job, table, steps, (_lock(table),), _unwanted(job.keys, "count(*) > 1"))


class _Words(Writer):
    """How PostgreSQL writes names and values."""

    dialect = "postgresql"


def _upsert(job: Job, table: Table) -> tuple[Step, ...]:
    """Rows that are equal, bit for bit, are not touched: a row that ON CONFLICT locks is written, even when none changes.

    `IS DISTINCT FROM` would leave 1.0 where 1.00 came, and json has no equality: images of rows are compared.
    """
    values = [one for one in _given(job, table) if one not in job.keys and table.columns[one].generated != "always"]
    if not values:
        return (_insert_new(job, table),)
    differs = f"{_image(values, 't')} *<> {_image(values, 's')}"
    if not table.is_unique:
        sets = ", ".join(f"{quoted(one)} = s.{quoted(one)}" for one in values)
        change = f"UPDATE {table.quoted} AS t SET {sets} FROM {STAGE} AS s WHERE {_same(job.keys)} AND {differs}"
        return (Step(change, ("updated",)), _insert_new(job, table))
    sets = ", ".join(f"{quoted(one)} = excluded.{quoted(one)}" for one in values)
    changed = (
        f"SELECT {names(_given(job, table), 's')} FROM {STAGE} AS s LEFT JOIN {table.quoted} AS t ON {_same(job.keys)}"
        f" WHERE t.{quoted(job.keys[0])} IS NULL OR {differs}"
    )
    insert = (
        f"{_insert(job, table)} {changed} ON CONFLICT ({names(job.keys)}) DO UPDATE SET {sets}"
        f" WHERE {_image(values, 't')} *<> {_image(values, 'excluded')} RETURNING t.xmax = 0 AS is_new"
    )
    counted = "SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new) FROM done"
    return (Step(f"WITH done AS ({insert}) {counted}", ("inserted", "updated")),)


def _insert_new(job: Job, table: Table) -> Step:
    there = f"SELECT FROM {table.quoted} AS t WHERE {_same(job.keys)}"
    new = f"SELECT {names(_given(job, table), 's')} FROM {STAGE} AS s WHERE NOT EXISTS ({there})"
    conflict = f" ON CONFLICT ({names(job.keys)}) DO NOTHING" if table.is_unique else ""
    return Step(f"{_insert(job, table)} {new}{conflict}", ("inserted",))


# -- pieces


def _staged(
    job: Job, table: Table, after: tuple[Step, ...], locks: tuple[str, ...], unwanted: str | None = None
) -> Load:
    """Rows come into a temporary table with the types of the columns first."""
    columns = job.schema.names
    made = f"CREATE TEMPORARY TABLE {STAGE} ON COMMIT DROP AS SELECT {names(columns)} FROM {table.quoted} WITH NO DATA"
    analyze = Step(f"ANALYZE {STAGE} ({names(job.keys)})") if job.keys else None
    steps = (analyze, *after) if analyze else after
    return Load(STAGE, columns, locks, (Step(made),), unwanted, steps, is_frozen=True)


def _come(job: Job, table: Table) -> Step:
    return Step(f"{_insert(job, table)} SELECT {names(_given(job, table))} FROM {STAGE}", ("inserted",))


def _insert(job: Job, table: Table) -> str:
    return f"INSERT INTO {table.quoted} AS t ({names(_given(job, table))}) OVERRIDING SYSTEM VALUE"


def _given(job: Job, table: Table) -> tuple[str, ...]:
    """The columns that take a value: those that are computed from others do not."""
    return tuple(one for one in job.schema.names if table.columns[one].generated != "stored")


def _lock(table: Table, *, shared: bool = False) -> str:
    return f"SELECT pg_advisory_xact_lock{'_shared' if shared else ''}({lock_key(table.schema, table.name)})"


def _lock_part(job: Job, table: Table) -> str:
    return f"SELECT pg_advisory_xact_lock({lock_key(table.schema, table.name, job.part)})"


def _same(keys: Sequence[str]) -> str:
    return " AND ".join(f"t.{quoted(one)} = s.{quoted(one)}" for one in keys)


def _image(columns: Sequence[str], of: str) -> str:
    return f"ROW({names(columns, of)})::record"


def _unwanted(keys: Sequence[str], twice: str) -> str:
    """Keys with how many rows have them, and how many such keys there are."""
    empty = " OR ".join(f"{quoted(one)} IS NULL" for one in keys)
    return (
        f"SELECT count(*) OVER (), count(*), {empty}, {names(keys)} FROM {STAGE} GROUP BY {names(keys)}"
        f" HAVING {twice} OR {empty} ORDER BY {names(keys)} LIMIT {KEYS_SHOWN}"
    )
