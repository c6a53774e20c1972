"""The receiver's worker with the storing taken out: it answers 200 to what it has thrown away.

Everything else is the product's: server, application, authentication, answers, access log.
"""

import asyncio

from receiver import app, worker
from receiver.numbering import Receipt
from receiver.spool import Spool


class UnstoredSpool(Spool):
    """Says at once that a request is stored."""

    def append(self, receipt: Receipt) -> asyncio.Future[None]:  # noqa: ARG002  as the spool's
        """Return a future that has ended."""
        stored = asyncio.get_running_loop().create_future()
        stored.set_result(None)
        return stored


if __name__ == "__main__":
    app.Spool = UnstoredSpool  # type: ignore[attr-defined]  # nothing in the product may offer this
    worker.main()
