"""One build by the Docker client: its arguments, its steps while it runs, its end; decides nothing."""

from __future__ import annotations

import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ..errors import Cancelled, RunError
from . import daemon
from .context import copy, ignored_in
from .decide import BASE_LABEL, HASH_LABEL, Decision, cache_folder
from .dockerfile import CODE, SECRET_ID, dockerfile
from .recipe import tagged

TAIL_LINES = 20
_SHOWN_LINES = 6
_STEP_CHARACTERS = 100
_LOOK_SECONDS = 0.2
_END_SECONDS = 10.0
_NO_BUILDKIT = re.compile(
    r"buildx component is missing or broken|buildkit not supported by daemon|unknown command: docker buildx"
)
_PLUGINS = tuple(f"/usr/{where}/docker/cli-plugins" for where in ("lib", "libexec", "local/lib", "local/libexec"))
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ADDED = re.compile(r"(?:--mount=\S+|PIP_[A-Z_]+=\S+) (?=.*-m pip)")
_STATUS = re.compile(r"exit code: \d+")
_OF_USER = re.compile(r"\] RUN (\[\"/bin/sh\", ?\"-ec\", ?\".*\"\])$")
_NOT_SAYING = re.compile(
    r"(?:executor failed running \[.*\]|process \".*\" did not complete successfully): ", re.DOTALL
)
_KIT_STEP = re.compile(r"#(?P<number>\d+) (?P<name>\[.*\].*|exporting to image)$")
_KIT_LINE = re.compile(r"#(?P<number>\d+) (?P<text>.*)$")
_KIT_NOISE = re.compile(r"sha256:\S+|DONE .*|CACHED|resolve .*|transferring .*|naming to .*|writing image .*")
_STEP = re.compile(r"Step (?P<step>\d+/\d+) : (?P<name>.*)$")
_NOISE = (" --->", "------", " > ", "Removing intermediate", "Sending build context", 'time="')
_OLD_BUILDER = re.compile(
    r"DEPRECATED: .*|\s+BuildKit is currently disabled.*|\s+environment-variable\.|"
    r"\s+Install the buildx .*|\s+https://docs\.docker\.com/go/buildx/?"
)


class Client(NamedTuple):
    """A Docker client: the program, and whether it is asked to build with BuildKit."""

    program: str
    buildkit: bool


@dataclass
class Steps:
    """The steps of a build as its output tells them, of both builders: the one under way and what it printed."""

    tell: Callable[[str], None]
    step: str = ""
    failed: str = ""
    error: str = ""
    last: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    _names: dict[str, str] = field(default_factory=dict)
    _lines: dict[str, deque[str]] = field(default_factory=dict)

    def take(self, line: str) -> None:
        """One line of the output."""
        line = _COLOURS.sub("", line).rstrip()
        if not line:
            return
        if found := _KIT_STEP.match(line):
            self._begin(found["number"], found["name"])
        elif (found := _KIT_LINE.match(line)) and found["number"] in self._names:
            self._within(found["number"], found["text"])
        elif found := _STEP.match(line):
            self._begin(found["step"], f"[{found['step']}] {found['name']}")
            self.last.clear()
        elif not line.startswith(_NOISE) and not _OLD_BUILDER.fullmatch(line):
            self.last.append(line)

    def _begin(self, key: str, name: str) -> None:
        if self._names.get(key) != name:  # BuildKit tells a step again when it goes on with it
            self._names[key] = name
            self._lines.setdefault(key, deque(maxlen=TAIL_LINES))
            self.step = _named(name)
            if not name.startswith("[internal]"):
                self.tell(self.step)

    def _within(self, key: str, text: str) -> None:
        if text.startswith("ERROR"):
            self.failed, self.error = self._names[key], text.removeprefix("ERROR:").strip()
        elif not _KIT_NOISE.fullmatch(text) and (said := re.sub(r"^\d+\.\d+(?: |$)", "", text)):
            self._lines[key].append(said)

    def why(self, status: int) -> tuple[str, list[str]]:
        """The step that failed, '' when none began, and the last lines."""
        if self.failed:
            key = next(key for key, name in self._names.items() if name == self.failed)
            return _named(self.failed), [*self._lines[key], self._said()]
        return self.step, list(self.last) or [f"exit status {status}"]

    def _said(self) -> str:
        """What BuildKit says of the failure, without the command, which may have many lines."""
        if _NOT_SAYING.match(self.error) or not self.error.startswith(("executor failed running", "process ")):
            return _NOT_SAYING.sub("", self.error)
        return next((found[0] for line in reversed(self.last) if (found := _STATUS.search(line))), self.error)


def _named(step: str) -> str:
    """A step as people say it: without what rainbow adds to the command."""
    if found := _OF_USER.search(step):
        with suppress(ValueError):
            script = json.loads(found[1])[2].partition("\n")[2]
            step = f"{step[: found.start(1)]}{'; '.join(script.strip().splitlines())}"
    return _shortened(_ADDED.sub("", step))


def _shortened(text: str, width: int = _STEP_CHARACTERS) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def build(
    decision: Decision,
    folder: Path,
    *,
    tell: Callable[[str], None],
    write: Callable[[str], None],
    no_cache: bool,
    stop: threading.Event,
    env: Mapping[str, str],
) -> None:
    """Build one image; `folder` is an empty one, `tell` is given each step and `write` each line.

    Raises:
        RunError: it failed; the step and its last lines are in the text.
        Cancelled: `stop` was set.
    """
    for number, client in enumerate(_clients()):
        file, context = _context(decision, folder / str(number), client)
        steps = Steps(tell)
        argv = _argv(decision, file, context, client, no_cache=no_cache)
        status = run(argv, {**env, "DOCKER_BUILDKIT": str(int(client.buildkit))}, steps.take, write, stop)
        if status == 0:
            return
        if client.buildkit and (found := _NO_BUILDKIT.search("\n".join(steps.last))):
            _remember_lack(client.program, lasting="daemon" not in found[0])
            continue
        step, lines = steps.why(status)
        where = f"step {step}: " if step else ""
        raise RunError(f"{where}{' | '.join(_shortened(one, 500) for one in lines[-_SHOWN_LINES:])}")
    raise RunError("there is no program `docker`; install it: https://docs.docker.com/get-docker/")


# -- which client


_lacking: set[str] = set()
"""The programs that cannot build with BuildKit, found out by this process."""


def _clients() -> Iterator[Client]:
    """The ways to build, best first: each `docker` of the PATH with BuildKit, then the first one without.

    A client of version 23 or later needs the plug-in buildx for BuildKit; one further down the PATH may not.
    """
    programs = _programs(os.environ.get("PATH", ""))
    if os.environ.get("DOCKER_BUILDKIT") != "0":
        known = _known_lacks()
        for program in programs:
            if program not in _lacking and known.get(program) != _state(program):
                yield Client(program, True)
    yield from (Client(program, False) for program in programs[:1])


def _lacks_file() -> Path:
    return cache_folder() / "without-buildkit.json"


def _known_lacks() -> dict[str, int]:
    try:
        found = json.loads(_lacks_file().read_bytes())
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _remember_lack(program: str, *, lasting: bool) -> None:
    """Do not try this one again; for good (until it changes) when it is the program that lacks something."""
    _lacking.add(program)
    if lasting:
        with suppress(OSError):
            _lacks_file().parent.mkdir(parents=True, exist_ok=True)
            part = _lacks_file().with_suffix(f".{os.getpid()}.{threading.get_ident()}")
            part.write_text(json.dumps({**_known_lacks(), program: _state(program)}))
            part.replace(_lacks_file())


def _state(program: str) -> int:
    """What changes when the program does, or the folders in which its plug-ins are installed."""
    folders = [daemon.config_folder() / "cli-plugins", *map(Path, _PLUGINS)]
    states = [path.stat().st_mtime_ns for path in (Path(program), *folders) if path.exists()]
    return sum(states)


@lru_cache(maxsize=8)
def _programs(path: str) -> tuple[str, ...]:
    found: dict[str, str] = {}
    for folder in path.split(os.pathsep):
        program = shutil.which("docker", path=folder or ".")
        if program is not None:
            found.setdefault(os.path.realpath(program), program)
    return tuple(found.values())


# -- what it is given


def _context(decision: Decision, folder: Path, client: Client) -> tuple[Path, Path]:
    """The Dockerfile, and the folder that the builder is given: a copy of the source, or where it can be itself."""
    recipe, content = decision.recipe, decision.content
    folder.mkdir(mode=0o700)
    context, file = folder / "context", folder / "Dockerfile"
    text = content.dockerfile or ""
    if recipe.dockerfile is None:
        text = dockerfile(recipe, content.packages, buildkit=client.buildkit)
    elif recipe.pip_conf is not None and not client.buildkit:
        raise RunError("`pip_conf` with a Dockerfile of one's own needs BuildKit; install the plug-in docker-buildx")
    file.write_text(text, encoding="utf-8")
    if client.buildkit and not content.made and recipe.folder is not None:
        ignored = ignored_in(recipe.folder, content.files)
        if ignored is not None:  # BuildKit looks for it beside the Dockerfile first
            file.with_name("Dockerfile.dockerignore").write_text(ignored, encoding="utf-8")
            return file, recipe.folder
    has_secret = recipe.pip_conf is not None and recipe.dockerfile is None and not client.buildkit
    copy(content.files, context / CODE if has_secret else context, content.made)
    if has_secret:
        assert recipe.pip_conf is not None
        try:
            shutil.copyfile(recipe.pip_conf, context / SECRET_ID)
        except OSError as error:
            raise RunError(f"`pip_conf`: {recipe.pip_conf} cannot be read: {error.strerror}") from error
    return file, context


def _argv(decision: Decision, file: Path, context: Path, client: Client, *, no_cache: bool) -> list[str]:
    recipe, content = decision.recipe, decision.content
    argv = [client.program, "build", "--tag", tagged(recipe.image), "--file", str(file)]
    argv += ["--progress=plain"] if client.buildkit else ["--force-rm"]
    if no_cache or recipe.no_cache:
        argv.append("--no-cache")
    if recipe.platform:
        argv += ["--platform", recipe.platform]
    if recipe.pip_conf is not None and client.buildkit:
        argv += ["--secret", _fields(f"id={SECRET_ID}", f"src={recipe.pip_conf}")]
    for name, value in recipe.build_args.items():
        argv += ["--build-arg", f"{name}={value}"]
    labels = {**recipe.labels, "rainbow.app": recipe.app, HASH_LABEL: content.hash, BASE_LABEL: decision.base_id}
    for name, value in labels.items():
        argv += ["--label", f"{name}={value}"]
    return [*argv, str(context)]


def _fields(*fields: str) -> str:
    """`a=b,c=d`, quoted as CSV where a value has a comma or a quote."""
    quoted = ('"' + one.replace('"', '""') + '"' if "," in one or '"' in one else one for one in fields)
    return ",".join(quoted)


# -- how it runs


def run(
    argv: Sequence[str],
    env: Mapping[str, str],
    take: Callable[[str], None],
    write: Callable[[str], None],
    stop: threading.Event,
) -> int:
    """Run a program to its end, each line of its output to `write` and `take`; gives its exit status.

    Raises:
        Cancelled: `stop` was set; the program has ended.
        RunError: it cannot be started.
    """
    try:
        process = subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise RunError(f"{argv[0]} cannot be started: {error.strerror}") from error
    assert process.stdout is not None
    guard = _guard(process.pid)
    try:
        for line in _lines(process.stdout.fileno(), stop):
            write(line)
            take(line)
        if stop.is_set():
            raise Cancelled("cancelled")
        return process.wait()
    finally:
        _end(process)
        guard.kill()
        guard.communicate()
        process.stdout.close()


def _guard(group: int) -> subprocess.Popen[bytes]:
    """A process that ends a group of processes when this one is killed, which is the end of the pipe between them."""
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read _; kill -s TERM -- "-$0"', str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def _lines(out: int, stop: threading.Event) -> Iterator[str]:
    """Lines as they come, until the output ends or `stop` is set."""
    rest = b""
    with selectors.DefaultSelector() as ready:
        ready.register(out, selectors.EVENT_READ)
        while not stop.is_set():
            if not ready.select(_LOOK_SECONDS):
                continue
            data = os.read(out, 1 << 16)
            if not data:
                break
            *lines, rest = re.split(rb"\r?\n|\r", rest + data)
            yield from (line.decode(errors="replace") for line in lines)
    if rest:
        yield rest.decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the client, which ends the build with it."""
    if process.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
            return
