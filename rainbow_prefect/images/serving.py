"""What an image that serves has beside the user's code: its definition, and the part of this package that serves.

The files of that part are copied as they are: no Prefect and no YAML comes with them, nothing of ours must be fetched, and an
image serves with exactly the version that built it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

FOLDER = ".rainbow"
DEFINITION = "service.json"
PACKAGES = ("fastapi>=0.139,<0.151", "uvicorn>=0.30,<1", "uvloop>=0.21", "httptools>=0.6", "orjson>=3.10")
UPLOADS = "python-multipart>=0.0.18"
PORT = 8000

_PACKAGE = Path(__file__).parents[1]
_LEFT_OUT = ("local.py", "on_docker.py", "manifests.py", "update.py")
_INIT = '"""The serving part of rainbow-prefect, as it was when this image was built."""\n'
_READY = (
    "import os, urllib.request as r; "
    "r.urlopen(f\"http://127.0.0.1:{os.environ.get('RAINBOW_PORT', '%d')}/readyz\", timeout=4)"
)


def files(service: Mapping[str, Any]) -> dict[str, str]:
    """The files to add to the code: path and text."""
    return {DEFINITION: f"{json.dumps(service, indent=2)}\n", **_runtime()}


def digest(service: Mapping[str, Any]) -> str:
    """Tells a changed definition, or another version of the serving part."""
    return hashlib.sha256(json.dumps([service, _runtime()], sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=1)
def _runtime() -> dict[str, str]:
    below = f"{FOLDER}/rainbow_prefect"
    found = {f"{below}/__init__.py": _INIT, f"{below}/errors.py": (_PACKAGE / "errors.py").read_text()}
    for file in sorted((_PACKAGE / "services").glob("*.py")):
        if file.name not in _LEFT_OUT:
            found[f"{below}/services/{file.name}"] = file.read_text()
    return found


def lines(service: Mapping[str, Any]) -> list[str]:
    """The last lines of the Dockerfile: how the image serves and says that it is ready."""
    served = service.get("served") or [{}]
    port = served[0].get("port") or PORT
    ready = json.dumps(["python3", "-c", _READY % port])
    command = ["python3", "-m", "rainbow_prefect.services", f"/app/{DEFINITION}", "--folder", "/app"]
    return [
        f"ENV PYTHONPATH=/app/{FOLDER}",
        f"EXPOSE {port}",
        f"HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD {ready}",
        "ENTRYPOINT []",
        f"CMD {json.dumps(command)}",
    ]
