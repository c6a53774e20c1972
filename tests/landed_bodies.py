"""Landing files and loads for tests, into any warehouse: bodies in, SQL out."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import psycopg

from customerio_pipeline.landing.delivery import Delivery
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.writing import write_landing_file
from customerio_pipeline.loading.load import Loader, drain
from customerio_pipeline.loading.report import LoadReport
from customerio_pipeline.loading.staging import DEFAULT_LAYOUT, Layout
from customerio_pipeline.loading.target import Target
from customerio_pipeline.settings import Settings
from customerio_pipeline.warehouse import open_warehouse

SCHEMA = "stitch_customerio"
RECEIVED_NS = 1_700_000_000_000_000_000

_TYPES = {"varchar": "text", "double precision": "double"}


class Warehouse:
    """A landing folder of a test's own, and a warehouse: a DuckDB file in `folder`, or `url`."""

    def __init__(
        self, folder: Path, url: str | None = None, *, layout: Layout = DEFAULT_LAYOUT
    ) -> None:
        self.landing = folder / "landing"
        self.file = folder / "warehouse" / "customerio.duckdb"
        self.url = url or f"duckdb:///{self.file}"
        self.is_duckdb = self.url.startswith("duckdb:")
        self.target = self.open(wait_seconds=20)
        self.layout = layout
        self.next_offset: dict[str, int] = {}

    def open(self, *, wait_seconds: float) -> Target:
        """Return the warehouse for a loader of its own."""
        settings = {
            "CUSTOMERIO_WAREHOUSE": self.url,
            "warehouse_wait_seconds": wait_seconds,
            "duckdb_publish_seconds": 0,  # a test of copies says so
        }
        return open_warehouse(Settings.model_validate(settings))

    def change(self, *statements: str) -> None:
        """Do what a user does with a client of the warehouse; ``{s}`` stands for the schema."""
        for statement in statements:
            sql = statement.format(s=SCHEMA)
            if self.is_duckdb:
                with duckdb.connect(self.file) as connection:
                    connection.execute(sql)
            else:
                with psycopg.connect(self.url, autocommit=True) as postgres:
                    postgres.execute(sql.encode())

    def land(
        self,
        *bodies: bytes,
        writer: str = "w0",
        sequences: Sequence[int] | None = None,
        content_encoding: str | None = None,
        signatures: Sequence[str] | None = None,
        signed: Sequence[tuple[str, str]] | None = None,
    ) -> LandingFile:
        """Land bodies as one file, offsets following the writer's last ones.

        `signatures` are verdicts, `signed` timestamps and signatures as their headers had them.
        """
        first = self.next_offset.get(writer, 0)
        self.next_offset[writer] = first + len(bodies)
        headers = [
            (None, content_encoding, None, *(signed[at] if signed else (None, None)))
            for at in range(len(bodies))
        ]
        deliveries = [
            Delivery(
                writer=writer,
                offset=first + at,
                sequence=sequences[at] if sequences else RECEIVED_NS + first + at,
                received_ns=time.time_ns(),
                url_id="url_1",
                signature=signatures[at] if signatures else "unchecked",
                headers=headers[at],
                body=body,
            )
            for at, body in enumerate(bodies)
        ]
        file = LandingFile.sealed_at(
            datetime.now(UTC),
            schema=SCHEMA,
            writer=writer,
            first=first,
            last=first + len(bodies) - 1,
        )
        write_landing_file(self.landing, file, [deliveries])
        return file

    def load(self) -> list[LoadReport]:
        """Load all that is pending with a fresh loader."""
        loader = Loader(SCHEMA, self.landing, self.target, layout=self.layout)
        try:
            return list(drain(loader))
        finally:
            loader.close()

    def load_bodies(self, *bodies: bytes) -> list[LoadReport]:
        """Land bodies as one file and load it."""
        self.land(*bodies)
        return self.load()

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """Return the rows of a query; ``{s}`` stands for the schema."""
        return self.target.query(sql.format(s=SCHEMA)).rows

    def columns(self) -> dict[str, object]:
        """Return name and type of the columns of ``data``, in their order; types as loading has."""
        found = self.rows(
            "SELECT column_name, lower(data_type) FROM information_schema.columns"
            " WHERE table_schema = '{s}' AND table_name = 'data' ORDER BY ordinal_position"
        )
        return {str(name): _TYPES.get(str(kind), kind) for name, kind in found}

    def event(self, event_id: str) -> dict[str, object]:
        """Return the row of an event without nulls and system columns."""
        return self.events()[event_id]

    def events(self) -> dict[str, dict[str, object]]:
        """Return all such rows by event_id, of which each has one."""
        result = self.target.query(f"SELECT * FROM {SCHEMA}.data")  # noqa: S608  a test's constant
        events = {}
        for row in result.rows:
            event = {
                name: value
                for name, value in zip(result.columns, row, strict=True)
                if value is not None and not (name.startswith("_sdc_") and name != "_sdc_overflow")
            }
            assert event["event_id"] not in events
            events[str(event["event_id"])] = event
        return events

    def rejected(self) -> list[tuple[object, ...]]:
        """Return record and reason of the rejected ones, in the order of receipt."""
        return self.rows("SELECT record, reason FROM {s}._sdc_rejected ORDER BY _sdc_sequence")
