"""What must be in the landing zone, checked with a plain Parquet reader and nothing of ours."""

from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import Path

import pyarrow.parquet as pq


def compare(
    landing: Path,
    acknowledged: Collection[bytes],
    sent: Collection[bytes],
    *,
    integration: str = "*",
) -> list[str]:
    """Return what is wrong: lost, double, never sent, a gap in the offsets, a changed file name.

    `integration` is the schema of one, where others land beside it.
    """
    bodies: Counter[bytes] = Counter()
    offsets: defaultdict[str, list[int]] = defaultdict(list)
    wrong = []
    for path in landing.glob(f"integration={integration}/date=*/hour=*/*.parquet"):
        with pq.ParquetFile(path) as file:
            table = file.read(columns=["writer", "offset", "body"])
        writer, first, last = path.stem.split("-")
        found = table["offset"].to_pylist()
        if found != list(range(int(first), int(last) + 1)):
            wrong.append(f"{path.name} holds other offsets than it says")
        offsets[writer] += found
        bodies.update(table["body"].to_pylist())
    wrong += [
        f"the offsets of {writer} have gaps or repeats"
        for writer, found in offsets.items()
        if sorted(found) != list(range(len(found)))
    ]
    for what, count in (
        ("acknowledged and lost", len(set(acknowledged) - bodies.keys())),
        ("landed twice", sum(count > 1 for count in bodies.values())),
        ("landed and never sent", len(bodies.keys() - set(sent))),
    ):
        if count:
            wrong.append(f"{count} {what}")
    return wrong
