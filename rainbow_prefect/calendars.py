"""Days on which a schedule does not run: dates, and the days of the events in iCalendar files (.ics)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from .errors import MissingExtra, RunError

YEARS = 2
"""How many years after this one an event that comes again each year is followed."""

_LONGEST = timedelta(days=366)


def days(skip: Iterable[date | str], root: Path, *, today: date | None = None) -> frozenset[date]:
    """All the days; a text is the path of an iCalendar file, relative to `root`.

    Raises:
        RunError: a file cannot be read, or is no calendar.
        MissingExtra: icalendar is not installed.
    """
    found: set[date] = set()
    for one in skip:
        if isinstance(one, date):
            found.add(one)
        else:
            found.update(_days_of(root / Path(one).expanduser(), one, today or date.today()))
    return frozenset(found)


def _days_of(path: Path, shown: str, today: date) -> Iterator[date]:
    try:
        from icalendar import Calendar
    except ImportError:
        raise MissingExtra("a calendar in `skip`", "calendar") from None
    try:
        calendar: Any = Calendar.from_ical(path.read_bytes())
    except OSError as error:
        raise RunError(f"the calendar {shown} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise RunError(f"{shown} is not an iCalendar file: {str(error).splitlines()[0][:200]}") from error
    for event in calendar.walk("VEVENT"):
        yield from _days_of_event(event, today)


def _days_of_event(event: Any, today: date) -> Iterator[date]:
    """The days of an event, and of its repetitions until two years from now."""
    if "DTSTART" not in event:
        return
    first = _day(event["DTSTART"].dt)
    if "DTEND" in event:
        end = event["DTEND"].dt
        last = _day(end) - timedelta(days=0 if isinstance(end, datetime) and end.time() else 1)
    elif "DURATION" in event:
        last = first + event["DURATION"].dt - timedelta(days=1)
    else:
        last = first
    length = min(max(last - first, timedelta()), _LONGEST)
    for start in _starts(event, first, today):
        for number in range(length.days + 1):
            yield start + timedelta(days=number)


def _starts(event: Any, first: date, today: date) -> Iterator[date]:
    rule = event.get("RRULE")
    if rule is None:
        yield first
        return
    from dateutil.rrule import rrulestr  # type: ignore[import-untyped]

    begin = datetime(first.year, first.month, first.day)
    text = rule.to_ical().decode().replace("Z", "")
    left_out = {_day(one.dt) for dates in _listed(event.get("EXDATE")) for one in dates.dts}
    for start in rrulestr(text, dtstart=begin).between(begin, datetime(today.year + YEARS, 12, 31), inc=True):
        if start.date() not in left_out:
            yield start.date()


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _day(moment: date | datetime) -> date:
    return moment.date() if isinstance(moment, datetime) else moment
