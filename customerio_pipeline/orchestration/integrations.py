"""What Dagster needs to know of the registry."""

from contextlib import closing
from pathlib import Path

from customerio_pipeline.errors import PipelineError, UnknownIntegrationError
from customerio_pipeline.loading.masking import Masking
from customerio_pipeline.loading.staging import Layout
from customerio_pipeline.registry.records import Arrays, Integration, IntegrationState
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import Settings

_SQLITE = "sqlite:///"


class NotLoadingError(PipelineError):
    """The integration is paused or was deleted, so nothing of it is loaded."""


def known_integrations(settings: Settings) -> list[Integration]:
    """Return the integrations that are not deleted; none when there is no registry yet.

    Raises:
        RegistryUnavailableError: it cannot be reached.
    """
    registry_file = settings.registry.removeprefix(_SQLITE)
    if registry_file != settings.registry and not Path(registry_file).exists():
        return []  # looking at definitions must not create anything
    with closing(Registry.open(settings.registry)) as registry:
        return registry.integrations()


def check_is_loading(settings: Settings, schema: str) -> Integration:
    """Ask the registry as it is now: definitions are older, and pausing takes effect at once.

    Returns the integration.

    Raises:
        NotLoadingError: the integration is paused or deleted.
        RegistryError: the registry cannot be reached.
    """
    with closing(Registry.open(settings.registry)) as registry:
        try:
            integration = registry.find(schema)
        except UnknownIntegrationError:
            raise NotLoadingError(
                f"The integration with schema {schema} was deleted; its tables stay as they are."
            ) from None
    if integration.state is IntegrationState.PAUSED:
        raise NotLoadingError(
            f'"{integration.name}" is paused: what arrives is landed; load it after'
            f" `customerio-pipeline integrations resume {schema}`."
        )
    return integration


class CurrentLayout:
    """How the tables of an integration are laid out at the moment of each call.

    A load asks before each batch, so that a new rule on fields holds for the next one.
    """

    def __init__(self, settings: Settings, integration: Integration) -> None:
        """Open the registry; `close` it.

        Raises:
            RegistryUnavailableError: it cannot be reached.
        """
        self._settings = settings
        self._integration = integration
        self._registry = Registry.open(settings.registry)
        self._generation: int | None = None

    def __call__(self) -> Layout:
        """Return the layout; as long as nothing changed, that is the one of the last call.

        Raises:
            RegistryUnavailableError: the registry cannot be reached.
        """
        generation = self._registry.generation()
        if generation != self._generation:
            policy = self._registry.field_rules.policy(self._integration)
            self._layout = Layout(
                self._settings.max_columns,
                subtables=self._integration.arrays is Arrays.SUBTABLES,
                masking=Masking.of_policy(policy),
            )
            self._generation = generation
        return self._layout

    def close(self) -> None:
        """Close the registry."""
        self._registry.close()


def layout_of(settings: Settings, integration: Integration) -> Layout:
    """Return how the tables of an integration are laid out now.

    Raises:
        RegistryUnavailableError: the registry cannot be reached.
    """
    with closing(CurrentLayout(settings, integration)) as layout:
        return layout()
