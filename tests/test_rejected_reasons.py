"""The page groups rejected records by the reason, not by where in the body it was."""

import re
from html import unescape
from pathlib import Path

import pytest
from click.testing import CliRunner

from customerio_pipeline.cli import cli
from tests.landed_events import land
from tests.running_page import running_page

SCHEMA = "stitch_customerio"
ROOT = f"/integrations/{SCHEMA}"

_REASON = re.compile(
    r'<li><span>([^<]+)</span> <span class="fact">(\d+) record.*?</time></span>'
    r'(?:<span class="hint example">such as: ([^<]+)</span>)?</li>'
)


def test_one_reason_is_one_group_wherever_it_was(
    tmp_path: Path, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every way that a reason tells a place; one of the group as an example, with its place."""
    monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
    monkeypatch.setenv("CUSTOMERIO_WAREHOUSE", warehouse_url)
    bodies = [
        b'{"a": "broken off',
        b'{\n"long": "broken off',
        b'{"x":\n\n{"y": "broken off',
        b'{"a":"\\u12"}',
        b' {"a":"\\u12"}',
        b'{"a":1,}',
        b'{"a":1,"b":2,}',
        b"\xff",
        b"a\xff",
        b'{"event_id":""}',
        b'{"event_id":"%s"}' % (b"x" * 1025),
    ]
    with running_page(tmp_path, warehouse=warehouse_url) as (receiver, page):
        page.sign_in()
        page.create("Stitch Customerio")
        land(receiver.landing, SCHEMA, bodies)
        assert CliRunner().invoke(cli, ["load"]).exit_code == 0
        shown = unescape(page.get(f"{ROOT}/rejected").text)
    assert _REASON.findall(shown) == [
        (
            "body is not JSON: Unterminated string",
            "3",
            "body is not JSON: Unterminated string starting at: line 1 column 7 (char 6)",
        ),
        (
            r"body is not JSON: Invalid \uXXXX escape",
            "2",
            r"body is not JSON: Invalid \uXXXX escape: line 1 column 8 (char 7)",
        ),
        (
            "body is not JSON: expected a key in quotes",
            "2",
            "body is not JSON: expected a key in quotes at character 13",
        ),
        (
            "body is not UTF-8: invalid start byte",
            "2",
            "body is not UTF-8: invalid start byte at byte 0",
        ),
        ("event_id is empty", "1", ""),
        ("event_id is longer than 1024 characters", "1", ""),
    ]
