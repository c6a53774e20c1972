"""Names of the events that a reporting webhook can be asked for (customerio-webhooks 1.5, 1.7)."""

_METRICS = {
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

ALL_EVENTS = tuple(
    f"{object_type}_{metric}"
    for object_type, metrics in _METRICS.items()
    for metric in metrics.split()
)
