"""``customerio-pipeline receiver``."""

import click

from customerio_pipeline.settings import load_settings


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes any free one.",
)
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1), help="Worker processes."
)
@click.option(
    "--fd",
    type=click.IntRange(0),
    help="Serve on this inherited listening socket instead. One passed by systemd is taken anyway.",
)
def receiver(host: str, port: int, workers: int, fd: int | None) -> None:
    """Take webhooks on a port, store them durably, and seal them into the landing zone.

    Runs in the foreground and logs JSON lines to standard error. SIGTERM or Ctrl-C drains it,
    SIGHUP replaces all its processes by new ones, with the code and settings of now.
    """
    from receiver.listener import adopt_listener, open_listener
    from receiver.service_manager import passed_descriptor
    from receiver.supervisor import supervise

    settings = load_settings()
    fd = passed_descriptor() if fd is None else fd
    listener = open_listener(host, port) if fd is None else adopt_listener(fd)
    supervise(settings, listener, workers)
