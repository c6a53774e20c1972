"""What systemd is told, and what it hands over: sd_notify(3) and sd_listen_fds(3)."""

import os
import socket

from customerio_pipeline.errors import ReceiverError

_FIRST_DESCRIPTOR = 3


def notify(state: str) -> None:
    """Tell the service manager, if there is one, for example ``READY=1``."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(state.encode(), address)
        except OSError:
            # It went away; that is no reason not to serve.
            return


def passed_descriptor() -> int | None:
    """Return the descriptor of the socket that systemd passed, None when it passed none.

    Raises:
        ReceiverError: it passed several.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = os.environ.get("LISTEN_FDS")
    if count != "1":
        raise ReceiverError(
            f"systemd passed {count} sockets: write one ListenStream into the socket unit."
        )
    return _FIRST_DESCRIPTOR
