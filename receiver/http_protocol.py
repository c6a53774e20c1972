"""HTTP as a worker speaks it: uvicorn's protocol, except that it never changes to another one."""

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Http1Protocol(HttpToolsProtocol):
    """Ignores a client's wish for another protocol, as RFC 9110 section 7.8 allows.

    Java's HTTP client and some proxies send ``Upgrade: h2c`` with whatever they post. The parser
    skips the body of such a request; uvicorn would hand on the request without it.
    """

    _is_skipped = False

    def on_headers_complete(self) -> None:
        """Begin a request, unless the parser skips its body."""
        self._is_skipped = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if not self._is_skipped:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request that was begun."""
        if not self._is_skipped:
            super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Parse what came, and once more the head of a request whose body would be skipped."""
        self._unset_keepalive_if_required()
        unparsed = memoryview(data)
        try:
            while (skipped_at := self._parse(unparsed)) is not None:
                unparsed = unparsed[skipped_at:]
                head = self._head_without_upgrade()
                # The old parser may take the connection for closed.
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(head)
        except httptools.HttpParserError:
            message = "Invalid HTTP request received."
            self.logger.warning(message)
            self.send_400_response(message)

    def _parse(self, data: memoryview) -> int | None:
        """Return where the parser began to skip a body, None when all of `data` is parsed."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._is_skipped:
                skipped_at: int = upgrade.args[0]
                return skipped_at
        return None

    def _head_without_upgrade(self) -> bytes:
        lines = [
            b"%b %b HTTP/%b"
            % (self.parser.get_method(), self.url, self.parser.get_http_version().encode()),
            *(b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"),
        ]
        return b"\r\n".join([*lines, b"", b""])
