"""Events in the format of 2014 to 2020, "Email Activity Webhook" (customerio-webhooks 1.8)."""

from random import Random

from customerio_pipeline.simulator.deliveries import Delivery

_CAMPAIGN = "Started Trials - 1 - Welcome, Installing and Deploying"
_MESSAGE = "How trials work"
_MILLISECONDS = 1000


def legacy_event(delivery: Delivery, metric: str, timestamp: int, rng: Random) -> dict[str, object]:
    """Return an event without its id; ids of campaigns and messages are text in it."""
    person = delivery.person
    # In the old format drafts knew neither subject nor address.
    is_draft = metric == "drafted"
    data: dict[str, object] = {
        "campaign_id": "12",
        "campaign_name": _CAMPAIGN,
        "customer_id": person.id,
        "email_address": None if is_draft else f"{person.name} <{person.email}>",
        "email_id": delivery.id,
        "message_id": "65",
        "message_name": _MESSAGE,
        "subject": None if is_draft else delivery.subject,
        "template_id": "35",
    }
    if metric == "clicked":
        data |= {"href": delivery.url, "link_id": delivery.link_id}
    if not is_draft:
        data["variables"] = _variables(delivery, timestamp, rng)
    return {"event_type": f"email_{metric}", "timestamp": timestamp, "data": data}


def _variables(delivery: Delivery, timestamp: int, rng: Random) -> dict[str, object]:
    """Return what the message was rendered with: every attribute of the person among it."""
    person = delivery.person
    return {
        "campaign": {"id": 12, "name": _CAMPAIGN, "type": "behavioral"},
        "customer": {
            "created_at": timestamp - rng.randrange(10**7),
            "email": person.email,
            "first_name": person.name.split()[0],
            "id": person.id,
            "hull_segments": ["Enriched Users", "Known Users", "Started Trials"],
            "intercom-unsubscribed_from_emails": False,
            "vault_trial-end_date": "2018-04-05T00:00:00Z",
            # Does not fit into 32 bits.
            "vault_trial-end_date_unix": timestamp * _MILLISECONDS,
            "vault_trial-user_id": rng.randrange(1, 500),
        },
        "delivery_id": delivery.id,
        "email_id": delivery.id,
        "layout": {"id": 1, "name": "Empty Layout"},
        "message": {
            "id": 65,
            "name": _MESSAGE,
            "subject": delivery.subject,
            "type": "email_action",
        },
    }
