"""The sealer process: seals what workers closed, for as long as its parent lives.

A process of its own, for a thread in a worker would hold up acknowledgements for a third of a
second at a time. Started by the supervisor as ``python -m receiver.sealer``.
"""

import argparse
import os
import signal
import threading
from pathlib import Path

import structlog

from customerio_pipeline.settings import load_settings
from receiver.lifeline import when_parent_is_gone
from receiver.logs import configure_logs
from receiver.metrics import Holder, Tally, Word
from receiver.sealing import seal_once

_POLL_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0

log = structlog.get_logger()


def main() -> None:
    """Seal until SIGTERM or the parent's death, then seal what is left."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lifeline", type=int, required=True)
    parser.add_argument("--metrics", type=int, required=True)
    parser.add_argument("--ready", type=int, required=True)
    arguments = parser.parse_args()
    configure_logs("sealer")
    settings = load_settings()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    when_parent_is_gone(arguments.lifeline, stop.set)
    os.write(arguments.ready, b"1")
    os.close(arguments.ready)
    tally = Tally.claim(arguments.metrics, Holder.SEALER)
    seal_until(stop, settings.spool, settings.landing, tally)


def seal_until(stop: threading.Event, spool: Path, landing: Path, tally: Tally) -> None:
    """Seal what is closed again and again; after `stop`, once more."""
    pause = _POLL_SECONDS
    trouble: str | None = None
    while True:
        is_last = stop.is_set()
        try:
            seal_once(spool, landing, tally)
        except OSError as error:
            tally.add(Word.SEALING_FAILURES)
            reason = f"{error.strerror or error}: {error.filename}"
            if reason != trouble:
                log.error("sealing_failed", reason=reason)  # noqa: TRY400  the reason says it all
            trouble = reason
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        else:
            if trouble is not None:
                log.info("sealing_again")
            trouble = None
            pause = _POLL_SECONDS
        if is_last:
            return
        stop.wait(pause)


if __name__ == "__main__":
    main()
