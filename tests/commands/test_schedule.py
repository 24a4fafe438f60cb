"""`rainbow schedule`: the next runs as text and JSON."""

from __future__ import annotations

import pytest

from tests.conftest import Project, Rainbow

TEXT = """
    name: times
    pipelines:
      - {pipeline: hourly, start_date: 2024-03-01, schedule: "0 * 1 * *", tasks: []}
      - {pipeline: manual, tasks: []}
      - {pipeline: local, schedule: {cron: "0 9 * * *", timezone: Europe/Berlin}, tasks: []}
      - {pipeline: later, start_date: 2099-05-01 12:30:00, schedule: "@daily", tasks: []}
      - {pipeline: never, schedule: "0 0 30 2 *", tasks: []}
"""
AFTER = ["--after", "2024-03-30T10:20:00Z", "--count", "2"]


def test_json_has_cron_zone_start_and_next_runs(rainbow: Rainbow, project: Project) -> None:
    assert rainbow("schedule", project({"rainbow.yml": TEXT}), "-p", "hourly", *AFTER, "--json").json == {
        "pipeline": "hourly",
        "cron": "0 * 1 * *",
        "timezone": "UTC",
        "start_date": "2024-03-01",
        "next": ["2024-04-01T00:00:00Z", "2024-04-01T01:00:00Z"],
        "skipped": [],
        "schedules": [{"slug": None, "cron": "0 * 1 * *", "timezone": "UTC", "active": True}],
    }


def test_start_date_keeps_its_time(rainbow: Rainbow, project: Project) -> None:
    shown = rainbow("schedule", project({"rainbow.yml": TEXT}), "-p", "later", *AFTER, "--json").json

    assert shown["start_date"] == "2099-05-01T12:30:00"
    assert shown["next"] == ["2099-05-02T00:00:00Z", "2099-05-03T00:00:00Z"]


@pytest.mark.parametrize(
    ("pipeline", "text"),
    [
        ("hourly", "hourly: 0 * 1 * * (UTC)\n  Mon 2024-04-01 00:00 UTC\n  Mon 2024-04-01 01:00 UTC\n"),
        ("manual", "manual has no schedule; `rainbow run --pipeline manual` runs it.\n"),
        ("local", "local: 0 9 * * * (Europe/Berlin)\n"
                  "  Sun 2024-03-31 09:00 CEST  (2024-03-31 07:00Z)\n  Mon 2024-04-01 09:00 CEST  (2024-04-01 07:00Z)\n"),
        ("later", "later: @daily (UTC, from 2099-05-01 12:30:00)\n  Sat 2099-05-02 00:00 UTC\n  Sun 2099-05-03 00:00 UTC\n"),
        ("never", "never: 0 0 30 2 * (UTC)\n  never\n"),
    ],
)  # fmt: skip
def test_text_shows_the_clock_on_the_wall(rainbow: Rainbow, project: Project, pipeline: str, text: str) -> None:
    assert rainbow("schedule", project({"rainbow.yml": TEXT}), "-p", pipeline, *AFTER).out == text


def test_manual_pipeline_has_no_cron(rainbow: Rainbow, project: Project) -> None:
    shown = rainbow("schedule", project({"rainbow.yml": TEXT}), "-p", "manual", "--json").json

    assert (shown["cron"], shown["next"]) == (None, [])


def test_default_is_five_runs_from_now(rainbow: Rainbow, project: Project) -> None:
    assert len(rainbow("schedule", project({"rainbow.yml": TEXT}), "-p", "hourly", "--json").json["next"]) == 5


def test_time_that_is_none_is_a_wrong_call(rainbow: Rainbow, project: Project) -> None:
    done = rainbow("schedule", project({"rainbow.yml": TEXT}), "--after", "soon", code=2)

    assert done.err.endswith(
        "Error: Invalid value for '--after': 'soon' is not a time; write ISO 8601, e.g. 2026-03-15T10:20:00Z\n"
    )


def test_pipeline_must_be_named_when_there_are_several(rainbow: Rainbow, project: Project) -> None:
    done = rainbow("schedule", project({"rainbow.yml": TEXT}), code=2)

    assert done.err == "Error: which pipeline? add --pipeline NAME; known: hourly, manual, local, later, never\n"


def test_unknown_pipeline_has_a_near_match(rainbow: Rainbow, project: Project) -> None:
    done = rainbow("schedule", project({"rainbow.yml": TEXT}), "-p", "hurly", code=2)

    assert done.err == "Error: there is no pipeline 'hurly'; did you mean 'hourly'?\n"


def test_wrong_cron_is_a_problem_of_the_file(rainbow: Rainbow, project: Project) -> None:
    text = TEXT.replace("0 9 * * *", "61 9 * * *")

    done = rainbow("schedule", project({"rainbow.yml": text}), "-p", "local", code=2)

    assert done.err == (
        "rainbow.yml:5:40: pipeline 'local': '61 9 * * *' is not a cron text: minute '61' is not valid; "
        "write 0-59, `*`, `1-3` or `*/2`\n"
    )


def test_broken_neighbour_is_told_and_does_not_hinder(rainbow: Rainbow, project: Project) -> None:
    folder = project({"rainbow.yml": TEXT, "broken/rainbow.yml": "name: [\n"})

    done = rainbow("schedule", folder, "-p", "hourly", *AFTER, "--json")

    assert done.json["next"][0] == "2024-04-01T00:00:00Z"
    assert done.err.startswith("broken/rainbow.yml:")
