"""Kill a loader with SIGKILL at random moments, load once more, compare with a plain oracle.

Seeded: the same events, damage and moments; where exactly a moment falls is up to the machine.
Prints a Markdown report and ends with 1 if any table was not what it should be.
"""

import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import click

from campaigns import full_disk
from campaigns.installation import Installation, fork
from campaigns.steps import ELSEWHERE, STEPS, StepMarker

_ROUNDS_IN_AN_INSTALLATION = 8
_FILES_IN_A_ROUND = 4
_LONGEST_LOAD_SECONDS = 60.0
_POLL_SECONDS = 50e-6
_SHARE_OF_DAMAGE = 0.15
_WHOLE_LOAD = "any moment"


@click.command()
@click.option("--warehouse", default="duckdb", show_default=True, help="duckdb or postgresql://…")
@click.option("--kills", default=200, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=1, show_default=True)
@click.option("--disks/--no-disks", default=True, help="Fill disks, too, where that is permitted.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var"),
    show_default=True,
    help="Where the data is kept meanwhile.",
)
def main(*, warehouse: str, kills: int, seed: int, disks: bool, folder: Path) -> None:
    """Run the campaign on one warehouse."""
    logging.disable()  # what is set aside is expected here
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crashes-", dir=folder.absolute()) as temporary:
        campaign = _Campaign(Path(temporary), warehouse, random.Random(seed))  # noqa: S311  seeded
        campaign.run(kills)
        is_whole = disks and warehouse == "duckdb"
        filled = full_disk.measure(Path(temporary)) if is_whole else []
    click.echo(
        f"Seed {seed}, {campaign.kills} kills in {campaign.installations} installations,"
        f" {time.monotonic() - began:.0f} s. Warehouse: {warehouse.partition(':')[0]}.\n"
    )
    click.echo("| killed during | kills | tables that differed afterwards |\n|---|---|---|")
    for step, count in sorted(campaign.killed_in.items()):
        click.echo(f"| {step} | {count} | {campaign.differed[step]} |")
    click.echo(f"| **all** | {campaign.kills} | {campaign.differed.total()} |\n")
    for line in [*filled, *campaign.differences]:
        click.echo(line)
    if campaign.differences or any("WRONG" in line for line in filled):
        sys.exit(1)


class _Campaign:
    """Rounds of: land, maybe damage, load and be killed, load, compare."""

    def __init__(self, folder: Path, warehouse: str, chance: random.Random) -> None:
        self.kills = 0
        self.installations = 0
        self.killed_in: Counter[str] = Counter()
        self.differed: Counter[str] = Counter()
        self.differences: list[str] = []
        self._folder = folder
        self._warehouse = warehouse
        self._kind = warehouse.partition(":")[0]
        self._chance = chance
        self._seconds: dict[str, float] = {}

    def run(self, kills: int) -> None:
        """Go on until so many loads were killed, or Ctrl-C: then what was found is reported."""
        with suppress(KeyboardInterrupt):
            self._run(kills)

    def _run(self, kills: int) -> None:
        while self.kills < kills:
            self.installations += 1
            installation = Installation(
                self._folder / str(self.installations),
                self._warehouse,
                f"crash_{self.installations}",
                self._chance,
            )
            for _ in range(_ROUNDS_IN_AN_INSTALLATION):
                if self.kills < kills:
                    self._round(installation)
            installation.remove()

    def _round(self, installation: Installation) -> None:
        steps = STEPS[self._kind]
        thens = [step.then for step in steps if step.then]
        aim = self._chance.choice([_WHOLE_LOAD, *(step.name for step in steps), *thens])
        installation.land(_FILES_IN_A_ROUND)
        needs_damage = any(step.name == aim and step.only_after_damage for step in steps)
        if needs_damage or self._chance.random() < _SHARE_OF_DAMAGE:
            installation.damage()
        entry = 1 if needs_damage else self._chance.randint(1, _FILES_IN_A_ROUND)
        killed_in = self._kill_a_load(installation, aim, entry)
        with closing(StepMarker(self._kind)) as marker:
            differences = installation.load_and_compare(marker)
            self._learn(marker)
        if killed_in is not None:
            self.kills += 1
            self.killed_in[killed_in] += 1
            self.differed[killed_in] += bool(differences)
        where = f"kill {self.kills}, during {killed_in}" if killed_in else "a load that was not hit"
        self.differences += [f"- {where}: {difference}" for difference in differences]

    def _kill_a_load(self, installation: Installation, aim: str, entry: int) -> str | None:
        """Return the step during which the load was killed; None when it was over before."""
        longest = self._seconds.get(aim, 0.3 if aim == _WHOLE_LOAD else 0.02)
        pause = self._chance.uniform(0, 1.2) * longest
        with closing(StepMarker(self._kind)) as marker:
            process = fork(lambda: installation.load(marker))
            if aim == _WHOLE_LOAD or _wait_for(process, marker, aim, entry):
                time.sleep(pause)
            os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            if os.WIFSIGNALED(status):
                return marker.step
            if status:
                self.differences.append(f"- a load failed by itself during {marker.step}")
            return None

    def _learn(self, marker: StepMarker) -> None:
        for name in marker.names:
            if name != ELSEWHERE and marker.entries(name):
                self._seconds[name] = marker.seconds(name)
        self._seconds[_WHOLE_LOAD] = marker.total_seconds


def _wait_for(process: int, marker: StepMarker, aim: str, entry: int) -> bool:
    """Wait until a load begins the step for the given time; False when it will not any more."""
    deadline = time.monotonic() + _LONGEST_LOAD_SECONDS
    while time.monotonic() < deadline:
        if marker.entries(aim) >= entry:
            return True
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return False
        time.sleep(_POLL_SECONDS)
    return False


if __name__ == "__main__":
    main()
