"""The listening socket of the receiver."""

import errno
import socket
import time

from customerio_pipeline.errors import ReceiverError

# Connections that wait while workers are replaced (design C7).
BACKLOG = 2048
# After the parent was killed, its workers need a moment to let the port go.
_PORT_PATIENCE_SECONDS = 10.0
_RETRY_SECONDS = 0.1


def open_listener(host: str, port: int) -> socket.socket:
    """Listen on `port` of `host`; 0 takes any free port.

    Raises:
        ReceiverError: the port stays taken, or the address is none of this machine's.
    """
    give_up_at = time.monotonic() + _PORT_PATIENCE_SECONDS
    while True:
        try:
            family, _, _, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            return socket.create_server(address[:2], family=family, backlog=BACKLOG)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ReceiverError(
                    f"The receiver cannot listen on port {port} of {host}: {error.strerror}."
                ) from None
            if time.monotonic() >= give_up_at:
                raise ReceiverError(
                    f"Port {port} of {host} is taken: stop what uses it, or choose another one "
                    "with --port."
                ) from None
        time.sleep(_RETRY_SECONDS)


def adopt_listener(descriptor: int) -> socket.socket:
    """Take over an inherited socket that listens on a TCP port (systemd's socket activation).

    Raises:
        ReceiverError: the descriptor is none.
    """
    try:
        listener = socket.socket(fileno=descriptor)
        listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        listens = 0
    if not listens or listener.family not in (socket.AF_INET, socket.AF_INET6):
        raise ReceiverError(
            f"File descriptor {descriptor} is no listening TCP socket: pass one that was inherited."
        )
    listener.listen(BACKLOG)
    return listener
