"""Beam search against exact answers on a language of five words."""

from __future__ import annotations

import itertools

import pytest
import torch

from seq2seq_cli.checkpoint.loading import build_stack, stack_config
from seq2seq_cli.decoding import generate_ids
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
