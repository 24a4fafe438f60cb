"""Real database servers for the tests of SQL ETL: one of each kind for all workers, an empty database for each test."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator

import pytest

from tests.conftest import once, script


@pytest.fixture(scope="session")
def postgres_server() -> str:
    """The URL of a PostgreSQL that all tests share, as a superuser. Skips on a laptop that has none; fails in CI.

    Roles are the server's, not a database's: name them after something random, and drop them.
    """
    with once("postgres-url") as url:
        if not url.exists():
            parent = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
            url.write_text(script("postgres.sh", "start", str(url.with_name("postgres")), str(parent)))
        return url.read_text()


@contextlib.contextmanager
def postgres_database(server: str) -> Iterator[str]:
    """The URL (`postgresql://...`) of a new, empty database (UTF8) on this server, removed at the end with its sessions."""
    import psycopg

    name = f"test_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"create database {name} template template0".encode())
    try:
        yield f"{server.rpartition('/')[0]}/{name}"
    finally:
        # It waits for every session of the server, also for one of another test that nobody reads from.
        with psycopg.connect(server, autocommit=True) as admin, contextlib.suppress(psycopg.errors.QueryCanceled):
            admin.execute("set statement_timeout = '20s'")
            admin.execute(f"drop database {name} with (force)".encode())


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of this test alone."""
    with postgres_database(postgres_server) as url:
        yield url


@pytest.fixture
def other_postgres(postgres_server: str) -> Iterator[str]:
    """As `postgres`, a second one for the same test."""
    with postgres_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="module")
def module_postgres(postgres_server: str) -> Iterator[str]:
    """As `postgres`, one for all tests of a module that a worker runs: for tests that only read what a fixture made."""
    with postgres_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_server() -> str:
    """The URL of a MariaDB that all tests share, as root. Skips on a laptop that has none; fails in CI.

    Users and global variables are the server's, not a database's: name users after something random, and leave the variables.
    """
    with once("mariadb-url") as url:
        if not url.exists():
            parent = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
            url.write_text(script("mariadb.sh", "start", str(url.with_name("mariadb")), str(parent)))
        return url.read_text()


@contextlib.contextmanager
def mariadb_database(server: str) -> Iterator[str]:
    """The URL (`mysql+pymysql://...`) of a new, empty database (utf8mb4) on this server, removed at the end with its sessions."""
    import pymysql
    from sqlalchemy import make_url

    url, name = make_url(server), f"test_{uuid.uuid4().hex[:16]}"
    with pymysql.connect(host=url.host, port=url.port, user="root", autocommit=True) as admin, admin.cursor() as cursor:
        cursor.execute(f"create database {name} character set utf8mb4")
    try:
        yield f"{server}{name}"
    finally:
        with (
            pymysql.connect(host=url.host, port=url.port, user="root", autocommit=True) as admin,
            admin.cursor() as cursor,
        ):
            cursor.execute("select id from information_schema.processlist where db = %s", (name,))
            for (one,) in cursor.fetchall():
                with contextlib.suppress(pymysql.err.OperationalError):  # it has just ended by itself
                    cursor.execute("kill connection %s", (one,))
            cursor.execute(f"drop database {name}")


@pytest.fixture
def mariadb(mariadb_server: str) -> Iterator[str]:
    """The URL of an empty MariaDB database of this test alone."""
    with mariadb_database(mariadb_server) as url:
        yield url


@pytest.fixture
def other_mariadb(mariadb_server: str) -> Iterator[str]:
    """As `mariadb`, a second one for the same test."""
    with mariadb_database(mariadb_server) as url:
        yield url


@pytest.fixture(scope="module")
def module_mariadb(mariadb_server: str) -> Iterator[str]:
    """As `mariadb`, one for all tests of a module that a worker runs: for tests that only read what a fixture made."""
    with mariadb_database(mariadb_server) as url:
        yield url
