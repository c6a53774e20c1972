"""Rebuilding: the tables made anew from landing beside the old ones, compared, then swapped."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from customerio_pipeline.errors import LandingError, WarehouseError
from customerio_pipeline.landing.expiry import Expirations
from customerio_pipeline.landing.listing import LandingListing
from customerio_pipeline.loading.load import Loader, drain
from customerio_pipeline.loading.masking import Masking
from customerio_pipeline.loading.report import LoadReport
from customerio_pipeline.loading.staging import Layout
from customerio_pipeline.loading.target import DATA, SOURCE_KEY, SchemaState, TableColumns, Target
from customerio_pipeline.registry.schema_names import MAX_SCHEMA_LENGTH

# With a character that no schema of an integration has.
_SUFFIX = "-rebuild"
_DIGEST_CHARACTERS = 8
_MOST_EXAMPLES = 20

_LOADED_AT = "_sdc_batched_at"

# Of the load that wrote a row, not of the event.
_OF_THE_LOAD = frozenset({_LOADED_AT})

# A digest of each row: what is joined stays small, however wide the table.
_DIFFERENCES = """
WITH here AS ({here}), anew AS ({anew}),
 sides AS (
  SELECT id, 1 AS here, 0 AS anew FROM (SELECT * FROM here EXCEPT SELECT * FROM anew) AS only_here
  UNION ALL
  SELECT id, 0 AS here, 1 AS anew FROM (SELECT * FROM anew EXCEPT SELECT * FROM here) AS only_anew),
 rows_differing AS (SELECT id, max(here) AS here, max(anew) AS anew FROM sides GROUP BY id),
 elements_here AS ({elements_here}), elements_anew AS ({elements_anew}),
 elements AS (
  (SELECT * FROM elements_here EXCEPT SELECT * FROM elements_anew)
  UNION ALL
  (SELECT * FROM elements_anew EXCEPT SELECT * FROM elements_here)),
 ids AS (
  SELECT id, here, anew FROM rows_differing
  UNION ALL
  SELECT DISTINCT id, 1 AS here, 1 AS anew FROM elements
  WHERE NOT EXISTS (SELECT 1 FROM rows_differing WHERE rows_differing.id = elements.id))
"""
_NOTHING = "SELECT '' AS id, '' AS digest WHERE false"


@dataclass(frozen=True, slots=True)
class Difference:
    """An event whose row is not what landing comes to."""

    event_id: str
    what: str
    """``different``, ``missing`` or ``surplus``."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild found."""

    schema: str
    deliveries: int
    """Deliveries that were loaded anew."""

    rows: int
    """Rows that landing comes to."""

    different: int
    missing: int
    """Rows that landing comes to and `data` has not."""

    surplus: int
    """Rows that `data` has and landing does not come to."""

    before_rules: int
    """Those of `different` whose row here was loaded before the rules on fields last changed."""

    examples: Sequence[Difference]
    """At most 20 of them."""

    is_swapped: bool
    """Whether the new rows are in the place of the old ones."""

    @property
    def is_same(self) -> bool:
        """Whether `data` held what landing comes to."""
        return not (self.different or self.missing or self.surplus)


def rebuild(  # noqa: PLR0913  what it works on, and how
    target: Target,
    landing: Path,
    schema: str,
    layout: Layout,
    *,
    check: bool = False,
    run_id: str | None = None,
    progress: Callable[[LoadReport], None] = lambda _: None,
) -> Rebuilt:
    """Make the tables of an integration anew from landing.

    The new ones are filled in a schema beside, while loads and readers go on. Then loads wait until
    what came meanwhile is in the new ones, too, both are compared, and the rows change places in
    one transaction. Killed, it leaves the schema beside, which the next one begins by dropping.

    Args:
        target: the warehouse.
        landing: folder of the landing files.
        schema: of the integration.
        layout: of its tables.
        check: compare only.
        run_id: of the Dagster run that rebuilds.
        progress: called with each batch that was loaded anew.

    Raises:
        LandingError: a landing file is damaged, or deliveries have expired; nothing was swapped.
        WarehouseError: the warehouse refuses; nothing was swapped.
    """
    _check_is_all_there(landing, schema)
    beside = schema_beside(schema)
    loader = Loader(schema, landing, target, layout=layout, run_id=run_id, into=beside)
    deliveries = 0
    try:
        # A name that no schema has: two rebuilds would fill the same tables.
        with target.exclusive(f"{schema} (rebuild)"):
            try:
                target.prepare_rebuild(schema, beside)
                for report in drain(loader):
                    deliveries += report.deliveries
                    progress(report)
                with target.exclusive(schema):
                    for report in drain(loader):
                        deliveries += report.deliveries
                        progress(report)
                    state = target.state(schema)
                    _check_is_whole(schema, state, target.state(beside))
                    found = _compare(target, schema, beside, state, layout.masking)
                    is_swapped = found is not None and not check
                    if is_swapped:
                        target.finish_rebuild(schema, beside)
            finally:
                with suppress(WarehouseError):  # the next rebuild begins by dropping it
                    target.drop(beside)
    finally:
        loader.close()
    compared = found or _Compared()
    return Rebuilt(schema, deliveries, *compared, is_swapped=is_swapped)


def schema_beside(schema: str) -> str:
    """Return the name of the schema that a rebuild fills: no integration's, and no other's."""
    if len(schema) + len(_SUFFIX) > MAX_SCHEMA_LENGTH:
        digest = hashlib.sha256(schema.encode()).hexdigest()[:_DIGEST_CHARACTERS]
        schema = f"{schema[: MAX_SCHEMA_LENGTH - len(_SUFFIX) - len(digest) - 1]}-{digest}"
    return schema + _SUFFIX


def _check_is_all_there(landing: Path, schema: str) -> None:
    expirations = Expirations(landing, schema)
    expirations.check_readable()
    gone = sum(map(len, expirations.gone(LandingListing(landing, schema).files()).values()))
    if gone:
        raise LandingError(
            f"{gone:,} deliveries of {schema} were removed from landing as they were older than"
            " CUSTOMERIO_LANDING_RETENTION_DAYS: a rebuild would lose their rows. Restore their"
            " days from a backup of landing first."
        )


def _check_is_whole(schema: str, here: SchemaState, anew: SchemaState) -> None:
    """Check that landing still has all that was loaded: else the table knows more than it."""
    for writer, offsets in here.loaded.items():
        lost = offsets.without(anew.loaded[writer]) if writer in anew.loaded else offsets
        for first, last in lost:
            raise LandingError(
                f"The offsets {first} to {last} of {writer} are in the tables of {schema}, and no"
                " landing file has them any more: a rebuild would lose them. Restore the landing"
                " folder from a backup."
            )


class _Compared(NamedTuple):
    rows: int = 0
    different: int = 0
    missing: int = 0
    surplus: int = 0
    before_rules: int = 0
    examples: Sequence[Difference] = ()


def _compare(
    target: Target, schema: str, beside: str, state: SchemaState, masking: Masking
) -> _Compared | None:
    """Compare the events of both schemas, with the elements of their arrays.

    None when there is no `data` anew, as nothing was landed.
    """
    new = target.state(beside)
    if not new.table_columns:
        return None
    if not state.table_columns:
        [(rows,)] = target.query(f'SELECT count(*) FROM "{beside}".{DATA}').rows
        return _Compared(rows=int(str(rows)), missing=int(str(rows)))
    sql = _DIFFERENCES.format(
        here=_digests(schema, state, new, DATA),
        anew=_digests(beside, new, new, DATA),
        elements_here=_element_digests(schema, state, new),
        elements_anew=_element_digests(beside, new, new),
    )
    [counts] = target.query(
        f"{sql} SELECT (SELECT count(*) FROM anew), coalesce(sum(here * anew), 0),"
        " coalesce(sum(anew * (1 - here)), 0), coalesce(sum(here * (1 - anew)), 0) FROM ids"
    ).rows
    rows, different, missing, surplus = (int(str(count)) for count in counts)
    examples = []
    before_rules = 0
    if different and masking.changed_at and _LOADED_AT in state.table_columns:
        [(count,)] = target.query(
            f'{sql} SELECT count(*) FROM ids JOIN "{schema}".{DATA} AS data ON event_id = id'
            f" WHERE here = 1 AND anew = 1 AND {_LOADED_AT} < CAST($1 AS timestamptz)",
            [masking.changed_at],
        ).rows
        before_rules = int(str(count))
    if different or missing or surplus:
        found = target.query(
            f"{sql} SELECT id, here, anew FROM ids ORDER BY id LIMIT {_MOST_EXAMPLES}"
        ).rows
        examples = [
            Difference(
                str(event_id),
                "different" if here and anew else "missing" if anew else "surplus",
            )
            for event_id, here, anew in found
        ]
    return _Compared(rows, different, missing, surplus, before_rules, examples)


def _element_digests(schema: str, state: SchemaState, anew: SchemaState) -> str:
    return (
        " UNION ALL ".join(_digests(schema, state, anew, table) for table in state.subtables)
        or _NOTHING
    )


def _digests(schema: str, state: SchemaState, anew: SchemaState, table: str) -> str:
    """Return the SQL for the event_id and the digest of each row of a table.

    Args:
        schema: that the table is in.
        state: of that schema.
        anew: of the schema that was filled anew, which knows all columns that come of landing.
        table: its name, the same in both.
    """
    there = _columns(state, table)
    of_landing = {column.name for column in anew.columns if column.table == table}
    own = {name for name in _columns(anew, table) if name.startswith("_sdc_")} - _OF_THE_LOAD
    names = sorted(of_landing) + sorted(own - of_landing)
    values = ", ".join(_quoted(name) if name in there else "NULL" for name in names)
    key = "event_id" if table == DATA else SOURCE_KEY
    return (
        f"SELECT {key} AS id, md5(CAST(ROW('{table}', {values}) AS VARCHAR)) AS digest"
        f' FROM "{schema}".{_quoted(table)}'
    )


def _columns(state: SchemaState, table: str) -> TableColumns:
    return state.table_columns if table == DATA else state.subtables.get(table, {})


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
