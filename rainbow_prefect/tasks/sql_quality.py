"""The keys of SQL tasks that say what is done to rows on the way, what must hold for them, and what a table may become."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ..schema import Count, Text, wrong
from ..sql_etl.checks import AnyChecks
from ..sql_etl.contract import Contract
from ..sql_etl.quality import Quality
from ..sql_etl.shape import Dedupe, Listed, Mask, Shape
from .base import Flaw, Share, Task


def _contract(value: Any) -> Any:
    """`freeze` and `evolve` alone are for tables, columns and types."""
    if value in ("freeze", "evolve"):
        return {"tables": value, "columns": value, "types": value}
    if isinstance(value, str):
        raise wrong(f"unknown contract '{value}'", hint="write freeze, evolve or a mapping")
    return value


def _dedupe(value: Any) -> Any:
    """A column alone is `by`."""
    return {"by": value} if isinstance(value, str | list) else value


class QualityKeys(Task):
    """Further keys of a task that moves rows."""

    select: Listed = Field(default=(), description="The columns to move, in this order; absent: all.")
    rename: dict[str, Text] = Field(default_factory=dict, description="New names of columns: `{old: new}`.")
    cast: dict[str, Text] = Field(
        default_factory=dict,
        description="Types of the source's database that columns are cast to: `{amount: integer}`.",
    )
    filter: Listed = Field(
        default=(), description="Conditions in SQL of the source; rows for which all hold are moved."
    )
    columns: dict[str, Text] = Field(
        default_factory=dict,
        description="Columns that are added or replaced: `{total: price * quantity}`, SQL of the source.",
    )
    dedupe: (
        Annotated[Dedupe, BeforeValidator(_dedupe, json_schema_input_type=str | tuple[str, ...] | Dedupe)] | None
    ) = Field(
        default=None,
        description="Of rows with the same `keys`, keep the last (or first) by a column: `{by: updated_at}`.",
    )
    mask: dict[str, Mask] = Field(
        default_factory=dict,
        description="Columns, by their new names, whose values are hidden: `hash` is the SHA-256 of `mask_salt` and the "
        "value in hexadecimal, made by the source's database; `redact` writes `***`. NULL stays NULL.",
    )
    mask_salt: Text | None = Field(
        default=None, min_length=1, description="What is put before a value that is hashed: `{{secret.NAME}}`."
    )
    sample: Share | None = Field(default=None, description="The share of rows that is moved, picked at random: `1%`.")
    contract: Annotated[Contract, BeforeValidator(_contract, json_schema_input_type=str | Contract)] = Field(
        default_factory=Contract,
        description="What may change in the table: `freeze` or `evolve`, or a mapping of `tables`, `columns`, `types`.",
    )
    checks: AnyChecks | None = Field(
        default=None, description="What must hold for the rows before they are committed: `{id: {unique: true}}`."
    )
    on_bad_row: Literal["fail", "quarantine"] = Field(
        default="fail",
        description="What becomes of a row that a check or the sink refuses: the load fails, or the row goes to "
        "`TABLE__rejected` in the same transaction.",
    )
    max_bad_rows: Count = Field(default=1000, description="With more bad rows than these the load fails in any case.")
    pre: Listed = Field(default=(), description="Statements of the sink before the rows, in the transaction.")
    post: Listed = Field(default=(), description="Statements of the sink after the rows, in the transaction.")

    def quality(self) -> Quality:
        """What is asked of the rows and the table."""
        return Quality(
            self._shape(),
            self.contract,
            self.checks,
            self.on_bad_row,
            self.max_bad_rows,
            tuple(self.pre),
            tuple(self.post),
        )

    def _shape(self) -> Shape | None:
        if not any(
            (self.select, self.rename, self.cast, self.filter, self.columns, self.dedupe, self.mask, self.sample)
        ):
            return None
        return Shape(
            tuple(self.select),
            self.rename,
            self.cast,
            self.columns,
            tuple(self.filter),
            self.sample,
            self.dedupe,
            self.mask,
            self.mask_salt or "",
            tuple(getattr(self, "keys", ())),
        )

    def quality_flaws(self) -> Iterator[Flaw]:
        """What is wrong with these keys that their types cannot tell."""
        for name in {one for one in self.select if self.select.count(one) > 1}:
            yield Flaw(("select",), f"`select` names '{name}' twice", "name each column once")
        new = list(self.rename.values())
        for name in {one for one in new if new.count(one) > 1}:
            yield Flaw(("rename",), f"two columns would be '{name}'", "give each its own name")
        if "hash" in self.mask.values() and self.mask_salt is None:
            yield Flaw(("mask",), "`hash` needs `mask_salt`", "write `mask_salt: '{{secret.NAME}}'`")
        if self.mask_salt is not None and "{{" not in self.mask_salt:
            yield Flaw(("mask_salt",), "the salt is written in the file", "put it among `secrets`", severity="warning")
        if self.dedupe is not None and not self.dedupe.keys and not getattr(self, "keys", ()):
            yield Flaw(("dedupe",), "`dedupe` needs `keys`", "name the columns that make rows the same")
        if "max_bad_rows" in self.model_fields_set and not self.quality().puts_aside:
            yield Flaw(
                ("max_bad_rows",),
                "no row is put aside, so there is nothing to count",
                "write `on_bad_row: quarantine`",
                severity="warning",
                on_key=True,
            )
