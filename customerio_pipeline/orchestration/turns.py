"""Turns: as many drain runs as there may be take turns when more integrations have something."""

import time

import dagster as dg

_SHORTEST_SECONDS = 20.0
"""A turn pays for the start of its run, some seconds of a core."""

_LOOK_SECONDS = 5.0


class Turn:
    """How long one drain run may go on; begins when it is made."""

    def __init__(self, instance: dg.DagsterInstance, max_seconds: float | None) -> None:
        self._instance = instance
        self._max_seconds = max_seconds
        self._began = self._looked_at = time.monotonic()
        self._queued: frozenset[str] = frozenset()

    def is_over(self) -> bool:
        """Tell whether the time is up, or another run waits in the queue for a place."""
        now = time.monotonic()
        if self._max_seconds is not None and now - self._began >= self._max_seconds:
            return True
        if now - self._began < _SHORTEST_SECONDS or now - self._looked_at < _LOOK_SECONDS:
            return False
        self._looked_at = now
        before = self._queued
        waiting = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])
        self._queued = frozenset(self._instance.get_run_ids(waiting))
        # One that was not there at the last look may find a place without this one's.
        return not before.isdisjoint(self._queued)
