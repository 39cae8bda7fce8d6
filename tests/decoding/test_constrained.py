"""Constrained beam search writes what transformers 4.56.2 wrote."""

from __future__ import annotations

from typing import Any

import pytest

from tests.decoding import stored


@pytest.mark.parametrize(("name", "options", "rows"), stored.cases("constrained"))
def test_as_published(name: str, options: dict[str, Any], rows: list[Any]) -> None:
    stored.check(name, "constrained", options, rows)


@pytest.mark.parametrize("name", stored.MODELS)
def test_rows_do_not_know_their_neighbours(name: str) -> None:
    beams = {"num_beams": 3, "num_return_sequences": 2, "early_stopping": True}
    for words in ([[20]], [[[20, 26], [30], [8, 27]]]):
        stored.check_rows_alone(name, {**beams, "force_words_ids": words})
