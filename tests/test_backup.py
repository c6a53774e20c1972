"""Backup and restore as docs/deployment.md says it, while events arrive."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from customerio_pipeline.cli import cli
from tests.deployed_services import PROJECT
from tests.running_receiver import (
    Receiver,
    create_integration,
    landed_rows,
    running_receiver,
    wait_landed,
    wait_until,
)

SCHEMA = "shop"
BACKUP, RESTORE = re.findall(
    r"<!-- tests/test_backup.py runs this -->\n```sh\n(.*?)```",
    (PROJECT / "docs" / "deployment.md").read_text(),
    re.DOTALL,
)

pytestmark = pytest.mark.skipif(
    not (shutil.which("rsync") and shutil.which("sqlite3")),
    reason="rsync or sqlite3 is not installed",
)


class Sender:
    """Customer.io: sends one event after another and remembers what was acknowledged."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._numbers = count()
        self.acknowledged: set[str] = set()

    def send(self, receiver: Receiver) -> None:
        """Send one event; it may get no answer."""
        event_id = f"e{next(self._numbers)}"
        body = json.dumps({"event_id": event_id, "object_type": "email", "metric": "sent"})
        try:
            answer = receiver.post(self._token, body.encode())
        except httpx.TransportError:
            return
        if answer.status_code == 200:
            self.acknowledged.add(event_id)

    @contextmanager
    def sending(self, receiver: Receiver) -> Iterator[None]:
        """Send without a pause."""
        stop = threading.Event()

        def send_all() -> None:
            while not stop.is_set():
                self.send(receiver)

        thread = threading.Thread(target=send_all)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _shell(script: str, home: Path, backup: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "CUSTOMERIO_HOME": str(home), "BACKUP": str(backup)}
    done = subprocess.run(
        ["/bin/bash", "-e", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _run(home: Path, *command: str, warehouse: Path | None = None) -> tuple[int, str]:
    environment = {
        "CUSTOMERIO_HOME": str(home),
        "CUSTOMERIO_WAREHOUSE": f"duckdb:///{warehouse or home / 'warehouse.duckdb'}",
    }
    result = CliRunner().invoke(cli, command, env=environment)
    return result.exit_code, result.stdout


def _event_ids(home: Path, warehouse: Path | None = None) -> list[str]:
    query = "SELECT event_id FROM shop.data"
    code, output = _run(home, "query", "--json", query, warehouse=warehouse)
    assert code == 0, output
    return [row["event_id"] for row in json.loads(output)]


@pytest.mark.parametrize("with_spool", [False, True], ids=["as documented", "the spool, too"])
def test_a_restored_installation_goes_on(tmp_path: Path, *, with_spool: bool) -> None:
    """Backed up while events arrive, destroyed, restored elsewhere: the URL works, all adds up."""
    old, new, backup = tmp_path / "old", tmp_path / "new", tmp_path / "backup"
    old.mkdir()
    new.mkdir()
    sender = Sender(create_integration(old, "Shop").token)
    with running_receiver(old) as receiver, sender.sending(receiver):
        wait_landed(receiver.landing, SCHEMA, 20)
        if with_spool:
            backup.mkdir()
            # Files come and go meanwhile, so it may say that one was gone.
            subprocess.run(
                ["/bin/cp", "-a", old / "spool", backup], capture_output=True, check=False
            )
        safe = {row["event_id"] for row in landed_rows(receiver.landing, SCHEMA)}
        _shell(BACKUP, old, backup)
        at_backup = len(sender.acknowledged)
        wait_until(lambda: len(sender.acknowledged) > at_backup + 20, "events after the backup")
    shutil.rmtree(old)
    _shell(RESTORE, new, backup)
    if with_spool:
        shutil.copytree(backup / "spool", new / "spool")
    sender.acknowledged.clear()
    with running_receiver(new) as receiver:
        restored = {row["event_id"] for row in landed_rows(receiver.landing, SCHEMA)}
        for _ in range(10):
            sender.send(receiver)
        assert len(sender.acknowledged) == 10
        wait_landed(receiver.landing, SCHEMA, len(restored) + 10)
    assert safe <= restored
    assert _run(new, "load")[0] == 0
    code, output = _run(new, "verify", "--deep")
    assert (code, f"{SCHEMA}: nothing is missing" in output) == (0, True), output
    rows = _event_ids(new)
    assert len(set(rows)) == len(rows)
    assert restored | sender.acknowledged <= set(rows)


def test_a_warehouse_that_is_newer_than_landing_is_named(tmp_path: Path) -> None:
    """Landing is restored to before what the warehouse has: verify says so, new events load."""
    home, backup, warehouse = tmp_path / "home", tmp_path / "backup", tmp_path / "house.duckdb"
    home.mkdir()
    sender = Sender(create_integration(home, "Shop").token)
    with running_receiver(home) as receiver:
        sender.send(receiver)
        wait_landed(receiver.landing, SCHEMA, 1)
        _shell(BACKUP, home, backup)
        shutil.copytree(home / "spool", backup / "spool")
        sender.send(receiver)
        wait_landed(receiver.landing, SCHEMA, 2)
    assert _run(home, "load", warehouse=warehouse)[0] == 0
    shutil.rmtree(home)
    _shell(RESTORE, home, backup)
    shutil.copytree(backup / "spool", home / "spool")
    with running_receiver(home) as receiver:
        sender.send(receiver)
        wait_landed(receiver.landing, SCHEMA, 2)
    assert _run(home, "load", warehouse=warehouse)[0] == 0
    assert set(_event_ids(home, warehouse)) == {"e0", "e1", "e2"}
    code, output = _run(home, "verify", warehouse=warehouse)
    assert code == 1
    assert "were loaded, and no landing file has them" in output.replace(
        "was loaded", "were loaded"
    )
