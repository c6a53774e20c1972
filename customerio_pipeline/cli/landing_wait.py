"""Waiting until what was acknowledged so far has landed."""

import time

from customerio_pipeline.settings import Settings
from receiver.spool_depth import measure_depth

_MOST_SECONDS = 10.0
_LOOK_EVERY_SECONDS = 0.1


def wait_for_landing(settings: Settings) -> None:
    """Return when all that came before the call has landed; at the latest after 10 s.

    It takes longer where no receiver runs, or landing cannot be written to.
    """
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < _MOST_SECONDS:
        try:
            depth = measure_depth(settings.spool)
        except OSError:
            return
        if depth.oldest_seconds <= elapsed:
            return
        time.sleep(_LOOK_EVERY_SECONDS)
