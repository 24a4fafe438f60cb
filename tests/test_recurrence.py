"""A cron text with a start as a rule: the runs that Prefect makes of it are those of the cron text."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from prefect.server.schemas.schedules import RRuleSchedule

from rainbow_prefect.errors import CallError
from rainbow_prefect.recurrence import recurrence
from rainbow_prefect.schedule import next_runs

ZONE = "Europe/Berlin"


@pytest.mark.parametrize("start", [datetime(2030, 1, 5, 10, 7), datetime(2030, 3, 30, 23, 59, 30)])
@pytest.mark.parametrize(
    "cron",
    [
        "0 6 * * *",
        "*/15 9-17 * * 1-5",
        "0 0 1,15 * 1",
        "@monthly",
        "5 4 l * *",
        "30 4 * 1-3 sun",
        "* * * * *",
        "0 12 29 2 *",
    ],
)
def test_the_runs_are_those_of_the_cron_text(cron: str, start: datetime) -> None:
    rule = RRuleSchedule(rrule=recurrence(cron, start), timezone=ZONE)
    now = datetime(2026, 1, 1, tzinfo=UTC)

    made = asyncio.run(rule.get_dates(8, start=now))

    assert [one.astimezone(UTC) for one in made] == next_runs(cron, timezone=ZONE, start_date=start, after=now, count=8)


def test_a_weekday_of_the_month_has_no_rule() -> None:
    with pytest.raises(CallError) as told:
        recurrence("0 6 * * 5#2", datetime(2030, 1, 1))

    assert str(told.value) == (
        "the cron text '0 6 * * 5#2' cannot have a `start_date`; write it without weekdays such as `5#2`"
    )
