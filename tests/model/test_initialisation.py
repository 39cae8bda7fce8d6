"""Fresh parameters start the way the family's authors start them."""

from __future__ import annotations

import math

import pytest
import torch

from seq2seq_cli.checkpoint.loading import build_stack, stack_config
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.model import Stack
from tests.families.spec import spec

#: families that draw all their matrices with one standard deviation, but for what RESIDUAL says
NORMAL = [name for name, family in FAMILIES.items() if "initializer_range" in family.options]
#: families that shrink what adds to the residual stream, by the root of twice the number of layers
RESIDUAL = ("gpt2",)


def fresh(family: str, seed: int = 0, std: float = 0.05) -> Stack:
    config = {**spec(family).base, "initializer_range": std, "tie_word_embeddings": False}
    known = FAMILIES[family]
    translated = stack_config(known, config, "cross_decoder", where="")
    return build_stack(
        known, translated, None, published=config, where="", generator=torch.Generator().manual_seed(seed)
    )[0]


@pytest.mark.parametrize("family", NORMAL)
def test_statistics(family: str) -> None:
    stack = fresh(family)
    for name, parameter in stack.named_parameters():
        values = parameter.detach()
        owner, _, leaf = name.rpartition(".")
        if leaf == "bias":
            assert not bool(values.any()), name
        elif owner.endswith("norm"):
            assert bool((values == 1).all()), name
        else:
            residual = family in RESIDUAL and owner.endswith((".output", ".outer"))
            expected = 0.05 / math.sqrt(2 * stack.config.num_layers) if residual else 0.05
            error = 4 * expected / math.sqrt(2 * values.numel())
            assert float(values.std()) == pytest.approx(expected, abs=error), name
            assert abs(float(values.mean())) < 4 * expected / math.sqrt(values.numel()), name
            assert bool(torch.isfinite(values).all())


@pytest.mark.parametrize("family", NORMAL)
def test_same_seed_same_weights(family: str) -> None:
    one, two, other = (dict(fresh(family, seed).named_parameters()) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["embedding.weight"], other["embedding.weight"])


def test_what_was_loaded_stays() -> None:
    """Only what the file lacks is fresh: initialising must not touch the rest."""
    from seq2seq_cli.families.translate import to_published

    stack = fresh("gpt2", seed=5)
    ours = {name: parameter.detach() for name, parameter in stack.named_parameters()}
    kept = {name: tensor for name, tensor in ours.items() if "cross" not in name}
    family = FAMILIES["gpt2"]
    again, report = build_stack(
        family,
        stack.config,
        to_published(family, kept, tied=False, with_head=True),
        published={},
        where="",
        may_be_fresh=lambda name: ".cross_" in name,
        generator=torch.Generator().manual_seed(6),
    )
    assert set(report.loaded) == set(kept)
    for name, parameter in again.named_parameters():
        random = name in report.fresh and name.endswith("weight") and "norm" not in name
        assert torch.equal(parameter, ours[name]) is not random, name
