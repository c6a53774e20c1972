"""A pipe that tells a child process that its parent is gone, however it died."""

import os
import threading
from collections.abc import Callable


def when_parent_is_gone(descriptor: int, act: Callable[[], None]) -> None:
    """Call `act` in a thread once every write end of the pipe is closed; only the parent has one.

    Args:
        descriptor: the read end, inherited.
        act: must be safe to call from a thread.
    """

    def wait() -> None:
        os.read(descriptor, 1)
        act()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
