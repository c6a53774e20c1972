"""What is told: trouble that began, and trouble that is over."""

from collections.abc import Sequence
from typing import NamedTuple


class Trouble(NamedTuple):
    """Something that is not as it should be."""

    id: str
    """The same as long as it lasts: ``check:shop/data/nothing_missing``."""

    title: str
    """What is wrong, in a few words."""

    text: str
    """Why, in a sentence or two; no secrets."""

    link: str | None
    """Where more is to be seen."""


class Message(NamedTuple):
    """What changed since the last one."""

    begun: Sequence[Trouble]
    over: Sequence[Trouble]

    @property
    def subject(self) -> str:
        """One line."""
        if len(self.begun) == 1:
            more = f" (and {len(self.over)} over)" if self.over else ""
            return f"{self.begun[0].title}{more}"
        parts = [f"{len(self.begun)} troubles began"] if self.begun else []
        if len(self.over) == 1 and not parts:
            return f"Over: {self.over[0].title}"
        parts += [f"{len(self.over)} are over"] if self.over else []
        return ", ".join(parts)

    @property
    def body(self) -> str:
        """Plain text of all of it."""
        paragraphs = [
            "\n".join([each.title, each.text, *([each.link] if each.link else [])])
            for each in self.begun
        ]
        paragraphs += [f"Over: {each.title}" for each in self.over]
        return "\n\n".join(paragraphs) + "\n"


TEST = Message(
    [
        Trouble(
            "test",
            "customerio-pipeline: a test of alerts",
            "Nothing is wrong: somebody ran `customerio-pipeline alerts test`.",
            None,
        )
    ],
    [],
)
