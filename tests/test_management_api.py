"""The API over HTTP: who gets in, what it does, how it says no, what never leaks."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.running_page import Page, running_page
from tests.running_receiver import Receiver, registry_of, wait_landed, wait_until

MARKUP = "<script>alert(1)</script>\"'&"
SHOP = "/api/integrations/shop"
# What a schema cannot say of a name, such as that a schema can be derived of it, is told with 422.
SCHEMATHESIS = """
[checks]
# It counts as failed what is limited; a test here asks every operation without a token.
ignored_auth.enabled = false
positive_data_acceptance.expected-statuses = ["2xx", "404", "409", "422"]
"""


class Api:
    """A program that uses the API of a running installation with a token of its own."""

    def __init__(self, home: Path, receiver: Receiver, page: Page) -> None:
        self.home = home
        self.receiver = receiver
        self.page = page
        self.registry = registry_of(home)
        self.token = self.registry.api_tokens.create("tests")

    def __call__(self, method: str, path: str, body: object = None, **more: Any) -> httpx.Response:  # noqa: ANN401
        """Send a request; `body` becomes JSON unless it is bytes."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {self.token.token}"} | more.pop("headers", {})
        return self.page.http.request(method, path, content=content, headers=headers, **more)

    def create(self, name: str, **more: object) -> str:
        """Make an integration and return its webhook URL."""
        response = self("POST", "/api/integrations", {"name": name, **more})
        assert response.status_code == 201, response.text
        return str(response.json()["url"]["webhook_url"])


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """Give an installation of the test's own."""
    with running_page(tmp_path) as (receiver, page):
        api = Api(tmp_path, receiver, page)
        yield api
        api.registry.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Give an installation with the integration Shop, which tests leave as it is."""
    home = tmp_path_factory.mktemp("api")
    with running_page(home) as (receiver, page):
        shared = Api(home, receiver, page)
        shared.create("Shop")
        yield shared
        shared.registry.close()


def assert_problem(response: httpx.Response, status: int, field: str | None = None) -> str:
    """Check that it is a problem as RFC 9457 has it, of this field; return its sentence."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    problem = response.json()
    assert problem["status"] == status
    assert [error["field"] for error in problem.get("errors", [])] == ([field] if field else [])
    return str(problem["detail"])


def test_an_integration_from_creation_to_deletion(api: Api) -> None:
    """As the registry and the receiver have it; the secret is in two answers and nowhere else."""
    assert api("GET", "/api/integrations").json() == []
    created = api("POST", "/api/integrations", {"name": " Shop ", "arrays": "subtables"})
    assert (created.status_code, created.headers["location"]) == (201, SHOP)
    first = created.json()["url"]
    shown = api("GET", SHOP)
    assert shown.json() == created.json()["integration"]
    assert {name: shown.json()[name] for name in ("name", "schema", "state", "arrays")} == {
        "name": "Shop",
        "schema": "shop",
        "state": "active",
        "arrays": "subtables",
    }
    post = api.receiver.http.post
    wait_until(lambda: post(first["webhook_url"], content=b"{}").status_code == 200, "new URL")

    second = api("POST", f"{SHOP}/urls")
    assert (second.status_code, second.json().keys()) == (201, {"url_id", "webhook_url"})
    assert "revoke one first" in assert_problem(api("POST", f"{SHOP}/urls"), 409)
    revoke = f"{SHOP}/urls/{first['url_id']}"
    assert (api("DELETE", revoke).status_code, api("DELETE", revoke).status_code) == (204, 409)
    wait_until(lambda: post(first["webhook_url"], content=b"{}").status_code == 401, "revoked URL")
    urls = api("GET", f"{SHOP}/urls").json()
    assert [url["state"] for url in urls] == ["revoked", "live"]
    assert [(url["calls_24h"], url["safe_to_revoke"]) for url in urls] == [(0, False)] * 2

    assert api("PATCH", SHOP, {"name": "数据 " + MARKUP}).json()["name"] == "数据 " + MARKUP
    assert api("POST", f"{SHOP}/pause").json()["state"] == "paused"
    assert api("POST", f"{SHOP}/resume").json()["state"] == "active"
    listed = api("GET", "/api/integrations")
    assert [one["name"] for one in listed.json()] == ["数据 " + MARKUP]
    assert api("DELETE", SHOP).status_code == 204
    assert api.registry.integrations() == []
    assert_problem(api("GET", SHOP), 404)
    assert_problem(api("POST", "/api/integrations", {"name": "Shop"}), 409, "schema")
    api.create("Shop", reuse_schema=True)

    assert api.receiver.stop() == 0
    secrets = [url["webhook_url"].rpartition("/")[2] for url in (first, second.json())] + [
        api.token.token
    ]
    told = shown.text + listed.text + api.receiver.output
    assert not [secret for secret in secrets if secret in told]
    [line] = api.receiver.logged("url_revoked")
    assert (line["url_id"], line["api_token"]) == (first["url_id"], api.token.id)


def test_signing_keys_and_what_is_held(api: Api) -> None:
    """Add, refuse twice, hold, release, remove; the key is in no answer."""
    url = api.create("Shop")
    empty = {"mode": "require", "in_force": "off", "keys": []}
    assert api("GET", f"{SHOP}/keys").json() == empty
    added = api("POST", f"{SHOP}/keys", {"key": " the-signing-key "})
    assert (added.status_code, added.json()["state"]) == (201, "live")
    key_id = added.json()["key_id"]
    assert_problem(api("POST", f"{SHOP}/keys", {"key": "the-signing-key"}), 409, "key")
    wait_until(
        lambda: (
            api.receiver.http.post(url, content=b"{}").status_code == 200
            and api.registry.keys.policy(api.registry.find("shop")).keys
        ),
        "delivery",
    )
    rows = wait_landed(api.receiver.landing, "shop", 1)
    held = sum(row["signature"] != "unchecked" for row in rows)
    looked = api("POST", f"{SHOP}/reverify").json()
    assert looked["released"] == 0
    assert looked["held"] >= held
    assert api("PUT", f"{SHOP}/signature-mode", {"mode": "record"}).json()["in_force"] == "record"
    again = api("POST", f"{SHOP}/reverify").json()
    assert again == {"released": looked["held"], "held": 0, "problems": []}
    remove = f"{SHOP}/keys/{key_id}"
    assert (api("DELETE", remove).status_code, api("DELETE", remove).status_code) == (204, 409)
    keys = api("GET", f"{SHOP}/keys")
    assert [key["state"] for key in keys.json()["keys"]] == ["removed"]
    assert "the-signing-key" not in added.text + keys.text + api.receiver.output


def test_rules_on_fields(api: Api) -> None:
    """Add, refuse, move, remove, each answered with all rules; the key is in no answer."""
    api.create("Shop")
    rules = f"{SHOP}/rules"
    assert api("GET", rules).json() == []
    added = api("POST", rules, {"pattern": " *email* ", "action": "hash"})
    assert added.status_code == 201
    [first] = added.json()
    assert (first["position"], first["pattern"], first["action"]) == (1, "*email*", "hash")
    both = api("POST", rules, {"pattern": "data__x", "action": "keep", "position": 1}).json()
    assert [rule["pattern"] for rule in both] == ["data__x", "*email*"]
    for body, status, field in (
        ({"pattern": "*EMAIL*", "action": "drop"}, 409, "pattern"),
        ({"pattern": "data.recipient", "action": "drop"}, 422, "pattern"),
        ({"pattern": "event_id", "action": "hash"}, 422, "pattern"),
        ({"pattern": "x", "action": "mask"}, 422, "action"),
        ({"pattern": "x", "action": "drop", "position": 4}, 422, "position"),
        ({"pattern": "x", "action": "drop", "position": 0}, 422, "position"),
    ):
        assert_problem(api("POST", rules, body), status, field)
    one = f"{rules}/{first['rule_id']}"
    moved = api("PATCH", one, {"position": 1})
    assert [rule["pattern"] for rule in moved.json()] == ["*email*", "data__x"]
    assert_problem(api("PATCH", one, {"position": 3}), 422, "position")
    assert_problem(api("PATCH", f"{rules}/rule_00000000", {"position": 1}), 404)
    assert (api("DELETE", one).status_code, api("DELETE", one).status_code) == (204, 404)
    listed = api("GET", rules)
    assert [rule["pattern"] for rule in listed.json()] == ["data__x"]
    secret = api.registry.field_rules.policy(api.registry.of_schema("shop")).secret
    assert secret is not None
    assert api.receiver.stop() == 0
    assert api.receiver.logged("rule_removed")[0]["rule_id"] == first["rule_id"]
    assert secret not in added.text + listed.text + moved.text + api.receiver.output


def test_nothing_without_a_token(shared: Api) -> None:
    """Every operation of the document; a session of the page is none."""
    shared.page.sign_in()
    document = shared.page.get("/api/openapi.json").json()
    operations = [
        (method, path.format(schema="shop", url_id="a", key_id="b", rule_id="c"))
        for path, methods in document["paths"].items()
        for method in methods
    ]
    assert len(operations) == 19
    for method, path in operations:
        for given in ({}, {"authorization": f"Basic {shared.token.token}"}):
            response = shared.page.http.request(method, path, headers=given)
            assert "API token" in assert_problem(response, 401)
            challenge = response.headers["www-authenticate"]
            assert challenge == 'Bearer realm="customerio-pipeline"'
    assert [one["state"] for one in shared("GET", "/api/integrations").json()] == ["active"]


def test_wrong_tokens_are_limited_and_right_ones_are_not(api: Api) -> None:
    """One that was revoked is wrong at once; the registry's end is 503."""
    other = api.registry.api_tokens.create("other")
    given = {"authorization": f"Bearer {other.token}"}
    assert api("GET", "/api/integrations", headers=given).status_code == 200
    api.registry.api_tokens.revoke(other.id)
    for token in ("x", "x" * 43, "é" * 43, "x" * 5000, other.token):
        given = {"authorization": f"Bearer {token}".encode()}
        response = api("GET", "/api/integrations", headers=given)
        assert_problem(response, 401)
        assert 'error="invalid_token"' in response.headers["www-authenticate"]
    limited = api("GET", "/api/integrations", headers={"authorization": "Bearer nonsense"})
    assert_problem(limited, 429)
    assert int(limited.headers["retry-after"]) > 0
    assert api("GET", "/api/integrations").status_code == 200
    assert api.page.sign_in().status_code == 303
    with closing(sqlite3.connect(api.home / "registry.sqlite")) as database:
        database.execute("DROP TABLE registry_api_tokens")
    assert "The registry" in assert_problem(api("GET", "/api/integrations"), 503)
    assert api.receiver.stop() == 0
    assert other.token not in api.receiver.output
    assert api.receiver.logged("api_token_limited")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "name"),
        ({"name": ""}, 422, "name"),
        ({"name": "   "}, 422, "name"),
        ({"name": None}, 422, "name"),
        ({"name": ["Shop"]}, 422, "name"),
        ({"name": "x" * 101}, 422, "name"),
        ({"name": "\x07"}, 422, "name"),
        ({"name": "a\x00b"}, 422, "name"),
        ({"name": "a\u202eb"}, 422, "name"),
        ({"name": "数据"}, 422, "schema"),
        ({"name": "pg_catalog"}, 422, "schema"),
        ({"name": "A", "schema": MARKUP}, 422, "schema"),
        ({"name": "A", "schema": "../../etc"}, 422, "schema"),
        ({"name": "A", "schema": "public"}, 422, "schema"),
        ({"name": "A", "schema": "x" * 64}, 422, "schema"),
        ({"name": "A", "schema": ""}, 422, "schema"),
        ({"name": "A", "arrays": "both"}, 422, "arrays"),
        ({"name": "A", "reuse_schema": "true"}, 422, "reuse_schema"),
        ({"name": "A", "state": "paused"}, 422, "state"),
        ({"name": "SHOP"}, 409, "name"),
        ({"name": "\uff53hop"}, 409, "name"),
        ({"name": "S-h.o.p", "schema": "shop"}, 409, "schema"),
        ({"name": "S.hop"}, 409, "schema"),
        (["Shop"], 422, None),
        (b"", 400, None),
        (b"{", 400, None),
        (b'{"name": "\\ud800"}', 400, None),
        (b'{"name": "\xff"}', 400, None),
        (b"[" * 5000, 422, None),
        ({"name": "x" * 17_000}, 413, None),
    ],
)
def test_bad_bodies_are_told_with_the_field(
    shared: Api, body: object, status: int, field: str | None
) -> None:
    """And make nothing."""
    response = shared("POST", "/api/integrations", body)
    if status == 422 and field is None:
        assert [error["field"] for error in response.json()["errors"]] == [""]
    else:
        assert assert_problem(response, status, field)
    assert len(shared.registry.integrations()) == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api", 404),
        ("GET", "/api/", 404),
        ("GET", "/api/nothing", 404),
        ("GET", "/api/integrations/nothing", 404),
        ("GET", "/api/integrations/%00", 404),
        ("GET", "/api/integrations/%ff", 404),
        ("GET", f"/api/integrations/{'x' * 3000}", 404),
        ("DELETE", f"{SHOP}/urls/url_00000000", 404),
        ("DELETE", f"{SHOP}/keys/%00", 404),
        ("DELETE", f"{SHOP}/rules/rule_00000000", 404),
        ("PUT", SHOP, 405),
        ("POST", f"{SHOP}/urls/a/b", 404),
    ],
)
def test_addresses_of_nothing_are_problems(
    shared: Api, method: str, path: str, status: int
) -> None:
    """Never a page."""
    assert_problem(shared(method, path), status)


def test_the_document_is_of_the_api_alone(shared: Api) -> None:
    """For whoever asks, as strict a policy as the page's; `Allow` tells the truth."""
    response = shared.page.stranger().get("/api/openapi.json")
    assert response.status_code == 200
    assert "default-src 'none'" in response.headers["content-security-policy"]
    document = response.json()
    assert all(path.startswith("/api/integrations") for path in document["paths"])
    assert document["security"] == [{"token": []}]
    bodies = {
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        for methods in document["paths"].values()
        for operation in methods.values()
        if "requestBody" in operation
    }
    assert len(bodies) == 6
    for body in bodies:
        schema = document["components"]["schemas"][body.rpartition("/")[2]]
        assert schema["additionalProperties"] is False
    assert shared("OPTIONS", SHOP).headers["allow"] == "DELETE, GET, OPTIONS, PATCH"
    refused = shared("PUT", SHOP).headers["allow"].split(", ")
    assert sorted(refused) == ["DELETE", "GET", "OPTIONS", "PATCH"]


def test_the_api_is_as_its_document_says(api: Api) -> None:
    """Schemathesis makes up requests, right and wrong ones, and compares the answers with it."""
    api.create("Shop")
    config = api.home / "schemathesis.toml"
    config.write_text(SCHEMATHESIS)
    command = Path(sys.executable).with_name("st")
    run = subprocess.run(
        [
            *(str(command), "--config-file", str(config), "run", "--no-color", "--seed=1"),
            *(
                "--max-examples=5",
                "--request-timeout=60",
                f"--header=Authorization: Bearer {api.token.token}",
            ),
            f"{api.page.address}/api/openapi.json",
        ],
        cwd=api.home,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout[-5000:]
    assert "Tested: 19" in run.stdout
    assert not api.receiver.logged("page_failed")
