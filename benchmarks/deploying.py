"""The case `deploy`: many pipelines to a local server, beside Prefect's own command for the same."""

from __future__ import annotations

import sys
from pathlib import Path

from .cases import Bench, _apps
from .measure import Usage, interleaved, median, run
from .table import Row


def deploy(bench: Bench) -> list[Row]:
    """`rainbow deploy` of 100 pipelines beside `prefect deploy --all`, and `rainbow diff` of 1,000 deployed ones."""
    count = bench.count(100)
    homes = {"rainbow": _project(bench, "ours", count), "prefect": _project(bench, "theirs", count)}
    bench.rainbow("deploy", homes["prefect"], "--yes")  # its work pool, which Prefect asks for
    bench.rainbow("deploy", homes["prefect"], "--write", homes["prefect"] / "prefect.yaml")

    def prefect() -> Usage:
        words = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        return run(words, env=bench.env, cwd=homes["prefect"])

    usages = interleaved(
        {"rainbow": lambda: bench.rainbow("deploy", homes["rainbow"], "--yes"), "prefect": prefect}, repeats=1
    )
    ours, theirs = (median(usages[name], "wall_seconds") for name in ("rainbow", "prefect"))
    many = _project(bench, "many", bench.count(1000))
    bench.rainbow("deploy", many, "--yes")
    diffs = interleaved({"diff": lambda: bench.rainbow("diff", many)}, repeats=bench.repeats)["diff"]
    return [
        Row(f"deploy {count} pipelines", ours, "s", 0.15, theirs, "`prefect deploy --all`"),
        Row(f"`rainbow diff` of {bench.count(1000):,} deployed pipelines", median(diffs, "wall_seconds"), "s", 3.0),
    ]


def _project(bench: Bench, name: str, count: int) -> Path:
    """A project of its own, so that none finds what another one deployed."""
    folder = _apps(bench.home(f"deploy_{name}"), files=1, each=count)
    file = folder / "rainbow.yml"
    file.write_text(file.read_text().replace("name: app_0", f"name: {name}", 1))
    return folder
