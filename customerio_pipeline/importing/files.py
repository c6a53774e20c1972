"""Files to import: what kind they are shows in their first bytes, whatever their name."""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from customerio_pipeline.errors import ImportFileError

STDIN = "-"

PARQUET = b"PAR1"
GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"


class InputFile(NamedTuple):
    """A file that can be read again and again."""

    name: str
    """As the user gave it."""

    path: Path
    magic: bytes
    """Its first bytes."""


@contextmanager
def input_files(names: Sequence[str]) -> Iterator[list[InputFile]]:
    """Yield the files; what can be read only once (standard input, a pipe) is copied first.

    Raises:
        ImportFileError: one cannot be opened.
    """
    with ExitStack() as copies:
        found = []
        for name in names:
            path = Path(name)
            try:
                if name == STDIN or not (path.is_file() or path.is_dir()):
                    path = copies.enter_context(_copied(name))
                with path.open("rb") as file:
                    found.append(InputFile(name, path, file.read(len(PARQUET))))
            except OSError as error:
                raise unreadable(name, error) from error
        yield found


def unreadable(name: str, error: Exception) -> ImportFileError:
    """Return the error of a file that cannot be read."""
    strerror = error.strerror if isinstance(error, OSError) else None
    reason = strerror or (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    shown = "Standard input" if name == STDIN else name
    return ImportFileError(f"{shown} cannot be read ({reason}); nothing was imported.")


@contextmanager
def _copied(name: str) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(prefix="customerio-import-") as copy:
        if name == STDIN:
            shutil.copyfileobj(sys.stdin.buffer, copy)
        else:
            with Path(name).open("rb") as original:
                shutil.copyfileobj(original, copy)
        copy.flush()
        yield Path(copy.name)
