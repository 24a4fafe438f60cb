"""What is wrong with a SQL task that is split: whatever its parts, one by one, could not do exactly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..sql_etl.split import Split
from .base import Flaw, Place

if TYPE_CHECKING:
    from .sql_etl import SqlEtl

_KEYED = ("insert_new", "upsert", "delete_insert")
_OF_ALL = ("delete_missing", "deleted_flag")
"""Keys that compare the table with all rows that come."""


def split_flaws(task: SqlEtl, split: Split, place: Place) -> Iterator[Flaw]:
    """What its keys together cannot mean."""
    yield from _of_stores(task, split, place)
    if split.method in ("ctid", "partition") and (task.query is not None or task.query_file is not None):
        yield Flaw(
            ("split", "method"),
            f"`method: {split.method}` cuts a table, not a query",
            "read a `source_table` with `filter`, or split `by` a column",
        )
    for key in ("on_failure", "min_success"):
        if key in task.model_fields_set and getattr(task, key) not in (None, "fail"):
            yield Flaw((key,), "a load that lacks a part is none", f"remove `{key}`", on_key=True)
    if task.dedupe is not None and _column(task, split) not in (task.dedupe.keys or task.keys):
        yield Flaw(
            ("dedupe",),
            f"{_by(split)} may have rows with the same keys, of which each part would keep one",
            "split `by` one of the keys of `dedupe`",
        )
    if not split.is_whole(task.mode):
        yield from _one_by_one(task, split)


def _one_by_one(task: SqlEtl, split: Split) -> Iterator[Flaw]:
    """What needs all rows at once, when each part is committed for itself."""
    column = _column(task, split)
    if task.mode in _KEYED and column not in task.keys:
        would = "would delete of each other" if task.mode == "delete_insert" else "would not notice"
        yield Flaw(
            ("split",),
            f"{_by(split)} may have rows with the same `keys`, which `mode: {task.mode}` {would}",
            "split `by` one of the keys, or write `atomic: true`",
        )
    if task.incremental is not None and task.mode == "append":
        yield Flaw(
            ("split",),
            "parts that were added before the run failed would be added again by the next one, whose cursor is the old one",
            "write `atomic: true`, or `mode: upsert` with `keys`",
        )
    for key in _OF_ALL:
        if getattr(task, key, None):
            yield Flaw((key,), f"`{key}` compares the table with all rows", "write `atomic: true` in `split`")
    yield from _of_checks(task, column)


def _of_checks(task: SqlEtl, column: str | None) -> Iterator[Flaw]:
    checks = task.checks
    if checks is None:
        return
    hint = "write `atomic: true` in `split`"
    for key in ("rows", "sql"):
        if getattr(checks, key):
            yield Flaw(("checks", key), f"`{key}` is about all rows, and each part is committed for itself", hint)
    for name, several in checks.columns.items():
        at = ("checks", "columns", name) if _is_nested(task, name) else ("checks", name)
        if any(one.unique for one in several) and name != column:
            yield Flaw(at, f"`unique` of '{name}' is about all rows, and each part is committed for itself", hint)
        if any(one.max_age is not None for one in several):
            yield Flaw(at, f"`max_age` of '{name}' is about all rows, and each part is committed for itself", hint)


def _is_nested(task: SqlEtl, name: str) -> bool:
    """Whether a column stands below `columns`, since its name is that of a key."""
    return name in ("rows", "sql", "columns")


def _of_stores(task: SqlEtl, split: Split, place: Place) -> Iterator[Flaw]:
    kind = _kind(task.source, {one.source: one.type for one in place.app.sources if one.source})
    if kind in ("files", "function"):
        yield Flaw(("split",), f"a source of type {kind} cannot be split", "remove `split`", on_key=True)
    kind = _kind(task.sink, {one.sink: one.type for one in place.app.sinks if one.sink})
    if kind == "files" and split.is_whole(task.mode):
        what = "`atomic: true`" if split.atomic else f"`mode: {task.mode}`"
        yield Flaw(
            ("split",),
            f"files have no stage, which {what} needs for parts",
            "write `mode: append` without `atomic`, or remove `split`",
            on_key=True,
        )


def _kind(store: Any, known: dict[str, str]) -> str:
    """The type of a source or sink, '' when it is only known at run time."""
    return known.get(store, "") if isinstance(store, str) else str(getattr(store, "type", ""))


def _column(task: SqlEtl, split: Split) -> str | None:
    """The column of the sink that has the values of the one that is cut by, None when there is none."""
    if split.by is None:
        return None
    name = task.rename.get(split.by, split.by)
    is_changed = split.by in task.columns or split.by in task.cast or name in task.mask
    return None if is_changed else name


def _by(split: Split) -> str:
    return f"parts by `{split.by}`" if split.by else f"parts by `method: {split.method}`"
