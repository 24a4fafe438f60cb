"""The lines that Prefect prints while a run goes on: nobody who reads them may end the run by going away."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from prefect.logging.handlers import PrefectConsoleHandler


def outlive_readers() -> None:
    """Let Prefect print nothing more, instead of raising SystemExit(1), once nobody reads: a worker was killed.

    Source: rich.console.Console.on_broken_pipe.
    """
    for name in ("", *logging.Logger.manager.loggerDict):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, PrefectConsoleHandler):
                console: Any = handler.console
                console.on_broken_pipe = partial(setattr, console, "quiet", True)
