"""A worker process: serves the application on a listening socket that its parent owns (design C7).

Started by the supervisor as ``python -m receiver.worker``.
"""

import argparse
import os
import resource
import socket

import uvicorn

from customerio_pipeline.settings import Settings, load_settings
from receiver.app import create_app
from receiver.connections import Connections
from receiver.lifeline import when_parent_is_gone
from receiver.logs import configure_logs
from receiver.metrics import Holder, Tally
from receiver.server import Server
from receiver.tls import server_context
from receiver.turned_away import TurnedAway


def main() -> None:
    """Serve until SIGTERM or the parent's death, then drain."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--lifeline", type=int, required=True)
    parser.add_argument("--metrics", type=int, required=True)
    parser.add_argument("--ready", type=int, help="closed once connections are accepted")
    arguments = parser.parse_args()
    configure_logs("worker")
    _raise_descriptor_limit()
    settings = load_settings()
    tally = Tally.claim(arguments.metrics, Holder.WORKER)

    def say_ready() -> None:
        if arguments.ready is not None:
            os.write(arguments.ready, b"1")
            os.close(arguments.ready)

    server = Server(
        _config(settings, tally),
        Connections(
            most=settings.max_connections,
            request_seconds=settings.request_seconds,
            turned_away=TurnedAway(tally),
        ),
        tls=server_context(settings),
        drain_seconds=settings.drain_seconds,
        when_serving=say_ready,
    )

    def drain() -> None:
        server.should_exit = True

    when_parent_is_gone(arguments.lifeline, drain)
    server.run(sockets=[socket.socket(fileno=arguments.socket)])


def _config(settings: Settings, tally: Tally) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(settings, tally),
        loop="uvloop",
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
    )


def _raise_descriptor_limit() -> None:
    """Take as many descriptors as the system allows: idle connections need one each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
