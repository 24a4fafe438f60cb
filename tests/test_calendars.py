"""Days that schedules skip: dates and calendars, in `rainbow schedule` and in what is deployed."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from rainbow_prefect.calendars import days
from rainbow_prefect.errors import RunError
from rainbow_prefect.schedule import next_runs
from tests.conftest import Project, Rainbow

ICS = """\
BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//test//EN
BEGIN:VEVENT
UID:1
SUMMARY:Christmas
DTSTART;VALUE=DATE:20201225
DTEND;VALUE=DATE:20201227
RRULE:FREQ=YEARLY
EXDATE;VALUE=DATE:20231225
END:VEVENT
BEGIN:VEVENT
UID:2
SUMMARY:Moving the office
DTSTART;VALUE=DATE:20240304
END:VEVENT
BEGIN:VEVENT
UID:3
SUMMARY:Night shift
DTSTART:20240501T220000
DTEND:20240502T060000
END:VEVENT
END:VCALENDAR
"""
TEXT = """
    name: times
    pipelines:
      - pipeline: shop
        schedule: {cron: "0 9 * * *", timezone: Europe/Berlin, skip: [2024-12-24, holidays.ics]}
        schedules: [{cron: "30 12 * * *", slug: noon}]
        tasks: []
"""


def test_events_are_days_and_come_again(tmp_path: Path) -> None:
    (tmp_path / "holidays.ics").write_text(ICS.replace("\n", "\r\n"))

    found = days([date(2024, 7, 1), "holidays.ics"], tmp_path, today=date(2024, 1, 1))

    assert {one for one in found if one.year == 2024} == {
        date(2024, 7, 1), date(2024, 12, 25), date(2024, 12, 26), date(2024, 3, 4), date(2024, 5, 1), date(2024, 5, 2)
    }  # fmt: skip
    assert date(2023, 12, 25) not in found
    assert max(found) == date(2026, 12, 26)


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.ics").write_text("hello")

    with pytest.raises(RunError, match=r"\Aa.ics is not an iCalendar file: "):
        days(["a.ics"], tmp_path)
    with pytest.raises(RunError, match=r"\Athe calendar b.ics cannot be read: no such file or directory\Z"):
        days(["b.ics"], tmp_path)


def test_days_are_those_of_the_zone() -> None:
    runs = next_runs(
        "0 0,12 * * *", timezone="Asia/Tokyo", after=datetime(2024, 1, 1, tzinfo=UTC), count=2, skip={date(2024, 1, 2)}
    )

    assert [one.strftime("%dT%H") for one in runs] == ["01T03", "02T15"]


def test_a_schedule_with_each_minute_skipped_for_days_goes_on() -> None:
    skip = {date(2024, 1, day) for day in range(1, 6)}

    assert next_runs("* * * * *", after=datetime(2023, 12, 31, 23, 59, tzinfo=UTC), count=1, skip=skip) == [
        datetime(2024, 1, 6, tzinfo=UTC)
    ]


def test_next_runs_are_told_with_what_is_skipped(rainbow: Rainbow, project: Project) -> None:
    folder = project({"rainbow.yml": TEXT, "holidays.ics": ICS})

    done = rainbow("schedule", folder, "--after", "2024-12-23T11:00:00Z", "--count", "3")

    assert done.out == (
        "shop: 0 9 * * * (Europe/Berlin)\n"
        "shop noon: 30 12 * * * (UTC)\n"
        "  Mon 2024-12-23 12:30 UTC  noon\n"
        "  Tue 2024-12-24 09:00 CET  (2024-12-24 08:00Z)  0 9 * * *  skipped\n"
        "  Tue 2024-12-24 12:30 UTC  noon\n"
        "  Wed 2024-12-25 09:00 CET  (2024-12-25 08:00Z)  0 9 * * *  skipped\n"
        "  Wed 2024-12-25 12:30 UTC  noon\n"
    )


def test_a_calendar_that_is_not_there_is_told_by_check(rainbow: Rainbow, project: Project) -> None:
    folder = project({"rainbow.yml": TEXT.replace("2024-12-24", "christmas"), "holidays.ics": ICS})

    done = rainbow("check", folder, code=2)

    assert done.out.splitlines()[:1] == [
        "rainbow.yml:4:67: pipeline 'shop': `skip[0]` must be a date such as 2024-12-25 or a calendar such as holidays.ics, "
        "got 'christmas'"
    ]
    folder = project({"rainbow.yml": TEXT.replace("holidays.ics", "holliday.ics"), "holidays.ics": ICS})

    done = rainbow("check", folder, code=2)

    assert "calendar 'holliday.ics' does not exist; did you mean 'holidays.ics'?" in done.out


def test_what_is_deployed_skips_the_same_times(project: Project) -> None:
    from prefect.server.schemas.schedules import RRuleSchedule

    from rainbow_prefect import load
    from rainbow_prefect.deployable import Places, deployment

    folder = project({"rainbow.yml": TEXT, "holidays.ics": ICS})
    pipeline = load(folder / "rainbow.yml").pipeline("shop")
    after = datetime(2024, 12, 20, tzinfo=UTC)

    given = deployment(pipeline, Places()).fields["schedules"]["schedule"]["schedule"]
    dates = asyncio.run(RRuleSchedule(**given).get_dates(n=5, start=after))

    expected = next_runs(
        "0 9 * * *",
        timezone="Europe/Berlin",
        after=after,
        count=5,
        skip=days([date(2024, 12, 24), "holidays.ics"], folder),
    )
    assert [one.astimezone(UTC) for one in dates] == expected
    assert [one.day for one in expected] == [20, 21, 22, 23, 27]
