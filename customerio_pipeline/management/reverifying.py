"""Looking again at what is held, for page and API."""

from typing import TYPE_CHECKING

from customerio_pipeline.errors import LandingError
from customerio_pipeline.management.services import Services
from customerio_pipeline.registry.records import Integration

if TYPE_CHECKING:
    from customerio_pipeline.landing.reverification import Reverification


def reverify_held_of(services: Services, integration: Integration) -> "Reverification":
    """Release what the integration's keys of today match; the next load takes it.

    Raises:
        LandingError: nothing was released.
        RegistryUnavailableError: the registry cannot be used.
    """
    # Of weight, and seldom needed.
    from customerio_pipeline.landing.reverification import reverify

    settings = services.settings
    policy = services.registry.keys.policy(integration)
    tolerance = settings.signature_tolerance_seconds
    try:
        found = reverify(settings.landing, integration.schema, policy, tolerance)
    except OSError as error:
        raise LandingError(
            f"Nothing was released: the landing folder cannot be written to ({error.strerror})."
        ) from None
    # What is held still may be joined by as much again.
    services.registry.keys.begin_epoch(integration)
    return found
