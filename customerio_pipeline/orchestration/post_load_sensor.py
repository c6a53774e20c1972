"""The sensor that calls the post-load webhook after loads, at least once for each."""

import time
from contextlib import closing
from datetime import datetime

import dagster as dg
import msgspec

from customerio_pipeline.alerting.post_load import Loaded, post
from customerio_pipeline.errors import AlertError, WarehouseError
from customerio_pipeline.loading.target import Reader
from customerio_pipeline.registry.records import Integration
from customerio_pipeline.settings import Settings
from customerio_pipeline.verifying.matching import quoted
from customerio_pipeline.warehouse import open_for_reading

_INTERVAL_SECONDS = 20
_FIRST_RETRY_SECONDS = 30.0
_LAST_RETRY_SECONDS = 3600.0


class _Cursor(msgspec.Struct):
    """What the webhook was told of: sums, which no clock can disturb."""

    loads: int
    rows: int
    rejected: int
    failures: int = 0
    retry_at: float = 0.0


def post_load_sensor(settings: Settings, integration: Integration) -> dg.SensorDefinition | None:
    """Build the sensor of one integration; None where no webhook is set up."""
    if settings.post_load_url is None:
        return None
    url = settings.post_load_url.get_secret_value()
    key = settings.post_load_key.get_secret_value() if settings.post_load_key else None
    schema = integration.schema

    @dg.sensor(
        name=f"{schema}_post_load_sensor",
        description="Calls the post-load webhook with what was loaded since the last call.",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            with closing(open_for_reading(settings)) as reader:
                now = _sums(reader, schema)
                told = _cursor(context.cursor)
                if told is None or now.loads < told.loads:
                    # What was there before, and tables made anew, are no news.
                    return _done(now, "Beginning with the next load.")
                if now.loads == told.loads or time.time() < told.retry_at:
                    return dg.SkipReason("Nothing to tell now.")
                first, last, until = _times(reader, schema, now.loads - told.loads)
                subtables = _subtables(reader, schema, first, last)
        except WarehouseError as error:
            return dg.SkipReason(str(error))
        loaded = Loaded(
            schema,
            integration.name,
            max(now.rows - told.rows, 0),
            max(now.rejected - told.rejected, 0),
            first,
            until,
            subtables,
        )
        try:
            post(url, key, loaded)
        except AlertError as error:
            context.log.warning(str(error))
            pause = min(_FIRST_RETRY_SECONDS * 2**told.failures, _LAST_RETRY_SECONDS)
            told.failures += 1
            told.retry_at = time.time() + pause
            return _done(told, str(error))
        return _done(now, f"{loaded.rows} rows were told.")

    return sensor


def _done(cursor: _Cursor, reason: str) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=reason, cursor=msgspec.json.encode(cursor).decode())


def _cursor(text: str | None) -> _Cursor | None:
    return msgspec.json.decode(text, type=_Cursor) if text else None


def _sums(reader: Reader, schema: str) -> _Cursor:
    if not reader.state(schema).table_columns:
        return _Cursor(0, 0, 0)
    [row] = reader.query(
        "SELECT count(*), coalesce(sum(inserted + updated), 0), coalesce(sum(rejected), 0)"  # noqa: S608  a checked name
        f' FROM "{schema}"._sdc_loads'
    ).rows
    return _Cursor(*(int(str(value)) for value in row))


def _times(reader: Reader, schema: str, loads: int) -> tuple[datetime, datetime, datetime]:
    """Return when the first and the last of the newest loads were, and their newest receipt."""
    [(first, last, until)] = reader.query(
        "SELECT min(batched_at), max(batched_at), max(received_to)"  # noqa: S608  a checked name
        f' FROM (SELECT batched_at, received_to FROM "{schema}"._sdc_loads'
        f" ORDER BY batched_at DESC LIMIT {loads}) AS newest"
    ).rows
    if not (
        isinstance(first, datetime) and isinstance(last, datetime) and isinstance(until, datetime)
    ):
        raise TypeError(f"_sdc_loads has no times: {first}, {last}, {until}")
    return first, last, until


def _subtables(reader: Reader, schema: str, first: datetime, last: datetime) -> dict[str, int]:
    """Count the rows that loads wrote into tables of arrays, where there are any."""
    counts = {}
    for table in reader.state(schema).subtables:
        [(rows,)] = reader.query(
            f'SELECT count(*) FROM "{schema}".{quoted(table)} WHERE _sdc_batched_at BETWEEN'  # noqa: S608  checked names
            f" TIMESTAMPTZ '{first.isoformat()}' AND TIMESTAMPTZ '{last.isoformat()}'"
        ).rows
        counts[table] = int(str(rows))
    return {table: rows for table, rows in counts.items() if rows}
