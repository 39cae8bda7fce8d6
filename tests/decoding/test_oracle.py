"""Beam search and sampling against exact answers on a language of five words."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from seq2seq_cli.checkpoint.loading import build_stack, stack_config
from seq2seq_cli.decoding import generate_ids, resolve_options, run
from seq2seq_cli.decoding.sampling import Sampler
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.model import Stack
from tests import tiny

WORDS, LENGTH, EOS = 5, 5, 4
LIKELY = 1  # as eos, it ends many texts early
PROMPT = torch.tensor([[1, 3]])


@pytest.fixture(scope="module")
def toy() -> Stack:
    config = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": WORDS, "n_positions": 12}
    family = FAMILIES["gpt2"]
    stack, _ = build_stack(
        family, stack_config(family, config, "decoder", where=""), None, published={}, where=""
    )
    return tiny.scramble(stack, 3)  # type: ignore[no-any-return]


def every_hypothesis(model: Stack, length: int = LENGTH) -> dict[tuple[int, ...], float]:
    """All outputs of at most ``length`` tokens and their log-probabilities, one forward pass each length."""
    everything = {}
    words = [word for word in range(WORDS) if word != EOS]
    for size in range(length):
        prefixes = torch.tensor(list(itertools.product(words, repeat=size)), dtype=torch.long)
        ids = torch.cat([PROMPT.expand(prefixes.shape[0], -1), prefixes], 1)
        with torch.no_grad():
            steps = model(ids).double().log_softmax(-1)[:, 1:]
        before = steps[:, :-1].gather(2, prefixes[..., None]).sum((1, 2))
        for prefix, sofar, last in zip(
            prefixes.tolist(), before.tolist(), steps[:, -1].tolist(), strict=True
        ):
            for word in range(WORDS):
                if word == EOS or size == length - 1:
                    everything[(*prefix, word)] = sofar + last[word]
    return everything


def test_the_oracle_is_a_distribution(toy: Stack) -> None:
    logs = torch.tensor(list(every_hypothesis(toy).values()))
    assert len(logs) == 1 + 4 + 16 + 64 + 256 * 5
    assert float(logs.exp().sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 0.5, 1.0, 3.0])
def test_enough_beams_find_the_best(toy: Stack, length_penalty: float) -> None:
    (found,) = generate_ids(
        toy,
        PROMPT,
        None,
        num_beams=320,
        early_stopping="never",
        length_penalty=length_penalty,
        eos_token_id=EOS,
        max_new_tokens=LENGTH,
        num_return_sequences=10,
    )
    exact = {ids: log / len(ids) ** length_penalty for ids, log in every_hypothesis(toy).items()}
    best = sorted(exact.items(), key=lambda item: -item[1])[:10]
    assert [tuple(h.ids) for h in found] == [ids for ids, _ in best]
    assert [h.score for h in found] == pytest.approx([score for _, score in best], abs=1e-5)


def unstopped(model: Stack, beams: int, length_penalty: float, eos: int) -> list[tuple[int, ...]]:
    """Beam search by its definition that never stops before the length limit: its outputs, the best first."""
    running: dict[tuple[int, ...], float] = {(): 0.0}
    finished: dict[tuple[int, ...], float] = {}
    for step in range(1, LENGTH + 1):
        with torch.no_grad():
            logs = {
                text: model(torch.tensor([[*PROMPT[0], *text]]))[0, -1].log_softmax(-1) for text in running
            }
        ways = {(*t, w): running[t] + float(logs[t][w]) for t in running for w in range(WORDS)}
        best = sorted(ways, key=lambda text: -ways[text])[: 2 * beams]
        ended = [text for text in best[:beams] if text[-1] == eos or step == LENGTH]
        finished |= {text: ways[text] / step**length_penalty for text in ended}
        running = {text: ways[text] for text in [t for t in best if t[-1] != eos][:beams]}
    return sorted(finished, key=lambda text: -finished[text])[:beams]


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 0.5, 1.0, 3.0, 6.0])
def test_never_stops_too_early(toy: Stack, length_penalty: float) -> None:
    """With early_stopping never, stopping changes nothing; with the other two it does, where length pays."""
    texts = {}
    for rule in ("never", True, False):
        texts[rule] = [
            [
                tuple(h.ids)
                for h in generate_ids(
                    toy,
                    PROMPT,
                    None,
                    num_beams=beams,
                    early_stopping=rule,
                    length_penalty=length_penalty,
                    eos_token_id=LIKELY,
                    max_new_tokens=LENGTH,
                    num_return_sequences=beams,
                )[0]
            ]
            for beams in (2, 3, 4)
        ]
    assert texts["never"] == [unstopped(toy, beams, length_penalty, LIKELY) for beams in (2, 3, 4)]
    if length_penalty >= 3:
        assert texts[True] != texts["never"] != texts[False]


def test_one_beam_is_greedy(toy: Stack) -> None:
    (greedy,) = generate_ids(toy, PROMPT, None, eos_token_id=EOS, max_new_tokens=LENGTH)
    sofar: list[int] = []
    while len(sofar) < LENGTH and EOS not in sofar:
        with torch.no_grad():
            logits = toy(torch.cat([PROMPT, torch.tensor([sofar], dtype=torch.long)], 1))
        sofar.append(int(logits[0, -1].argmax()))
    assert greedy[0].ids == sofar
    assert greedy[0].score == pytest.approx(every_hypothesis(toy)[tuple(sofar)] / len(sofar), abs=1e-5)


# -- sampling ------------------------------------------------------------------------------------------


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


def exact(scores: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """The filtered distribution, by transformers' own warpers."""
    ids = torch.zeros(1, 1, dtype=torch.long)
    scores = TemperatureLogitsWarper(temperature)(ids, scores[None])
    if top_k:
        scores = TopKLogitsWarper(top_k)(ids, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(ids, scores)
    return scores[0].double().softmax(-1)


FILTERS = [
    (1.0, 0, 1.0),
    (0.5, 0, 1.0),
    (2.0, 7, 1.0),
    (1.0, 1, 1.0),
    (1.0, 0, 0.6),
    (1.5, 0, 0.95),
    (0.7, 10, 0.8),
    (1.3, 500, 0.99),
    (1.0, 0, 0.01),
    (3.0, 0, 0.9),
    (2.0, 20, 0.7),
]


@pytest.mark.parametrize(
    ("vocabulary", "filters"),
    [*((12, each) for each in FILTERS), *((400, FILTERS[number]) for number in (1, 5, 7, 9, 10))],
    ids=str,
)
def test_draws_follow_the_filtered_distribution(vocabulary: int, filters: tuple[float, int, float]) -> None:
    temperature, top_k, top_p = filters
    draws = 20_000
    scores = torch.randn(vocabulary, generator=torch.Generator().manual_seed(vocabulary)) * 2
    expected = exact(scores, *filters)
    settings: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": 5}
    rows = Sampler(**settings, keys=range(draws), steps=1)(scores.expand(draws, -1), torch.arange(draws), 0)
    assert p_value(torch.bincount(rows, minlength=vocabulary), expected * draws) > 0.001
    one = Sampler(**settings, keys=[3], steps=2000)
    steps = torch.cat([one(scores[None], torch.tensor([0]), step) for step in range(2000)])
    assert p_value(torch.bincount(steps, minlength=vocabulary), expected * 2000) > 0.001


def test_the_chi_square_test_can_fail() -> None:
    expected = exact(torch.randn(12, generator=torch.Generator().manual_seed(0)), 1.0, 0, 1.0)
    wrong = exact(torch.randn(12, generator=torch.Generator().manual_seed(0)), 1.1, 0, 1.0)
    assert p_value(wrong * 20_000, expected * 20_000) < 0.001
    assert p_value(expected * 20_000, expected * 20_000) > 0.999


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
