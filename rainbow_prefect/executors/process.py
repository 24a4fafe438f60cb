"""The executor `process`: each slice in its own child process and its own working directory, on this machine."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ..errors import TaskFailed
from ..run import ENV_INPUT_BYTES, Command, FileMount, Large, Output, Run
from ..schema import EnvVars, Many, Seconds
from . import _disk, _environment, _folders, _results, _spawn, _watch
from ._lines import Lines
from .base import Executor

INPUT = "rainbow_input.json"
LOG_LINES = 1_000_000
"""So many lines of a slice are kept in the log; later ones only count."""

_CALL = Path(__file__).with_name("_call.py")
_SYSTEM = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
_CONTRACT = re.compile(
    r"(?:RAINBOW|LIMINAL)_(?:INPUT|INPUT_PATH|OUTPUT_PATH|SPLIT_ID|NUM_SPLITS|PIPELINE|TASK|ATTEMPT|SLICE)\Z"
    r"|PYTHONHOME\Z|__PYVENV_LAUNCHER__\Z"
)


class Process(Executor):
    """Runs each slice in a child process of this machine.

    Its working directory is private: a copy of the code, removed when the slice ends. However it ends, all processes
    that it started end with it.
    """

    type: Literal["process"] = "process"
    env_vars: EnvVars = Field(default_factory=dict, description="Environment variables of all that runs here.")
    clean_env: bool = Field(
        default=False, description="Give the code PATH, HOME, the language and the like only, not all of the run's."
    )
    python: str | None = Field(
        default=None,
        description="The Python that runs the code, also in environments for `requirements.txt`; absent: rainbow's.",
    )
    keep_failed: bool = Field(default=False, description="Keep the working directory of a slice that failed.")
    grace_seconds: Seconds = Field(
        default=5, description="Seconds between SIGTERM and SIGKILL when a slice is cancelled or timed out."
    )
    max_lines: Many = Field(default=2_000_000, description="A slice that prints more lines fails.")

    def prepare(self, command: Command, run: Run) -> None:
        """Make the environment of the code before its slices start."""
        _spawn.warm()
        self._python_folder(command, run, self._base_env(command, run))

    def run(self, command: Command, run: Run) -> Output:
        env = self._base_env(command, run)
        python = self._python_folder(command, run, env)
        folder = _folders.make(f"{run.task[:40]}-{run.index}", command.source)
        failed = True
        try:
            output = self._run_in(_Slice(folder, command, run), python, env)
            failed = False
            return output
        except OSError as error:
            raise TaskFailed(f"the working directory cannot be used: {error.strerror or error}") from error
        finally:
            if failed and self.keep_failed and not _disk.is_low(str(folder.path)):
                run.write(f"kept the working directory: {_folders.keep(folder)}")
            else:
                folder.remove()

    def clean(self, run_id: str) -> None:
        _watch.end_all(run_id)

    def _run_in(self, one: _Slice, python: Path, env: Mapping[str, str]) -> Output:
        run = one.run
        one.lay_out()
        lines = Lines(run.write, limit=LOG_LINES)
        variables = {**env, **one.variables()}
        variables["PATH"] = os.pathsep.join([str(python), variables.get("PATH") or os.defpath])
        if (python.parent / "pyvenv.cfg").exists():
            variables["VIRTUAL_ENV"] = str(python.parent)
        try:
            status = _watch.execute(
                one.argv(python),
                env=variables,
                cwd=one.folder.work,
                folder=one.folder.path,
                run=run,
                lines=lines,
                grace_seconds=self.grace_seconds,
                max_lines=self.max_lines,
            )
        except TaskFailed as error:
            raise type(error)(error.message, status=error.status, tail=_masked(lines, run)) from error
        tail = _masked(lines, run)
        if status != 0:
            raise TaskFailed(one.failure(status, tail), status=status, tail=tail)
        try:
            return Output(one.output(), status, tail)
        except TaskFailed as error:
            raise TaskFailed(error.message, status=status, tail=tail) from error

    def _base_env(self, command: Command, run: Run) -> dict[str, str]:
        """The variables without those of the contract: this process's, the executor's, the run's, the task's."""
        inherited = {name: value for name, value in os.environ.items() if not _CONTRACT.match(name)}
        if self.clean_env:
            inherited = {
                name: value for name, value in inherited.items() if name in _SYSTEM or name.startswith(("LC_", "XDG_"))
            }
        inherited.setdefault("PYTHONUNBUFFERED", "1")
        return {**inherited, **self.env_vars, **run.env, **command.env}

    def _python_folder(self, command: Command, run: Run, env: Mapping[str, str]) -> Path:
        """The folder that comes first in the PATH."""
        python = self.python or sys.executable
        if "/" in python:
            python = str(run.root / python)
        if shutil.which(python) is None:
            raise TaskFailed(f"the Python '{self.python}' of the executor does not exist; correct `python`")
        source = command.source
        if source is None or not _environment.needs_environment(source):
            return _environment.python_folder(python)
        made = _environment.environment(source, python=python, pip_conf=command.pip_conf, run=run, env=env)
        return made / "bin"


@dataclass
class _Slice:
    """A command in its folder; `stamps` tells what was at the places of its output before it started."""

    folder: _folders.Slice
    command: Command
    run: Run
    stamps: dict[Path, _results.Stamp | None] = field(default_factory=dict)

    @property
    def input_path(self) -> Path:
        return self.folder.work / INPUT

    @property
    def output_path(self) -> Path | None:
        """Where the output is looked for first: below the working directory, also when it is written absolute."""
        written = self.command.output_path
        return self.folder.work / written.lstrip("/") if written else None

    @property
    def result_path(self) -> Path:
        return self.folder.path / "result.json"

    @property
    def failure_path(self) -> Path:
        return self.folder.path / "failure.txt"

    def lay_out(self) -> None:
        """Put the input, the files of mounts and the folder of the output into the working directory."""
        _clear(self.input_path)
        if isinstance(self.run.input, Large):
            _folders.copy_file(self.run.input.path, self.input_path)
            self.input_path.chmod(0o600)
        else:
            self.input_path.write_bytes(self.run.input_bytes())
        for mount in self.command.mounts:
            self._mount(mount)
        if self.output_path is not None and self.command.output_path and self.command.output_path.startswith("/"):
            self.output_path.parent.mkdir(parents=True, exist_ok=True)
        self.stamps = {path: _results.stamp(path) for path in self._output_places()}

    def _output_places(self) -> list[Path]:
        """Below the working directory; and at an absolute path itself, when no other slice can have written there."""
        written, path = self.command.output_path, self.output_path
        if not written or path is None:
            return []
        return [path, Path(written)] if written.startswith("/") and self.run.count == 1 else [path]

    def _mount(self, mount: FileMount) -> None:
        target = self.folder.work / mount.target.lstrip("/")
        if not target.resolve().is_relative_to(self.folder.work.resolve()):
            raise TaskFailed(f"the mount {mount.target} leads out of the working directory; correct `path`")
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear(target)
        if mount.text is not None:
            file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400 if mount.read_only else 0o600)
            with os.fdopen(file, "w", encoding="utf-8") as out:
                out.write(mount.text)
        elif mount.source is not None and mount.source.exists():
            target.symlink_to(mount.source.resolve())
        elif mount.source is not None:
            raise TaskFailed(f"the volume at {mount.target}: {mount.source} does not exist; make that folder")
        else:
            raise TaskFailed(
                f"the volume at {mount.target} is a claim of a cluster; the executor 'process' has no such thing: "
                "give the volume `local: {path: ...}`"
            )

    def argv(self, python: Path) -> list[str]:
        """The program and its arguments."""
        command = self.command
        if command.call is not None:
            return [str(python / "python"), str(_CALL), command.call, str(self.result_path), str(self.failure_path)]
        if command.argv is not None:
            return list(command.argv)
        return [_shell(), "-c", command.shell or ":"]

    def variables(self) -> dict[str, str]:
        """The variables of the contract, and a folder of its own for temporary files."""
        small = not isinstance(self.run.input, Large) and self.input_path.stat().st_size <= ENV_INPUT_BYTES
        contract = self.run.contract_env(
            input_path=str(self.input_path),
            output_path=str(self.output_path) if self.output_path else None,
            data=self.input_path.read_bytes() if small else None,
        )
        return {"TMPDIR": str(self.folder.tmp), **contract}

    def failure(self, status: int, tail: tuple[str, ...]) -> str:
        """Why it failed, in one line."""
        if self.command.call is not None and self.failure_path.exists():
            return self.run.secrets.mask(self.failure_path.read_text(encoding="utf-8", errors="replace")[:2000])
        last = f": {tail[-1]}" if tail else ""
        if status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else "unknown"
            hint = " (perhaps it needed more memory than there was)" if status == -signal.SIGKILL else ""
            return f"ended by signal {-status} ({name}){hint}{last}"
        return f"exit status {status}{last}"

    def output(self) -> Any:
        """The output, None for a command without one."""
        keep_as = self.run.folder / f"output-{self.run.task}-{self.run.index}-{self.run.attempt}.json"
        if self.command.call is not None:
            if not self.result_path.exists():
                raise TaskFailed(f"{self.command.call} ended the process before it returned")
            shown = f"what {self.command.call} returned"
            return _results.read(self.result_path, shown=shown, inside=None, keep_as=keep_as)
        if not self.command.output_path:
            return None
        shown = f"output_path '{self.command.output_path}'"
        was_there = False
        for place, before in self.stamps.items():
            if not os.path.lexists(place):
                continue
            if before is not None and _results.stamp(place) == before:
                was_there = True
                continue
            inside = self.folder.work if place == self.output_path else None
            return _results.read(place, shown=shown, inside=inside, keep_as=keep_as)
        if was_there:
            raise TaskFailed(f"{shown} was not written; the file of that name was there before the command started")
        raise TaskFailed(
            f"{shown} does not exist after the command; write JSON there (RAINBOW_OUTPUT_PATH is its path)"
        )


def _masked(lines: Lines, run: Run) -> tuple[str, ...]:
    return tuple(run.secrets.mask(line) for line in lines.tail)


def _clear(path: Path) -> None:
    """Make room for a file of ours."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        _folders.remove(path)


def _shell() -> str:
    return shutil.which("bash", path="/bin:/usr/bin:/usr/local/bin") or shutil.which("bash") or "/bin/sh"
