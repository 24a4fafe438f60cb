"""Prefect's own lines on a terminal or pipe."""

from __future__ import annotations

import logging
import os

from prefect.logging.handlers import PrefectConsoleHandler

from rainbow_prefect.engine.console import outlive_readers


def test_a_reader_that_went_away_ends_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody_reads:
        handler = PrefectConsoleHandler(stream=nobody_reads)
        logger = logging.getLogger("rainbow.test.console")
        logger.addHandler(handler)

        outlive_readers()
        logger.warning("one")
        logger.warning("two")

        logger.removeHandler(handler)
        assert handler.console.quiet
        os.dup2(os.open(os.devnull, os.O_WRONLY), nobody_reads.fileno())
