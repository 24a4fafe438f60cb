"""Writes to MySQL and MariaDB: one transaction of InnoDB with the claim; statements that commit by themselves come before it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import TaskFailed
from . import history
from . import mysql_ledger as ledger
from .base import BadValue, Constraint, Counts, Job, Lane, Mode, Passing, Refused, Rows, Session, Writer
from .mysql_catalogue import Table, table_of
from .mysql_link import Link, name_of
from .mysql_load import Loader
from .mysql_table import (
    STAGE,
    altered,
    constraints,
    create_table,
    dependants,
    refuse,
    side_name,
    stage_table,
    undo_changes,
)
from .mysql_text import decoder, lines, literal
from .mysql_types import described, native_of, ticked
from .types import Column, Schema

if TYPE_CHECKING:
    from sqlalchemy import URL

_SHOWN_KEYS = 5
_COMMITS = ("alter", "create", "drop", "rename", "truncate", "lock", "begin", "start", "commit", "rollback", "analyze")
_STAGED: tuple[Mode, ...] = ("insert_new", "upsert", "delete_insert", "scd2")


_CREATED = re.compile(
    r"\s*CREATE TABLE (?:IF NOT EXISTS )?(?P<table>`(?:[^`]|``)+`(?:\.`(?:[^`]|``)+`)?)", re.IGNORECASE
)


class MysqlWriter(Writer):
    """A MySQL or MariaDB that is written."""

    def __init__(self, url: URL, session: Session, settings: Any) -> None:
        self._url, self._session, self._settings = url, session, settings
        self._link = self._opened()
        self.dialect = self._link.dialect
        local, packet, version, statements, log, explicit = self._link.ask(
            "select @@local_infile, @@max_allowed_packet, version(), @@binlog_format, @@log_bin,"
            " @@explicit_defaults_for_timestamp"
        )[0]
        from pymysql.constants import CLIENT

        self._is_fast = local == "1" and bool(self._link.connection.client_flag & CLIENT.LOCAL_FILES)
        self._packet = int(packet)
        self._is_explicit = explicit == "1"
        self._has_uuid = self.dialect == "mariadb" and _version(str(version)) >= (10, 7)
        self._collation = self._best_collation()
        if not (log == "1" and statements == "STATEMENT"):
            self._link.do("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        self._job: Job | None = None
        self._begun: str | None = None
        self._undo: list[Any] = []
        self._swap: tuple[str, str, str | None] | None = None
        self._into = ""
        self._counts = Counts()

    def _opened(self) -> Link:
        link = Link(self._url, self._session, self._settings, doing="the sink")
        try:
            link.be_strict()
        except BaseException:
            link.close()
            raise
        return link

    def _best_collation(self) -> str:
        """Text is equal when its bytes are, trailing spaces too, as in other databases."""
        known = ("utf8mb4_nopad_bin", "utf8mb4_0900_bin")
        found = self._link.ask(
            "select collation_name from information_schema.collations where collation_name in (%s, %s)", known
        )
        return str(found[0][0]) if found else "utf8mb4_bin"

    # -- what is there, what would be made

    def describe(self, table: tuple[str | None, str]) -> Schema | None:
        found = table_of(self._link, table)
        return None if found is None else found.schema(self.dialect, is_sink=True)

    def lanes(self) -> tuple[Lane, ...]:
        return ("pg_text", "rows")

    def type_of(self, column: Column) -> str:
        return native_of(column, self.dialect, has_uuid=self._has_uuid)

    def ddl(self, job: Job) -> list[str]:
        refuse(job)
        return [self._created(job, name_of(job.table))]

    def _created(self, job: Job, table: str) -> str:
        job = history.as_made(job, self.dialect)
        return create_table(job, table, self.type_of, self._collation, has_explicit_defaults=self._is_explicit)

    def plan(self, job: Job, existing: Schema | None) -> list[str]:
        table = name_of(job.table)
        made = [] if existing is not None else self.ddl(job)
        if job.mode == "replace" and existing is not None:
            rest = "the old rows go by RENAME TABLE, or by DELETE where something depends on the table"
            return [*made, f"LOAD DATA into a copy of {table}; {rest}"]
        if not self._needs_stage(job):
            gone = [f"DELETE FROM {table} WHERE {' AND '.join(job.where)}"] if job.mode == "delete_insert" else []
            return [*made, *gone, f"LOAD DATA into {table}"]
        return [*made, f"LOAD DATA into {STAGE}", *(text for text, _ in self._steps(job, table, ticked(STAGE)))]

    def _needs_stage(self, job: Job) -> bool:
        return (job.mode in _STAGED and bool(job.keys)) or (job.stage and self._swap is None)

    # -- a load

    def begin(self, job: Job, existing: Schema | None, changes: Sequence[str] = ()) -> bool:
        self._job, self._counts = job, Counts()
        refuse(job)
        ledger.refuse_long_keys(job)
        link, doing = self._link, self._doing
        try:
            ledger.create(link, job, self._collation)
            if not job.force and ledger.is_committed(link, job):
                return False
            if job.serial:  # it ends with the session, as all of these locks do
                ledger.lock(link, ledger.lock_name("serial", *job.table, job.name), doing)
            found = table_of(link, job.table)
            self._refuse_table(job, found)
            if job.mode == "replace" and (found is None or not self._dependants(job, found)):
                return self._begin_swap(job, found, changes)
            self._prepare(job, found, changes)
            link.do("START TRANSACTION")
            self._begun = ledger.claim(link, job)
            if self._begun is None:
                self.rollback()
                return False
            self._clear(job, doing)
        except BaseException:
            self.rollback()
            raise
        return True

    @property
    def _doing(self) -> str:
        assert self._job is not None, "a load was begun"
        return f"table '{'.'.join(one for one in self._job.table if one)}'"

    def _refuse_table(self, job: Job, found: Table | None) -> None:
        if found is None:
            return
        if job.mode == "fail":
            raise Refused(f"{self._doing} exists already, and `mode: fail` wants none; choose another mode or table")
        if not found.engine:
            raise Refused(f"{self._doing} is a view; rows go into tables")
        if found.engine.lower() != "innodb":
            raise Refused(
                f"{self._doing} has the engine {found.engine}, which has no transactions: what fails would stay half done;"
                f" convert it: ALTER TABLE {name_of(job.table)} ENGINE=InnoDB"
            )

    def _dependants(self, job: Job, found: Table) -> list[str]:
        """What a swap would lose; then the rows go by DELETE instead."""
        chosen = job.options.get("replace_strategy", "auto")
        if chosen == "truncate":
            return ["replace_strategy: truncate"]
        needed = dependants(self._link, job, self._doing)
        if chosen == "swap" and needed:
            raise Refused(
                f"{self._doing}: `replace_strategy: swap` would lose {', '.join(needed)}; use truncate or auto"
            )
        return needed

    # DDL commits by itself: it comes before the transaction, and is undone by hand

    def _prepare(self, job: Job, found: Table | None, changes: Sequence[str]) -> None:
        link, name = self._link, ledger.lock_name("ddl", *job.table)
        if found is not None and not changes:
            return
        ledger.lock(link, name, self._doing)
        try:
            if table_of(link, job.table) is None:
                for statement in self.ddl(job):
                    link.do(statement, doing=self._doing)
                self._undo.append(partial(self._drop_when_empty, name_of(job.table)))
            before = table_of(link, job.table)
            if changes and before is not None:
                self._undo.append(lambda: undo_changes(self._link, job.table, before))
            self._change(changes)
        finally:
            ledger.unlock(link, name)

    def _change(self, changes: Sequence[str]) -> None:
        for statement in changes:
            self._link.do(statement, doing=self._doing)
            made = _CREATED.match(statement)
            if made is not None:
                self._undo.append(partial(self._drop_when_empty, made["table"]))

    def _drop_when_empty(self, table: str) -> None:
        """Remove a table that was made, unless another load has put rows into it meanwhile."""
        self._link.do(f"LOCK TABLES {table} WRITE")
        try:
            if not self._link.ask(f"SELECT 1 FROM {table} LIMIT 1"):
                self._link.do(f"DROP TABLE {table}")
        finally:
            self._link.do("UNLOCK TABLES")

    def _clear(self, job: Job, doing: str) -> None:
        """Within the transaction: what goes before the rows come, and where they come."""
        link, table = self._link, name_of(job.table)
        self._into = table
        if self._needs_stage(job):
            target = table_of(link, job.table)
            assert target is not None
            link.do(f"DROP TEMPORARY TABLE IF EXISTS {self._stage(job)}")
            link.do(stage_table(job, self._stage(job), target), doing=doing)
            self._into = self._stage(job)
        if job.mode == "replace":
            self._counts.deleted = link.do(f"DELETE FROM {table}", doing=doing)
        elif job.mode == "delete_insert" and not job.keys:
            where = " AND ".join(f"({one})" for one in job.where)
            self._counts.deleted = link.do(f"DELETE FROM {table} WHERE {where}", doing=doing)

    @staticmethod
    def _stage(job: Job) -> str:
        return name_of((job.table[0], STAGE))

    # a swap: the rows go into a table beside, which takes the name at the end

    def _begin_swap(self, job: Job, found: Table | None, changes: Sequence[str]) -> bool:
        """The ledger cannot be in one transaction with RENAME TABLE: a lock keeps others away, and a retry does it again."""
        link, table = self._link, name_of(job.table)
        ledger.lock(link, ledger.lock_name("run", *job.table, job.name, job.part), self._doing)
        if not job.force and ledger.is_committed(link, job):
            return False
        new, old = (name_of((job.table[0], side_name(job, which))) for which in ("new", "old"))
        link.do(f"DROP TABLE IF EXISTS {new}, {old}", doing=self._doing)
        made = self._created(job, new) if found is None else f"CREATE TABLE {new} LIKE {table}"
        link.do(made, doing=self._doing)
        self._swap = (new, table, old if found is not None else None)
        self._undo.append(lambda: self._link.do(f"DROP TABLE IF EXISTS {new}"))
        self._change([one.replace(f"ALTER TABLE {table} ", f"ALTER TABLE {new} ") for one in changes])
        link.do("START TRANSACTION")
        self._into = new
        return True

    def _commit_swap(self, job: Job, counts: Counts, state: Mapping[str, Any] | None) -> None:
        assert self._swap is not None
        link = self._link
        new, table, old = self._swap
        link.do("COMMIT", doing=self._doing)
        there = table_of(link, job.table) is not None
        renamed = f"{table} TO {old}, {new} TO {table}" if old is not None and there else f"{new} TO {table}"
        link.do(f"RENAME TABLE {renamed}", doing=self._doing)
        self._undo = []
        link.do("START TRANSACTION")
        if job.force or not ledger.is_committed(link, job):
            ledger.claim(link, job)
            ledger.close(link, job, counts, state)
        link.do("COMMIT", doing=self._doing)
        if old is not None:
            with contextlib.suppress(TaskFailed):  # the next load removes it
                link.do(f"DROP TABLE IF EXISTS {old}")
        ledger.unlock(link, ledger.lock_name("run", *job.table, job.name, job.part))

    # -- the rows

    def write_rows(self, rows: Iterable[Rows]) -> int:
        assert self._job is not None
        made = lines(rows, self._job.schema.columns, self._doing, secret=self._secret)
        return self._loader().take(made)

    def write_chunks(self, chunks: Iterable[bytes], lane: Lane) -> int:
        if lane != "pg_text":
            raise Refused(f"{self._doing}: MySQL does not take the lane {lane}")
        return self._loader().take(chunks)

    @property
    def _secret(self) -> Sequence[str]:
        return tuple(self._job.options.get("secret_columns", ())) if self._job else ()

    def _loader(self) -> Loader:
        job = self._job
        assert job is not None
        table = self._swap[0] if self._swap else name_of(job.table)
        schema = self._schema_of(table)
        _refuse_rounding(job, schema, self._doing)
        return Loader(
            self._link,
            self._into,
            job.schema.columns,
            [schema[one] for one in job.schema.names],
            doing=self._doing,
            is_fast=self._is_fast,
            most_bytes=self._packet,
            secret=self._secret,
        )

    def _schema_of(self, table: str) -> Schema:
        job = self._job
        assert job is not None
        name = (job.table[0], side_name(job, "new")) if self._swap else job.table
        found = table_of(self._link, name)
        if found is None:
            raise Passing(f"{self._doing} was removed meanwhile")
        return found.schema(self.dialect, is_sink=True)

    def take(self, table: tuple[str | None, str]) -> int:
        job = self._job
        assert job is not None
        _refuse_rounding(job, self._schema_of(name_of(job.table)), self._doing)
        columns = ", ".join(map(ticked, job.schema.names))
        rows = self._link.do(
            f"INSERT INTO {self._into} ({columns}) SELECT {columns} FROM {name_of(table)}", doing=self._doing
        )
        self._refuse_warnings()
        return rows

    def drop(self, table: tuple[str | None, str]) -> None:
        self._link.do(f"DROP TABLE IF EXISTS {name_of(table)}", doing=f"table '{table[1]}'")

    # -- from the stage to the table

    def finish(self, counts: Counts) -> Counts:
        job, link = self._job, self._link
        assert job is not None
        counts.deleted = self._counts.deleted
        if not self._needs_stage(job):
            counts.written = counts.inserted = counts.read - counts.quarantined
            return counts
        if job.mode in _STAGED and job.keys:
            self._refuse_bad_keys(job)
        ledger.lock(link, ledger.lock_name("finish", *job.table), self._doing)
        done = {"inserted": 0, "updated": 0, "deleted": 0}
        for statement, what in self._steps(job, name_of(job.table), self._stage(job)):
            done[what] += link.do(statement, doing=self._doing)
            self._refuse_warnings()
        counts.inserted, counts.updated = done["inserted"], done["updated"]
        if job.mode in ("delete_insert", "scd2") and job.keys:
            counts.deleted = done["deleted"]
        counts.written = counts.inserted + counts.updated
        return counts

    def _steps(self, job: Job, table: str, stage: str) -> Sequence[tuple[str, str]]:
        if job.mode == "scd2":
            return list(history.steps(job, self, table, stage))
        names = ", ".join(map(ticked, job.schema.names))
        same = " AND ".join(f"t.{ticked(one)} = s.{ticked(one)}" for one in job.keys)
        insert = f"INSERT INTO {table} ({names}) SELECT "
        taken = ", ".join(f"s.{ticked(one)}" for one in job.schema.names)
        if not job.keys or job.mode not in _STAGED:
            return [(f"{insert}{taken} FROM {stage} AS s", "inserted")]
        if job.mode == "delete_insert":
            return [
                (f"DELETE t FROM {table} AS t JOIN {stage} AS s ON {same}", "deleted"),
                (f"{insert}{taken} FROM {stage} AS s", "inserted"),
            ]
        # The server itself leaves rows as they are whose bytes do not change. A key that is equal for the table only
        # (`a` and `A`) is written as it comes.
        others = [one.name for one in job.schema.columns if one.name not in job.keys or one.type.kind == "text"]
        made = ", ".join(f"t.{ticked(one)} = s.{ticked(one)}" for one in others)
        steps = [(f"UPDATE {table} AS t JOIN {stage} AS s ON {same} SET {made}", "updated")]
        new = f"LEFT JOIN {table} AS t ON {same} WHERE t.{ticked(job.keys[0])} IS NULL"
        return [
            *(steps if job.mode == "upsert" and others else []),
            (f"{insert}{taken} FROM {stage} AS s {new}", "inserted"),
        ]

    def _refuse_warnings(self) -> None:
        if self._link.warning_count() == 0:
            return
        found = self._link.warnings()
        _, code, text = next((one for one in found if one[0] != "Note"), found[0])
        raise BadValue(f"{self._doing}: {text} (error {code}); correct it in the query; nothing was written")

    def _refuse_bad_keys(self, job: Job) -> None:
        stage, keys = self._stage(job), ", ".join(map(ticked, job.keys))
        shown = ", ".join(job.keys)
        empty = " OR ".join(f"{ticked(one)} IS NULL" for one in job.keys)
        count = int(self._link.ask(f"SELECT count(*) FROM {stage} WHERE {empty}")[0][0])
        if count:
            raise BadValue(
                f"{self._doing}: {count} rows have an empty key ({shown}); leave them out or fill them in the query;"
                " nothing was written"
            )
        if job.mode == "delete_insert":
            return
        twice = f"SELECT {keys} FROM {stage} GROUP BY {keys} HAVING count(*) > 1"
        total = int(self._link.ask(f"SELECT count(*) FROM ({twice}) AS x")[0][0])
        if total:
            first = self._link.ask(f"{twice} ORDER BY {keys} LIMIT {_SHOWN_KEYS}")
            hidden = set(job.keys) & set(self._secret)
            named = "" if hidden else f", e.g. {'; '.join(', '.join(map(_shown, row)) for row in first)}"
            raise BadValue(
                f"{self._doing}: {total} keys ({shown}) occur more than once{named}; make them unique in the query;"
                " nothing was written"
            )

    # -- checks, state, end

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        fields = self._link.prepared(sql)
        if not fields:
            self._link.do(sql)
            return []
        decoders = [decoder(described(one, self.dialect)) for one in fields]
        made: list[tuple[Any, ...]] = []
        for rows in self._link.stream(sql):
            made += zip(
                *(make(values) for make, values in zip(decoders, zip(*rows, strict=True), strict=True)), strict=True
            )
        return made

    def do(self, sql: str) -> int:
        word = sql.split(None, 2)[:2]
        if word and word[0].lower() in _COMMITS and word[-1].lower() != "temporary":
            raise Refused(
                f"{self._doing}: MySQL commits what is under way before {word[0].upper()}, so it cannot be part of a load;"
                " run it in a task of its own"
            )
        return self._link.do(sql, doing=self._doing)

    def constraints(self, table: tuple[str | None, str]) -> list[Constraint]:
        return constraints(self._link, table, self.dialect)

    def alter(self, job: Job, added: Sequence[Column], widened: Sequence[Column]) -> list[str]:
        found = table_of(self._link, job.table)
        if found is None:
            return []
        made = [{one.name: self.type_of(one) for one in some} for some in (added, widened)]
        return altered(name_of(job.table), found, made[0], made[1])

    def quoted(self, name: str) -> str:
        return ticked(name)

    def literal(self, value: Any) -> str:
        return literal(value)

    def forget(self, job: Job) -> int:
        return ledger.forget(self._link, job)

    def staged(self) -> str:
        return self._into

    def state(self, job: Job) -> Mapping[str, Any]:
        return ledger.state(self._link, job)

    def commit(self, counts: Counts, state: Mapping[str, Any] | None = None) -> None:
        job, link = self._job, self._link
        assert job is not None
        if self._swap is not None:
            self._commit_swap(job, counts, state)
        else:
            ledger.close(link, job, counts, state)
            self._committed(job)
        self._undo, self._swap, self._begun = [], None, None
        with contextlib.suppress(TaskFailed):
            link.do("DO RELEASE_LOCK(%s)", [ledger.lock_name("finish", *job.table)])
            if self._needs_stage(job):
                link.do(f"DROP TEMPORARY TABLE IF EXISTS {self._stage(job)}")

    def _committed(self, job: Job) -> None:
        """COMMIT; when its answer is lost, the ledger knows how it ended."""
        try:
            self._link.do("COMMIT", doing=self._doing)
        except Passing as error:
            self._link.close()
            self._link = self._opened()
            if not ledger.is_committed(self._link, job, self._begun):
                raise Passing(f"{error.message}; the load was not committed") from None

    def rollback(self) -> None:
        with contextlib.suppress(Exception):
            self._link.connection.query("ROLLBACK")
        undo, self._undo, self._swap = self._undo[::-1], [], None
        for one in undo:
            self._undone(one)

    def _undone(self, step: Any) -> None:
        for _ in range(2):
            try:
                if not self._link.connection.open:
                    self._link = self._opened_again()
                step()
                return
            except Exception as error:
                last = error
                with contextlib.suppress(Exception):
                    self._link.close()
        self._session.say(f"{self._doing}: what was made for the load could not be removed: {last}")

    def _opened_again(self) -> Link:
        """A session that works also when the run was cancelled: what was made is to be removed then, too."""
        from dataclasses import replace
        from threading import Event

        calm = replace(self._session, stop=Event())
        link = Link(self._url, calm, self._settings, doing="the sink")
        link.be_strict()
        return link

    def cancel(self) -> None:
        self._link.cancel()

    def close(self) -> None:
        self._link.close()


def _refuse_rounding(job: Job, target: Schema, doing: str) -> None:
    """The server rounds times without a word."""
    for one in job.schema.columns:
        into = target[one.name].type
        if into.kind in ("time", "timestamp", "timestamptz") and one.type.kind == into.kind:
            came = 6 if one.type.precision is None else one.type.precision
            if came > (into.precision or 0):
                raise Refused(
                    f"{doing}: column '{one.name}' has {came} digits after the second, and {into} keeps {into.precision};"
                    f" widen it, or round it in the query"
                )


def _shown(value: Any) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


def _version(text: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)\.(\d+)(?=-MariaDB|$|-)", text.removeprefix("5.5.5-"))
    return tuple(int(one) for one in found.groups()) if found else (0,)
