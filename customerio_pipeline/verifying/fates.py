"""What became of deliveries: loaded, rejected, held, or still to be loaded."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.loading.target import Reader, SchemaState

Place = tuple[str, int]
"""Writer and offset of a delivery: its name for ever (design C1)."""

IN_DATA = "in data"
SUPERSEDED = "superseded"
HELD = "held"
WAITING = "waiting"

_NOTHING = OffsetSet()


@dataclass(frozen=True, slots=True)
class Fates:
    """What the warehouse knows of some deliveries."""

    settled: Mapping[str, OffsetSet]
    """Offsets that are not to be loaded any more, by writer."""

    held: Mapping[str, OffsetSet]
    reasons: Mapping[Place, str]
    """Why deliveries were rejected."""

    in_data: Collection[Place]
    """Deliveries that rows of the table came with."""

    def of(self, place: Place) -> str:
        """Return ``in data``, ``superseded``, ``rejected: …``, ``held`` or ``waiting``.

        Of several events in one delivery, one in the table counts most.
        """
        writer, offset = place
        if not self.settled.get(writer, _NOTHING).covers(offset, offset):
            return WAITING
        if self.held.get(writer, _NOTHING).covers(offset, offset):
            return HELD
        if place in self.in_data:
            return IN_DATA
        reason = self.reasons.get(place)
        return SUPERSEDED if reason is None else f"rejected: {reason}"


def read_fates(
    reader: Reader,
    schema: str,
    state: SchemaState,
    released: Mapping[str, OffsetSet],
    deliveries: Mapping[Place, Collection[str]],
) -> Fates:
    """Ask the warehouse for the fates of deliveries.

    Args:
        reader: of the warehouse.
        schema: of the integration.
        state: of the schema.
        released: offsets that may be held no more, by writer.
        deliveries: the event_ids in each of them.

    Raises:
        WarehouseError: the warehouse cannot be read.
    """
    reasons: Mapping[Place, str] = {}
    in_data: Collection[Place] = ()
    if deliveries and state.table_columns:
        reasons = rejection_reasons(reader, schema, deliveries)
    event_ids = sorted({event_id for those in deliveries.values() for event_id in those})
    if event_ids and "event_id" in state.table_columns:
        marks = ", ".join(f"${at}" for at in range(1, len(event_ids) + 1))
        result = reader.query(
            f'SELECT _sdc_writer, _sdc_offset FROM "{schema}".data WHERE event_id IN ({marks})',
            event_ids,
        )
        in_data = frozenset((str(writer), int(str(offset))) for writer, offset in result.rows)
    return Fates(state.settled(released), state.held, reasons, in_data)


def rejection_reasons(
    reader: Reader, schema: str, places: Collection[Place]
) -> Mapping[Place, str]:
    """Return the reasons of those of the deliveries that are in `_sdc_rejected`.

    Raises:
        WarehouseError: the warehouse cannot be read.
    """
    conditions = " OR ".join(
        f'writer = ${2 * at + 1} AND "offset" = ${2 * at + 2}' for at in range(len(places))
    )
    result = reader.query(
        f'SELECT writer, "offset", reason FROM "{schema}"._sdc_rejected WHERE {conditions}',
        [part for place in places for part in place],
    )
    return {(str(writer), int(str(offset))): str(reason) for writer, offset, reason in result.rows}
