"""Schema names (stitch-loading 2.1, 2.2) and display names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customerio_pipeline.errors import RegistryError
from customerio_pipeline.registry.display_names import check_name, name_key
from customerio_pipeline.registry.schema_names import (
    MAX_SCHEMA_LENGTH,
    check_schema,
    derive_schema,
)


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("Stitch Customer.io", "stitch_customerio"),
        ("Stitch Customerio", "stitch_customerio"),
        ("Recurly Stitch", "recurly_stitch"),
        ("My-Hooks (prod)", "my_hooks_prod"),
        ("Événements!", "evenements"),
        ("  padded  ", "padded"),
        ("snake_case_2", "snake_case_2"),
        ("2nd Workspace", "2nd_workspace"),
        ("\uff37\uff49\uff44\uff45", "wide"),
        ("Emails 📧", "emails_"),
        ("a'; DROP TABLE x; --", "a_drop_table_x___"),
        ("../../etc", "etc"),
    ],
)
def test_schema_is_derived_from_the_name(name: str, schema: str) -> None:
    """T-2.1, and the transliteration that goes beyond it."""
    assert derive_schema(name) == schema


@pytest.mark.parametrize("name", ["日本語", "...", "📧", "(-)", "", "___"])
def test_name_without_latin_letters_asks_for_a_schema(name: str) -> None:
    """What cannot be derived has to be typed, and the sentence says how."""
    with pytest.raises(RegistryError, match="--schema"):
        derive_schema(name)


@pytest.mark.parametrize(
    "schema",
    ["", "Upper", "with space", "dash-ed", "dot.ted", 'qu"ote', "ünï", "_", "a/b", "a\n", "x" * 64],
)
def test_typed_schema_must_be_a_plain_name(schema: str) -> None:
    """Only a-z, 0-9 and _ reach folders, SQL and asset keys, in 63 characters at most."""
    with pytest.raises(RegistryError):
        check_schema(schema)


@pytest.mark.parametrize(
    "schema", ["information_schema", "main", "public", "temp", "system", "pg_catalog", "pg_x"]
)
def test_schema_of_the_warehouse_itself_is_refused(schema: str) -> None:
    """No integration writes where PostgreSQL or DuckDB keep their own."""
    with pytest.raises(RegistryError, match="belongs to the warehouse"):
        check_schema(schema)
    with pytest.raises(RegistryError, match="belongs to the warehouse"):
        derive_schema(schema.upper())


@given(st.text(max_size=120))
def test_derived_schema_is_always_a_good_one(name: str) -> None:
    """Whatever the name, the result can be used everywhere, and deriving again changes nothing."""
    try:
        schema = derive_schema(name)
    except RegistryError:
        return
    assert check_schema(schema) == schema
    assert derive_schema(schema) == schema
    assert schema.isascii()
    assert 1 <= len(schema) <= MAX_SCHEMA_LENGTH


@given(st.text(alphabet=st.characters(codec="ascii"), min_size=1, max_size=63))
def test_case_never_decides_the_schema(name: str) -> None:
    """Names that differ only in case give the same schema."""
    outcomes = []
    for variant in (name.lower(), name.upper()):
        try:
            outcomes.append(derive_schema(variant))
        except RegistryError:
            outcomes.append("refused")
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "   ",
        "x" * 101,
        "tab\there",
        "line\nbreak",
        "nul\0",
        "esc\x1b[31m",
        "half\ud800",
        "turned\u202eround",
    ],
)
def test_display_name_that_cannot_be_shown_is_refused(name: str) -> None:
    """A name is printed in terminals and pages, so nothing in it may act there."""
    with pytest.raises(RegistryError):
        check_name(name)


@pytest.mark.parametrize("name", ["x", "x" * 100, "日本語 📧", "<b>&amp;</b>", "שלום", "[bold]"])
def test_display_name_may_be_any_visible_text(name: str) -> None:
    """Names are people's own."""
    assert check_name(f"  {name} ") == name


def test_names_that_look_the_same_are_the_same() -> None:
    """Case, composition and surrounding spaces do not tell names apart."""
    assert name_key("Événements") == name_key(" E\u0301VE\u0301NEMENTS ")
    assert name_key("STRASSE") == name_key("straße")
