"""Every family goes on with a prompt by itself: batched, cached, and told apart from its neighbours."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

import seq2seq_cli
from seq2seq_cli.decoding import resolve_options, run
from seq2seq_cli.errors import UsageError
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.model import PrefixModel, SpecialIds, Stack
from tests import tiny
from tests.decoding.test_open_place import models
from tests.families.spec import spec

PROMPTS = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]
NEW = 6


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_continues_prompts(family: str, tmp_path: Path) -> None:
    spec(family).publish("", "decoder", tmp_path)
    model = seq2seq_cli.load(tmp_path, role="decoder").model
    model.special_ids, model.generation = SpecialIds(), {}  # nothing ends a text
    options = {"max_new_tokens": NEW}
    alone = [seq2seq_cli.generate_ids(model, torch.tensor([p]), **options)[0][0].ids for p in PROMPTS]
    for left in (False, True):
        ids, mask = tiny.padded(PROMPTS, left=left)
        together = seq2seq_cli.generate_ids(model, ids, mask, **options)
        assert [row[0].ids for row in together] == alone
    if "" not in spec(family).remembering:  # with a trimmed memory, cached is not uncached, as published
        for prompt, written in zip(PROMPTS, alone, strict=True):
            ids = torch.tensor([prompt])
            for _ in range(NEW):
                with torch.no_grad():
                    ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], dim=1)
            assert ids[0, len(prompt) :].tolist() == written
    ids, mask = tiny.padded(PROMPTS)
    beams = seq2seq_cli.generate_ids(model, ids, mask, num_beams=3, length_penalty=0.0, **options)
    greedy = seq2seq_cli.generate_ids(model, ids, mask, length_penalty=0.0, **options)
    assert all(len(row[0].ids) == NEW for row in beams)
    assert sum(row[0].score for row in beams) >= sum(row[0].score for row in greedy) - 1e-4
    sampled = [
        seq2seq_cli.generate_ids(model, ids, mask, do_sample=True, seed=3, **options) for _ in range(2)
    ]
    assert sampled[0] == sampled[1]


STRATEGIES: dict[str, dict[str, object]] = {
    "beam sampling": {"num_beams": 3, "do_sample": True},
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.7},
    "phrases": {"num_beams": 3, "force_words_ids": [[17, 23]]},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 5},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_searches_in_every_way(family: str, tmp_path: Path) -> None:
    spec(family).publish("", "decoder", tmp_path)
    model = seq2seq_cli.load(tmp_path, role="decoder").model
    assert isinstance(model, Stack)
    same_alone(model)


def test_a_prefix_model_searches_in_every_way(tmp_path: Path) -> None:
    spec("bert").publish("", "decoder", tmp_path)
    stack = seq2seq_cli.load(tmp_path, role="decoder").model
    assert isinstance(stack, Stack)
    same_alone(PrefixModel(stack))


@pytest.mark.parametrize("family", ["xlnet", "xlm"])
def test_what_writes_at_an_open_place_searches_too(family: str) -> None:
    _, model = models(family)
    same_alone(model, [options for name, options in STRATEGIES.items() if name != "contrastive"])
    with pytest.raises(UsageError, match="penalty_alpha needs a model that writes left to right"):
        seq2seq_cli.generate_ids(model, torch.tensor([[5, 6]]), **STRATEGIES["contrastive"])


def same_alone(
    model: Stack | PrefixModel, strategies: Iterable[dict[str, object]] = STRATEGIES.values()
) -> None:
    """Batched prompts, padded on either side, are answered as each alone, in every way."""
    for options in strategies:
        decoding = resolve_options({**options, "max_new_tokens": NEW}, {}, SpecialIds(start=3))
        alone = [run(model, torch.tensor([p]), None, decoding, keys=[n]) for n, p in enumerate(PROMPTS)]
        for left in (False, True):
            ids, mask = tiny.padded(PROMPTS, left=left)
            together = run(model, ids, mask, decoding, keys=range(len(PROMPTS)))
            assert [row[0].ids for row in together] == [row[0].ids for (row,) in alone], options
