"""Services: functions of plain user code behind HTTP. `create_service(service)` is the FastAPI app of one.

FastAPI is imported only in this package, and nothing is imported here: what serves in an image has no Prefect, no YAML
and no config classes. `definition` is all that the serving part knows of a service.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .application import create_service

__all__ = ["create_service"]


def __getattr__(name: str) -> Any:
    if name == "create_service":
        return import_module(".application", __name__).create_service
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
