"""The web application of the admin process."""

from litestar import Litestar

from customerio_pipeline.management.monitoring import monitoring_routes
from customerio_pipeline.settings import Settings


def create_app(settings: Settings, metrics: int) -> Litestar:
    """Make the application; `metrics` is the descriptor of the workers' figures."""
    return Litestar(
        monitoring_routes(settings, metrics),
        openapi_config=None,
        logging_config=None,
    )
