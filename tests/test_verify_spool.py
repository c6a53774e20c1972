"""``verify`` counts what a real receiver acknowledged, also while it still has to land."""

import json
import shutil
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from customerio_pipeline.cli import cli
from customerio_pipeline.settings import load_settings
from customerio_pipeline.verifying.conservation import account
from customerio_pipeline.warehouse import open_for_reading
from tests.running_receiver import create_integration, running_receiver, wait_landed, wait_until

Verify = Callable[..., Result]


@pytest.fixture
def verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verify:
    """Give the command, on the installation in `tmp_path`, or in `home`."""

    def run(*options: str, home: Path = tmp_path) -> Result:
        monkeypatch.setenv("CUSTOMERIO_HOME", str(home))
        return CliRunner().invoke(cli, ["verify", *options])

    return run


def block(home: Path, schema: str) -> Path:
    """Put a file where the sealer wants the integration's folder; the landing folder is fine."""
    blocked = home / "landing" / f"integration={schema}"
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("a file is in the way")
    return blocked


def begun_to_seal(home: Path) -> list[Path]:
    """Return the segments that have their hour of landing."""
    return list(home.glob("spool/*/*.*-*-*T*.segment"))


def test_what_waits_in_the_spool_is_acknowledged(tmp_path: Path, verify: Verify) -> None:
    """In closed segments and in the one that is appended to, for each integration alone."""
    url, other = create_integration(tmp_path, "slow"), create_integration(tmp_path, "other")
    blocked = block(tmp_path, "slow")
    with running_receiver(tmp_path) as receiver:
        for number in range(3):
            assert receiver.post(url.token).status_code == 200
            wait_until(lambda: begun_to_seal(tmp_path), "sealing began")
            assert receiver.post(other.token).status_code == 200
            result = verify("slow")
            assert result.exit_code == 0, result.output
            count = number + 1
            assert f"{count} acknowledged = 0 landed + {count} in the spool" in result.output
            assert "slow: nothing is missing" in result.output
        [found] = json.loads(verify("other", "--json").stdout)
        assert found["acknowledged"] == found["landed"] + found["spooled"] == 3
        assert found["spool_note"] is None

        blocked.unlink()
        wait_landed(receiver.landing, "slow", 3)
        wait_landed(receiver.landing, "other", 3)
        for schema in ("slow", "other"):
            output = verify(schema).output
            assert "3 acknowledged = 3 landed + 0 in the spool" in output


def test_a_receiver_that_seals_all_the_time_is_counted_and_not_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is missing at any moment: segments are renamed and removed under the reader."""
    monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
    url = create_integration(tmp_path, "busy")
    settings = load_settings()
    answers: list[int] = []
    sent = [0]
    with running_receiver(tmp_path, seal_after_seconds=0.01) as receiver:

        def send() -> None:
            for number in range(1, 301):
                sent[0] = number
                answers.append(receiver.post(url.token).status_code)

        sender = threading.Thread(target=send)
        sender.start()
        looks: list[tuple[int, Any]] = []
        with closing(open_for_reading(settings)) as reader:
            while sender.is_alive():
                before = len(answers)
                found = account(reader, settings.landing, settings.spool, "busy")
                assert found.gaps == []
                assert found.acknowledged == found.landed + found.spooled
                assert before <= found.acknowledged <= sent[0]
                looks.append((before, found))
        sender.join()
        assert answers == [200] * 300
        assert any(found.spooled for _, found in looks)
        wait_landed(receiver.landing, "busy", 300)
        assert receiver.logged("segment_damaged") == []


def test_the_newest_file_lost_before_it_was_loaded(tmp_path: Path, verify: Verify) -> None:
    """Only the spool knows that its deliveries were acknowledged."""
    url = create_integration(tmp_path, "lost")
    with running_receiver(tmp_path) as receiver:
        for number in range(2):
            assert receiver.post(url.token).status_code == 200
            wait_landed(receiver.landing, "lost", number + 1)
        # Not while a segment waits to be removed: it would be landed again.
        wait_until(lambda: not begun_to_seal(tmp_path), "sealed")
        [newest] = receiver.landing.rglob("*-000000000001-000000000001.parquet")
        newest.unlink()
        result = verify()
        assert result.exit_code == 1
        assert "2 acknowledged ≠ 1 landed + 0 in the spool" in result.output
        [found] = json.loads(verify("--json").stdout)
        [gap] = found["gaps"]
        assert gap["what"].startswith("The offset 1 of ")
        assert "neither in the spool nor in a landing file" in gap["what"]
        assert (gap["first_offset"], gap["last_offset"]) == (1, 1)


def test_a_copied_spool_says_what_it_holds_and_nothing_of_what_landed(
    tmp_path: Path, verify: Verify
) -> None:
    """It may be newer than the landing folder that was restored with it, and is no gap alone."""
    home, copy = tmp_path / "home", tmp_path / "copy"
    home.mkdir()
    url = create_integration(home, "copied")
    with running_receiver(home) as receiver:
        assert receiver.post(url.token).status_code == 200
        wait_landed(receiver.landing, "copied", 1)
        kept = (home / "landing" / "integration=copied").rename(tmp_path / "kept")
        block(home, "copied")
        assert receiver.post(url.token).status_code == 200
        wait_until(lambda: begun_to_seal(home), "sealing began")
        receiver.kill_everything()
        shutil.copytree(home, copy)
        (copy / "landing" / "integration=copied").unlink()
        result = verify(home=copy)
        assert result.exit_code == 1
        assert "2 acknowledged ≠ 0 landed + 1 in the spool" in result.output
        assert "GAP         The offset 0 of " in result.output
        shutil.copytree(kept, copy / "landing" / "integration=copied")
        result = verify(home=copy)
        assert result.exit_code == 0, result.output
        assert "2 acknowledged = 1 landed + 1 in the spool" in result.output
        # What is left is the newest segment, whose header says that two were acknowledged.
        for segment in begun_to_seal(copy):
            segment.unlink()
        result = verify(home=copy)
        assert result.exit_code == 0, result.output
        assert "1 acknowledged = 1 landed + 0 in the spool" in result.output


def test_no_spool_is_said(tmp_path: Path, verify: Verify) -> None:
    """As where Dagster runs on another machine than the receiver."""
    create_integration(tmp_path, "elsewhere")
    result = verify()
    assert result.exit_code == 0
    assert (
        "0 acknowledged = 0 landed + 0 in the spool; there is no spool at"
        f" {tmp_path / 'spool'}" in result.output
    )
