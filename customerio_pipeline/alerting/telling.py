"""Telling once: when trouble lasts, and when it is over, each way for itself.

All that was told is in one text, which Dagster keeps between the ticks of a sensor. A way that
does not work is tried again, less and less often, and keeps no other one back.
"""

from collections.abc import Sequence

import msgspec

from customerio_pipeline.alerting.message import Message, Trouble
from customerio_pipeline.alerting.ways import Way
from customerio_pipeline.errors import AlertError

_FIRST_RETRY_SECONDS = 30.0
_LAST_RETRY_SECONDS = 3600.0


class _Seen(msgspec.Struct):
    trouble: Trouble
    since: float
    """When it was seen first, s since the epoch."""

    told_by: list[str] = []
    is_over: bool = False


class _Waiting(msgspec.Struct):
    failures: int
    until: float


class Told(msgspec.Struct):
    """What was seen and told so far."""

    troubles: dict[str, _Seen] = {}
    waiting: dict[str, _Waiting] = {}
    """Ways that did not work."""

    @classmethod
    def from_text(cls, text: str | None) -> "Told":
        """Read what `to_text` wrote; what cannot be read counts as nothing."""
        if text is None:
            return cls()
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.DecodeError:
            return cls()

    def to_text(self) -> str:
        """Return all of it as text."""
        return msgspec.json.encode(self).decode()

    def see(self, troubles: Sequence[Trouble], now: float) -> None:
        """Take note of the trouble that there is now; other trouble is over."""
        current = {trouble.id: trouble for trouble in troubles}
        for trouble in troubles:
            seen = self.troubles.setdefault(trouble.id, _Seen(trouble, now))
            seen.is_over = False
            if not seen.told_by:
                seen.trouble = trouble
        for name, seen in list(self.troubles.items()):
            seen.is_over = name not in current
            self._forget_if_done(name)

    def tell(self, ways: Sequence[Way], now: float, after_seconds: float) -> list[str]:
        """Tell by each way what it has not told: trouble that lasts so long, and what is over.

        Returns a sentence for each way that did not work.
        """
        problems = []
        for way in ways:
            waiting = self.waiting.get(way.name)
            if waiting is not None and now < waiting.until:
                continue
            begun, over = self._changes(way.name, now - after_seconds)
            if not (begun or over):
                continue
            try:
                way.send(Message([each.trouble for each in begun], [each.trouble for each in over]))
            except AlertError as error:
                problems.append(str(error))
                failures = 1 if waiting is None else waiting.failures + 1
                pause = min(_FIRST_RETRY_SECONDS * 2 ** (failures - 1), _LAST_RETRY_SECONDS)
                self.waiting[way.name] = _Waiting(failures, now + pause)
                continue
            self.waiting.pop(way.name, None)
            for seen in begun:
                seen.told_by.append(way.name)
            for seen in over:
                seen.told_by.remove(way.name)
                self._forget_if_done(seen.trouble.id)
        return problems

    def _changes(self, way: str, before: float) -> tuple[list[_Seen], list[_Seen]]:
        begun = [
            seen
            for seen in self.troubles.values()
            if not seen.is_over and seen.since <= before and way not in seen.told_by
        ]
        over = [seen for seen in self.troubles.values() if seen.is_over and way in seen.told_by]
        return begun, over

    def _forget_if_done(self, name: str) -> None:
        seen = self.troubles[name]
        if seen.is_over and not seen.told_by:
            del self.troubles[name]
