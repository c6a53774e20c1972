"""Try to make the receiver lose or double a delivery: ``python -m campaigns.receiver_crash``.

Seeded; where exactly a moment falls is up to the machine. Prints a Markdown report and ends with 1
if anything was wrong.
"""

import sys
import tempfile
import time
from pathlib import Path

import click

from campaigns import receiver_kill


@click.command()
@click.option("--kills", default=1000, show_default=True, type=click.IntRange(min=0))
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var"),
    show_default=True,
    help="Where the data is kept meanwhile.",
)
def main(*, kills: int, seed: int, folder: Path) -> None:
    """Run the campaign."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crashes-", dir=folder.absolute()) as temporary:
        killed = receiver_kill.run(
            Path(temporary), kills, seed, lambda line: click.echo(line, err=True)
        )
    click.echo(f"Seed {seed}, {kills} kills, {time.monotonic() - began:.0f} s.\n")
    click.echo("| killed | 1 worker | 2 workers |\n|---|---|---|")
    for aim in sorted({aim for _, aim in killed.rounds}):
        click.echo(f"| {aim} | {killed.rounds[1, aim]} | {killed.rounds[2, aim]} |")
    click.echo(
        f"\n{killed.sent} deliveries sent, {killed.acknowledged} acknowledged;"
        f" {len(killed.wrong)} things wrong."
    )
    for line in killed.wrong:
        click.echo(f"- {line}")
    if killed.wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
