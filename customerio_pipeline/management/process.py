"""The admin process: its listener and its end.

It handles no delivery, and the receiver needs it for nothing: when its port is taken, it says so
and waits for it.
"""

import argparse
import os
import signal
import socket
import time

import structlog
import uvicorn
from litestar import Litestar

from customerio_pipeline.management.app import create_app
from customerio_pipeline.settings import load_settings
from receiver.lifeline import when_parent_is_gone
from receiver.logs import configure_logs

_RETRY_SECONDS = 1.0
_GRACE_SECONDS = 1

log = structlog.get_logger()


def main() -> None:
    """Serve until SIGTERM or the parent's death."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--metrics", type=int, required=True)
    parser.add_argument("--lifeline", type=int, required=True)
    arguments = parser.parse_args()
    configure_logs("admin")
    settings = load_settings()
    when_parent_is_gone(arguments.lifeline, lambda: os.kill(os.getpid(), signal.SIGTERM))
    listener = _wait_for_listener(settings.admin_host, settings.admin_port or 0)
    host, port = listener.getsockname()[:2]
    log.info("admin_listening", host=host, port=port)
    app = create_app(settings, arguments.metrics)
    uvicorn.Server(_config(app)).run(sockets=[listener])


def _wait_for_listener(host: str, port: int) -> socket.socket:
    trouble: str | None = None
    while True:
        try:
            return _listen(host, port)
        except OSError as error:
            reason = error.strerror or str(error)
            if reason != trouble:
                log.warning(
                    "admin_not_listening",
                    reason=f"port {port} of {host} cannot be used: {reason}. Deliveries are taken"
                    " all the same. Choose another port with CUSTOMERIO_ADMIN_PORT, or free it.",
                )
            trouble = reason
        time.sleep(_RETRY_SECONDS)


def _listen(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(address[:2], family=family)


def _config(app: Litestar) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        ws="none",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
