"""Who may send: the allow-list of networks, and what proxies say of the client.

A header can be made up, so ``X-Forwarded-For`` counts only where a trusted proxy wrote it: it is
read from the right, and the first address that is no trusted proxy's is the client.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from customerio_pipeline.settings import Network

_Address = IPv4Address | IPv6Address

# Customer.io sends from about twenty addresses; a flood from others must not cost memory.
_REMEMBERED = 1024


class Senders:
    """Tells whether a request may be taken."""

    def __init__(self, allowed: Sequence[Network], proxies: Sequence[Network]) -> None:
        self._allowed = allowed
        self._proxies = proxies
        self._is_allowed = lru_cache(_REMEMBERED)(self._find_allowed)

    def refused(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Return the client's address if it may not send, None if it may.

        Args:
            peer: address of the other end of the connection.
            headers: of the request, names in lower case.
        """
        if not self._allowed:
            return None
        forwarded = b""
        if self._proxies:
            forwarded = b",".join(value for name, value in headers if name == b"x-forwarded-for")
        return None if self._is_allowed(peer, forwarded) else self._client(peer, forwarded)

    def _find_allowed(self, peer: str, forwarded: bytes) -> bool:
        try:
            address = _address(self._client(peer, forwarded))
        except ValueError:
            return False
        return _is_in(self._allowed, address)

    def _client(self, peer: str, forwarded: bytes) -> str:
        client = peer
        hops = forwarded.decode("latin-1").split(",")
        while hops and (said := hops.pop().strip()) and self._is_proxy(client):
            client = said
        return client

    def _is_proxy(self, client: str) -> bool:
        try:
            return _is_in(self._proxies, _address(client))
        except ValueError:
            return False


def _address(text: str) -> _Address:
    address = ip_address(text)
    # An IPv4 client on a socket for both families.
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


def _is_in(networks: Sequence[Network], address: _Address) -> bool:
    return any(address in network for network in networks)
