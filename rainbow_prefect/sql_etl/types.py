"""What columns hold, whatever their database calls it; and whether one column can take all that another one holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal[
    "bool",
    "int",
    "float",
    "decimal",
    "text",
    "bytes",
    "date",
    "time",
    "timetz",
    "timestamp",
    "timestamptz",
    "interval",
    "uuid",
    "json",
    "array",
    "enum",
    "other",
]

Dialect = str
"""A name of SQLAlchemy's (`postgresql`, `mysql`, `mariadb`, `sqlite`, `duckdb`, ...), or `arrow` for files and functions."""


@dataclass(frozen=True, slots=True)
class Type:
    """What a column holds.

    `bits` is the size of an int (8, 16, 32, 64) or float (32, 64). `precision` and `scale` are those of a decimal
    (precision None: as many digits as one likes); `precision` of a time or timestamp is its digits after the second
    (None: 6). `length` is that of text (characters) or bytes (None: no limit), `fixed` pads text to it. `native` is the
    type as `dialect` writes it, e.g. `numeric(38,10)`; equal ones of one dialect hold the same values, when their
    `labels` (of an enum) and `fields` (names and types of a composite) are equal too. `item` is what an array, or a range,
    is of.
    """

    kind: Kind
    bits: int = 0
    unsigned: bool = False
    precision: int | None = None
    scale: int | None = None
    length: int | None = None
    fixed: bool = False
    item: Type | None = None
    labels: tuple[str, ...] = ()
    fields: tuple[tuple[str, Type], ...] = ()
    native: str = ""
    dialect: Dialect = ""

    def __str__(self) -> str:
        """As people read it: the native spelling where there is one."""
        if self.native:
            return self.native
        match self.kind:
            case "int" | "float":
                return f"{'u' if self.unsigned else ''}{self.kind}{self.bits}"
            case "decimal":
                return "decimal" if self.precision is None else f"decimal({self.precision},{self.scale or 0})"
            case "array":
                return f"{self.item}[]"
            case _:
                return self.kind if self.length is None else f"{self.kind}({self.length})"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a query or a table; `generated` is how a table fills it by itself.

    `generated`: `stored` is computed from others and takes no value; `always` and `default` are identity columns;
    `serial` has a sequence or auto-increment. `default` is the expression, as its database writes it.
    """

    name: str
    type: Type
    nullable: bool = True
    comment: str = ""
    default: str | None = None
    generated: Literal["", "stored", "always", "default", "serial"] = ""


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns of a query or a table, in their order; `keys` is its primary key."""

    columns: tuple[Column, ...]
    keys: tuple[str, ...] = ()
    comment: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.columns)

    def __getitem__(self, name: str) -> Column:
        """The column of exactly this name.

        Raises:
            KeyError: there is none.
        """
        for one in self.columns:
            if one.name == name:
                return one
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(one.name == name for one in self.columns)

    def only(self, names: Sequence[str]) -> Schema:
        """The same with these columns, in this order."""
        return Schema(
            tuple(self[one] for one in names), self.keys if set(self.keys) <= set(names) else (), self.comment
        )


# -- whether one column can take what another one holds

Fit = Literal["same", "wider"]


def fit(source: Type, sink: Type) -> Fit | None:
    """`same` when both hold the same values, `wider` when the sink's holds them all, None when one might be lost.

    Different databases never have the `same` type: what is equal in name may differ in its edges.
    """
    if (
        source.dialect == sink.dialect
        and source.native
        and source.native == sink.native
        and _parts(source) == _parts(sink)
    ):
        return "same"
    if _holds(source, sink):
        return "same" if _bare(source) == _bare(sink) and source.dialect == sink.dialect else "wider"
    return None


def _bare(one: Type) -> tuple[object, ...]:
    return (one.kind, one.bits, one.unsigned, one.precision, one.scale, one.length, one.fixed, one.item, *_parts(one))


def _parts(one: Type) -> tuple[object, ...]:
    return (one.labels, one.fields, _parts(one.item) if one.item else None)


def _holds(source: Type, sink: Type) -> bool:
    if sink.kind == "text" and not sink.fixed:
        return _is_text_enough(source, sink)
    match source.kind, sink.kind:
        case "int", "int":
            return _range(sink)[0] <= _range(source)[0] and _range(source)[1] <= _range(sink)[1]
        case "int", "decimal":
            digits = len(str(max(abs(bound) for bound in _range(source))))
            return sink.precision is None or sink.precision - (sink.scale or 0) >= digits
        case "int", "float":
            return source.bits <= (32 if sink.bits == 64 else 16)
        case "float", "float":
            return source.bits <= sink.bits
        case "decimal", "decimal":
            return _holds_decimal(source, sink)
        case "bytes", "bytes" if sink.fixed:  # MySQL fills binary(n) with zeros
            return source.fixed and source.length == sink.length
        case "bytes", "bytes":
            return sink.length is None or (source.length is not None and source.length <= sink.length)
        case (("time" | "timetz" | "timestamp" | "timestamptz" | "interval"), _) if source.kind == sink.kind:
            return _digits(source) <= _digits(sink)
        case "text", "text":
            return source.fixed and source.length == sink.length
        case "array", "array":
            return source.item is not None and sink.item is not None and fit(source.item, sink.item) is not None
        case "enum", "enum":
            return set(source.labels) <= set(sink.labels)
        case "json", "json":  # jsonb keeps no spaces and the last of equal keys
            return sink.native != "jsonb" or source.native == "jsonb" or source.dialect != sink.dialect
        case (("bool" | "date" | "uuid"), _):
            return source.kind == sink.kind
        case _:
            return False


def _is_text_enough(source: Type, sink: Type) -> bool:
    """Whether text of the sink's length takes every value: text of a length that fits, labels, what is text only."""
    if source.kind == "other":  # its values are text, see `base.Rows`
        return sink.length is None
    if source.kind == "enum":
        return sink.length is None or all(len(one) <= sink.length for one in source.labels)
    if source.kind != "text" or source.fixed:
        return False
    return sink.length is None or (source.length is not None and source.length <= sink.length)


def _holds_decimal(source: Type, sink: Type) -> bool:
    if sink.precision is None:
        return True
    if source.precision is None:
        return False
    whole = source.precision - (source.scale or 0) <= sink.precision - (sink.scale or 0)
    return whole and (source.scale or 0) <= (sink.scale or 0)


def _digits(one: Type) -> int:
    return 6 if one.precision is None else one.precision


def _range(one: Type) -> tuple[int, int]:
    return (0, 2**one.bits - 1) if one.unsigned else (-(2 ** (one.bits - 1)), 2 ** (one.bits - 1) - 1)


# -- columns whose type nobody declared


def settled(came: Schema, existing: Schema | None) -> Schema:
    """The columns with a type for each: of SQLite's expressions only the values are known, which may be none or all whole.

    Such a column takes the type of the table's, when that has all such values; each value is looked at when it is read. So does
    the text of files that have no types.
    """
    return Schema(
        tuple(
            replace(
                one, type=_settled(one.type, existing[one.name].type if existing and one.name in existing else None)
            )
            for one in came.columns
        ),
        came.keys,
        came.comment,
    )


def _settled(came: Type, target: Type | None) -> Type:
    if came.dialect in ("csv", "jsonl") and target is not None and target.kind not in ("array", "other"):
        return replace(target, native="", dialect=came.dialect)
    if came.dialect != "sqlite" or came.native:
        return came
    if came.kind == "other":  # no value at all
        return Type("text", dialect=came.dialect) if target is None else replace(target, native="")
    if target is not None and (came.kind, target.kind) == ("int", "float"):
        return Type("float", bits=target.bits, dialect=came.dialect)
    return came
