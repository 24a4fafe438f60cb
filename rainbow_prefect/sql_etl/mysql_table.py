"""Tables of MySQL and MariaDB as loads need them: new ones, stages, what depends on one, how changes of one are undone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

from .base import Constraint, Job, Refused
from .mysql_catalogue import Table, table_of
from .mysql_link import Link, name_of
from .mysql_types import MOST_COLUMNS, MOST_KEY_BYTES, MOST_NAME, ticked, wide_text
from .types import Column

STAGE = "_rainbow_stage"
_ROW_BYTES = 60_000
_PAGE_BYTES = 8_000
_PREFIX = 191
_NAME = re.compile(r"`((?:[^`]|``)+)`")


def refuse(job: Job) -> None:
    """What MySQL cannot have as a table.

    Raises:
        Refused: names that are too long or equal for it, too many columns, keys that are missing.
    """
    columns = job.schema.columns
    if len(columns) > MOST_COLUMNS:
        raise Refused(f"the query gives {len(columns)} columns, and a table of InnoDB takes {MOST_COLUMNS}")
    for name in (job.table[1], *job.schema.names):
        if len(name) > MOST_NAME:
            raise Refused(
                f"the name '{name}' has {len(name)} characters, and MySQL takes {MOST_NAME}; name it shorter with AS"
            )
        if name != name.rstrip() or not name or "\0" in name or any(ord(one) > 0xFFFF for one in name):
            raise Refused(
                f"the name '{name}' is none that MySQL takes: it is empty, ends with a space or has a rare character"
            )
    lower: dict[str, str] = {}
    for name in job.schema.names:
        other = lower.setdefault(name.casefold(), name)
        if other is not name:
            raise Refused(
                f"columns '{other}' and '{name}' differ in case only or not at all, which MySQL cannot tell apart"
            )
    if job.mode in ("insert_new", "upsert", "scd2") and not job.keys:
        raise Refused(f"`mode: {job.mode}` needs `keys`; name the columns that tell a row from others")
    if job.mode == "delete_insert" and not job.keys and not job.where:
        raise Refused("`mode: delete_insert` needs `keys`, or a part with a condition")
    missing = [one for one in job.keys if one not in job.schema]
    if missing:
        raise Refused(
            f"`keys` names '{missing[0]}', which the query does not give (columns: {', '.join(job.schema.names)})"
        )


def create_table(
    job: Job, table: str, type_of: Callable[[Column], str], collation: str, *, has_explicit_defaults: bool = True
) -> str:
    """The statement that makes the table of a job.

    Without explicit defaults the server would set a timestamp that is not NULL anew in each update: it may be NULL then.
    """
    types = _narrowed(job, {one.name: type_of(one) for one in job.schema.columns})
    loose = () if has_explicit_defaults else ("timestamp",)
    lines = [_definition(one, types[one.name], is_key=one.name in job.keys, loose=loose) for one in job.schema.columns]
    if job.keys:
        lines.append(_key(job, types))
    comment = f" COMMENT {_text(job.schema.comment[:2048])}" if job.schema.comment else ""
    return (
        f"CREATE TABLE {table} (\n  "
        + ",\n  ".join(lines)
        + f"\n) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE {collation}{comment}"
    )


def _definition(one: Column, native: str, *, is_key: bool, loose: tuple[str, ...]) -> str:
    is_null = (one.nullable and not is_key) or native.startswith(loose)
    null = "NULL" if is_null else "NOT NULL"
    if native.startswith("timestamp") and is_null:
        null = "NULL DEFAULT NULL"
    comment = f" COMMENT {_text(one.comment[:1024])}" if one.comment else ""
    kind, check, condition = native.partition(" check ")
    return f"{ticked(one.name)} {kind} {null}{comment}{check}{condition}"


def _narrowed(job: Job, types: Mapping[str, str]) -> dict[str, str]:
    """The types, with long text kept out of the row where the row would be longer than MySQL takes."""
    made = dict(types)
    for size_of, most in ((_row_bytes, _ROW_BYTES), (_page_bytes, _PAGE_BYTES)):
        sizes = {name: size_of(native) for name, native in made.items()}
        for name in sorted(sizes, key=lambda one: -sizes[one]):
            if sum(sizes.values()) <= most or sizes[name] <= size_of("text"):
                break
            if name in job.keys or not made[name].startswith(("varchar", "varbinary")):
                continue
            length = int(made[name].partition("(")[2].rstrip(")"))
            made[name] = wide_text(length) if made[name].startswith("varchar") else "blob"
            sizes[name] = size_of("text")
    return made


def _page_bytes(native: str) -> int:
    """What a value takes in its page at most: what may be long is kept elsewhere."""
    size = _row_bytes(native)
    kind = native.partition("(")[0]
    if kind in ("varchar", "varbinary", "char", "binary"):
        return size if size <= 257 else 41
    return 41 if "text" in native or "blob" in native else 8


def _row_bytes(native: str) -> int:
    kind, _, size = native.partition("(")
    if kind in ("varchar", "char"):
        return 4 * int(size.partition(")")[0]) + 2
    if kind in ("varbinary", "binary"):
        return int(size.partition(")")[0]) + 2
    return 12


def _key(job: Job, types: Mapping[str, str]) -> str:
    """A primary key where MySQL can have one; else an index of what the keys begin with."""
    is_text = {one: "text" in types[one] or "blob" in types[one] for one in job.keys}
    size = sum(_row_bytes(types[one]) for one in job.keys)
    if job.mode != "delete_insert" and not any(is_text.values()) and size <= MOST_KEY_BYTES:
        return f"PRIMARY KEY ({', '.join(map(ticked, job.keys))})"
    return f"KEY `rainbow_keys` ({_prefixes(job, types)})"


def _prefixes(job: Job, types: Mapping[str, str]) -> str:
    most = max(16, _PREFIX // len(job.keys))
    shown = []
    for one in job.keys:
        kind, _, size = types[one].partition("(")
        long = "text" in kind or "blob" in kind
        length = int(size.partition(")")[0]) if kind in ("varchar", "varbinary", "char", "binary") else 0
        shown.append(f"{ticked(one)}({most})" if long or length > most else ticked(one))
    return ", ".join(shown)


def stage_table(job: Job, stage: str, target: Table) -> str:
    """The statement that makes a table of this session with the columns of a load; each of them may be empty."""
    rows = {str(row["column_name"]): row for row in target.rows}
    lines = []
    for name in job.schema.names:
        row = rows[name]
        native = str(row["column_type"])
        if row["collation_name"]:
            native += f" CHARACTER SET {row['character_set_name']} COLLATE {row['collation_name']}"
        lines.append(f"{ticked(name)} {native} NULL DEFAULT NULL")
    if job.keys:
        lines.append(f"KEY ({_prefixes(job, {name: str(row['column_type']) for name, row in rows.items()})})")
    return f"CREATE TEMPORARY TABLE {stage} (\n  " + ",\n  ".join(lines) + "\n) ENGINE=InnoDB CHARACTER SET utf8mb4"


def side_name(job: Job, which: str) -> str:
    """The name of a table that stands beside another while it is replaced; the same in every attempt of the job."""
    digest = blake2b("\0".join((job.table[1], job.name, job.part)).encode(), digest_size=8).hexdigest()
    return f"_rainbow_{which}_{digest}"


def dependants(link: Link, job: Job, doing: str) -> list[str]:
    """What a swap would lose: triggers, foreign keys of the table and to it, its history.

    Raises:
        Refused: rows of another table would go, or change, with the rows of this one.
    """
    schema, name = job.table
    keys = link.ask(
        "select constraint_name, table_name, referenced_table_name, delete_rule"
        " from information_schema.referential_constraints where"
        " (constraint_schema = coalesce(%s, database()) and table_name = %s)"
        " or (unique_constraint_schema = coalesce(%s, database()) and referenced_table_name = %s)",
        [schema, name, schema, name],
    )
    for constraint, table, referenced, rule in keys:
        if referenced == name and rule in ("CASCADE", "SET NULL", "SET DEFAULT"):
            raise Refused(
                f"{doing}: rows of table '{table}' refer to it by '{constraint}' ON DELETE {rule}, so replacing the rows"
                " would change them too; use mode upsert or delete_insert"
            )
    found = [f"the foreign key '{one[0]}'" for one in keys]
    triggers = link.ask(
        "select trigger_name from information_schema.triggers"
        " where event_object_schema = coalesce(%s, database()) and event_object_table = %s",
        [schema, name],
    )
    found += [f"the trigger '{one[0]}'" for one in triggers]
    kind = link.ask(
        "select table_type from information_schema.tables where table_schema = coalesce(%s, database()) and table_name = %s",
        [schema, name],
    )
    return [*found, *("its history" for one in kind if one[0] == "SYSTEM VERSIONED")]


def constraints(link: Link, table: tuple[str | None, str], dialect: str) -> list[Constraint]:
    """The checks, foreign and unique keys of a table."""
    schema, name = table
    mine = [schema, name]
    checks = link.ask(
        "select c.constraint_name, c.check_clause from information_schema.check_constraints c"
        " join information_schema.table_constraints t on t.constraint_schema = c.constraint_schema"
        " and t.constraint_name = c.constraint_name and t.constraint_type = 'CHECK'"
        f"{' and t.table_name = c.table_name' if dialect == 'mariadb' else ''}"
        " where t.table_schema = coalesce(%s, database()) and t.table_name = %s",
        mine,
    )
    keys = link.ask(
        "select k.constraint_name, k.column_name, k.referenced_table_schema, k.referenced_table_name, k.referenced_column_name"
        " from information_schema.key_column_usage k join information_schema.table_constraints t"
        " on t.constraint_schema = k.constraint_schema and t.constraint_name = k.constraint_name and t.table_name = k.table_name"
        " where k.table_schema = coalesce(%s, database()) and k.table_name = %s"
        " and t.constraint_type in ('FOREIGN KEY', 'UNIQUE') order by k.constraint_name, k.ordinal_position",
        mine,
    )
    found = [Constraint(str(one), _named(str(sql)), str(sql)) for one, sql in checks]
    for one in dict.fromkeys(row[0] for row in keys):
        rows = [row for row in keys if row[0] == one]
        other = (str(rows[0][2]), str(rows[0][3])) if rows[0][3] else None
        columns, others = (tuple(str(row[at]) for row in rows) for at in (1, 4))
        found.append(Constraint(str(one), columns, None, other, others if other else ()))
    return found


def _named(sql: str) -> tuple[str, ...]:
    """The names in backticks: all columns of a condition, as the server writes it."""
    return tuple(dict.fromkeys(one.replace("``", "`") for one in _NAME.findall(sql)))


def undo_changes(link: Link, table: tuple[str | None, str], before: Table) -> None:
    """Take away the columns that were added, give the others their types again."""
    after = table_of(link, table)
    if after is None:
        return
    old = {str(row["column_name"]): row for row in before.rows}
    steps = [f"DROP COLUMN {ticked(str(row['column_name']))}" for row in after.rows if row["column_name"] not in old]
    for row in after.rows:
        was = old.get(str(row["column_name"]))
        if was is not None and _changed(was, row):
            steps.append(f"MODIFY {ticked(str(row['column_name']))} {_as_was(was)}")
    if steps:
        link.do(f"ALTER TABLE {name_of(table)} {', '.join(steps)}")


def _changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return any(was[one] != now[one] for one in ("column_type", "is_nullable", "character_set_name", "collation_name"))


def _as_was(row: Mapping[str, Any]) -> str:
    text = str(row["column_type"])
    if row["collation_name"]:
        text += f" CHARACTER SET {row['character_set_name']} COLLATE {row['collation_name']}"
    text += " NULL" if row["is_nullable"] == "YES" else " NOT NULL"
    if row["column_default"] is not None and row["column_default"] != "NULL":
        text += f" DEFAULT {row['column_default']}"
    if "auto_increment" in str(row["extra"]):
        text += " AUTO_INCREMENT"
    return text + (f" COMMENT {_text(str(row['column_comment']))}" if row["column_comment"] else "")


def altered(table: str, now: Table, added: Mapping[str, str], widened: Mapping[str, str]) -> list[str]:
    """The statement that adds columns, which may be empty, and gives others new types; [] for none."""
    rows = {str(row["column_name"]): row for row in now.rows}
    steps = [f"ADD COLUMN {_added(name, native)}" for name, native in added.items()]
    for name, native in widened.items():
        row = rows[name]
        is_text = native.startswith(("varchar", "char", "tinytext", "text", "mediumtext", "longtext"))
        kept = {} if is_text else {"collation_name": None}
        steps.append(f"MODIFY {ticked(name)} {_as_was({**row, 'column_type': native, **kept})}")
    return [f"ALTER TABLE {table} {', '.join(steps)}"] if steps else []


def _added(name: str, native: str) -> str:
    kind, check, condition = native.partition(" check ")
    return f"{ticked(name)} {kind} NULL DEFAULT NULL{check}{condition}"


def _text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
