"""Traces for OpenTelemetry: what a collector gets, and that the token is not in it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.running_receiver import create_integration, running_receiver

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")


@contextmanager
def collector(status: int = 200) -> Iterator[tuple[str, list[bytes]]]:
    """Run a collector; give its address, and what it gets."""
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(self.path.encode() + str(self.headers).encode() + body)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()


def test_a_span_a_request_without_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The URL's id, status and size arrive; token and unknown tokens do not."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    url = create_integration(tmp_path, "traced")
    with collector() as (endpoint, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        with running_receiver(tmp_path) as receiver:
            assert receiver.post(url.token, b"12345").status_code == 200
            assert receiver.post("some-other-token").status_code == 401
            assert receiver.stop() == 0
    assert received
    spans = []
    for request in received:
        assert url.token.encode() not in request
        assert b"some-other-token" not in request
        message = ExportTraceServiceRequest.FromString(request.partition(b"\n\n")[2])
        for group in message.resource_spans:
            spans += [span for scope in group.scope_spans for span in scope.spans]
    found = [
        {a.key: a.value.string_value or a.value.int_value for a in s.attributes} for s in spans
    ]
    assert found == [
        {
            "http.request.body.size": 5,
            "http.response.status_code": 200,
            "customerio.url_id": url.id,
        },
        {"http.request.body.size": 0, "http.response.status_code": 401},
    ]
    assert {span.name for span in spans} == {"webhook"}
    assert all(span.end_time_unix_nano > span.start_time_unix_nano for span in spans)


@pytest.mark.parametrize(("queue", "works"), [("64", True), ("-1", False)])
def test_a_collector_that_is_gone_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queue: str, *, works: bool
) -> None:
    """Nobody listens, or a variable is wrong: deliveries are taken, the receiver ends by itself."""
    url = create_integration(tmp_path, "alone")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", queue)
    with running_receiver(tmp_path) as receiver:
        assert receiver.post(url.token).status_code == 200
        assert receiver.stop() == 0
        assert not receiver.logged("killed")
        assert bool(receiver.logged("tracing_failed")) is not works
        assert url.token not in receiver.output


def test_nothing_of_it_is_loaded_when_off(tmp_path: Path) -> None:
    """Without an endpoint the worker maps no library of it and logs nothing about it."""
    url = create_integration(tmp_path, "untraced")
    with running_receiver(tmp_path) as receiver:
        assert receiver.post(url.token).status_code == 200
        maps = Path(f"/proc/{receiver.pids('worker')[0]}/maps").read_text()
        assert "google/_upb" not in maps
        assert "tracing" not in receiver.output
