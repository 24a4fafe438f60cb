"""The log of a service: one line of JSON for each request and each error, or short lines for a person at a terminal.

Lines of requests are gathered and written together, within a tenth of a second: a line each would cost as much as the
request. An error is written at once, after what was gathered before it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

_FLUSH_SECONDS = 0.1
_FLUSH_LINES = 1_000
_SHORTEST_SECRET = 4


class Log:
    """Where the lines go: stderr. `hidden` are values that are replaced wherever they appear in an error."""

    def __init__(self, service: str, hidden: Iterable[str] = (), *, stream: Any = None) -> None:
        self._service = service
        self._hidden = sorted({one for one in hidden if len(one) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._stream = stream or sys.stderr
        self._is_terminal = bool(getattr(self._stream, "isatty", lambda: False)())
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def request(self, **said: Any) -> None:
        """A request that was answered."""
        if self._is_terminal:
            line = f"{_clock()} {said['method']} {said['path']} {said['status']} {said['ms']} ms\n"
            self._lines.append(_printable(line).encode(errors="replace"))
        else:
            said = {"time": _now(), "level": "info", "event": "request", "service": self._service, **said}
            self._lines.append(_json(said))
        if len(self._lines) >= _FLUSH_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)

    def failure(self, event: str, error: BaseException | None = None, **said: Any) -> None:
        """Something that went wrong, with the traceback of the error."""
        self._write("error", event, error, said)

    def info(self, event: str, **said: Any) -> None:
        """Something to know."""
        self._write("info", event, None, said)

    def flush(self) -> None:
        """Write what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            self._stream.flush()
            os.write(self._stream.fileno(), b"".join(lines))
        except (OSError, ValueError, AttributeError):  # nobody reads it any more, or it is no file
            try:
                self._stream.write(b"".join(lines).decode(errors="replace"))
            except (OSError, ValueError):
                return

    def _write(self, level: str, event: str, error: BaseException | None, said: dict[str, Any]) -> None:
        trace = self.mask(_trace(error)) if error is not None else ""
        event = self.mask(event)
        if self._is_terminal:
            more = " ".join(f"{key}={value}" for key, value in said.items())
            self._lines.append(f"{_clock()} {level}: {_printable(f'{event} {more}')}\n{trace}".encode(errors="replace"))
        else:
            head = {"time": _now(), "level": level, "event": event, "service": self._service}
            self._lines.append(_json({**head, **said, **({"traceback": trace} if trace else {})}))
        self.flush()

    def mask(self, text: str) -> str:
        """The text without the values of secrets."""
        for one in self._hidden:
            text = text.replace(one, "***")
        return text


_OURS = str(Path(__file__).parent)
_LIBRARIES = (
    f"concurrent{os.sep}futures",
    f"{os.sep}asyncio{os.sep}",
    f"{os.sep}fastapi{os.sep}",
    f"{os.sep}starlette{os.sep}",
)


def _trace(error: BaseException) -> str:
    """The traceback from the user's code on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        name = trace.tb_frame.f_code.co_filename
        if not (name.startswith(_OURS) or any(one in name for one in _LIBRARIES)):
            break
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


def _json(said: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # half a character, from a path or an error
        plain = {
            key: value.encode(errors="replace").decode() if isinstance(value, str) else value
            for key, value in said.items()
        }
        return orjson.dumps(plain, default=str, option=orjson.OPT_APPEND_NEWLINE)


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() or one == "\n" else "?" for one in text)


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _now() -> str:
    now = time.time()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now * 1000) % 1000:03d}Z"
