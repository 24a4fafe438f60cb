"""When pipelines run: cron texts and time zones, side by side with Prefect's own cron schedule."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, date, datetime, timedelta

import pytest

from rainbow_prefect.errors import CallError
from rainbow_prefect.schedule import cron_flaw, moment, next_runs, zone_flaw

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca"]
CRONS = ["0 * * * *", "*/15 * * * *", "30 2 * * *", "0 2 * * 0", "15 1 * * *", "45 1,2 * * *", "@daily", "@weekly",
         "0 0 1 * *", "0 12 29 2 *", "10 3 * 3,10 0", "0 0 13 * 5", "0 0 L * *", "0 9 * * mon-fri", "0 0 * * sun#2"]  # fmt: skip
NIGHTS = [(2024, 3, 30), (2024, 10, 26), (2024, 3, 9), (2024, 11, 2), (2024, 4, 6), (2024, 10, 5), (2025, 1, 1)]


def iso(runs: list[datetime]) -> list[str]:
    return [run.strftime("%Y-%m-%dT%H:%MZ") for run in runs]


@pytest.mark.parametrize("zone", ZONES)
def test_runs_are_those_of_prefect(zone: str) -> None:
    from prefect.server.schemas.schedules import CronSchedule

    pick = random.Random(zone)
    for _ in range(150):
        cron = pick.choice(CRONS)
        after = datetime(*pick.choice(NIGHTS), 12, tzinfo=UTC) + timedelta(hours=pick.randrange(24 * 3) // 24 * 24)

        mine = next_runs(cron, timezone=zone, after=after, count=6)

        dates = asyncio.run(CronSchedule(cron=cron, timezone=zone).get_dates(n=6, start=after + timedelta(seconds=1)))
        assert iso(mine) == iso([run.astimezone(UTC) for run in dates]), (cron, after)


def test_runs_come_after_the_given_time() -> None:
    runs = next_runs("0 * 1 * *", after=datetime(2024, 4, 1, 0, 0, tzinfo=UTC), count=2)

    assert iso(runs) == ["2024-04-01T01:00Z", "2024-04-01T02:00Z"]


def test_first_run_is_not_before_the_start_date() -> None:
    runs = next_runs("0 3 * * *", start_date=date(2030, 5, 1), after=datetime(2024, 1, 1, tzinfo=UTC), count=2)

    assert iso(runs) == ["2030-05-01T03:00Z", "2030-05-02T03:00Z"]


def test_start_date_itself_may_run() -> None:
    runs = next_runs("0 0 * * *", start_date=date(2030, 5, 1), after=datetime(2024, 1, 1, tzinfo=UTC), count=1)

    assert iso(runs) == ["2030-05-01T00:00Z"]


def test_start_date_is_in_the_zone_of_the_schedule() -> None:
    runs = next_runs(
        "0 0 * * *",
        timezone="Asia/Tokyo",
        start_date=datetime(2030, 5, 1, 12, 30),
        after=datetime(2024, 1, 1, tzinfo=UTC),
        count=1,
    )

    assert iso(runs) == ["2030-05-01T15:00Z"]


def test_past_start_date_changes_nothing() -> None:
    runs = next_runs("0 0 * * *", start_date=date(1970, 1, 1), after=datetime(2024, 1, 1, 5, tzinfo=UTC), count=1)

    assert iso(runs) == ["2024-01-02T00:00Z"]


def test_hour_that_comes_twice_runs_once() -> None:
    runs = next_runs("30 2 * * *", timezone="Europe/Berlin", after=datetime(2024, 10, 26, 12, tzinfo=UTC), count=2)

    assert iso(runs) == ["2024-10-27T00:30Z", "2024-10-28T01:30Z"]


def test_day_that_never_comes_has_no_runs() -> None:
    assert next_runs("0 0 30 2 *") == []


@pytest.mark.parametrize("after", ["0001-01-01T00:00+14:00", "9999-12-31T23:59-12:00"])
def test_ends_of_the_calendar_are_no_error(after: str) -> None:
    assert len(next_runs("0 0 * * *", timezone="Asia/Tokyo", after=moment(after), count=1)) == ("0001" in after)


def test_default_is_five_runs_from_now_on() -> None:
    runs = next_runs("* * * * *")

    assert len(runs) == 5
    assert timedelta() < runs[0] - datetime.now(UTC) + timedelta(seconds=5) <= timedelta(seconds=65)


@pytest.mark.parametrize(
    "cron", [*CRONS, "0 * 1 * *", "@hourly", "@midnight", "@monthly", "@yearly", "@annually", " 0 0 * * 7 "]
)
def test_cron_is_taken(cron: str) -> None:
    assert cron_flaw(cron) is None


FIELDS = "write `minute hour day month weekday`, e.g. `0 6 * * *`"


@pytest.mark.parametrize(
    ("cron", "message", "hint"),
    [
        ("60 * * * *", "minute '60' is not valid", "write 0-59, `*`, `1-3` or `*/2`"),
        ("0 25 * * *", "hour '25' is not valid", "write 0-23, `*`, `1-3` or `*/2`"),
        ("0 0 0 * *", "day '0' is not valid", "write 1-31, `*`, `1-3` or `*/2`"),
        ("0 0 * jan-x *", "month 'jan-x' is not valid", "write 1-12 or jan-dec, `*`, `1-3` or `*/2`"),
        ("0 0 * * 8", "weekday '8' is not valid", "write 0-7 or sun-sat, `*`, `1-3` or `*/2`"),
        ("H * * * *", "minute 'H' is not valid", "write 0-59, `*`, `1-3` or `*/2`"),
        ("*/0 * * * *", "minute '*/0' is not valid", "write 0-59, `*`, `1-3` or `*/2`"),
        ("* * * *", "it has 4 fields, not 5", FIELDS),
        ("* * * * * *", "it has 6 fields, not 5", FIELDS),
        ("", "it has 0 fields, not 5", FIELDS),
    ],
)
def test_cron_that_is_wrong_names_its_field(cron: str, message: str, hint: str) -> None:
    assert cron_flaw(cron) == (f"'{cron}' is not a cron text: {message}", hint)


def test_alias_that_is_wrong_has_a_near_match() -> None:
    assert cron_flaw("@dayly") == ("'@dayly' is not a schedule", "did you mean '@daily'?")


@pytest.mark.parametrize(
    ("zone", "flaw"),
    [
        ("Europe/Berlin", None),
        ("Europe/Berln", ("unknown time zone 'Europe/Berln'", "did you mean 'Europe/Berlin'?")),
        ("../../etc/passwd", ("unknown time zone '../../etc/passwd'", "write an IANA name, e.g. Europe/Berlin")),
        ("", ("unknown time zone ''", "write an IANA name, e.g. Europe/Berlin")),
    ],
)
def test_time_zone_is_checked(zone: str, flaw: tuple[str, str] | None) -> None:
    assert zone_flaw(zone) == flaw


def test_wrong_schedule_is_an_error_of_the_call() -> None:
    with pytest.raises(CallError) as error:
        next_runs("0 0 * * *", timezone="Mars/Base")

    assert str(error.value) == "unknown time zone 'Mars/Base'; write an IANA name, e.g. Europe/Berlin"


def test_time_without_offset_is_in_the_zone() -> None:
    assert moment("2024-03-15T10:20").isoformat() == "2024-03-15T10:20:00+00:00"
    assert moment("2024-03-15T10:20+02:00").isoformat() == "2024-03-15T10:20:00+02:00"
    assert moment(date(2024, 3, 15)).isoformat() == "2024-03-15T00:00:00+00:00"
