"""Moments as people type them."""

from datetime import UTC, datetime

import click


class Moment(click.ParamType[datetime]):
    """A date, or a date and a time; without a zone it is UTC."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Return the moment with its zone; click ends with 2 where it is none."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time like 2026-11-26 or 2026-11-26T13:00:00Z.", param, ctx)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
