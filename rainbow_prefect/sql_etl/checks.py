"""Checks of the rows of a load, asked of the sink before the commit: what they are, and what they find."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from ..errors import near
from ..schema import Config, Count, Duration, Text, kind_of, wrong
from .base import BadValue, Counts, Job, Refused, Rejected, Writer
from .ledger import NAME as LEDGER
from .types import Schema

OnFail = Literal["fail", "warn", "quarantine"]

STAGED = re.compile(r"\{\s*staged\s*\}")
"""Where a statement wants the name of the rows of this load."""

_SHOWN = 5
_LONGEST = 80
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%\Z")


def _plain(value: Any) -> Any:
    if isinstance(value, dict | list) or value is None:
        raise wrong(f"must be a number, a date or text, got {kind_of(value)}")
    return value


def _several(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise wrong(f"{value!r} is not a regular expression: {error}") from None
    return value


def _drift(value: Any) -> Any:
    """`50%` and `0.5` as 0.5; more than the whole is fine."""
    if isinstance(value, str) and (found := _PERCENT.match(value.strip())):
        return float(found[1]) / 100
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise wrong(f"must be a share such as 50% or 0.5, got {value!r}")
    return value


_Scalar = Annotated[
    Any, BeforeValidator(_plain), WithJsonSchema({"type": ["number", "string", "boolean"]}, mode="validation")
]


class ForeignKey(Config):
    """Where the values of a column must be found."""

    table: Text = Field(min_length=1, description="A table of the sink: NAME or SCHEMA.NAME.")
    column: Text = Field(min_length=1, description="Its column.")


class ColumnChecks(Config):
    """What must hold for a column; NULL passes all but `not_null`."""

    not_null: bool = Field(default=False, description="Each row has a value.")
    unique: bool = Field(
        default=False, description="No value comes twice; with `mode: append` none is in the table before either."
    )
    ge: _Scalar = Field(default=None, description="Each value is at least this.")
    gt: _Scalar = Field(default=None, description="Each value is more than this.")
    le: _Scalar = Field(default=None, description="Each value is at most this.")
    lt: _Scalar = Field(default=None, description="Each value is less than this.")
    among: tuple[_Scalar, ...] | None = Field(
        default=None, alias="in", min_length=1, description="Each value is one of these."
    )
    regex: Annotated[str, BeforeValidator(_pattern)] | None = Field(
        default=None, description="The expression is found in each value, as the sink's database understands it."
    )
    foreign_key: ForeignKey | None = Field(default=None, description="Each value is in this column of the sink.")
    max_age: Duration | None = Field(
        default=None, description="The latest time is not older than this, e.g. `1d`; times without a zone are UTC."
    )
    on_fail: OnFail | None = Field(
        default=None,
        description="Fail the load, warn in the log and report, or put the rows into `TABLE__rejected`; "
        "absent: as `on_bad_row` says.",
    )

    @model_validator(mode="after")
    def _has_rows(self) -> Self:
        if self.max_age is not None and self.on_fail == "quarantine":
            raise wrong("`max_age` is about no single row that could be put aside", hint="write `on_fail: warn`")
        return self


class RowChecks(Config):
    """How many rows a load must have."""

    min: Count | None = Field(default=None, description="At least so many.")
    max: Annotated[int, Field(ge=0)] | None = Field(default=None, description="At most so many.")
    drift: (
        Annotated[float, BeforeValidator(_drift), WithJsonSchema({"type": ["string", "number"]}, mode="validation")]
        | None
    ) = Field(default=None, description="At most this far from the mean of the last loads of this task, e.g. `50%`.")
    last: Annotated[int, Field(ge=1, le=100)] = Field(default=5, description="So many loads make the mean of `drift`.")
    on_fail: Literal["fail", "warn"] = Field(default="fail", description="Fail the load, or warn.")


class SqlCheck(Config):
    """A statement of the sink that must return no row."""

    sql: str = Field(min_length=1, description="The statement; `{staged}` in it are the rows of this load.")
    on_fail: Literal["fail", "warn"] = Field(default="fail", description="Fail the load, or warn.")


def _checks(value: Any) -> Any:
    """Each key that is none of its own is a column."""
    if not isinstance(value, Mapping):
        return value
    own = {key: one for key, one in value.items() if key in ("rows", "sql", "columns")}
    columns = {str(key): _several(one) for key, one in value.items() if key not in own}
    if isinstance(own.get("columns", {}), Mapping):
        own["columns"] = {key: _several(one) for key, one in own.get("columns", {}).items()} | columns
    return own


def _sql(value: Any) -> Any:
    written = [value] if isinstance(value, str | Mapping) else value
    return [{"sql": one} if isinstance(one, str) else one for one in written] if isinstance(written, list) else written


_SQL = str | SqlCheck | tuple[str | SqlCheck, ...]


class Checks(Config):
    """What must hold for the rows of a load before they are committed; every other key is a column's name."""

    model_config = ConfigDict(json_schema_extra={"open": True})

    columns: dict[str, tuple[ColumnChecks, ...]] = Field(
        default_factory=dict, description="Checks of columns whose names are keys here, such as `rows`."
    )
    rows: RowChecks | None = Field(default=None, description="How many rows there must be.")
    sql: Annotated[tuple[SqlCheck, ...], BeforeValidator(_sql, json_schema_input_type=_SQL)] = Field(
        default=(), description="Statements that must return no row; `{staged}` are the rows of this load."
    )

    def of_rows(self) -> Checks:
        """Those that are about single rows and keys, not about how many rows there are."""
        return self.model_copy(update={"rows": None, "sql": ()})


AnyChecks = Annotated[Checks, BeforeValidator(_checks)]


def needs_stage(checks: Checks, job: Job) -> bool:
    """Whether the rows of this load must be told from those that are in the table already."""
    return job.mode == "append" and bool(checks.columns or checks.sql)


@dataclass(frozen=True)
class Finding:
    """A check that does not hold."""

    text: str
    on_fail: OnFail


@dataclass
class Found:
    """What the checks of a load found."""

    warnings: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def look(
    checks: Checks, job: Job, writer: Writer, counts: Counts, *, most_bad: int, on_bad_row: OnFail = "fail"
) -> Found:
    """Ask all checks; rows to be put aside (at most `most_bad`) are taken out of what was staged.

    Raises:
        BadValue: some do not hold; all of them are told.
        Refused: the sink cannot ask one.
    """
    found = Found()
    tests = [
        test
        for name, several in checks.columns.items()
        for one in several
        for test in _tests(one, name, writer, job, one.on_fail or on_bad_row)
    ]
    for test in tests:
        if test.on_fail == "quarantine":
            found.rejected += _taken_out(test, job, writer, most_bad - len(found.rejected))
    rows = counts.read - counts.quarantined - len(found.rejected)
    findings = [*_of_rows(checks.rows, job, writer, counts, rows), *_of_tests(tests, writer)]
    findings += _of_ages(checks, writer)
    findings += _of_statements(checks, writer)
    found.warnings = [one.text for one in findings if one.on_fail == "warn"]
    failed = [one.text for one in findings if one.on_fail == "fail"]
    if failed:
        shown = ".".join(one for one in job.table if one)
        raise BadValue(f"the rows for the table '{shown}' do not hold: {'; '.join(failed)}; nothing was written")
    return found


def put_aside_refused(job: Job, existing: Schema, writer: Writer, *, most_bad: int) -> list[Rejected]:
    """Take out the rows that a table would refuse, since they have no value where it wants one or a key that it has.

    All rows with a key that comes more than once are taken out.

    Raises:
        BadValue: there are more than may be.
    """
    tests = [
        _Test(one.name, "has no value", f"s.{writer.quoted(one.name)} IS NULL", "quarantine")
        for one in existing.columns
        if not one.nullable and one.name in job.schema
    ]
    codes = ["23502"] * len(tests)
    if job.mode == "append" and existing.keys and set(existing.keys) <= set(job.schema.names):
        tests += _of_keys(existing.keys, job, writer)
        codes += ["23505"] * 2
    for one, code in _of_constraints(job, writer):
        tests.append(one)
        codes.append(code)
    found: list[Rejected] = []
    for test, code in zip(tests, codes, strict=True):
        found += [replace(one, sqlstate=code) for one in _taken_out(test, job, writer, most_bad - len(found))]
    return found


def _of_constraints(job: Job, writer: Writer) -> Iterator[tuple[_Test, str]]:
    """What else the table would refuse: each constraint of it whose columns all come."""
    for one in writer.constraints(job.table):
        if not set(one.columns) <= set(job.schema.names):
            continue
        listed = ", ".join(one.columns)
        columns = [f"s.{writer.quoted(name)}" for name in one.columns]
        if one.sql is not None:
            yield _Test(listed, f"does not keep the constraint '{one.name}'", f"NOT ({one.sql})", "quarantine"), "23514"
        elif one.table is not None:
            same = " AND ".join(
                f"f.{writer.quoted(other)} = {column}" for other, column in zip(one.others, columns, strict=True)
            )
            given = " AND ".join(f"{column} IS NOT NULL" for column in columns)
            there = f"SELECT 1 FROM {_name(one.table, writer)} AS f WHERE {same}"
            what = f"is not in {one.table[1]}, which '{one.name}' wants"
            yield _Test(listed, what, f"{given} AND NOT EXISTS ({there})", "quarantine"), "23503"
        elif job.mode == "append":
            yield from ((test, "23505") for test in _of_keys(one.columns, job, writer))


def _of_keys(keys: Sequence[str], job: Job, writer: Writer) -> Iterator[_Test]:
    listed = ", ".join(map(writer.quoted, keys))
    twice = f"SELECT {listed} FROM {writer.staged()} GROUP BY {listed} HAVING count(*) > 1"
    for name, where, what in (
        ("d", f"({twice}) AS d", "comes more than once"),
        ("t", f"{_name(job.table, writer)} AS t", "is in the table already"),
    ):
        same = " AND ".join(f"{name}.{writer.quoted(one)} = s.{writer.quoted(one)}" for one in keys)
        yield _Test(", ".join(keys), what, f"EXISTS (SELECT 1 FROM {where} WHERE {same})", "quarantine")


def asks(checks: Checks, job: Job) -> tuple[str, ...]:
    """The columns that the checks ask of; a number of rows is compared with the ledger by the first of them."""
    if checks.sql:
        return job.schema.names
    drifts = checks.rows is not None and checks.rows.drift is not None
    return tuple(checks.columns) or (job.schema.names[:1] if drifts else ())


def refuse_unasked(checks: Checks, job: Job, existing: Schema | None, on_bad_row: OnFail) -> None:
    """What files cannot be asked.

    Raises:
        Refused: a check needs rows that are there already, or is to put rows aside.
    """
    each = [(name, one) for name, several in checks.columns.items() for one in several]
    for name, one in each:
        if one.foreign_key is not None:
            raise Refused(f"`checks: {name}: foreign_key` needs a sink that is a database; files have no other table")
        if one.unique and job.mode == "append" and existing is not None:
            raise Refused(
                f"`checks: {name}: unique` with `mode: append` would have to read all older files; write `mode: replace`, or "
                "load into a database"
            )
    if any((one.on_fail or on_bad_row) == "quarantine" for _, one in each):
        raise Refused("rows are put aside by a database only, not by files; write `on_fail: fail` or `warn`")


def refuse_columns(checks: Checks, job: Job) -> None:
    """Columns that do not come cannot be checked.

    Raises:
        Refused: there are such.
    """
    missing = [one for one in checks.columns if one not in job.schema]
    if missing:
        listed = ", ".join(f"'{one}'" for one in missing)
        names = job.schema.names
        raise Refused(
            f"`checks` names {listed}, which the query does not give (columns: {', '.join(names)}); "
            f"{near(missing[0], names, list_up_to=0) or 'correct the name, or select the column'}"
        )


# -- checks of rows


@dataclass(frozen=True)
class _Test:
    """`bad` is true for a row (s) that does not pass; `what` says what is wrong with it."""

    column: str
    what: str
    bad: str
    on_fail: OnFail


def _tests(one: ColumnChecks, name: str, writer: Writer, job: Job, on_fail: OnFail) -> Iterator[_Test]:
    column = f"s.{writer.quoted(name)}"

    def made(what: str, bad: str) -> _Test:
        return _Test(name, what, bad, on_fail)

    if one.not_null:
        yield made("has no value", f"{column} IS NULL")
    for key, sign, words in _BOUNDS:
        bound = getattr(one, key)
        if bound is not None:
            compared = _compared(column, (bound,), writer)
            yield made(f"is {words} {bound}", f"{compared} {sign} {writer.literal(bound)}")
    if one.among is not None:
        listed = ", ".join(writer.literal(each) for each in one.among)
        shown = ", ".join(map(str, one.among))
        yield made(f"is none of {_short(shown)}", f"{_compared(column, one.among, writer)} NOT IN ({listed})")
    if one.regex is not None:
        yield made(f"does not match {one.regex}", f"NOT ({writer.matches(column, one.regex)})")
    if one.unique:
        yield from _unique(made, column, name, writer, job)
    if one.foreign_key is not None:
        table, other = one.foreign_key.table, writer.quoted(one.foreign_key.column)
        there = f"SELECT 1 FROM {_table(table, job, writer)} AS f WHERE f.{other} = {column}"
        yield made(f"is not in {table}.{one.foreign_key.column}", f"{column} IS NOT NULL AND NOT EXISTS ({there})")


_BOUNDS = (
    ("ge", "<", "less than"),
    ("gt", "<=", "not more than"),
    ("le", ">", "more than"),
    ("lt", ">=", "not less than"),
)


def _compared(column: str, bounds: Sequence[Any], writer: Writer) -> str:
    """SQLite keeps decimals as text, which it would compare letter by letter."""
    is_number = all(isinstance(one, int | float | Decimal) and not isinstance(one, bool) for one in bounds)
    return f"CAST({column} AS NUMERIC)" if is_number and writer.dialect == "sqlite" else column


def _unique(made: Any, column: str, name: str, writer: Writer, job: Job) -> Iterator[_Test]:
    quoted = writer.quoted(name)
    twice = f"SELECT {quoted} FROM {writer.staged()} GROUP BY {quoted} HAVING count(*) > 1"
    yield made("comes more than once", f"{column} IN (SELECT {quoted} FROM ({twice}) AS d)")
    if job.mode == "append" and job.stage:
        there = f"SELECT 1 FROM {_name(job.table, writer)} AS t WHERE t.{quoted} = {column}"
        yield made("is in the table already", f"EXISTS ({there})")


def _of_tests(tests: Sequence[_Test], writer: Writer) -> Iterator[Finding]:
    """All in one look at the rows; values are asked for where there are bad ones."""
    left = [one for one in tests if one.on_fail != "quarantine"]
    if not left:
        return
    counted = ", ".join(f"count(CASE WHEN {one.bad} THEN 1 END)" for one in left)
    (numbers,) = writer.query(f"SELECT {counted} FROM {writer.staged()} AS s")
    for one, number in zip(left, numbers, strict=True):
        if number:
            column = f"s.{writer.quoted(one.column)}"
            rows = writer.query(f"SELECT {column} FROM {writer.staged()} AS s WHERE {one.bad} LIMIT {_SHOWN}")
            values = [] if one.what == "has no value" else [_short(value) for (value,) in rows]
            yield Finding(f"column '{one.column}' {one.what} in {_rows(number)}{_eg(values)}", one.on_fail)


def _taken_out(test: _Test, job: Job, writer: Writer, most: int) -> list[Rejected]:
    """The rows that fail a test, which are then no longer among those of the load."""
    names = job.schema.names
    columns = ", ".join(f"s.{writer.quoted(one)}" for one in names)
    rows = writer.query(f"SELECT {columns} FROM {writer.staged()} AS s WHERE {test.bad} LIMIT {most + 1}")
    if len(rows) > most:
        raise BadValue(too_many(most, f"column '{test.column}' {test.what}"))
    if rows:
        writer.do(writer.deletion(writer.staged(), test.bad))
    error = f"column '{test.column}' {test.what}"
    return [Rejected(dict(zip(names, row, strict=True)), error, column=test.column) for row in rows]


def too_many(most: int, error: str) -> str:
    """What is told when more rows are bad than may be put aside."""
    return f"more bad rows than `max_bad_rows` lets pass ({most} left), e.g. {error}; nothing was written"


# -- other checks


def _of_rows(wanted: RowChecks | None, job: Job, writer: Writer, counts: Counts, rows: int) -> Iterator[Finding]:
    if wanted is None:
        return
    if wanted.min is not None and rows < wanted.min:
        yield Finding(f"{_rows(rows)} came, at least {wanted.min} must (`rows: {{min: {wanted.min}}}`)", wanted.on_fail)
    if wanted.max is not None and rows > wanted.max:
        yield Finding(f"{_rows(rows)} came, at most {wanted.max} may (`rows: {{max: {wanted.max}}}`)", wanted.on_fail)
    before = _before(wanted.last, job, writer) if wanted.drift is not None else []
    if wanted.drift is not None and before:
        mean = sum(before) / len(before)
        if abs(counts.read - mean) > wanted.drift * mean:
            yield Finding(
                f"{_rows(counts.read)} came, {mean:.0f} in the mean of the last {len(before)} loads, "
                f"more than {wanted.drift:.0%} away (`rows: {{drift: {wanted.drift:.0%}}}`)",
                wanted.on_fail,
            )


def _before(last: int, job: Job, writer: Writer) -> list[int]:
    """The rows of the last committed loads of this part of this task."""
    ledger = _name((job.table[0], LEDGER), writer)
    mine = f"job = {writer.literal(job.name)} AND part = {writer.literal(job.part)}"
    rows = writer.query(
        f"SELECT rows_read, number FROM {ledger} WHERE {mine} AND committed IS NOT NULL AND rows_read IS NOT NULL"
        f" AND number > (SELECT max(number) - 1000 FROM {ledger} WHERE job = {writer.literal(job.name)})"
    )
    return [int(read) for read, _ in sorted(rows, key=lambda row: -int(row[1]))[:last]]


def _of_ages(checks: Checks, writer: Writer) -> Iterator[Finding]:
    for name, several in checks.columns.items():
        for one in several:
            if one.max_age is None:
                continue
            ((latest,),) = writer.query(f"SELECT max(s.{writer.quoted(name)}) FROM {writer.staged()} AS s")
            age = None if latest is None else (datetime.now(UTC) - _moment(latest, name)).total_seconds()
            if age is not None and age > one.max_age:
                yield Finding(
                    f"the latest '{name}' is {_short(latest)}, {_span(age)} ago, more than {_span(one.max_age)}",
                    one.on_fail or "fail",
                )


def _moment(value: Any, name: str) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise BadValue(f"the latest '{name}' is {_short(value)}, which is no time; nothing was written") from None
    if not isinstance(value, date):
        raise BadValue(f"the latest '{name}' is {_short(value)}, which is no time; nothing was written")
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _of_statements(checks: Checks, writer: Writer) -> Iterator[Finding]:
    for one in checks.sql:
        asked = STAGED.sub(lambda _: writer.staged(), one.sql).strip().removesuffix(";")
        rows = writer.query(asked)
        if rows:
            values = ["(" + ", ".join(map(_short, row)) + ")" for row in rows[:_SHOWN]]
            yield Finding(f"`{_short(' '.join(one.sql.split()))}` gave {_rows(len(rows))}{_eg(values)}", one.on_fail)


# -- pieces


def _table(text: str, job: Job, writer: Writer) -> str:
    schema, dot, name = text.rpartition(".")
    return _name((schema if dot else job.table[0], name), writer)


def _name(table: tuple[str | None, str], writer: Writer) -> str:
    return ".".join(writer.quoted(one) for one in table if one)


def _rows(number: int) -> str:
    return "1 row" if number == 1 else f"{number} rows"


def _eg(values: Sequence[str]) -> str:
    return f", e.g. {', '.join(values)}" if values else ""


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _span(seconds: float) -> str:
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}".replace(".0 ", " ")
    return f"{seconds:.0f} s"
