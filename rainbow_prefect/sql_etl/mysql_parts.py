"""Cuts a column of MySQL into parts that together give each row once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from .base import Part, Refused
from .mysql_text import literal
from .types import Type

MOST_PARTS = 10_000

_EVERY = re.compile(r"\s*(?P<number>\d+)\s*(?P<unit>minute|hour|day|week|month|year|min|h|d|w)s?\s*\Z", re.IGNORECASE)
_UNITS = {
    "min": timedelta(minutes=1),
    "minute": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "hour": timedelta(hours=1),
    "d": timedelta(days=1),
    "day": timedelta(days=1),
    "w": timedelta(weeks=1),
    "week": timedelta(weeks=1),
}
_MONTHS = {"month": 1, "year": 12}
_ANCHOR = datetime(2001, 1, 1)
"""A Monday, so that weeks begin on one."""


@dataclass(frozen=True)
class Cut:
    """How a column is cut; `quoted` is its name as SQL writes it."""

    quoted: str
    name: str
    kind: Type

    def refuse(self, every: Any) -> None:
        """What a range or a window is not possible of.

        Raises:
            Refused: the column has no such order.
        """
        kinds = ("date", "timestamp", "timestamptz") if every else ("int", "date", "timestamp", "timestamptz")
        if self.kind.kind not in kinds:
            what = "`every` cuts a date or datetime" if every else "`by` cuts a number, date or datetime"
            raise Refused(f"{what}, and the column '{self.name}' is {self.kind}; use `split: {{hash: {self.name}}}`")

    def hashed(self, count: int) -> list[Part]:
        """The parts by the hash of the value; NULL is in the first."""
        text = f"IFNULL(CRC32({self.quoted}), 0) MOD {count}"
        return [Part(f"{self.name} hash {at + 1}/{count}", (f"{text} = {at}",)) for at in range(count)]

    def ranges(self, low: Any, high: Any, count: int) -> list[Part]:
        """Ranges of equal width; the first has NULL and what is below, the last what is above."""
        bounds = sorted({_between(low, high, at, count) for at in range(1, count)} - {low})
        return self._open_ended(bounds, [f"{self.name} {at + 1}/{len(bounds) + 1}" for at in range(len(bounds) + 1)])

    def windows(self, low: Any, high: Any, every: str) -> list[Part]:
        """Windows that begin at whole multiples of `every` since 2001, named after their beginning."""
        begins = self._begins(low, high, every)
        return self._open_ended(begins[1:], [one.isoformat() for one in begins])

    def _begins(self, low: Any, high: Any, every: str) -> list[Any]:
        found = _EVERY.match(every)
        unit = found["unit"].lower() if found else ""
        number = int(found["number"]) if found else 0
        if number == 0 or (
            self.kind.kind == "date" and _UNITS.get(unit, timedelta(days=1)) * number % timedelta(days=1)
        ):
            raise Refused(
                f"`every: {every}` is no length of a window; write e.g. 1 hour, 1 day or 1 month (of a date: days)"
            )
        anchor: Any = (
            _ANCHOR.replace(tzinfo=getattr(low, "tzinfo", None)) if isinstance(low, datetime) else _ANCHOR.date()
        )
        if unit in _MONTHS:
            return _months(anchor, low, high, number * _MONTHS[unit], every)
        step = _UNITS[unit] * number
        first = anchor + (low - anchor) // step * step
        count = (high - first) // step + 1
        _refuse_many(count, every)
        return [first + at * step for at in range(count)]

    def _open_ended(self, bounds: Sequence[Any], names: Sequence[str]) -> list[Part]:
        if not bounds:
            return [Part(names[0])]
        texts = [literal(one) for one in bounds]
        where = [f"{self.quoted} < {texts[0]} OR {self.quoted} IS NULL"]
        where += [f"{self.quoted} >= {low} AND {self.quoted} < {high}" for low, high in pairwise(texts)]
        where.append(f"{self.quoted} >= {texts[-1]}")
        return [Part(name, (one,)) for name, one in zip(names, where, strict=True)]


def _months(anchor: Any, low: Any, high: Any, step: int, every: str) -> list[Any]:
    def number(one: Any) -> int:
        return int((one.year - anchor.year) * 12 + one.month - 1) // step

    _refuse_many(number(high) - number(low) + 1, every)
    months = [at * step for at in range(number(low), number(high) + 1)]
    return [anchor.replace(year=max(1, anchor.year + one // 12), month=one % 12 + 1) for one in months]


def _refuse_many(count: int, every: str) -> None:
    if count > MOST_PARTS:
        raise Refused(
            f"`every: {every}` makes {count} parts; at most {MOST_PARTS} are possible: make the windows longer"
        )


def _between(low: Any, high: Any, at: int, count: int) -> Any:
    if isinstance(low, int):
        return low + (high - low) * at // count
    return low + (high - low) * at / count
