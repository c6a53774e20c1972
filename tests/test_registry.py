"""The registry on both of its databases, with several processes at once."""

import multiprocessing
import sqlite3
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from customerio_pipeline.errors import (
    ApiTokenExistsError,
    IntegrationExistsError,
    RegistryError,
    RegistryUnavailableError,
    UnknownApiTokenError,
    UnknownIntegrationError,
    UnknownUrlError,
    UrlLimitError,
)
from customerio_pipeline.registry.records import (
    Arrays,
    FieldAction,
    FieldPolicy,
    IntegrationState,
    NewUrl,
    SignaturePolicy,
)
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.registry.tokens import hash_token, webhook_url
from customerio_pipeline.settings import MAX_PUBLIC_URL_LENGTH
from tests.postgres_server import fresh_database

PROCESSES = 3

# One worker runs this file, so that one PostgreSQL server serves it.
pytestmark = pytest.mark.xdist_group("registry")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a registry that does not exist yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/registry.sqlite"
    else:
        with fresh_database(request.getfixturevalue("postgres")) as database:
            yield database


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    """Return an empty registry."""
    opened = Registry.open(url)
    yield opened
    opened.close()


def test_create_makes_an_active_integration_with_one_live_url(registry: Registry) -> None:
    """The first URL works at once, and its token is 256 random bits."""
    integration, new = registry.create("Stitch Customer.io")

    assert integration.schema == "stitch_customerio"
    assert integration.state is IntegrationState.ACTIVE
    assert abs(integration.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert registry.integrations() == [integration]
    (live,) = registry.snapshot().live_urls
    assert (live.url_id, live.schema) == (new.id, "stitch_customerio")
    assert live.token_hash == hash_token(new.token)
    assert len(new.token) == 43
    assert new.id.startswith("url_")


def test_name_is_unique_whatever_its_case(registry: Registry) -> None:
    """Two names that people take for the same cannot both exist."""
    registry.create("Événements", schema="one")
    with pytest.raises(IntegrationExistsError, match="Événements"):
        registry.create("ÉVÉNEMENTS", schema="two")


def test_schema_is_unique(registry: Registry) -> None:
    """T-2.1: a second integration that gives the same schema is refused, naming the first."""
    registry.create("Stitch Customer.io")
    with pytest.raises(IntegrationExistsError, match=r"Stitch Customer\.io"):
        registry.create("Stitch Customerio")
    other, _ = registry.create("Stitch Customerio", schema="stitch_2")
    assert other.schema == "stitch_2"


def test_refused_creation_leaves_nothing(registry: Registry) -> None:
    """A change is all or nothing, and the generation tells of real ones only."""
    registry.create("One")
    before = registry.snapshot()
    with pytest.raises(IntegrationExistsError):
        registry.create("one!", schema="one")
    assert registry.snapshot() == before


def test_schema_of_a_deleted_integration_needs_consent(registry: Registry) -> None:
    """T-2.4: the old table would be continued, so the user is asked first."""
    first, _ = registry.create("X")
    registry.delete(first)
    with pytest.raises(IntegrationExistsError, match="--reuse-schema"):
        registry.create("X")
    second, _ = registry.create("X", reuse_schema=True)
    assert (second.schema, second.id != first.id) == ("x", True)
    with pytest.raises(IntegrationExistsError):
        registry.create("Y", schema="x", reuse_schema=True)


def test_find_takes_name_or_schema(registry: Registry) -> None:
    """Users type whichever they remember."""
    integration, _ = registry.create("Stitch Customer.io")
    for typed in ("Stitch Customer.io", " STITCH customer.IO ", "stitch_customerio"):
        assert registry.find(typed) == integration
    with pytest.raises(UnknownIntegrationError, match="integrations list"):
        registry.find("nothing")


@pytest.mark.parametrize("schema", ["", "a\0b", "Shop", "\U0010ffff", "x" * 10_000])
def test_no_integration_has_an_impossible_schema(registry: Registry, schema: str) -> None:
    """Whatever stands in an address; PostgreSQL takes no NUL."""
    registry.create("Shop")
    with pytest.raises(UnknownIntegrationError, match="no integration"):
        registry.of_schema(schema)


def test_find_refuses_to_guess(registry: Registry) -> None:
    """A name that is also another's schema could delete the wrong one."""
    registry.create("prod", schema="old")
    registry.create("Other", schema="prod")
    with pytest.raises(RegistryError, match="name of one integration and the schema of another"):
        registry.find("prod")


def test_rename_keeps_the_schema(registry: Registry) -> None:
    """T-2.3; a name may change its case, but not become another's."""
    integration, _ = registry.create("Foo")
    registry.create("Bar")
    renamed = registry.rename(integration, "FOO")
    assert (renamed.name, renamed.schema) == ("FOO", "foo")
    with pytest.raises(IntegrationExistsError):
        registry.rename(renamed, "bar")
    assert registry.find("foo").name == "FOO"


def test_paused_integration_keeps_its_urls(registry: Registry) -> None:
    """Paused stops loading only: the receiver must go on taking events."""
    integration, _ = registry.create("X")
    assert registry.pause(integration).state is IntegrationState.PAUSED
    assert registry.find("X").state is IntegrationState.PAUSED
    assert len(registry.snapshot().live_urls) == 1
    assert registry.resume(integration).state is IntegrationState.ACTIVE


def test_deleted_integration_has_no_live_url(registry: Registry) -> None:
    """Its URLs stop working and it can be changed no more."""
    integration, _ = registry.create("X")
    registry.generate_url(integration)
    registry.delete(integration)
    assert registry.snapshot().live_urls == ()
    assert registry.integrations() == []
    assert not any(url.is_live for url in registry.urls(integration))
    changes: list[Callable[[], object]] = [
        lambda: registry.rename(integration, "Y"),
        lambda: registry.pause(integration),
        lambda: registry.resume(integration),
        lambda: registry.delete(integration),
        lambda: registry.generate_url(integration),
    ]
    for change in changes:
        with pytest.raises(UnknownIntegrationError):
            change()


def test_at_most_two_urls_are_live(registry: Registry) -> None:
    """Design C8: generate, switch over, revoke the old one, and again."""
    integration, first = registry.create("X")
    second = registry.generate_url(integration)
    with pytest.raises(UrlLimitError, match="revoke one first"):
        registry.generate_url(integration)
    registry.revoke_url(integration, first.id)
    third = registry.generate_url(integration)
    assert {live.url_id for live in registry.snapshot().live_urls} == {second.id, third.id}
    assert [(url.id, url.is_live) for url in registry.urls(integration)] == [
        (first.id, False),
        (second.id, True),
        (third.id, True),
    ]


def test_only_a_live_url_of_the_integration_can_be_revoked(registry: Registry) -> None:
    """Neither twice, nor another's, nor one that never was."""
    mine, my_url = registry.create("Mine")
    _, other_url = registry.create("Other")
    registry.revoke_url(mine, my_url.id)
    for url_id in (my_url.id, other_url.id, "url_00000000", "\ud800"):
        with pytest.raises(UnknownUrlError):
            registry.revoke_url(mine, url_id)


def test_generation_rises_with_every_change(registry: Registry) -> None:
    """Receivers poll this number alone."""
    seen = [registry.generation()]

    def note() -> None:
        seen.append(registry.generation())
        assert registry.snapshot().generation == seen[-1]

    integration, new = registry.create("X")
    note()
    registry.rename(integration, "Y")
    note()
    registry.pause(integration)
    note()
    registry.generate_url(integration)
    note()
    registry.revoke_url(integration, new.id)
    note()
    registry.delete(integration)
    note()
    assert seen == sorted(set(seen))


def test_a_registry_of_an_earlier_release_is_upgraded(url: str, registry: Registry) -> None:
    """Integrations and URLs stay; what is new has its default."""
    registry.create("Shop")
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        for column in ("arrays", "signatures", "signatures_epoch"):
            connection.execute(sa.text(f"ALTER TABLE registry_integrations DROP COLUMN {column}"))
        connection.execute(sa.text("DROP TABLE registry_signing_keys"))
        connection.execute(sa.text("DROP TABLE registry_api_tokens"))
        connection.execute(sa.text("DROP TABLE registry_field_rules"))
        connection.execute(sa.text("DROP TABLE registry_field_policies"))
        connection.execute(sa.text("UPDATE registry_state SET schema_version = 1"))
    engine.dispose()
    with closing(Registry.open(url)) as upgraded:
        assert upgraded.find("Shop").arrays is Arrays.JSON
        assert upgraded.create("Other", arrays=Arrays.SUBTABLES)[0].arrays is Arrays.SUBTABLES
        assert upgraded.keys.policy(upgraded.find("Shop")) == SignaturePolicy()
        assert len(upgraded.snapshot().live_urls) == 2
        assert upgraded.api_tokens.list() == []
        assert upgraded.field_rules.policy(upgraded.find("Shop")) == FieldPolicy()


def test_rules_on_fields_and_their_key_stay_with_the_tables(registry: Registry) -> None:
    """Whoever continues the schema of a deleted integration continues both; others begin anew."""
    shop, _ = registry.create("Shop")
    other, _ = registry.create("Other")
    registry.field_rules.add(shop, "x", FieldAction.KEEP)
    assert registry.field_rules.policy(shop).secret is None
    registry.field_rules.add(shop, "*email*", FieldAction.HASH, position=1)
    registry.field_rules.add(other, "*email*", FieldAction.DROP)
    before = registry.field_rules.policy(shop)
    assert [rule.pattern for rule in before.rules] == ["*email*", "x"]
    assert before.secret
    assert before.secret != registry.field_rules.policy(other).secret
    assert before.secret not in repr(before)
    registry.delete(shop)
    with pytest.raises(UnknownIntegrationError):
        registry.field_rules.add(shop, "y", FieldAction.DROP)
    again, _ = registry.create("Shop", reuse_schema=True)
    assert registry.field_rules.policy(again) == before
    for rule in before.rules:
        registry.field_rules.remove(again, rule.id)
    after = registry.field_rules.policy(again)
    assert (after.rules, after.secret) == ((), before.secret)
    assert after.changed_at
    assert before.changed_at
    assert after.changed_at > before.changed_at


def test_rules_of_two_at_once_are_all_there(url: str, registry: Registry) -> None:
    """In some order, each at a place of its own."""
    shop, _ = registry.create("Shop")

    def add(number: int) -> None:
        with closing(Registry.open(url)) as own:
            own.field_rules.add(shop, f"x{number}", FieldAction.DROP, position=1)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, range(8)))
    rules = registry.field_rules.list(shop)
    assert {rule.pattern for rule in rules} == {f"x{number}" for number in range(8)}


def test_an_api_token_is_known_until_it_is_revoked(registry: Registry) -> None:
    """By its id; its use is noted; neither it nor another of its name is anything afterwards."""
    new = registry.api_tokens.create(" Terraform ")
    assert registry.api_tokens.id_of("x" * 43) is None
    assert registry.api_tokens.list()[0].last_used_at is None
    assert registry.api_tokens.id_of(new.token) == new.id
    [listed] = registry.api_tokens.list()
    assert (listed.name, listed.is_live, listed.last_used_at is None) == ("Terraform", True, False)
    with pytest.raises(ApiTokenExistsError, match='"Terraform" already'):
        registry.api_tokens.create("TERRAFORM")
    registry.api_tokens.revoke(new.id)
    assert registry.api_tokens.id_of(new.token) is None
    with pytest.raises(UnknownApiTokenError, match="no live API token"):
        registry.api_tokens.revoke(new.id)
    again = registry.api_tokens.create("terraform")
    assert registry.api_tokens.id_of(again.token) == again.id
    assert new.token not in repr(new)


def test_changes_show_in_other_connections(url: str, registry: Registry) -> None:
    """What the command line changes, a running receiver sees."""
    receiver = Registry.open(url)
    before = receiver.generation()
    _, new = registry.create("X")
    assert receiver.generation() > before
    assert [live.url_id for live in receiver.snapshot().live_urls] == [new.id]
    receiver.close()


_gate: Barrier


def _wait_at(gate: Barrier) -> None:
    global _gate  # noqa: PLW0603  the one way into a pool's processes
    _gate = gate


def _open_and_create(url: str) -> str:
    _gate.wait()
    registry = Registry.open(url)
    try:
        registry.create("Same Name")
    except IntegrationExistsError:
        return "refused"
    finally:
        registry.close()
    return "created"


def _generate(url: str) -> str:
    registry = Registry.open(url)
    integration = registry.find("Same Name")
    _gate.wait()
    try:
        registry.generate_url(integration)
    except UrlLimitError:
        return "refused"
    finally:
        registry.close()
    return "created"


def test_processes_race_and_one_wins(url: str) -> None:
    """A fresh registry is made once; one of equal creations, and one second URL, succeeds."""
    one_wins = ["created"] + ["refused"] * (PROCESSES - 1)
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(PROCESSES, timeout=60)
    with ProcessPoolExecutor(PROCESSES, context, _wait_at, (gate,)) as pool:
        assert sorted(pool.map(_open_and_create, [url] * PROCESSES)) == one_wins
        assert sorted(pool.map(_generate, [url] * PROCESSES)) == one_wins
    registry = Registry.open(url)
    assert len(registry.snapshot().live_urls) == 2
    registry.close()


def test_token_is_nowhere_but_in_the_answer(tmp_path: Path) -> None:
    """The file holds the hash only, is its owner's only, and repr() does not tell either."""
    path = tmp_path / "new" / "folder" / "registry.sqlite"
    registry = Registry.open(f"sqlite:///{path}")
    _, new = registry.create("X")
    for file in path.parent.iterdir():
        assert new.token.encode() not in file.read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    registry.close()
    assert new.token not in f"{new!r} {new}"
    assert NewUrl("url_1", "secret") == ("url_1", "secret")


def test_webhook_url_is_short_enough() -> None:
    """customerio-webhooks 2: URLs of more than 255 characters are not taken."""
    assert len(webhook_url("x" * MAX_PUBLIC_URL_LENGTH, "t" * 43)) < 255


def test_readers_and_a_writer_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """A receiver's poll works in the middle of a change, and a change in the middle of a poll."""
    path = tmp_path / "registry.sqlite"
    registry = Registry.open(f"sqlite:///{path}")
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE registry_state SET generation = generation + 1")
        assert registry.generation() == 0
        writer.execute("COMMIT")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT generation FROM registry_state").fetchall()
        registry.create("X")
        assert registry.generation() == 2
    registry.close()


def test_lost_connections_are_replaced(postgres: str) -> None:
    """A receiver outlives a restart of the registry's server."""
    with fresh_database(postgres) as url:
        registry = Registry.open(url)
        assert registry.generation() == 0
        with psycopg.connect(url) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert registry.generation() == 0
        registry.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://someone:pass-word@127.0.0.1:1/db",
        "postgresql://127.0.0.1:1/db?password=pass-word",
        "postgresql://someone:pass-word@host:port/db",
        "postgresql://someone:pass@word@127.0.0.1:1/db",
        "mysql://someone:pass-word@127.0.0.1/db",
        "pass-word",
        "sqlite:///:memory:",
        "sqlite:///",
    ],
)
def test_unusable_registry_is_one_sentence_without_the_password(url: str) -> None:
    """Wrong addresses and dead servers are told apart by their reason, never by the secret."""
    with pytest.raises(RegistryUnavailableError) as caught:
        Registry.open(url)
    assert "word" not in str(caught.value).replace("user:password@host", "")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_file_that_is_no_registry_is_refused(tmp_path: Path) -> None:
    """A wrong path is never overwritten."""
    path = tmp_path / "notes.txt"
    path.write_text("dear diary, " * 100)
    with pytest.raises(RegistryUnavailableError, match="not a database"):
        Registry.open(f"sqlite:///{path}")
    assert path.read_text().startswith("dear diary")
    with pytest.raises(RegistryUnavailableError, match=r"notes\.txt"):
        Registry.open(f"sqlite:///{path}/registry.sqlite")


def test_registry_of_a_newer_release_is_left_alone(url: str, tmp_path: Path) -> None:
    """An old release must not work on tables that it does not know."""
    Registry.open(url).close()
    statement = "UPDATE registry_state SET schema_version = 99"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(tmp_path / "registry.sqlite")) as sqlite, sqlite:
            sqlite.execute(statement)
    else:
        with psycopg.connect(url) as postgres:
            postgres.execute(statement)
    with pytest.raises(RegistryUnavailableError, match="upgrade customerio-pipeline"):
        Registry.open(url)
