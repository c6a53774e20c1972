"""Two people at once, by the page and by the API: one wins, and the other is told what happened.

With PostgreSQL both changes are let go only once both wait for the registry, so they always meet.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import NamedTuple, TypeVar

import psycopg
import pytest
import sqlalchemy as sa

from customerio_pipeline.errors import ApiTokenExistsError, UnknownApiTokenError
from customerio_pipeline.registry.records import Integration
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.registry.tables import webhook_urls
from tests.postgres_server import fresh_database
from tests.running_page import Page, running_page
from tests.running_receiver import Receiver, wait_landed, wait_until

_FIELD_ERROR = re.compile(r'<p class="error" id="([a-z_]+)-error">([^<]+)<')
_PROBLEM = re.compile(r'role="alert">([^<]+)<')


class Outcome(NamedTuple):
    """What somebody was told."""

    is_done: bool
    status: int
    field: str | None
    """That the sentence stands beside."""

    sentence: str


class Person:
    """Somebody who changes things; `by_page` or by the API."""

    def __init__(self, page: Page, token: str | None) -> None:
        self._page = page
        self._token = token
        self.by_page = token is None

    def submit(self, path: str, **fields: str) -> Outcome:
        """Send a form of the page."""
        response = self._page.post(path, "/new", **fields)
        field, sentence = None, ""
        if found := _FIELD_ERROR.search(response.text):
            field, sentence = found[1], unescape(found[2])
        elif found := _PROBLEM.search(response.text):
            sentence = unescape(found[1])
        is_done = response.status_code < 400
        assert is_done == (sentence == "")
        return Outcome(is_done, response.status_code, field, sentence)

    def call(self, method: str, path: str, **body: str) -> Outcome:
        """Send a request of the API."""
        headers = {"authorization": f"Bearer {self._token}"}
        response = self._page.http.request(
            method, f"/api/integrations{path}", json=body or None, headers=headers
        )
        if response.is_success:
            return Outcome(is_done=True, status=response.status_code, field=None, sentence="")
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        field = next((error["field"] for error in problem.get("errors", ())), None)
        return Outcome(
            is_done=False, status=response.status_code, field=field, sentence=problem["detail"]
        )


Deed = Callable[[Person], Outcome]
Result = TypeVar("Result")


def create(name: str) -> Deed:
    """Add an integration."""
    return lambda who: (
        who.submit("/new", name=name) if who.by_page else who.call("POST", "", name=name)
    )


def rename(schema: str, name: str) -> Deed:
    """Give it another name."""
    return lambda who: (
        who.submit(f"/integrations/{schema}/rename", name=name)
        if who.by_page
        else who.call("PATCH", f"/{schema}", name=name)
    )


def delete(schema: str) -> Deed:
    """Delete the integration."""
    return lambda who: (
        who.submit(f"/integrations/{schema}/delete")
        if who.by_page
        else who.call("DELETE", f"/{schema}")
    )


def add(schema: str, kind: str, **fields: str) -> Deed:
    """Make a further URL, or add a key or a rule."""
    return lambda who: (
        who.submit(f"/integrations/{schema}/{kind}", **fields)
        if who.by_page
        else who.call("POST", f"/{schema}/{kind}", **fields)
    )


def remove(schema: str, kind: str, key: str, word: str = "remove") -> Deed:
    """Revoke a URL, or remove a key or a rule."""
    return lambda who: (
        who.submit(f"/integrations/{schema}/{kind}/{key}/{word}")
        if who.by_page
        else who.call("DELETE", f"/{schema}/{kind}/{key}")
    )


class House:
    """An installation with two people, the registry, and a way to let their changes meet."""

    def __init__(self, receiver: Receiver, page: Page, registry: Registry, url: str) -> None:
        page.sign_in()
        other = page.stranger()
        other.sign_in()
        token = registry.api_tokens.create("tests").token
        self.receiver = receiver
        self.registry = registry
        self.url = url
        self._people = {
            "page, page": (Person(page, None), Person(other, None)),
            "page, API": (Person(page, None), Person(other, token)),
            "API, API": (Person(page, token), Person(other, token)),
        }
        self.page, self.other = page, other
        # Its first use is noted, which would wait as the changes shall.
        Person(page, token).call("GET", "")

    def new(self, name: str) -> Integration:
        """Make an integration with one live URL."""
        return self.registry.create(name)[0]

    def at_once(self, pair: str, *deeds: Deed) -> tuple[Outcome, Outcome]:
        """Let both do their deed, or each one of two, and return what they were told."""
        first, second = self._people[pair]
        return self.meet(lambda: deeds[0](first), lambda: deeds[-1](second))

    def meet(self, one: Callable[[], Result], two: Callable[[], Result]) -> tuple[Result, Result]:
        """Do both at once; each changes the registry."""
        with ThreadPoolExecutor(2) as pool, self._changes_meet():
            first, second = pool.submit(one), pool.submit(two)
        return first.result(), second.result()

    @contextmanager
    def _changes_meet(self) -> Iterator[None]:
        if self.url.startswith("sqlite"):
            with nullcontext():
                yield
            return
        with psycopg.connect(self.url) as mine, psycopg.connect(self.url) as look:
            look.autocommit = True
            mine.execute("UPDATE registry_state SET generation = generation + 1")
            yield
            wait_until(
                lambda: (
                    look.execute(
                        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                        " AND datname = current_database()"
                    ).fetchone()
                    == (2,)
                ),
                "both wait for the registry",
            )
            mine.commit()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """Give an installation with a registry of each kind; tests make integrations of their own."""
    home = tmp_path_factory.mktemp("two")
    if request.param == "sqlite":
        database = nullcontext(f"sqlite:///{home / 'registry.sqlite'}")
    else:
        database = fresh_database(request.getfixturevalue("postgres"))
    with (
        database as url,
        running_page(home, registry=url) as (receiver, page),
        closing(Registry.open(url)) as registry,
    ):
        yield House(receiver, page, registry, url)
        assert not receiver.logged("page_failed")


def assert_one_wins(
    outcomes: tuple[Outcome, Outcome], sentence: str, field: str | None = None
) -> None:
    """One did it; the other is told why not, beside the field if there is one."""
    assert [outcome.is_done for outcome in outcomes].count(True) == 1, outcomes
    [loser] = [outcome for outcome in outcomes if not outcome.is_done]
    assert loser.status in (404, 409, 422)
    assert loser.field == field
    assert re.search(sentence, loser.sentence), loser


@pytest.fixture(params=["page, page", "page, API", "API, API"])
def pair(request: pytest.FixtureRequest) -> str:
    """Say what the two use."""
    return str(request.param)


def test_two_create_the_same_name(house: House, pair: str) -> None:
    """One of them has it, with one URL; the other reads that the name is taken."""
    name = f"Created {pair}"
    outcomes = house.at_once(pair, create(name))
    assert_one_wins(outcomes, f'There is an integration "{name}" already: choose another', "name")
    assert len(house.registry.urls(house.registry.find(name))) == 1


def test_two_create_names_of_one_schema(house: House, pair: str) -> None:
    """The schema is what they cannot share."""
    outcomes = house.at_once(pair, create(f"Twin {pair}"), create(f"Twin. {pair}"))
    assert_one_wins(outcomes, r"The schema .* is that of the integration", "schema")


def test_two_give_the_same_name(house: House, pair: str) -> None:
    """Of two integrations, one gets it."""
    one, two = house.new(f"One {pair}"), house.new(f"Two {pair}")
    wanted = f"Wanted {pair}"
    outcomes = house.at_once(pair, rename(one.schema, wanted), rename(two.schema, wanted))
    assert_one_wins(outcomes, f'There is an integration "{wanted}" already', "name")


def test_two_generate_the_last_url(house: House, pair: str) -> None:
    """Two are live, never three."""
    shop = house.new(f"Urls {pair}")
    assert_one_wins(house.at_once(pair, add(shop.schema, "urls")), "2 live URLs already: revoke")
    assert [url.is_live for url in house.registry.urls(shop)] == [True, True]


def test_two_revoke_the_same_url(house: House, pair: str) -> None:
    """It is revoked, by one of them."""
    shop = house.new(f"Revoked {pair}")
    [url] = house.registry.urls(shop)
    outcomes = house.at_once(pair, remove(shop.schema, "urls", url.id, "revoke"))
    assert_one_wins(outcomes, f'"{url.id}" is .*revoked already')


def test_two_delete_the_same_integration(house: House, pair: str) -> None:
    """It is deleted, by one of them."""
    shop = house.new(f"Deleted {pair}")
    outcomes = house.at_once(pair, delete(shop.schema))
    assert_one_wins(outcomes, "was deleted meanwhile|There is no integration")


def test_one_deletes_what_another_renames(house: House, pair: str) -> None:
    """It is deleted; it was renamed before that, or it was too late for that."""
    shop = house.new(f"Going {pair}")
    deleted, renamed = house.at_once(pair, delete(shop.schema), rename(shop.schema, f"Gone {pair}"))
    assert deleted.is_done
    assert shop.id not in {each.id for each in house.registry.integrations()}
    if not renamed.is_done:
        assert renamed.status == 404
        assert re.search("was deleted meanwhile|There is no integration", renamed.sentence)


def test_two_add_and_remove_the_same_key(house: House, pair: str) -> None:
    """It is there once, and removed once."""
    shop = house.new(f"Keys {pair}")
    outcomes = house.at_once(pair, add(shop.schema, "keys", key="the-signing-key"))
    assert_one_wins(outcomes, "has this signing key already", "key")
    [key] = house.registry.keys.list(shop)
    outcomes = house.at_once(pair, remove(shop.schema, "keys", key.id))
    assert_one_wins(outcomes, f'"{key.id}" is .*removed already')


def test_two_add_and_remove_the_same_rule(house: House, pair: str) -> None:
    """It is there once, and removed once."""
    shop = house.new(f"Rules {pair}")
    rule = {"pattern": "*email*", "action": "drop"}
    outcomes = house.at_once(pair, add(shop.schema, "rules", **rule))
    assert_one_wins(outcomes, r'has a rule "\*email\*" already', "pattern")
    [added] = house.registry.field_rules.list(shop)
    outcomes = house.at_once(pair, remove(shop.schema, "rules", added.id))
    assert_one_wins(outcomes, f'"{added.id}"')
    assert house.registry.field_rules.list(shop) == []


def test_two_send_a_test_event(house: House) -> None:
    """Each has a URL of its own, so neither ends the other's; afterwards there is none."""
    shop = house.new("Tests")
    page = f"/integrations/{shop.schema}"
    first, second = house.meet(
        lambda: house.page.post(f"{page}/test-event", "/new"),
        lambda: house.other.post(f"{page}/test-event", "/new"),
    )
    for answer in (first, second):
        assert "Taken and safely stored" in answer.text, answer.text
    wait_landed(house.receiver.landing, shop.schema, 2)
    live = house.registry.snapshot().live_urls
    assert [url.schema for url in live].count(shop.schema) == 1


def test_a_test_event_of_a_process_that_died_ends_with_a_later_one(house: House) -> None:
    """Its URL stays live no longer; one that may be under way does."""
    shop = house.new("Died")
    old, new = (house.registry.begin_test(shop) for _ in range(2))
    engine = sa.create_engine(house.url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        long_ago = datetime.now(UTC) - timedelta(minutes=3)
        connection.execute(
            webhook_urls.update().where(webhook_urls.c.id == old.id).values(created_at=long_ago)
        )
    engine.dispose()
    newest = house.registry.begin_test(shop)
    live = {url.url_id for url in house.registry.snapshot().live_urls}
    assert live & {old.id, new.id, newest.id} == {new.id, newest.id}


def test_two_make_api_tokens_of_one_name(house: House) -> None:
    """One is made; two who revoke it do so once."""

    def create_one() -> str | None:
        with closing(Registry.open(house.url)) as own, suppress(ApiTokenExistsError):
            return own.api_tokens.create("Terraform").id
        return None

    made = house.meet(create_one, create_one)
    [token_id] = [each for each in made if each]

    def revoke_it() -> bool:
        with closing(Registry.open(house.url)) as own, suppress(UnknownApiTokenError):
            own.api_tokens.revoke(token_id)
            return True
        return False

    assert sorted(house.meet(revoke_it, revoke_it)) == [False, True]
