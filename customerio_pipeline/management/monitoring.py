"""Metrics and health of all workers, for monitoring systems: without sign-in."""

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from customerio_pipeline.settings import Settings
from receiver.exposition import CONTENT_TYPE, render
from receiver.health import live, ready_route_of_all
from receiver.metrics import read_figures
from receiver.spool_depth import measure_depth


def monitoring_routes(settings: Settings, metrics: int) -> list[HTTPRouteHandler]:
    """Return the routes; `metrics` is the descriptor of the workers' figures."""
    return [_metrics_route(settings, metrics), live, ready_route_of_all(metrics)]


def _metrics_route(settings: Settings, memory: int) -> HTTPRouteHandler:
    @get("/metrics", sync_to_thread=True)
    def metrics() -> Response[str]:
        try:
            depth = measure_depth(settings.spool)
        except OSError:
            # The workers' health says what is wrong with it.
            depth = None
        text = render(read_figures(memory), depth)
        return Response(text, headers={"content-type": CONTENT_TYPE})

    return metrics
