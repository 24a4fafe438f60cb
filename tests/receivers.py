"""Receivers of alerts and metrics on loopback: HTTP, mail, UDP. What they got is in `got`."""

from __future__ import annotations

import json
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Got:
    """One request: its path, headers (names in lower case) and body, and when it came (`time.time()`)."""

    path: str
    headers: dict[str, str]
    body: bytes
    time: float = field(default_factory=time.time)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """An HTTP server that answers 200, or the next of `answers`."""

    url: str
    got: list[Got] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)


@contextmanager
def receiver(answers: Sequence[int] = ()) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status = made.answers.pop(0) if made.answers else 200
            made.got.append(Got(self.path, {key.lower(): one for key, one in self.headers.items()}, body))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Receiver(f"http://127.0.0.1:{server.server_address[1]}", answers=list(answers))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Mails:
    """A mail server that takes all; with `login` only from those who know it."""

    port: int
    got: list[Any] = field(default_factory=list)
    users: list[str] = field(default_factory=list)


@contextmanager
def mails(login: tuple[str, str] | None = None) -> Iterator[Mails]:
    from email import message_from_bytes, policy

    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import AuthResult

    class Sink:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            made.got.append(message_from_bytes(envelope.content, policy=policy.default))
            return "250 taken"

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        user, password = data.login.decode(), data.password.decode()
        made.users.append(user)
        return AuthResult(success=(user, password) == login, handled=False)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Mails(port)
    options = {"authenticator": authenticate, "auth_required": True, "auth_require_tls": False} if login else {}
    controller = Controller(Sink(), hostname="127.0.0.1", port=port, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a login without encryption is not safe
        controller.start()
        try:
            yield made
        finally:
            controller.stop()


@contextmanager
def datagrams() -> Iterator[tuple[int, list[str]]]:
    """A UDP port and the lines that came."""
    got: list[str] = []
    with socket.socket(type=socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(0.1)
        over = threading.Event()

        def listen() -> None:
            while not over.is_set():
                try:
                    got.extend(listening.recv(65_536).decode().splitlines())
                except TimeoutError:
                    continue

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1], got
        finally:
            over.set()
            thread.join()


def wait_for(done: Callable[[], Any], seconds: float = 30) -> Any:
    """What `done` gives once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found
