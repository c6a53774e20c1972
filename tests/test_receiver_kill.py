"""kill -9 under load, for real: nothing acknowledged is lost, nothing is there twice."""

import asyncio
import os
import random
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.running_receiver import (
    Receiver,
    create_integration,
    running_receiver,
    wait_landed,
)
from tests.sending_load import Load

CLIENTS = 16


async def kill_one_after_another(receiver: Receiver, chance: random.Random) -> None:
    """Kill a worker and the sealer at random moments, then, as power fails, everything."""
    for child in chance.sample(["worker", "sealer"], 2):
        await asyncio.sleep(chance.uniform(0.1, 0.6))
        with suppress(ProcessLookupError):
            os.kill(receiver.pids(child)[-1], signal.SIGKILL)
    await asyncio.sleep(chance.uniform(0.1, 0.6))
    receiver.kill_everything()


@pytest.mark.parametrize("workers", [1, 2])
def test_everything_acknowledged_is_landed_once(tmp_path: Path, workers: int) -> None:
    """Rounds of sudden deaths amid load and sealing; then every byte is accounted for."""
    chance = random.Random(workers)
    url = create_integration(tmp_path, "killed")
    load = Load(url.token, chance)
    options = ("--port=0", f"--workers={workers}")
    for _ in range(3):
        with running_receiver(
            tmp_path, *options, segment_max_bytes=512 * 1024, access_log=False
        ) as receiver:
            load.port = receiver.port
            asyncio.run(load.run(CLIENTS, kill_one_after_another(receiver, chance)))

    with running_receiver(tmp_path, *options) as receiver:
        assert receiver.stop() == 0
        assert not receiver.logged("segment_damaged")
        assert not receiver.logged("slot_damaged")
    assert not [path for path in tmp_path.glob("spool/*/*.segment") if path.stat().st_size > 1000]
    rows = wait_landed(tmp_path / "landing", "killed", len(load.acknowledged))
    landed = Counter(row["body"] for row in rows)
    assert set(landed.values()) == {1}
    assert landed.keys() >= set(load.acknowledged)
    assert landed.keys() <= load.sent
    assert len(load.acknowledged) > 100
    assert load.statuses <= {200, 503}
