"""What an import lands of a file: one record after another, read as often as it is asked for."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from customerio_pipeline.landing.delivery import LANDED_HEADERS
from customerio_pipeline.landing.signatures import UNCHECKED


class Record(NamedTuple):
    """A record to be landed as one delivery."""

    body: bytes
    sequence: int | None = None
    """``_sdc_sequence``, where the file says it."""

    received_ns: int | None = None
    """Receipt, ns since the epoch, where the file says it."""

    signature: str = UNCHECKED
    headers: tuple[str | None, ...] = (None,) * len(LANDED_HEADERS)


class Source(Protocol):
    """A file, or what stands for one."""

    @property
    def name(self) -> str:
        """As the user gave it."""

    def records(self) -> Iterator[Record]:
        """Yield the records; each call begins anew and yields the same ones.

        Raises:
            ImportFileError: the file cannot be read, or not to its end.
        """
