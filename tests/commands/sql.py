"""A small shop in SQLite for the tests of the commands about SQL tasks."""

from __future__ import annotations

import json
import sqlite3
import textwrap
from pathlib import Path
from typing import Any

ORDERS = """
    create table orders (id integer primary key, day date not null, country text, amount real, note text);
    insert into orders values
        (1, '2024-05-01', 'PL', 10.0, null), (2, '2024-05-01', 'DE', 20.5, ''),
        (3, '2024-05-02', 'PL', 5.0, 'a b'), (4, '2024-05-01', 'PL', 7.5, 'NULL');
"""


class Shop:
    """A folder with a `rainbow.yml` of one task, a source and, once something was loaded, a sink."""

    def __init__(self, folder: Path, *, sink: str = "sqlite:///mart.db") -> None:
        self.folder = folder
        self.sink = sink
        self.do("shop", ORDERS)
        self.write("select id, day, amount from orders", keys="[id]", mode="upsert")

    def write(self, query: str, root: str = "", **keys: str) -> None:
        """The task `orders` with this query and these keys."""
        more = "".join(f", {key}: {value}" for key, value in keys.items())
        (self.folder / "rainbow.yml").write_text(
            textwrap.dedent(f"""\
                name: shop
                sources: [{{source: shop, url: 'sqlite:///shop.db'}}]
                sinks: [{{sink: mart, url: '{self.sink}'}}]
                {root}
                pipelines:
                  - pipeline: nightly
                    tasks:
                      - {{task: orders, type: sql_etl, source: shop, sink: mart, table: orders,
                         query: {json.dumps(query)}{more}}}
                """)
        )

    def do(self, name: str, script: str) -> None:
        db = sqlite3.connect(self.folder / f"{name}.db")
        db.executescript(script)
        db.close()

    def rows(self, sql: str, name: str = "mart") -> list[Any]:
        db = sqlite3.connect(self.folder / f"{name}.db")
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()

    def load(self) -> None:
        """Load as a run does, without one."""
        import uuid
        from dataclasses import replace

        from rainbow_prefect.commands.sql_task import chosen
        from rainbow_prefect.sql_etl.base import Session
        from rainbow_prefect.sql_etl.move import move

        one = chosen(self.folder, None, None, ())
        move(replace(one.order, run_key=uuid.uuid4().hex), one.source, one.sink, Session(root=self.folder))
