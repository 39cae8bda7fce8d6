"""Stop texts, prefixes and grammars under every strategy."""

from __future__ import annotations

import re
from typing import Any

import pytest

from seq2seq_cli.text.training import train_tokenizer
from tests.decoding.test_grammar import SOURCES, TEXTS, generator

STRATEGIES: list[dict[str, Any]] = [
    {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    {"num_beams": 4, "force_words": ["and"]},
    {"penalty_alpha": 0.6, "top_k": 4},
    {"num_beams": 3, "do_sample": True, "seed": 1},
    {"num_beams": 3},
    {"do_sample": True, "seed": 1},
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_a_prefix_and_a_stop(strategy: dict[str, Any]) -> None:
    tokenizer = train_tokenizer("bpe", 290, TEXTS)
    writer = generator(tokenizer, prefix="tea and", stop=["nd"], max_new_tokens=20, **strategy)
    for output in writer.texts(SOURCES):
        # a phrase is complete behind its last token, too late for a stop text in that
        assert output.texts[0] == "tea and" or "force_words" in strategy
        assert output.texts[0].startswith("tea and")


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_a_grammar(strategy: dict[str, Any]) -> None:
    tokenizer = train_tokenizer("bpe", 290, TEXTS)
    pattern = "(tea|who){1,3} and( cake)?"
    writer = generator(tokenizer, grammar=f"regex:{pattern}", max_new_tokens=40, **strategy)
    for output in writer.texts(SOURCES):
        assert re.fullmatch(pattern, output.texts[0]), output
    assert writer.counts.incomplete == 0
