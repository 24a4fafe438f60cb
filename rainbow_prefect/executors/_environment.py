"""Virtual environments for `requirements.txt` beside the code: made once for each content, kept in the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from ..errors import Cancelled, TaskFailed, TimedOut
from ..run import Run
from ._folders import SKIPPED, make
from ._lines import Lines
from ._watch import execute

REQUIREMENTS = "requirements.txt"
_COMPLETE = ".rainbow-complete"
_REFERENCE = re.compile(r"\s*(?:-r|--requirement|-c|--constraint)[ =]?\s*(\S+)")
_LOCAL = re.compile(
    r"\s*(?:(?:-e|--editable)[ =]?\s*)?((?:\.{1,2}(?:/[^\s;\[]*)?|[^\s;#@\[]*/[^\s;#@\[]*))(?:\[[^\]]*\])?\s*(?:[;#].*)?$"
)


def cache_folder() -> Path:
    """The folder for what can be made again: `XDG_CACHE_HOME/rainbow`."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".cache") / "rainbow"


def needs_environment(source: Path | None) -> bool:
    """Whether `requirements.txt` beside the code asks for any package."""
    if source is None:
        return False
    try:
        text = (source / REQUIREMENTS).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(line.split("#")[0].strip() for line in text.splitlines())


def environment(source: Path, *, python: str, pip_conf: Path | None, run: Run, env: Mapping[str, str]) -> Path:
    """The folder of the environment for the requirements of `source`, made unless it is there.

    Raises:
        TaskFailed: it cannot be made; the last lines of the installer are in it.
        TimedOut, Cancelled: while it was made.
    """
    target = cache_folder() / "environments" / fingerprint(source, python=python, pip_conf=pip_conf)
    if (target / _COMPLETE).exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_suffix(".lock"), run):
            if not (target / _COMPLETE).exists():
                shutil.rmtree(target, ignore_errors=True)
                _make(target, source, python=python, pip_conf=pip_conf, run=run, env=env)
                (target / _COMPLETE).touch()
    except OSError as error:
        raise TaskFailed(f"the environment for {REQUIREMENTS} cannot be made: {error}") from error
    return target


def fingerprint(source: Path, *, python: str, pip_conf: Path | None) -> str:
    """A name for the content of the requirements, all files they name, and the Python they are for."""
    digest = hashlib.sha256(f"1 {_version(python)} {platform.machine()} {platform.libc_ver()}".encode())
    for part in _contents(source / REQUIREMENTS, set()):
        digest.update(part)
    if pip_conf is not None and pip_conf.is_file():
        digest.update(pip_conf.read_bytes())
    return digest.hexdigest()[:24]


@lru_cache(maxsize=64)
def _version(python: str) -> str:
    if python == sys.executable:
        return f"{sys.base_prefix} {sys.version}"
    found = shutil.which(python) or python
    return f"{Path(found).resolve()} {Path(found).stat().st_mtime_ns}"


def _contents(file: Path, seen: set[Path]) -> Iterator[bytes]:
    """The bytes of a requirements file and of the files and folders that it names."""
    file = file.resolve()
    if file in seen or not file.is_file():
        return
    seen.add(file)
    data = file.read_bytes()
    yield data
    for line in data.decode("utf-8", "replace").splitlines():
        if found := _REFERENCE.match(line):
            yield from _contents(file.parent / found[1], seen)
        elif (found := _LOCAL.match(line)) and (named := file.parent / found[1]).exists():
            yield from _states(named)


def _states(path: Path) -> Iterator[bytes]:
    """What tells a changed file or folder from the old one: names, sizes, times."""
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(one for one in folders if one not in SKIPPED and not one.endswith(".egg-info"))
        for name in sorted(files):
            found = (Path(folder) / name).lstat()
            yield f"{folder}/{name} {found.st_size} {found.st_mtime_ns}".encode()
    if path.is_file():
        found = path.stat()
        yield f"{path} {found.st_size} {found.st_mtime_ns}".encode()


@contextmanager
def _locked(path: Path, run: Run) -> Iterator[None]:
    """Only one at a time makes an environment; the others wait, as long as their run lasts."""
    with path.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if run.stop.is_set() and not run.timed_out:
                    raise Cancelled("cancelled while it waited for its environment") from None
                if run.stop.is_set() or run.remaining_seconds() == 0:
                    raise TimedOut("timed out while it waited for its environment") from None
                time.sleep(0.1)
        yield


def _make(target: Path, source: Path, *, python: str, pip_conf: Path | None, run: Run, env: Mapping[str, str]) -> None:
    run.write(f"making the environment for {REQUIREMENTS}; it is kept for the next runs")
    begun = time.monotonic()
    uv = None if pip_conf is not None else _uv()
    if uv is not None:
        try:
            _install(_uv_steps(uv, target, python), source, run, env)
        except (TimedOut, Cancelled):
            raise
        except TaskFailed as error:
            run.write(f"uv could not install {REQUIREMENTS} ({error.message}); trying pip")
            shutil.rmtree(target, ignore_errors=True)
            uv = None
    if uv is None:
        env = {**env, "PIP_CONFIG_FILE": str(pip_conf)} if pip_conf is not None else env
        _install(_pip_steps(target, python), source, run, env)
    run.write(f"made the environment in {time.monotonic() - begun:.1f} s")


def _uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return shutil.which("uv") or (str(beside) if beside.exists() else None)


def _uv_steps(uv: str, target: Path, python: str) -> list[list[str]]:
    binary = str(target / "bin" / "python")
    install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", binary, "-r", REQUIREMENTS]
    return [[uv, "venv", "--quiet", "--python", python, str(target)], install]


def _pip_steps(target: Path, python: str) -> list[list[str]]:
    pip = [str(target / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    return [[python, "-m", "venv", str(target)], [*pip, "install", "--quiet", "-r", REQUIREMENTS]]


def _install(steps: list[list[str]], source: Path, run: Run, env: Mapping[str, str]) -> None:
    folder = make("environment", None)
    try:
        for argv in steps:
            lines = Lines(run.write, limit=100_000)
            status = execute(
                argv,
                env={**env, "TMPDIR": str(folder.tmp)},
                cwd=source,
                folder=folder.path,
                run=run,
                lines=lines,
                grace_seconds=1,
                max_lines=100_000,
            )
            if status:
                tail = [run.secrets.mask(line) for line in lines.tail]
                last = next((line for line in reversed(tail) if "error" in line.lower()), tail[-1] if tail else "")
                raise TaskFailed(
                    f"{REQUIREMENTS} cannot be installed: {last or f'exit status {status}'}", status=status, tail=tail
                )
    finally:
        folder.remove()


def python_folder(python: str) -> Path:
    """A folder to put first in the PATH, in which `python` and `python3` are this interpreter."""
    found = Path(shutil.which(python) or python)
    if found.with_name("python").exists() and found.with_name("python3").exists():
        return found.parent
    digest = hashlib.sha256(str(found).encode()).hexdigest()[:16]
    folder = cache_folder() / "pythons" / digest
    for name in ("python", "python3"):
        _write_wrapper(folder / name, found)
    return folder


def _write_wrapper(path: Path, python: Path) -> None:
    """A script, not a link: a Python looks for its packages beside the file it was started as."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    quoted = "'" + str(python).replace("'", "'\\''") + "'"
    part.write_text(f'#!/bin/sh\nexec {quoted} "$@"\n')
    part.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    part.replace(path)
