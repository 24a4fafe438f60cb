"""A server between a client and a Prefect server, which does to some requests what networks and busy servers do."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Rule = Callable[["Request"], "tuple[int, bytes] | str | None"]
"""What becomes of a request: an answer of its own, `drop`, or None: it is passed on."""


class Request:
    """One request; `number` counts those that change something, from 1."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: str, number: int) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.number = number

    @property
    def changes(self) -> bool:
        return is_change(self.method, self.path)


def is_change(method: str, path: str) -> bool:
    return method != "GET" and not path.endswith("/filter")


@contextmanager
def proxy(
    api_url: str, rule: Rule, *, after: Callable[[Request], None] = lambda request: None
) -> Iterator[tuple[str, list[Request]]]:
    """The address of the proxy, and the requests that came; `after` is called when one was passed on and answered."""
    to = urlsplit(api_url)
    seen: list[Request] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:  # the client was killed
                self.close_connection = True

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                number = sum(one.changes for one in seen) + is_change(self.command, self.path)
                request = Request(self.command, self.path, dict(self.headers.items()), body.decode(), number)
                seen.append(request)
            told = rule(request)
            if told == "drop":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if isinstance(told, tuple):
                self.answer(*told)
                return
            status, answer = self.passed_on(body)
            after(request)
            self.answer(status, answer)

        def passed_on(self, body: bytes) -> tuple[int, bytes]:
            there = http.client.HTTPConnection(to.hostname or "", to.port, timeout=60)
            try:
                headers = {"Content-Type": "application/json"}
                there.request(self.command, self.path, body or None, headers)
                found = there.getresponse()
                return found.status, found.read()
            finally:
                there.close()

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = do

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{to.path}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
