"""Beam sampling: transformers' search around draws that are our own, and draws that are exact."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation import logits_process as theirs

from seq2seq_cli.decoding import generate_ids, resolve_options, run
from seq2seq_cli.decoding.beam_sampling import BeamSampler
from seq2seq_cli.decoding.sampling import candidates, uniform_numbers
from seq2seq_cli.model import SpecialIds, Stack
from tests import tiny
from tests.decoding.test_oracle import PROMPT, WORDS, toy
from tests.decoding.test_parity import SOURCES, models
from tests.decoding.test_sampling import p_value

__all__ = ["toy"]

OPTIONS: list[dict[str, Any]] = [
    {"num_beams": 3},
    {"num_beams": 4, "temperature": 2.5, "num_return_sequences": 4, "early_stopping": True},
    {"num_beams": 2, "temperature": 0.7, "length_penalty": -1.0, "eos_token_id": [2, 9, 40]},
    {"num_beams": 3, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "early_stopping": "never"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("names", [("bert", "gpt2"), ("bert", "bert")], ids="-".join)
def test_with_our_draws_transformers_writes_the_same(
    names: tuple[str, ...], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, ours = models(names)
    width, steps = options["num_beams"], itertools.count()

    def multinomial(probabilities: Tensor, num_samples: int) -> Tensor:
        batch, total = probabilities.shape
        step = next(steps)
        noise = torch.stack([uniform_numbers(3, row, step, count=total) for row in range(batch)])
        noise = (-(-noise.log()).log()).view(batch, -1, width).transpose(1, 2).flatten(1)
        return (probabilities.double().log() + noise).topk(num_samples).indices

    monkeypatch.setattr(torch, "multinomial", multinomial)
    ids, mask = tiny.padded(SOURCES)
    expected = reference.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        max_new_tokens=10,
        top_k=0,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    asked = {"do_sample": True, "max_new_tokens": 10, "seed": 3, "token_scores": True, **options}
    got = generate_ids(ours, ids, mask, **asked)
    eos = options.get("eos_token_id", 2)
    tiny.same_hypotheses(got, expected, ends=frozenset({0, *(eos if isinstance(eos, list) else [eos])}))
    parts = reference.compute_transition_scores(expected.sequences, expected.scores, expected.beam_indices)
    for one, theirs_of_it in zip(itertools.chain(*got), parts.tolist(), strict=True):
        assert one.token_scores == pytest.approx(theirs_of_it[: len(one.ids)], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("beams", [2, 3])
def test_draws_are_exact(toy: Stack, beams: int) -> None:
    """Outputs of one token: how often each set of them is drawn, one after the other without putting back."""
    draws = 20_000
    options = {"do_sample": True, "num_beams": beams, "num_return_sequences": beams, "temperature": 2.0}
    decoding = resolve_options({**options, "max_new_tokens": 1}, {}, SpecialIds())
    found = run(toy, PROMPT.expand(draws, -1), None, decoding)
    with torch.no_grad():
        chances = (toy(PROMPT)[0, -1].double() / 2).softmax(-1).tolist()
    expected: dict[frozenset[int], float] = {}
    for order in itertools.permutations(range(WORDS), beams):
        chance, left = 1.0, 1.0
        for word in order:
            chance, left = chance * chances[word] / left, left - chances[word]
        expected[frozenset(order)] = expected.get(frozenset(order), 0.0) + chance
    sets = list(expected)
    counts = torch.zeros(len(sets))
    for row in found:
        counts[sets.index(frozenset(h.ids[0] for h in row))] += 1
        assert row[0].score >= row[-1].score
    assert p_value(counts, torch.tensor([expected[each] for each in sets]) * draws) > 0.001
    assert p_value(counts.flip(0), torch.tensor([expected[each] for each in sets]) * draws) < 0.001


@pytest.mark.parametrize("top", [(0, 0.3), (2, 1.0), (8, 0.5), (1, 0.01)], ids=str)
def test_filters_leave_beams_something_to_go_on_with(top: tuple[int, float]) -> None:
    top_k, top_p = top
    scores = torch.randn(9, 12, generator=torch.Generator().manual_seed(0)) * 2
    expected = theirs.TemperatureLogitsWarper(1.5)(None, scores)
    if top_k:
        expected = theirs.TopKLogitsWarper(top_k, min_tokens_to_keep=3)(None, expected)
    expected = theirs.TopPLogitsWarper(top_p, min_tokens_to_keep=3)(None, expected)
    options = {"temperature": 1.5, "top_k": top_k, "top_p": top_p}
    values, ids = candidates(scores, resolve_options(options, {}, SpecialIds()), keep=3)
    assert ids is not None
    got = torch.full_like(scores, float("-inf")).scatter(1, ids, values)
    torch.testing.assert_close(got, expected)
    assert bool((got.isfinite().sum(1) >= 3).all())


@pytest.mark.parametrize("filters", [{}, {"top_k": 6}, {"top_p": 0.9}, {"top_k": 20, "top_p": 0.7}], ids=str)
def test_rows_do_not_know_their_neighbours(filters: dict[str, Any]) -> None:
    _, ours = models(("gpt2",))
    rows = [torch.randint(3, 60, (n,)).tolist() for n in (2, 9, 5, 1, 7, 3, 11, 4)]
    options = {"do_sample": True, "num_beams": 3, "num_return_sequences": 2, "eos_token_id": list(range(6))}
    decoding = resolve_options({**options, **filters, "max_new_tokens": 12}, {}, SpecialIds())
    for left in (False, True):
        ids, mask = tiny.padded(rows, left=left)
        together = run(ours, ids, mask, decoding, keys=range(10, 18))
        for number, row in enumerate(rows):
            (alone,) = run(ours, torch.tensor([row]), None, decoding, keys=[10 + number])
            assert [h.ids for h in together[number]] == [h.ids for h in alone]
            assert [h.score for h in together[number]] == pytest.approx([h.score for h in alone], abs=1e-4)
    assert (
        len({str(row[0].ids) for row in run(ours, ids[:1].expand(5, -1), mask[:1].expand(5, -1), decoding)})
        > 1
    )


def test_as_many_tokens_as_asked_for_are_candidates_alike() -> None:
    """A row's draws are its own however many candidates its neighbours need."""
    decoding = resolve_options({"do_sample": True, "num_beams": 2, "top_p": 0.5}, {}, SpecialIds(eos=(2,)))
    generator = torch.Generator().manual_seed(0)
    flat, steep = (
        torch.randn(2, 600, generator=generator) * 0.01,
        torch.randn(2, 600, generator=generator) * 9,
    )
    draw, running = BeamSampler(decoding, keys=[7, 8]), torch.tensor([[-1.0, -2.0]])
    alone = draw(steep.log_softmax(-1), running, torch.tensor([1]), 4)
    both = draw(torch.cat([flat, steep]).log_softmax(-1), running.expand(2, -1), torch.tensor([0, 1]), 4)
    for name in ("total", "origins", "tokens"):
        torch.testing.assert_close(getattr(both, name)[1:], getattr(alone, name))
    for found in (both, alone):  # a beam's sum, and what it was before, tell the token's part
        parts = found.total - running.expand(len(found.total), -1).gather(1, found.origins)
        torch.testing.assert_close(found.logs.gather(1, found.places), parts, rtol=0.0, atol=1e-5)
