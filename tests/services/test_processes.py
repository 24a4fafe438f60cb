"""Several workers, several services, code that changes: `rainbow serve` looks after its processes."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import psutil
import pytest

from tests.conftest import Project, Rainbow

from .conftest import Served, serving, until

pytestmark = pytest.mark.timeout(250)

FILES = {
    "rainbow.yml": """
        name: pids
        services:
          - service: pids
            source: pids
            on_start: code_of.one:begin
            endpoints: [{endpoint: /pid, module: code_of.one, function: pid}]
        """,
    "pids/code_of/one.py": """
        import os, time

        def begin():
            return {"began": time.time_ns()}

        def pid(began):
            time.sleep(0.01)
            return {"pid": os.getpid(), "version": 1}
        """,
}


def pids(served: Served, count: int = 60) -> set[int]:
    return {served("GET", "/pid").json["pid"] for _ in range(count)}


def test_a_killed_worker_comes_back_and_the_rest_serve(project: Project, tmp_path: Path) -> None:
    with serving(project(FILES), "--workers", "2", log=tmp_path / "log") as served:
        first = until(lambda: len(found := pids(served)) == 2 and found)
        victim = min(first)
        os.kill(victim, signal.SIGKILL)
        until(lambda: is_gone(victim))

        for _ in range(100):
            assert served("GET", "/pid").status == 200

        second = until(lambda: len(found := pids(served)) == 2 and victim not in found and found, 60)
        assert served.logged("a worker ended (signal 9); starting another")
        until(lambda: counted(served) >= 160)  # of all workers together
        assert served.stop() == 0
    assert not any(psutil.pid_exists(one) for one in first | second)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def counted(served: Served) -> int:
    found = re.findall(r'rainbow_requests_total\{.*endpoint="/pid".*\} (\d+)', served("GET", "/metrics").text)
    return sum(map(int, found))


def test_workers_end_with_their_parent(project: Project, tmp_path: Path) -> None:
    with serving(project(FILES), "--workers", "2", log=tmp_path / "log") as served:
        found = until(lambda: len(found := pids(served)) == 2 and found)
        served.process.kill()
        served.process.wait()

        until(lambda: not any(psutil.pid_exists(one) for one in found))


def test_changed_code_takes_over_and_wrong_code_does_not(project: Project, tmp_path: Path) -> None:
    root = project(FILES)
    code = root / "pids/code_of/one.py"
    with serving(root, "--reload", log=tmp_path / "log") as served:
        assert served("GET", "/pid").json["version"] == 1

        code.write_text(code.read_text().replace("1}", "2}"))
        until(lambda: served("GET", "/pid").json["version"] == 2, 60)
        (root / "rainbow.yml").write_text((root / "rainbow.yml").read_text().replace("function: pid", "function: pit"))
        served.logged("has no function 'pit'; did you mean 'pid'?")

        assert served("GET", "/pid").json["version"] == 2
        assert served.process.poll() is None


def test_a_service_that_cannot_start_says_why_and_opens_no_port(project: Project, rainbow: Rainbow) -> None:
    broken = {**FILES, "pids/code_of/one.py": "import not_installed\n\ndef pid(): ...\n\ndef begin(): ...\n"}
    raising = {**FILES, "pids/code_of/one.py": "def pid(): ...\n\ndef begin():\n    raise ValueError('no model')\n"}

    first = rainbow("serve", project(broken, "broken"), "--port", "0", code=1)
    second = rainbow("serve", project(raising, "raising"), "--port", "0", code=1)
    third = rainbow("serve", project(raising, "raising"), "--port", "0", "--workers", "2", code=1)

    assert "service 'pids', endpoint '/pid': module 'code_of.one' cannot be imported: ModuleNotFoundError" in first.err
    assert "add it to requirements.txt beside the code and install it" in first.err
    for one in (second, third):
        assert "service 'pids': on_start 'code_of.one:begin' failed: ValueError: no model" in one.err
    assert (first.out, second.out, third.out) == ("", "", "")


def test_a_wrong_call_says_so(project: Project, rainbow: Rainbow) -> None:
    root = project(FILES)

    assert "there is no service 'pid'; did you mean 'pids'?" in rainbow("serve", root, "-s", "pid", code=2).err
    assert rainbow("serve", project({"rainbow.yml": "name: x\n"}, "x"), code=2).err == (
        "Error: there is no service in the files that were found; add one under `services`\n"
    )


def test_a_port_in_use_is_told(project: Project, rainbow: Rainbow, tmp_path: Path) -> None:
    root = project(FILES)
    with serving(root, log=tmp_path / "log") as served:
        done = rainbow("serve", root, "--port", str(served.port), code=1)

    assert done.err == (
        f"Error: cannot listen on 127.0.0.1:{served.port}: address already in use; choose another port with --port\n"
    )


def test_a_start_needs_no_prefect_and_little_time(project: Project, tmp_path: Path) -> None:
    root = project(FILES)
    code = root / "pids/code_of/one.py"
    code.write_text("import sys\n\ndef begin(): ...\n\ndef pid():\n    return sorted(sys.modules)\n")
    with serving(root, log=tmp_path / "log") as served:
        modules = served("GET", "/pid").json
        times = psutil.Process(served.process.pid).cpu_times()

    assert "fastapi" in modules
    assert [one for one in modules if one.partition(".")[0] in ("prefect", "sqlalchemy", "docker")] == []
    assert times.user + times.system < 6.0  # 1.1 on a quiet machine
