"""When a pipeline runs: cron texts, time zones, start dates; agrees with Prefect's own cron schedule. No Prefect here."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from .errors import CallError, near

_SECOND = timedelta(seconds=1)
_STEPS = 1000
"""After so many candidates without a run the search ends, as in Prefect."""

_STEPS_OF_A_DAY = 1440

_SKIPPED_FOLD = 0 if sys.version_info >= (3, 13) else 1
"""Prefect runs 02:30 of a night without one at 03:30 (`whenever`, Python 3.13 and later) or at 01:30 (`pendulum`)."""

_EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
_LATEST = datetime(9000, 1, 1, tzinfo=UTC)
_ALIASES = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_FIELDS = (
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day", "1-31"),
    ("month", "1-12 or jan-dec"),
    ("weekday", "0-7 or sun-sat"),
)
_HIGHEST = (59, 23, 31, 12, 7)
_HINT = f"write `{' '.join(name for name, _ in _FIELDS)}`, e.g. `0 6 * * *`"


@lru_cache(maxsize=4096)
def cron_flaw(cron: str) -> tuple[str, str] | None:
    """What is wrong with a cron text, as message and hint; None when Prefect would take it."""
    text = cron.strip()
    if text.startswith("@"):
        if text in _ALIASES:
            return None
        hint = near(text, _ALIASES)
        return f"'{cron}' is not a schedule", hint if hint.startswith("did") else f"known: {', '.join(_ALIASES)}"
    fields = text.split()
    if len(fields) != 5:
        return f"'{cron}' is not a cron text: it has {len(fields)} fields, not 5", _HINT
    if all(map(_is_plain, fields, _HIGHEST)):
        return None
    for index, field in enumerate(fields):
        if not _is_field(field, index):
            name, numbers = _FIELDS[index]
            return (
                f"'{cron}' is not a cron text: {name} '{field}' is not valid",
                f"write {numbers}, `*`, `1-3` or `*/2`",
            )
    if not _is_cron(text):
        return f"'{cron}' is not a cron text", _HINT
    return None


def _is_plain(field: str, highest: int) -> bool:
    """Most fields are `*` or a small number; croniter takes 0.1 ms and an import of 20 ms to say so."""
    return field == "*" or (
        field.isascii() and field.isdigit() and len(field) < 3 and (highest in (31, 12)) <= int(field) <= highest
    )


def _is_field(field: str, index: int) -> bool:
    """Whether one field is valid by itself; Prefect refuses croniter's random and hashed ones."""
    return not field.lower().startswith(("r", "h")) and _is_cron(" ".join([*"*" * index, field, *"*" * (4 - index)]))


def _is_cron(text: str) -> bool:
    from croniter import croniter

    try:
        croniter.expand(text)
    except (ValueError, KeyError, AttributeError, TypeError, IndexError):
        return False
    return True


@lru_cache(maxsize=1024)
def zone_flaw(name: str) -> tuple[str, str] | None:
    """What is wrong with the name of a time zone, as message and hint."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        from zoneinfo import available_timezones

        hint = near(name, available_timezones(), list_up_to=0)
        return f"unknown time zone '{name}'", hint or "write an IANA name, e.g. Europe/Berlin"
    return None


def moment(value: date | datetime | str, zone: tzinfo = UTC) -> datetime:
    """A date, a time or an ISO 8601 text as an aware time; without an offset it is in `zone`.

    Raises:
        ValueError: the text is not ISO 8601.
    """
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    return value.replace(tzinfo=zone) if value.tzinfo is None else value


def next_runs(
    cron: str,
    *,
    timezone: str = "UTC",
    start_date: date | datetime | None = None,
    after: datetime | None = None,
    count: int = 5,
    skip: Collection[date] = (),
) -> list[datetime]:
    """The next `count` runs after `after` (default: now), none before `start_date` and none on the days of `skip`.

    Shape: aware, in UTC, ascending; fewer than `count` when there are no more (`0 0 30 2 *` has none). `after` itself
    is not among them, `start_date` may be. A time that comes twice in autumn runs once.

    Raises:
        CallError: the cron text or the time zone is not valid.
    """
    runs = next_times(cron, timezone=timezone, start_date=start_date, after=after, count=count, skip=skip)
    return [run for run, is_skipped in runs if not is_skipped]


def next_times(
    cron: str,
    *,
    timezone: str = "UTC",
    start_date: date | datetime | None = None,
    after: datetime | None = None,
    count: int = 5,
    skip: Collection[date] = (),
) -> list[tuple[datetime, bool]]:
    """As `next_runs`, with the times before the last of them that are skipped: `(time, is_skipped)`."""
    if flaw := cron_flaw(cron) or zone_flaw(timezone):
        raise CallError("; ".join(part for part in flaw if part))
    zone = ZoneInfo(timezone)
    since = min(max(moment(after or datetime.now(UTC), zone), _EARLIEST), _LATEST).astimezone(UTC)
    since = since.replace(microsecond=0) + _SECOND
    if start_date is not None:
        since = max(since, min(moment(start_date, zone), _LATEST).astimezone(UTC))
    found: list[tuple[datetime, bool]] = []
    kept = 0
    runs = _runs(cron.strip(), zone, since, _STEPS + _STEPS_OF_A_DAY * len(skip))
    while kept < count and (run := next(runs, None)) is not None:
        is_skipped = run.astimezone(zone).date() in skip
        kept += not is_skipped
        found.append((run, is_skipped))
    return found


def _moment_of(wall: datetime, zone: ZoneInfo) -> datetime:
    """The moment of a reading of the clock on the wall: the first of two, and what Prefect says where there is none."""
    run = wall.replace(tzinfo=zone).astimezone(UTC)
    if run.astimezone(zone).replace(tzinfo=None) == wall:
        return run
    return wall.replace(tzinfo=zone, fold=_SKIPPED_FOLD).astimezone(UTC)


def _runs(cron: str, zone: ZoneInfo, since: datetime, steps: int) -> Iterator[datetime]:
    """Steps through the clock on the wall, as cron does, and gives each reading the moment it stands for."""
    from croniter import CroniterBadDateError, croniter

    local = since.astimezone(zone).replace(tzinfo=None)
    walk: Any = croniter(cron, local - _SECOND)
    last = since - _SECOND
    for _ in range(steps):
        try:
            wall = walk.get_next(datetime)
        except CroniterBadDateError:
            return
        run = _moment_of(wall, zone)
        if run > _LATEST:
            return
        if run > last:
            last = run
            yield run
