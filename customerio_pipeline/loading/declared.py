"""Column types of documented Customer.io fields, fixed so that the first event cannot err.

Sources: customerio-webhooks 1.2 to 1.8. Ids of persons are text although they look like numbers
(leading zeros); numeric ids are bigint although the legacy format sends them as text.
"""

from customerio_pipeline.loading.target import ELEMENT, ColumnType

_TOP: dict[ColumnType, str] = {
    ColumnType.TEXT: (
        "object_type object_type_type delivery_type metric event_type trigger_event_id"
    ),
    ColumnType.BIGINT: "timestamp",
}
_DATA: dict[ColumnType, str] = {
    ColumnType.TEXT: (
        "customer_id email_address identifiers.id identifiers.email identifiers.cio_id"
        " delivery_id journey_id trigger_event_id subject recipient failure_message content href"
        " inbound_event_id to tracked_response"
        # legacy, 1.8
        " email_id message_id template_id campaign_name message_name"
        " variables.delivery_id variables.email_id variables.campaign.name variables.campaign.type"
        " variables.customer.id variables.customer.email variables.layout.name"
        " variables.message.name variables.message.subject variables.message.type"
    ),
    ColumnType.BIGINT: (
        "trigger_id broadcast_id campaign_id newsletter_id action_id parent_action_id content_id"
        " transactional_message_id link_id"
        " variables.campaign.id variables.layout.id variables.message.id"
    ),
    ColumnType.BOOLEAN: "proxied prefetched synthetic machine",
    ColumnType.JSON: "recipients",
}

DECLARED_TYPES: dict[tuple[str, ...], ColumnType] = {
    ("event_id",): ColumnType.TEXT,
    **{(name,): kind for kind, names in _TOP.items() for name in names.split()},
    **{("data", *name.split(".")): kind for kind, names in _DATA.items() for name in names.split()},
    # Elements of the one documented array, where it has a table of its own.
    **{
        ("data", "recipients", ELEMENT, name): ColumnType.TEXT
        for name in ("device_id", "device_platform", "failure_message")
    },
}
"""Path of JSON keys -> column type."""
