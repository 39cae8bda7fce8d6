"""YAML 1.2 scalars, positions, and the round trip through dump."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq_cli.errors import UsageError
from seq2seq_cli.recipe import yaml12


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-12", -12),
        ("+7", 7),
        ("007", 7),
        ("0o17", 15),
        ("0xfF", 255),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("off", "off"),
        ("true", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("null", None),
        ("~", None),
        ("-.inf", -math.inf),
        ("'5e-5'", "5e-5"),
        ('"a\\u00e9\\n"', "aé\n"),
        ("=", "="),
        ("<<", "<<"),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    result = yaml12.parse(f"key: {text}", "f").value["key"]
    assert result == value
    assert type(result) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(yaml12.parse("key: .nan", "f").value["key"])


def test_places_of_keys_and_values() -> None:
    document = yaml12.parse("a:\n  b: [1, {c: d}]\n", "f.yaml")
    assert str(document.place(("a", "b", 1, "c"))) == "f.yaml:2:14"
    assert str(document.place(("a", "b"), key=True)) == "f.yaml:2:3"
    assert str(document.place(("a", "x", "y"))) == "f.yaml:2:3"  # nearest parent: the value of a


def test_only_newlines_count_as_lines() -> None:
    document = yaml12.parse('a: "x\u2028y"\r\nb: 1\rc: 2\n', "f")
    assert str(document.place(("b",))) == "f:2:4"
    assert str(document.place(("c",))) == "f:3:4"


def test_number_without_end_is_refused() -> None:
    problems = yaml12.parse("a: " + "9" * 5000, "f").problems
    assert [str(place) for place, _ in problems] == ["f:1:4"]


@pytest.mark.parametrize(
    "text", ['a: "\\Uffffffff"', "%YAML 3.0\n---\na: 1", "a: 'x", "- a\nb: c", "a: b: c", "{"]
)
def test_broken_text_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        yaml12.parse(text, "f")


_LEAF = (
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(
        ["5e-5", "no", "0o17", "1_0", "12:30", "~", "", "-", "null", "1.", "+1e5", ".inf", "a: b", "#"]
    )
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        st.recursive(
            _LEAF,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc~1"), inner, max_size=3),
        ),
        max_size=4,
    )
)
def test_what_is_dumped_reads_back_equal(value: dict[str, object]) -> None:
    document = yaml12.parse(yaml12.dump(value), "f")
    assert not document.problems
    assert document.value == value
