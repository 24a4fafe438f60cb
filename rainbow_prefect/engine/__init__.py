"""Plans become Prefect flows: `build_flow`, `run`, `retry`. This package alone knows flows, task runs and states."""

from .flow import build_flow, retry, run

__all__ = ["build_flow", "retry", "run"]
