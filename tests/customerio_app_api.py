"""A stand-in for Customer.io's App API: its reporting webhooks (customerio-webhooks 1.7)."""

import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

KEY = "app-api-key-0123456789abcdef"
PATH = "/v1/reporting_webhooks"
LONGEST_ENDPOINT = 255

Webhook = dict[str, Any]


@dataclass
class Answer:
    """An answer in place of the usual one."""

    status: int
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    is_done: bool = False
    """Whether the change is made all the same."""

    silent: bool = False
    """The connection is closed instead."""


class AppApiStandIn:
    """What the workspace holds, what was asked, and what shall be answered."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.webhooks: list[Webhook] = []
        self.asked: list[str] = []
        self.answers: dict[str, deque[Answer]] = {}
        self.hold = threading.Event()
        self.hold.set()

    def add(self, name: str, endpoint: str, **more: object) -> Webhook:
        """Add a webhook, as a person would on the page."""
        webhook = {
            "name": name,
            "id": len(self.webhooks) + 1,
            "type": "webhook",
            "endpoint": endpoint,
            "disabled": False,
            "full_resolution": False,
            "with_content": False,
            "events": ["email_sent"],
        } | more
        self.webhooks.append(webhook)
        return webhook

    def answer(self, method: str, *answers: Answer) -> None:
        """Give these answers to the next requests of the method."""
        self.answers[method] = deque(answers)


class _Handler(BaseHTTPRequestHandler):
    stand_in: ClassVar[AppApiStandIn]

    def _handle(self) -> None:
        stand_in = self.stand_in
        stand_in.asked.append(self.command)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        stand_in.hold.wait()
        planned = stand_in.answers.get(self.command)
        answer = planned.popleft() if planned else None
        if answer is None or answer.is_done:
            usual = self._usual(json.loads(body or b"null"))
            answer = answer or usual
        if answer.silent:
            self.close_connection = True
            return
        content = (
            answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        )
        with suppress(ConnectionError):
            self._send(answer, content)

    def _send(self, answer: Answer, content: bytes) -> None:
        self.send_response(answer.status)
        for name, value in ({"content-length": str(len(content))} | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _handle  # noqa: N815  names of the standard library

    def _usual(self, body: Any) -> Answer:  # noqa: ANN401  JSON
        webhooks = self.stand_in.webhooks
        if self.headers.get("authorization") != f"Bearer {KEY}":
            return Answer(401, {"errors": [{"detail": "unauthorized", "status": "401"}]})
        if self.command == "GET":
            return Answer(200, {"reporting_webhooks": webhooks or None})
        if not body["name"] or not body["events"] or len(body["endpoint"]) > LONGEST_ENDPOINT:
            return Answer(400, {"errors": [{"detail": f"invalid {body['endpoint']}"}]})
        if self.command == "POST":
            return Answer(200, self.stand_in.add(**body))
        for webhook in webhooks:
            if self.path == f"{PATH}/{webhook['id']}":
                webhook.update(body)
                return Answer(200, webhook)
        return Answer(404, {"errors": [{"detail": "not found", "status": "404"}]})

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running_app_api() -> Iterator[AppApiStandIn]:
    """Serve the stand-in on a port of its own."""

    class Handler(_Handler):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Handler.stand_in = AppApiStandIn(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield Handler.stand_in
        finally:
            Handler.stand_in.hold.set()
            server.shutdown()
            thread.join()
