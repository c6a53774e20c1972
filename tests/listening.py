"""Programs that are told: an HTTP server and a mail server, both of this machine."""

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass
class Listener:
    """A server that takes JSON, and what it took."""

    url: str = ""
    status: int = 200
    """What it answers."""

    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    """Headers, in lower case, and body of what it answered with 2xx."""

    @property
    def bodies(self) -> list[Any]:
        """What it took."""
        return [json.loads(body) for _, body in self.requests]


@contextmanager
def listening() -> Iterator[Listener]:
    """Run one."""
    listener = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if listener.status < 300:
                headers = {name.lower(): value for name, value in self.headers.items()}
                listener.requests.append((headers, body))
            self.send_response(listener.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        listener.url = f"http://127.0.0.1:{server.server_port}/hook-3f9a"
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield listener
        finally:
            server.shutdown()
            thread.join()


@dataclass
class MailServer:
    """A mail server, and what it took."""

    port: int
    mails: list[tuple[list[str], Message, bool]] = field(default_factory=list)
    """Recipients, mail, and whether it came encrypted."""


@contextmanager
def mail_server(
    tls: ssl.SSLContext | None = None, login: tuple[str, str] | None = None
) -> Iterator[MailServer]:
    """Run one that offers STARTTLS, and wants user and password where they are given."""
    taken: list[tuple[list[str], Message, bool]] = []

    class Handler:
        async def handle_DATA(  # noqa: N802  the library's name
            self, _: SMTP, session: Session, envelope: Envelope
        ) -> str:
            content = envelope.content
            assert isinstance(content, bytes)
            taken.append((envelope.rcpt_tos, message_from_bytes(content), session.ssl is not None))
            return "250 OK"

    def authenticate(*arguments: object) -> AuthResult:
        given = arguments[-1]
        assert isinstance(given, LoginPassword)
        is_right = (given.login.decode(), given.password.decode()) == login
        return AuthResult(success=is_right, handled=False)

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(
        Handler(),
        hostname="127.0.0.1",
        port=port,
        tls_context=tls,
        auth_required=login is not None,
        auth_require_tls=tls is not None,
        authenticator=authenticate if login else None,
    )
    controller.start()
    try:
        yield MailServer(port, taken)
    finally:
        controller.stop()
