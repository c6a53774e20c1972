"""Warnings of what knows nothing of Dagster, shown in the log of the run that they belong to."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

_LOGGER = "customerio_pipeline"


class _RunLog(logging.Handler):
    """Hands records on to a run's log."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        super().__init__(logging.WARNING)
        self._context = context

    def emit(self, record: logging.LogRecord) -> None:
        self._context.log.log(record.levelno, record.getMessage())


@contextmanager
def warnings_in_run_log(context: dg.AssetExecutionContext) -> Iterator[None]:
    """Show what is logged as a warning or worse, for the time of the block."""
    handler = _RunLog(context)
    logger = logging.getLogger(_LOGGER)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
