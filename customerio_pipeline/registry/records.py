"""What the registry hands out."""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class IntegrationState(StrEnum):
    """Paused: received and landed, not loaded. Deleted: its URLs stopped working."""

    ACTIVE = "active"
    PAUSED = "paused"
    DELETED = "deleted"


class Arrays(StrEnum):
    """Where arrays of events go (stitch-loading 0.1)."""

    JSON = "json"
    """Into a column of `data`, as JSON text."""

    SUBTABLES = "subtables"
    """Into tables of their own, as Stitch lays them out in PostgreSQL."""


class Integration(NamedTuple):
    """A source of events, with a schema of its own in the warehouse."""

    id: int
    name: str
    """Display name; may change."""

    schema: str
    """Never changes."""

    state: IntegrationState
    created_at: datetime
    arrays: Arrays = Arrays.JSON
    """Never changes."""


class WebhookUrl(NamedTuple):
    """A webhook URL as it can be shown: its id, never its token."""

    id: str
    created_at: datetime
    revoked_at: datetime | None

    @property
    def is_live(self) -> bool:
        """Whether deliveries to it are taken."""
        return self.revoked_at is None


class NewUrl(NamedTuple):
    """A webhook URL just made; the only moment at which its token is known (design C8)."""

    id: str
    token: str

    def __repr__(self) -> str:
        """Show the id only: a token in a log or traceback would be leaked."""
        return f"NewUrl(id={self.id!r}, token=…)"


class ApiToken(NamedTuple):
    """A token of the API as it can be shown: its id, never the token."""

    id: str
    name: str
    """What it is for, or whose it is."""

    created_at: datetime
    last_used_at: datetime | None
    """To a minute."""

    revoked_at: datetime | None

    @property
    def is_live(self) -> bool:
        """Whether the API takes it."""
        return self.revoked_at is None


class NewApiToken(NamedTuple):
    """A token of the API just made; the only moment at which it is known."""

    id: str
    token: str

    def __repr__(self) -> str:
        """Show the id only: a token in a log or traceback would be leaked."""
        return f"NewApiToken(id={self.id!r}, token=…)"


class SignatureMode(StrEnum):
    """What becomes of a delivery that no signing key of its integration signed."""

    OFF = "off"
    """Signatures are not checked."""

    RECORD = "record"
    """It is loaded; the verdict is recorded."""

    REQUIRE = "require"
    """It is held: landed, not loaded."""


class SigningKey(NamedTuple):
    """A signing key as it can be shown: its id, never the key."""

    id: str
    added_at: datetime
    removed_at: datetime | None

    @property
    def is_live(self) -> bool:
        """Whether signatures are checked with it."""
        return self.removed_at is None


class LiveKey(NamedTuple):
    """A signing key to check with."""

    id: str
    secret: str
    """As Customer.io shows it."""

    def __repr__(self) -> str:
        """Show the id only: a key in a log or traceback would be leaked."""
        return f"LiveKey(id={self.id!r}, secret=…)"


class SignaturePolicy(NamedTuple):
    """How signatures of an integration's deliveries are checked."""

    mode: SignatureMode = SignatureMode.REQUIRE
    """As it was chosen."""

    keys: tuple[LiveKey, ...] = ()
    """Several at once, so that one can be replaced without a gap."""

    epoch: int = 0
    """Rises with every change of it and with every reverification."""

    @property
    def in_force(self) -> SignatureMode:
        """The mode; without a key there is nothing to check with."""
        return self.mode if self.keys else SignatureMode.OFF


class LiveUrl(NamedTuple):
    """What the receiver needs to know a caller by."""

    token_hash: bytes
    """SHA-256 digest of the token, 32 bytes."""

    url_id: str
    schema: str
    signatures: SignaturePolicy = SignaturePolicy()


class RegistrySnapshot(NamedTuple):
    """Every live URL as of one generation."""

    generation: int
    live_urls: tuple[LiveUrl, ...]
