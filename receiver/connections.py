"""The connections of a worker, by what they wait for, and how long each may wait.

A connection that waits is in one of the ordered sets below, the longest waiting first; so deadlines
and the limit on connections cost nothing while nobody is late. One whose request is being stored is
in none: the spool sees to its deadline.
"""

import fcntl
import struct
import termios
from itertools import chain, islice, takewhile
from time import monotonic
from typing import Protocol

from receiver.metrics import CONNECTION_LIMIT
from receiver.turned_away import TurnedAway

# A sender that calls once a minute keeps its connection: each new one is a chance to be refused.
_KEEP_ALIVE_SECONDS = 75.0
# For the rest of a request that was answered early, so that its sender reads the answer.
_LINGER_SECONDS = 2.0
# A client that does not read its answers.
_STUCK_SECONDS = 10.0
# So many are looked at for one that can be closed to make room for a new one.
_TRIES = 8


class Connection(Protocol):
    """What is asked of a connection."""

    def is_quiet(self) -> bool:
        """Tell whether nothing has come that was not read yet."""

    def time_out(self) -> None:
        """Answer 408 to the request that does not come to its end, and close."""

    def begin_drain(self) -> None:
        """Say in the next answer that it is the last."""

    def close_gently(self) -> None:
        """Close without harm to what was sent."""

    def abort(self) -> None:
        """Close at once."""


_Waiting = dict[Connection, float]
"""Since when (monotonic clock, s) each waits, in this order."""


class Connections:
    """Knows what each connection waits for; protocols keep it current."""

    def __init__(self, *, most: int, request_seconds: float, turned_away: TurnedAway) -> None:
        self.most = most
        """More are not open at the same time."""

        self.turned_away = turned_away

        self.all: set[Connection] = set()
        self.is_draining = False

        self._request_seconds = request_seconds
        self._fresh: _Waiting = {}
        self._idle: _Waiting = {}
        self._arriving: _Waiting = {}
        self._closing: _Waiting = {}
        self._stuck: _Waiting = {}

    def opened(self, connection: Connection) -> None:
        """Note a connection that has sent nothing yet."""
        self.all.add(connection)
        self._fresh[connection] = monotonic()

    def request_begins(self, connection: Connection) -> None:
        """Note that the first byte of a request came."""
        self._fresh.pop(connection, None)
        self._idle.pop(connection, None)
        self._arriving[connection] = monotonic()

    def request_is_whole(self, connection: Connection) -> None:
        """Note that the last byte of the request came."""
        self._arriving.pop(connection, None)

    def request_goes_on(self, connection: Connection) -> None:
        """Give a request its whole time again: the one before it kept it from being read."""
        if self._arriving.pop(connection, None) is not None:
            self._arriving[connection] = monotonic()

    def is_idle(self, connection: Connection) -> None:
        """Note that all its requests are answered."""
        self._idle[connection] = monotonic()

    def is_closing(self, connection: Connection) -> None:
        """Note that it only waits for its client to close, too."""
        self._forget(connection)
        self._closing[connection] = monotonic()

    def is_stuck(self, connection: Connection) -> None:
        """Note that its client does not read."""
        self._stuck[connection] = monotonic()

    def moves_again(self, connection: Connection) -> None:
        """Note that its client reads."""
        self._stuck.pop(connection, None)

    def closed(self, connection: Connection) -> None:
        """Note that it is gone."""
        self.all.discard(connection)
        self._forget(connection)

    def make_room(self) -> bool:
        """Close the connection that is missed least; tell whether there was one.

        Those go first that only wait to be closed, then those that never sent a request, then the
        longest idle, at last the request that has been arriving for the longest time.
        """
        idle = chain(islice(self._fresh, _TRIES), islice(self._idle, _TRIES))
        quiet = (connection for connection in idle if connection.is_quiet())
        missed_least = next(chain(self._closing, quiet, self._arriving), None)
        if missed_least is None:
            return False
        if missed_least not in self._closing:
            self.turned_away.note(CONNECTION_LIMIT)
        missed_least.abort()
        return True

    def sweep(self) -> None:
        """Close what has waited for too long."""
        now = monotonic()
        for connection in _since(self._arriving, now - self._request_seconds):
            connection.time_out()
        for waiting in (self._fresh, self._idle):
            self._close_quiet(waiting, now - _KEEP_ALIVE_SECONDS)
        for connection in _since(self._closing, now - _LINGER_SECONDS):
            connection.abort()
        for connection in _since(self._stuck, now - _STUCK_SECONDS):
            connection.abort()

    def begin_drain(self) -> None:
        """Let each connection end with its next answer."""
        self.is_draining = True
        for connection in list(self.all):
            connection.begin_drain()

    def close_idle(self, quiet_seconds: float) -> None:
        """Close the connections that have been without a request for this time."""
        for waiting in (self._fresh, self._idle):
            self._close_quiet(waiting, monotonic() - quiet_seconds)

    def _close_quiet(self, waiting: _Waiting, since: float) -> None:
        for connection in _since(waiting, since):
            # A request may have come that was not read yet: it is answered first.
            if connection.is_quiet():
                connection.close_gently()

    def _forget(self, connection: Connection) -> None:
        for waiting in (self._fresh, self._idle, self._arriving, self._closing, self._stuck):
            waiting.pop(connection, None)


def has_unread(descriptor: int) -> bool:
    """Tell whether the kernel holds bytes of this socket that were not read yet."""
    (count,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    return bool(count)


def _since(waiting: _Waiting, moment: float) -> list[Connection]:
    return [connection for connection, _ in takewhile(lambda it: it[1] <= moment, waiting.items())]
