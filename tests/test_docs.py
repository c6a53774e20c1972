"""What the documentation says of the tests is true."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
RULES = TESTS.parent / "docs" / "loading.md"


def test_every_rule_names_a_test_that_there_is() -> None:
    """The last column of the tables of rules."""
    tables = re.findall(r"(?ms)^\| Rule .*?\| Test \|\n(.*?)\n\n", RULES.read_text())
    last_cells = [line.strip("|").split("|")[-1] for line in "\n".join(tables).splitlines()]
    names = set(re.findall("`([a-z0-9_]+)`", "\n".join(last_cells)))
    assert len(names) > 50
    defined = {
        name
        for file in TESTS.glob("test_*.py")
        for name in re.findall(r"^def test_(\w+)\(", file.read_text(), re.MULTILINE)
    }
    assert names - defined == set()
