"""Runs a slice in a container that nothing can be copied into or out of (kubernetes, ecs); knows neither of them.

The container starts `_bootstrap.py`, which unpacks a *parcel* (command, variables, input, secret files), runs the user's
command and hands an *outcome* over (exit status, output). How an executor uses it:

    remote = prepare(command, run, exchange, hides=True, hand="termination", inline_bytes=3000)
    ...                       # start a container of command.image with remote.argv as its whole command,
                              # remote.env as plain variables, remote.secret_env as variables that nobody may look at
    try:
        ...                   # for each line of its log: `shown = remote.take(line)`, None: nothing of the user's in it
        outcome = remote.outcome(message)           # message: the termination message; None without one
        if outcome is None:
            raise TaskFailed(...)                   # it was killed before it could tell: the orchestrator knows why
        return remote.result(outcome, tail)         # the Output, or TaskFailed with status, last line, OOM ...
    finally:
        remote.clean()        # however it ended

`hides`: the orchestrator has a place for secret variables, so the parcel may be one of them (RAINBOW_PARCEL). Without
such a place a parcel goes through the bucket of the exchange (the container is given a URL that is signed for this one
object and removes it once it is read) or a folder of the volume whose name nobody can guess; without an exchange a
parcel with a secret is refused. `hand` is how the outcome comes back:

- `termination`: in the file /dev/termination-log, 4 KiB; larger outputs by the exchange;
- `log`: in marked lines at the end of the log, which `Remote.take` picks out;
- `either`: as `termination` when it fits there, else as `log`;
- `exchange`: as an object or a file.

A status of 125 without an outcome is a failure of the bootstrap itself; its reason is the last line of the log, after
`rainbow: `. No URL with a signature is part of an error, a log line or a label.
"""

from __future__ import annotations

import base64
import json
import secrets
import signal
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ..errors import TaskFailed
from ..run import ENV_INPUT_BYTES, Command, Large, Output, Run
from . import _results, _spawn
from ._exchange import Exchange, Place, VolumePlace

BROKEN = 125
"""The exit status of a bootstrap that failed itself."""

PARCEL = "RAINBOW_PARCEL"
ENV_PARCEL_CHARACTERS = 100_000
"""Linux takes 128 KiB in one variable."""

Hand = Literal["termination", "log", "either", "exchange"]

_HERE = Path(__file__).parent
_WITHOUT_DEADLINE_SECONDS = 7 * 24 * 3600
_AFTER_SECONDS = 3600
_UNSTOPPED_SECONDS = 60
_START = """\
for one in python3 python; do
  if command -v "$one" >/dev/null 2>&1 && "$one" -c 'import sys; sys.exit(sys.version_info < (3, 6))' 2>/dev/null; then
    exec "$one" -I -S -c "$0"
  fi
done
echo 'rainbow: the image has no Python 3.6 or newer on its PATH; add python3 to it' >&2
exit 125
"""


@dataclass(frozen=True)
class Outcome:
    """What the bootstrap told: `status` is negative for a signal; `data` is all of it."""

    status: int
    oom: bool
    data: Mapping[str, Any]


@dataclass
class Remote:
    """One slice that is to run in a container: what to start it with, and what it gave back."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    secret_env: Mapping[str, str]
    command: Command
    run: Run
    token: str
    place: Place | None = None
    is_log_whole: bool = False
    _chunks: dict[int, str] = field(default_factory=dict)
    _count: int = 0

    def take(self, line: str) -> str | None:
        """A line of the log without what the bootstrap handed over in it; None when that was all."""
        shown, found, rest = line.partition(self.marker)
        if not found:
            return line
        if rest.strip() == "end":
            self.is_log_whole = True
            return shown or None
        number, _, chunk = rest.partition(":")
        index, _, count = number.partition("/")
        if index.isdecimal() and count.isdecimal():
            self._chunks[int(index)] = chunk.strip()
            self._count = int(count)
            self.is_log_whole = len(self._chunks) == self._count
        return shown or None

    @property
    def marker(self) -> str:
        return _marker(self.token)

    def outcome(self, message: str | None = None) -> Outcome | None:
        """What the container handed over, by the message, the log or the exchange; None when it handed over nothing.

        Raises:
            TaskFailed: the bootstrap failed (not the user's command), or the exchange cannot be read.
        """
        data = self._told(message)
        if data is None and self.place is not None:
            found = self.place.take("outcome")
            data = self._checked(found) if found is not None else None
        if data is None:
            return None
        if "error" in data:
            raise TaskFailed(f"the container could not run the command: {data['error']}", status=BROKEN)
        if "start" in data:
            raise TaskFailed(_spawn.failure((data["start"], "exec"), _words(self.command), Path()), status=127)
        return Outcome(int(data["status"]), bool(data.get("oom")), data)

    def result(self, outcome: Outcome, tail: tuple[str, ...]) -> Output:
        """The output of a command that ended with status 0; `tail` are the last lines, without secrets.

        Raises:
            TaskFailed: it ended otherwise, or its output is missing or not JSON.
        """
        if outcome.status != 0:
            raise TaskFailed(self._failure(outcome, tail), status=outcome.status, tail=tail)
        try:
            return Output(self._output(outcome), 0, tail)
        except TaskFailed as error:
            raise TaskFailed(error.message, status=0, tail=tail) from error

    def clean(self) -> None:
        """Remove what is left of it in the exchange; never raises."""
        if self.place is not None:
            self.place.remove()

    def _told(self, message: str | None) -> dict[str, Any] | None:
        if message and (data := self._checked(message.encode())) is not None:
            return data
        if not self._chunks or len(self._chunks) != self._count:
            return None
        text = "".join(self._chunks[index] for index in sorted(self._chunks))
        try:
            return self._checked(zlib.decompress(base64.b64decode(text)))
        except (ValueError, zlib.error):
            return None

    def _checked(self, text: bytes) -> dict[str, Any] | None:
        """The outcome, None when this is something else: the user's code may have written there."""
        try:
            data = json.loads(text)
        except ValueError:
            return None
        if not isinstance(data, dict) or data.get("token") != self.token:
            return None
        return data

    def _failure(self, outcome: Outcome, tail: tuple[str, ...]) -> str:
        if outcome.oom:
            last = f": {tail[-1]}" if tail else ""
            return f"out of memory: it needed more than the container may use; raise `memory` of the executor{last}"
        return failure(outcome.status, tail, told=self.run.secrets.mask(str(outcome.data.get("failure", ""))))

    def _output(self, outcome: Outcome) -> Any:
        found = outcome.data.get("output")
        if found is None:
            return None
        call = self.command.call
        shown = f"what {call} returned" if call else f"output_path '{self.command.output_path}'"
        if "missing" in found:
            raise TaskFailed(self._missing(shown, found["missing"]))
        if "wrong" in found:
            raise TaskFailed(f"{shown} {found['wrong']}")
        if "large" in found:
            raise TaskFailed(
                f"{shown} has {found['large']} bytes, more than can come back without an `exchange`; "
                "name a bucket or a volume in `exchange` of the executor"
            )
        run = self.run
        keep_as = run.folder / f"output-{run.task}-{run.index}-{run.attempt}.json"
        fetched = keep_as.with_suffix(".fetched")
        try:
            if "data" in found:
                keep_as.parent.mkdir(parents=True, exist_ok=True)
                fetched.write_bytes(zlib.decompress(base64.b64decode(found["data"])))
            elif self.place is not None:
                self.place.fetch("output", fetched)
            return _results.read(fetched, shown=shown, inside=None, keep_as=keep_as)
        finally:
            fetched.unlink(missing_ok=True)

    def _missing(self, shown: str, kind: str) -> str:
        if self.command.call is not None:
            return f"{self.command.call} ended the process before it returned"
        if kind == "old":
            return f"{shown} was not written; the file of that name was there before the command started"
        return f"{shown} does not exist after the command; write JSON there (RAINBOW_OUTPUT_PATH is its path)"


def failure(status: int, tail: tuple[str, ...], *, told: str = "") -> str:
    """Why a command failed, in one line; `told` is the reason that a function gave."""
    if told:
        return told
    last = f": {tail[-1]}" if tail else ""
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else "unknown"
        hint = " (perhaps it needed more memory than there was)" if status == -signal.SIGKILL else ""
        return f"ended by signal {-status} ({name}){hint}{last}"
    return f"exit status {status}{last}"


def prepare(
    command: Command,
    run: Run,
    exchange: Exchange | None,
    *,
    hides: bool,
    hand: Hand,
    inline_bytes: int,
    what: str,
    env: Mapping[str, str] | None = None,
    env_characters: int = ENV_PARCEL_CHARACTERS,
    start_seconds: float = 3600,
    with_secret_files: bool = True,
    marks_log: bool = False,
    longest_seconds: float | None = None,
    termination_path: str = "/dev/termination-log",
) -> Remote:
    """What a container is started with for this command; `argv` replaces the image's entrypoint and command.

    `what` names the executor in errors (`executor 'ecs'`), `env` are its own variables, `inline_bytes` is how large
    a packed output may be that comes with the outcome, `env_characters` how long a variable with the parcel,
    `start_seconds` how long the container may take to ask for it. `with_secret_files=False`: the executor mounts
    `command.mounts` that are secret itself. Mounts of volumes are always the executor's. With `marks_log` the last line
    of the log is a mark that `take` removes: `Remote.is_log_whole` says that it came. A container that nobody stops ends
    itself after the deadline of the run or `longest_seconds`.

    Raises:
        TaskFailed: a variable cannot be set, the exchange cannot be used, or there is none and one is needed.
    """
    token = secrets.token_hex(8)
    data = None if isinstance(run.input, Large) else run.input_bytes()
    parcel = _parcel(command, run, data, env or {}, with_secret_files=with_secret_files)
    parcel |= {
        "token": token,
        "hand": hand,
        "inline_bytes": inline_bytes,
        "marker": _marker(token),
        "marks_log": marks_log,
        "termination_path": termination_path,
        "until": _until(run, longest_seconds),
    }
    remote = Remote((), {}, {}, command, run, token)
    start = ("/bin/sh", "-c", _START, _bootstrap())
    if exchange is None:
        packed = _alone(parcel, data, run, hides=hides, room=env_characters, what=what)
        return replace(remote, argv=start, **_variables(packed, hides))
    slice_name = f"{run.task[:60]}-{run.index}-{run.attempt}-{token}"
    place = exchange.place(run.run_id, slice_name, learn=run.secrets.learn)
    try:
        text = _through(place, parcel, data, run, hides=hides, room=env_characters, start_seconds=start_seconds)
    except BaseException:
        place.remove()
        raise
    return replace(remote, argv=start, place=place, **_variables(text, hides))


def _until(run: Run, longest_seconds: float | None) -> float | None:
    """When the container ends its command itself, for want of anybody who does: a minute after the deadline."""
    limits = [one for one in (run.remaining_seconds(), longest_seconds) if one is not None]
    return time.time() + min(limits) + _UNSTOPPED_SECONDS if limits else None


def _variables(text: str, hides: bool) -> dict[str, Any]:
    return {"secret_env": {PARCEL: text}} if hides else {"env": {PARCEL: text}}


def _parcel(
    command: Command, run: Run, data: bytes | None, env: Mapping[str, str], *, with_secret_files: bool
) -> dict[str, Any]:
    contract = run.contract_env(input_path="", output_path=None, data=data)
    del contract["RAINBOW_INPUT_PATH"]  # the container knows it
    variables = {**env, **run.env, **command.env, **contract}
    _spawn.check(_words(command), variables)
    parcel: dict[str, Any] = {
        "shell": command.shell,
        "argv": command.argv,
        "call": command.call,
        "output_path": command.output_path,
        "env": variables,
        "files": [
            {"target": one.target, "data": base64.b64encode(one.text.encode()).decode()}
            for one in command.mounts
            if with_secret_files and one.text is not None
        ],
    }
    if command.call is not None:
        parcel |= {"call_text": _text("_call.py"), "call_name": command.source.name if command.source else ""}
    return parcel


def _alone(parcel: dict[str, Any], data: bytes | None, run: Run, *, hides: bool, room: int, what: str) -> str:
    """The parcel as text that goes with the container, without an exchange."""
    needs = "name a bucket or a volume in `exchange` of the executor"
    if not hides and (parcel["files"] or _is_secret(parcel, run)):
        raise TaskFailed(f"{what} has no safe way for secrets into the container; {needs}")
    size = run.input.size_bytes if data is None and isinstance(run.input, Large) else len(data or b"")
    if data is not None:
        parcel["input"] = {"data": base64.b64encode(data).decode()}
        text = _packed(parcel)
        if len(text) <= room:
            return text
    raise TaskFailed(
        f"{what} cannot pass a command, variables and an input of {size} bytes without an exchange; {needs}"
    )


def _through(
    place: Place,
    parcel: dict[str, Any],
    data: bytes | None,
    run: Run,
    *,
    hides: bool,
    room: int,
    start_seconds: float,
) -> str:
    """The parcel as text, or where it is in the exchange."""
    remaining = run.remaining_seconds()
    until_end = start_seconds + (_WITHOUT_DEADLINE_SECONDS if remaining is None else remaining) + _AFTER_SECONDS
    if isinstance(place, VolumePlace):
        place.make()
    parcel |= {
        "folder": place.folder,
        "put_outcome": place.url("outcome", "PUT", until_end),
        "put_output": place.url("output", "PUT", until_end),
    }
    if data is not None and len(data) <= ENV_INPUT_BYTES:
        parcel["input"] = {"data": base64.b64encode(data).decode()}
    else:
        assert data is not None or isinstance(run.input, Large)
        place.give("input", data if data is not None else run.input.path)
        parcel["input"] = place.source("input", start_seconds)
    if hides and len(text := _packed(parcel)) <= room:
        return text
    parcel["remove"] = place.url("parcel", "DELETE", start_seconds)
    place.give("parcel", _packed(parcel).encode())
    source = place.source("parcel", start_seconds)
    return source["url"] if "url" in source else f"file:{source['file']}"


def _is_secret(parcel: Mapping[str, Any], run: Run) -> bool:
    """Whether anything in it is a secret, as far as the masker knows."""
    return bool(run.secrets.mask_data(parcel) != _plain(parcel))


def _plain(data: Any) -> Any:
    """The same data with lists for tuples, as the masker gives it."""
    if isinstance(data, Mapping):
        return {key: _plain(one) for key, one in data.items()}
    return [_plain(one) for one in data] if isinstance(data, list | tuple) else data


def _packed(parcel: Mapping[str, Any]) -> str:
    return base64.b64encode(zlib.compress(json.dumps(parcel).encode(), 9)).decode()


def _words(command: Command) -> list[str]:
    if command.argv is not None:
        return list(command.argv)
    return ["python", command.call] if command.call is not None else ["/bin/sh", "-c", command.shell or ":"]


def _marker(token: str) -> str:
    return f"::rainbow-outcome:{token}:"


def _bootstrap() -> str:
    return _text("_bootstrap.py")


@cache
def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
