"""`python -m benchmarks.run`: measures every case side by side and ends with status 1 when a bar is missed."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from .cases import CASES, HERE, WITH_SERVER, Bench, prefect_server
from .measure import adopt_orphans
from .table import Row, markdown, write

_FOREIGN = ("PREFECT_", "RAINBOW_", "AWS_", "LIMINAL_", "PYTHONDONTWRITEBYTECODE")


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, and tell by the exit status whether all bars are met."""
    wanted = _arguments(words)
    if wanted.list:
        for name, case in CASES.items():
            print(f"{name:10} {case.__doc__}")
        return 0
    with tempfile.TemporaryDirectory(prefix="rainbow-bench-") as folder, ExitStack() as stack:
        rows = _measure(wanted, Path(folder), stack)
    text = f"{markdown(rows)}\n\n{_machine()}"
    print(f"\n{text}")
    if wanted.write:
        write(HERE / "README.md", text)
    missed = [row for row in rows if not row.is_met]
    for row in missed:
        print(f"MISSED: {' | '.join(filter(None, [*row.cells(), row.note]))}", file=sys.stderr)
    return 1 if missed else 0


def _arguments(words: Sequence[str] | None, cases: Mapping[str, object] = CASES) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--only", help="names of cases, with commas between them")
    parser.add_argument("--repeats", type=int, default=5, help="how often each command is run (default: 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="a share of the full size, to try something out")
    parser.add_argument("--peers", action="store_true", help="also measure other tools, installed into .cache/peers")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    parser.add_argument("--list", action="store_true", help="name the cases")
    wanted = parser.parse_args(words)
    wanted.names = wanted.only.split(",") if wanted.only else list(cases)
    unknown = [name for name in wanted.names if name not in cases]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)} (known: {', '.join(cases)})")
    return wanted


def _measure(wanted: argparse.Namespace, folder: Path, stack: ExitStack) -> list[Row]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    env |= {
        "HOME": str(folder),
        "PREFECT_HOME": str(folder / "prefect"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "CI": "true",
    }
    if wanted.peers or WITH_SERVER.intersection(wanted.names):
        env["PREFECT_API_URL"] = stack.enter_context(prefect_server(folder, env))
    bench = Bench(folder, env, wanted.repeats, wanted.scale)
    rows = []
    for name in wanted.names:
        print(f"{name}: {CASES[name].__doc__}", file=sys.stderr)
        rows += CASES[name](bench)
    if wanted.peers:
        from .others import measure_others

        rows += measure_others(bench)
    return rows


def _machine() -> str:
    memory = psutil.virtual_memory().total / 1024**3
    python = ".".join(map(str, sys.version_info[:3]))
    now = datetime.now(UTC).strftime("%Y-%m-%d")
    versions = f"rainbow-prefect {version('rainbow-prefect')}, Prefect {version('prefect')}, Python {python}"
    return f"{now}; {versions}; {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, {memory:.0f} GB."


if __name__ == "__main__":
    adopt_orphans()
    sys.exit(main())
