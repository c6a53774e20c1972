"""``customerio-pipeline simulate``: stand in for Customer.io."""

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice

import click
import httpx

from customerio_pipeline.cli.output import print_json
from customerio_pipeline.simulator.events import generate
from customerio_pipeline.simulator.sending import Summary, send

_SHARE = click.FloatRange(0, 1)


@click.command()
@click.argument("url")
@click.option(
    "--events",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Bodies to send; 0 for no end.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Bodies a second; as many as the receiver takes when not given.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 256),
    default=4,
    show_default=True,
    help="Connections; on each, an event waits until the one before it is settled.",
)
@click.option(
    "--duplicates",
    type=_SHARE,
    default=0.03,
    show_default=True,
    help="Share of bodies that repeat an earlier event.",
)
@click.option(
    "--malformed",
    type=_SHARE,
    default=0.001,
    show_default=True,
    help="Share of bodies that are no event.",
)
@click.option(
    "--signing-key-env",
    metavar="VAR",
    help="Environment variable that holds a signing key; calls are not signed when not given.",
)
@click.option(
    "--seed",
    type=int,
    help="The same seed sends the same bodies; without one each run differs and has today's times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def simulate(  # noqa: PLR0913  one for each option
    url: str,
    *,
    events: int,
    rate: float | None,
    concurrency: int,
    duplicates: float,
    malformed: float,
    signing_key_env: str | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Send realistic events to the webhook URL, as Customer.io does.

    URL may be - to be read from standard input, so that other users of the machine do not see it
    among the processes.

    A call that fails is repeated with growing pauses, and later events on its connection wait.
    Customer.io goes on for seven days and pauses for an hour after some answers; here these are
    two minutes and five seconds.
    """
    stream = generate(
        secrets.randbits(64) if seed is None else seed,
        duplicates=duplicates,
        malformed=malformed,
        now=time.time if seed is None else None,
    )
    target = _webhook_url(url)
    key = _signing_key(signing_key_env)

    async def run() -> Summary:
        return await send(
            target,
            islice(stream, events or None),
            rate=rate,
            concurrency=concurrency,
            signing_key=key,
            stop=_stop_on_signals(),
            on_failure=_first_of_each(),
        )

    summary = asyncio.run(run())
    if as_json:
        print_json(asdict(summary) | {"events_per_second": summary.events_per_second})
    else:
        click.echo(_sentence(summary))
    if summary.failed:
        sys.exit(1)


def _webhook_url(typed: str) -> str:
    url = sys.stdin.readline().strip() if typed == "-" else typed
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise click.UsageError("URL must be a webhook URL: http://… or https://….")
    return url


def _signing_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise click.UsageError(f"The environment variable {variable} holds no signing key.")
    return key


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


def _first_of_each() -> Callable[[str], None]:
    """Return a function that tells people of each kind of failure once."""
    seen: set[str] = set()

    def tell(reason: str) -> None:
        if reason not in seen:
            seen.add(reason)
            click.echo(f"{reason}: trying again.", err=True)

    return tell


def _sentence(summary: Summary) -> str:
    return (
        f"Sent {summary.sent} in {summary.seconds:.1f} s: {summary.acknowledged} acknowledged "
        f"({summary.events_per_second:.0f}/s), {summary.retried} calls repeated, "
        f"{summary.failed} failed."
    )
