"""Periods of time for backfills: days, weeks, months, hours between two dates; no clock and no time zone here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal, get_args

from .errors import CallError

By = Literal["hour", "day", "week", "month"]
MOST = 10_000
"""More periods than this in one backfill are taken for a slip of the finger."""


@dataclass(frozen=True)
class Period:
    """A span of time: `start` is in it, `end` is not, as ISO 8601: dates, or times when they are hours."""

    start: str
    end: str

    def __str__(self) -> str:
        return f"{self.start} to {self.end}"


def periods(first: str, last: str, by: str) -> list[Period]:
    """The periods from the one that begins with `first` to the one that `last` is in, in order.

    Raises:
        CallError: a date is none, `last` is before `first`, or there are too many.
    """
    if by not in get_args(By):
        raise CallError(f"--by must be one of {', '.join(get_args(By))}, got '{by}'")
    begin, end = _moment(first, "--from"), _moment(last, "--to")
    if end < begin:
        raise CallError(f"--to {last} is before --from {first}")
    found = []
    for one in _steps(begin, end, by):
        found.append(one)
        if len(found) > MOST:
            raise CallError(f"that is more than {MOST:,} periods; choose a shorter span, or a longer --by")
    return found


def _steps(begin: datetime, end: datetime, by: str) -> Iterator[Period]:
    number = 0
    while (start := _after(begin, by, number)) <= end:
        number += 1
        yield Period(_shown(start, by), _shown(_after(begin, by, number), by))


def _after(begin: datetime, by: str, number: int) -> datetime:
    if by != "month":
        return begin + number * timedelta(**{f"{by}s": 1})
    year, month = divmod(begin.year * 12 + begin.month - 1 + number, 12)
    try:
        return begin.replace(year=year, month=month + 1)
    except ValueError:
        raise CallError(f"--from {begin:%Y-%m-%d} with --by month: not every month has a day {begin.day}") from None


def _shown(moment: datetime, by: str) -> str:
    return moment.isoformat(timespec="minutes") if by == "hour" else moment.date().isoformat()


def _moment(text: str, option: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise CallError(f"{option} '{text}' is not a date; write e.g. 2024-01-31") from None
    if found.tzinfo is not None:
        raise CallError(f"{option} '{text}' has a time zone; write it without one")
    return found


def is_date(text: str) -> bool:
    """Whether a bound of a period is a day."""
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
