"""The errors a user can meet, each with one sentence that names the thing and the fix.

PipelineError
├── SettingsError            a setting is wrong: nothing starts
├── RegistryError            an integration or URL operation cannot be done
│   ├── IntegrationExistsError
│   │   └── SchemaExistsError
│   ├── UnknownIntegrationError
│   ├── UrlLimitError
│   ├── UnknownUrlError
│   ├── UnknownKeyError
│   ├── KeyConflictError
│   ├── UnknownRuleError
│   ├── RuleConflictError
│   ├── ApiTokenExistsError
│   ├── UnknownApiTokenError
│   └── RegistryUnavailableError    transient: the registry cannot be reached
├── NoAlertsError            no way to tell people is set up
├── AlertError               a message was not taken
├── WebhookConflictError     a webhook cannot be connected as things stand
├── AppApiError              Customer.io's App API did not do what was asked
│   ├── AppApiRefusedError          the key or what was asked is at fault
│   └── AppApiUncertainError        it may have done it all the same
├── ReceiverError            the receiver cannot start
├── LandingError             a landing file cannot be read
├── ImportFileError          a file to import cannot be read, or is not what it should be
├── ImportBusyError          transient: another import into the integration is under way
└── WarehouseError           the load rolled back: nothing changed, the next load repeats it
    ├── QueryError                  the user's SQL is at fault
    ├── WarehouseBusyError          transient: another process holds the warehouse
    ├── WarehouseReplacedError      it was damaged and is set aside: the load begins anew
    └── WarehouseUnavailableError   transient: the warehouse cannot be opened or reached
        └── WarehouseDamagedError   it does not hold what was written; a load repairs that

The command line prints the sentence without a traceback and ends with exit code 1, or 2
when the user's input was at fault (``usage = True``).
"""

from typing import ClassVar


class PipelineError(Exception):
    """Something a person can act on; ``str(error)`` is one sentence without secrets."""

    usage: ClassVar[bool] = False


class SettingsError(PipelineError):
    """A setting is missing, malformed or contradicts another."""

    usage = True


class RegistryError(PipelineError):
    """An operation on integrations or their URLs cannot be done as asked."""

    usage = True


class IntegrationExistsError(RegistryError):
    """The display name or schema is already taken."""


class SchemaExistsError(IntegrationExistsError):
    """The schema is already taken, or holds the tables of a deleted integration."""


class UnknownIntegrationError(RegistryError):
    """No integration has this display name or schema."""


class UrlLimitError(RegistryError):
    """The integration has two live URLs already."""


class UnknownUrlError(RegistryError):
    """The integration has no live URL with this id."""


class UnknownKeyError(RegistryError):
    """The integration has no signing key with this id."""


class KeyConflictError(RegistryError):
    """The integration has this signing key already, or as many as it can have."""


class UnknownRuleError(RegistryError):
    """The integration has no rule on fields with this id or pattern."""


class RuleConflictError(RegistryError):
    """The integration has a rule of this pattern already, or as many rules as it can have."""


class ApiTokenExistsError(RegistryError):
    """A live API token has the name."""


class UnknownApiTokenError(RegistryError):
    """There is no live API token with this id."""


class RegistryUnavailableError(RegistryError):
    """The registry cannot be opened or reached now."""

    usage = False


class WebhookConflictError(PipelineError):
    """A webhook of Customer.io cannot be connected as things stand."""

    usage = True


class AppApiError(PipelineError):
    """Customer.io's App API could not be asked, or did not do what was asked."""


class AppApiRefusedError(AppApiError):
    """The App API does not take the key, or what was asked."""

    usage = True


class AppApiUncertainError(AppApiError):
    """The App API may have made the change all the same."""


class ReceiverError(PipelineError):
    """The receiver cannot listen where it should."""


class LandingError(PipelineError):
    """A landing file is damaged or unreadable."""


class NoAlertsError(PipelineError):
    """No way to tell people is set up."""

    usage = True


class AlertError(PipelineError):
    """A message to people, or to their programs, was not taken."""


class ImportFileError(PipelineError):
    """A file to import cannot be read, or is not what it was said to be: nothing was imported."""

    usage = True


class ImportBusyError(PipelineError):
    """Another import into the same integration is under way."""


class WarehouseError(PipelineError):
    """The warehouse refused; the transaction was rolled back."""


class QueryError(WarehouseError):
    """A statement cannot be run as it stands."""

    usage = True


class WarehouseBusyError(WarehouseError):
    """Another process holds the warehouse, or a load of the same schema is under way."""


class WarehouseUnavailableError(WarehouseError):
    """The warehouse cannot be opened or reached."""


class WarehouseDamagedError(WarehouseUnavailableError):
    """The warehouse does not hold what was written to it; the next load makes it again."""


class WarehouseReplacedError(WarehouseError):
    """The warehouse is not the one that the load began with; all of landing may be pending."""
