"""The keys of SQL tasks that say what is done to rows on the way, what must hold for them, and what a table may become."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ..schema import Count, Text, wrong
from ..sql_etl.checks import AnyChecks
from ..sql_etl.contract import Contract
from ..sql_etl.deletes import MODES as KEYED
from ..sql_etl.deletes import DeletedFlag, DeleteMissing, Deletes
from ..sql_etl.history import History
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


def _delete_missing(value: Any) -> Any:
    """`true` is a mapping without keys, `false` nothing."""
    return {} if value is True else None if value is False else value


def _deleted_flag(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


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
    delete_missing: Annotated[
        DeleteMissing | None,
        BeforeValidator(_delete_missing, json_schema_input_type=bool | DeleteMissing),
    ] = Field(
        default=None,
        description="Delete the rows of the table whose keys the query no longer gives; `true`, or a mapping. The query must "
        "give all rows.",
    )
    deleted_flag: Annotated[
        DeletedFlag | None,
        BeforeValidator(_deleted_flag, json_schema_input_type=str | DeletedFlag),
    ] = Field(
        default=None,
        description="The column of the query that says that a row is deleted: true, a number other than 0, or any time. Such "
        "rows are deleted from the table.",
    )
    history: History | None = Field(
        default=None, description="For `mode: scd2`: the names of its columns, and what makes a new version."
    )
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
            self._deletes(),
            self.history,
        )

    def _deletes(self) -> Deletes | None:
        if self.delete_missing is None and self.deleted_flag is None:
            return None
        return Deletes(self.delete_missing, self.deleted_flag.column if self.deleted_flag is not None else None)

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
        yield from self._flaws_of_deletes()
        if "max_bad_rows" in self.model_fields_set and not self.quality().puts_aside:
            yield Flaw(
                ("max_bad_rows",),
                "no row is put aside, so there is nothing to count",
                "write `on_bad_row: quarantine`",
                severity="warning",
                on_key=True,
            )

    def _flaws_of_deletes(self) -> Iterator[Flaw]:
        """What does not go with rows that are deleted, or with their history."""
        mode = getattr(self, "mode", "append")
        for key in ("delete_missing", "deleted_flag"):
            if getattr(self, key) is not None and mode not in KEYED:
                known = ", ".join(f"`mode: {one}`" for one in KEYED)
                yield Flaw((key,), f"'{key}' is for {known}", "write one of these and `keys`", on_key=True)
        if self.history is not None and mode != "scd2":
            yield Flaw(("history",), "'history' is for `mode: scd2`", "write that, or remove it", on_key=True)
        if self.delete_missing is not None:
            yield from self._flaws_of_missing()

    def _flaws_of_missing(self) -> Iterator[Flaw]:
        partial = [key for key in ("incremental", "sample") if getattr(self, key, None) is not None]
        for key in partial:
            yield Flaw(
                ("delete_missing",),
                f"with '{key}' not all rows are read, so which ones are gone is not known",
                "remove one of the two",
                on_key=True,
            )
        if self.quality().puts_aside or self.contract.types == "discard_row":
            yield Flaw(
                ("delete_missing",),
                "a row that is left out would be taken for one that is gone",
                "write `on_bad_row: fail`, and no `discard_row` in `contract`",
                on_key=True,
            )
        if self.history is not None and self.history.by is not None:
            yield Flaw(
                ("history", "by"),
                "`by` says since when a row is so, and nothing says since when one is gone",
                "remove `by`, or tell deletions by `deleted_flag`",
            )
