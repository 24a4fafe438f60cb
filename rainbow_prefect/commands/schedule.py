"""`rainbow schedule [PATH] --pipeline NAME`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import click

from ..schedule import moment, next_runs
from .options import json_option, load_pipeline, path_argument, pipeline_option, print_json


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
    """Tell when a pipeline runs next."""
    chosen = load_pipeline(path, pipeline)
    cron, zone, start = chosen.cron, chosen.timezone, chosen.start_date
    runs = [] if cron is None else next_runs(cron, timezone=zone, start_date=start, after=after, count=count)
    if as_json:
        shown = [run.strftime("%Y-%m-%dT%H:%M:%SZ") for run in runs]
        print_json({"pipeline": chosen.pipeline, "cron": cron, "timezone": zone, "start_date": start, "next": shown})
        return
    if cron is None:
        click.echo(f"{chosen.pipeline} has no schedule; `rainbow run --pipeline {chosen.pipeline}` runs it.")
        return
    start_text = f", from {start}" if start is not None and moment(start, ZoneInfo(zone)) > datetime.now(UTC) else ""
    click.echo(f"{chosen.pipeline}: {cron} ({zone}{start_text})")
    for run in runs:
        click.echo(f"  {_local(run, zone)}")
    if not runs and count:
        click.echo("  never")


def _local(run: datetime, zone: str) -> str:
    """`Mon 2026-03-16 09:00 CET`, with the time in UTC when that is another one."""
    local = run.astimezone(ZoneInfo(zone))
    text = local.strftime("%a %Y-%m-%d %H:%M %Z")
    return text if zone == "UTC" else f"{text}  ({run.strftime('%Y-%m-%d %H:%MZ')})"
