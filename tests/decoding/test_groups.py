"""Diverse beam search writes what transformers 4.56.2 wrote."""

from __future__ import annotations

from typing import Any

import pytest

from tests.decoding import stored


@pytest.mark.parametrize(("name", "options", "rows"), stored.cases("groups"))
def test_as_published(name: str, options: dict[str, Any], rows: list[Any]) -> None:
    stored.check(name, "groups", options, rows)


@pytest.mark.parametrize("name", stored.MODELS)
def test_rows_do_not_know_their_neighbours(name: str) -> None:
    groups = {"num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 0.7, "num_return_sequences": 6}
    stored.check_rows_alone(name, groups)
