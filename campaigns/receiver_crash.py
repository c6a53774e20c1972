"""Try to make the receiver lose or double a delivery: ``python -m campaigns.receiver_crash``.

Seeded; where exactly a moment falls is up to the machine. Prints a Markdown report and ends with 1
if anything was wrong, or if a control of the power cuts found nothing.
"""

import logging
import sys
import tempfile
import time
from pathlib import Path

import click
import structlog

from campaigns import power_loss, receiver_faults, receiver_kill
from campaigns.disk_record import Fate
from campaigns.failing_calls import why_impossible
from campaigns.receiver_process import end_on_sigterm

_SHARE_OF_CONTROLS = 0.2


@click.command()
@click.option("--kills", default=1000, show_default=True, type=click.IntRange(min=0))
@click.option("--cuts", default=5000, show_default=True, type=click.IntRange(min=0))
@click.option(
    "--control",
    "controls",
    multiple=True,
    type=click.Choice(list(power_loss.CONTROLS)),
    default=list(power_loss.CONTROLS),
    help="Power cuts on a receiver without these syncs; may be given repeatedly.",
)
@click.option(
    "--faults",
    default=40,
    show_default=True,
    type=click.IntRange(min=0),
    help="Failing system calls: at most so many of each kind, in each process and way.",
)
@click.option(
    "--fault",
    "calls",
    multiple=True,
    type=click.Choice(sorted({call for calls in receiver_faults.CALLS.values() for call in calls})),
    help="Only these system calls; may be given repeatedly.",
)
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var"),
    show_default=True,
    help="Where the data is kept meanwhile.",
)
def main(  # noqa: PLR0913  a parameter an option
    *,
    kills: int,
    cuts: int,
    controls: tuple[str, ...],
    faults: int,
    calls: tuple[str, ...],
    seed: int,
    folder: Path,
) -> None:
    """Run the campaign."""
    end_on_sigterm()
    # Damage is expected here: the controls make it.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="crashes-", dir=folder.absolute()) as temporary:
        is_right = True
        if kills:
            is_right = _kill(Path(temporary), kills, seed)
        if cuts:
            is_right = _cut(Path(temporary), cuts, controls, seed) and is_right
        if faults:
            is_right = _fail(Path(temporary), faults, calls) and is_right
    if not is_right:
        sys.exit(1)


def _kill(folder: Path, kills: int, seed: int) -> bool:
    """Print what came of kills; tell whether all was right."""
    began = time.monotonic()
    killed = receiver_kill.run(folder, kills, seed, lambda line: click.echo(line, err=True))
    click.echo(f"Seed {seed}, {kills} kills, {time.monotonic() - began:.0f} s.\n")
    click.echo("| killed | 1 worker | 2 workers |\n|---|---|---|")
    for aim in sorted({aim for _, aim in killed.rounds}):
        click.echo(f"| {aim} | {killed.rounds[1, aim]} | {killed.rounds[2, aim]} |")
    click.echo(
        f"\n{killed.sent} deliveries sent, {killed.acknowledged} acknowledged;"
        f" {len(killed.wrong)} things wrong.\n"
    )
    for line in killed.wrong:
        click.echo(f"- {line}")
    return not killed.wrong


def _fail(folder: Path, most: int, calls: tuple[str, ...]) -> bool:
    """Print what came of failing system calls; tell whether all was right."""
    reason = why_impossible()
    if reason is not None:
        click.echo(f"Failing system calls were left out: {reason}.")
        return True
    began = time.monotonic()
    failed = receiver_faults.run(folder, most, calls, lambda line: click.echo(line, err=True))
    click.echo(f"{failed.points.total()} failing calls, {time.monotonic() - began:.0f} s.\n")
    modes = list(receiver_faults.MODES)
    click.echo(f"| fails | {' | '.join(modes)} | refused meanwhile |\n|{'---|' * (2 + len(modes))}")
    for child, call in dict.fromkeys((child, call) for child, call, _ in failed.points):
        counts = " | ".join(str(failed.points[child, call, mode]) for mode in modes)
        refused = sum(failed.refused[child, call, mode] for mode in modes)
        click.echo(f"| {child}: {call} | {counts} | {refused} |")
    click.echo(f"\n{failed.acknowledged} acknowledged; {len(failed.wrong)} things wrong.\n")
    for line in failed.wrong:
        click.echo(f"- {line}")
    return not failed.wrong


def _cut(folder: Path, cuts: int, controls: tuple[str, ...], seed: int) -> bool:
    """Print what came of power cuts; tell whether all was right, and wrong in each control."""
    if not power_loss.is_possible():
        click.echo("Power cuts were left out: they need strace (Debian: apt install strace).")
        return True
    began = time.monotonic()
    fewer = max(1, round(cuts * _SHARE_OF_CONTROLS))
    runs = {"as it is": power_loss.run(folder, cuts, seed)}
    for name in controls:
        click.echo(f"control: {name}", err=True)
        runs[f"control: {name}"] = power_loss.run(
            folder, fewer, seed, disabled=power_loss.CONTROLS[name]
        )
    click.echo(f"Seed {seed}, {time.monotonic() - began:.0f} s. States of the disk with something")
    click.echo("wrong after the recovery, by what became of all that was not synced:\n")
    click.echo(f"| receiver | events | syncs | {' | '.join(Fate)} |\n|{'---|' * (3 + len(Fate))}")
    for name, found in runs.items():
        cells = " | ".join(f"{found.wrong[fate]} of {found.states[fate]}" for fate in Fate)
        click.echo(f"| {name} | {found.events} | {found.syncs} | {cells} |")
    click.echo("")
    for name, found in runs.items():
        for example in found.examples[: 20 if name == "as it is" else 1]:
            click.echo(f"- {name}: {example}")
    real, *without_syncs = runs.values()
    return not real.wrong and all(found.wrong for found in without_syncs)


if __name__ == "__main__":
    main()
