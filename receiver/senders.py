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
        if self._is_allowed(peer, forwarded):
            return None
        return client_address(peer, forwarded, self._proxies)

    def _find_allowed(self, peer: str, forwarded: bytes) -> bool:
        try:
            address = _address(client_address(peer, forwarded, self._proxies))
        except ValueError:
            return False
        return _is_in(self._allowed, address)


def client_address(peer: str, forwarded: bytes, proxies: Sequence[Network]) -> str:
    """Return the client's address, as the trusted proxies tell it; a made-up one may be any text.

    Args:
        peer: address of the other end of the connection.
        forwarded: the request's ``X-Forwarded-For`` lines, joined by commas.
        proxies: networks whose word counts.
    """
    client = peer
    hops = forwarded.decode("latin-1").split(",")
    while hops and (said := hops.pop().strip()) and is_proxy(client, proxies):
        client = said
    return client


def is_proxy(address: str, proxies: Sequence[Network]) -> bool:
    """Tell whether `address` is that of a trusted proxy."""
    try:
        return _is_in(proxies, _address(address))
    except ValueError:
        return False


def _address(text: str) -> _Address:
    address = ip_address(text)
    # An IPv4 client on a socket for both families.
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


def _is_in(networks: Sequence[Network], address: _Address) -> bool:
    return any(address in network for network in networks)
