"""Dates, times and intervals as PostgreSQL writes them, also those that Python's datetime cannot hold; exact, or a ValueError."""

from __future__ import annotations

import re

DAY_MICROSECONDS = 86_400_000_000

_DATE = re.compile(r"(\d{4,7})-(\d\d)-(\d\d)( BC| \(BC\))?\Z")
_MOMENT = re.compile(
    r"(\d{4,7}-\d\d-\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?"
    r"(Z|[+-]\d\d(?::?\d\d)?(?::\d\d)?)?( BC| \(BC\))?\Z"
)
_UNIT = re.compile(r"([+-]?\d+) (year|yr|month|mon|week|day)s?\Z")
_CLOCK = re.compile(r"([+-]?)(\d+):(\d\d):(\d\d)(?:\.(\d{1,9}))?\Z")


def days_of(text: str) -> int:
    """The days since 1970-01-01 of `0044-03-15 BC` or `12024-01-01`, in the Gregorian calendar.

    Source: Howard Hinnant, chrono-Compatible Low-Level Date Algorithms, days_from_civil.
    """
    found = _DATE.match(text)
    if found is None:
        raise ValueError("it is no date")
    year, month, day = int(found[1]), int(found[2]), int(found[3])
    if found[4]:
        year = 1 - year
    shifted = year - (month <= 2)
    era, of_era = divmod(shifted, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    days = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    if text_of_days(days) != f"{found[1]}-{found[2]}-{found[3]}{' BC' if found[4] else ''}":
        raise ValueError("it is no date")
    return days


def text_of_days(days: int) -> str:
    """The date so many days after 1970-01-01, e.g. `0044-03-15 BC`; the other way of `days_of`."""
    era, of_era = divmod(days + 719_468, 146_097)
    of_era_years = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * of_era_years + of_era_years // 4 - of_era_years // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + (3 if shifted < 10 else -9)
    year = of_era_years + era * 400 + (month <= 2)
    shown = f"{year if year > 0 else 1 - year:04d}-{month:02d}-{of_year - (153 * shifted + 2) // 5 + 1:02d}"
    return shown if year > 0 else f"{shown} BC"


def nanoseconds_of(text: str, *, zoned: bool) -> int:
    """The nanoseconds since 1970 of a timestamp; `zoned` ones must say their offset, others must not."""
    found = _MOMENT.match(text)
    if found is None:
        raise ValueError("it is no timestamp")
    if bool(found[6]) != zoned:
        raise ValueError("it says no offset from UTC" if zoned else "it says an offset from UTC")
    hour, minute, second = int(found[2]), int(found[3]), int(found[4])
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError("it is no time of a day")
    seconds = days_of(found[1] + (found[7] or "")) * 86_400 + hour * 3600 + minute * 60 + second - _offset(found[6])
    return seconds * 1_000_000_000 + int((found[5] or "").ljust(9, "0"))


def text_of_nanoseconds(nanoseconds: int, *, zoned: bool) -> str:
    """A timestamp as text, in UTC where it is `zoned`; the other way of `nanoseconds_of`."""
    days, rest = divmod(nanoseconds, DAY_MICROSECONDS * 1000)
    date, _, era = text_of_days(days).partition(" ")
    return f"{date} {clock(rest)}{'+00' if zoned else ''}{' BC' if era else ''}"


def interval_of(text: str) -> tuple[int, int, int]:
    """Months, days and nanoseconds of `1 year 2 mons 3 days 04:05:06.7`."""
    months = days = nanoseconds = 0
    words = text.split()
    while words:
        clock = _CLOCK.match(words[0])
        if clock is not None and len(words) == 1:
            whole = int(clock[2]) * 3600 + int(clock[3]) * 60 + int(clock[4])
            nanoseconds = whole * 1_000_000_000 + int((clock[5] or "").ljust(9, "0"))
            nanoseconds *= -1 if clock[1] == "-" else 1
            break
        unit = _UNIT.match(" ".join(words[:2]))
        if unit is None:
            raise ValueError("it is no interval as PostgreSQL writes it")
        number = int(unit[1])
        if unit[2] in ("year", "yr", "month", "mon"):
            months += number * (12 if unit[2].startswith("y") else 1)
        else:
            days += number * (7 if unit[2] == "week" else 1)
        words = words[2:]
    return months, days, nanoseconds


def text_of_interval(months: int, days: int, nanoseconds: int) -> str:
    """As PostgreSQL writes it with IntervalStyle=postgres; the other way of `interval_of`."""
    years, months = (abs(months) // 12) * (-1 if months < 0 else 1), abs(months) % 12 * (-1 if months < 0 else 1)
    words: list[str] = []
    for number, unit in ((years, "year"), (months, "mon"), (days, "day")):
        if number:
            sign = "+" if number > 0 and any(one.startswith("-") for one in words) else ""
            words.append(f"{sign}{number} {unit}{'' if number == 1 else 's'}")
    if nanoseconds or not words:
        sign = "-" if nanoseconds < 0 else "+" if any(one.startswith("-") for one in words) else ""
        words.append(sign + clock(abs(nanoseconds)))
    return " ".join(words)


def clock(nanoseconds: int) -> str:
    """A time of the day, also `24:00:00`, or longer."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    fraction = f"{rest:09d}".rstrip("0")
    shown = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{shown}.{fraction}" if fraction else shown


def _offset(text: str | None) -> int:
    """The seconds east of UTC of `+05:30`, `-0800`, `+01` or `Z`."""
    if not text or text == "Z":
        return 0
    digits = text[1:].replace(":", "").ljust(6, "0")
    seconds = int(digits[:2]) * 3600 + int(digits[2:4]) * 60 + int(digits[4:6])
    return -seconds if text[0] == "-" else seconds
