"""Every case of the benchmark: what of rainbow-prefect is measured, beside what, and the bar it must keep."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rainbow_prefect.server import launch

from .containers import container, containers, lines
from .measure import Usage, interleaved, median, run
from .table import Row

HERE = Path(__file__).parent
RAINBOW = Path(sys.executable).with_name("rainbow")
MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Bench:
    """Where a benchmark runs: a scratch folder, an environment that knows nothing of the user, and its size.

    `scale` 1 is the size that the bars are for; a smoke test takes less.
    """

    folder: Path
    env: dict[str, str]
    repeats: int = 5
    scale: float = 1.0

    def count(self, full: int) -> int:
        return max(4, int(full * self.scale))

    def home(self, name: str) -> Path:
        """An empty folder of this name."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def rainbow(self, *words: str | Path, **env: str) -> Usage:
        return run([RAINBOW, *words], env={**self.env, **env}, cwd=self.folder)

    def python(self, *words: str | Path) -> Usage:
        return run([sys.executable, *words], env=self.env, cwd=self.folder)


Case = Callable[[Bench], list[Row]]


@contextmanager
def prefect_server(folder: Path, env: dict[str, str]) -> Iterator[str]:
    """The API address of a Prefect server of our own; all that is measured talks to the same one."""
    home = {"PREFECT_HOME": str(folder / "server"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    server, url = launch(folder / "server.log", cwd=folder, env={**env, **home}, parent=os.getpid())
    try:
        yield url
    finally:
        server.terminate()
        server.wait(30)


def _pipelines(first: int, count: int) -> str:
    lines = ["pipelines:"]
    for number in range(first, first + count):
        lines += [
            f"  - pipeline: pipeline_{number}",
            "    schedule: 0 6 * * *",
            "    timeout_minutes: 45",
            "    tasks:",
        ]
        for task in range(5):
            lines += [
                f"      - task: task_{task}",
                "        type: python",
                "        source: code",
                "        cmd: python -u hello.py",
                f"        env_vars: {{STAGE: '{{{{stage}}}}', NUMBER: '{number}'}}",
                "        output_path: output.json",
                "        input: [1, 2, 3]" if task == 0 else f"        input: task:task_{task - 1}",
            ]
    return "\n".join(lines)


def _apps(folder: Path, *, files: int, each: int) -> Path:
    for number in range(files):
        home = folder / f"app_{number}" if files > 1 else folder
        home.mkdir(exist_ok=True)
        shutil.copytree(HERE / "code", home / "code")
        head = f"name: app_{number}\nowner: bench\nvariables: {{stage: test}}\n"
        (home / "rainbow.yml").write_text(head + _pipelines(number * each, each) + "\n")
    return folder


def check_many(bench: Bench) -> list[Row]:
    """`rainbow check` of 1,000 pipelines with 5 tasks each, in one file and in 100 files, first and second time."""
    rows = []
    count = bench.count(1000)
    for files, shape in ((1, "one file"), (min(100, count), f"{min(100, count)} files")):
        folder = _apps(bench.home(f"check_{files}"), files=files, each=count // files)
        caches = iter(range(1000))

        def first(folder: Path = folder, caches: Iterator[int] = caches) -> Usage:
            return bench.rainbow("check", folder, XDG_CACHE_HOME=str(bench.home(f"cache_{next(caches)}")))

        warm = str(bench.home("warm"))
        bench.rainbow("check", folder, XDG_CACHE_HOME=warm)

        def second(folder: Path = folder, warm: str = warm) -> Usage:
            return bench.rainbow("check", folder, XDG_CACHE_HOME=warm)

        usages = interleaved({"first": first, "second": second}, repeats=bench.repeats)
        what = f"`rainbow check`, {count:,} pipelines x 5 tasks in {shape}"
        rows.append(Row(f"{what}, first time", median(usages["first"], "cpu_seconds"), "CPU s", 1.0))
        rows.append(Row(f"{what}, second time", median(usages["second"], "cpu_seconds"), "CPU s", 0.4))
    return rows


def start(bench: Bench) -> list[Row]:
    """`rainbow --help` and `check` of a small file, and that Prefect is not imported by them."""
    folder = bench.home("start")
    shutil.copytree(HERE.parent / "examples" / "quickstart", folder, dirs_exist_ok=True)
    fresh = iter(range(1000))
    commands = {
        "`rainbow --help`": lambda: bench.rainbow("--help"),
        "`rainbow check` of a small file": lambda: bench.rainbow(
            "check", folder, XDG_CACHE_HOME=str(bench.home(f"cache_{next(fresh)}"))
        ),
    }
    peers = {"`import prefect`": lambda: bench.python("-c", "import prefect")}
    usages = interleaved({**commands, **peers}, repeats=bench.repeats)
    rows = [Row(name, median(usages[name], "cpu_seconds"), "CPU s", 0.35) for name in commands]
    imported = [name for name in ("--help", "check") if _imports_prefect(bench, name, folder)]
    rows.append(Row("of these, commands that import prefect", len(imported), "", 0, note=", ".join(imported)))
    rows.append(Row("told only: `import prefect` alone", median(usages["`import prefect`"], "cpu_seconds"), "CPU s"))
    return rows


def _imports_prefect(bench: Bench, command: str, folder: Path) -> bool:
    words = [command] if command == "--help" else [command, str(folder)]
    usage = bench.python("-X", "importtime", "-m", "rainbow_prefect", *words)
    names = {line.rpartition("|")[2].strip() for line in usage.err.splitlines() if line.startswith("import time:")}
    if not any(name.startswith("rainbow_prefect") for name in names):
        raise RuntimeError(f"nothing was seen to be imported by 'rainbow {command}'")
    return any(name == "prefect" or name.startswith("prefect.") for name in names)


ONE_TASK = """\
name: one_task
pipelines:
  - pipeline: one_task
    tasks:
      - task: hello
        type: python
        source: code
        cmd: python -u hello.py
        input: {who: world}
        output_path: output.json
"""


def one_task(bench: Bench) -> list[Row]:
    """`rainbow run` of a one-task pipeline beside a Prefect flow written by hand; both start a child process."""
    folder = bench.home("one_task")
    shutil.copytree(HERE / "code", folder / "code")
    (folder / "rainbow.yml").write_text(ONE_TASK)
    usages = interleaved(
        {
            "ours": lambda: bench.rainbow("run", folder),
            "peer": lambda: bench.python(HERE / "peers" / "one_task.py", folder / "code" / "hello.py"),
        },
        repeats=bench.repeats,
    )
    rows = []
    for what, unit, bar in (("cpu_seconds", "CPU s", 1.2), ("wall_seconds", "s", None)):
        ours, peer = median(usages["ours"], what), median(usages["peer"], what)
        told = "" if bar else "told only: the same, "
        rows.append(Row(f"{told}`rainbow run` of one task", ours, unit, bar, peer, "hand-written flow"))
    return rows


def _noop(bench: Bench, name: str, count: int) -> Path:
    folder = bench.home(name)
    shutil.copytree(HERE / "plugins", folder / "plugins")
    config = {
        "name": name,
        "plugins": ["plugins"],
        "pipelines": [
            {
                "pipeline": name,
                "tasks": [
                    {"task": "noop", "type": "noop", "input": [*range(count)], "split_input": True, "executors": count}
                ],
            }
        ],
    }
    (folder / "rainbow.yml").write_text(json.dumps(config))
    return folder


def slices(bench: Bench) -> list[Row]:
    """1,000 slices of a task that does nothing, in process, beside `task.map` of a task that does nothing."""
    count = bench.count(1000)
    folder = _noop(bench, "slices", count)
    usages = interleaved(
        {
            "ours": lambda: bench.rainbow("run", folder),
            "peer": lambda: bench.python(HERE / "peers" / "mapped.py", str(count)),
        },
        repeats=max(1, bench.repeats - 2),
    )
    rows = []
    for what, unit, bar in (("cpu_seconds", "CPU s", 1.3), ("wall_seconds", "s", None)):
        ours, peer = median(usages["ours"], what), median(usages["peer"], what)
        told = "" if bar else "told only: the same, "
        rows.append(Row(f"{told}{count:,} slices of a no-op task", ours, unit, bar, peer, "raw `task.map`"))
    return rows


def items(bench: Bench) -> list[Row]:
    """10,000 items in four child processes, beside four plain child processes that do the same."""
    count = bench.count(10_000)
    folder = bench.home("items")
    shutil.copytree(HERE / "code", folder / "code")
    (folder / "items.json").write_text(json.dumps([*range(count)]))
    text = ONE_TASK.replace("one_task", "items").replace("hello.py", "crunch.py").replace("hello", "crunch")
    text = text.replace(
        "input: {who: world}", "input: file:items.json\n        split_input: true\n        executors: 4"
    )
    (folder / "rainbow.yml").write_text(text)
    usages = interleaved(
        {
            "ours": lambda: bench.rainbow("run", folder),
            "peer": lambda: bench.python(
                HERE / "peers" / "four_processes.py", folder / "code" / "crunch.py", str(count)
            ),
        },
        repeats=max(1, bench.repeats - 2),
    )
    ours, peer = median(usages["ours"], "wall_seconds"), median(usages["peer"], "wall_seconds")
    return [Row(f"{count:,} items, `executors: 4`", ours, "s", 1.15, peer, "four plain subprocesses")]


def memory(bench: Bench) -> list[Row]:
    """Peak memory of the process that runs 5,000 slices, beside that of `task.map` over 5,000."""
    count = bench.count(5000)
    folder = _noop(bench, "memory", count)
    usages = interleaved(
        {
            "ours": lambda: bench.rainbow("run", folder),
            "peer": lambda: bench.python(HERE / "peers" / "mapped.py", str(count)),
        },
        repeats=1,
    )
    ours, peer = (median(usages[name], "peak_bytes") / MEGABYTE for name in ("ours", "peer"))
    return [Row(f"peak memory of the parent, {count:,} slices", ours, "MB", 1.3, peer, "raw `task.map`")]


def _images(bench: Bench, name: str, *, count: int, files: int, kilobytes: int = 20) -> Path:
    """A folder with that many images, each of a source of its own with that many modules of that size."""
    folder = bench.home(name)
    lines = [f"name: {name}", "images:"]
    for number in range(count):
        source = folder / f"code_{number}"
        source.mkdir()
        (source / "requirements.txt").write_text("# none\n")
        for module in range(files):
            (source / f"module_{module}.py").write_text(
                f"# {name} {number} {module}\n" + "x = 1  # a line\n" * 63 * kilobytes
            )
        lines.append(f"  - {{image: 'rainbow-bench/{name}-{number}:{os.getpid()}', source: code_{number}}}")
    (folder / "rainbow.yml").write_text("\n".join(lines) + "\n")
    return folder


@contextmanager
def _removed(*names: str) -> Iterator[None]:
    """Remove these images in the end."""
    try:
        yield
    finally:
        subprocess.run(["docker", "image", "rm", "--force", *names], capture_output=True, check=False)
        subprocess.run(
            ["docker", "image", "prune", "--force", "--filter", "label=rainbow.app=rebuild"],
            capture_output=True,
            check=False,
        )


def build_unchanged(bench: Bench) -> list[Row]:
    """`rainbow build` of 20 images of which none changed; without a Docker client, so that it can build none."""
    count = bench.count(20)
    folder = _images(bench, "unchanged", count=count, files=20)
    names = [f"rainbow-bench/unchanged-{number}:{os.getpid()}" for number in range(count)]
    with _removed(*names):
        interleaved({"first": lambda: bench.rainbow("build", folder)}, repeats=1)
        usages = interleaved({"ours": lambda: bench.rainbow("build", folder, PATH="")}, repeats=bench.repeats)
    wall, cpu = (median(usages["ours"], what) for what in ("wall_seconds", "cpu_seconds"))
    what = f"`rainbow build`, nothing changed, {count} images"
    return [Row(what, wall, "s", 1.0), Row(f"told only: the same, {what}", cpu, "CPU s")]


DOCKERFILE = """\
FROM python:3.11-slim
RUN mkdir -p /app && chown 10001:10001 /app
WORKDIR /app
COPY requirements.txt /app/
RUN python3 -m pip install -r requirements.txt
COPY --chown=10001:10001 . /app/
USER 10001:10001
"""


def rebuild(bench: Bench) -> list[Row]:
    """`rainbow build` after a change of one line, beside `docker build` of the same files with a Dockerfile by hand."""
    return [_rebuild(bench, bench.count(100), 20), _rebuild(bench, bench.count(1000), 40)]


def _rebuild(bench: Bench, files: int, kilobytes: int) -> Row:
    folder = _images(bench, "rebuild", count=1, files=files, kilobytes=kilobytes)
    peer = bench.home("rebuild_peer") / "code"
    shutil.copytree(folder / "code_0", peer)
    (peer / "Dockerfile").write_text(DOCKERFILE)
    ours_name, peer_name = f"rainbow-bench/rebuild-0:{os.getpid()}", f"rainbow-bench/peer:{os.getpid()}"
    docker, buildkit = _docker(bench)
    env = {**bench.env, "DOCKER_BUILDKIT": buildkit}

    def ours() -> Usage:
        _change(folder / "code_0" / "module_0.py")
        return bench.rainbow("build", folder)

    def by_hand() -> Usage:
        _change(peer / "module_0.py")
        return run([docker, "build", "--tag", peer_name, peer], env=env, cwd=bench.folder)

    with _removed(ours_name, peer_name):
        interleaved({"ours": ours, "peer": by_hand}, repeats=1)
        usages = interleaved({"ours": ours, "peer": by_hand}, repeats=bench.repeats)
    mine, other = (median(usages[name], "wall_seconds") for name in ("ours", "peer"))
    what = f"rebuild after one line, {files:,} files of {kilobytes} KB"
    return Row(what, mine, "s", 1.2, other, "`docker build`")


def _change(file: Path) -> None:
    with file.open("a") as out:
        out.write(f"# {time.time_ns()}\n")


def _docker(bench: Bench) -> tuple[str, str]:
    """The first Docker client that builds with BuildKit, as rainbow chooses it; else the first, and the classic builder."""
    empty = bench.home("probe")
    (empty / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    programs = [found for folder in os.get_exec_path() if (found := shutil.which("docker", path=folder))]
    if not programs:
        raise RuntimeError("the cases `build_unchanged` and `rebuild` need Docker")
    for program in programs:
        if run([program, "build", empty], env={**bench.env, "DOCKER_BUILDKIT": "1"}).code == 0:
            return program, "1"
    return programs[0], "0"


def deploy_many(bench: Bench) -> list[Row]:
    """`rainbow deploy` of 100 pipelines beside `prefect deploy --all`, and `rainbow diff` of 1,000 deployed ones."""
    from .deploying import deploy

    return deploy(bench)


def serve_services(bench: Bench) -> list[Row]:
    """Endpoints of `rainbow serve` beside FastAPI by hand, in CPU of the server for each 1,000 requests."""
    from .serving import serve

    return serve(bench)


def serve_long(bench: Bench) -> list[Row]:
    """The memory of a service after 1,000,000 requests, beside that after 100,000."""
    from .serving import serve_memory

    return serve_memory(bench)


CASES: dict[str, Case] = {
    "check": check_many,
    "start": start,
    "one_task": one_task,
    "slices": slices,
    "items": items,
    "memory": memory,
    "deploy": deploy_many,
    "serve": serve_services,
    "serve_memory": serve_long,
    "build_unchanged": build_unchanged,
    "rebuild": rebuild,
    "container": container,
    "containers": containers,
    "lines": lines,
}
"""All cases by name, in the order of the table."""

WITH_SERVER = frozenset({"one_task", "slices", "items", "memory", "deploy"})
"""The cases that need a running Prefect server."""

WITH_DOCKER = frozenset({"build_unchanged", "rebuild", "container", "containers", "lines"})
"""The cases that need a Docker engine."""
