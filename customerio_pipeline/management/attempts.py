"""How often one may be wrong at signing in, or with an API token: from one address, and in all."""

import threading
import time
from collections import OrderedDict, deque
from ipaddress import IPv6Address, ip_address

_WINDOW_SECONDS = 300.0
_FROM_ONE = 5
_IN_ALL = 50
# A flood from many addresses must not cost memory.
_REMEMBERED = 1024
_IPV6_SITE_BITS = 64


class Attempts:
    """Counts failures; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: deque[float] = deque()
        self._of: OrderedDict[str, deque[float]] = OrderedDict()

    def begin(self, client: str) -> float:
        """Count an attempt; return 0, or for how many seconds it may not be made.

        It counts as failed until `succeeded` says otherwise, so that many at once count as well.
        """
        client = _site(client)
        now = time.monotonic()
        with self._lock:
            own = self._of.setdefault(client, deque())
            self._of.move_to_end(client)
            while len(self._of) > _REMEMBERED:
                self._of.popitem(last=False)
            wait = max(_wait(own, _FROM_ONE, now), _wait(self._all, _IN_ALL, now))
            if wait == 0:
                own.append(now)
                self._all.append(now)
            return wait

    def succeeded(self, client: str) -> None:
        """Forget the failures of who knows the password."""
        with self._lock:
            own = self._of.pop(_site(client), deque())
            for moment in own:
                if moment in self._all:
                    self._all.remove(moment)


def _wait(moments: deque[float], limit: int, now: float) -> float:
    while moments and now - moments[0] >= _WINDOW_SECONDS:
        moments.popleft()
    return 0 if len(moments) < limit else moments[0] + _WINDOW_SECONDS - now


def _site(client: str) -> str:
    """Return what one person's addresses have in common: of IPv6 the first half."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(int(address) >> _IPV6_SITE_BITS)
    return client
