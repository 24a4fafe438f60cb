"""The copy without ledger and checks: psycopg passes the bytes of COPY from one connection to another, in two threads."""

import sys
import threading
from queue import Queue

import psycopg

url, count = sys.argv[1:]
chunks: Queue[bytes | None] = Queue(8)


def read() -> None:
    query = f"copy (select * from lineitem where l_orderkey <= {int(count)}) to stdout (format binary)"
    with psycopg.connect(url) as source, source.cursor().copy(query) as copy:
        pieces, held = [], 0
        while piece := copy.read():
            pieces.append(piece)
            held += len(piece)
            if held >= 256 << 10:
                chunks.put(b"".join(pieces))
                pieces.clear()
                held = 0
        chunks.put(b"".join(pieces))
    chunks.put(None)


threading.Thread(target=read, daemon=True).start()
with psycopg.connect(url) as sink:
    sink.execute("drop table if exists mart.bare")
    sink.execute("create table mart.bare (like lineitem)")
    with sink.cursor().copy("copy mart.bare from stdin (format binary)") as copy:
        while (chunk := chunks.get()) is not None:
            copy.write(chunk)
