"""How `replace` empties a table of PostgreSQL: what stands in the way of a new table in its place, and what it must take over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Job, Refused
from .postgres_ledger import quoted
from .postgres_load import Strategy, Table

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

_TIES = """
select kind || ' ' || name from (
    select 'view' as kind, v.oid::regclass::text as name
        from pg_depend d join pg_rewrite r on r.oid = d.objid join pg_class v on v.oid = r.ev_class
        where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = t.oid
        and v.oid <> t.oid
    union select 'rule', rulename from pg_rewrite where ev_class = t.oid
    union select 'foreign key', conname from pg_constraint where contype = 'f' and (conrelid = t.oid or confrelid = t.oid)
    union select 'trigger', tgname from pg_trigger where tgrelid = t.oid and not tgisinternal
    union select 'policy', polname from pg_policy where polrelid = t.oid
    union select 'row level security of', relname from pg_class where oid = t.oid and (relrowsecurity or relforcerowsecurity)
    union select 'publication', p.pubname from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
        where r.prrelid = t.oid
    union select 'child table', inhrelid::regclass::text from pg_inherits where inhparent = t.oid
    union select 'parent table', inhparent::regclass::text from pg_inherits where inhrelid = t.oid
    union select 'sequence', d.objid::regclass::text from pg_depend d join pg_class s on s.oid = d.objid and s.relkind = 'S'
        where d.classid = 'pg_class'::regclass and d.refobjid = t.oid and d.deptype in ('a', 'i')
    union select 'function', d.objid::regprocedure::text from pg_depend d
        where d.classid = 'pg_proc'::regclass and d.refobjid in (t.oid, t.reltype)
    union select 'column of its row type in', c.oid::regclass::text from pg_attribute a join pg_class c on c.oid = a.attrelid
        where a.atttypid in (t.reltype, (select typarray from pg_type where oid = t.reltype)) and not a.attisdropped
    union select 'extension', e.extname from pg_depend d join pg_extension e on e.oid = d.refobjid
        where d.classid = 'pg_class'::regclass and d.objid = t.oid and d.deptype = 'e'
    union select 'security label of', relname from pg_class where oid = t.oid
        and exists (select from pg_seclabel where objoid = t.oid)
    union select 'replica identity of', relname from pg_class where oid = t.oid and relreplident <> 'd'
    union select 'tablespace of', relname from pg_class where oid = t.oid and reltablespace <> 0
    union select 'access method of', c.relname from pg_class c join pg_am m on m.oid = c.relam
        where c.oid = t.oid and m.amname <> 'heap'
    union select 'persistence of', relname from pg_class where oid = t.oid and relpersistence <> 'p'
    union select 'type of', relname from pg_class where oid = t.oid and reloftype <> 0
) as ties(kind, name) order by 1
"""

_TIED = f"select tied from (select * from pg_class where oid = %s::regclass) as t, lateral ({_TIES}) as found(tied)"


def ties(connection: Connection, table: Table) -> list[str]:
    """What a new table in the place of this one would lose or break, each in words (`view mart.daily`)."""
    return [row[0] for row in connection.execute(_TIED.encode(), [table.quoted]).fetchall()]


def strategy(connection: Connection, table: Table, asked: str) -> Strategy:
    """How the table is emptied; `asked` is `auto` or one of them.

    By itself it swaps only where nothing hangs on the table, not even a grant: whoever reads goes on meanwhile.

    Raises:
        Refused: it cannot be done as asked.
    """
    if asked in ("truncate", "delete"):
        return "truncate" if asked == "truncate" else "delete"
    tied = ties(connection, table)
    owned, may_truncate, is_referenced, is_plain = _facts(connection, table)
    if asked == "swap":
        if tied or table.is_partitioned:
            what = ", ".join(tied) or "its partitions"
            raise Refused(f"{table} cannot be swapped, for it has {what}; use replace_strategy truncate")
        return "swap"
    if not tied and not table.is_partitioned and owned and is_plain:
        return "swap"
    return "truncate" if may_truncate and not is_referenced else "delete"


def _facts(connection: Connection, table: Table) -> tuple[bool, bool, bool, bool]:
    row = connection.execute(
        "select pg_has_role(c.relowner, 'USAGE') and has_schema_privilege(c.relnamespace, 'CREATE'),"
        " has_table_privilege(c.oid, 'TRUNCATE'),"
        " exists (select from pg_constraint where contype = 'f' and confrelid = c.oid and conrelid <> c.oid),"
        " c.relacl is null and not exists (select from pg_attribute where attrelid = c.oid and attacl is not null)"
        " from pg_class c where c.oid = %s::regclass",
        [table.quoted],
    ).fetchone()
    assert row is not None
    return row[0], row[1], row[2], row[3]


def carried(connection: Connection, table: Table, new: str) -> list[str]:
    """The statements that give the new table what LIKE does not, to run once it has the name.

    Shape: owner, grants, comment, settings, and the names of its indexes.
    """
    return [
        *_owner(connection, table, new),
        *_grants(connection, table, new),
        *_said(connection, table),
        *_indexes(connection, table, new),
    ]


def _owner(connection: Connection, table: Table, new: str) -> list[str]:
    return _column(
        connection,
        "select format('ALTER TABLE %%s OWNER TO %%I', %s::text, relowner::regrole) from pg_class"
        " where oid = %s::regclass and relowner <> (select relowner from pg_class where oid = %s::regclass)",
        [table.quoted, table.quoted, new],
    )


def _grants(connection: Connection, table: Table, new: str) -> list[str]:
    """Those of the table and its columns; what default privileges gave the new one is taken away first."""
    who = "case when g.grantee = 0 then 'PUBLIC' else quote_ident(pg_get_userbyid(g.grantee)) end"
    option = "case when g.is_grantable then ' WITH GRANT OPTION' else '' end"
    taken = (
        f"select distinct format('REVOKE ALL ON %%s FROM %%s', %s::text, {who})"
        " from pg_class c, aclexplode(c.relacl) as g where c.oid = %s::regclass and g.grantee <> c.relowner"
    )
    given = (
        f"select format('GRANT %%s ON %%s TO %%s%%s', g.privilege_type, %s::text, {who}, {option})"
        " from pg_class c, aclexplode(c.relacl) as g where c.oid = %s::regclass and g.grantee <> c.relowner"
    )
    columns = (
        f"select format('GRANT %%s (%%I) ON %%s TO %%s%%s', g.privilege_type, a.attname, %s::text, {who}, {option})"
        " from pg_attribute a, aclexplode(a.attacl) as g where a.attrelid = %s::regclass and not a.attisdropped"
    )
    return [
        *_column(connection, taken, [table.quoted, new]),
        *_column(connection, given, [table.quoted, table.quoted]),
        *_column(connection, columns, [table.quoted, table.quoted]),
    ]


def _said(connection: Connection, table: Table) -> list[str]:
    comment = (
        "select format('COMMENT ON TABLE %%s IS %%L', %s::text, d) from obj_description(%s::regclass, 'pg_class') as d"
        " where d is not null"
    )
    settings = (
        "select format('ALTER TABLE %%s SET (%%s)', %s::text, array_to_string(reloptions, ', ')) from pg_class"
        " where oid = %s::regclass and reloptions is not null"
    )
    samples = (
        "select format('ALTER TABLE %%s ALTER COLUMN %%I SET STATISTICS %%s', %s::text, attname, attstattarget)"
        " from pg_attribute where attrelid = %s::regclass and attnum > 0 and attstattarget >= 0 and not attisdropped"
    )
    both = [table.quoted, table.quoted]
    return [line for sql in (comment, settings, samples) for line in _column(connection, sql, both)]


def _indexes(connection: Connection, table: Table, new: str) -> list[str]:
    """The new table's indexes, each found by what it indexes, get the names of the old one's."""
    names = _index_names(connection, new)
    renamed = []
    for shape, old in _index_names(connection, table.quoted):
        found = next((one for one in names if one[0] == shape), None)
        if found is not None:
            names.remove(found)
            renamed.append(f"ALTER INDEX {quoted(table.schema, found[1])} RENAME TO {quoted(old)}")
    return renamed


def _index_names(connection: Connection, table: str) -> list[tuple[Any, str]]:
    rows = connection.execute(
        "select c.relname, row(i.indisunique, i.indisprimary, i.indisexclusion, i.indkey, i.indcollation, i.indclass,"
        " i.indoption, pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid), c.relam)::text"
        " from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = %s::regclass order by 2, c.oid",
        [table],
    ).fetchall()
    return [(row[1], row[0]) for row in rows]


def _column(connection: Connection, sql: str, values: list[str]) -> list[str]:
    return [row[0] for row in connection.execute(sql.encode(), values).fetchall()]


def asked_strategy(job: Job) -> str:
    """What the job's `replace_strategy` says, `auto` when it says nothing.

    Raises:
        Refused: it is none.
    """
    asked = str(job.options.get("replace_strategy") or "auto")
    if asked not in ("auto", "truncate", "swap", "delete"):
        raise Refused(f"replace_strategy '{asked}' is not known (known: auto, truncate, swap, delete)")
    return asked
