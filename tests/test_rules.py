"""``customerio-pipeline rules``, as a user types it; what loads, checks and rebuilds make of it."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from customerio_pipeline.errors import PipelineError
from customerio_pipeline.loading import load
from customerio_pipeline.loading.masking import Masking
from customerio_pipeline.orchestration.integrations import CurrentLayout
from customerio_pipeline.registry import field_rules
from customerio_pipeline.registry.records import FieldAction
from customerio_pipeline.settings import load_settings
from customerio_pipeline.warehouse.view_columns import VIEWS
from tests.installation import Installation, installed
from tests.landed_bodies import SCHEMA

ADDRESS = "ada@example.com"


def body(event_id: str, **data: object) -> bytes:
    """Return an event of a mail to Ada."""
    data = {
        "delivery_id": f"d_{event_id}",
        "recipient": ADDRESS,
        "identifiers": {"id": "7", "email": ADDRESS},
        "campaign_id": 42,
        "subject": "Hello Ada",
        **data,
    }
    event = {"event_id": event_id, "object_type": "email", "metric": "sent", "timestamp": 1_700_000}
    return json.dumps({**event, "data": data}).encode()


@pytest.fixture
def house(
    tmp_path: Path, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    """Give an installation with the integration Stitch Customerio."""
    monkeypatch.setenv("COLUMNS", "300")
    with installed(tmp_path, warehouse_url, monkeypatch) as (warehouse, registry):
        yield Installation(warehouse, registry)


@pytest.fixture
def duck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """Give one with DuckDB."""
    monkeypatch.setenv("COLUMNS", "300")
    url = f"duckdb:///{tmp_path / 'warehouse' / 'customerio.duckdb'}"
    with installed(tmp_path, url, monkeypatch) as (warehouse, registry):
        yield Installation(warehouse, registry)


def rules(house: Installation, *arguments: str) -> str:
    """Run the command on the integration; return what it printed."""
    command, *rest = arguments
    result = house.run("rules", command, SCHEMA, *rest)
    assert result.exit_code == 0, result.output
    return result.output


def secret_of(house: Installation) -> str:
    """Return the key that nobody is to see."""
    policy = house.registry.field_rules.policy(house.registry.of_schema(SCHEMA))
    assert policy.secret
    return policy.secret


def values(house: Installation, column: str) -> dict[str, Any]:
    """Return the values of a column of `data` by event."""
    rows = house.warehouse.rows(f'SELECT event_id, "{column}" FROM {{s}}.data')  # noqa: S608
    return {str(event_id): value for event_id, value in rows}


def test_rules_are_listed_in_their_order(duck: Installation) -> None:
    """Added last or at a place, moved, removed after a question, by id or pattern."""
    assert "No rules" in rules(duck, "list")
    added = rules(duck, "add", " *email* ", "hash")
    assert "what *email* matches is hashed from the next load on" in added
    assert f"customerio-pipeline rebuild {SCHEMA}" in added
    first = json.loads(rules(duck, "add", "data__x", "keep", "--position", "1", "--json"))
    rules(duck, "add", "data__content__*", "drop")
    assert (first["position"], first["pattern"], first["action"]) == (1, "data__x", "keep")
    assert "is number 3 now" in rules(duck, "move", "data__X", "3")
    listed = json.loads(rules(duck, "list", "--json"))
    assert [(rule["position"], rule["pattern"], rule["action"]) for rule in listed] == [
        (1, "*email*", "hash"),
        (2, "data__content__*", "drop"),
        (3, "data__x", "keep"),
    ]
    assert duck.run("rules", "remove", SCHEMA, first["rule_id"]).exit_code == 1
    assert "Removed" in rules(duck, "remove", first["rule_id"], "--yes")
    shown = rules(duck, "list")
    assert "data__content__*" in shown
    assert "data__x" not in shown
    assert secret_of(duck) not in shown + added + json.dumps(listed)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("add", "", "drop"), "The pattern is empty"),
        (("add", "x" * 201, "drop"), "at most 200"),
        (("add", "data.recipient", "drop"), "the column data__recipient"),
        (("add", "data__[ab", "drop"), "bracket"),
        (("add", "data__ab]", "drop"), "bracket"),
        (("add", "data__recipient__st", "hash"), "leave out the __st"),
        (("add", "event_id", "drop"), "event_id is the key of the table"),
        (("add", "EVENT_ID", "hash"), "event_id is the key of the table"),
        (("add", "_sdc_sequence", "drop"), "neither dropped nor hashed"),
        (("add", "_sdc_*", "hash"), "neither dropped nor hashed"),
        (("add", "*EMAIL*", "drop"), 'has a rule "*email*" already'),
        (("add", "x", "drop", "--position", "9"), "choose from 1 to 2"),
        (("move", "*email*", "2"), "There is no position 2: choose 1"),
        (("move", "nothing", "1"), 'no rule "nothing"'),
        (("remove", "rule_00000000", "--yes"), "rules list stitch_customerio"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(
    duck: Installation, arguments: tuple[str, ...], sentence: str
) -> None:
    """And changes nothing."""
    rules(duck, "add", "*email*", "hash")
    command, *rest = arguments
    error = duck.run("rules", command, SCHEMA, *rest).exception

    assert isinstance(error, PipelineError)
    assert error.usage
    assert sentence in str(error)
    assert len(json.loads(rules(duck, "list", "--json"))) == 1
    assert duck.run("rules", "add", SCHEMA, "x", "mask").exit_code == 2


def test_there_can_be_so_many_rules(duck: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the command that makes room."""
    monkeypatch.setattr(field_rules, "MAX_RULES", 1)
    rules(duck, "add", "x", "drop")
    assert "rules remove" in str(duck.run("rules", "add", SCHEMA, "y", "drop").exception)


def test_rebuild_applies_a_rule_to_what_is_there(house: Installation) -> None:
    """Checks say which rows are from before it; afterwards nothing of the address is left."""
    warehouse = house.warehouse
    warehouse.land(body("e1"), body("e2"), b'{"recipient":"ada@example.com"}')
    assert house.run("load").exit_code == 0
    rules(house, "add", "*recipient", "hash")
    rules(house, "add", "*__identifiers__email", "drop")
    rules(house, "add", "data__campaign_id", "hash")
    warehouse.land(body("e3"))
    assert house.run("load").exit_code == 0
    recipients = values(house, "data__recipient")
    assert recipients["e1"] == ADDRESS
    assert len(recipients["e3"]) == 64

    verified = house.run("verify", "--deep")
    assert verified.exit_code == 1
    assert (
        "2 rows were loaded before the rules on fields last changed, and differ in"
        " data__campaign_id, data__campaign_id__st, data__identifiers__email, data__recipient:"
        f" `customerio-pipeline rebuild {SCHEMA}` applies the rules."
    ) in verified.output.replace(" (missing)", "")
    checked = house.run("rebuild", SCHEMA, "--check")
    assert checked.exit_code == 1
    assert "2 of the different ones were loaded before the rules on fields" in checked.output
    assert f"`customerio-pipeline rebuild {SCHEMA}` applies them" in checked.output

    # A row that is wrong for another reason is no row from before a rule.
    warehouse.change("UPDATE {s}.data SET metric = 'x' WHERE event_id = 'e3'")
    assert "e3 in stitch_customerio.data differs" in house.run("verify", "--deep").output
    rebuilt = json.loads(house.run("rebuild", SCHEMA, "--json").output)
    assert (rebuilt["different"], rebuilt["before_rules"], rebuilt["is_swapped"]) == (3, 2, True)

    recipients = values(house, "data__recipient")
    assert len(set(recipients.values())) == 1
    assert set(values(house, "data__identifiers__email").values()) == {None}
    everything = str(warehouse.events()) + str(warehouse.rejected())
    assert ADDRESS not in everything
    assert secret_of(house) not in everything
    for command in (("verify", "--deep"), ("rebuild", SCHEMA, "--check")):
        result = house.run(*command)
        assert result.exit_code == 0, result.output
        assert "rules on fields" not in result.output

    rules(house, "remove", "*recipient", "--yes")
    checked = house.run("rebuild", SCHEMA, "--check")
    assert "3 of the different ones were loaded before the rules" in checked.output
    assert house.run("rebuild", SCHEMA).exit_code == 0
    assert set(values(house, "data__recipient").values()) == {ADDRESS}
    assert warehouse.rejected()[0][0] != '{"recipient":"ada@example.com"}'


def test_replay_applies_a_rule_to_hours(house: Installation) -> None:
    """Of rows and of rejected records; the account stays exact."""
    house.warehouse.land(body("e1"), b'{"recipient":"ada@example.com"}')
    assert house.run("load").exit_code == 0
    rules(house, "add", "*recipient", "hash")
    rules(house, "add", "*email", "drop")
    found = json.loads(house.run("replay", SCHEMA, "--since", "2020-01-01", "--json").output)
    assert (found["replaced"], found["still_rejected"]) == (1, 1)
    assert ADDRESS not in str(house.warehouse.events()) + str(house.warehouse.rejected())
    assert house.run("verify", "--deep").exit_code == 0


def test_views_go_on_working(house: Installation) -> None:
    """What is dropped is NULL there, a hash is as good as what it stands for to count by."""
    rules(house, "add", "*subject", "drop")
    rules(house, "add", "timestamp", "drop")
    for pattern in ("data__recipient", "*__email", "data__campaign_id", "metric"):
        rules(house, "add", pattern, "hash")
    house.warehouse.land(body("e1"), body("e2", proxied=True))
    assert house.run("load").exit_code == 0
    for view in VIEWS:
        assert house.warehouse.rows(f"SELECT * FROM {{s}}.{view}")  # noqa: S608  our names
    rows = house.warehouse.rows(
        "SELECT recipient, email, subject, campaign_id, occurred_at FROM {s}.events"
    )
    assert len(rows) == 2
    assert len(set(rows)) == 1
    recipient, email, *others = rows[0]
    assert recipient == email
    assert len(str(recipient)) == 64
    assert others == [None, None, None]
    # Columns that come later, beside those of hashes.
    for pattern in ("*subject", "timestamp", "metric"):
        rules(house, "remove", pattern, "--yes")
    house.warehouse.land(body("e3"))
    assert house.run("load").exit_code == 0
    later = "SELECT event_id FROM {s}.events WHERE subject <> '' AND metric = 'sent'"
    assert house.warehouse.rows(f"{later} AND occurred_at IS NOT NULL") == [("e3",)]


def test_a_load_that_goes_on_follows_a_new_rule_with_the_next_batch(
    duck: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch has one set of rules, also one that was staged ahead."""
    monkeypatch.setattr(load, "MAX_BATCH_DELIVERIES", 1)
    house = duck.warehouse
    integration = duck.registry.of_schema(SCHEMA)
    with closing(CurrentLayout(load_settings(), integration)) as layout:
        loader = load.Loader(SCHEMA, house.landing, house.target, layout=layout)
        house.land(body("e1"))
        house.land(body("e2"))
        batches = load.drain(loader)
        next(batches)
        duck.registry.field_rules.add(integration, "*recipient", FieldAction.DROP)
        assert len(list(batches)) == 1
        loader.close()
    assert values(duck, "data__recipient") == {"e1": ADDRESS, "e2": None}


def test_a_key_is_shown_nowhere(duck: Installation, caplog: pytest.LogCaptureFixture) -> None:
    """Not by a command, in a log, a table or a representation; a rule without one is no rule."""
    caplog.set_level("DEBUG")
    rules(duck, "add", "*recipient", "hash")
    rules(duck, "add", "*email", "drop")
    secret = secret_of(duck)
    duck.warehouse.land(body("e1"), b"no JSON")
    said = [
        duck.run(*command).output
        for command in (
            ("load",),
            ("rules", "list", SCHEMA, "--json"),
            ("integrations", "show", SCHEMA, "--json"),
            ("config",),
            ("status", "--json"),
            ("trace", "e1"),
            ("verify", "--deep"),
        )
    ]
    policy = duck.registry.field_rules.policy(duck.registry.of_schema(SCHEMA))
    said += [repr(policy), repr(Masking.of_policy(policy)), caplog.text]
    warehouse = duck.warehouse.file
    assert secret not in "".join(said)
    for file in warehouse.parent.rglob("*"):
        assert secret.encode() not in file.read_bytes()
    with pytest.raises(ValueError, match="need a key"):
        Masking([("x", FieldAction.DROP)])
