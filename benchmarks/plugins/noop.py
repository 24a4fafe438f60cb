"""A task type that runs in process and gives its input back: what is measured is everything around it."""

from typing import Any, Literal

from rainbow_prefect.run import Run
from rainbow_prefect.tasks.base import Task


class Noop(Task):
    """Give the input back."""

    type: Literal["noop"] = "noop"

    def run(self, run: Run) -> Any:
        return run.input
