"""`rainbow server` and the choice of the server that a run talks to, with real servers and real processes."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rainbow_prefect import server
from rainbow_prefect.errors import RunError
from tests.conftest import Rainbow, free_port


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A PREFECT_HOME of this test; whatever server it started is stopped."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "home"
    server.stop()


@pytest.fixture
def no_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process, where Prefect is not imported yet."""
    for name in ("prefect.settings", "prefect.context"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with us."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def other_app() -> Iterator[int]:
    """A web server that is not Prefect's; gives its port."""

    class Nothing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *args: object) -> None: ...

    app = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    threading.Thread(target=app.serve_forever, daemon=True).start()
    yield app.server_port
    app.shutdown()
    app.server_close()


def record(home: Path, pid: int, born: str, port: int = 1) -> Path:
    path = home / "rainbow" / "server.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"pid": pid, "born": born, "port": port, "since": 0.0, "log": "x.log"}))
    return path


@pytest.mark.slow
def test_server_starts_once_answers_and_stops(rainbow: Rainbow, home: Path) -> None:
    port = free_port()

    with ThreadPoolExecutor() as both:
        starts = [both.submit(rainbow, "server", "start", "--port", port, "--json", timeout=300) for _ in range(2)]
    started, at_once = sorted((one.result().json for one in starts), key=lambda shown: not shown["started"])
    again = rainbow("server", "start", "--json").json
    other_port = rainbow("server", "start", "--port", "1", "--json", code=2).json
    shown = rainbow("server", "status")
    uses = rainbow("server", "status", "--json").json["uses"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ui-settings") as answer:
        interface = json.loads(answer.read())
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/").read()
    is_open_elsewhere = _listens(port, "127.0.0.2")
    stopped = rainbow("server", "stop")

    assert (started["state"], started["started"], started["ui_url"]) == ("running", True, f"http://127.0.0.1:{port}")
    assert [(one["pid"], one["started"]) for one in (at_once, again)] == [(started["pid"], False)] * 2
    assert other_port == {"error": f"the server runs already, on port {port}; run `rainbow server stop` first"}
    assert f"The server is running: http://127.0.0.1:{port}\n" in shown.out
    assert uses == started["api_url"]
    assert interface["api_url"] == started["api_url"]
    assert b"<html" in page
    assert not is_open_elsewhere
    assert stopped.out == f"The Prefect server (pid {started['pid']}) has stopped.\n"
    assert server._born(started["pid"]) is None
    assert rainbow("server", "status", code=1).out.startswith("The server is stopped; ")


@pytest.mark.slow
def test_own_server_ends_with_its_process(home: Path) -> None:
    code = """
        from rainbow_prefect.server import connect
        first, second = connect(tell=print), connect()
        assert first == second
        import os, sys, prefect
        assert prefect.settings.get_current_settings().api.url == first.api_url == os.environ["PREFECT_API_URL"]
        print(first.kind, first.ui_url, first.api_url, flush=True)
        sys.stdin.readline()
        os.kill(os.getpid(), 9)
    """
    script = "\n".join(line[8:] for line in code.splitlines())
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdin is not None

    told = process.stdout.readline()
    kind, link, url = process.stdout.readline().split()
    with urllib.request.urlopen(f"{url}/health") as answer:
        health = answer.read()
    process.communicate("\n")

    assert told == "starting a temporary Prefect server; `rainbow server start` keeps one running ...\n"
    assert (kind, link, health) == ("ephemeral", "None", b"true")
    assert process.returncode == -signal.SIGKILL
    port = int(url.rsplit(":", 1)[1].removesuffix("/api"))
    assert server._wait_until(lambda: not _listens(port), 30)


def _listens(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((host, port)) == 0


@pytest.mark.slow
def test_failed_start_tells_the_reason_and_leaves_nothing(rainbow: Rainbow, home: Path) -> None:
    env = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:////proc/nowhere/prefect.db"}

    done = rainbow("server", "start", code=1, env=env, timeout=300)

    assert (
        "Error: the Prefect server did not start: sqlalchemy.exc.OperationalError: (sqlite3.OperationalError)"
        in done.err
    )
    assert done.err.endswith(f"\nits log: {home}/rainbow/server.log\n")
    assert not (home / "rainbow" / "server.json").exists()


def test_limit_of_the_start_is_told(rainbow: Rainbow, home: Path) -> None:
    done = rainbow("server", "start", "--wait", "1", code=1)

    assert "Error: the Prefect server was not healthy after 1 s: it printed nothing\n" in done.err
    assert server.running() is None


def test_pid_of_another_process_is_never_killed(rainbow: Rainbow, home: Path, sleeper: subprocess.Popen[bytes]) -> None:
    path = record(home, sleeper.pid, "an earlier process with this pid")

    done = rainbow("server", "stop")

    assert done.out == "No server was running.\n"
    assert sleeper.poll() is None
    assert not path.exists()


def test_process_that_ignores_sigterm_is_killed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_STOP_SECONDS", 0.5)
    stubborn = subprocess.Popen(
        ["bash", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], stdout=subprocess.PIPE
    )
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    born = server._born(stubborn.pid)
    assert born is not None
    record(home, stubborn.pid, born)

    stopped = server.stop()

    assert stopped is not None
    assert stubborn.wait(5) == -signal.SIGKILL
    stubborn.stdout.close()


def test_process_that_ended_is_not_running(home: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    born = server._born(process.pid)
    assert born is not None
    record(home, process.pid, born)

    before = server.running()
    process.kill()
    time.sleep(0.2)
    after = server.running()
    process.wait()

    assert before is not None
    assert after is None


@pytest.mark.parametrize("born", [server._born, *([server._born_by_ps] if shutil.which("ps") else [])])
def test_birth_of_a_process_is_known_while_it_lives(born: Callable[[int], str | None]) -> None:
    process = subprocess.Popen(["sleep", "60"])

    first, second = born(process.pid), born(process.pid)
    process.kill()
    time.sleep(0.2)
    as_zombie = born(process.pid)
    process.wait()

    assert first is not None
    assert first == second
    assert as_zombie is None
    assert born(process.pid) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"pid": 1}', '{"pid": "x", "born": 1, "port": 2, "since": 3, "log": 4}']
)
def test_damaged_record_is_no_server(rainbow: Rainbow, home: Path, text: str) -> None:
    record(home, 1, "").write_text(text)

    assert rainbow("server", "status", "--json", code=1).json["state"] == "stopped"


def test_taken_port_that_was_asked_for_is_an_error(rainbow: Rainbow, home: Path, other_app: int) -> None:
    done = rainbow("server", "start", "--port", str(other_app), code=2)

    assert done.err == f"Error: port {other_app} is taken; choose another with --port, or leave it out\n"


def test_another_app_is_not_taken_for_prefect(other_app: int) -> None:
    assert not server._is_usable(f"http://127.0.0.1:{other_app}/api")


def test_port_4200_is_found(prefect_server: str, home: Path, monkeypatch: pytest.MonkeyPatch, no_prefect: None) -> None:
    monkeypatch.setattr(server, "PORT", int(prefect_server.rsplit(":", 1)[1].removesuffix("/api")))
    monkeypatch.setenv("PREFECT_API_URL", "")

    found = server.connect()

    assert found == server.Connection(prefect_server, prefect_server.removesuffix("/api"), "local")
    assert os.environ["PREFECT_API_URL"] == prefect_server
    assert found.run_url("x") == f"{found.ui_url}/runs/flow-run/x"


def test_configured_server_is_used(prefect_server: str, no_prefect: None) -> None:
    assert server.connect() == server.Connection(prefect_server, prefect_server.removesuffix("/api"), "configured")


@pytest.mark.parametrize("url", ["nonsense", "ftp://host/api", "http://[::1", "http://:4200/api", "http://host:no/api"])
def test_address_that_is_none_is_told(home: Path, monkeypatch: pytest.MonkeyPatch, no_prefect: None, url: str) -> None:
    monkeypatch.setenv("PREFECT_API_URL", url)

    with pytest.raises(RunError) as error:
        server.connect()

    assert str(error.value) == (
        f"'{url}' is not the address of a Prefect server (PREFECT_API_URL); "
        "write one such as http://127.0.0.1:4200/api, or unset it to use a local one"
    )


def test_setting_that_prefect_does_not_take_is_told(rainbow: Rainbow, prefect_server: str) -> None:
    done = rainbow("runs", env={"PREFECT_LOGGING_LEVEL": "loud"}, code=2)

    assert done.err.endswith(
        "Error: a setting of Prefect cannot be used: level: Input should be 'DEBUG', 'INFO', 'WARNING', 'ERROR' or "
        "'CRITICAL'; correct the variable or the profile\n"
    )


def test_configured_server_that_is_down_is_told_without_its_password(
    home: Path, monkeypatch: pytest.MonkeyPatch, no_prefect: None
) -> None:
    port = free_port()
    monkeypatch.setenv("PREFECT_API_URL", f"http://me:hunter2@127.0.0.1:{port}/api")

    with pytest.raises(RunError) as error:
        server.connect()

    assert str(error.value) == (
        f"the Prefect server at http://127.0.0.1:{port}/api does not answer (connection refused); "
        "start it, or unset PREFECT_API_URL to use a local one"
    )


def test_process_that_hangs_is_told(
    home: Path, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, no_prefect: None
) -> None:
    monkeypatch.setattr(server, "_BUSY_SECONDS", 0.2)
    born = server._born(sleeper.pid)
    assert born is not None
    record(home, sleeper.pid, born, port=free_port())

    with pytest.raises(RunError, match=r"\(pid \d+\) does not answer at .*; run `rainbow server stop`, then try again"):
        server.connect()

    (home / "rainbow" / "server.json").unlink()


SETTINGS = {
    "environment": ({}, {"PREFECT_API_URL": "http://one:1/api"}),
    "dotenv": ({".env": "PREFECT_API_URL=http://two:2/api\n"}, {}),
    "prefect.toml": ({"prefect.toml": '[api]\nurl = "http://three:3/api"\n'}, {}),
    "pyproject.toml": ({"pyproject.toml": '[tool.prefect.api]\nurl = "http://four:4/api"\n'}, {}),
    "profile": ({"home/profiles.toml": 'active = "p"\n[profiles.p]\nPREFECT_API_URL = "http://five:5/api"\n'}, {}),
    "named profile": (
        {"home/profiles.toml": 'active = "p"\n[profiles.p]\n[profiles.q]\nPREFECT_API_URL = "http://six:6/api"\n'},
        {"PREFECT_PROFILE": "q"},
    ),
    "profile elsewhere": (
        {"else.toml": 'active = "p"\n[profiles.p]\nPREFECT_API_URL = "http://seven:7/api"\n'},
        {"PREFECT_PROFILES_PATH": "else.toml"},
    ),
    "order": ({".env": "PREFECT_API_URL=http://b/api\n", "prefect.toml": '[api]\nurl = "http://c/api"\n'}, {}),
    "nothing": ({}, {}),
}


ASK_PREFECT = """
import json, os, sys
from prefect.context import refresh_global_settings_context
from prefect.settings import get_current_settings
answers = {}
for where, env in json.loads(sys.argv[1]).items():
    os.chdir(where)
    os.environ.update(env, PREFECT_HOME=where + "/home")
    refresh_global_settings_context()
    answers[where] = get_current_settings().api.url
    for name in env:
        del os.environ[name]
print(json.dumps(answers))
"""


def test_settings_are_read_as_prefect_reads_them(home: Path, monkeypatch: pytest.MonkeyPatch, no_prefect: None) -> None:
    asked, mine = {}, {}
    for where, (files, env) in SETTINGS.items():
        folder = home.parent / f"where {where}"
        for name, text in {**files, "home/x": ""}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        asked[str(folder)] = env
        with monkeypatch.context() as here:
            here.chdir(folder)
            for name, text in {**env, "PREFECT_HOME": str(folder / "home")}.items():
                here.setenv(name, text)
            mine[str(folder)] = server.configured_url()

    done = subprocess.run([sys.executable, "-c", ASK_PREFECT, json.dumps(asked)], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert mine == json.loads(done.stdout)
    assert [url for url in mine.values() if url is None] == [None]


def test_cloud_has_its_own_pages() -> None:
    api = "https://api.prefect.cloud/api/accounts/A/workspaces/B"

    assert server.ui_url(api) == "https://app.prefect.cloud/account/A/workspace/B"
