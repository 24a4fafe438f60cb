"""Periods of backfills."""

from __future__ import annotations

import pytest

from rainbow_prefect.errors import CallError
from rainbow_prefect.periods import periods


@pytest.mark.parametrize(
    ("first", "last", "by", "expected"),
    [
        ("2024-02-28", "2024-03-01", "day", ["2024-02-28 to 2024-02-29", "2024-02-29 to 2024-03-01", "2024-03-01 to 2024-03-02"]),
        ("2024-01-01", "2024-01-14", "week", ["2024-01-01 to 2024-01-08", "2024-01-08 to 2024-01-15"]),
        ("2023-12-01", "2024-01-31", "month", ["2023-12-01 to 2024-01-01", "2024-01-01 to 2024-02-01"]),
        ("2024-01-01", "2024-01-01", "day", ["2024-01-01 to 2024-01-02"]),
        ("2024-01-01T22:00", "2024-01-02", "hour", ["2024-01-01T22:00 to 2024-01-01T23:00",
            "2024-01-01T23:00 to 2024-01-02T00:00", "2024-01-02T00:00 to 2024-01-02T01:00"]),
    ],
)  # fmt: skip
def test_periods_follow_one_another(first: str, last: str, by: str, expected: list[str]) -> None:
    assert [str(one) for one in periods(first, last, by)] == expected


@pytest.mark.parametrize(
    ("first", "last", "by", "text"),
    [
        ("2024-02-01", "2024-01-01", "day", "--to 2024-01-01 is before --from 2024-02-01"),
        ("soon", "2024-01-01", "day", "--from 'soon' is not a date; write e.g. 2024-01-31"),
        ("2024-01-01Z", "2024-01-01", "day", "--from '2024-01-01Z' is not a date; write e.g. 2024-01-31"),
        ("2024-01-01T00:00Z", "2024-01-01", "day", "--from '2024-01-01T00:00Z' has a time zone; write it without one"),
        ("2024-01-31", "2024-06-01", "month", "--from 2024-01-31 with --by month: not every month has a day 31"),
        ("2024-01-01", "2024-01-01", "year", "--by must be one of hour, day, week, month, got 'year'"),
        ("1000-01-01", "2024-01-01", "day", "that is more than 10,000 periods; choose a shorter span, or a longer --by"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(first: str, last: str, by: str, text: str) -> None:
    with pytest.raises(CallError) as error:
        periods(first, last, by)

    assert str(error.value) == text
