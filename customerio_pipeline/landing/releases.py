"""Releases: files beside the landing files that say which held deliveries are to be loaded.

Landing files never change what they hold, so a delivery that was held is released by one more
file, as immutable as they are. The tables are made of both, whenever they are made.
"""

from collections.abc import Mapping
from pathlib import Path

from customerio_pipeline.landing.offset_files import OffsetFiles, write_offsets
from customerio_pipeline.landing.offsets import OffsetSet

FOLDER = "_releases"


class Releases(OffsetFiles):
    """The releases of one integration; what a damaged one releases stays held meanwhile."""

    def __init__(self, landing: Path, schema: str) -> None:
        """Begin with nothing read."""
        advice = ", or remove it and run `customerio-pipeline integrations reverify`"
        super().__init__(_folder(landing, schema), "release", advice)


def release(landing: Path, schema: str, offsets: Mapping[str, OffsetSet]) -> None:
    """Release held deliveries, durably: the next load takes them.

    Raises:
        OSError: nothing was released.
    """
    write_offsets(landing, _folder(landing, schema), "released_at_ns", offsets)


def _folder(landing: Path, schema: str) -> Path:
    return landing / f"integration={schema}" / FOLDER
