"""`rainbow schedule [PATH] --pipeline NAME`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from ..schedule import moment, next_times
from .options import json_option, load_pipeline, path_argument, pipeline_option, print_json

if TYPE_CHECKING:
    from ..app import Pipeline, Schedule


@dataclass(frozen=True)
class Time:
    """A time of a schedule; `is_skipped`: it is on a day of `skip`."""

    run: datetime
    schedule: Schedule
    is_skipped: bool


def _time(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    try:
        return None if value is None else moment(value)
    except ValueError as error:
        raise click.BadParameter(f"'{value}' is not a time; write ISO 8601, e.g. 2026-03-15T10:20:00Z") from error


@click.command()
@path_argument
@pipeline_option
@click.option("--after", metavar="TIME", callback=_time, help="Runs after this time (ISO 8601); default: now.")
@click.option("--count", type=click.IntRange(0, 1000), default=5, show_default=True, help="How many runs.")
@json_option
def command(path: Path, pipeline: str | None, after: datetime | None, count: int, as_json: bool) -> None:
    """Tell when a pipeline runs next, over all its schedules, and which times it skips."""
    chosen = load_pipeline(path, pipeline)
    times = _times(chosen, after, count)
    if as_json:
        print_json(
            {
                "pipeline": chosen.pipeline,
                "cron": chosen.cron,
                "timezone": chosen.timezone,
                "start_date": chosen.start_date,
                "next": [_stamp(one.run) for one in times if not one.is_skipped],
                "skipped": [_stamp(one.run) for one in times if one.is_skipped],
                "schedules": [
                    {"slug": one.slug, "cron": one.cron, "timezone": one.timezone, "active": one.active}
                    for one in chosen.all_schedules
                ],
            }
        )
        return
    for line in _lines(chosen, times):
        click.echo(line)
    if not times and count and chosen.all_schedules:
        click.echo("  never")


def _times(pipeline: Pipeline, after: datetime | None, count: int) -> list[Time]:
    """The next `count` runs of all schedules together, and what is skipped before the last of them."""
    from ..calendars import days

    found: list[Time] = []
    for one in pipeline.all_schedules:
        if one.active:
            skip = days(one.skip, pipeline.app.root) if one.skip else ()
            times = next_times(
                one.cron, timezone=one.timezone, start_date=pipeline.start_date, after=after, count=count, skip=skip
            )
            found += [Time(run, one, is_skipped) for run, is_skipped in times]
    found.sort(key=lambda one: one.run)
    runs = [index for index, one in enumerate(found) if not one.is_skipped]
    return found[: runs[count - 1] + 1] if 0 < count <= len(runs) else found


def _lines(pipeline: Pipeline, times: list[Time]) -> Iterator[str]:
    name, start = pipeline.pipeline, pipeline.start_date
    if not pipeline.all_schedules:
        yield f"{name} has no schedule; `rainbow run --pipeline {name}` runs it."
    several = len(pipeline.all_schedules) > 1
    for one in pipeline.all_schedules:
        is_later = start is not None and moment(start, ZoneInfo(one.timezone)) > datetime.now(UTC)
        begins = f", from {start}" if is_later else ""
        slug = f" {one.slug}" if one.slug else ""
        yield f"{name}{slug}: {one.cron} ({one.timezone}{begins}){'' if one.active else ' switched off'}"
    for time in times:
        which = f"  {time.schedule.slug or time.schedule.cron}" if several else ""
        yield f"  {_local(time.run, time.schedule.timezone)}{which}{'  skipped' if time.is_skipped else ''}"


def _stamp(run: datetime) -> str:
    return run.strftime("%Y-%m-%dT%H:%M:%SZ")


def _local(run: datetime, zone: str) -> str:
    """`Mon 2026-03-16 09:00 CET`, with the time in UTC when that is another one."""
    local = run.astimezone(ZoneInfo(zone))
    text = local.strftime("%a %Y-%m-%d %H:%M %Z")
    return text if zone == "UTC" else f"{text}  ({run.strftime('%Y-%m-%d %H:%MZ')})"
