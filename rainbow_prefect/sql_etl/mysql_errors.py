"""What MySQL and MariaDB say went wrong, as the errors of a load: what a retry may mend, what is wrong with a value, the rest."""

from __future__ import annotations

import re

from ..errors import TaskFailed, one_line
from .base import BadValue, Passing, Refused

SHOWN = 80
"""Characters of a value that a message shows."""

INTERRUPTED = 1317
DUPLICATE = 1062

_LOST = (
    *(1040, 1042, 1043, 1047, 1053, 1077, 1079, 1129, 1158, 1159, 1160, 1161, 1203, 1226, 1927),
    *(2002, 2003, 2006, 2013, 2055, 4031),
)
"""Lost, refused or killed connections; the server starts, stops or has too many of them."""
_PASSING = frozenset(
    (
        *_LOST,
        *(1020, 1205, 1213, 1412, 1614, 1615, 1689, 3058, 3572),  # locks, deadlocks, what others changed on the way
        *(1317, 1969, 3024, 1021, 1114, 1206),  # statements that took too long or were stopped; no room
    )
)
_BAD_VALUE = frozenset(
    (
        *(1048, 1062, 1138, 1153, 1169, 1216, 1217, 1261, 1262, 1263, 1264, 1265, 1292, 1301, 1365, 1366, 1367, 1406),
        *(1411, 1416, 1441, 1451, 1452, 1525, 1557, 1586, 1690, 1761, 3140, 3156, 3157, 3819, 3988, 4025, 4078),
    )
)

_HINTS = {
    1048: "fill it in the query, or allow NULL in the table",
    1263: "fill it in the query, or allow NULL in the table",
    1062: "use mode upsert or insert_new with these keys, or leave the row out in the query",
    1153: "raise max_allowed_packet of the server",
    1301: "raise max_allowed_packet of the server",
    1264: "widen the column, or cast in the query",
    1406: "widen the column, or cut the text in the query",
    1265: "widen the column, or round or cut it in the query",
    1366: "make the column one of utf8mb4 or of the right type, or correct it in the query",
    1451: "remove or move the rows that refer to it first",
    1452: "load the rows it refers to first",
    3819: "leave the row out in the query, or change the constraint",
    4025: "leave the row out in the query, or change the constraint",
}
_ROW = re.compile(r"\bat row (?P<row>\d+)")
_COLUMN = re.compile(
    r"\b(?:for|[Cc]olumn|Field)(?: column)? (?:`(?:[^`]|``)*`\.){0,2}(?:`(?P<ticked>(?:[^`]|``)+)`|'(?P<quoted>[^']+)')"
)


def told(error: Exception, doing: str) -> TaskFailed:
    """The error of a driver for people; `doing` is what it was for, e.g. `table mart.orders`."""
    import pymysql

    if not isinstance(error, pymysql.err.MySQLError):
        if isinstance(error, OSError):
            return Passing(f"{doing}: the connection to the server was lost: {_line(str(error))}")
        return Refused(f"{doing}: {_line(str(error)) or type(error).__name__}")
    code, text = number(error), said(error)
    if code == 0:
        return Passing(f"{doing}: the connection to the server was lost{f': {text}' if text else ''}")
    if code in _BAD_VALUE:
        return bad_value(code, text, doing)
    kind = Passing if code in _PASSING else Refused
    return kind(f"{doing}: {text} (error {code})")


def bad_value(code: int, text: str, doing: str, *, place: str = "") -> BadValue:
    """A value that the server refused or would have changed; `place` says more of where, e.g. `column 'a', row 3`."""
    hint = _HINTS.get(code, "correct it in the query")
    return BadValue(
        f"{doing}: {f'{place}: ' if place else ''}{_line(text)} (error {code}); {hint}; nothing was written"
    )


def place_in(text: str) -> tuple[str | None, int | None]:
    """The column and the row (from 1) of which the server's text speaks."""
    row = _ROW.search(text)
    found = _COLUMN.search(text)
    column = None if found is None else found["quoted"] or found["ticked"].replace("``", "`")
    return column, int(row["row"]) if row else None


def number(error: BaseException) -> int:
    """The number of the error; 0 when there is none, as for a connection that is closed."""
    first = error.args[0] if error.args else 0
    return first if isinstance(first, int) else 0


def said(error: BaseException) -> str:
    """The server's text in one line."""
    return _line(str(error.args[-1])) if error.args else ""


def short(value: object) -> str:
    """The first characters of a value, quoted, in one line."""
    text = value if isinstance(value, str) else str(value)
    return f"'{one_line(text[:SHOWN])}'" + ("..." if len(text) > SHOWN else "")


def _line(text: str) -> str:
    return one_line(" ".join(text.split()))
