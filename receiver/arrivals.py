"""How much memory the bodies that are arriving may take."""


class Arrivals:
    """Counts the bytes of all bodies that are arriving in this worker.

    Over the bound, bodies that are larger than their fair share of it are refused as they grow; so
    a few large ones cannot keep out the many small ones, and all together never take more than
    twice the bound.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._count = 0

    def begin(self) -> None:
        """Note a body of which nothing has come yet."""
        self._count += 1

    def grow(self, size: int, grown: int) -> bool:
        """Note that a body of now `size` bytes grew by `grown`; tell whether it may go on."""
        self._bytes += grown
        return self._bytes <= self._max_bytes or size <= self._max_bytes // self._count

    def end(self, size: int) -> None:
        """Note that a body of `size` bytes is complete or given up."""
        self._count -= 1
        self._bytes -= size
