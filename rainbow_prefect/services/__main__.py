"""`python -m rainbow_prefect.services`: one process that serves, in an image or as a worker of `rainbow serve`.

    python -m rainbow_prefect.services FILE --folder FOLDER
    python -m rainbow_prefect.services - --socket FD --ready FD

The first form serves the service of FILE that RAINBOW_SERVICE names, else its first one, on RAINBOW_PORT with
RAINBOW_WORKERS processes, else as the file says. The second one reads the definition from stdin, which stays open as
long as the parent lives.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from ..errors import RainbowError, RunError
from .definition import Definition, read

PORT = 8000
SECRETS = Path("/run/rainbow/env.json")
"""Variables that `docker inspect` shall not show; `rainbow service up` puts the file there."""


def main() -> int:
    """Serve; the exit status is 1 when the service cannot be started."""
    parser = argparse.ArgumentParser(prog="python -m rainbow_prefect.services")
    parser.add_argument("file")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--socket", type=int)
    parser.add_argument("--ready", type=int)
    given = parser.parse_args()
    try:
        if given.file == "-":
            _work(read(sys.stdin.readline()), given.socket, given.ready)
        else:
            _stand_alone(json.loads(Path(given.file).read_text())["served"], given.folder)
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


def _stand_alone(served: list[dict[str, Any]], folder: Path) -> None:
    from .server import bound, serve

    name = os.environ.get("RAINBOW_SERVICE")
    names = [one["definition"]["service"] for one in served]
    if not served or (name and name not in names):
        raise RunError(f"RAINBOW_SERVICE names no service of this image; it has: {', '.join(names) or 'none'}")
    one = served[names.index(name) if name else 0]
    with contextlib.suppress(FileNotFoundError):
        os.environ.update(json.loads(SECRETS.read_text()))
    data = one["definition"]
    data["env"] = {key: value for key, value in data["env"].items() if key not in os.environ}
    definition = read(json.dumps(data), folder)
    workers = int(os.environ.get("RAINBOW_WORKERS") or one.get("workers") or 1)
    port = int(os.environ.get("RAINBOW_PORT") or one.get("port") or PORT)
    sock = bound("0.0.0.0", port)  # noqa: S104  an image is reached from outside
    if workers == 1:
        serve(definition, sock)
        return
    from .supervisor import Group, supervise

    supervise([Group(definition, sock, workers)])


if __name__ == "__main__":
    sys.exit(main())
