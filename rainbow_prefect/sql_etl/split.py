"""How a task says that its rows are moved in parts; how that is done is in `parts`."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ..schema import Config, Positive, Text, wrong
from .base import Mode

EVERY = re.compile(r"\s*[1-9]\d*\s*(min|minute|h|hour|d|day|w|week|month|year)s?\s*\Z", re.IGNORECASE)
"""A length of a window that every database understands alike."""

_HASHED = re.compile(r"hash\((?P<column>.+)\)\Z", re.IGNORECASE)
_BY_PARTS: tuple[Mode, ...] = ("append", "insert_new", "upsert", "delete_insert")


class Split(Config):
    """How the rows of a task are cut into parts, each of which is loaded once, and by whom."""

    by: Text | None = Field(default=None, min_length=1, description="The column to cut by: a key, a number or a time.")
    method: Literal["range", "hash", "ctid", "partition"] = Field(
        default="range",
        description="`range`: ranges of `by`; `hash`: of its hashes; `ctid`: the pages of a table of PostgreSQL; `partition`: "
        "one part for each partition of a table of PostgreSQL or MySQL.",
    )
    every: Text | None = Field(default=None, description="Of a time: windows of this length, e.g. `1d` or `1 month`.")
    executors: Positive = Field(default=4, description="So many slices share the parts, at once.")
    atomic: bool = Field(
        default=False, description="All or nothing: the parts go into a stage, and to the table when all are there."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.method in ("range", "hash"):
            self._refuse_by()
        elif self.by is not None:
            raise wrong(f"`method: {self.method}` goes by no column", hint="remove `by`", at="by")
        if self.every is not None and self.method != "range":
            raise wrong(f"`every` makes ranges of a time, not `method: {self.method}`", hint="remove one", at="every")
        if self.every is not None and not EVERY.match(self.every):
            raise wrong(f"{self.every!r} is no length of a window", hint="write e.g. 1h, 1d or 1 month", at="every")
        return self

    def _refuse_by(self) -> None:
        if self.by is None:
            raise wrong("nothing says what to cut by", hint="add `by: COLUMN`, or write `method: ctid`")
        hashed = _HASHED.match(self.by)
        if hashed:
            raise wrong(f"'{self.by}' is no column", hint=f"write `{{by: {hashed['column']}, method: hash}}`", at="by")
        if self.by == "ctid":
            raise wrong("`ctid` is no column, but a method", hint="write `method: ctid` and no `by`", at="by")

    def is_whole(self, mode: Mode) -> bool:
        """Whether the parts go into a stage first: asked for, or since the mode is about the table as a whole."""
        return self.atomic or mode not in _BY_PARTS

    def asked(self, dialect: str) -> dict[str, Any]:
        """What `Reader.parts` of a dialect is asked."""
        number: dict[str, Any] = {"executors": self.executors}
        match self.method:
            case "ctid":
                return {"ctid": True, **number}
            case "partition":
                return {"partitions": True, **number}
            case "hash":
                return (
                    {"by": self.by, "method": "hash", **number} if dialect == "duckdb" else {"hash": self.by, **number}
                )
            case _:
                return {"by": self.by, **({"every": self.every} if self.every else {}), **number}
