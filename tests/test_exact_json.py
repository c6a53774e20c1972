"""The exact JSON reader agrees with the standard library and goes where that cannot."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customerio_pipeline.loading.exact_json import (
    InvalidJsonError,
    JsonText,
    NumberText,
    read_exactly,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    # Infinities print as a word that is no JSON; a later filter drops them.
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


def plain(value: object) -> object:
    """Read texts of arrays back, so that the result compares with the standard library's."""
    if isinstance(value, JsonText):
        return json.loads(value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value


@given(value=JSON, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_reads_what_the_standard_library_writes(
    value: object, indent: int | None, ascii_only: bool
) -> None:
    """The same values, however they are spaced and escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    if "Infinity" in text or "\\u0000" in text or "\\ud" in text:
        return
    assert plain(read_exactly(text)) == json.loads(text)


@given(text=st.text(st.sampled_from('{}[]:,"\\ae1.-0 tfn'), max_size=12))
def test_refuses_what_the_standard_library_refuses(text: str) -> None:
    """Neither more nor less is JSON."""
    try:
        expected = json.loads(text, strict=True)
    except ValueError:
        with pytest.raises(InvalidJsonError):
            read_exactly(text)
    else:
        assert plain(read_exactly(text)) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9223372036854775808", NumberText("9223372036854775808")),
        ("-9223372036854775808", -(2**63)),
        ("1e400", NumberText("1e400")),
        ("-" + "9" * 10_000, NumberText("-" + "9" * 10_000)),
        ('"\\ud800x\\u0000"', "\ufffdx\ufffd"),
        ('{"a":1,"a":2}', {"a": 2}),
        ('{"a":[1, {"b" : "\\ud83d"}]}', {"a": '[1,{"b":"\ufffd"}]'}),
        ("[[1],[2]]", ["[1]", "[2]"]),
    ],
)
def test_odd_values(text: str, value: object) -> None:
    """Numbers keep their digits, unstorable characters are replaced, arrays become text."""
    result = read_exactly(text)
    assert result == value
    assert type(result) is type(value)


def test_depth_is_no_limit() -> None:
    """A hundred thousand levels are read; below 64 an object is text."""
    levels = 100_000
    value = read_exactly('{"a":' * levels + "1" + "}" * levels)
    for _ in range(64):
        assert isinstance(value, dict)
        value = value["a"]
    assert isinstance(value, JsonText)
    assert value.count("{") == levels - 64
