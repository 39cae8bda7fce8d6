"""Sampling: every filter against transformers', draws against the exact distribution, seeds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.logits_process import LogitsProcessorList

from seq2seq_cli.decoding import generate_ids, resolve_options, run, sampling, warpers
from seq2seq_cli.decoding.largest import largest, likeliest
from seq2seq_cli.decoding.sampling import Sampler
from seq2seq_cli.model import SpecialIds, Stack
from tests import tiny
from tests.decoding.test_oracle import EOS, PROMPT, every_hypothesis, toy

__all__ = ["toy"]
NO_IDS = torch.zeros(1, 1, dtype=torch.long)


def p_value(counts: Tensor, expected: Tensor) -> float:
    """Chi-square test; categories that are expected less than five times are taken together."""
    assert not bool(counts[expected == 0].any()), "something impossible was drawn"
    rare = expected < 5
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]]).double()
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]]).double()
    counts, expected = counts[expected > 0], expected[expected > 0]
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = torch.tensor((len(expected) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, statistic / 2)) if freedom > 0 else 1.0


def reference(keep: int = 1, **options: Any) -> LogitsProcessorList:
    """transformers' filters for these options, in its order."""
    model = tiny.language_model("gpt2")
    config = GenerationConfig(do_sample=True, **{"top_k": 0, "num_beams": 1 if keep == 1 else 2, **options})
    model._prepare_special_tokens(config, True, device="cpu")
    return model._get_logits_processor(config, input_ids_seq_length=1)


def exact(scores: Tensor, options: dict[str, Any]) -> Tensor:
    """The filtered distribution of scores [V], by transformers' own filters."""
    return reference(**options)(NO_IDS, scores[None].clone())[0].double().softmax(-1)


FILTERS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"temperature": 2.0, "top_k": 7},
    {"top_k": 1},
    {"top_p": 0.6},
    {"temperature": 1.5, "top_p": 0.95},
    {"temperature": 0.7, "top_k": 10, "top_p": 0.8},
    {"temperature": 1.3, "top_k": 500, "top_p": 0.99},
    {"top_p": 0.01},
    {"temperature": 3.0, "top_p": 0.9},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"temperature": 4.0, "min_p": 0.02},
    {"typical_p": 0.2},
    {"typical_p": 0.9, "temperature": 2.0},
    {"epsilon_cutoff": 0.01},
    {"epsilon_cutoff": 0.9},
    {"eta_cutoff": 0.02},
    {"eta_cutoff": 0.9, "temperature": 0.5},
    {"top_k": 20, "min_p": 0.05, "typical_p": 0.8},
    {"top_p": 0.9, "min_p": 0.03, "epsilon_cutoff": 0.02, "eta_cutoff": 0.03},
    {"min_p": 0.01, "typical_p": 0.95, "eta_cutoff": 0.01},
    {"epsilon_cutoff": 0.004, "eta_cutoff": 0.02, "temperature": 1.7},
    {"temperature": 1.2, "top_k": 30, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.9, "eta_cutoff": 0.01},
]


@pytest.mark.parametrize("vocabulary", [12, 400])
@pytest.mark.parametrize("options", FILTERS, ids=str)
def test_draws_follow_the_filtered_distribution(vocabulary: int, options: dict[str, Any]) -> None:
    draws = 20_000
    scores = torch.randn(vocabulary, generator=torch.Generator().manual_seed(vocabulary)) * 2
    expected = exact(scores, options)
    decoding = resolve_options({**options, "do_sample": True, "seed": 5}, {}, SpecialIds())
    sampler = Sampler(decoding, keys=range(draws), steps=1)
    drawn = torch.cat(
        [
            sampler(scores.expand(4000, -1), rows, torch.zeros_like(rows))
            for rows in torch.arange(draws).split(4000)
        ]
    )
    assert p_value(torch.bincount(drawn, minlength=vocabulary), expected * draws) > 0.001
    one = Sampler(decoding, keys=[3], steps=500)
    steps = torch.cat([one(scores[None], torch.tensor([0]), torch.tensor([step])) for step in range(500)])
    assert p_value(torch.bincount(steps, minlength=vocabulary), expected * 500) > 0.001


def test_the_chi_square_test_can_fail() -> None:
    scores = torch.randn(12, generator=torch.Generator().manual_seed(0))
    expected, wrong = exact(scores, {}), exact(scores, {"temperature": 1.1})
    assert p_value(wrong * 20_000, expected * 20_000) < 0.001
    assert p_value(expected * 20_000, expected * 20_000) > 0.999


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("options", FILTERS, ids=str)
def test_filters_are_transformers(
    options: dict[str, Any], keep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole rows, some tokens of them forbidden before; keep 2: as in beam search with one eos."""
    monkeypatch.setattr(warpers, "FIRST_LOOK", 8)
    generator = torch.Generator().manual_seed(1)
    for spread in (0.1, 2.0, 8.0):
        scores = torch.randn(40, 300, generator=generator) * spread
        scores[torch.rand(40, 300, generator=generator) < 0.3] = float("-inf")
        expected = reference(keep, **options)(NO_IDS, scores.clone())
        decoding = resolve_options({**options, "do_sample": True}, {}, SpecialIds())
        scores = sampling._filtered(scores, decoding, keep=keep)
        torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("count", [1, 5, 50])
@pytest.mark.parametrize("columns", [1, 63, 64, 200, 6400, 6431])
def test_the_largest(columns: int, count: int) -> None:
    scores = torch.randn(20, columns, generator=torch.Generator().manual_seed(columns))
    scores[3] = float("-inf")
    scores[4, columns // 2 :] = float("-inf")
    scores[5, -1] = 99.0
    count = min(count, columns)
    values, ids = largest(scores, count)
    assert torch.equal(values, scores.topk(count).values)
    assert torch.equal(scores.gather(1, ids), values)
    assert all(len(set(row)) == count for row in ids.tolist())
    assert torch.equal(likeliest(scores), scores.argmax(-1))
    assert torch.equal(likeliest(scores.round()), scores.round().argmax(-1)), "the first of equal ones"


def test_equals_at_the_edge_of_top_k_stay() -> None:
    """As in transformers: 3 of 5 equal tokens would be an arbitrary choice. Other rows do not notice."""
    scores = torch.tensor([[0.0] * 5 + [-3.0] * 7, [float(n) for n in range(12)]])
    decoding = resolve_options({"top_k": 3, "seed": 2}, {}, SpecialIds())
    draws = 4000
    sampler = Sampler(decoding, keys=range(draws), steps=1)
    rows = scores.repeat(draws // 2, 1)
    start = torch.zeros(draws, dtype=torch.long)
    drawn = sampler(rows, torch.arange(draws), start)
    counts = torch.bincount(drawn[::2], minlength=12)
    assert p_value(counts, exact(scores[0], {"top_k": 3}) * draws / 2) > 0.001
    assert torch.equal(drawn[1::2], sampler(rows[1::2], torch.arange(1, draws, 2), start[1::2]))


@pytest.mark.parametrize("first_look", [2, 256])
def test_flat_distributions_are_looked_at_again(first_look: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tail begins behind the first look, more is looked at; the draws stay the same."""
    scores = torch.randn(30, 2000, generator=torch.Generator().manual_seed(0))
    for options in ({"top_p": 0.99}, {"min_p": 1e-4}, {"epsilon_cutoff": 1e-6}):
        decoding = resolve_options(options, {}, SpecialIds())
        sampler = Sampler(decoding, keys=range(30), steps=1)
        whole = scores.clone()
        for warp in warpers.build_filters(decoding):
            warp(whole)
        values, ids = whole.sort(descending=True)
        expected = sampling._draw(values, ids, sampler._uniform[:, 0])
        monkeypatch.setattr(warpers, "FIRST_LOOK", first_look)
        assert torch.equal(sampler(scores, torch.arange(30), torch.zeros(30, dtype=torch.long)), expected)


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("options", FILTERS, ids=str)
def test_candidates_are_what_the_filters_leave(options: dict[str, Any], keep: int) -> None:
    """Few tokens with their ids, as the filters of the whole vocabulary leave them."""
    scores = torch.randn(20, 500, generator=torch.Generator().manual_seed(1)) * 3
    decoding = resolve_options({**options, "do_sample": True}, {}, SpecialIds())
    values, ids = sampling.candidates(scores, decoding, keep=keep)
    whole = sampling._filtered(scores, decoding, keep=keep)
    if ids is None:
        torch.testing.assert_close(values, whole)
        return
    torch.testing.assert_close(values, whole.gather(1, ids))
    assert torch.equal(values.isfinite().sum(1), whole.isfinite().sum(1))


def test_a_row_without_any_token_draws_in_range() -> None:
    """The processors see to such rows before; a sampler must not crash on one."""
    for options in ({}, {"top_k": 3}, {"top_p": 0.9}, {"typical_p": 0.5}):
        decoding = resolve_options({"do_sample": True, **options}, {}, SpecialIds())
        first = torch.tensor([0])
        tokens = Sampler(decoding, keys=[0], steps=1)(torch.full((1, 9), float("-inf")), first, first)
        assert 0 <= int(tokens) < 9


def test_whole_outputs_follow_the_model(toy: Stack) -> None:
    """4,000 outputs of at most three tokens: all frequencies, through cache, eos and shrinking batches."""
    draws, logs = 4000, every_hypothesis(toy, 3)
    (found,) = generate_ids(
        toy,
        PROMPT,
        None,
        do_sample=True,
        num_return_sequences=draws,
        eos_token_id=EOS,
        max_new_tokens=3,
        seed=1,
    )
    place = {ids: number for number, ids in enumerate(logs)}
    counts = torch.zeros(len(logs))
    for hypothesis in found:
        counts[place[tuple(hypothesis.ids)]] += 1
        expected = logs[tuple(hypothesis.ids)] / len(hypothesis.ids)
        assert hypothesis.score == pytest.approx(expected, abs=1e-5)
    assert p_value(counts, torch.tensor(list(logs.values())).exp() * draws) > 0.001
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def sampled(model: Stack, rows: list[list[int]], keys: list[int], **options: Any) -> list[list[list[int]]]:
    ids, mask = tiny.padded(rows, left=True)
    options = {"do_sample": True, "max_new_tokens": 6, "eos_token_id": EOS, **options}
    decoding = resolve_options(options, {}, model.special_ids)
    return [[h.ids for h in row] for row in run(model, ids, mask, decoding, keys=keys)]


@pytest.mark.parametrize("copies", [1, 3])
def test_same_seed_same_text_at_any_batch_size(toy: Stack, copies: int) -> None:
    rows = [[1], [2, 3], [0, 1, 2], [3, 3], [1, 2]] * 4
    keys = list(range(100, 120))
    options = {"seed": 7, "num_return_sequences": copies, "temperature": 5.0, "top_p": 0.95}
    together = sampled(toy, rows, keys, **options)
    assert {len(text) for row in together for text in row} >= {1, 3, 4, 6}, "rows end at different times"
    assert sampled(toy, rows, keys, **options) == together
    one_by_one = [sampled(toy, [row], [key], **options)[0] for row, key in zip(rows, keys, strict=True)]
    assert one_by_one == together
    half = sampled(toy, rows[::-2], keys[::-2], **options)
    assert half == together[::-2]
    assert sampled(toy, rows, keys, **{**options, "seed": 8}) != together
    assert len({str(text) for text in together[1::5]}) > 1, "rows with the same text draw on their own"


def test_sampling_leaves_the_global_generator_alone(toy: Stack) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    sampled(toy, [[1]], [0])
    assert torch.equal(before, torch.random.get_rng_state())
