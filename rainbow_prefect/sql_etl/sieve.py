"""Rows whose values the table cannot hold are left out on their way, one by one; what fits is not touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from .base import BadValue, Rejected, Rows
from .types import Schema, Type, fit

Fix = Callable[[Any], Any]
"""Gives the value as the column takes it; a ValueError says why it does not."""

_SHOWN = 80
_TEXTS = ("text", "enum")
_NUMBERS = ("int", "decimal")


@dataclass
class Sieve:
    """Looks at values by the positions of their columns; `rejected` are the rows that it left out, `count` how many.

    With `most` None they are counted only, but for the first; else more than `most` end the load.
    """

    names: tuple[str, ...]
    fixes: Mapping[int, Fix]
    most: int | None = None
    secret: frozenset[str] = frozenset()
    rejected: list[Rejected] = field(default_factory=list)
    count: int = 0
    _ordinal: int = 0

    def passed(self, rows: Iterable[Rows]) -> Iterator[Rows]:
        """The rows that fit.

        Raises:
            BadValue: there are more bad rows than may be.
        """
        for batch in rows:
            good = [made for row in batch if (made := self._fixed(row)) is not None]
            if good:
                yield good

    def _fixed(self, row: tuple[Any, ...]) -> tuple[Any, ...] | None:
        self._ordinal += 1
        made = row
        for at, fix in self.fixes.items():
            try:
                value = fix(row[at])
            except ValueError as error:
                self._put_aside(row, at, str(error))
                return None
            if value is not row[at]:
                made = (*made[:at], value, *made[at + 1 :])
        return made

    def _put_aside(self, row: tuple[Any, ...], at: int, why: str) -> None:
        name = self.names[at]
        shown = "" if row[at] is None or name in self.secret else f" {_short(row[at])}"
        error = f"column '{name}', row {self._ordinal}:{shown} {why}"
        if self.most is not None and self.count >= self.most:
            raise BadValue(
                f"more bad rows than `max_bad_rows` lets pass ({self.most}), e.g. {error}; nothing was written"
            )
        self.count += 1
        if self.most is not None or not self.rejected:
            code = "23502" if row[at] is None else "22000"
            self.rejected.append(Rejected(dict(zip(self.names, row, strict=True)), error, name, code, self._ordinal))


def fixes(came: Schema, target: Schema, dialect: str, *, nulls: bool) -> dict[int, Fix]:
    """What is looked at: columns whose values may not fit, with `nulls` also those that may be missing."""
    found: dict[int, Fix] = {}
    for at, one in enumerate(came.columns):
        if one.name not in target:
            continue
        into = target[one.name]
        fix = _fix(one.type, into.type, dialect)
        if nulls and not into.nullable and one.nullable:
            fix = _with_value(fix)
        elif fix is not None:
            fix = _or_null(fix)
        if fix is not None:
            found[at] = fix
    return found


def can_sift(came: Type, into: Type) -> bool:
    """Whether each value can be looked at that the narrower type may not hold."""
    if into.fixed:
        return False
    if came.kind in _NUMBERS and into.kind in _NUMBERS:
        return True
    return (came.kind in _TEXTS and into.kind in _TEXTS) or (came.kind == into.kind == "bytes")


def _fix(came: Type, into: Type, dialect: str) -> Fix | None:
    if came.dialect == into.dialect and fit(came, into) == "same":
        return None
    match into.kind:
        case "int" if came.kind in _NUMBERS and fit(came, into) is None:
            return _integer(into)
        case "decimal" if came.kind in _NUMBERS and (fit(came, into) is None or dialect != "postgresql"):
            return _decimal(into)
        case "float" if dialect in ("mysql", "mariadb"):
            return _finite
        case "text" if came.kind in _TEXTS and not into.fixed:
            return _characters(into.length, has_nul=dialect != "postgresql")
        case "enum" if came.kind in _TEXTS:
            return _label(into.labels)
        case "bytes" if came.kind == "bytes" and into.length is not None and not into.fixed:
            return _bytes(into.length)
        case "date" | "timestamp" | "timestamptz" if dialect in ("mysql", "mariadb", "duckdb"):
            return _dated if came.dialect == "postgresql" else None
    return None


def _with_value(fix: Fix | None) -> Fix:
    def made(value: Any) -> Any:
        if value is None:
            raise ValueError("has no value, which the table wants")
        return value if fix is None else fix(value)

    return made


def _or_null(fix: Fix) -> Fix:
    return lambda value: None if value is None else fix(value)


def _integer(into: Type) -> Fix:
    low, high = (0, 2**into.bits - 1) if into.unsigned else (-(2 ** (into.bits - 1)), 2 ** (into.bits - 1) - 1)

    def made(value: Any) -> Any:
        if isinstance(value, Decimal) and not (value.is_finite() and value == value.to_integral_value()):
            raise ValueError(f"is no whole number, which {into} wants")
        if not low <= value <= high:
            raise ValueError(f"is out of the range of {into}")
        return int(value) if isinstance(value, Decimal) else value

    return made


def _decimal(into: Type) -> Fix:
    def made(value: Any) -> Any:
        number = value if isinstance(value, Decimal) else Decimal(str(value))
        if not number.is_finite():
            raise ValueError(f"is no number that {into} holds")
        _, digits, exponent = number.as_tuple()
        places = -int(exponent)
        while places > (into.scale or 0) and digits and digits[-1] == 0:
            digits, places = digits[:-1], places - 1
        if into.precision is not None and any(digits):
            if places > (into.scale or 0):
                raise ValueError(f"has more digits after the point than {into} keeps")
            if len(digits) - places > into.precision - (into.scale or 0):
                raise ValueError(f"is out of the range of {into}")
        return value

    return made


def _finite(value: Any) -> Any:
    if value - value != 0:
        raise ValueError("is no number that the table holds")
    return value


def _characters(length: int | None, *, has_nul: bool) -> Fix:
    def made(value: Any) -> Any:
        if length is not None and len(value) > length:
            raise ValueError(f"has {len(value)} characters, and the table takes {length}")
        if not has_nul and "\0" in value:
            raise ValueError("has U+0000, which text of PostgreSQL cannot hold")
        return value

    return made


def _label(labels: tuple[str, ...]) -> Fix:
    def made(value: Any) -> Any:
        if value not in labels:
            raise ValueError(f"is none of the labels {', '.join(labels)}")
        return value

    return made


def _bytes(length: int) -> Fix:
    def made(value: Any) -> Any:
        if len(value) > length:
            raise ValueError(f"has {len(value)} bytes, and the table takes {length}")
        return value

    return made


def _dated(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError("is no date or time that the table holds")
    return value


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str | bytes) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
