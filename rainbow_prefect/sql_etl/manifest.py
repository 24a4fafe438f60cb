"""The list of the files that count, which is also the ledger of a table of files: read, changed and put back whole."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from .arrow_types import facts_of, type_of_facts
from .base import Job, Passing
from .types import Column, Schema

MOST_LOADS = 5000
"""So many loads are remembered, the last ones: a part that is tried again is one of them."""

_DAY_SECONDS = 86_400


@dataclass(frozen=True)
class File:
    """One file of the table; `values` are those of the columns it is partitioned by, as text."""

    name: str
    rows: int
    run_key: str
    id: str
    values: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Load:
    """One part that was loaded."""

    job: str
    run_key: str
    part: str
    number: int
    attempt: int
    mode: str
    rows: int
    committed: str
    state: dict[str, Any] | None = None
    token: str = ""


@dataclass(frozen=True)
class Claim:
    """An attempt at a part: who writes it, since when."""

    token: str
    host: str
    pid: int
    started: str
    since: float

    def is_dead(self) -> bool:
        """Whether its process is known to have ended."""
        return self.host == host() and started(self.pid) != self.started

    def is_here(self) -> bool:
        return self.host == host()


@dataclass(frozen=True)
class Manifest:
    """`schema` is None until the first load is committed."""

    format: Literal["csv", "jsonl", "parquet"] = "parquet"
    partition_by: tuple[str, ...] = ()
    schema: Schema | None = None
    files: tuple[File, ...] = ()
    loads: tuple[Load, ...] = ()
    claims: dict[str, Claim] = field(default_factory=dict)

    def loaded(self, job: Job) -> Load | None:
        """The load of this part of this run."""
        key = (job.name, job.run_key, job.part)
        return next((one for one in self.loads if (one.job, one.run_key, one.part) == key), None)

    @property
    def is_empty(self) -> bool:
        return self.schema is None and not self.claims and not self.loads

    def claimed(self, id: str, claim: Claim | None) -> Manifest:
        """The same with this claim instead of the one of this id; claims of dead processes and old ones are left out."""
        now = datetime.now(UTC).timestamp()
        claims = {
            key: one
            for key, one in self.claims.items()
            if key != id and not one.is_dead() and (one.is_here() or now - one.since < 7 * _DAY_SECONDS)
        }
        return replace(self, claims=claims if claim is None else {**claims, id: claim})

    def dump(self) -> bytes:
        """As JSON, which people can read too."""
        columns = None
        if self.schema is not None:
            columns = [
                {"name": one.name, "nullable": one.nullable, "comment": one.comment, "type": facts_of(one.type)}
                for one in self.schema.columns
            ]
        data = {
            "version": 1,
            "format": self.format,
            "partition_by": self.partition_by,
            "columns": columns,
            "files": [asdict(one) for one in self.files],
            "loads": [asdict(one) for one in self.loads[-MOST_LOADS:]],
            "claims": {id: asdict(one) for id, one in self.claims.items()},
        }
        return json.dumps(data, ensure_ascii=False, indent=1).encode()


def read(data: bytes | None) -> Manifest:
    """The other way of `Manifest.dump`; None is an empty one.

    Raises:
        Passing: it is none, e.g. half a file of another tool.
    """
    if data is None:
        return Manifest()
    try:
        found = json.loads(data)
        schema = None
        if found["columns"] is not None:
            schema = Schema(
                tuple(
                    Column(one["name"], type_of_facts(one["type"]), one["nullable"], one["comment"])
                    for one in found["columns"]
                )
            )
        return Manifest(
            found["format"],
            tuple(found["partition_by"]),
            schema,
            tuple(File(**{**one, "values": tuple(one["values"])}) for one in found["files"]),
            tuple(Load(**one) for one in found["loads"]),
            {id: Claim(**one) for id, one in found["claims"].items()},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Passing(
            f"the file '_manifest' cannot be read: {error}; restore it, or remove it with its files"
        ) from None


def id_of(job: Job) -> str:
    """The same for each attempt at a part of a run, and for nothing else."""
    return sha256("\0".join((job.name, job.run_key, job.part)).encode()).hexdigest()[:16]


def claim(token: str) -> Claim:
    """The claim of this process."""
    return Claim(token, host(), os.getpid(), started(os.getpid()), datetime.now(UTC).timestamp())


@lru_cache(maxsize=1)
def host() -> str:
    """This machine since it started; containers are machines of their own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    try:
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:
        space = ""
    return f"{socket.gethostname()} {sha256(f'{boot}{space}'.encode()).hexdigest()[:12]}"


def started(pid: int) -> str:
    """When a process of this machine started, '' when there is none: a number is given again to another one.

    Source: proc(5), field 22 of /proc/PID/stat.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _without_proc(pid)
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def _without_proc(pid: int) -> str:
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        return "alive"
    return "alive"


def dropped(found: Manifest, job: Job, new: Sequence[File]) -> tuple[File, ...]:
    """The files that a load replaces; those of other parts of the same run stay."""
    id = id_of(job)
    again = tuple(one for one in found.files if one.id == id)
    match job.mode:
        case "replace":
            return (*again, *(one for one in found.files if one.run_key != job.run_key))
        case "delete_insert":
            values = {one.values for one in new}
            return (*again, *(one for one in found.files if one.values in values and one.run_key != job.run_key))
        case _:
            return again
