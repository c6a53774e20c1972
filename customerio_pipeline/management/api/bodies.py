"""What the API takes and gives."""

import re
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from litestar import Request
from litestar.exceptions import ClientException
from litestar.handlers import BaseRouteHandler
from msgspec import Meta, Struct

from customerio_pipeline.management.api.problems import bad_field
from customerio_pipeline.management.sessions import Connection
from customerio_pipeline.registry import records
from customerio_pipeline.registry.display_names import MAX_NAME_LENGTH
from customerio_pipeline.registry.field_patterns import MAX_PATTERN_LENGTH
from customerio_pipeline.registry.field_rules import MAX_RULES
from customerio_pipeline.registry.records import (
    Arrays,
    FieldAction,
    IntegrationState,
    SignatureMode,
)
from customerio_pipeline.registry.schema_names import MAX_SCHEMA_LENGTH
from customerio_pipeline.registry.signing_keys import MAX_KEY_LENGTH

_FIELD = re.compile(r"`\$\.(\w+)|field `(.*)`$", re.DOTALL)
# In messages: where it is, which `errors` says.
_PLACE = re.compile(r" - at `\$.*`$")

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_LENGTH)]
SchemaName = Annotated[
    str, Meta(pattern="^[a-z0-9_]*[a-z0-9][a-z0-9_]*$", max_length=MAX_SCHEMA_LENGTH)
]

Position = Annotated[int, Meta(ge=1, le=MAX_RULES)]


class CreateIntegration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An integration to make."""

    name: Name
    schema: SchemaName | None = None
    """Derived from the name when null."""

    reuse_schema: bool = False
    """Take the schema of a deleted integration and continue its tables."""

    arrays: Arrays = Arrays.JSON


class RenameIntegration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new display name."""

    name: Name


class AddKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signing key, as Customer.io shows it."""

    key: Annotated[str, Meta(min_length=1, max_length=MAX_KEY_LENGTH)]


class SetMode(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of a delivery that no key signed."""

    mode: SignatureMode


class AddRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule on fields."""

    pattern: Annotated[str, Meta(min_length=1, max_length=MAX_PATTERN_LENGTH)]
    """A glob over names of columns."""

    action: FieldAction
    position: Position | None = None
    """Its place among the rules; the last one when null."""


class MoveRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another place among the rules."""

    position: Position


TAKEN = (CreateIntegration, RenameIntegration, AddKey, SetMode, AddRule, MoveRule)
"""Every kind of body that a request can have."""


class WebhookUrl(Struct, frozen=True, kw_only=True):
    """A webhook URL, without the secret."""

    url_id: str
    state: Literal["live", "revoked"]
    created_at: datetime
    revoked_at: datetime | None

    @classmethod
    def of(cls, url: records.WebhookUrl) -> "WebhookUrl":
        """Describe a URL."""
        return cls(
            url_id=url.id,
            state="live" if url.is_live else "revoked",
            created_at=url.created_at,
            revoked_at=url.revoked_at,
        )


class UsedUrl(WebhookUrl, frozen=True, kw_only=True):
    """A webhook URL, without the secret, and how it is used."""

    last_used_at: datetime | None
    """Receipt of the newest delivery; null of revoked ones, too."""

    calls_24h: int
    """Deliveries in the last 24 hours; 0 of revoked ones."""

    safe_to_revoke: bool
    """Whether the newer one is in use, and this one has been quiet for an hour."""


class NewUrl(Struct, frozen=True, kw_only=True):
    """A webhook URL just made."""

    url_id: str
    webhook_url: str
    """A secret: in this answer and in no other."""


class Integration(Struct, frozen=True, kw_only=True):
    """An integration and its URLs."""

    name: str
    schema: str
    state: IntegrationState
    created_at: datetime
    arrays: Arrays
    urls: list[WebhookUrl]

    @classmethod
    def of(cls, integration: records.Integration, urls: list[records.WebhookUrl]) -> "Integration":
        """Describe an integration."""
        return cls(
            name=integration.name,
            schema=integration.schema,
            state=integration.state,
            created_at=integration.created_at,
            arrays=integration.arrays,
            urls=[WebhookUrl.of(url) for url in urls],
        )


class NewIntegration(Struct, frozen=True, kw_only=True):
    """An integration just made, and its first URL."""

    integration: Integration
    url: NewUrl


class SigningKey(Struct, frozen=True, kw_only=True):
    """A signing key, without the secret."""

    key_id: str
    state: Literal["live", "removed"]
    added_at: datetime
    removed_at: datetime | None

    @classmethod
    def of(cls, key: records.SigningKey) -> "SigningKey":
        """Describe a key."""
        return cls(
            key_id=key.id,
            state="live" if key.is_live else "removed",
            added_at=key.added_at,
            removed_at=key.removed_at,
        )


class Signatures(Struct, frozen=True, kw_only=True):
    """How signatures of an integration's deliveries are checked."""

    mode: SignatureMode
    """As it was chosen."""

    in_force: SignatureMode
    """The mode; `off` where there is no key."""

    keys: list[SigningKey]


class Rule(Struct, frozen=True, kw_only=True):
    """A rule on fields: what loads do with the values of the columns it matches."""

    rule_id: str
    position: int
    """From 1; the first that matches counts."""

    pattern: str
    action: FieldAction
    added_at: datetime

    @classmethod
    def all_of(cls, rules: list[records.FieldRule]) -> "list[Rule]":
        """Describe the rules of an integration."""
        return [
            cls(
                rule_id=rule.id,
                position=position,
                pattern=rule.pattern,
                action=rule.action,
                added_at=rule.added_at,
            )
            for position, rule in enumerate(rules, start=1)
        ]


class Reverified(Struct, frozen=True, kw_only=True):
    """What came of a look at the held deliveries."""

    released: int
    """Deliveries that the next load takes."""

    held: int
    """Deliveries that are held still."""

    problems: list[str]
    """Files that could not be looked into."""


async def require_right_body(connection: Connection, handler: BaseRouteHandler) -> None:
    """Refuse a body that is not what the handler takes, naming the field.

    Litestar itself would take the text "true" for a truth value.

    Raises:
        HTTPException: 400, 413 or 422.
    """
    expected = handler.parsed_data_field
    if expected is None or not isinstance(connection, Request):
        return
    body = await connection.body()
    try:
        msgspec.json.decode(body, type=expected.annotation)
    except msgspec.ValidationError as error:
        message = str(error)
        place = _FIELD.search(message)
        field = (place[1] or place[2]) if place else ""
        raise bad_field(field, f"{_PLACE.sub('', message)}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ClientException("The body is no JSON.") from None
