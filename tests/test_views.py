"""Views for analysts: what they say of events whose answer is known, on both warehouses."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from customerio_pipeline.simulator.events import generate
from customerio_pipeline.warehouse.view_columns import OUTCOMES, VIEWS
from tests.postgres_server import fresh_database, running_postgres
from tests.view_houses import DuckDBHouse, House, PostgresHouse

T0 = 1_700_000_000
"""2023-11-14 22:13:20 UTC."""

DAY = 86_400


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Give a PostgreSQL server."""
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["duckdb", "postgres"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """Give an empty warehouse of either kind."""
    if request.param == "duckdb":
        duck = DuckDBHouse(tmp_path)
        yield duck
        duck.close()
        return
    with fresh_database(request.getfixturevalue("server")) as url:
        postgres = PostgresHouse(tmp_path, url)
        yield postgres
        postgres.close()


def _body(event_id: str, metric: str, at: float, data: dict[str, Any], **top: object) -> bytes:
    event = {"event_id": event_id, "object_type": "email", "metric": metric, "timestamp": at}
    return json.dumps({**event, "data": data, **top}).encode()


def _legacy(event_id: str, event_type: str, at: int, **data: object) -> bytes:
    event = {"event_id": event_id, "event_type": event_type, "timestamp": at, "data": data}
    return json.dumps(event).encode()


def _rows(house: House, sql: str) -> list[dict[str, Any]]:
    columns, rows = house.query(sql)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _row(house: House, sql: str) -> dict[str, Any]:
    [row] = _rows(house, sql)
    return row


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is NULL, zero or a system column."""
    return {
        name: value
        for name, value in row.items()
        if value not in (None, 0) and not name.startswith("_sdc_")
    }


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


class TestEvents:
    """One row per event."""

    def test_common_fields_of_a_current_event(self, house: House) -> None:
        """Each is found; the rest keeps its own name, and what is shown is not repeated."""
        data = {
            "identifiers": {"id": "0042", "email": "ada@example.com", "cio_id": "d9c1"},
            "customer_id": "0042",
            "delivery_id": "D1",
            "campaign_id": 7,
            "action_id": 96,
            "journey_id": "J1",
            "recipient": "ada@work.example",
            "subject": "Hi",
            "href": "https://example.com",
            "link_id": 3,
            "machine": True,
            "parent_action_id": 5,
        }
        house.load(_body("e1", "clicked", T0, data))
        row = _row(house, "SELECT * FROM {s}.events")
        assert list(row)[: len(VIEWS["events"][1])] == [c.name for c in VIEWS["events"][1]]
        assert row["received_at"].tzinfo is not None
        assert row["_sdc_batched_at"] >= row["received_at"]
        assert row["prefetched"] is None
        del row["received_at"]
        assert _filled(row) == {
            "event_id": "e1",
            "occurred_at": _at(T0),
            "object_type": "email",
            "metric": "clicked",
            "delivery_id": "D1",
            "customer_id": "0042",
            "cio_id": "d9c1",
            "email": "ada@example.com",
            "campaign_id": 7,
            "action_id": 96,
            "recipient": "ada@work.example",
            "subject": "Hi",
            "href": "https://example.com",
            "link_id": "3",
            "journey_id": "J1",
            "machine": True,
            "by_machine": True,
            "data__customer_id": "0042",
            "data__link_id": 3,
            "data__parent_action_id": 5,
            "timestamp": T0,
        }
        assert not {"data__campaign_id", "data__recipient", "_sdc_key"} & set(row)

    def test_legacy_events_have_the_same_fields(self, house: House) -> None:
        """`event_type` is split, numeric strings become numbers, display forms addresses."""
        house.load(
            _legacy(
                "l1",
                "email_opened",
                T0,
                customer_id="7",
                email_address="Ada L. <ada+x@example.com>",
                email_id="D9",
                campaign_id="12",
                campaign_name="Welcome",
                subject="Hello",
            ),
            _legacy("l2", "customer_unsubscribed", T0, customer_id="", email_address="b@c.d"),
            _legacy("l3", "in_app_clicked", T0, variables={"campaign": {"id": 12, "name": "W"}}),
            _legacy("l4", "odd", T0, campaign_id="twelve"),
        )
        shown = (
            "object_type, metric, delivery_id, customer_id, email, campaign_id, campaign_name,"
            " recipient, subject"
        )
        _, rows = house.query(f"SELECT {shown} FROM {{s}}.events ORDER BY event_id")  # noqa: S608  names of ours
        assert rows == [
            (
                "email",
                "opened",
                "D9",
                "7",
                "ada+x@example.com",
                12,
                "Welcome",
                "ada+x@example.com",
                "Hello",
            ),
            ("customer", "unsubscribed", None, None, "b@c.d", None, None, None, None),
            ("in_app", "clicked", None, None, None, 12, "W", None, None),
            (None, "odd", None, None, None, None, None, None, None),
        ]

    @pytest.mark.parametrize(
        ("timestamp", "expected"),
        [
            (T0, _at(T0)),
            (0, _at(0)),
            (T0 * 1000 + 250, _at(T0 + 0.25)),
            (T0 + 0.5, _at(T0 + 0.5)),
            (str(T0), _at(T0)),
            ("2023-11-14", None),
            (-1, None),
            (2**63 - 1, None),
            (2**70, None),
            (1e300, None),
            ([T0], None),
            (True, None),
            (None, None),
        ],
    )
    def test_occurred_at_never_fails(
        self, house: House, timestamp: object, expected: datetime | None
    ) -> None:
        """Seconds and milliseconds are times; anything else is NULL and stays in its column."""
        house.load(json.dumps({"event_id": "e1", "timestamp": timestamp}).encode())
        assert house.query("SELECT occurred_at FROM {s}.events")[1] == [(expected,)]

    def test_ids_of_another_type_are_found_in_their_split_columns(self, house: House) -> None:
        """Numbers in text, text in numbers, names of transactional messages, flags as text."""
        house.load(
            _body("e1", "opened", T0, {"campaign_id": 1, "transactional_message_id": 3}),
            _body(
                "e2",
                "opened",
                T0,
                {
                    "campaign_id": "0012",
                    "transactional_message_id": "password_reset",
                    "delivery_id": 99,
                    "prefetched": "true",
                    "link_id": "link_1",
                    "identifiers": {"id": 42},
                },
            ),
            _body("e3", "opened", T0, {"campaign_id": "1" * 30, "delivery_id": ["x"]}),
            _body("e4", "opened", T0, {"campaign_id": 2.5, "prefetched": "perhaps"}),
        )
        shown = (
            "campaign_id, transactional_message_id, delivery_id, prefetched, by_machine, link_id,"
            " customer_id"
        )
        _, rows = house.query(f"SELECT {shown} FROM {{s}}.events ORDER BY event_id")  # noqa: S608  names of ours
        assert rows == [
            (1, "3", None, None, False, None, None),
            (12, "password_reset", "99", True, True, "link_1", "42"),
            (None, None, None, None, False, None, None),
            (None, None, None, None, False, None, None),
        ]

    def test_keys_named_like_common_fields_are_numbered(self, house: House) -> None:
        """Nothing of theirs is lost, and nothing of ours is overwritten."""
        more = {"campaign_id": "theirs", "Recipient": "theirs", "campaign_id__2": 1}
        house.load(_body("e1", "sent", T0, {"campaign_id": 7}, **more))
        row = _filled(_row(house, "SELECT * FROM {s}.events"))
        assert row["campaign_id"] == 7
        assert row["campaign_id__3"] == "theirs"
        assert row["campaign_id__2"] == 1
        assert row["Recipient__2"] == "theirs"

    def test_events_without_object_type(self, house: House) -> None:
        """The vendor names it otherwise for preferences (customerio-webhooks 1.2)."""
        house.load(
            b'{"event_id":"e1","object_type_type":"sms","metric":"m"}',
            b'{"event_id":"e2","delivery_type":"push","metric":"m"}',
            b'{"event_id":"e3","metric":"m","object_type":""}',
        )
        _, rows = house.query("SELECT object_type FROM {s}.events ORDER BY event_id")
        assert rows == [("sms",), ("push",), (None,)]


def test_views_exist_when_data_has_no_column_of_theirs(house: House) -> None:
    """Every column is there with its type, and the daily counts are empty."""
    house.load(b'{"event_id":"e1"}')
    row = _row(house, "SELECT * FROM {s}.events")
    assert _filled(row).keys() == {"event_id", "received_at"}
    for view, (_, columns) in VIEWS.items():
        names, rows = house.query(f"SELECT * FROM {{s}}.{view}")  # noqa: S608  names of ours
        assert names == [column.name for column in columns]
        assert len(rows) == (view == "events")
    # Of the right types: no comparison fails.
    house.query(
        "SELECT campaign_id + 1, occurred_at < now(), lower(email), machine OR true FROM {s}.events"
    )


def test_columns_whose_type_a_user_changed(house: House) -> None:
    """Values are read as far as they fit; no view fails, and neither does the load."""
    house.load(_body("e1", "opened", T0, {"delivery_id": "D1", "campaign_id": 7}))
    for view in VIEWS:
        house.meddle(f"DROP VIEW {{s}}.{view}")
    house.meddle("ALTER TABLE {s}.data ALTER COLUMN data__campaign_id TYPE smallint")
    house.meddle('ALTER TABLE {s}.data ALTER COLUMN "timestamp" TYPE varchar(20)')
    house.meddle("ALTER TABLE {s}.data ALTER COLUMN metric TYPE varchar(20)")
    house.load(b'{"event_id":"e2"}')
    row = _row(house, "SELECT campaign_id, opened_at, opened_count FROM {s}.deliveries")
    assert row == {"campaign_id": 7, "opened_at": _at(T0), "opened_count": 1}


class TestDeliveries:
    """One row per delivery."""

    def test_a_delivery_from_draft_to_conversion(self, house: House) -> None:
        """First times and counts per outcome; program and person told apart; texts kept."""
        data = {"delivery_id": "D1", "campaign_id": 7, "customer_id": "42"}
        to = {"recipient": "a@b.c", "subject": "Hi"}
        house.load(
            _body("e1", "drafted", T0, data),
            _body("e2", "sent", T0 + 10, data | to),
            _body("e3", "delivered", T0 + 20, data | to),
            _body("e4", "opened", T0 + 30, data | {"prefetched": True}),
            _body("e6", "opened", T0 + 50, data | {"proxied": True}),
            _body("e5", "opened", T0 + 40, data),
            _body("e7", "clicked", T0 + 60, data | {"machine": True}),
            _body("e8", "converted", T0 + 70, data | {"customer_id": ""}),
            _body("e9", "something_new", T0 + 80, data),
        )
        row = _filled(_row(house, "SELECT * FROM {s}.deliveries"))
        assert row == {
            "delivery_id": "D1",
            "object_type": "email",
            "status": "converted",
            "customer_id": "42",
            "campaign_id": 7,
            "recipient": "a@b.c",
            "subject": "Hi",
            "first_event_at": _at(T0),
            "last_event_at": _at(T0 + 80),
            "event_count": 9,
            "drafted_at": _at(T0),
            "drafted_count": 1,
            "sent_at": _at(T0 + 10),
            "sent_count": 1,
            "delivered_at": _at(T0 + 20),
            "delivered_count": 1,
            "opened_at": _at(T0 + 30),
            "opened_count": 3,
            "clicked_at": _at(T0 + 60),
            "clicked_count": 1,
            "converted_at": _at(T0 + 70),
            "converted_count": 1,
            "human_opened_at": _at(T0 + 40),
            "human_opened_count": 2,
        }

    @pytest.mark.parametrize(
        ("metrics", "status"),
        [
            (["sent"], "sent"),
            (["drafted", "attempted"], "attempted"),
            (["failed", "sent"], "sent"),
            (["sent", "delivered", "bounced"], "bounced"),
            (["sent", "dropped"], "dropped"),
            (["deferred", "sent"], "deferred"),
            (["clicked", "unsubscribed", "opened"], "unsubscribed"),
            (["something_new"], None),
        ],
    )
    def test_status_follows_the_life_of_a_message(
        self, house: House, metrics: list[str], status: str | None
    ) -> None:
        """Whatever the order of arrival."""
        house.load(
            *(
                _body(f"e{number}", metric, T0, {"delivery_id": "D1"})
                for number, metric in enumerate(metrics)
            )
        )
        assert house.query("SELECT status FROM {s}.deliveries")[1] == [(status,)]

    def test_legacy_and_current_events_of_one_delivery(self, house: House) -> None:
        """Both formats existed side by side; `email_id` is the delivery."""
        house.load(
            _legacy("l1", "email_sent", T0, email_id="D1", campaign_id="12"),
            _body("e1", "opened", T0 + 5, {"delivery_id": "D1", "campaign_id": 12}),
            _body("e2", "unsubscribed", T0, {"email_address": "a@b.c"}),
        )
        row = _row(house, "SELECT campaign_id, sent_at, opened_at, status FROM {s}.deliveries")
        assert row == {
            "campaign_id": 12,
            "sent_at": _at(T0),
            "opened_at": _at(T0 + 5),
            "status": "opened",
        }

    def test_simulated_events_counted_by_hand(self, house: House) -> None:
        """Every count of every delivery, and the daily sums, equal those of a few lines here."""
        bodies = [event.body for event in islice(generate(5, legacy=0.2, malformed=0), 3000)]
        house.load(*bodies)
        # Later bodies replace earlier ones of the same event_id.
        events = {event["event_id"]: event for event in map(json.loads, bodies)}.values()
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for event in events:
            delivery = event["data"].get("delivery_id") or event["data"].get("email_id")
            metric = event.get("metric") or event["event_type"].removeprefix("email_")
            if delivery:
                counts[delivery][metric] += 1
        shown = ", ".join(f"{name}_count" for name in OUTCOMES)
        _, rows = house.query(f"SELECT delivery_id, {shown} FROM {{s}}.deliveries")  # noqa: S608  as above
        assert {row[0]: row[1:] for row in rows} == {
            delivery: tuple(counted[name] for name in OUTCOMES)
            for delivery, counted in counts.items()
        }
        daily = _row(
            house,
            "SELECT sum(deliveries) AS deliveries, sum(opened) AS opened,"
            " sum(bounced) AS bounced FROM {s}.campaign_daily",
        )
        assert {name: int(value) for name, value in daily.items()} == {
            "deliveries": len(counts),
            "opened": sum(counted["opened"] > 0 for counted in counts.values()),
            "bounced": sum(counted["bounced"] > 0 for counted in counts.values()),
        }


class TestCampaignDaily:
    """Cohorts by day of sending."""

    def test_rates_of_a_cohort(self, house: House) -> None:
        """The day is that of sending, in UTC, whenever the rest happens."""
        midnight = T0 // DAY * DAY + DAY
        bodies = []

        def add(delivery: str, *metrics: str, at: int, more: dict[str, Any] | None = None) -> None:
            for number, metric in enumerate(metrics):
                data = {"delivery_id": delivery, "campaign_id": 7, **(more or {})}
                bodies.append(_body(f"{delivery}{number}", metric, at + number * 2 * DAY, data))

        add("A", "sent", "delivered", "opened", "opened", "clicked", at=midnight - 1)
        add("B", "sent", "delivered", "opened", at=midnight - 1, more={"prefetched": True})
        add("C", "sent", "bounced", at=midnight - DAY)
        add("D", "sent", "delivered", at=midnight - 1)
        bodies.append(
            _body("D-", "drafted", midnight - 2 * DAY, {"delivery_id": "D", "campaign_id": 7})
        )
        add("E", "sent", "delivered", "unsubscribed", at=midnight)
        house.load(*bodies)
        first, second = _rows(house, "SELECT * FROM {s}.campaign_daily ORDER BY day")
        assert _filled(first) == {
            "day": date(2023, 11, 14),
            "source_type": "campaign",
            "source_id": "7",
            "object_type": "email",
            "deliveries": 4,
            "sent": 4,
            "delivered": 3,
            "opened": 2,
            "human_opened": 1,
            "clicked": 1,
            "human_clicked": 1,
            "bounced": 1,
            "delivered_rate": 0.75,
            "opened_rate": pytest.approx(2 / 3),
            "human_opened_rate": pytest.approx(1 / 3),
            "clicked_rate": pytest.approx(1 / 3),
            "human_clicked_rate": pytest.approx(1 / 3),
            "bounced_rate": 0.25,
        }
        assert _filled(second) == {
            "day": date(2023, 11, 15),
            "source_type": "campaign",
            "source_id": "7",
            "object_type": "email",
            "deliveries": 1,
            "sent": 1,
            "delivered": 1,
            "unsubscribed": 1,
            "delivered_rate": 1.0,
            "unsubscribed_rate": 1.0,
        }

    def test_deliveries_whose_sending_was_never_seen(self, house: House) -> None:
        """What only a sent message can have proves it sent; others count, and not as sent."""
        newsletter = {"newsletter_id": 3}
        house.load(
            _body("e1", "delivered", T0, newsletter | {"delivery_id": "A"}),
            _body("e2", "sent", T0, newsletter | {"delivery_id": "B"}),
            _body("e3", "failed", T0, newsletter | {"delivery_id": "C"}),
            _body("e4", "drafted", T0, newsletter | {"delivery_id": "D"}),
            _body("e5", "failed", T0, newsletter | {"delivery_id": "E"}),
            _body("e6", "sent", T0 + 9, newsletter | {"delivery_id": "E"}),
        )
        row = _row(
            house,
            "SELECT source_type, source_id, deliveries, sent, sent_unseen, delivered, failed,"
            " delivered_rate, failed_rate FROM {s}.campaign_daily",
        )
        assert list(row.values()) == [
            "newsletter",
            "3",
            5,
            3,
            1,
            1,
            1,
            pytest.approx(1 / 3),
            pytest.approx(1 / 5),
        ]

    def test_division_by_zero_is_null(self, house: House) -> None:
        """Nothing sent, nothing delivered."""
        house.load(_body("e1", "drafted", T0, {"delivery_id": "A", "broadcast_id": 4}))
        row = _row(house, "SELECT * FROM {s}.campaign_daily")
        assert row["source_type"] == "broadcast"
        rates = {name: value for name, value in row.items() if name.endswith("_rate")}
        assert rates.pop("failed_rate") == 0
        assert set(rates.values()) == {None}

    def test_channels_without_delivered_are_rated_by_what_was_sent(self, house: House) -> None:
        """In-app messages, Slack and webhooks never report it."""
        for number in range(4):
            data = {"delivery_id": f"D{number}", "transactional_message_id": "receipt"}
            metrics = ["sent", "opened"] if number == 0 else ["sent"]
            house.load(
                *(
                    _body(f"{number}{metric}", metric, T0, data, object_type="in_app")
                    for metric in metrics
                )
            )
        row = _row(
            house,
            "SELECT source_type, source_id, sent, opened_rate, delivered_rate"
            " FROM {s}.campaign_daily",
        )
        assert list(row.values()) == ["transactional", "receipt", 4, 0.25, 0.0]

    def test_times_that_are_none(self, house: House) -> None:
        """Deliveries without any sound timestamp have no day, and are counted."""
        house.load(_body("e1", "sent", -5, {"delivery_id": "A"}))
        row = _row(house, "SELECT day, source_type, source_id, sent FROM {s}.campaign_daily")
        assert list(row.values()) == [None, "unknown", None, 1]
