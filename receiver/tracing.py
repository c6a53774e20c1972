"""Traces for OpenTelemetry, when the extra `otel` is installed and an endpoint is set.

Spans are written by hand: instrumentation of the framework would put the path, and with it the
URL's token, into names and attributes (design C8).
"""

import asyncio
import os
import threading
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

import structlog

from receiver.logs import log_unexpected

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_DEFAULT_NAME = "customerio-receiver"
_FIRST_SERVER_ERROR = 500
_FLUSH_SECONDS = 1.0

log = structlog.get_logger()


class Tracing:
    """Writes a span for each request; a thread of its own sends them, or drops them."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        self._provider = provider
        self._tracer = provider.get_tracer("receiver")
        self._server = SpanKind.SERVER
        self._error = Status(StatusCode.ERROR)

    @classmethod
    def from_environment(cls) -> "Tracing | None":
        """Return it if OpenTelemetry's variables ask for it; nothing is imported otherwise."""
        if not any(os.environ.get(name) for name in _ENDPOINTS):
            return None
        if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
            log.warning(
                "tracing_not_installed",
                reason="an OTLP endpoint is set: install customerio-pipeline[otel] for traces",
            )
            return None
        try:
            return cls(_provider())
        except Exception as error:  # noqa: BLE001  deliveries matter more than a wrong variable
            log_unexpected("tracing_failed", error)
            return None

    def request(
        self, *, url_id: str | None, status: int | None, size: int, took_ns: int, reason: str | None
    ) -> None:
        """Write the span of a request that ended just now; `status` is None when nobody waited."""
        end = time.time_ns()
        span = self._tracer.start_span("webhook", kind=self._server, start_time=end - took_ns)
        span.set_attribute("http.request.body.size", size)
        if status is not None:
            span.set_attribute("http.response.status_code", status)
        if url_id is not None:
            span.set_attribute("customerio.url_id", url_id)
        if reason is not None:
            span.set_attribute("customerio.refused", reason)
        if status is None or status >= _FIRST_SERVER_ERROR:
            span.set_status(self._error)
        span.end(end)

    async def close(self) -> None:
        """Send what is left; a collector that does not answer must not hold up the end."""
        flush = threading.Thread(target=self._provider.shutdown, daemon=True)
        flush.start()
        await asyncio.to_thread(flush.join, _FLUSH_SECONDS)


def _provider() -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME") or _DEFAULT_NAME
    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
