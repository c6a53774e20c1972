"""Names of the events that a reporting webhook can be asked for (customerio-webhooks 1.5, 1.7)."""

_METRIC_NAMES = {
    "customer": "subscribed unsubscribed subscription_preferences_changed",
    "email": (
        "drafted attempted sent delivered opened clicked converted unsubscribed bounced dropped"
        " deferred spammed failed undeliverable"
    ),
    "push": (
        "drafted attempted sent delivered opened clicked converted bounced dropped failed"
        " undeliverable"
    ),
    "in_app": "drafted attempted sent opened clicked converted failed undeliverable",
    "sms": (
        "drafted attempted sent delivered clicked converted bounced dropped failed undeliverable"
        " replied"
    ),
    "whatsapp": (
        "drafted attempted sent delivered opened clicked converted bounced dropped failed"
        " undeliverable replied"
    ),
    "slack": "drafted attempted sent clicked converted failed undeliverable",
    "webhook": "drafted attempted sent clicked converted failed undeliverable",
}

METRICS = {object_type: tuple(names.split()) for object_type, names in _METRIC_NAMES.items()}
"""Documented metrics of each ``object_type``."""

SUBSCRIPTION_METRICS = ("subscribed", "unsubscribed", "cio_subscription_preferences_changed")
"""Metrics in payloads whose ``object_type`` is any channel (customerio-webhooks 1.6)."""

ALL_EVENTS = tuple(
    f"{object_type}_{metric}" for object_type, metrics in METRICS.items() for metric in metrics
)
