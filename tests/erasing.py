"""An installation in which a person is to be erased, and a look at every byte of it."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from customerio_pipeline.definitions import defs
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


# Each names the person where customerio-webhooks 1.3 to 1.8 says; the last four cannot be rows.
MINE = [
    event("mine-1", customer_id=ID),
    event("mine-2", identifiers={"id": ID, "email": None}),
    event(
        "mine-3", identifiers={"id": "other", "email": EMAIL.lower()}, recipients=[{"device_id": 1}]
    ),
    event("mine-4", recipient=EMAIL),
    event("mine-5", email_address=f"Ann <{EMAIL.upper()}>"),
    event("mine-6", variables={"customer": {"id": ID, "email": "x@y.example"}}),
    event("mine-7", variables={"customer": {"email": EMAIL}}),
    event("mine-8", recipient=EMAIL.replace("@", "\\u0040")).replace(b"\\\\u", b"\\u"),
    event("mine-9", recipient=ID).replace(b'"email"', b'"in_app"'),
    event("", customer_id=ID),
    event("mine-10", customer_id=ID)[:-2],
    f"no JSON, {EMAIL}.".encode(),
    b"[%b, 7]" % event("", recipient=EMAIL).replace(b'"event_id": "", ', b""),
]
THEIRS = [
    event("t1", customer_id=ID[1:], recipient=EMAIL[1:]),
    event("t2", identifiers={"id": "", "email": None}, recipients=[{"device_id": 2}]),
    event("t3", recipient=ID, variables={"campaign": {"id": ID}}),
    b"no JSON",
    event("", customer_id="other"),
]
MINE_IN_ARRAYS = [
    b"["
    + b", ".join([event("a1", n=0.10), MINE[0].replace(b"mine-1", b"mine-a2"), THEIRS[4], b"7"])
    + b"]",
    b"[" + MINE[3].replace(b"mine-4", b"mine-a3") + b"]",
]


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


def take_returned_out(installation: Erasing) -> bool:
    """Do what Dagster's daemon does at a tick; return whether something had come back."""
    installation.warehouse.target.close()
    loaded = defs()
    assert isinstance(loaded, dg.Definitions)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance, repository_def=loaded.get_repository_def())
        asked = loaded.resolve_sensor_def("erase_returned_sensor")(context)
        if not isinstance(asked, dg.RunRequest):
            assert isinstance(asked, dg.SkipReason)
            return False
        job = loaded.resolve_job_def("erase_returned_job")
        assert job.execute_in_process(instance=instance).success
        return True


def run_job(installation: Erasing) -> bool:
    """Run what the schedule runs every hour."""
    installation.warehouse.target.close()
    loaded = defs()
    assert isinstance(loaded, dg.Definitions)
    with dg.DagsterInstance.ephemeral() as instance:
        return (
            loaded.resolve_job_def("landing_upkeep_job")
            .execute_in_process(instance=instance)
            .success
        )
