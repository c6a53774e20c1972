"""The admin process: its listener and its end.

It handles no delivery, and the receiver needs it for nothing: when its port is taken, it says so
and waits for it.
"""

import argparse
import os
import signal
import socket
import sys
import time

import structlog
import uvicorn
from litestar import Litestar

from customerio_pipeline.errors import RegistryUnavailableError
from customerio_pipeline.management.app import create_app
from customerio_pipeline.management.passwords import (
    WITHOUT_ONE,
    first_password_text,
    make_first_password,
)
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import Settings, load_settings
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
    _print_first_password(settings)
    app = create_app(settings, arguments.metrics)
    uvicorn.Server(_config(app)).run(sockets=[listener])


def _print_first_password(settings: Settings) -> None:
    """Print the page's password, this once; to a person, as a log would keep it."""
    try:
        registry = Registry.open(settings.registry)
        try:
            if sys.stdout.isatty():
                password = make_first_password(settings, registry.admin)
                if password is not None:
                    print(first_password_text(password), flush=True)  # noqa: T201  to the person
            elif settings.admin_password is None and registry.admin.password_hash() is None:
                log.warning("admin_without_password", reason=WITHOUT_ONE)
        finally:
            registry.close()
    except RegistryUnavailableError as error:
        log.warning("registry_unavailable", reason=str(error))


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
