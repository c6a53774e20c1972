"""The management page as a browser without scripts meets it: cookies, forms, answers."""

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.running_receiver import PATIENCE_SECONDS, Receiver, running_receiver

PASSWORD = "correct horse battery"  # noqa: S105  of a test

_CSRF = re.compile(r'name="csrf" value="([0-9a-f]{64})"')
_URL = re.compile(r'value="(http[^"]+/v1/webhooks/[^"]+)"')


class Page:
    """A visitor of a receiver's page; leaves with `stack`."""

    def __init__(self, receiver: Receiver, stack: ExitStack) -> None:
        self._receiver = receiver
        self._stack = stack
        port = receiver.wait_logged("admin_listening")["port"]
        self.address = f"http://127.0.0.1:{port}"
        # To load certificates would take longer than a test.
        self.http = stack.enter_context(
            httpx.Client(base_url=self.address, timeout=PATIENCE_SECONDS, verify=False)  # noqa: S501
        )

    def stranger(self) -> "Page":
        """Return another visitor, who brings no cookie along."""
        return Page(self._receiver, self._stack)

    def get(self, path: str) -> httpx.Response:
        """Load a page."""
        return self.http.get(path)

    def csrf(self, path: str) -> str:
        """Return the token that the forms of a page carry."""
        found = _CSRF.search(self.get(path).text)
        assert found
        return found[1]

    def post(self, path: str, at: str = "/", **fields: str) -> httpx.Response:
        """Send a form that stands on the page `at`."""
        return self.http.post(path, data={"csrf": self.csrf(at), **fields})

    def sign_in(self, password: str = PASSWORD) -> httpx.Response:
        """Send the sign-in form."""
        return self.post("/sign-in", "/sign-in", password=password)

    def create(self, name: str) -> str:
        """Add an integration and return its webhook URL."""
        response = self.post("/new", "/new", name=name)
        assert response.status_code == 200, response.text
        found = _URL.search(response.text)
        assert found
        return found[1]


@contextmanager
def running_page(home: Path, *options: str, **settings: object) -> Iterator[tuple[Receiver, Page]]:
    """Start a receiver with its page; test events reach it at its public address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    given = {
        "admin_port": 0,
        "admin_password": PASSWORD,
        "public_url": f"http://127.0.0.1:{port}",
    }
    options = (f"--port={port}", *options)
    with running_receiver(home, *options, **(given | settings)) as receiver, ExitStack() as stack:
        yield receiver, Page(receiver, stack)
