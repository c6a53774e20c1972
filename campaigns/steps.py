"""The steps of a load that a kill is to hit, and how to see which one another process is in."""

import importlib
import mmap
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple

ELSEWHERE = "reading, staging, waiting"


class Step(NamedTuple):
    """A function of the loader, by the place where it is looked up when it is called."""

    name: str
    module: str
    function: str
    then: str | None = None
    """What happens after it until the next step begins, if that is a step to be hit, too."""

    only_after_damage: bool = False


STEPS: dict[str, tuple[Step, ...]] = {
    "duckdb": (
        Step("making the file", "duckdb_target", "create", only_after_damage=True),
        Step("setting aside", "duckdb_damage", "_set_aside", only_after_damage=True),
        Step("ALTER", "duckdb_merge", "evolve_data"),
        Step("merging rows", "duckdb_merge", "_merge_rows"),
        Step("other tables", "duckdb_merge", "_insert_metadata", then="commit and checkpoint"),
        Step("publishing", "duckdb_copy", "_publish"),
    ),
    "postgresql": (
        Step("ALTER", "postgres_target", "evolve"),
        Step("COPY", "postgres_merge", "_copy"),
        Step("merging rows", "postgres_merge", "_upsert"),
        Step("other tables", "postgres_merge", "_insert_metadata", then="commit"),
    ),
}
"""Of each kind of warehouse."""

# The memory: a byte with the step, then the whole time, then a record of each step.
_TOTAL = struct.Struct("<d")
_TOTAL_AT = 8
_RECORD = struct.Struct("<Qd")  # entries, seconds of the longest stay
_RECORDS_AT = 16


class StepMarker:
    """Memory shared with the process that loads: the step it is in, and how long each took."""

    def __init__(self, warehouse_kind: str) -> None:
        self._steps = STEPS[warehouse_kind]
        self.names = [ELSEWHERE, *(step.name for step in self._steps)]
        self.names += [step.then for step in self._steps if step.then]
        self._memory = mmap.mmap(-1, _RECORDS_AT + _RECORD.size * len(self.names))
        self._started = self._began = 0.0

    @property
    def step(self) -> str:
        """The step that the process is in, or was when it died."""
        return self.names[self._memory[0]]

    def entries(self, name: str) -> int:
        """How often the step was begun."""
        return int(self._record(name)[0])

    def seconds(self, name: str) -> float:
        """How long the step took at most."""
        return float(self._record(name)[1])

    @property
    def total_seconds(self) -> float:
        """How long it was from the first step to the last."""
        return float(_TOTAL.unpack_from(self._memory, _TOTAL_AT)[0])

    def install(self) -> None:
        """Have the functions of this process tell when they begin and end."""
        self._started = self._began = time.monotonic()
        for step in self._steps:
            module = importlib.import_module(f"customerio_pipeline.warehouse.{step.module}")
            setattr(module, step.function, self._told(getattr(module, step.function), step))

    def close(self) -> None:
        """Release the memory."""
        self._memory.close()

    def _told(self, call: Callable[..., Any], step: Step) -> Callable[..., Any]:
        def told(*arguments: object, **more: object) -> object:
            self._enter(step.name)
            try:
                return call(*arguments, **more)
            finally:
                self._enter(step.then or ELSEWHERE)

        return told

    def _enter(self, name: str) -> None:
        now = time.monotonic()
        entries, longest = self._record(self.step)
        self._write(self.step, entries, max(longest, now - self._began))
        entries, longest = self._record(name)
        self._write(name, entries + 1, longest)
        self._memory[0] = self.names.index(name)
        self._began = now
        _TOTAL.pack_into(self._memory, _TOTAL_AT, now - self._started)

    def _record(self, name: str) -> tuple[int, float]:
        entries, seconds = _RECORD.unpack_from(self._memory, self._place(name))
        return entries, seconds

    def _write(self, name: str, entries: int, seconds: float) -> None:
        _RECORD.pack_into(self._memory, self._place(name), entries, seconds)

    def _place(self, name: str) -> int:
        return _RECORDS_AT + _RECORD.size * self.names.index(name)
