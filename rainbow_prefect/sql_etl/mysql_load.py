"""Takes lines of COPY's text into a table of MySQL, by LOAD DATA LOCAL, else by INSERT: all of them, or an error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from .base import BadValue
from .mysql_errors import bad_value, number, place_in, said, short, told
from .mysql_link import Link
from .mysql_text import NULL
from .mysql_types import ticked
from .types import Column

LOAD_BYTES = 8 * 1024 * 1024
"""How much one LOAD DATA takes: so that a bad value ends the load soon, and can be shown."""
INSERT_BYTES = 1024 * 1024

_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_RAW = {b"f": b"\x0c", b"v": b"\x0b"}
_PLAIN = {b"b": b"\x08", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


class Loader:
    """What takes rows into one table; `columns` are what comes, `target` the columns of the table by the same names."""

    def __init__(
        self,
        link: Link,
        table: str,
        columns: Sequence[Column],
        target: Sequence[Column],
        *,
        doing: str,
        is_fast: bool,
        most_bytes: int,
        secret: Sequence[str] = (),
    ) -> None:
        self._link = link
        self._names = [one.name for one in columns]
        self._expressions = [_expression(one, into) for one, into in zip(columns, target, strict=True)]
        self._doing = doing
        self._is_fast = is_fast
        self._most_bytes = most_bytes
        self._secret = secret
        self._table = table
        self.rows = 0

    def take(self, chunks: Iterable[bytes]) -> int:
        """Write all lines; gives how many rows came.

        Raises:
            BadValue: the server refused a value, or would have changed one: nothing of it stays after the rollback.
        """
        for piece in _pieces(chunks, LOAD_BYTES if self._is_fast else min(INSERT_BYTES, self._most_bytes // 4)):
            self._refuse_long(piece)
            lines = piece.count(b"\n")
            taken = self._load(piece) if self._is_fast else self._insert(piece)
            if taken != lines:
                raise BadValue(
                    f"{self._doing}: the server took {taken} of {lines} rows from row {self.rows + 1} on; nothing was written"
                )
            self.rows += lines
        return self.rows

    def statement(self) -> str:
        """The statement that takes the rows."""
        names = [ticked(one) for one in self._names]
        if not self._is_fast:
            return f"INSERT INTO {self._table} ({', '.join(names)}) VALUES ..."
        taken = [
            f"@c{at}" if expression else name
            for at, (name, expression) in enumerate(zip(names, self._expressions, strict=True))
        ]
        made = [
            f"{name} = {expression.format(v=f'@c{at}')}"
            for at, (name, expression) in enumerate(zip(names, self._expressions, strict=True))
            if expression
        ]
        return (
            f"LOAD DATA LOCAL INFILE 'rainbow' INTO TABLE {self._table} CHARACTER SET utf8mb4"
            r" FIELDS TERMINATED BY '\t' ENCLOSED BY '' ESCAPED BY '\\' LINES TERMINATED BY '\n'"
            f" ({', '.join(taken)}){f' SET {chr(44).join(made)}' if made else ''}"
        )

    def _load(self, piece: bytes) -> int:
        import pymysql

        try:
            taken, _ = self._link.load(self.statement(), [piece])
        except pymysql.err.MySQLError as error:
            raise self._flaw(number(error), said(error), piece, error) from None
        self._refuse_warnings(piece)
        return taken

    def _insert(self, piece: bytes) -> int:
        import pymysql

        rows = b",".join(self._values(line) for line in piece[:-1].split(b"\n"))
        names = ", ".join(map(ticked, self._names))
        try:
            taken = self._link.send(f"INSERT INTO {self._table} ({names}) VALUES ".encode() + rows)
        except pymysql.err.MySQLError as error:
            raise self._flaw(number(error), said(error), piece, error) from None
        self._refuse_warnings(piece)
        return taken

    def _values(self, line: bytes) -> bytes:
        values = []
        for field, expression in zip(line.split(b"\t"), self._expressions, strict=True):
            value = b"NULL" if field == NULL else b"'" + field.replace(b"'", b"''") + b"'"
            values.append(expression.encode().replace(b"{v}", value) if expression else value)
        return b"(" + b",".join(values) + b")"

    # -- what must not pass

    def _refuse_warnings(self, piece: bytes) -> None:
        """LOAD DATA LOCAL makes warnings of errors, and notes of values that it cuts: each of them ends the load."""
        if self._link.warning_count() == 0:
            return
        found = self._link.warnings()
        _, code, text = next((one for one in found if one[0] != "Note"), found[0])
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise self._flaw(code, f"{text}{more}", piece, None)

    def _flaw(self, code: int, text: str, piece: bytes, error: Exception | None) -> Exception:
        column, row = place_in(text)
        told_as = None if error is None else told(error, self._doing)
        if told_as is not None and not isinstance(told_as, BadValue):
            return told_as
        column = next((one for one in self._names if column is not None and one.lower() == column.lower()), None)
        parts = [f"column '{column}'"] if column else []
        if row is not None:
            parts.append(f"row {self.rows + row}")
        if column is not None and row is not None and column not in self._secret:
            parts.append(f"value {short(self._value(piece, row, column))}")
        if self._secret and (column is None or column in self._secret):
            text = f"column '{column}' refused the value" if column else "a value was refused"
        elif row is not None:
            text = re.sub(r"\bat row \d+", f"at row {self.rows + row}", text)
        return bad_value(code, text, self._doing, place=", ".join(parts))

    def _value(self, piece: bytes, row: int, column: str) -> str:
        lines = piece.split(b"\n", row)
        if len(lines) < row:
            return ""
        fields = lines[row - 1].split(b"\t")
        at = self._names.index(column)
        field = fields[at] if at < len(fields) else b""
        if field == NULL:
            return "NULL"
        return _PAIR.sub(lambda found: _PLAIN.get(found.group(1), found.group(1)), field).decode("utf-8", "replace")

    def _refuse_long(self, piece: bytes) -> None:
        """A value that no client could read again is refused by name, before the server ends the connection over it."""
        if len(piece) <= self._most_bytes:
            return
        for row, line in enumerate(piece[:-1].split(b"\n"), 1):
            if len(line) <= self._most_bytes // 2:
                continue
            for column, field, expression in zip(self._names, line.split(b"\t"), self._expressions, strict=False):
                size = len(field) // 2 - 1 if field.startswith(rb"\\x") and expression else len(field)
                if size * (2 if expression else 1) > self._most_bytes - 1024:
                    raise BadValue(
                        f"{self._doing}: column '{column}', row {self.rows + row}: a value of {size} bytes is too long for"
                        f" max_allowed_packet = {self._most_bytes} of the server; raise that, or leave it out;"
                        " nothing was written"
                    )


def _expression(came: Column, into: Column) -> str:
    """How the text of a value becomes the column's; '' when the server reads it as it is. `{v}` is the text."""
    if into.type.native.startswith(("bit", "year")):
        return "({v} = 't')" if came.type.kind == "bool" else "CAST({v} AS UNSIGNED)"
    match came.type.kind:
        case "bool":
            return "({v} = 't')"
        case "bytes":
            return "UNHEX(SUBSTR({v}, 3))"
        case "timestamptz":
            return "IF({v} LIKE '%+00', LEFT({v}, CHAR_LENGTH({v}) - 3), {v})"
    return ""


def _pieces(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The bytes again in pieces of about this size that end with a line."""
    held: list[bytes] = []
    length = 0
    for one in chunks:
        held.append(one)
        length += len(one)
        if length >= size:
            whole, newline, rest = b"".join(held).rpartition(b"\n")
            if newline:
                yield from _cut(_own(whole + newline), size)
            held, length = [rest], len(rest)
    last = b"".join(held)
    if last:
        yield from _cut(_own(last if last.endswith(b"\n") else last + b"\n"), size)


def _cut(piece: bytes, size: int) -> Iterator[bytes]:
    """A chunk may be many times as large as a statement should be."""
    start = 0
    while len(piece) - start > 2 * size:
        end = piece.find(b"\n", start + size) + 1
        if end == 0:
            break
        yield piece[start:end]
        start = end
    if start < len(piece):
        yield piece[start:]


def _own(piece: bytes) -> bytes:
    r"""PostgreSQL writes form feed and vertical tab as \f and \v, which MySQL would read as the letters."""
    if b"\\f" not in piece and b"\\v" not in piece:
        return piece
    return _PAIR.sub(lambda found: _RAW.get(found.group(1), found.group()), piece)
