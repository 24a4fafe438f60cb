"""What PostgreSQL says went wrong, as the errors of a load: a retry may mend it, a value is wrong, or it is refused."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from ..errors import TaskFailed, one_line
from .base import BadValue, Passing, Refused

if TYPE_CHECKING:
    import psycopg

SHOWN = 80
"""Characters of a value that a message shows."""

_PASSING = ("08", "40", "53", "57P", "55P03", "55006", "57014", "58030")
_BAD_VALUE = ("22", "23", "54", "21000")
_WRONG_LOGIN = re.compile(
    r"authentication failed|no pg_hba\.conf entry|(?:database|role) \"[^\"]*\" (?:does not exist|is not permitted)"
    r"|no password supplied|invalid connection option|invalid integer value|does not support SSL|certificate verify failed"
    r"|root certificate file|invalid sslmode|not translate host name \"[^\"]*\" to address: Name or service",
    re.IGNORECASE,
)
_CONTEXT = re.compile(
    r"COPY .*?, line (?P<line>\d+)(?::.*|, column (?P<column>[^\n]+?)(?:: (?:\"(?P<value>.*)\"|null input))?)?\Z",
    re.DOTALL,
)

_HINTS = {
    "22001": "widen the column, or cut the text in the query",
    "22003": "widen the column, or cast in the query",
    "22021": "text of PostgreSQL cannot hold it; take it out in the query",
    "22P05": "jsonb of PostgreSQL cannot hold it; take it out in the query, or use json",
    "22P02": "cast it in the query",
    "23502": "fill it in the query, or allow NULL in the table",
    "23503": "load the rows it refers to first",
    "23505": "use mode upsert or insert_new with these keys, or leave the row out in the query",
    "23514": "leave the row out in the query, or change the constraint",
    "23P01": "leave the row out in the query, or change the constraint",
}


def told(error: psycopg.Error, doing: str, *, unit: str = "row", secret: Collection[str] = ()) -> TaskFailed:
    """The error of a statement for people; `doing` is what it was for, e.g. `table mart.orders`.

    `unit` is what the server counts in COPY. Values of `secret` columns are not shown.
    """
    state = error.sqlstate or ""
    text = _text(error)
    if not state:
        if _WRONG_LOGIN.search(text):
            return Refused(f"{doing}: {text}")
        return Passing(f"{doing}: the connection to the server was lost: {text}")
    if state.startswith(_BAD_VALUE):
        return BadValue(f"{doing}: {_value_told(error, unit, secret)}")
    if state.startswith(_PASSING):
        return Passing(f"{doing}: {text} (SQLSTATE {state})")
    return Refused(f"{doing}: {text} (SQLSTATE {state}){_detail(error)}")


def _text(error: psycopg.Error) -> str:
    said = error.diag.message_primary or str(error) or type(error).__name__
    return " ".join(said.split())


def _detail(error: psycopg.Error) -> str:
    said = [error.diag.message_detail, error.diag.message_hint]
    return "".join(f"; {' '.join(one.split())}" for one in said if one)


def _value_told(error: psycopg.Error, unit: str, secret: Collection[str]) -> str:
    found = _CONTEXT.search(error.diag.context or "")
    column = error.diag.column_name or (found["column"] if found else None)
    parts = []
    if column is not None:
        parts.append(f"column '{column}'")
    if found is not None:
        parts.append(f"{unit} {found['line']}")
    hidden = bool(secret) and (column is None or column in secret)
    if found is not None and found["value"] is not None and column is not None and not hidden:
        parts.append(f"value {short(found['value'])}")
    detail = "" if hidden or not error.diag.message_detail else f"; {' '.join(error.diag.message_detail.split())}"
    text = f"column '{column}' refused the value" if hidden else _text(error)
    hint = _HINTS.get(error.sqlstate or "", error.diag.message_hint or "correct it in the query")
    place = f"{', '.join(parts)}: " if parts else ""
    return f"{place}{text} (SQLSTATE {error.sqlstate}){detail}; {hint}; nothing was written"


def short(value: object) -> str:
    """The first characters of a value, quoted, in one line."""
    text = value if isinstance(value, str) else str(value)
    return f"'{one_line(text[:SHOWN])}'" + ("..." if len(text) > SHOWN else "")
