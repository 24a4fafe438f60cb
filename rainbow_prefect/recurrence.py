"""A cron text with a start as a recurrence rule (RFC 5545), since Prefect's cron schedule cannot start later."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from .errors import CallError

_DAYS = ("SU", "MO", "TU", "WE", "TH", "FR", "SA", "SU")
_ANY: list[Any] = ["*"]
_Parts = dict[str, list[Any]]


def recurrence(cron: str, start: datetime) -> str:
    """The rule with the same runs from `start` on; `start` is a reading of the clock on the wall.

    A cron text with a day of the month and a weekday means either, so it becomes two rules.

    Raises:
        CallError: no rule means the same.
    """
    from croniter import croniter

    fields, extra = croniter.expand(cron.strip())
    minute, hour, day, month, weekday = fields[:5]
    if extra:
        raise _no_rule(cron)
    times: _Parts = {"BYMONTH": month, "BYHOUR": hour, "BYMINUTE": minute}
    days: _Parts = {"BYMONTHDAY": [-1 if one == "l" else one for one in day]}
    weekdays: _Parts = {"BYDAY": _ANY if weekday == _ANY else [_weekday(one, cron) for one in weekday]}
    if _ANY in (day, weekday):
        rules = [times | days | weekdays]
    else:
        rules = [times | days, times | weekdays]
    first = start.replace(second=0, microsecond=0)
    first += timedelta(minutes=first < start)
    lines = [f"DTSTART:{first:%Y%m%dT%H%M%S}", *(_rule(one) for one in rules)]
    return "\n".join(lines)


def _weekday(one: Any, cron: str) -> str:
    if isinstance(one, int):
        return _DAYS[one]
    raise _no_rule(cron)


def _rule(parts: _Parts) -> str:
    """A rule that steps by the coarsest unit that still has all its runs."""
    frequency = "MINUTELY" if parts["BYMINUTE"] == _ANY else "HOURLY" if parts["BYHOUR"] == _ANY else "DAILY"
    kept = [f"{name}={','.join(map(str, values))}" for name, values in parts.items() if values != _ANY]
    return f"RRULE:{';'.join([f'FREQ={frequency}', *kept, 'BYSECOND=0'])}"


def _no_rule(cron: str) -> CallError:
    return CallError(f"the cron text '{cron}' cannot have a `start_date`; write it without weekdays such as `5#2`")
