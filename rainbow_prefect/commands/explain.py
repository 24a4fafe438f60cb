"""`rainbow explain [PATH] --pipeline NAME --task NAME`: what a SQL task would do, and why so; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..display import table
from .execution import param_option
from .options import json_option, path_argument, pipeline_option, print_json
from .sql_task import Chosen, chosen, task_option

_SHOWN_PARTS = 50

if TYPE_CHECKING:
    from ..sql_etl.base import Reader, Writer
    from ..sql_etl.move import Prepared


@click.command()
@path_argument
@pipeline_option
@task_option
@param_option
@json_option
def command(path: Path, pipeline: str | None, task: str | None, params: tuple[str, ...], as_json: bool) -> None:
    """Tell what a task of type sql_etl would do now: columns and types, the way of the rows and why, all statements.

    Looks at the source and at the sink; nothing is written.
    """
    from ..sql_etl.move import prepare

    one = chosen(path, pipeline, task, params)
    with one.reader() as reader, one.writer() as writer:
        with one.located():
            prepared = prepare(one.order, reader, writer)
            pieces = _parts(one, reader, writer)
        found = {**_found(one, prepared, reader, writer), "split": pieces}
    masked = one.secrets.mask_data(found)
    if as_json:
        print_json(masked)
    else:
        click.echo("\n".join(_text(masked)))


def _found(one: Chosen, prepared: Prepared, reader: Reader, writer: Writer) -> dict[str, Any]:
    """All that is known, as JSON data."""
    query, choice = prepared.query, prepared.choice
    return {
        "pipeline": one.pipeline.pipeline,
        "task": one.task.task,
        "source": {
            "name": _name(one.task.source),
            "dialect": reader.dialect,
            "query": query.sql,
            "table": ".".join(part for part in query.table if part) if query.table else None,
            "columns": [f"{sql} AS {name}" for name, sql in query.columns],
            "where": list(query.where),
        },
        "sink": {
            "name": _name(one.task.sink),
            "dialect": writer.dialect,
            "table": one.table,
            "exists": prepared.existing is not None,
        },
        "mode": one.order.mode,
        "keys": list(one.order.keys),
        "columns": _columns(prepared, writer),
        "lane": choice.lane,
        "through": reader.through,
        "others": [{"lane": lane, "reason": reason} for lane, reason in choice.others],
        "ddl": list(prepared.ddl),
        "statements": [text for text in prepared.statements if text not in prepared.ddl],
        "warnings": list(prepared.warnings),
        "state": dict(prepared.before),
    }


def _parts(one: Chosen, reader: Reader, writer: Writer) -> dict[str, Any] | None:
    """The parts of a task that is split, and where they go; None for others."""
    from ..sql_etl.move import prepare
    from ..sql_etl.parts import cut, orders, stage_of

    split = one.task.split
    if split is None:
        return None
    made = cut(one.order, split, reader, writer)
    is_whole = split.is_whole(one.order.mode)
    first = [text for order in orders(one.order, split, made)[:1] for text in prepare(order, reader, writer).statements]
    return {
        "executors": split.executors,
        "stage": stage_of(one.order)[1] if is_whole else None,
        "parts": [
            {
                "part": part.name,
                "where": " AND ".join(part.where) or (f"partition {part.partition}" if part.partition else ""),
            }
            for part in made.parts
        ],
        "statements": first,
    }


def _columns(prepared: Prepared, writer: Writer) -> list[dict[str, Any]]:
    existing = prepared.existing
    return [
        {
            "name": column.name,
            "source": str(column.type),
            "sink": str(existing[column.name].type)
            if existing is not None and column.name in existing
            else writer.type_of(column),
            "nullable": column.nullable and column.name not in prepared.job.keys,
        }
        for column in prepared.came.columns
    ]


def _name(value: Any) -> str:
    """The name of a source or sink; one that is written in the task, or is an URL, has none."""
    if isinstance(value, str):
        return "" if "://" in value or "{{" in value else value
    return str(getattr(value, "source", None) or getattr(value, "sink", None) or "")


# -- text


def _text(found: dict[str, Any]) -> Iterator[str]:
    source, sink = found["source"], found["sink"]
    new = "exists" if sink["exists"] else "does not exist yet and is made"
    by = f" by {', '.join(found['keys'])}" if found["keys"] else ""
    yield from table(
        [
            ("source", f"{source['name']} ({source['dialect']})".strip()),
            ("sink", f"{sink['name']} ({sink['dialect']}), table {sink['table']}, which {new}".strip()),
            ("mode", f"{found['mode']}{by}"),
            *((("through", found["through"]),) if found["through"] else ()),
            ("rows go", f"as {found['lane']}"),
            *(("", f"not {', '.join(lanes)}: {reason}") for reason, lanes in _reasons(found["others"]).items()),
            *((("goes on from", str(found["state"])),) if found["state"] else ()),
            *(("warning", text) for text in found["warnings"]),
        ]
    )
    yield ""
    rows = [("column", "source", "sink", "")]
    rows += [
        (one["name"], one["source"], one["sink"], "" if one["nullable"] else "not null") for one in found["columns"]
    ]
    yield from table(rows)
    yield from _section("query", list(_query(source)))
    yield from _section("table", found["ddl"])
    split, title = found["split"], "load"
    if split is not None:
        yield from _split(split)
        title = "each part" if split["stage"] is None else f"all rows, from {split['stage']}"
    yield from _section(title, found["statements"])


def _split(split: dict[str, Any]) -> Iterator[str]:
    """The parts, and what is done for each of them when they go to a stage."""
    yield ""
    yield f"parts, {split['executors']} at once"
    rows = [(one["part"], one["where"] or "all rows") for one in split["parts"][:_SHOWN_PARTS]]
    yield from (f"  {text}" for text in table(rows))
    if len(split["parts"]) > _SHOWN_PARTS:
        yield f"  and {len(split['parts']) - _SHOWN_PARTS} more"
    if split["stage"] is not None:
        yield from _section(f"each part, into {split['stage']}", split["statements"])


def _reasons(others: list[dict[str, str]]) -> dict[str, list[str]]:
    """The lanes that are not taken, by why not."""
    reasons: dict[str, list[str]] = {}
    for one in others:
        reasons.setdefault(one["reason"], []).append(one["lane"])
    return reasons


def _query(source: dict[str, Any]) -> Iterator[str]:
    yield source["query"].strip() if source["query"] is not None else f"table {source['table']}"
    for text in source["columns"]:
        yield f"column {text}"
    for text in source["where"]:
        yield f"where {text}"


def _section(title: str, texts: list[str]) -> Iterator[str]:
    if not texts:
        return
    yield ""
    yield title
    for text in texts:
        for part in text.replace("\t", "  ").splitlines():
            yield f"  {part.rstrip()}"
