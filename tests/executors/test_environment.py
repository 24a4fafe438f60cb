"""Environments for requirements.txt: made with real installers from packages on this disk."""

from __future__ import annotations

import threading
import time
import zipfile
from pathlib import Path

import pytest

from rainbow_prefect.errors import Cancelled, TaskFailed
from rainbow_prefect.executors import _environment
from rainbow_prefect.executors.process import Process
from rainbow_prefect.run import Command

from .contract import Bench


def wheel(folder: Path, name: str = "colourful", value: str = "teal") -> Path:
    """A package with one module and one command."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", f"VALUE = {value!r}\ndef main(): print('command', VALUE)\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/entry_points.txt", f"[console_scripts]\n{name} = {name}:main\n")
        file.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    return Bench(Process(), tmp_path)


def made(bench: Bench) -> list[Path]:
    return list((bench.folder / "cache" / "rainbow" / "environments").glob("*/.rainbow-complete"))


PRINT = "python -c 'import colourful, sys; print(colourful.VALUE, sys.prefix)'; colourful"


@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_packages_are_there(bench: Bench, tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if tool == "pip":
        monkeypatch.setattr(_environment, "_uv", lambda: None)
    source = bench.code({"requirements.txt": f"{wheel(bench.folder / 'wheels')}\n"})

    bench(Command(shell=PRINT, source=source))

    assert bench.lines[0] == "making the environment for requirements.txt; it is kept for the next runs"
    assert bench.lines[-2].startswith(f"teal {bench.folder}/cache/rainbow/environments/")
    assert bench.lines[-1] == "command teal"
    assert not any("uv could not" in line for line in bench.lines)


def test_environment_is_made_once_for_its_content(bench: Bench) -> None:
    wheel(bench.folder / "code")
    source = bench.code({"requirements.txt": "./colourful-1.0-py3-none-any.whl\n"})
    bench(Command(shell=PRINT, source=source))
    count = len(bench.lines)

    bench(Command(shell=PRINT, source=source))

    assert len(bench.lines) == count + 2
    assert len(made(bench)) == 1


def test_a_changed_package_beside_the_code_makes_a_new_one(bench: Bench) -> None:
    wheel(bench.folder / "code")
    source = bench.code({"requirements.txt": "-r more.txt\n", "more.txt": "./colourful-1.0-py3-none-any.whl\n"})
    bench(Command(shell=PRINT, source=source))
    wheel(source, value="red")

    bench(Command(shell=PRINT, source=source))

    assert bench.lines[-1] == "command red"
    assert len(made(bench)) == 2


def test_many_at_once_make_one(bench: Bench) -> None:
    source = bench.code({"requirements.txt": f"{wheel(bench.folder / 'wheels')}\n"})
    threads = [threading.Thread(target=bench, args=[Command(shell=PRINT, source=source)]) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum("making the environment" in line for line in bench.lines) == 1
    assert bench.lines.count("command teal") == 4


def test_prepare_makes_it_before(bench: Bench) -> None:
    source = bench.code({"requirements.txt": f"{wheel(bench.folder / 'wheels')}\n"})
    run = bench.run()

    run.executor.prepare(Command(shell="true", source=source), run)

    assert len(made(bench)) == 1


def test_an_unfinished_one_is_made_again(bench: Bench) -> None:
    source = bench.code({"requirements.txt": f"{wheel(bench.folder / 'wheels')}\n"})
    bench(Command(shell=PRINT, source=source))
    made(bench)[0].unlink()

    bench(Command(shell=PRINT, source=source))

    assert sum("making the environment" in line for line in bench.lines) == 2
    assert bench.lines[-1] == "command teal"


def test_comments_need_none(bench: Bench) -> None:
    source = bench.code({"requirements.txt": "# nothing\n\n  # more\n"})

    bench(Command(shell="echo done", source=source))

    assert bench.lines == ["done"]


def test_what_cannot_be_installed_is_told(bench: Bench) -> None:
    source = bench.code({"requirements.txt": "no-such-package-of-any-name==1\n"})

    with pytest.raises(TaskFailed) as caught:
        bench(Command(shell="true", source=source))

    assert caught.value.message.startswith(
        "requirements.txt cannot be installed: ERROR: No matching distribution found"
    )
    assert made(bench) == []


def test_a_cancel_ends_the_wait_for_another(bench: Bench) -> None:
    source = bench.code({"requirements.txt": f"{wheel(bench.folder / 'wheels')}\n"})
    run = bench.run()
    run.stop.set()
    import sys

    name = _environment.fingerprint(source, python=sys.executable, pip_conf=None)
    folder = bench.folder / "cache" / "rainbow" / "environments"
    folder.mkdir(parents=True)
    with _environment._locked((folder / name).with_suffix(".lock"), bench.run()):
        begun = time.monotonic()
        with pytest.raises(Cancelled) as caught:
            bench(Command(shell="true", source=source), run)

    assert caught.value.message == "cancelled while it waited for its environment"
    assert time.monotonic() - begun < 5
