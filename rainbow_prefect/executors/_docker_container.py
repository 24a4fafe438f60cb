"""One container for one slice: made, started, read, ended and removed."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import re
import secrets
import signal
import socket
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from ..errors import Cancelled, TaskFailed, TimedOut
from ..run import ENV_INPUT_BYTES, Command, FileMount, Large, Output, Run
from . import _docker_script, _results, _spawn
from ._docker_engine import Away, Engine, ImageFacts, is_root, look, patiently
from ._docker_script import INPUT, ROOT_INPUT
from ._docker_stream import Channel, Frames, Text
from ._lines import Lines

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
CHECK_SECONDS = 20.0
"""So often a container that prints nothing is looked at, in case its end was not told."""
AWAY_SECONDS = 60.0
"""How long an engine that went away is waited for."""
WAIT_SECONDS = 2.0
READ_BYTES = 1 << 18
MAX_PRINTED_BYTES = 4 << 30
OOM_SECONDS = 2.0
_FATAL = re.compile(r"\[FATAL tini \(\d+\)\] exec (.*) failed: (.*)")
_TOO_LONG = re.compile(r"exec \S*docker-init: argument list too long")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SPOOL_BYTES = 8 << 20
_LINKS = 10


@dataclass(frozen=True)
class Limits:
    """How far a container may go."""

    grace_seconds: float
    max_lines: int
    log_lines: int


@dataclass
class Slice:
    """A command in its image; `settings` is what the executor asks of the engine for all of its containers."""

    engine: Engine
    command: Command
    run: Run
    image: ImageFacts
    settings: Mapping[str, Any]
    env: Mapping[str, str]
    labels: Mapping[str, str]
    user: str
    is_read_only: bool
    limits: Limits
    keeps: Callable[[str], bool]
    _large: Path = field(init=False)

    def __post_init__(self) -> None:
        self._large = self.run.folder / f"output-{self.run.task}-{self.run.index}-{self.run.attempt}.json"

    # -- what it is given

    @property
    def work(self) -> PurePosixPath:
        return PurePosixPath(self.image.work)

    @property
    def output_path(self) -> PurePosixPath | None:
        """Where the output is in the container."""
        return self.work / self.command.output_path if self.command.output_path else None

    @property
    def _is_absolute(self) -> bool:
        return bool(self.command.output_path and self.command.output_path.startswith("/"))

    @property
    def _files(self) -> list[FileMount]:
        return [one for one in self.command.mounts if one.text is not None]

    def _inputs(self) -> tuple[str, ...]:
        """The files that hold the input."""
        only = self.is_read_only or self.work == PurePosixPath("/")
        return (str(self.work / INPUT),) if only else (str(self.work / INPUT), ROOT_INPUT)

    def _data(self) -> bytes | None:
        """The input when it fits into a variable."""
        if isinstance(self.run.input, Large):
            return None
        data = self.run.input_bytes()
        return data if len(data) <= ENV_INPUT_BYTES else None

    def _copies(self, data: bytes | None) -> bool:
        """Whether files must be copied into the container: what its own side cannot or must not write."""
        return (
            data is None
            or b"\0" in data
            or self.command.argv is not None
            or bool(self._files)
            or self._is_absolute
            or not self.engine.is_writable(self.image, self.user)
        )

    # -- its life

    def execute(self) -> Output:
        """Run it to its end; when this returns the container is gone.

        Raises:
            TaskFailed, TimedOut, Cancelled: as an executor tells them.
        """
        data = self._data()
        if not self._copies(data):
            output = self._once(data, copies=False)
            if output is not None:
                return output
            self.engine.note_unwritable(self.image, self.user)
        output = self._once(data, copies=True)
        assert output is not None, "a container that is given its input has nothing to write"
        return output

    def _once(self, data: bytes | None, *, copies: bool) -> Output | None:
        look(self.run)
        container = self._create(data, writes=() if copies else self._inputs())
        keeps = False
        try:
            if copies:
                self._put(container)
            return self._outcome(container, self._follow(container))
        except TaskFailed as error:
            keeps = not isinstance(error, Cancelled) and self.keeps(container)
            raise
        except OSError as error:
            if error.errno not in _FULL:
                raise
            where = tempfile.gettempdir() if copies else self.run.folder
            raise TaskFailed(
                f"the disk is full ({where}): the files of the slice cannot be kept there; free some space, "
                "or set TMPDIR to a larger disk"
            ) from error
        finally:
            if not keeps:
                self._remove(container)

    def _create(self, data: bytes | None, *, writes: tuple[str, ...]) -> str:
        argv = _docker_script.argv(self.command, writes=writes)
        env = self._env(data)
        _spawn.check(argv, env)
        settings = dict(self.settings)
        host = dict(settings.pop("HostConfig"))
        host["Mounts"] = [*host.get("Mounts", ()), *self._mounts()]
        body = {
            **settings,
            "Image": self.image.reference,
            "Entrypoint": argv[:1],
            "Cmd": argv[1:],
            "Env": [f"{name}={value}" for name, value in env.items()],
            "Labels": dict(self.labels),
            "HostConfig": host,
            **({"User": self.user} if self.user != self.image.user else {}),
        }
        name = f"rainbow-{self.run.task[:40]}-{self.run.index}-{secrets.token_hex(5)}"
        with self.engine.told("the container could not be made"):
            made = self.engine.api.create_container_from_config(body, name)
        return str(made["Id"])

    def _env(self, data: bytes | None) -> dict[str, str]:
        contract = self.run.contract_env(
            input_path=str(self.work / INPUT),
            output_path=str(self.output_path) if self.output_path else None,
            data=data,
        )
        env = {**self.env, **contract}
        if self.command.shell is not None:
            env[_docker_script.KILL_GROUP] = "1"
        return env

    def _mounts(self) -> Iterator[dict[str, Any]]:
        for one in self.command.mounts:
            if one.source is not None:
                if self.engine.is_local and not one.source.exists():
                    raise TaskFailed(f"the volume at {one.target}: {one.source} does not exist; make that folder")
                yield {
                    "Type": "bind",
                    "Source": str(one.source.absolute()),
                    "Target": str(self.work / one.target),
                    "ReadOnly": one.read_only,
                }
            elif one.text is None:
                raise TaskFailed(
                    f"the volume at {one.target} is a claim of a cluster; the executor 'docker' has no such thing: "
                    "give the volume `local: {path: ...}`"
                )
        if self.is_read_only:
            for folder in self._writable_folders():
                yield {"Type": "volume", "Target": folder}

    def _writable_folders(self) -> list[str]:
        """The folders that a read-only container can write to: each is a volume that is removed with it."""
        wanted = [self.work, *(PurePosixPath(self.work / one.target).parent for one in self._files)]
        if self._is_absolute and self.output_path is not None:
            wanted.append(self.output_path.parent)
        if PurePosixPath("/") in wanted:
            raise TaskFailed(
                "a container with `read_only` cannot write to `/`; use an image with a WORKDIR, "
                "and folders for secrets and the output"
            )
        mounted = [str(self.work / one.target) for one in self.command.mounts if one.source is not None]
        return [one for one in dict.fromkeys(map(str, wanted)) if one not in (*mounted, "/tmp")]  # noqa: S108

    # -- copies

    def _put(self, container: str) -> None:
        """Copy the input, secrets and a place for the output into the container before it starts."""
        entries = list(self._entries(container))
        for root in sorted(self._writable_folders(), reverse=True) if self.is_read_only else ["/"]:
            mine = [one for one in entries if one.path.is_relative_to(root)]
            entries = [one for one in entries if one not in mine]
            if mine:
                self._put_into(container, root, mine)

    def _put_into(self, container: str, root: str, entries: list[_Entry]) -> None:
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as file:
            with tarfile.open(fileobj=cast(IO[bytes], file), mode="w", format=tarfile.PAX_FORMAT) as archive:
                for one in entries:
                    one.add(archive, root)
            file.seek(0)
            with self.engine.told("the files of the slice could not be put into the container"):
                self.engine.api.put_archive(container, root, file)

    def _entries(self, container: str) -> Iterator[_Entry]:
        run = self.run
        uid, gid = self.engine.user_of(self.image, self.user, container)
        data: Path | bytes = run.input.path if isinstance(run.input, Large) else run.input_bytes()
        if not self.engine.is_writable(self.image, self.user):
            yield from self._own_folder(container, uid, gid)
        for path in self._inputs():
            yield _Entry(PurePosixPath(path), data, 0o644, uid, gid)
        for one in self._files:
            yield _Entry(self.work / one.target, (one.text or "").encode(), 0o400 if one.secret else 0o444, uid, gid)
        if self._needs_place():
            assert self.output_path is not None
            yield _Entry(self.output_path, b"", 0o666, uid, gid)

    def _own_folder(self, container: str, uid: int, gid: int) -> Iterator[_Entry]:
        """The working directory belongs to the user of the container, as it does in the images that we build."""
        if self.work in (PurePosixPath("/"), PurePosixPath("/tmp")):  # noqa: S108
            return
        is_link = self.engine.is_link(container, str(self.work))
        if self.is_read_only:  # there it is a volume, which has the owner that it has in the image
            if is_link:
                raise TaskFailed(
                    f"the working directory {self.work} of the image is a link, where a container with `read_only` "
                    "cannot write; name the folder itself as WORKDIR"
                )
        elif not is_link:
            yield _Entry(self.work, None, 0o755, uid, gid)

    def _needs_place(self) -> bool:
        """Whether an empty file is put where the output is to be written, since its folder may be nobody's to write."""
        if self.output_path is None:
            return False
        path = self.output_path
        if any(path.is_relative_to(self.work / one.target) for one in self.command.mounts if one.source is not None):
            return False
        if self.work == PurePosixPath("/"):
            return not is_root(self.user) or path.parent != self.work
        return self._is_absolute and not path.is_relative_to(self.work)

    # -- while it runs

    def _follow(self, container: str) -> _Ended:
        lines = Lines(self.run.write, limit=self.limits.log_lines)
        return _Follow(self, container, lines).until_end()

    def stop(self, container: str, number: str) -> None:
        """Send it a signal; when the engine does not, its removal will."""
        with contextlib.suppress(TaskFailed), self.engine.told():
            self.engine.api.kill(container, number)

    def state(self, container: str) -> dict[str, Any]:
        """What the engine says of the container."""
        with self.engine.told():
            found: dict[str, Any] = self.engine.api.inspect_container(container)["State"]
            return found

    def _remove(self, container: str) -> None:
        try:
            patiently(lambda: self.engine.remove(container), AWAY_SECONDS / 3, engine=self.engine)
        except TaskFailed as error:
            logger.warning("%s", error)
            self.run.write(f"the container {container[:12]} is left: {error}; `rainbow gc` removes it")

    # -- how it ended

    def _outcome(self, container: str, ended: _Ended) -> Output | None:
        """The output; None when the container could not write its input and must be given it."""
        channel = ended.channel
        if channel is not None and channel.word == "unwritable":
            return None
        tail = tuple(self.run.secrets.mask(line) for line in ended.lines.tail)
        if ended.reason is not None:
            raise type(ended.reason)(ended.reason.message, status=ended.status, tail=tail)
        if ended.status != 0:
            raise TaskFailed(self._failure(container, ended, tail), status=ended.status, tail=tail)
        try:
            return Output(self._output(container, channel), 0, tail)
        except TaskFailed as error:
            raise type(error)(error.message, status=0, tail=tail) from error

    def _failure(self, container: str, ended: _Ended, tail: tuple[str, ...]) -> str:
        """Why it failed, in one line."""
        channel, status = ended.channel, ended.status
        last = f": {tail[-1]}" if tail else ""
        memory = self.settings["HostConfig"].get("Memory")
        if self._was_oom(container, status):
            limit = f"its limit of {_size(memory)}" if memory else "the machine has"
            return f"it needed more memory than {limit} (OOM) and was ended{last}; raise `limit_memory`, or use less"
        if self.command.call is not None and channel is not None and channel.word == "failure":
            return self.run.secrets.mask(channel.data.decode("utf-8", "replace")[:2000])
        if found := _FATAL.search(tail[-1] if tail else ""):
            return self._not_started(found[1], found[2])
        if tail and _TOO_LONG.fullmatch(tail[-1]):
            return "the command and its environment variables are too long for a container; pass large values as files"
        if status > 128 and status - 128 in set(signal.Signals):
            return f"exit status {status} (ended by {signal.Signals(status - 128).name}){last}"
        return f"exit status {status}{last}"

    def _was_oom(self, container: str, status: int) -> bool:
        """The kernel's word may come a moment after the end of the container."""
        until = time.monotonic() + (OOM_SECONDS if status == 128 + signal.SIGKILL else 0)
        while True:
            try:
                if self.state(container).get("OOMKilled"):
                    return True
            except TaskFailed:
                return False
            if time.monotonic() >= until or not self.settings["HostConfig"].get("Memory"):
                return False
            time.sleep(LOOK_SECONDS)

    def _not_started(self, program: str, reason: str) -> str:
        image = self.image.reference
        if self.command.call is not None:
            return f"the image '{image}' has no `python`, which a function needs; use an image with Python, or `cmd`"
        if self.command.shell is not None:
            return f"the image '{image}' has no shell `sh`, which `cmd` needs; use an image that has one"
        return f"the program '{program}' cannot be started in the image '{image}': {reason}"

    def _output(self, container: str, channel: Channel | None) -> Any:
        """The output, None for a command without one."""
        if self.command.call is not None:
            if channel is None or channel.word != "result" or not channel.is_whole:
                raise TaskFailed(f"{self.command.call} ended the process before it returned")
            return self._received(channel, f"what {self.command.call} returned")
        if not self.command.output_path:
            return None
        shown = f"output_path '{self.command.output_path}'"
        if channel is not None and channel.word == "output" and channel.is_whole:
            return self._received(channel, shown)
        if channel is not None and channel.word == "missing":
            raise self._missing(shown)
        return self._copied(container, shown)

    def _received(self, channel: Channel, shown: str) -> Any:
        if channel.is_file:
            return _results.read(channel.path, shown=shown, inside=None, keep_as=self._large)
        try:
            return _results.parse(channel.data)
        except ValueError as error:
            raise TaskFailed(f"{shown} {error}") from None

    def _missing(self, shown: str) -> TaskFailed:
        return TaskFailed(
            f"{shown} does not exist after the command; write JSON there (RAINBOW_OUTPUT_PATH is its path)"
        )

    def _copied(self, container: str, shown: str) -> Any:
        """The output out of the container that ended: a regular file, or what a link below the working directory is."""
        path = self.output_path
        assert path is not None
        for _ in range(_LINKS):
            with (
                self._archive(container, path, shown) as chunks,
                tarfile.open(fileobj=cast(IO[bytes], _Chunks(chunks)), mode="r|") as archive,
            ):
                member = archive.next()
                if member is None:
                    raise self._missing(shown)
                if not member.issym():
                    return self._member(container, archive, member, path, shown)
                aim = PurePosixPath(_normal(path.parent / member.linkname))
            if not aim.is_relative_to(self.work):
                raise TaskFailed(
                    f"{shown} is a link to a place outside of the working directory; write the file itself"
                )
            path = aim
        raise TaskFailed(f"{shown} is a link to itself; write the file itself")

    @contextlib.contextmanager
    def _archive(self, container: str, path: PurePosixPath, shown: str) -> Iterator[Iterator[bytes]]:
        """The chunks of the tar file that the engine makes of a path.

        The engine holds the container until all is read or the connection is closed: it could not even be removed.
        """
        from docker.errors import APIError, NotFound

        with self.engine.told(f"{shown} cannot be copied out of the container"):
            try:
                response = self.engine.archive(container, str(path))
            except NotFound:
                raise self._missing(shown) from None
            except APIError as error:
                if "too many links" not in str(error):
                    raise
                raise TaskFailed(f"{shown} is a link to itself; write the file itself") from None
        try:
            yield response.iter_content(1 << 20)
        finally:
            response.close()

    def _member(
        self, container: str, archive: tarfile.TarFile, member: tarfile.TarInfo, path: PurePosixPath, shown: str
    ) -> Any:
        if not member.isreg():
            raise TaskFailed(f"{shown} is {_kind(member)}, not a file; write JSON into a file")
        if self._needs_place() and member.size == 0 and member.mtime == 0:
            raise self._missing(shown)
        if member.size > _results.MAX_OUTPUT_BYTES:
            raise TaskFailed(
                f"{shown} has {member.size / (1 << 20):.0f} MiB; an output may have "
                f"{_results.MAX_OUTPUT_BYTES / (1 << 20):.0f} MiB: write large data to a store and give its address"
            )
        if not self._was_written(container, path):
            raise TaskFailed(f"{shown} was not written; the file of that name was there before the command started")
        part = self._large.with_suffix(".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.engine.told(f"{shown} cannot be copied out of the container"), part.open("wb") as file:
                source = archive.extractfile(member)
                assert source is not None, "a regular file has data"
                while data := source.read(1 << 20):
                    file.write(data)
            return _results.read(part, shown=shown, inside=None, keep_as=self._large)
        finally:
            part.unlink(missing_ok=True)

    def _was_written(self, container: str, path: PurePosixPath) -> bool:
        """Whether the container made or changed the file, which may be one of its image."""
        if any(path.is_relative_to(self.work / one.target) for one in self.command.mounts):
            return True
        if self.is_read_only:
            return True
        with self.engine.told("the changes of the container cannot be looked at"):
            changes = self.engine.api.diff(container) or []
        return any(one["Path"] == str(path) for one in changes)


@dataclass(frozen=True)
class _Entry:
    """A file (its data, or the file with it) or a folder (None) that is put into a container."""

    path: PurePosixPath
    data: bytes | Path | None
    mode: int
    uid: int
    gid: int

    def add(self, archive: tarfile.TarFile, root: str) -> None:
        info = tarfile.TarInfo(str(self.path.relative_to(root)))
        info.mode, info.uid, info.gid = self.mode, self.uid, self.gid
        info.mtime = 0 if self.data == b"" else time.time()
        if self.data is None:
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        elif isinstance(self.data, Path):
            info.size = self.data.stat().st_size
            with self.data.open("rb") as file:
                archive.addfile(info, file)
        else:
            info.size = len(self.data)
            archive.addfile(info, io.BytesIO(self.data))


@dataclass
class _Ended:
    """How a container ended; `reason` is ours when we ended it."""

    lines: Lines
    channel: Channel | None
    status: int = 0
    reason: TaskFailed | None = None


class _Follow:
    """Starts a container and reads what it writes until it has ended, with an eye on the run's stop and deadline."""

    def __init__(self, one: Slice, container: str, lines: Lines) -> None:
        self.one = one
        self.run = one.run
        self.container = container
        self.lines = lines
        self.channel = None
        second: Text | Channel = Text(lines)
        if one.command.argv is None:
            second = self.channel = Channel(Text(lines), one._large.with_suffix(".part"))
        self.frames = Frames(Text(lines), second)
        self.reason: TaskFailed | None = None
        self.killed_at: float | None = None
        self.checked_at = time.monotonic()

    def until_end(self) -> _Ended:
        begun = time.monotonic()
        stream = self._attach(begins=True)
        while True:
            self._read(stream, begun)
            status = self._status(begun)
            if status is not None:
                break
            stream = self._attach(begins=False)
            self.run.write("the connection to the engine was lost for a while; lines may be missing here")
        self.frames.close()
        self.lines.close()
        return _Ended(self.lines, self.channel, status, self.reason)

    def _attach(self, *, begins: bool) -> _Stream:
        engine = self.one.engine
        with engine.told("the container could not be started"):
            stream = _Stream(engine.api.attach_socket(self.container, params={"stdout": 1, "stderr": 1, "stream": 1}))
            if begins:
                try:
                    engine.api.start(self.container)
                except BaseException:
                    stream.close()
                    raise
        return stream

    def _read(self, stream: _Stream, begun: float) -> None:
        """Read until the stream ends."""
        try:
            while True:
                try:
                    data = stream.receive()
                except TimeoutError:
                    self._mind(begun)
                    if self._is_over():
                        return
                    continue
                except OSError:
                    return
                if not data:
                    return
                self.frames.feed(data)
                self._mind(begun)
        finally:
            stream.close()

    def _is_over(self) -> bool:
        """Look now and then at a container that prints nothing: the end of its stream may not have been told."""
        if time.monotonic() - self.checked_at < CHECK_SECONDS:
            return False
        self.checked_at = time.monotonic()
        try:
            return not self.one.state(self.container).get("Running")
        except TaskFailed:
            return True

    def _status(self, begun: float) -> int | None:
        """The exit status once the stream has ended; None when the container runs on and only the engine was away."""
        engine = self.one.engine
        while True:
            try:
                with engine.told():
                    return int(engine.api.wait(self.container, timeout=WAIT_SECONDS)["StatusCode"])
            except Away as error:
                if not _is_timeout(error.__cause__):
                    return self._after_away()
                self._mind(begun)  # it has closed its streams, and runs on
            except TaskFailed as error:
                if self.reason is not None:
                    return 128 + signal.SIGKILL
                raise TaskFailed(f"its container was removed while it ran ({error.message})") from error

    def _after_away(self) -> int | None:
        engine = self.one.engine
        until = time.monotonic() + AWAY_SECONDS
        while not engine.answers():
            look(self.run)
            if time.monotonic() > until:
                raise engine.away(TimeoutError("timed out"))
            time.sleep(LOOK_SECONDS)
        state = self.one.state(self.container)
        if state.get("Running"):
            return None
        raise TaskFailed(
            f"the Docker engine at {engine.shown} was restarted while the container ran, which ended it "
            f"(exit status {state.get('ExitCode')}); a retry runs it again"
        )

    def _mind(self, begun: float) -> None:
        now = time.monotonic()
        if self.killed_at is not None:
            if now - self.killed_at > self.one.limits.grace_seconds:
                self.killed_at = now + CHECK_SECONDS
                self._send("SIGKILL")
            return
        if self.run.stop.is_set() or self.run.remaining_seconds() == 0:
            self.reason = _stopped(self.run, now - begun)
            self.killed_at = now
            self._send("SIGTERM")
        elif self.lines.count > self.one.limits.max_lines:
            self._too_much(f"{self.one.limits.max_lines} lines", "raise `max_lines` of the executor")
        elif self.lines.size_bytes > MAX_PRINTED_BYTES:
            self._too_much(f"{MAX_PRINTED_BYTES >> 30} GiB", "write to a file instead")

    def _too_much(self, limit: str, fix: str) -> None:
        self.reason = TaskFailed(f"it printed more than {limit} and was ended; print less, or {fix}")
        self.killed_at = time.monotonic() + CHECK_SECONDS
        self._send("SIGKILL")

    def _send(self, number: str) -> None:
        """Send it a signal while what it prints is read on: the engine answers when that is read, and not before."""
        threading.Thread(target=self.one.stop, args=(self.container, number), name="signal", daemon=True).start()


class _Stream:
    """The raw connection of an attached container, whatever the SDK wraps it in."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped
        self._socket: socket.socket = getattr(wrapped, "_sock", wrapped)
        self._socket.settimeout(LOOK_SECONDS)

    def receive(self) -> bytes:
        return self._socket.recv(READ_BYTES)

    def close(self) -> None:
        response = getattr(self._wrapped, "_response", None)
        for one in (response, self._wrapped, self._socket):
            if one is not None:
                with contextlib.suppress(OSError, ValueError):
                    one.close()


class _Chunks:
    """A stream of chunks as a file to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def read(self, size: int) -> bytes:
        parts = [self._rest]
        got = len(self._rest)
        while got < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            parts.append(chunk)
            got += len(chunk)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]


def _is_timeout(error: BaseException | None) -> bool:
    """Whether the engine is there, and only has nothing to tell yet."""
    return "Timeout" in type(error).__name__ or "timed out" in str(error)


def _stopped(run: Run, seconds: float) -> TaskFailed:
    if run.stop.is_set() and not run.timed_out:
        return Cancelled("cancelled; its container was stopped")
    return TimedOut(f"timed out after {seconds:.1f} s; its container was stopped")


def _normal(path: PurePosixPath) -> str:
    import posixpath

    return posixpath.normpath(str(path))


def _kind(member: tarfile.TarInfo) -> str:
    if member.isdir():
        return "a folder"
    if member.isfifo():
        return "a pipe"
    return "a device" if member.isdev() else "something else"


def _size(size: int | None) -> str:
    return f"{(size or 0) / (1 << 20):.0f} MiB"
