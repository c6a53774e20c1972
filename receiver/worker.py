"""A worker process: serves the application on a listening socket that its parent owns (design C7).

Started by the supervisor as ``python -m receiver.worker``.
"""

import argparse
import socket

import uvicorn

from customerio_pipeline.settings import Settings, load_settings
from receiver.app import create_app
from receiver.http_protocol import Http1Protocol
from receiver.lifeline import when_parent_is_gone
from receiver.logs import configure_logs
from receiver.metrics import Holder, Tally

# A sender that calls once a minute keeps its connection: each new one is a chance to be refused.
_KEEP_ALIVE_SECONDS = 75


def main() -> None:
    """Serve until SIGTERM or the parent's death, then drain."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--lifeline", type=int, required=True)
    parser.add_argument("--metrics", type=int, required=True)
    arguments = parser.parse_args()
    configure_logs("worker")
    tally = Tally.claim(arguments.metrics, Holder.WORKER)
    server = uvicorn.Server(_config(load_settings(), tally))

    def drain() -> None:
        server.should_exit = True

    when_parent_is_gone(arguments.lifeline, drain)
    server.run(sockets=[socket.socket(fileno=arguments.socket)])


def _config(settings: Settings, tally: Tally) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(settings, tally),
        loop="uvloop",
        http=Http1Protocol,
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
    )


if __name__ == "__main__":
    main()
