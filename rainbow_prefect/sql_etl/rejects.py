"""Rows that are put aside instead of ending a load: into `<table>__rejected`, in the same transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .base import Job, Refused, Rejected, Writer

_SUFFIX = "__rejected"
_AT_ONCE = 100
_COLUMNS = (
    ("run", "VARCHAR(100) NOT NULL"),
    ("part", "VARCHAR(200) NOT NULL"),
    ("ordinal", "BIGINT"),
    ("column", "VARCHAR(255)"),
    ("error", "TEXT NOT NULL"),
    ("sqlstate", "VARCHAR(5)"),
    ("row", "TEXT NOT NULL"),
)
_LONG_TEXT = {"mysql": "LONGTEXT", "mariadb": "LONGTEXT", "mssql": "NVARCHAR(MAX)", "oracle": "CLOB"}


def changes(job: Job, writer: Writer) -> list[str]:
    """The statement that makes the table for rejected rows; none when it is there.

    Raises:
        Refused: the table that has its name has other columns.
    """
    found = writer.describe(_table(job))
    if found is not None:
        missing = [name for name, _ in _COLUMNS if name not in found]
        if missing:
            raise Refused(
                f"the table '{_table(job)[1]}' has no column '{missing[0]}', which bad rows need; rename that table"
            )
        return []
    text = _LONG_TEXT.get(writer.dialect, "TEXT")
    columns = ", ".join(f"{writer.quoted(name)} {kind.replace('TEXT', text)}" for name, kind in _COLUMNS)
    return [f"CREATE TABLE {_name(job, writer)} ({columns})"]


def store(rejected: Sequence[Rejected], job: Job, writer: Writer) -> None:
    """Write them down."""
    columns = ", ".join(writer.quoted(name) for name, _ in _COLUMNS)
    for start in range(0, len(rejected), _AT_ONCE):
        rows = [_row(one, job, writer) for one in rejected[start : start + _AT_ONCE]]
        writer.do(f"INSERT INTO {_name(job, writer)} ({columns}) VALUES {', '.join(rows)}")


def _row(one: Rejected, job: Job, writer: Writer) -> str:
    shown = json.dumps(one.row, ensure_ascii=False, default=_as_json)
    values = (job.run_key, job.part, one.ordinal, one.column, one.error, one.sqlstate, shown)
    return f"({', '.join(map(writer.literal, values))})"


def _as_json(value: Any) -> str:
    return value.hex() if isinstance(value, bytes | bytearray | memoryview) else str(value)


def _table(job: Job) -> tuple[str | None, str]:
    return job.table[0], f"{job.table[1]}{_SUFFIX}"


def _name(job: Job, writer: Writer) -> str:
    return ".".join(writer.quoted(one) for one in _table(job) if one)
