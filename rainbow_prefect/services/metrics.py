"""What `/metrics` tells, in the text format of Prometheus: requests, errors, time, in flight, sizes of batches.

The numbers are plain integers of the one thread that answers; nothing is locked. Several workers of a service each leave
a snapshot in a folder once a second, and whoever is asked adds them up; a snapshot of a worker that ended counts on.

Source: Prometheus exposition format 0.0.4.
"""

from __future__ import annotations

import json
import os
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
OTHER = "other"
"""The endpoint of requests that belong to none."""


class Histogram:
    """How often a value fell between two bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Numbers:
    """The numbers of one endpoint in this process."""

    __slots__ = ("batches", "in_flight", "seconds", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[str, int] = {}
        self.seconds = Histogram(SECONDS)
        self.batches = Histogram(SIZES)
        self.in_flight = 0

    def answered(self, method: str, status: int, seconds: float) -> None:
        """Count one request."""
        key = f"{method} {status}"
        self.statuses[key] = self.statuses.get(key, 0) + 1
        self.seconds.add(seconds)


class Metrics:
    """The numbers of all endpoints of a service; `folder` is shared by its workers."""

    def __init__(self, service: str, folder: Path | None = None) -> None:
        self._service = service
        self._folder = folder
        self._numbers: dict[str, Numbers] = {}

    def of(self, endpoint: str) -> Numbers:
        """The numbers of an endpoint."""
        return self._numbers.setdefault(endpoint, Numbers())

    def keep(self) -> None:
        """Leave a snapshot for the other workers."""
        if self._folder is None:
            return
        with suppress(OSError):
            target = self._folder / f"{os.getpid()}.json"
            part = target.with_suffix(".part")
            part.write_text(json.dumps(self._snapshot()))
            part.replace(target)

    def text(self) -> str:
        """All of it, and what user code counts itself with prometheus_client."""
        lines = [*_lines(self._service, self._all())]
        text = "\n".join(lines) + "\n"
        if "prometheus_client" in sys.modules:
            from prometheus_client import generate_latest

            text += generate_latest().decode()
        return text

    def _snapshot(self) -> dict[str, Any]:
        return {
            name: {
                "statuses": one.statuses,
                "seconds": [one.seconds.counts, one.seconds.total],
                "batches": [one.batches.counts, one.batches.total],
                "in_flight": one.in_flight,
            }
            for name, one in self._numbers.items()
        }

    def _all(self) -> list[dict[str, Any]]:
        return [self._snapshot(), *self._others()]

    def _others(self) -> Iterator[dict[str, Any]]:
        if self._folder is None:
            return
        for file in self._folder.glob("*.json"):
            if file.stem == str(os.getpid()):
                continue
            with suppress(OSError, ValueError):
                data = json.loads(file.read_text())
                if not _is_alive(int(file.stem)):
                    for one in data.values():
                        one["in_flight"] = 0
                yield data


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _lines(service: str, snapshots: list[dict[str, Any]]) -> Iterator[str]:
    names = sorted({name for one in snapshots for name in one})
    labels = {name: f'service="{_escaped(service)}",endpoint="{_escaped(name)}"' for name in names}

    def each(name: str, key: str) -> list[Any]:
        return [one[name][key] for one in snapshots if name in one]

    yield "# HELP rainbow_requests_total Requests that were answered."
    yield "# TYPE rainbow_requests_total counter"
    for name in names:
        for key, count in sorted(_added(each(name, "statuses")).items()):
            method, status = key.split(" ")
            yield f'rainbow_requests_total{{{labels[name]},method="{method}",status="{status}"}} {count}'
    yield "# HELP rainbow_errors_total Requests that were answered with a status of 500 or more."
    yield "# TYPE rainbow_errors_total counter"
    for name in names:
        failed = sum(count for key, count in _added(each(name, "statuses")).items() if key.split(" ")[1] >= "500")
        yield f"rainbow_errors_total{{{labels[name]}}} {failed}"
    yield "# HELP rainbow_in_flight Requests that are being answered."
    yield "# TYPE rainbow_in_flight gauge"
    for name in names:
        yield f"rainbow_in_flight{{{labels[name]}}} {sum(each(name, 'in_flight'))}"
    yield from _histogram(
        "rainbow_request_seconds", "Seconds until the answer.", "seconds", SECONDS, names, labels, each
    )
    batched = [name for name in names if any(sum(one[0]) for one in each(name, "batches"))]
    yield from _histogram("rainbow_batch_size", "Requests in one call.", "batches", SIZES, batched, labels, each)


def _histogram(
    metric: str, told: str, key: str, bounds: tuple[float, ...], names: Iterable[str], labels: dict[str, str], each: Any
) -> Iterator[str]:
    yield f"# HELP {metric} {told}"
    yield f"# TYPE {metric} histogram"
    for name in names:
        found = each(name, key)
        counts = [sum(column) for column in zip(*(one[0] for one in found), strict=True)]
        below = 0
        for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
            below += count
            yield f'{metric}_bucket{{{labels[name]},le="{bound}"}} {below}'
        yield f"{metric}_sum{{{labels[name]}}} {sum(one[1] for one in found):.6f}"
        yield f"{metric}_count{{{labels[name]}}} {below}"


def _added(counts: list[dict[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in counts:
        for key, count in one.items():
            found[key] = found.get(key, 0) + count
    return found


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
