"""C2: whatever a recipe holds, the answer is a recipe or a UsageError, never another exception."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seq2seq_cli.errors import Finding, UsageError
from seq2seq_cli.recipe import GenerationSection, generation_section, load_recipe, yaml12
from seq2seq_cli.recipe.sections import RecipeFile
from tests.recipe.conftest import GOOD

_bounded = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_SPICE = [
    "\t",
    "\n",
    " ",
    ":",
    "- ",
    "&a",
    "*a",
    "!!str ",
    "{",
    "}",
    "[",
    "]",
    "'",
    '"',
    "|",
    ">",
    "#",
    "?",
    "%",
    "---",
]
_SPICE += ["\x00", "\x85", "\u2028", "\ufeff", "é", "\\", ",", "5e-5", ".nan", "1e999", "0o8", "null", "<<"]
_VALUES: st.SearchStrategy[Any] = (
    st.sampled_from(
        [None, True, False, 0, -1, 1, 10**400, math.nan, math.inf, 1e-300, "", "x", "no", "\u2028", [], {}]
    )
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)


def check(path: Path, overrides: list[str] | None = None) -> None:
    """Load a recipe that may be wrong; what is accepted must be written back alike."""
    findings: tuple[Finding, ...] = ()
    try:
        recipe = load_recipe(path, overrides or [])
    except UsageError as error:
        findings = error.findings
    if findings:
        assert all(finding.what and finding.where for finding in findings)
        return
    dumped = recipe.dump_yaml()
    path.write_text(dumped, encoding="utf-8", newline="\n")
    assert load_recipe(path).dump_yaml() == dumped


@_bounded
@given(
    st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 12), st.sampled_from(_SPICE)), max_size=4)
)
def test_c2_mutated_recipes(tmp_path: Path, edits: list[tuple[int, int, str]]) -> None:
    text = GOOD
    for at, length, put in edits:
        text = text[:at] + put + text[at + length :]
    path = tmp_path / "r.yaml"
    path.write_bytes(text.encode())
    check(path)


@_bounded
@given(st.binary(max_size=200))
def test_c2_random_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(data)
    check(path)


def _keys() -> list[tuple[str, str]]:
    sections = {name: field.annotation for name, field in RecipeFile.model_fields.items() if name != "output"}
    return [(name, key) for name, section in sections.items() for key in [*section.model_fields, "x"]]  # type: ignore[union-attr]


@_bounded
@given(
    st.dictionaries(
        st.sampled_from(_keys()), _VALUES | st.lists(_VALUES) | st.dictionaries(st.text("ab"), _VALUES)
    )
)
def test_c2_any_value_of_any_key(tmp_path: Path, values: dict[tuple[str, str], Any]) -> None:
    recipe: dict[str, Any] = {"model": {"encoder": "a"}}
    for (section, key), value in values.items():
        recipe.setdefault(section, {})[key] = value
    path = tmp_path / "r.yaml"
    path.write_text(yaml12.dump(recipe), encoding="utf-8", newline="\n")
    check(path)


@_bounded
@given(
    st.lists(
        st.text("abctrainingdata.=:{}[]'\"&*!|>#, \n0129-", max_size=25) | st.text(max_size=8), max_size=3
    )
)
def test_c2_overrides(tmp_path: Path, overrides: list[str]) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(GOOD)
    check(path, overrides)


@_bounded
@given(st.dictionaries(st.sampled_from([*GenerationSection.model_fields, "x"]), _VALUES))
def test_c2_decoding_options(values: dict[str, Any]) -> None:
    with contextlib.suppress(UsageError):
        generation_section(values, where=str)


@pytest.mark.parametrize("line", ["a{}: 1\n", "a: {}\n", "- {}\n", "x{}: [\n]\n"])
def test_c2_many_faults_end_soon(tmp_path: Path, line: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("model: {encoder: a}\n" * 2 + "".join(line.format(number) for number in range(4000)))
    check(path)
