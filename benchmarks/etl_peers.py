"""Other tools that move rows, beside which `make bench-etl --peers` runs; each is installed once into .cache/peers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .etl_server import Server
from .measure import Usage, run
from .others import environment

HERE = Path(__file__).parent
PACKAGES = {
    "dlt": (
        "dlt[postgres,parquet]==1.*",
        "connectorx",
        "adbc-driver-postgresql",
        "SQLAlchemy==2.*",
        "psycopg[binary]",
        "psycopg2-binary",
    ),
    "ingestr": ("ingestr==0.*",),  # 1.* fetches a program at its first start
    "sling": ("sling==1.3.4",),  # later ones fetch a program at their first start
    "pandas": ("pandas", "SQLAlchemy==2.*", "psycopg[binary]==3.*"),
}
"""What each tool needs, in an environment of its own."""

TABLES = {
    "dlt": "by_dlt.lineitem",
    "ingestr": "mart.by_ingestr",
    "sling": "mart.by_sling",
    "pandas": "mart.by_pandas",
}
"""Where each writes."""

Command = Callable[[int], Callable[[], Usage]]
"""Makes the measured work that moves so many rows."""


class Peers:
    """The tools that install and start here; of the others it is told why not."""

    def __init__(self, folder: Path, env: dict[str, str], server: Server) -> None:
        self._folder, self._server = folder, server
        self._env = {**env, "URL": server.url, "DISABLE_TELEMETRY": "true", "RUNTIME__DLTHUB_TELEMETRY": "false"}
        self._pythons: dict[str, Path] = {}
        self._failed: dict[str, str] = {}
        for name in PACKAGES:
            self._install(name)

    def _install(self, name: str) -> None:
        try:
            python = environment(PACKAGES[name])
            words: list[str | Path] = (
                [python, "-c", "import pandas"] if name == "pandas" else [python.with_name(name), "--version"]
            )
            subprocess.run(words, check=True, capture_output=True, timeout=120, env=self._env)
        except subprocess.CalledProcessError as error:
            lines = (error.stderr or b"").decode(errors="replace").strip().splitlines()
            print(f"{name} does not start here: {lines[-1] if lines else error}", file=sys.stderr)
            self._failed[name] = "it fetches its program from the network" if lines else "it does not install"
        else:
            self._pythons[name] = python

    def version(self, name: str) -> str:
        """The name with its version."""
        asked = f"from importlib.metadata import version; print(version({name!r}))"
        done = subprocess.run([self._pythons[name], "-c", asked], check=True, capture_output=True, text=True)
        return f"{name} {done.stdout.strip()}"

    def gave_up(self, name: str, error: Exception) -> None:
        """A tool failed at its work; its own words are for whoever looks."""
        print(f"{name} failed: {error}", file=sys.stderr)
        self._failed[name] = "it failed"

    def told(self) -> str:
        """Which tools could not be measured."""
        failed = "; ".join(f"{name} ({why})" for name, why in self._failed.items())
        return f" Not measured, since they do not run here: {failed}." if failed else ""

    def commands(self) -> dict[str, Command]:
        """PostgreSQL to PostgreSQL by each."""
        known: dict[str, Command] = {"dlt": self._dlt, "ingestr": self._ingestr, "sling": self._sling}
        return {name: command for name, command in known.items() if name in self._pythons}

    def pandas(self, file: Path) -> Command:
        """SQLite to PostgreSQL by pandas.

        Raises:
            RuntimeError: it is not there.
        """
        if "pandas" not in self._pythons:
            raise RuntimeError(f"pandas cannot be measured: {self._failed['pandas']}")
        script = HERE / "peers" / "etl_pandas.py"
        return lambda count: self._run(
            self._pythons["pandas"], script, f"sqlite:///{file}", self._server.url, str(count)
        )

    def _run(self, *words: str | Path) -> Callable[[], Usage]:
        return self._server.counted(lambda: run(words, env=self._env, cwd=self._folder))

    def _dlt(self, count: int) -> Callable[[], Usage]:
        return self._run(
            self._pythons["dlt"], HERE / "peers" / "etl_dlt.py", self._server.url, self._folder / "dlt", str(count)
        )

    def _ingestr(self, count: int) -> Callable[[], Usage]:
        url = self._server.url
        return self._run(
            *(self._pythons["ingestr"].with_name("ingestr"), "ingest", "--yes", "--sql-backend", "connectorx"),
            *("--source-uri", url, "--source-table", self._table(count)),
            *("--dest-uri", url, "--dest-table", TABLES["ingestr"], "--pipelines-dir", self._folder / "ingestr"),
        )

    def _sling(self, count: int) -> Callable[[], Usage]:
        url = f"{self._server.url}?sslmode=disable"
        return self._run(
            *(self._pythons["sling"].with_name("sling"), "run", "--mode", "full-refresh"),
            *("--src-conn", url, "--src-stream", self._table(count)),
            *("--tgt-conn", url, "--tgt-object", TABLES["sling"]),
        )

    def _table(self, count: int) -> str:
        """A table with so many rows: these tools read tables."""
        name = f"public.first_{count}"
        self._server.sql(
            f"create table if not exists {name} as select * from lineitem where l_orderkey <= {count}; analyze {name}"
        )
        return name
