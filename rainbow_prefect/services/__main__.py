"""`python -m rainbow_prefect.services`: one process that serves, in an image or as a worker of `rainbow serve`.

    python -m rainbow_prefect.services FILE [--folder FOLDER] [--host 0.0.0.0] [--port 8000] [--workers 1]
    python -m rainbow_prefect.services - --socket FD --ready FD

The second form reads the definition from stdin, which stays open as long as the parent lives.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

from ..errors import RainbowError
from .definition import Definition, read


def main() -> int:
    """Serve; the exit status is 1 when the service cannot be started."""
    parser = argparse.ArgumentParser(prog="python -m rainbow_prefect.services")
    parser.add_argument("file")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104  an image is reached from outside
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--socket", type=int)
    parser.add_argument("--ready", type=int)
    given = parser.parse_args()
    try:
        if given.file == "-":
            _work(read(sys.stdin.readline()), given.socket, given.ready)
        else:
            _stand_alone(read(Path(given.file).read_text(), given.folder), given.host, given.port, given.workers)
    except RainbowError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


def _work(definition: Definition, number: int, ready: int) -> None:
    from .server import serve

    def tell() -> None:
        os.write(ready, b"ready")
        os.close(ready)

    sock = socket.socket(fileno=number)
    serve(definition, sock, tell=tell, parent=sys.stdin.fileno())


def _stand_alone(definition: Definition, host: str, port: int, workers: int) -> None:
    from .server import bound, serve

    sock = bound(host, port)
    if workers == 1:
        serve(definition, sock)
        return
    from .supervisor import Group, supervise

    supervise([Group(definition, sock, workers)])


if __name__ == "__main__":
    sys.exit(main())
