"""What a role needs for a load, looked up before anything is done; each missing right with the statement that gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Job, Refused
from .ledger import NAME
from .postgres_ledger import quoted
from .postgres_load import Load, Strategy, Table

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

_OF_MODE = {
    "append": ("INSERT",),
    "fail": ("INSERT",),
    "insert_new": ("INSERT", "SELECT"),
    "upsert": ("INSERT", "SELECT", "UPDATE"),
    "delete_insert": ("INSERT", "SELECT", "DELETE"),
    "scd2": ("INSERT", "SELECT", "UPDATE"),
}
_OF_STRATEGY: dict[Strategy, tuple[str, ...]] = {
    "truncate": ("INSERT", "TRUNCATE"),
    "delete": ("INSERT", "SELECT", "DELETE"),
    "swap": ("INSERT",),
}


def refuse_read_only(connection: Connection, where: str) -> None:
    """A server that takes no writes.

    Raises:
        Refused: it is one.
    """
    row = connection.execute("select pg_is_in_recovery(), current_setting('default_transaction_read_only')").fetchone()
    assert row is not None
    if row[0]:
        raise Refused(f"{where}: the server is a standby, which takes no writes; give the URL of its primary")
    if row[1] == "on":
        raise Refused(
            f"{where}: the role's transactions are read only; run: ALTER ROLE {_role(connection)}"
            " SET default_transaction_read_only = off"
        )


def refuse_missing_schema(connection: Connection, schema: str, where: str) -> None:
    """A schema that is not there, or may not be looked into.

    Raises:
        Refused: it is one.
    """
    row = connection.execute("select has_schema_privilege(oid, 'USAGE') from pg_namespace where nspname = %s", [schema])
    found = row.fetchone()
    if found is None:
        raise Refused(
            f"{where}: the schema '{schema}' does not exist; run: CREATE SCHEMA {quoted(schema)},"
            " or set `create_schema: true`"
        )
    if not found[0]:
        raise Refused(
            f"{where}: a right is missing; run: GRANT USAGE ON SCHEMA {quoted(schema)} TO {_role(connection)}"
        )


def refuse_missing_rights(
    connection: Connection, job: Job, schema: str, table: Table | None, *, load: Load | None, strategy: Strategy
) -> None:
    """Rights that the load will need and the role has not.

    Raises:
        Refused: some are missing; all are told.
    """
    role = _role(connection)
    grants = [*_on_schema(connection, schema, table), *_on_ledger(connection, schema)]
    if table is not None:
        grants += _on_table(connection, job, table, strategy)
    if load is not None and any("CREATE TEMPORARY" in one.sql for one in load.before):
        grants += _on_database(connection)
    if grants:
        missing = "; ".join(f"{one} TO {role}" for one in dict.fromkeys(grants))
        raise Refused(f"table {schema}.{job.table[1]}: rights are missing; run: {missing}; nothing was written")


def _on_schema(connection: Connection, schema: str, table: Table | None) -> list[str]:
    has_ledger, may_create = _row(
        connection,
        "select to_regclass(%s) is not null, has_schema_privilege(%s, 'CREATE')",
        [quoted(schema, NAME), schema],
    )
    return [] if may_create or (has_ledger and table is not None) else [f"GRANT CREATE ON SCHEMA {quoted(schema)}"]


def _on_ledger(connection: Connection, schema: str) -> list[str]:
    return _privileges(connection, quoted(schema, NAME), ("SELECT", "INSERT", "UPDATE"))


def _on_table(connection: Connection, job: Job, table: Table, strategy: Strategy) -> list[str]:
    wanted = _OF_STRATEGY[strategy] if job.mode == "replace" else _OF_MODE[job.mode]
    if job.deletes is not None and job.mode != "scd2":
        wanted = (*wanted, "DELETE")
    if job.mode == "replace" and strategy == "swap":
        owner, is_owned = _row(
            connection,
            "select quote_ident(pg_get_userbyid(relowner)), pg_has_role(relowner, 'USAGE') from pg_class"
            " where oid = %s::regclass",
            [table.quoted],
        )
        if not is_owned:
            return [f"GRANT {owner}"]
    missing = [one for one in _privileges(connection, table.quoted, wanted) if one]
    return [one for one in missing if not _has_columns(connection, job, table, one)]


def _has_columns(connection: Connection, job: Job, table: Table, grant: str) -> bool:
    """Whether the right is there on each column that is loaded, where it is not on the table."""
    privilege = grant.split()[1]
    if privilege not in ("INSERT", "UPDATE", "SELECT"):
        return False
    (has,) = _row(
        connection,
        "select bool_and(has_column_privilege(%s::regclass, one, %s)) from unnest(%s::text[]) as one",
        [table.quoted, privilege, [one for one in job.schema.names if one in table.columns]],
    )
    return bool(has)


def _on_database(connection: Connection) -> list[str]:
    name, has = _row(
        connection,
        "select quote_ident(current_database()), has_database_privilege(current_database(), 'TEMPORARY')",
        [],
    )
    return [] if has else [f"GRANT TEMPORARY ON DATABASE {name}"]


def _privileges(connection: Connection, relation: str, wanted: tuple[str, ...]) -> list[str]:
    rows = connection.execute(
        "select one from unnest(%s::text[]) as one where to_regclass(%s) is not null"
        " and not has_table_privilege(to_regclass(%s), one)",
        [list(wanted), relation, relation],
    ).fetchall()
    return [f"GRANT {row[0]} ON {relation}" for row in rows]


def _role(connection: Connection) -> str:
    return str(_row(connection, "select quote_ident(current_user)", [])[0])


def _row(connection: Connection, sql: str, values: list[Any]) -> tuple[Any, ...]:
    row = connection.execute(sql.encode(), values).fetchone()
    assert row is not None
    return row
