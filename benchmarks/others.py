"""Other tools beside rainbow-prefect, for orientation: installed once into .cache/peers, no bar depends on them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .cases import HERE, ONE_TASK, Bench
from .measure import Usage, interleaved, median, run
from .table import Row

PACKAGES = ("dagster==1.*", "metaflow==2.*")
CACHE = HERE.parent / ".cache" / "peers"


def measure_others(bench: Bench) -> list[Row]:
    """One small task that starts a child process, by each tool's own command line."""
    python = environment(PACKAGES)
    folder = bench.home("others")
    shutil.copytree(HERE / "code", folder / "code")
    (folder / "rainbow.yml").write_text(ONE_TASK)
    (bench.home("dagster") / "dagster.yaml").touch()
    env = {
        **bench.env,
        "DAGSTER_HOME": str(bench.folder / "dagster"),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "METAFLOW_DEFAULT_DATASTORE": "local",
        "METAFLOW_DEFAULT_METADATA": "local",
        "USERNAME": "bench",
        "BENCH_CODE": str(folder / "code" / "hello.py"),
    }

    def other(*words: str | Path) -> Usage:
        return run([python, *words], env=env, cwd=folder)

    peers = HERE / "peers"
    usages = interleaved(
        {
            "rainbow": lambda: bench.rainbow("run", folder),
            "dagster": lambda: other(
                "-m", "dagster", "job", "execute", "-f", peers / "dagster_job.py", "-j", "one_task"
            ),
            "metaflow": lambda: other(peers / "metaflow_flow.py", "--no-pylint", "run"),
        },
        repeats=max(1, bench.repeats - 2),
    )
    ours = {what: median(usages["rainbow"], what) for what in ("cpu_seconds", "wall_seconds")}
    return [
        Row(f"told only: one task, {unit}", ours[what], unit, None, median(usages[name], what), name)
        for name in ("dagster", "metaflow")
        for what, unit in (("cpu_seconds", "CPU s"), ("wall_seconds", "s"))
    ]


def environment(packages: Sequence[str]) -> Path:
    """The Python of a virtual environment with these packages, made once for each list of them.

    Raises:
        CalledProcessError: they cannot be installed.
    """
    home = CACHE / hashlib.sha256("\n".join((*packages, sys.version)).encode()).hexdigest()[:12]
    python = home / "bin" / "python"
    if (home / ".done").exists():
        return python
    print(f"installing {', '.join(packages)} into {os.path.relpath(home)}", file=sys.stderr)
    shutil.rmtree(home, ignore_errors=True)
    if uv := shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"):
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, home], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", python, *packages], check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    (home / ".done").touch()
    return python
