"""DuckDB as source and sink: opens its file, says who else holds it, tells its errors as ours."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra, TaskFailed
from .base import BadValue, Passing, Reader, Refused, Session, Writer

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from sqlalchemy import URL

_PAUSE_SECONDS = 0.1
_HOLDER = re.compile(r"lock is held in (?P<program>.*?) \(PID (?P<pid>\d+)\)(?: by user (?P<user>\S+))?")


def open_reader(url: URL, session: Session, settings: Any = None) -> Reader:
    """A reader of a file that exists; read only, so that several may read at once, but where the same task writes it.

    Raises:
        Passing: another process writes to it.
        Refused: there is no such file, or it is none of DuckDB's.
    """
    from .duckdb_reader import DuckReader

    read_only = session.only_looks or not session.is_same  # DuckDB opens a file in one way for all of a process
    return DuckReader(lambda: connected(url, session, settings, read_only=read_only), session)


def open_writer(url: URL, session: Session, settings: Any = None) -> Writer:
    """A writer; the file is made when there is none, but by who only looks.

    Raises:
        Passing: another process holds it.
        Refused: it cannot be made, or is none of DuckDB's.
    """
    from .duckdb_writer import DuckWriter

    return DuckWriter(
        connected(url, session, settings, read_only=session.only_looks, may_be_new=True),
        session,
        getattr(settings, "schema_name", None),
    )


def file_of(url: URL, session: Session) -> Path:
    """The file that the URL names; a relative one starts from the folder of the session.

    Raises:
        Refused: it names none, or the memory of a process.
    """
    name = url.database or ""
    if not name or name.startswith(":memory:"):
        raise Refused("the URL names no file; write duckdb:///shop.duckdb, or duckdb:////data/shop.duckdb for /data")
    return session.root / name


def connected(
    url: URL, session: Session, settings: Any, *, read_only: bool, may_be_new: bool = False
) -> DuckDBPyConnection:
    """The file, opened; while another process holds it, it is tried again for `lock_timeout_seconds`.

    One that is to be read only, may be new and is not there is like an empty one.
    """
    try:
        import duckdb
        import pyarrow  # noqa: F401  all rows of DuckDB pass through Arrow
    except ImportError:
        raise MissingExtra("DuckDB", "duckdb") from None
    file = file_of(url, session)
    config = {"autoinstall_known_extensions": "false", **(getattr(settings, "connect_args", None) or {})}
    if read_only and may_be_new and not file.exists():
        return duckdb.connect(":memory:")
    if read_only and not file.exists():
        raise Refused(f"there is no file '{file.name}' in {_folder(file, session)}")
    waits = getattr(settings, "lock_timeout_seconds", None) or session.lock_timeout_seconds
    deadline = time.monotonic() + waits
    while True:
        try:
            found = duckdb.connect(str(file), read_only=read_only, config=config)
            break
        except duckdb.Error as error:
            told = _unopened(error, file, session)
            if not isinstance(told, Passing) or time.monotonic() > deadline:
                raise told from None
            if session.stop.wait(_PAUSE_SECONDS):
                raise told from None
    found.execute("SET TimeZone = 'UTC'")
    return found


def _folder(file: Path, session: Session) -> str:
    """The folder of a file for messages, from the folder of the session where it is in it."""
    try:
        folder = str(file.parent.relative_to(session.root))
    except ValueError:
        return f"'{file.parent}'"
    return "the folder of the config" if folder == "." else f"'{folder}'"


def _unopened(error: Exception, file: Path, session: Session) -> TaskFailed:
    text = str(error)
    holder = _HOLDER.search(text)
    if holder:
        program = Path(holder["program"]).name
        user = f" of {holder['user'].rstrip('.')}" if holder["user"] else ""
        return Passing(f"the file '{file.name}' is held by {program}{user} (process {holder['pid']}); end it or wait")
    if "Could not set lock" in text:
        return Passing(f"the file '{file.name}' is held by another process; end it or wait")
    if "different configuration" in text:
        return Passing(
            f"the file '{file.name}' is open in this process in another way; let one task end before the other begins, "
            "and give its source and sink the same `connect_args`"
        )
    if "not a valid DuckDB" in text:
        return Refused(f"the file '{file.name}' is no database of DuckDB")
    if "No such file" in text:
        return Refused(f"the file '{file.name}' cannot be made: there is no folder {_folder(file, session)}; make it")
    if "ermission denied" in text:
        return Refused(f"the file '{file.name}' may not be opened: permission denied")
    return told(error, f"the file '{file.name}' cannot be opened")


def told(error: Exception, what: str) -> TaskFailed:
    """An error of DuckDB as one of ours: what a retry may mend, what is wrong with a value, what is refused."""
    import duckdb

    text = " ".join(str(error).split("\n\nLINE ")[0].split())
    text = text.partition(": ")[2] if text.partition(": ")[0].endswith("Error") else text
    message = f"{what}: {text}"
    if isinstance(error, duckdb.ConstraintException) or "constraint violation" in text or "constraint failed" in text:
        return BadValue(message)
    if isinstance(error, duckdb.ConversionException | duckdb.OutOfRangeException | duckdb.DataError):
        return BadValue(message)
    if isinstance(error, duckdb.TransactionException | duckdb.InterruptException | duckdb.OutOfMemoryException):
        return Passing(message)
    if isinstance(error, duckdb.IOException):
        return Passing(message)
    refused = (
        *(duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException),
        *(duckdb.InvalidInputException, duckdb.PermissionException),
    )
    return Refused(message) if isinstance(error, refused) else TaskFailed(message)


def asked(connection: DuckDBPyConnection, sql: str, what: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    """The rows of a statement; an error is told with `what`."""
    import duckdb

    def run(statement: Callable[..., Any]) -> list[tuple[Any, ...]]:
        made = statement(sql, parameters) if parameters is not None else statement(sql)
        rows: list[tuple[Any, ...]] = made.fetchall()
        return rows

    try:
        return run(connection.execute)
    except duckdb.Error as error:
        raise told(error, what) from None


def quoted(*names: str | None) -> str:
    """A name as SQL writes it, each part quoted."""
    return ".".join('"' + one.replace('"', '""') + '"' for one in names if one)
