"""One session with a MySQL or MariaDB server: its settings, questions, the raw rows of a statement, its end from outside."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled, MissingExtra
from .base import Refused, Session
from .mysql_errors import INTERRUPTED, number, told
from .mysql_types import Field, ticked

if TYPE_CHECKING:
    from sqlalchemy import URL

Row = list[bytes | None]

BATCH_BYTES = 4 * 1024 * 1024
_BUFFER_BYTES = 256 * 1024
_CANCEL_SECONDS = 1.5
_MODES = "STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO"
_LONG_SECONDS = 86_400
"""How long a side may keep the other one waiting: a slow sink must not cost the source its connection."""


class Link:
    """A connection; not for two threads at once, but for `cancel`."""

    def __init__(self, url: URL, session: Session, settings: Any, *, doing: str) -> None:
        self.session = session
        self.doing = doing
        self.lock_seconds = float(getattr(settings, "lock_timeout_seconds", None) or session.lock_timeout_seconds)
        self._arguments = _arguments(url, session, settings)
        self._has_rows_under_way = False
        self.connection = self._opened()
        self.id: int = self.connection.thread_id()
        self.dialect = "mariadb" if "mariadb" in str(self.connection.server_version).lower() else "mysql"
        self.connection._rfile = self.connection._sock.makefile("rb", _BUFFER_BYTES)  # the rows come in small reads
        try:
            self._set(settings)
        except BaseException:
            self.close()
            raise

    def _opened(self, **more: Any) -> Any:
        import pymysql

        try:
            return pymysql.connect(**{**self._arguments, **more})
        except (pymysql.err.MySQLError, OSError, ValueError, TypeError) as error:
            raise told(error, self.doing) from None

    def _set(self, settings: Any) -> None:
        seconds = max(1, round(self.lock_seconds))
        self.do(
            f"SET SESSION time_zone = '+00:00', net_read_timeout = {_LONG_SECONDS}, net_write_timeout = {_LONG_SECONDS},"
            f" wait_timeout = {_LONG_SECONDS}, innodb_lock_wait_timeout = {seconds}, lock_wait_timeout = {seconds},"
            " max_error_count = 1024"
        )
        if self.dialect == "mariadb":
            with contextlib.suppress(Refused):  # an older one has it not
                self.do("SET SESSION idle_transaction_timeout = 0")
        limit = getattr(settings, "statement_timeout_seconds", None) or self.session.statement_timeout_seconds
        if limit:
            name, value = (
                ("max_statement_time", limit) if self.dialect == "mariadb" else ("max_execution_time", limit * 1000)
            )
            self.do(
                f"SET SESSION {name} = {value:g}"
                if self.dialect == "mariadb"
                else f"SET SESSION {name} = {round(value)}"
            )

    def be_strict(self) -> None:
        """Values that do not fit are errors; 0 is no wish for the next number; a table may be wider than a full row."""
        self.do(f"SET SESSION sql_mode = '{_MODES}'")
        with contextlib.suppress(Refused):  # not everyone may
            self.do("SET SESSION innodb_strict_mode = OFF")

    # -- statements

    def ask(self, sql: str, values: Sequence[Any] = (), *, doing: str | None = None) -> list[tuple[Any, ...]]:
        """The rows that a statement of ours gives, as text (bytes where they are bytes)."""
        cursor = self._executed(sql, values, doing)
        rows = list(cursor.fetchall() or ())
        cursor.close()
        return rows

    def do(self, sql: str, values: Sequence[Any] = (), *, doing: str | None = None) -> int:
        """Run a statement; gives how many rows it touched."""
        cursor = self._executed(sql, values, doing)
        cursor.close()
        return max(int(cursor.rowcount), 0)

    def _executed(self, sql: str, values: Sequence[Any], doing: str | None) -> Any:
        if self.session.stop.is_set():
            raise Cancelled("cancelled; nothing was written")
        cursor = self.connection.cursor()
        with self.errors(doing):
            cursor.execute(sql, tuple(values) or None)
        return cursor

    @contextlib.contextmanager
    def errors(self, doing: str | None = None) -> Iterator[None]:
        """Errors of the driver in this block are told as ours."""
        import pymysql

        try:
            yield
        except (pymysql.err.MySQLError, OSError) as error:
            if number(error) == INTERRUPTED and self.session.stop.is_set():
                raise Cancelled("cancelled; nothing was written") from None
            raise told(error, doing or self.doing) from None

    def warnings(self) -> list[tuple[str, int, str]]:
        """What the server has to say of the last statement: level, number, text."""
        return [(str(level), int(code), str(text)) for level, code, text in self.ask("SHOW WARNINGS")]

    def warning_count(self) -> int:
        """How many warnings and notes the last statement had."""
        result = self.connection._result
        return int(result.warning_count) if result is not None else 0

    def send(self, sql: bytes) -> int:
        """Run a statement that is made of bytes; gives how many rows it touched. Errors are the driver's."""
        if self.session.stop.is_set():
            raise Cancelled("cancelled; nothing was written")
        return int(self.connection.query(sql))

    # -- a statement that is only looked at

    def prepared(self, sql: str) -> list[Field]:
        """The columns that a statement would give, [] for one that gives none; it is not run.

        Raises:
            Refused: it is none that the server understands, or more than one.
        """
        from pymysql.connections import FieldDescriptorPacket
        from pymysql.constants import COMMAND

        connection = self.connection
        with self.errors():
            connection._execute_command(COMMAND.COM_STMT_PREPARE, sql)
            head = connection._read_packet()
            _, number_of, columns, parameters = struct.unpack_from("<BIHH", head.get_all_data())
            packets = []
            for count in (parameters, columns):
                packets.append([connection._read_packet(FieldDescriptorPacket) for _ in range(count)])
                if count:
                    connection._read_packet()
            connection._execute_command(COMMAND.COM_STMT_CLOSE, struct.pack("<I", number_of))
        if parameters:
            raise Refused(
                f"{self.doing}: the query has {parameters} `?`, and no values are bound; write the values into it"
            )
        return [_field(one) for one in packets[1]]

    # -- the rows of a statement

    def stream(self, sql: str) -> Iterator[list[Row]]:
        """The raw rows of a statement as they come, about 4 MiB at a time; at the end all of them were seen."""
        from pymysql.connections import FieldDescriptorPacket
        from pymysql.constants import COMMAND

        connection = self.connection
        if self.session.stop.is_set():
            raise Cancelled("cancelled; nothing was written")
        with self.errors():
            connection._execute_command(COMMAND.COM_QUERY, sql)
            self._has_rows_under_way = True
            head = connection._read_packet()
            if head.is_ok_packet():
                raise Refused(f"{self.doing}: the statement gives no rows; write a SELECT")
            for _ in range(head.read_length_encoded_integer()):
                connection._read_packet(FieldDescriptorPacket)
            connection._read_packet()
        yield from self._rows()
        self._has_rows_under_way = False
        if self.session.stop.is_set():  # some statements that are killed end as if they were done
            raise Cancelled("cancelled; nothing was written")

    def _rows(self) -> Iterator[list[Row]]:
        from pymysql.err import OperationalError, raise_mysql_exception

        read = self.connection._rfile.read
        rows: list[Row] = []
        size = 0
        with self.errors():
            while True:
                data = _packet(read)
                if data is None:
                    raise OperationalError(2013, "the connection was lost in the middle of the rows")
                first = data[0] if data else 0
                if first == 0xFE and len(data) < 9:
                    break
                if first == 0xFF:
                    self._has_rows_under_way = False
                    raise_mysql_exception(data)
                rows.append(_fields(data))
                size += len(data)
                if size >= BATCH_BYTES:
                    yield rows
                    rows, size = [], 0
        if rows:
            yield rows

    # -- LOAD DATA LOCAL

    def load(self, sql: str, pieces: Iterable[bytes]) -> tuple[int, str]:
        """Send bytes to a LOAD DATA LOCAL statement; gives how many rows it took and what the server said.

        The server names a file, and never gets one: only these bytes. Errors are the driver's.
        """
        from pymysql.connections import MySQLResult
        from pymysql.constants import COMMAND

        connection = self.connection
        if self.session.stop.is_set():
            raise Cancelled("cancelled; nothing was written")
        connection._execute_command(COMMAND.COM_QUERY, sql)
        head = connection._read_packet()
        if not head.is_load_local_packet():
            raise Refused(f"{self.doing}: the server did not ask for the rows of LOAD DATA")
        for one in pieces:
            for start in range(0, len(one), _SENT_BYTES):
                connection.write_packet(one[start : start + _SENT_BYTES])
        connection.write_packet(b"")
        result = MySQLResult(connection)
        result.read()
        connection._result = result
        return int(result.affected_rows), (result.message or b"").decode("utf-8", "replace")

    # -- the end

    def cancel(self) -> None:
        """End the statement that runs, by a second connection; the connection itself when that does not work."""
        try:
            other = self._opened(
                connect_timeout=_CANCEL_SECONDS, read_timeout=_CANCEL_SECONDS, write_timeout=_CANCEL_SECONDS
            )
            try:
                with other.cursor() as cursor:
                    cursor.execute(f"KILL QUERY {self.id}")
            finally:
                other.close()
        except Exception:
            self._cut()

    def _cut(self) -> None:
        import socket

        with contextlib.suppress(OSError, AttributeError):
            self.connection._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the session; rows that were not read yet are not waited for."""
        if self._has_rows_under_way and self.connection.open:
            self.cancel()
            self.connection._force_close()
        with contextlib.suppress(Exception):
            self.connection.close()


_SENT_BYTES = 1024 * 1024


def name_of(table: tuple[str | None, str]) -> str:
    """The name of a table as SQL writes it."""
    return ".".join(ticked(one) for one in table if one)


def _arguments(url: URL, session: Session, settings: Any) -> dict[str, Any]:
    """What PyMySQL is given.

    LOAD DATA LOCAL is allowed, and the driver's own way of it is not: a server could ask for any file.
    """
    try:
        from pymysql.constants import CLIENT
        from pymysql.converters import conversions
    except ImportError:
        raise MissingExtra("MySQL", "mysql") from None
    made: Mapping[str, Any] = url.set(drivername="mysql+pymysql").get_dialect()().create_connect_args(url)[1]
    more: dict[str, Any] = dict(getattr(settings, "connect_args", None) or {})
    schema = getattr(settings, "schema_name", None)
    is_fast = more.pop("local_infile", True)
    flags = int(more.pop("client_flag", 0)) & ~CLIENT.FOUND_ROWS & ~CLIENT.MULTI_STATEMENTS
    return {
        **{key: value for key, value in made.items() if key not in ("client_flag", "local_infile")},
        "connect_timeout": 30,
        "program_name": session.name,
        **more,
        **({"database": schema} if schema else {}),
        "charset": "utf8mb4",
        "autocommit": True,
        "conv": {key: value for key, value in conversions.items() if not isinstance(key, int)},
        "client_flag": flags | CLIENT.LOCAL_FILES if is_fast else flags,
    }


def _packet(read: Any) -> bytes | None:
    """One packet of the protocol, None at the end of the connection; one of 16 MiB goes on in the next."""
    head = read(4)
    if len(head) < 4:
        return None
    size = head[0] | head[1] << 8 | head[2] << 16
    data: bytes = read(size)
    if len(data) < size:
        return None
    if size < 0xFFFFFF:
        return data
    parts = [data]
    while size == 0xFFFFFF:
        head = read(4)
        if len(head) < 4:
            return None
        size = head[0] | head[1] << 8 | head[2] << 16
        parts.append(read(size))
        if len(parts[-1]) < size:
            return None
    return b"".join(parts)


def _fields(data: bytes) -> Row:
    """The fields of a text row: each has its length before it, NULL is 0xFB."""
    row: Row = []
    add = row.append
    at, end = 0, len(data)
    while at < end:
        size = data[at]
        at += 1
        if size > 250:
            if size == 251:
                add(None)
                continue
            width = 2 if size == 252 else 3 if size == 253 else 8
            size = int.from_bytes(data[at : at + width], "little")
            at += width
        add(data[at : at + size])
        at += size
    return row


def _field(packet: Any) -> Field:
    return Field(
        packet.name,
        packet.type_code,
        packet.charsetnr,
        packet.length,
        packet.flags,
        packet.scale,
        packet.db.decode(),
        packet.org_table,
        packet.org_name,
    )
