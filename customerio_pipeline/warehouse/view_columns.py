"""Columns of the views for analysts: their order, types and meaning.

The one place that SQL, Dagster and the documentation agree on (docs/analytics.md).
"""

from typing import NamedTuple

from customerio_pipeline.loading.target import ColumnType


class ViewColumn(NamedTuple):
    """One column of a view."""

    name: str
    type: str
    description: str


class Field(NamedTuple):
    """A field of `events` that is looked for at several places of an event."""

    name: str
    type: ColumnType
    sources: tuple[str, ...]
    """Columns of `data`, the first that has a value counts."""

    description: str

    @property
    def column(self) -> ViewColumn:
        """The field as a column of a view."""
        return ViewColumn(self.name, str(self.type), self.description)


def _field(name: str, kind: ColumnType, sources: str, description: str) -> Field:
    return Field(name, kind, tuple(f"data__{source}" for source in sources.split()), description)


DELIVERY_ID = _field(
    "delivery_id",
    ColumnType.TEXT,
    "delivery_id email_id variables__delivery_id variables__email_id",
    "the message to one person; `email_id` of the legacy format",
)
CUSTOMER_ID = _field(
    "customer_id",
    ColumnType.TEXT,
    "identifiers__id customer_id variables__customer__id",
    "the person's id; empty ones are NULL",
)
CIO_ID = _field(
    "cio_id", ColumnType.TEXT, "identifiers__cio_id", "Customer.io's own id of the person"
)
EMAIL_SOURCES = (
    "data__identifiers__email",
    "data__email_address",
    "data__variables__customer__email",
)
"""The second may be a display form such as ``Ada <ada@example.com>``."""

ORIGINS = (
    _field(
        "campaign_id",
        ColumnType.BIGINT,
        "campaign_id variables__campaign__id",
        "the campaign, where one sent the message",
    ),
    _field("newsletter_id", ColumnType.BIGINT, "newsletter_id", "the newsletter, likewise"),
    _field(
        "broadcast_id", ColumnType.BIGINT, "broadcast_id", "the API-triggered broadcast, likewise"
    ),
    _field(
        "transactional_message_id",
        ColumnType.TEXT,
        "transactional_message_id",
        "the transactional message, likewise: its number or its trigger name",
    ),
)
"""What may have sent a message, told apart by which id is there (customerio-webhooks 1.4)."""

ACTION_ID = _field("action_id", ColumnType.BIGINT, "action_id", "the step of the workflow")
CAMPAIGN_NAME = _field(
    "campaign_name",
    ColumnType.TEXT,
    "campaign_name variables__campaign__name",
    "only the legacy format has it",
)
SUBJECT = _field(
    "subject", ColumnType.TEXT, "subject variables__message__subject", "the message's subject"
)
JOURNEY_ID = _field(
    "journey_id", ColumnType.TEXT, "journey_id", "the person's way through the workflow"
)
CONTENT_ID = _field(
    "content_id", ColumnType.BIGINT, "content_id", "the variant of a newsletter's test"
)
LINK_FIELDS = (
    _field("href", ColumnType.TEXT, "href", "the link that was clicked"),
    _field("link_id", ColumnType.TEXT, "link_id", "its id, as text"),
    _field("failure_message", ColumnType.TEXT, "failure_message", "why it failed, bounced …"),
)
FLAGS = (
    _field("proxied", ColumnType.BOOLEAN, "proxied", "the open came through a proxy"),
    _field("prefetched", ColumnType.BOOLEAN, "prefetched", "a program opened it in advance"),
    _field("synthetic", ColumnType.BOOLEAN, "synthetic", "the open was inferred from a click"),
    _field("machine", ColumnType.BOOLEAN, "machine", "the click was made by a program"),
)

_RECIPIENT = ViewColumn(
    "recipient", "text", "address, number, channel or URL it went to; not for push"
)
_EMAIL = ViewColumn("email", "text", "the person's address")
_OBJECT_TYPE = ViewColumn(
    "object_type", "text", "`email`, `push`, `sms` …; the first part of a legacy `event_type`"
)

EVENTS = (
    ViewColumn("event_id", "text", "the key"),
    ViewColumn(
        "occurred_at",
        "timestamptz",
        "when it happened: `timestamp`, in seconds or milliseconds; NULL when that is no time",
    ),
    ViewColumn("received_at", "timestamptz", "when the receiver took it"),
    _OBJECT_TYPE,
    ViewColumn("metric", "text", "`sent`, `opened` …; the rest of a legacy `event_type`"),
    DELIVERY_ID.column,
    CUSTOMER_ID.column,
    CIO_ID.column,
    _EMAIL,
    *(origin.column for origin in ORIGINS),
    ACTION_ID.column,
    CAMPAIGN_NAME.column,
    _RECIPIENT,
    SUBJECT.column,
    *(field.column for field in LINK_FIELDS),
    JOURNEY_ID.column,
    CONTENT_ID.column,
    *(flag.column for flag in FLAGS),
    ViewColumn("by_machine", "boolean", "`prefetched` or `machine`; never NULL"),
    ViewColumn("_sdc_sequence", "bigint", "order of receipt"),
    ViewColumn("_sdc_batched_at", "timestamptz", "when it was loaded: for incremental reading"),
)

OUTCOMES = (
    "drafted",
    "attempted",
    "undeliverable",
    "failed",
    "sent",
    "deferred",
    "delivered",
    "dropped",
    "bounced",
    "opened",
    "clicked",
    "replied",
    "converted",
    "unsubscribed",
    "spammed",
)
"""Metrics of a message in the order of its life: the last one that occurred is its status."""

HUMAN = ("opened", "clicked")
"""Outcomes that programs cause, too."""

_MEANINGS = {
    "attempted": "a try that failed and is repeated",
    "undeliverable": "there was no way to send it",
    "failed": "it could not be sent",
    "dropped": "the address is suppressed",
    "deferred": "the provider tries again later",
    "spammed": "marked as spam",
}


def _outcome_columns(name: str) -> list[ViewColumn]:
    meaning = f" ({_MEANINGS[name]})" if name in _MEANINGS else ""
    return [
        ViewColumn(f"{name}_at", "timestamptz", f"first `{name}`{meaning}"),
        ViewColumn(f"{name}_count", "bigint", f"number of `{name}` events"),
    ]


def _human_columns(name: str) -> list[ViewColumn]:
    return [
        ViewColumn(f"human_{name}_at", "timestamptz", f"first `{name}` not `by_machine`"),
        ViewColumn(f"human_{name}_count", "bigint", "number of these"),
    ]


DELIVERIES = (
    DELIVERY_ID.column._replace(description="the key"),
    _OBJECT_TYPE,
    ViewColumn(
        "status", "text", "the last outcome of its life that occurred, in the order given below"
    ),
    CUSTOMER_ID.column,
    CIO_ID.column,
    _EMAIL,
    *(origin.column for origin in ORIGINS),
    ACTION_ID.column,
    CAMPAIGN_NAME.column,
    _RECIPIENT,
    SUBJECT.column,
    JOURNEY_ID.column,
    CONTENT_ID.column,
    ViewColumn("first_event_at", "timestamptz", "its first event of any kind"),
    ViewColumn("last_event_at", "timestamptz", "its last one"),
    ViewColumn("event_count", "bigint", "number of its events"),
    *(column for name in OUTCOMES for column in _outcome_columns(name)),
    *(column for name in HUMAN for column in _human_columns(name)),
)

CAMPAIGN_DAILY = (
    ViewColumn(
        "day",
        "date",
        "UTC day of the first `sent`; of the first event where no `sent` was received",
    ),
    ViewColumn(
        "source_type",
        "text",
        "`campaign`, `newsletter`, `broadcast`, `transactional`, or `unknown` without any id",
    ),
    ViewColumn("source_id", "text", "its id, as text"),
    ViewColumn("campaign_name", "text", "where the legacy format gave one"),
    ViewColumn("object_type", "text", "the channel"),
    ViewColumn("deliveries", "bigint", "deliveries of the cohort, sent or not"),
    ViewColumn(
        "sent",
        "bigint",
        "with a `sent` event, or with one that only a sent message can have",
    ),
    ViewColumn("sent_unseen", "bigint", "those of `sent` whose `sent` event was never received"),
    ViewColumn("delivered", "bigint", "deliveries that were delivered"),
    ViewColumn("opened", "bigint", "… opened at least once"),
    ViewColumn("human_opened", "bigint", "… opened at least once, not by a program"),
    ViewColumn("clicked", "bigint", "… clicked at least once"),
    ViewColumn("human_clicked", "bigint", "… clicked at least once, not by a program"),
    ViewColumn("converted", "bigint", "… converted"),
    ViewColumn("bounced", "bigint", "… bounced"),
    ViewColumn("unsubscribed", "bigint", "… whose person unsubscribed through it"),
    ViewColumn("spammed", "bigint", "… marked as spam"),
    ViewColumn("dropped", "bigint", "… to a suppressed address"),
    ViewColumn("failed", "bigint", "… `failed` or `undeliverable`, and never sent"),
    ViewColumn("delivered_rate", "double", "delivered / sent"),
    ViewColumn("opened_rate", "double", "opened / base"),
    ViewColumn("human_opened_rate", "double", "human_opened / base"),
    ViewColumn("clicked_rate", "double", "clicked / base"),
    ViewColumn("human_clicked_rate", "double", "human_clicked / base"),
    ViewColumn("converted_rate", "double", "converted / base"),
    ViewColumn("unsubscribed_rate", "double", "unsubscribed / base"),
    ViewColumn("bounced_rate", "double", "bounced / sent"),
    ViewColumn("failed_rate", "double", "failed / deliveries"),
)

VIEWS = {
    "events": ("One row per event: common fields first, then every other column of data.", EVENTS),
    "deliveries": ("One row per message to one person: what became of it, and when.", DELIVERIES),
    "campaign_daily": (
        "Counts and rates per sender (campaign, newsletter …), channel and UTC day of sending.",
        CAMPAIGN_DAILY,
    ),
}
"""Description and columns of each view, by its name."""
