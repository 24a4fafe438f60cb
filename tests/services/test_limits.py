"""What a bad client can do to a service: little, and nothing to the others."""

from __future__ import annotations

import contextlib
import signal
import socket
import time

import psutil
import pytest

from .conftest import Served, until

pytestmark = pytest.mark.timeout(250)


def answer_of(sock: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while piece := sock.recv(65_536):
            found += piece
    return found


def test_a_large_body_is_refused_whether_it_says_so_or_not(every: Served) -> None:
    told = every("POST", "/echo", data=b'"' + b"x" * 200_000 + b'"')
    typed = every("POST", "/bytes", data=b"x" * 200_000)
    with every.connect() as sock:
        sock.sendall(b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                sock.sendall(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
        untold = answer_of(sock)

    assert (told.status, typed.status) == (413, 413)
    assert told.json["detail"] == "the body is larger than 100000 bytes"
    assert untold.startswith((b"HTTP/1.1 413", b""))
    assert every("GET", "/ping").text == "pong"


def test_headers_without_an_end_are_refused(every: Served) -> None:
    for flood in (b"a" * 200_000, b"".join(b"x-%d: %s\r\n" % (index, b"v" * 100) for index in range(2_000)) + b"\r\n"):
        with every.connect() as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(b"GET /ping HTTP/1.1\r\nhost: a\r\nx-flood: " + flood)
            assert answer_of(sock)[:12] in (b"HTTP/1.1 431", b"")
    assert every("GET", "/ping").text == "pong"


def test_slow_clients_are_cut_off_and_others_served(every: Served) -> None:
    slow = [every.connect() for _ in range(50)]
    for index, sock in enumerate(slow):
        sock.sendall(b"GET /ping HTTP/1.1\r\nhost: a\r\n" if index % 2 else b"\r\n")
        sock.settimeout(40)

    assert every("GET", "/ping").text == "pong"
    ended = time.monotonic() + 35
    while time.monotonic() < ended and any(is_open(sock) for sock in slow):
        time.sleep(0.5)
        for sock in slow:
            with contextlib.suppress(OSError):
                sock.send(b"x")  # a byte now and then is no reason to wait
    assert not any(is_open(sock) for sock in slow)
    for sock in slow:
        sock.close()
    assert every("GET", "/ping").text == "pong"


def is_open(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(4096) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_clients_that_leave_early_leave_nothing(every: Served) -> None:
    for _ in range(50):
        with every.connect() as sock:
            sock.sendall(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n{")
        with every.connect() as sock:
            sock.sendall(b"GET /stream HTTP/1.1\r\nhost: a\r\n\r\n")

    def nothing_in_flight() -> bool:
        lines = every("GET", "/metrics").text.splitlines()
        counts = [line for line in lines if line.startswith("rainbow_in_flight") and '"other"' not in line]
        return bool(counts) and all(line.endswith(" 0") for line in counts)

    until(nothing_in_flight)


@pytest.mark.parametrize(
    "request_",
    [b"nonsense\r\n\r\n", b"GET /%ff%00 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"],
)
def test_what_is_no_http_is_answered_400_or_404(every: Served, request_: bytes) -> None:
    with every.connect() as sock:
        sock.sendall(request_)
        assert answer_of(sock)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 404")
    assert every("GET", "/ping").text == "pong"


def test_memory_stays_flat(every: Served) -> None:
    process = next(
        one for one in psutil.Process(every.process.pid).children(recursive=True) if serves(one, every.ports["every"])
    )

    def rush() -> int:
        with every.connect() as sock:
            sock.settimeout(60)
            for _ in range(20):
                sock.sendall(b"GET /ping HTTP/1.1\r\nhost: a\r\n\r\n" * 100)
                seen = b""
                while seen.count(b"pong") < 100:
                    seen += sock.recv(1 << 20)
        return int(process.memory_info().rss)

    rush()
    first = rush()
    assert rush() < first * 1.05 + 2_000_000


def serves(process: psutil.Process, port: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(one.laddr.port == port for one in process.net_connections() if one.status == "LISTEN")
    return False


def test_ctrl_c_ends_it_cleanly_and_finishes_what_is_in_flight(every: Served) -> None:
    """The last one: it ends the server that the module shares."""
    with every.connect() as sock:
        sock.sendall(b"GET /block HTTP/1.1\r\nhost: a\r\n\r\n")
        until(lambda: 'rainbow_in_flight{service="every",endpoint="/block"} 1' in every("GET", "/metrics").text)
        status = every.stop(signal.SIGINT)
        found = answer_of(sock)

    assert status == 0
    assert found.startswith(b"HTTP/1.1 200") and found.endswith(b"done")
    assert "stopped after hello" in every.log.read_text()
    assert "Traceback (most recent call last)\n" not in every.log.read_text()
