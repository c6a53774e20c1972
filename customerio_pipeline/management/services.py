"""What the handlers of page and API work with, each opened when it is first needed."""

import threading

from customerio_pipeline.management.attempts import Attempts
from customerio_pipeline.management.passwords import adopt_password
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import Settings


class Services:
    """One set of them for the process; safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.attempts = Attempts()
        self._lock = threading.Lock()
        self._registry: Registry | None = None

    @property
    def registry(self) -> Registry:
        """The registry; not opened before, since metrics are served without it, too.

        Raises:
            RegistryUnavailableError: it cannot be opened now.
        """
        with self._lock:
            if self._registry is None:
                registry = Registry.open(self.settings.registry)
                try:
                    adopt_password(self.settings, registry.admin)
                except BaseException:
                    registry.close()
                    raise
                self._registry = registry
            return self._registry

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            if self._registry is not None:
                self._registry.close()
                self._registry = None
