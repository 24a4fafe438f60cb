"""The source or sink that a task names, as a run uses it: by name, by URL, written there, or kept as a Prefect block."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import CallError, TaskFailed, near
from .config import Sink, Source

if TYPE_CHECKING:
    from ..run import Run

T = TypeVar("T", Source, Sink)

_BLOCK = "block:"
_REFERENCE = re.compile(r"block:[a-z0-9][a-z0-9_-]*/[^/\s]+\Z")


def source_of(value: str | Source, run: Run) -> Source:
    """The source with its secrets.

    Raises:
        TaskFailed: there is none of this name, or the block cannot be used.
        RunError: Prefect cannot be reached, a secret cannot be read.
    """
    from .sqlalchemy import SqlSource

    if isinstance(value, str) and is_url(value):
        return SqlSource(url=value)
    return _ready(value, run.sources, run, "source", Source)


def sink_of(value: str | Sink, run: Run) -> Sink:
    """The sink with its secrets; raises as `source_of`."""
    from .sqlalchemy import SqlSink

    if isinstance(value, str) and is_url(value):
        return SqlSink(url=value)
    return _ready(value, run.sinks, run, "sink", Sink)


def is_url(text: str) -> bool:
    """Whether it is no name and no reference."""
    return "://" in text or text.lstrip().startswith("{{")


def is_block(text: str) -> bool:
    """Whether it means to name a Prefect block."""
    return text.startswith(_BLOCK)


def block_flaw(reference: str, what: str) -> tuple[str, str, bool] | None:
    """What is wrong with the text of a reference, how to mend it, and whether that is sure; None when nothing is."""
    if not _REFERENCE.match(reference):
        return f"'{reference}' is not a reference to a block", f"write block:sql-{what}/NAME", True
    slug = reference.removeprefix(_BLOCK).partition("/")[0]
    mine, other = f"sql-{what}", "sql-sink" if what == "source" else "sql-source"
    if slug == other:
        return f"a block of type '{slug}' is no {what}", f"name one of type '{mine}'", True
    hint = near(slug, [mine], list_up_to=0)
    return (f"unknown block type '{slug}'", hint, False) if slug != mine and hint else None


def _ready(value: str | T, known: Mapping[str, T], run: Run, what: str, kind: type[T]) -> T:
    if isinstance(value, str) and is_block(value):
        return _saved(value, run, what, kind)
    if isinstance(value, str):
        if value not in known:
            raise TaskFailed(f"there is no {what} '{value}'; {near(value, known) or f'add it to `{what}s`'}")
        value = run.secrets.render(known[value])
    assert isinstance(value, kind), "the check of the file saw to it"
    url = getattr(value, "url", None)
    if not isinstance(url, str) or not is_block(url):
        return value
    own: dict[str, Any] = {name: getattr(value, name) for name in value.model_fields_set - {"url", "type"}}
    return _saved(url, run, what, kind).model_copy(update=own)


def _saved(reference: str, run: Run, what: str, kind: type[T]) -> T:
    if run.saved is None:
        raise TaskFailed(f"the {what} '{reference}' can be read only while a pipeline runs")
    try:
        found = run.saved(reference.removeprefix(_BLOCK), what)
    except CallError as error:
        raise TaskFailed(str(error)) from None
    assert isinstance(found, kind), "it was asked for as one"
    run.secrets.learn_from(found.model_dump(mode="json"))
    made: T = run.secrets.render(found)
    return made
