"""A load that is cancelled: the statements that servers do for it end at once, on both sides, and nothing is written."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from rainbow_prefect.errors import Cancelled
from rainbow_prefect.sql_etl.base import Query, Session
from rainbow_prefect.sql_etl.move import Order, move
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink, SqlSource

_ASLEEP = {
    "postgres": "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() "
    "and state = 'active' and wait_event = 'PgSleep'",
    "mariadb": "select count(*) from information_schema.processlist where db = database() "
    "and id <> connection_id() and command <> 'Sleep' and time_ms > 500",
}
_TRIGGERS = {
    "postgres": [
        "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(120); return new; end'",
        "create trigger slow before insert on t for each row execute function slow()",
    ],
    "mariadb": ["create trigger slow before insert on t for each row set new.id = new.id + sleep(120)"],
}


def waited(url: str, kind: str, asleep: bool) -> float:
    """Seconds until a session of the database sleeps, or none does."""
    began = time.monotonic()
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as db:
            while bool(db.execute(text(_ASLEEP[kind])).scalar()) is not asleep:
                assert time.monotonic() < began + 90, f"a session should {'' if asleep else 'not '}be asleep"
                time.sleep(0.05)
    finally:
        engine.dispose()
    return time.monotonic() - began


@pytest.mark.parametrize("side", ["source", "sink"])
@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_what_the_server_does_ends_with_the_run(
    kind: str, side: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = str(request.getfixturevalue(kind))
    engine = create_engine(url)
    with engine.begin() as db:
        db.execute(text("create table t (id bigint)"))
        for one in _TRIGGERS[kind] if side == "sink" else ():
            db.execute(text(one))
    sleep = "pg_sleep(120)" if kind == "postgres" else "sleep(120)"
    if side == "source":
        order = Order("j", "r", Query(sql=f"select 1 as id where {sleep} is not null"), (None, "t"))
        stores = SqlSource(url=url), SqlSink(url=f"sqlite:///{tmp_path}/x.db")
    else:
        order = Order("j", "r", Query(sql="select cast(1 as integer) as id"), (None, "t"))
        stores = SqlSource(url="sqlite://"), SqlSink(url=url)
    stop, errors = threading.Event(), []

    def load() -> None:
        try:
            move(order, *stores, Session(root=tmp_path, stop=stop))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        waited(url, kind, asleep=True)
    finally:
        stop.set()
    seconds = waited(url, kind, asleep=False)
    thread.join(60)

    assert not thread.is_alive()
    assert seconds < 20  # two on a machine with nothing else to do
    assert [(type(one), str(one)) for one in errors] == [(Cancelled, "cancelled; nothing was written")]
    with engine.connect() as db:
        assert db.execute(text("select count(*) from t")).scalar() == 0
    engine.dispose()
