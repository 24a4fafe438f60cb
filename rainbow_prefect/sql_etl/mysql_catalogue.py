"""What tables and statements hold, as the catalogue of MySQL and MariaDB says; never the data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .base import Query, Refused
from .mysql_link import Link, name_of
from .mysql_types import Field, described, from_catalogue, is_of, ticked
from .types import Column, Schema, Type

_COLUMNS = (
    "column_name",
    "data_type",
    "column_type",
    "character_maximum_length",
    "numeric_precision",
    "numeric_scale",
    "datetime_precision",
    "character_set_name",
    "collation_name",
    "is_nullable",
    "column_default",
    "column_comment",
    "column_key",
    "extra",
)
_ORDERED = re.compile(r"\border\s+by\b", re.IGNORECASE)
_JSON = re.compile(r"^\(?\s*json_valid\s*\(\s*`(?P<name>(?:[^`]|``)+)`\s*\)\s*\)?$", re.IGNORECASE)
_TOKEN = re.compile(
    r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|`(?:[^`]|``)*`|--(?=\s|$)[^\n]*|#[^\n]*|/\*.*?\*/|;|\s+|.",
    re.DOTALL,
)


@dataclass(frozen=True)
class Table:
    """A table as it is there; `rows` are the columns as the catalogue has them, in order."""

    rows: tuple[Mapping[str, Any], ...]
    json: frozenset[str]
    comment: str
    engine: str

    def schema(self, dialect: str, *, is_sink: bool = False) -> Schema:
        """Its columns and primary key."""
        columns = tuple(_column(row, dialect, self.json, is_sink=is_sink) for row in self.rows)
        return Schema(
            columns, tuple(str(row["column_name"]) for row in self.rows if row["column_key"] == "PRI"), self.comment
        )


def table_of(link: Link, table: tuple[str | None, str]) -> Table | None:
    """What the catalogue says of a table or view, None when there is none."""
    schema, name = table
    where = "table_schema = coalesce(%s, database()) and table_name = %s"
    found = link.ask(
        f"select table_comment, engine from information_schema.tables where {where}",
        [schema, name],
    )
    if not found:
        return None
    rows = tuple(_columns(link, where, [schema, name]))
    return Table(rows, _json(link, schema, name), _text(found[0][0]), _text(found[0][1]))


def _columns(link: Link, where: str, values: list[Any]) -> Iterator[Mapping[str, Any]]:
    sql = (
        f"select table_schema, table_name, {', '.join(_COLUMNS)} from information_schema.columns"
        f" where {where} order by table_schema, table_name, ordinal_position"
    )
    for row in link.ask(sql, values):
        yield dict(zip(("table_schema", "table_name", *_COLUMNS), map(_decoded, row), strict=True))


def _json(link: Link, schema: str | None, name: str) -> frozenset[str]:
    """The columns that a constraint keeps valid JSON: MariaDB has no other type for it."""
    which = "table_name" if link.dialect == "mariadb" else None
    if which:
        sql = (
            "select check_clause from information_schema.check_constraints"
            " where constraint_schema = coalesce(%s, database()) and table_name = %s"
        )
    else:
        sql = (
            "select c.check_clause from information_schema.check_constraints c join information_schema.table_constraints t"
            " using (constraint_schema, constraint_name) where c.constraint_schema = coalesce(%s, database())"
            " and t.table_name = %s"
        )
    clauses = (_JSON.match(_text(row[0]).strip()) for row in link.ask(sql, [schema, name]))
    return frozenset(one["name"].replace("``", "`") for one in clauses if one)


def _column(row: Mapping[str, Any], dialect: str, json: frozenset[str], *, is_sink: bool = False) -> Column:
    name, extra = str(row["column_name"]), str(row["extra"] or "").lower()
    default = row["column_default"]
    is_filled = "generated" in extra and "default_generated" not in extra
    return Column(
        name,
        from_catalogue(row, dialect, is_sink=is_sink, is_json=name in json),
        row["is_nullable"] == "YES",
        str(row["column_comment"] or ""),
        None if default is None or default == "NULL" else str(default),
        "stored" if is_filled else "serial" if "auto_increment" in extra else "",
    )


# -- of a statement


def of_query(link: Link, query: Query, sql: str) -> Schema:
    """The columns of a query, by preparing it.

    A column that is one of a table has that table's type (labels, uuid, char); any other one what the server tells of it.
    """
    fields = link.prepared(sql)
    if not fields:
        raise Refused(f"{link.doing}: the statement gives no rows; write a SELECT")
    table = table_of(link, query.table) if query.table is not None and not query.columns else None
    known = _known(link, fields)
    columns = tuple(_of_field(link, one, known) for one in fields)
    for one in columns:
        if one.type.kind == "other" and one.type.native.startswith(("geometry", "point", "line", "poly", "multi")):
            raise Refused(
                f"{link.doing}: column '{one.name}' is a {one.type.native}; take its text or bytes,"
                f" e.g. ST_AsText({one.name}) as {one.name}"
            )
    return Schema(columns, table.schema(link.dialect).keys if table else (), table.comment if table else "")


def _known(link: Link, fields: list[Field]) -> dict[tuple[str, str, str], tuple[Mapping[str, Any], bool]]:
    tables = sorted({(one.database, one.table) for one in fields if one.database and one.table})
    known = {}
    for schema, name in tables:
        json = _json(link, schema, name)
        for row in _columns(link, "table_schema = %s and table_name = %s", [schema, name]):
            column = str(row["column_name"])
            known[schema, name, column] = (row, column in json)
    return known


def _of_field(link: Link, field: Field, known: Mapping[tuple[str, str, str], tuple[Mapping[str, Any], bool]]) -> Column:
    row, is_json = known.get((field.database, field.table, field.column), (None, False))
    if row is None or not is_of(field, row):
        return Column(field.name, described(field, link.dialect), not field.not_null)
    kind: Type = from_catalogue(row, link.dialect, is_json=is_json)
    return Column(field.name, kind, not field.not_null, str(row["column_comment"] or ""))


# -- the text of a statement


def single(sql: str, doing: str) -> str:
    """The statement without its last `;` and what follows it.

    Raises:
        Refused: there is a second statement, or none.
    """
    end: int | None = None
    is_empty = True
    for one in _TOKEN.finditer(sql):
        text = one.group()
        if text.isspace() or text.startswith(("--", "#")) or (text.startswith("/*") and text[2:3] not in ("!", "M")):
            continue
        if text == ";":
            end = one.start() if end is None else end
            continue
        if end is not None:
            line = sql.count("\n", 0, one.start()) + 1
            column = one.start() - sql.rfind("\n", 0, one.start())
            raise Refused(
                f"{doing}: the query is more than one statement (the second begins at {line}:{column}); write one"
            )
        is_empty = False
    if is_empty:
        raise Refused(f"{doing}: the query is empty; write a SELECT")
    return sql if end is None else sql[:end]


def sql_of(link: Link, query: Query) -> str:
    """The one statement that reads a query; a query without conditions and columns of ours is sent as it is."""
    if query.most is not None:
        whole = sql_of(link, replace(query, most=None))
        if _ORDERED.search(whole):  # the order of a subquery is nobody's
            return whole
        return f"SELECT * FROM (\n{whole}\n) AS `_few` LIMIT {query.most}"
    if query.table is not None:
        taken, conditions = name_of(query.table), query.where
        if query.partition is not None:
            taken += f" PARTITION ({ticked(query.partition)})"
    else:
        text = single(query.sql or "", link.doing)
        if not query.where and not query.columns:
            return text
        taken, conditions = f"(\n{text}\n) AS `_rainbow`", query.where
    shown = ", ".join(f"{expression} AS {ticked(name)}" for name, expression in query.columns) or "*"
    where = " AND ".join(f"({one})" for one in conditions)
    return f"SELECT {shown} FROM {taken}{f' WHERE {where}' if where else ''}"


def _decoded(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _text(value: Any) -> str:
    return "" if value is None else str(_decoded(value))
