"""Why a delivery that came to a live URL was not stored.

All but one are the only reasons for a 503 (design C6): an authentic delivery that cannot be stored.
"""

from enum import StrEnum


class Refusal(StrEnum):
    """Reasons as they stand in the log."""

    DRAINING = "draining"
    SPOOL_NOT_WRITABLE = "spool_not_writable"
    SPOOL_FULL = "spool_full"
    DISK_LOW = "disk_low"
    RECEIVE_FULL = "receive_full"
    QUEUE_FULL = "queue_full"
    QUEUE_SLOW = "queue_slow"
    LANDING_NOT_WRITABLE = "landing_not_writable"
    REGISTRY_UNREADABLE = "registry_unreadable"
    INTERNAL_ERROR = "internal_error"

    HELD_FULL = "held_full"
    """Not authentic, and as many of them are held as may be; 401."""


class NotStoredError(Exception):
    """The delivery is not stored; the sender should repeat it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal
