"""Stopping process groups, and a guard that does it when the process that started them cannot.

The guard is run as a file of its own, with nothing but the standard library, so that it starts at
once and stays small.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

_POLL_SECONDS = 0.05
# A dead process counts as a member of its group until its parent, or init, has taken note.
_GIVE_UP_SECONDS = 0.5


def stop_groups(grace_seconds: Mapping[int, float], reap: Callable[[], object]) -> None:
    """Ask every process of the groups to end; kill those of a group whose grace is over.

    Args:
        grace_seconds: of each group, by its id.
        reap: takes note of the caller's own dead children.
    """
    began = time.monotonic()
    for group in grace_seconds:
        signal_group(group, signal.SIGTERM)
    left = set(grace_seconds)
    while left:
        elapsed = time.monotonic() - began
        for group in left:
            if elapsed > grace_seconds[group]:
                signal_group(group, signal.SIGKILL)
        reap()
        given_up = {at for at in left if elapsed > grace_seconds[at] + _GIVE_UP_SECONDS}
        left = {group for group in left - given_up if _is_alive(group)}
        if left:
            time.sleep(_POLL_SECONDS)


def signal_group(group: int, number: signal.Signals) -> None:
    """Send a signal to every process of a group, which may be gone."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def guard(descriptor: int) -> None:
    """Stop the groups that are left when the other end of a pipe is closed, however it came to it.

    Args:
        descriptor: the read end. Lines ``GROUP SECONDS`` name a group and its grace, ``GROUP``
            alone one that has ended.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Whoever stops everything at once shall not stop this process first.
        signal.signal(number, signal.SIG_IGN)
    grace_seconds: dict[int, float] = {}
    with open(descriptor, encoding="ascii") as lines:
        for line in lines:
            group, *seconds = line.split()
            if seconds:
                grace_seconds[int(group)] = float(seconds[0])
            else:
                grace_seconds.pop(int(group), None)
    stop_groups(grace_seconds, reap=lambda: None)


if __name__ == "__main__":
    guard(int(sys.argv[1]))
