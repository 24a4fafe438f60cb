"""What a table is called among all data: an URI without user and password, the same for who writes it and who reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .base import Query, Refused
from .config import Sink, Source

if TYPE_CHECKING:
    from .move import Order

_LONGEST = 512
_ODD = re.compile(r"[\s\x00-\x1f#?&%\"'<>\[\]{}|\\^`]")
"""What Prefect allows in no key of an asset."""

_IMPLIED = {"postgresql": "public", "sqlite": "main", "duckdb": "main"}
_NOISE = re.compile(
    r"""(?P<text>'(?:[^']|'')*')|(?P<dollar>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)|--[^\n]*|/\*.*?\*/""", re.DOTALL
)
_NAME = r'(?:"(?:[^"]|"")+"|`[^`]+`|\[[^\]]+\]|[^\W\d][\w$]*)'
_TABLES = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
_FROM = re.compile(
    rf"\b(?:from|join)\s+(?:only\s+|lateral\s+)?(?!lateral\b)(?P<first>{_TABLES})(?!\s*\(|\w)", re.IGNORECASE
)
_MORE = re.compile(
    rf"(?:\s+(?:as\s+)?(?!(?:where|join|on|left|right|inner|cross|full|natural|group|order|limit|union|using)\b){_NAME})?"
    rf"\s*,\s*(?!lateral\b)(?P<next>{_TABLES})(?!\s*\(|\w)",
    re.IGNORECASE,
)
_NAMED = re.compile(rf"(?:\bwith\s+(?:recursive\s+)?|,\s*)(?P<name>{_NAME})(?:\s*\([^()]*\))?\s+as\s+(?:not\s+)?"
                    r"(?:materialized\s+)?\(", re.IGNORECASE)  # fmt: skip
_CALLS = re.compile(r"\b(?:extract|substring|trim|overlay)\s*\([^()]*\)", re.IGNORECASE)
_PART = re.compile(_NAME)


def lineage(order: Order, source: Source, sink: Sink, root: Path) -> tuple[str, tuple[str, ...]]:
    """The key of the table that an order writes, and those of the tables that it reads."""
    return key(sink, order.table, root), tuple(key(source, one, root) for one in tables(order.query))


def key(store: Source | Sink, table: tuple[str | None, str], root: Path) -> str:
    """The key of a table, of at most 512 characters, none of which Prefect refuses.

    Shape: `postgresql://host:5432/db/schema/table`, `sqlite:///folder/shop.db/orders`, `file:///folder/lake/clicks`,
    `s3://bucket/lake/clicks`; a schema that is meant anyhow, such as `public`, is left out.
    """
    place, implied = _place(store, root)
    names = [one for one in table if one]
    if len(names) == 2 and names[0] == implied:
        del names[0]
    return _ODD.sub("_", "/".join([place.rstrip("/"), *(one.replace("/", "_") for one in names)]))[-_LONGEST:]


def _place(store: Source | Sink, root: Path) -> tuple[str, str]:
    """What a store is called, and the schema that its tables are in when none is named."""
    url = getattr(store, "url", None)
    if isinstance(url, str):
        return _database(url, root)
    path = getattr(store, "path", None)
    if isinstance(path, str):
        return (path if "://" in path else f"file://{(root / path).absolute()}"), ""
    name = getattr(store, "source", None) or getattr(store, "sink", None) or "unnamed"
    return f"{re.sub('[^a-z0-9]', '', store.type.lower()) or 'store'}://{name}", ""


def _database(url: str, root: Path) -> tuple[str, str]:
    from .sqlalchemy import parsed

    try:
        found = parsed(url)
    except Refused:
        return "database://unnamed", ""
    dialect = found.get_backend_name()
    if dialect == "postgres":
        dialect = "postgresql"
    if dialect in ("sqlite", "duckdb"):
        file = found.database or ":memory:"
        return f"{dialect}://{file if file.startswith(':') else (root / file).absolute()}", _IMPLIED[dialect]
    port = found.port or {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}.get(dialect)
    host = f"{found.host or 'localhost'}{f':{port}' if port else ''}"
    return f"{re.sub('[^a-z0-9]', '', dialect)}://{host}/{found.database or ''}", _IMPLIED.get(dialect, "")


def tables(query: Query) -> list[tuple[str | None, str]]:
    """The tables that a query reads, as its text names them after FROM and JOIN; those that it names itself are none."""
    if query.table is not None:
        return [query.table]
    text = _NOISE.sub(lambda found: "''" if found["text"] or found["dollar"] else " ", query.sql or "")
    text = _CALLS.sub("''", text)
    own = {_bare(one["name"]).lower() for one in _NAMED.finditer(text)}
    found = [tuple(map(_bare, _PART.findall(one)))[-2:] for one in _named(text)]
    return list(
        dict.fromkeys(
            (one[0] if len(one) == 2 else None, one[-1]) for one in found if len(one) == 2 or one[0].lower() not in own
        )
    )


def _named(text: str) -> Iterator[str]:
    for one in _FROM.finditer(text):
        yield one["first"]
        more = _MORE.match(text, one.end())
        while more is not None:
            yield more["next"]
            more = _MORE.match(text, more.end())


def _bare(name: str) -> str:
    if name[0] in '"`[':
        mark = name[0]
        return name[1:-1].replace(mark * 2, mark)
    return name
