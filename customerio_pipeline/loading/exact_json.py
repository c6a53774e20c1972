"""A JSON reader without limits, for the few bodies that the fast decoder refuses or would bend.

Reads any depth without recursion, numbers of any size, and lone surrogates; loses nothing that
JSON can say. Slow (some MB/s), so only odd bodies come here
(`customerio_pipeline.loading.decoding`).
"""

import json
import math
import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # documented by its use only

MAX_DEPTH = 64
"""Objects nested deeper than this become JSON text at that level (stitch-loading 0.1)."""

MAX_TEXT_DEPTH = 5000
"""JSON text nested deeper than this is kept as plain text: reading it back is more than
PostgreSQL's and DuckDB's JSON readers surely manage."""

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_BRACKET_OR_STRING = re.compile(r'[\[\]{}]|"(?:[^"\\]|\\.)*"')
_LITERALS = {"true": True, "false": False, "null": None}
_OPENING = {"{": "}", "[": "]"}
_INT64 = range(-(2**63), 2**63)


class JsonText(str):
    """A value kept as JSON text: an array, or an object nested too deep."""

    __slots__ = ()


class NumberText(str):
    """A number that no column type holds exactly enough, as its digits."""

    __slots__ = ()


class InvalidJsonError(ValueError):
    """The text is not JSON; the message says why and where."""


def replace_unstorable(text: str) -> str:
    """Replace NUL and lone surrogates by U+FFFD (stitch-loading 0.1)."""
    return _UNSTORABLE.sub("\ufffd", text)


def nesting(json_text: str) -> int:
    """Return how deep arrays and objects are nested in a JSON text."""
    depth = deepest = 0
    for match in _BRACKET_OR_STRING.finditer(json_text):
        if match[0] in _OPENING:
            depth += 1
            deepest = max(deepest, depth)
        elif match[0][0] != '"':
            depth -= 1
    return deepest


class _Container:
    """An object or array that is still open."""

    __slots__ = ("closing", "is_text", "key", "value", "written_from")

    def __init__(self, opening: str, written_from: int, enclosing: "list[_Container]") -> None:
        self.closing = _OPENING[opening]
        self.value: dict[str, object] | list[object] = {} if opening == "{" else []
        self.key = ""
        self.written_from = written_from
        # The elements of a top-level array are events: depth counts from each.
        in_array = bool(enclosing) and isinstance(enclosing[0].value, list)
        self.is_text: bool = bool(enclosing) and (
            enclosing[-1].is_text or opening == "[" or len(enclosing) - in_array >= MAX_DEPTH
        )


def read_exactly(text: str) -> object:
    """Read one JSON document.

    Objects are dicts (of two equal keys the last counts), a top-level array is a list of its
    elements, every other array and every object below `MAX_DEPTH` is `JsonText`. Integers beyond
    64 bits and floats beyond double are `NumberText`.

    Raises:
        InvalidJsonError: it is not JSON.
    """
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._open: list[_Container] = []
        # The document re-written without white space and with unstorable characters replaced.
        self._written: list[str] = []

    def read(self) -> object:
        """Read the whole text as one value."""
        while True:
            opened_or_value = self._value()
            if isinstance(opened_or_value, _Container):
                if not self._closes(opened_or_value):
                    self._key(opened_or_value)
                    continue
                opened_or_value = self._close()
            done, value = self._place(opened_or_value)
            if done:
                if self._peek():
                    raise self._error("more text after the end")
                return value

    def _place(self, value: object) -> tuple[bool, object]:
        """Put a finished value where it belongs; close what ends after it."""
        while self._open:
            container = self._open[-1]
            if isinstance(container.value, dict):
                container.value[container.key] = value
            elif len(self._open) == 1:
                container.value.append(value)
            following = self._peek()
            if following == ",":
                self._take(",")
                self._key(container)
                return False, None
            if following != container.closing:
                raise self._error(f"expected ',' or '{container.closing}'")
            value = self._close()
        return True, value

    def _closes(self, container: _Container) -> bool:
        return self._peek() == container.closing

    def _close(self) -> object:
        container = self._open.pop()
        self._take(container.closing)
        if not container.is_text:
            return container.value
        if self._open[-1].is_text:
            return None  # part of the text of what encloses it
        return JsonText("".join(self._written[container.written_from :]))

    def _key(self, container: _Container) -> None:
        if container.closing == "]":
            return
        if self._peek() != '"':
            raise self._error("expected a key in quotes")
        container.key = self._string()
        if self._peek() != ":":
            raise self._error("expected ':'")
        self._take(":")

    def _value(self) -> object:
        character = self._peek()
        if character in _OPENING:
            container = _Container(character, len(self._written), self._open)
            self._take(character)
            self._open.append(container)
            return container
        if character == '"':
            return self._string()
        for literal, value in _LITERALS.items():
            if self._text.startswith(literal, self._at):
                self._take(literal)
                return value
        return self._number()

    def _string(self) -> str:
        try:
            value, self._at = scanstring(self._text, self._at + 1, True)
        except ValueError as error:
            raise InvalidJsonError(str(error)) from None
        value = replace_unstorable(value)
        self._written.append(json.dumps(value, ensure_ascii=False))
        return value

    def _number(self) -> object:
        match = _NUMBER.match(self._text, self._at)
        if match is None:
            raise self._error("expected a value")
        digits = match[0]
        self._take(digits)
        if match[1] is None and match[2] is None:
            # 20 characters hold every 64-bit integer; longer ones need no conversion to know.
            is_short = len(digits) <= len("-9223372036854775808")
            return int(digits) if is_short and int(digits) in _INT64 else NumberText(digits)
        value = float(digits)
        return value if math.isfinite(value) else NumberText(digits)

    def _peek(self) -> str:
        self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # always matches
        return self._text[self._at : self._at + 1]

    def _take(self, token: str) -> None:
        self._at += len(token)
        self._written.append(token)

    def _error(self, reason: str) -> InvalidJsonError:
        return InvalidJsonError(f"{reason} at character {self._at}")
