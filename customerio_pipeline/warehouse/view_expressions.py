"""SQL expressions for the fields of the views, over the columns that `data` happens to have.

Every column may be missing, of a type of its own, or split (stitch-loading 5.6). No expression
can fail on a value: no cast without a guard, no JSON parsed.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from customerio_pipeline.loading.target import ColumnType
from customerio_pipeline.warehouse.view_columns import EMAIL_SOURCES, FLAGS, Field

Columns = Mapping[str, ColumnType | None]

_SPLITS = ("", "__bi", "__do", "__bo", "__st")
_INTEGER = r"'^-?[0-9]{1,18}$'"
_NUMBER = r"'^[0-9]{1,15}([.][0-9]{1,9})?$'"
_DISPLAY_FORM = r"'^[^<]*<([^<>@]+@[^<>@]+)>[^<>]*$'"

_LAST_SECOND = "100000000000"
"""In the year 5138. Greater numbers are milliseconds, which reach it in 1973."""

_LAST_MILLISECOND = "100000000000000"

_TYPE_NAMES = {
    ColumnType.TEXT: "text",
    ColumnType.BIGINT: "bigint",
    ColumnType.DOUBLE: "double precision",
    ColumnType.BOOLEAN: "boolean",
    ColumnType.TIMESTAMP: "timestamptz",
}


class Dialect(NamedTuple):
    """Where the SQL of warehouses differs."""

    cast: str
    """``CAST``, or a cast that gives NULL where it fails."""

    greatest_text: str
    """The greatest of a group's texts, in the order of their bytes, which is fast everywhere."""

    hidden: tuple[str, ...]
    """Columns of `data` that only the adapter needs."""


DUCKDB = Dialect(cast="TRY_CAST", greatest_text="max({})", hidden=("_sdc_key",))
POSTGRES = Dialect(cast="CAST", greatest_text='max({} COLLATE "C") COLLATE "default"', hidden=())


class Expressions:
    """Makes them for one table."""

    def __init__(self, columns: Columns, dialect: Dialect) -> None:
        self.columns = columns
        self.dialect = dialect

    def field(self, field: Field) -> str:
        """Return a field's value from the first place that has one, NULL from none."""
        make = {
            ColumnType.TEXT: self._texts,
            ColumnType.BIGINT: self._integers,
            ColumnType.BOOLEAN: self._booleans,
        }[field.type]
        return _first((value for source in field.sources for value in make(source)), field.type)

    def text(self, *sources: str) -> str:
        """Return the first text in some columns that is not empty."""
        values = (value for source in sources for value in self._texts(source))
        return _first(values, ColumnType.TEXT)

    def column(self, name: str, kind: ColumnType) -> str:
        """Return a column as it is, NULL where it is missing."""
        return quoted(name) if name in self.columns else null(kind)

    def seconds(self) -> str:
        """Return when the event occurred, in seconds since the epoch; NULL when that is absurd."""
        number = _first(self._numbers("timestamp"), ColumnType.DOUBLE)
        return (
            f"CASE WHEN {number} >= 0 AND {number} < {_LAST_SECOND} THEN {number}"
            f" WHEN {number} >= 0 AND {number} < {_LAST_MILLISECOND} THEN {number} / 1000 END"
        )

    def object_type(self) -> str:
        """Return the channel, under whichever name (customerio-webhooks 1.2, 1.8)."""
        current = self.text("object_type", "object_type_type", "delivery_type")
        legacy = self.text("event_type")
        return (
            f"coalesce({current}, CASE WHEN starts_with({legacy}, 'in_app_') THEN 'in_app'"
            f" WHEN strpos({legacy}, '_') > 1"
            f" THEN substr({legacy}, 1, strpos({legacy}, '_') - 1) END)"
        )

    def metric(self) -> str:
        """Return what happened."""
        legacy = self.text("event_type")
        return (
            f"coalesce({self.text('metric')},"
            f" CASE WHEN starts_with({legacy}, 'in_app_') THEN substr({legacy}, 8)"
            f" ELSE substr({legacy}, strpos({legacy}, '_') + 1) END)"
        )

    def email(self) -> str:
        """Return the person's address."""
        own, display, attribute = EMAIL_SOURCES
        return f"coalesce({self.text(own)}, {self._address(display)}, {self.text(attribute)})"

    def recipient(self) -> str:
        """Return where the message went; the legacy format says it in `email_address`."""
        # A legacy `customer_…` event is about a person, not about a message.
        is_message = f"NOT starts_with({self.text('event_type')}, 'customer_')"
        address = self._address(EMAIL_SOURCES[1])
        return (
            f"coalesce({self.text('data__recipient')}, CASE WHEN {is_message} THEN {address} END)"
        )

    def by_machine(self) -> str:
        """Tell whether a program opened or clicked."""
        _, prefetched, _, machine = (self.field(flag) for flag in FLAGS)
        return f"(coalesce({prefetched}, false) OR coalesce({machine}, false))"

    def greatest(self, value: str) -> str:
        """Return the greatest of a group's texts: one of them, and always the same."""
        return self.dialect.greatest_text.format(value)

    def _address(self, source: str) -> str:
        return rf"regexp_replace({self.text(source)}, {_DISPLAY_FORM}, '\1')"

    def _splits(self, source: str) -> list[tuple[str, ColumnType | None]]:
        """Return the columns that hold a path's values, by type (stitch-loading 5.6)."""
        names = (source + suffix for suffix in _SPLITS)
        return [(quoted(name), self.columns[name]) for name in names if name in self.columns]

    def _texts(self, source: str) -> list[str]:
        return [
            f"nullif({column if kind is ColumnType.TEXT else _text(column)}, '')"
            for column, kind in self._splits(source)
            if kind in (ColumnType.TEXT, ColumnType.BIGINT, None)
        ]

    def _integers(self, source: str) -> list[str]:
        values = []
        for column, kind in self._splits(source):
            if kind is ColumnType.BIGINT:
                values.append(column)
            elif kind in (ColumnType.TEXT, None):
                values.append(self._guarded(column, kind, _INTEGER, "bigint"))
        return values

    def _numbers(self, source: str) -> list[str]:
        values = []
        for column, kind in self._splits(source):
            if kind in (ColumnType.BIGINT, ColumnType.DOUBLE):
                values.append(f"CAST({column} AS double precision)")
            elif kind in (ColumnType.TEXT, None):
                values.append(self._guarded(column, kind, _NUMBER, "double precision"))
        return values

    def _booleans(self, source: str) -> list[str]:
        return [
            column
            if kind is ColumnType.BOOLEAN
            else f"CASE WHEN lower({_text(column)}) IN ('true', 't', '1') THEN true"
            f" WHEN lower({_text(column)}) IN ('false', 'f', '0') THEN false END"
            for column, kind in self._splits(source)
        ]

    def _guarded(self, column: str, kind: ColumnType | None, pattern: str, wanted: str) -> str:
        text = column if kind is ColumnType.TEXT else _text(column)
        return f"CASE WHEN {text} ~ {pattern} THEN {self.dialect.cast}({text} AS {wanted}) END"


def quoted(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


def null(kind: ColumnType) -> str:
    """Return NULL of a type."""
    return f"CAST(NULL AS {_TYPE_NAMES[kind]})"


def _first(values: Iterable[str], kind: ColumnType) -> str:
    found = list(values)
    if len(found) > 1:
        return f"coalesce({', '.join(found)})"
    return found[0] if found else null(kind)


def _text(column: str) -> str:
    return f"CAST({column} AS text)"
