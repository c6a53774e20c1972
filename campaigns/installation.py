"""What is loaded in a campaign, and what must come of it: events, landing files, a plain oracle."""

import json
import os
import random
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr

from campaigns.steps import StepMarker
from customerio_pipeline.errors import WarehouseError
from customerio_pipeline.landing.delivery import LANDED_HEADERS, Delivery
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.writing import write_landing_file
from customerio_pipeline.loading import load
from customerio_pipeline.loading.target import Reader, Target
from customerio_pipeline.settings import Settings
from customerio_pipeline.warehouse import open_warehouse
from customerio_pipeline.warehouse.duckdb_reader import DuckDBReader

_WRITERS = ("w0", "w1")
_DELIVERIES = (5, 60)
_PUBLISH_SECONDS = 0.001
_SEQUENCE = 1_700_000_000_000_000_000

_DAMAGE: tuple[Callable[[bytes], bytes], ...] = (
    lambda content: content[: len(content) // 2],
    lambda content: bytes(len(content)),
    lambda content: content[:4096] + os.urandom(8192) + content[12288:],
    lambda _: b"",
)

_OF_THE_LOAD = ("_sdc_received_at", "_sdc_batched_at", "_sdc_table_version", "_sdc_key")

Row = dict[str, object]


class Installation:
    """A landing folder, a warehouse, and all that was ever landed, in memory."""

    def __init__(self, home: Path, warehouse: str, schema: str, chance: random.Random) -> None:
        self._schema = schema
        self._chance = chance
        self._home = home
        self._offsets = dict.fromkeys(_WRITERS, 0)
        self._landed: list[Delivery] = []
        url = None if warehouse == "duckdb" else SecretStr(warehouse)
        self._settings = Settings().model_copy(
            update={
                "home": home,
                "warehouse_url": url,
                "duckdb_publish_seconds": _PUBLISH_SECONDS,
                "warehouse_wait_seconds": 20.0,
            }
        )
        self._file = home / "warehouse" / "customerio.duckdb" if url is None else None

    def land(self, files: int) -> None:
        """Land files of new events, new keys, repeats, later and earlier versions, no JSON."""
        contents = [self._deliveries() for _ in range(files)]

        def write() -> None:
            for rows in contents:
                file = LandingFile.sealed_at(
                    datetime.now(UTC),
                    schema=self._schema,
                    writer=rows[0].writer,
                    first=rows[0].offset,
                    last=rows[-1].offset,
                )
                write_landing_file(self._settings.landing, file, [rows])

        in_a_process(write)  # not here: who has threads must not fork

    def _deliveries(self) -> list[Delivery]:
        writer = self._chance.choice(_WRITERS)
        bodies = [self._body() for _ in range(self._chance.randint(*_DELIVERIES))]
        first = self._offsets[writer]
        self._offsets[writer] += len(bodies)
        deliveries = [
            Delivery(
                writer=writer,
                offset=first + at,
                sequence=_SEQUENCE + self._chance.randrange(10_000),
                received_ns=time.time_ns(),
                url_id="url_1",
                signature="unchecked",
                headers=(None,) * len(LANDED_HEADERS),
                body=body,
            )
            for at, body in enumerate(bodies)
        ]
        self._landed += deliveries
        return deliveries

    def damage(self) -> None:
        """Damage the warehouse's file, or delete it; where there is none do nothing."""
        if self._file is None or not self._file.exists():
            return
        if self._chance.random() < 0.25:  # noqa: PLR2004  one in four
            self._file.unlink()
        else:
            self._file.write_bytes(self._chance.choice(_DAMAGE)(self._file.read_bytes()))

    def load(self, marker: StepMarker) -> None:
        """Load all that is pending, one transaction a file, publishing after each."""
        marker.install()
        load.MAX_BATCH_DELIVERIES = 1
        with closing(open_warehouse(self._settings)) as target:
            loader = load.Loader(self._schema, self._settings.landing, target)
            with closing(loader):
                for _ in load.drain(loader):
                    pass

    def load_or_fail(self, marker: StepMarker) -> None:
        """Load; end this process with 3 where the warehouse refuses with a sentence."""
        try:
            self.load(marker)
        except WarehouseError as error:
            os._exit(3 if "\n" not in str(error) else 1)

    def load_and_compare(self, marker: StepMarker) -> list[str]:
        """Load in a process of its own; return how the warehouse differs from the oracle."""
        found_file = self._home / "found.json"

        def load_and_write() -> None:
            self.load(marker)
            found_file.write_text(json.dumps(self._contents()))

        if in_a_process(load_and_write):
            return ["the load after it failed"]
        found = json.loads(found_file.read_text())
        expected = self._expected()
        differences = [
            f"{name} of {place} differ"
            for place, contents in found.items()
            for name, value in expected.items()
            if contents[name] != value
        ]
        return differences + self._litter()

    def remove(self) -> None:
        """Delete the files; a database server's schema stays."""
        shutil.rmtree(self._home, ignore_errors=True)

    def _body(self) -> bytes:
        if self._chance.random() < 0.03:  # noqa: PLR2004  3 %
            return b"no JSON"
        number = self._chance.randrange(150)
        event: Row = {
            "event_id": f"e{number}",
            "metric": self._chance.choice(["sent", "opened", "clicked"]),
            "data": {"campaign_id": number % 7, f"k{self._chance.randrange(60)}": "v" * 20},
        }
        return json.dumps(event).encode()

    def _expected(self) -> dict[str, object]:
        latest: dict[str, Row] = {}
        rejected = 0
        for delivery in sorted(
            self._landed, key=lambda row: (row.sequence, row.writer, row.offset)
        ):
            try:
                event = json.loads(delivery.body)
            except ValueError:
                rejected += 1
                continue
            flat = {f"data__{key}": value for key, value in event["data"].items()}
            latest[event["event_id"]] = {
                "event_id": event["event_id"],
                "metric": event["metric"],
                "_sdc_sequence": delivery.sequence,
                "_sdc_writer": delivery.writer,
                "_sdc_offset": delivery.offset,
                **flat,
            }
        watermarks = [[writer, 0, end] for writer, end in self._offsets.items() if end]
        return {
            "rows": [latest[event_id] for event_id in sorted(latest)],
            "rejected": rejected,
            "watermarks": watermarks,
        }

    def _contents(self) -> dict[str, dict[str, object]]:
        """Return the tables as SQL shows them: of the warehouse, and of its read copy."""
        with closing(open_warehouse(self._settings)) as target:
            contents = {"the warehouse": self._tables(target)}
        if self._file is not None:
            copy = self._file.with_name("customerio-read.duckdb")
            with closing(DuckDBReader(copy, wait_seconds=5)) as reader:
                contents["the read copy"] = self._tables(reader)
        return contents

    def _tables(self, warehouse: Reader | Target) -> dict[str, object]:
        schema = f'"{self._schema}"'
        found = warehouse.query(f"SELECT * FROM {schema}.data")  # noqa: S608
        rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
        rejected = warehouse.query(f"SELECT count(*) FROM {schema}._sdc_rejected")  # noqa: S608
        watermarks = warehouse.query(
            "SELECT writer, first_offset, next_offset"  # noqa: S608
            f" FROM {schema}._sdc_watermarks"
        )
        return {
            "rows": [
                {
                    name: value
                    for name, value in row.items()
                    if value is not None and name not in _OF_THE_LOAD
                }
                for row in sorted(
                    rows, key=lambda row: str(row["event_id"])
                )  # as no collation does
            ],
            "rejected": rejected.rows[0][0],
            "watermarks": sorted(list(row) for row in watermarks.rows),
        }

    def _litter(self) -> list[str]:
        """Return what a load leaves in the warehouse's folder and should not."""
        if self._file is None:
            return []
        kept = {self._file.name, "customerio-read.duckdb"}
        return [
            f"{path.name} was left behind"
            for path in self._file.parent.iterdir()
            if path.name not in kept and path.suffix != ".lock" and ".damaged-" not in path.name
        ]


def in_a_process(work: Callable[[], object]) -> int:
    """Do `work` in a fork of this process; return its exit code."""
    _, status = os.waitpid(fork(work), 0)
    return os.waitstatus_to_exitcode(status)


def fork(work: Callable[[], object]) -> int:
    """Start a fork of this process that does `work` and ends, with 1 after an error."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001  it must not go on as its parent
        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()
    os._exit(code)
