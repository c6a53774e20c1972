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


class FieldAction(StrEnum):
    """What a load does with the values of a column."""

    DROP = "drop"
    """They are left out."""

    HASH = "hash"
    """A keyed hash takes their place."""

    KEEP = "keep"
    """They are loaded as they are, whatever later rules say."""


class FieldRule(NamedTuple):
    """What becomes of the columns of a pattern."""

    id: str
    pattern: str
    """A glob over names of columns, whatever their case."""

    action: FieldAction
    added_at: datetime


class FieldPolicy(NamedTuple):
    """What loads do with the fields of an integration's events."""

    rules: tuple[FieldRule, ...] = ()
    """In order: the first that matches counts."""

    secret: str | None = None
    """Key of the hashes, 64 hexadecimal digits; none before the first rule that needs it."""

    changed_at: datetime | None = None
    """When a rule was last added, moved or removed; None: never."""

    def __repr__(self) -> str:
        """Show no key: in a log or traceback it would be leaked."""
        return f"FieldPolicy(rules={self.rules!r}, secret=…, changed_at={self.changed_at!r})"


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
