"""Choices of a stack that the families' own tests cannot show one by one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from seq2seq_cli.model import EmbeddingConfig, FinalNormConfig, Stack, StackConfig
from seq2seq_cli.model.initialise import initialise
from seq2seq_cli.model.positions import interleaved_sinusoids, sinusoids

CONFIG = StackConfig(
    vocab_size=30,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    head_size=8,
    feedforward_size=24,
    max_positions=20,
    norm_order="pre",
)
IDS = torch.tensor([[3, 4, 5, 6]])


def made(config: StackConfig) -> Stack:
    stack = Stack(config)
    initialise(stack, config=config, generator=torch.Generator().manual_seed(0))
    return stack


def test_dropout_behind_the_final_norm_only_where_it_is_asked_for() -> None:
    """T5 drops out the normed states of its last layer (Raffel et al. 2020), GPT-2 and BART do not."""
    zeros = {}
    for rate in (0.0, 0.5):
        stack = made(replace(CONFIG, final_norm=FinalNormConfig(dropout=rate), dropout=0.5)).train()
        torch.manual_seed(0)
        zeros[rate] = int((stack(IDS) == 0).sum())
    assert zeros[0.0] == 0
    assert zeros[0.5] > 10


def test_the_final_norm_has_its_own_epsilon_or_the_stacks() -> None:
    own = made(replace(CONFIG, norm_eps=1e-3, final_norm=FinalNormConfig(eps=0.1)))
    same = made(replace(CONFIG, norm_eps=1e-3, final_norm=FinalNormConfig()))
    assert own.final_norm.eps == 0.1  # type: ignore[union-attr]
    assert same.final_norm.eps == own.layers[0].self_norm.eps == 1e-3  # type: ignore[union-attr]


@pytest.mark.parametrize("language", [None, 0, 2])
def test_only_the_row_of_the_language_is_added_and_learns(language: int | None) -> None:
    embedding = EmbeddingConfig(languages=3, language=language)
    stack = made(replace(CONFIG, embedding=embedding))
    table = stack.language_embedding
    assert table is not None
    without = made(CONFIG).embed(IDS, None, 0)
    added = stack.embed(IDS, None, 0) - made(
        replace(CONFIG, embedding=replace(embedding, language=None))
    ).embed(IDS, None, 0)
    expected = torch.zeros(16) if language is None else table.weight[language]
    torch.testing.assert_close(added, expected.expand_as(without), rtol=0, atol=1e-6)
    assert table.weight.requires_grad is (language is not None)
    if language is not None:
        stack(IDS).square().sum().backward()
        assert table.weight.grad is not None
        assert table.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [language]


@pytest.mark.parametrize("size", [8, 7])
def test_sinusoids_far_out(size: int) -> None:
    """Against the formula in double precision; the computed kind is as exact as single precision allows."""
    places = torch.tensor([0, 1, 19, 700, 49_999])
    angles = torch.tensor(
        [[place / 10000 ** (2 * (j // 2) / size) for j in range(size)] for place in places.tolist()],
        dtype=torch.float64,
    )
    sines, cosines = angles[:, 0::2].sin(), angles[:, 1::2].cos()
    computed = sinusoids(places, size)
    assert computed.shape == (5, size)
    expected = torch.cat([sines, cosines], -1).float()
    torch.testing.assert_close(computed[:4], expected[:4], rtol=0, atol=2e-4)
    torch.testing.assert_close(computed, expected, rtol=0, atol=1e-2)
    stored = interleaved_sinusoids(701, size)[places[:4]]
    torch.testing.assert_close(stored[:, 0::2], sines[:4].float(), rtol=0, atol=1e-7)
    torch.testing.assert_close(stored[:, 1::2], cosines[:4].float(), rtol=0, atol=1e-7)
    assert math.isclose(float(stored[1, 0]), math.sin(1.0), rel_tol=1e-6)
