"""`rainbow etl preview | diff | state`: look at the rows of a SQL task and at what it left; nothing is loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..display import table
from ..errors import CallError
from .execution import param_option
from .options import counted, json_option, path_argument, pipeline_option, print_json
from .sql_task import Chosen, chosen, line, task_option

if TYPE_CHECKING:
    from ..sql_etl.base import Job, Query, Reader
    from ..sql_etl.compare import Compared, Difference
    from ..sql_etl.types import Schema

_DIFFERENT = 1
_CELL = 40


@click.group()
def command() -> None:
    """Look at the rows of a task of type sql_etl, and at what it left in the sink; nothing is loaded."""


# -- preview


@command.command()
@path_argument
@pipeline_option
@task_option
@click.option("--rows", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many rows to show.")
@param_option
@json_option
def preview(
    path: Path, pipeline: str | None, task: str | None, rows: int, params: tuple[str, ...], as_json: bool
) -> None:
    """Show the first rows that a task would read now, with their types."""
    one = chosen(path, pipeline, task, params)
    with one.reader() as reader, one.located():
        query, schema = _next(one, reader)
        found = _first(reader, replace(query, most=rows + 1), schema, rows + 1)
    has_more, found = len(found) > rows, found[:rows]
    if as_json:
        columns = [{"name": column.name, "type": str(column.type)} for column in schema.columns]
        print_json({"columns": columns, "rows": [list(map(_plain, row)) for row in found], "more": has_more})
        return
    heads = [[column.name for column in schema.columns], [str(column.type) for column in schema.columns]]
    click.echo("\n".join(table([*heads, *(list(map(_cell, row)) for row in found)])))
    click.echo(f"the first {counted(len(found), 'row')}; there are more" if has_more else counted(len(found), "row"))


def _next(one: Chosen, reader: Reader) -> tuple[Query, Schema]:
    """What the next load would read, and its columns."""
    from ..sql_etl import quality
    from ..sql_etl.incremental import window

    order = one.order
    query = order.query
    if order.incremental is not None:
        with one.writer() as writer:
            query = window(query, order.incremental, reader, writer.state(_job(one))).query
    return quality.described(order.quality, query, reader)


def _first(reader: Reader, query: Query, schema: Schema, most: int) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    pieces = reader.rows(query, schema)
    for some in pieces:
        found += some[: most - len(found)]
        if len(found) >= most:
            break
    close = getattr(pieces, "close", None)
    if close is not None:
        close()
    return found


# -- diff


@command.command()
@path_argument
@pipeline_option
@task_option
@click.option("--rows", type=click.IntRange(0, 100_000), default=20, show_default=True,
              help="How many differences to show.")  # fmt: skip
@param_option
@json_option
def diff(path: Path, pipeline: str | None, task: str | None, rows: int, params: tuple[str, ...], as_json: bool) -> int:
    """Compare all rows of the query with the table of the sink; the exit status is 1 when they differ.

    Rows are told apart by `keys`; without them by all of their columns.
    """
    from ..sql_etl.compare import Compared

    one = chosen(path, pipeline, task, params)
    with one.writer() as writer, one.located():
        is_there = writer.describe(one.order.table) is not None
    found = _compared(one, rows) if is_there else Compared(is_all=False)
    if as_json:
        print_json(_as_data(one, found, is_there=is_there))
    else:
        lines = _lines(one, found) if is_there else [f"the table {one.table} does not exist"]
        click.echo("\n".join(lines))
    return 0 if found.is_equal else _DIFFERENT


def _compared(one: Chosen, most: int) -> Compared:
    from ..sql_etl import quality
    from ..sql_etl.base import Query
    from ..sql_etl.compare import Side, compare
    from ..sql_etl.history import History
    from ..sql_etl.incremental import window

    order = one.order
    with one.reader() as reader, one.table_reader() as there, one.located():
        query = order.query
        if order.incremental is not None:  # all that loads have read until now
            query = window(query, order.incremental, reader, {}).query
        query, came = quality.described(order.quality, query, reader)
        kept = order.quality.history or History() if order.mode == "scd2" else None
        current = () if kept is None else (f"{there.quoted(kept.is_current)} = {there.literal(True)}",)
        taken = Query(table=order.table, where=current)
        sides = Side(reader, query, came), Side(there, taken, there.describe(taken))
        return compare(*sides, order.keys, most=most)


def _as_data(one: Chosen, found: Compared, *, is_there: bool) -> dict[str, Any]:
    return {
        "equal": found.is_equal,
        "table": one.table,
        "exists": is_there,
        "missing_columns": list(found.missing_columns),
        "extra_columns": list(found.extra_columns),
        "rows_query": found.rows_query,
        "rows_table": found.rows_table,
        "missing": found.missing,
        "extra": found.extra,
        "changed": found.changed,
        "complete": found.is_all,
        "differences": [
            {"kind": each.kind, "key": dict(each.key), "query": dict(each.query), "table": dict(each.table)}
            for each in found.differences
        ],
    }


def _lines(one: Chosen, found: Compared) -> Iterator[str]:
    counts = f"the query gives {counted(found.rows_query, 'row')}, the table {one.table} has {found.rows_table}"
    yield f"equal: {counts}" if found.is_equal else f"different: {counts}"
    if found.missing_columns:
        yield f"the table has no column {', '.join(found.missing_columns)}"
    if found.extra_columns:
        yield f"not compared, since only the table has them: {', '.join(found.extra_columns)}"
    if found.missing or found.extra or found.changed:
        least = "" if found.is_all else "at least "
        yield f"{least}{found.missing} missing in the table, {found.extra} only there, {found.changed} changed"
    if found.differences:
        yield ""
        yield from table([("", "key", "query", "table"), *(_row(each) for each in found.differences)])
        left = found.missing + found.extra + found.changed - len(found.differences)
        if left > 0:
            yield f"and {left} more; --rows shows them"


def _row(one: Difference) -> Sequence[str]:
    return one.kind, _pairs(one.key), _pairs(one.query), _pairs(one.table)


def _pairs(values: Any) -> str:
    return " ".join(f"{name}={_cell(value)}" for name, value in values.items())


# -- state


@command.group()
def state() -> None:
    """What the last load of an incremental task left in the sink, where the next one goes on."""


@state.command()
@path_argument
@pipeline_option
@task_option
@param_option
@json_option
def show(path: Path, pipeline: str | None, task: str | None, params: tuple[str, ...], as_json: bool) -> None:
    """Show where the next load goes on."""
    one = chosen(path, pipeline, task, params)
    with one.writer() as writer, one.located():
        found = dict(writer.state(_job(one)))
    if as_json:
        print_json({"job": one.order.name, "table": one.table, "state": found})
    elif not found:
        click.echo(f"no load of {one.order.name} has left a state; the next one begins at the start")
    else:
        click.echo("\n".join(table([(name, _state(value)) for name, value in found.items()])))


@state.command()
@path_argument
@pipeline_option
@task_option
@click.option("--yes", is_flag=True, help="Do it without asking.")
@param_option
@json_option
def reset(
    path: Path, pipeline: str | None, task: str | None, yes: bool, params: tuple[str, ...], as_json: bool
) -> None:
    """Forget the state, so that the next load begins at the start; rows and tables stay."""
    one = chosen(path, pipeline, task, params)
    with one.writer() as writer, one.located():
        found = dict(writer.state(_job(one)))
    if found and not yes:
        _ask(one, found, as_json=as_json)
    count = _forget(one) if found else 0
    if as_json:
        print_json({"job": one.order.name, "table": one.table, "was": found, "reset": count > 0})
    elif count:
        click.echo(f"the state of {one.order.name} is deleted; the next load begins at the start")
    else:
        click.echo(f"no load of {one.order.name} has left a state; there is nothing to reset")


def _ask(one: Chosen, found: dict[str, Any], *, as_json: bool) -> None:
    shown = ", ".join(f"{name} {_state(value)}" for name, value in found.items())
    text = f"the next load of {one.order.name} would begin at the start, not after {shown}"
    if as_json or not sys.stdin.isatty():
        raise CallError(f"{text}; add --yes to delete the state")
    click.confirm(f"{text}. Delete the state?", abort=True)


def _forget(one: Chosen) -> int:
    with one.located("sink"):
        writer = one.sink.open(replace(one.session, only_looks=False))
    try:
        with one.located():
            return writer.forget(_job(one))
    finally:
        writer.close()


def _job(one: Chosen) -> Job:
    from ..sql_etl.base import Job
    from ..sql_etl.types import Schema

    order = one.order
    return Job(order.name, order.run_key, order.table, order.mode, Schema(()))


def _state(value: Any) -> str:
    """A cursor as its value, anything else as it is."""
    return str(value.get("value", value)) if isinstance(value, dict) else str(value)


# -- values


def _plain(value: Any) -> Any:
    """A value as JSON has it; bytes in hexadecimal."""
    return f"\\x{bytes(value).hex()}" if isinstance(value, bytes | bytearray | memoryview) else value


def _cell(value: Any) -> str:
    return "NULL" if value is None else line(str(_plain(value)), _CELL)
