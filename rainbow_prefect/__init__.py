"""rainbow-prefect: from one `rainbow.yml` to Prefect runs.

    import rainbow_prefect

    project = rainbow_prefect.load("rainbow.yml")
    report = project.pipeline("sales").run(parameters={"day": "2024-01-31"})
    flow = rainbow_prefect.build_flow(project.pipeline("sales").plan())

`__all__` is the whole public API; each name is imported when it is first used, Prefect only by what runs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import App, Image, Pipeline, Service
    from .check import Project, load
    from .engine import build_flow
    from .errors import (
        CallError,
        Cancelled,
        ConfigError,
        Mark,
        MissingExtra,
        Problem,
        RainbowError,
        RunError,
        TaskFailed,
        TimedOut,
    )
    from .executors.base import Executor, StubExecutor
    from .observers.base import Observer, RecordingObserver
    from .observers.metrics import Metrics
    from .plan import Plan, Step
    from .run import Command, Event, Large, Metric, Output, PartitionReport, Report, Run, TaskReport, split
    from .tasks.base import Flaw, Place, Task

    __version__: str

__all__ = [
    "App",
    "CallError",
    "Cancelled",
    "Command",
    "ConfigError",
    "Event",
    "Executor",
    "Flaw",
    "Image",
    "Large",
    "Mark",
    "Metric",
    "Metrics",
    "MissingExtra",
    "Observer",
    "Output",
    "PartitionReport",
    "Pipeline",
    "Place",
    "Plan",
    "Problem",
    "Project",
    "RainbowError",
    "RecordingObserver",
    "Report",
    "Run",
    "RunError",
    "Service",
    "Step",
    "StubExecutor",
    "Task",
    "TaskFailed",
    "TaskReport",
    "TimedOut",
    "__version__",
    "build_flow",
    "load",
    "split",
]

_MODULES = {
    "app": ("App", "Image", "Pipeline", "Service"),
    "check": ("Project", "load"),
    "engine": ("build_flow",),
    "errors": (
        *("CallError", "Cancelled", "ConfigError", "Mark", "MissingExtra", "Problem", "RainbowError", "RunError"),
        *("TaskFailed", "TimedOut"),
    ),
    "executors.base": ("Executor", "StubExecutor"),
    "observers.base": ("Observer", "RecordingObserver"),
    "observers.metrics": ("Metrics",),
    "plan": ("Plan", "Step"),
    "run": (
        *("Command", "Event", "Large", "Metric", "Output", "PartitionReport", "Report", "Run", "TaskReport", "split"),
    ),
    "tasks.base": ("Flaw", "Place", "Task"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("rainbow-prefect")
    elif name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
