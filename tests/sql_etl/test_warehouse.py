"""examples/warehouse from the shop's SQLite into a star schema of DuckDB and of PostgreSQL, night after night."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import psycopg
import pytest

from tests.conftest import ROOT, Rainbow


def test_warehouse_example_in_postgres(
    rainbow: Rainbow, prefect_server: str, tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the parameter names gets the same star schema, with a state of its own."""
    folder = tmp_path / "warehouse"
    shutil.copytree(ROOT / "examples" / "warehouse", folder)
    monkeypatch.setenv("WAREHOUSE_URL", postgres)

    def nightly(warehouse: str) -> list[int]:
        words = ("--pipeline", "nightly", "--param", f"warehouse={warehouse}", "--json")
        return [one["output"]["rows"] for one in rainbow("run", folder, *words).json["tasks"]]

    rainbow("run", folder, "--pipeline", "sell")
    loads = [nightly("duckdb"), nightly("postgres")]
    rainbow("run", folder, "--pipeline", "sell", "--param", "day=2024-05-02")
    loads += [nightly("postgres"), nightly("duckdb")]
    query = "select id, customer_id, product_id, quantity, cast(price as varchar), cast(sold_at as varchar) from fact_sales order by id"
    with psycopg.connect(postgres) as there, duckdb.connect(str(folder / "data" / "warehouse.duckdb")) as here:
        facts = there.execute(query.encode()).fetchall()
        bad = there.execute("select count(*) from fact_sales__rejected").fetchall()
        assert facts == here.execute(query).fetchall()

    assert loads == [[40, 20, 498, 6], [40, 20, 498, 6], [0, 20, 498, 6], [0, 20, 498, 6]]
    assert (len(facts), bad) == (996, [(4,)])
