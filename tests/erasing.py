"""An installation in which a person is to be erased, and a look at every byte of it."""

import json
from pathlib import Path
from typing import Any

import duckdb

from tests.installation import Installation
from tests.landed_bodies import SCHEMA

ID = "0200102"
EMAIL = "Ann.Example@mail.example"

_OF_DUCKDB = (".duckdb", ".wal")


def event(event_id: str, timestamp: int = 1_600_000_000, **data: object) -> bytes:
    """Return the body of an event."""
    return json.dumps(
        {
            "event_id": event_id,
            "object_type": "email",
            "metric": "sent",
            "timestamp": timestamp,
            "data": data,
        }
    ).encode()


class Erasing(Installation):
    """An installation in which somebody is to be erased."""

    def printed(self, *arguments: str, code: int = 0) -> Any:  # noqa: ANN401  JSON
        """Run a command and return the JSON that it prints."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == code, (result.output, result.exception)
        return json.loads(result.stdout)

    def erase(self, *who: str) -> dict[str, Any]:
        """Erase a person, by default both of its identifiers; return what the command says."""
        who = who or ("--customer-id", ID, "--email", EMAIL.upper())
        found: dict[str, Any] = self.printed("erase", SCHEMA, *who)
        assert found["is_complete"]
        assert not any(place["after"] for place in found["places"])
        return found

    def before(self, *who: str) -> dict[str, int]:
        """Erase a person; return how much there was of it, by place."""
        return {place["place"]: place["before"] for place in self.erase(*who)["places"]}

    def check(self) -> dict[str, Any]:
        """Check that everything adds up, that landing comes to the table, and says so anew."""
        [account] = self.printed("verify", "--deep")
        assert account["gaps"] == []
        assert self.run("rebuild", SCHEMA, "--check").exit_code == 0
        return dict(account)

    def table(self, name: str) -> list[tuple[object, ...]]:
        """Return the rows of a table."""
        return sorted(self.warehouse.rows(f"SELECT * FROM {{s}}.{name}"), key=str)  # noqa: S608  a test's constant


def traces(home: Path, *texts: str) -> list[str]:
    """Return where a text is found, in whatever case: every file, and what Parquet files hold."""
    wanted = [text.casefold() for text in texts]
    found = []
    with duckdb.connect(config={"threads": 1}) as engine:
        for path in sorted(home.rglob("*")):
            if not path.is_file() or path.suffix in _OF_DUCKDB:
                continue
            content = [path.read_bytes().decode("latin-1")]
            if path.suffix == ".parquet":
                sql = "SELECT * FROM read_parquet(?, hive_partitioning = false)"
                content += map(str, engine.execute(sql, [str(path)]).fetchall())
            if any(text in each.casefold() for each in content for text in wanted):
                found.append(str(path.relative_to(home)))
    return found
