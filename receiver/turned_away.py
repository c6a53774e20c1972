"""Requests and connections that are refused before the application sees them: counted, and logged.

Whoever sends nonsense must not fill a disk with log lines, so there is one line a reason now and
then, which says how many were left out since the last one.
"""

import time
from collections import Counter

import structlog

from receiver.metrics import Tally

_SECONDS_BETWEEN_LINES = 10.0

log = structlog.get_logger()


class TurnedAway:
    """Takes note of what was refused."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._left_out: Counter[str] = Counter()
        self._quiet_until: dict[str, float] = {}

    def note(self, reason: str, client: str | None = None) -> None:
        """Count one; `reason` is one of `receiver.metrics.REFUSED_FOR`."""
        self._tally.refused(reason)
        now = time.monotonic()
        if now < self._quiet_until.get(reason, 0.0):
            self._left_out[reason] += 1
            return
        self._quiet_until[reason] = now + _SECONDS_BETWEEN_LINES
        log.info(
            "turned_away", reason=reason, client=client, left_out=self._left_out.pop(reason, 0)
        )
