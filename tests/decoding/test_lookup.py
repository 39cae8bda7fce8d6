"""Prompt lookup writes what greedy decoding writes, in fewer passes where the guesses hold."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import seq2seq_cli
from seq2seq_cli.decoding import Hypothesis, generate_ids, resolve_options, run
from seq2seq_cli.errors import UsageError
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.model import KVCache, PrefixModel, SpecialIds, Stack
from seq2seq_cli.text.training import train_tokenizer
from tests import tiny
from tests.decoding import stored
from tests.decoding.test_grammar import SOURCES, TEXTS, generator
from tests.decoding.test_open_place import models
from tests.families.spec import spec

PROCESSORS: list[dict[str, Any]] = [
    {},
    {"repetition_penalty": 1.4},
    {"repetition_penalty": 0.6},
    {"encoder_repetition_penalty": 1.5},
    {"no_repeat_ngram_size": 2},
    {"encoder_no_repeat_ngram_size": 2},
    {"min_new_tokens": 9},
    {"min_length": 12},
    {"forced_eos_token_id": 2, "forced_bos_token_id": 7},
    {"exponential_decay_length_penalty": (4, 1.3)},
    {"begin_suppress_tokens": [5, 6, 7, 8], "suppress_tokens": [9, 10, 11]},
    {"bad_words_ids": [[12], [5, 6]], "sequence_bias": [[[20, 21], 3.0]]},
    {"length_penalty": 0.0, "max_new_tokens": 1},
    {"max_length": 17, "max_new_tokens": None},
]


def rows(count: int = 12) -> list[list[int]]:
    """Sources or prompts of unequal length, with pieces that come again."""
    generator = torch.Generator().manual_seed(4)
    lengths = torch.randint(1, 12, (count,), generator=generator).tolist()
    return [torch.randint(3, 40, (n,), generator=generator).tolist() for n in lengths]


def decode(
    model: Any, sources: list[list[int]], options: dict[str, Any], *, hints: Any = None, left: bool = False
) -> list[Hypothesis]:
    """The outputs of a batch; ``hints``: the texts that guesses come from."""
    wanted = {"max_new_tokens": 24, "eos_token_id": [2, 13, 27], **options}
    decoding = resolve_options(wanted, model.generation, model.special_ids)
    ids, mask = tiny.padded(sources, pad=11, left=left)
    source = None if hints is None else tiny.padded(hints, left=left)
    return [row[0] for row in run(model, ids, mask, decoding, source=source, token_scores=True)]


def same(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    assert [h.ids for h in found] == [h.ids for h in expected]
    assert [h.score for h in found] == pytest.approx([h.score for h in expected], rel=1e-5, abs=1e-5)
    for one, other in zip(found, expected, strict=True):
        assert one.token_scores == pytest.approx(other.token_scores, rel=1e-4, abs=1e-5)


def hinting(outputs: list[Hypothesis]) -> list[list[int]]:
    """Texts that are right about some outputs, wrong here and there about others."""
    texts = [[1, *output.ids] for output in outputs]
    return [
        [5 if n % 3 and place % 4 == n % 4 else i for place, i in enumerate(t)] for n, t in enumerate(texts)
    ]


@pytest.mark.parametrize("options", PROCESSORS, ids=str)
@pytest.mark.parametrize("name", stored.MODELS)
def test_the_tokens_are_those_of_greedy_decoding(name: str, options: dict[str, Any]) -> None:
    model, sources = stored.model(name), rows()
    expected = decode(model, sources, options)
    for left in (False, True):
        same(decode(model, sources, {**options, "prompt_lookup": 4}, left=left), expected)
    if not any("encoder" in option for option in options):  # those look at the same text
        for ahead in (1, 3, 30):
            found = decode(model, sources, {**options, "prompt_lookup": ahead}, hints=hinting(expected))
            same(found, expected)
    alone = [decode(model, [source], {**options, "prompt_lookup": 4})[0] for source in sources]
    same(alone, expected)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens a row each pass of a decoder took in."""
    seen: list[int] = []
    states = Stack.states

    def count(self: Stack, ids: Tensor, *args: Any, cache: KVCache | None = None, **others: Any) -> Tensor:
        if cache is not None:
            seen.append(ids.shape[1])
        return states(self, ids, *args, cache=cache, **others)

    monkeypatch.setattr(Stack, "states", count)
    return seen


@pytest.mark.parametrize("name", stored.MODELS)
def test_copies_take_fewer_passes(name: str, passes: list[int]) -> None:
    options = {"eos_token_id": [], "repetition_penalty": 1.3}
    model, sources = stored.model(name), rows(5)
    expected = decode(model, sources, options)
    assert len(passes) == 24
    passes.clear()
    found = decode(
        model, sources, {**options, "prompt_lookup": 10}, hints=[[h.ids[0], *h.ids] for h in expected]
    )
    same(found, expected)
    assert len(passes) <= 10
    assert max(passes[1:]) == 11


def test_an_end_inside_the_guesses_ends_the_row(passes: list[int]) -> None:
    model = stored.model("bert-gpt2")
    free = decode(model, [[5, 6, 7]], {"eos_token_id": [], "no_repeat_ngram_size": 1})[0].ids
    assert len(set(free[:8])) == 8
    passes.clear()
    options = {"eos_token_id": free[5], "no_repeat_ngram_size": 1, "prompt_lookup": 12}
    (found,) = decode(model, [[5, 6, 7]], options, hints=[free])
    assert found.ids == free[:6]
    assert passes == [1, 13]


def test_guesses_that_fail_leave_no_trace_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden slots never become the larger part of the memory."""
    sizes: list[int] = []
    take_back = KVCache.take_back

    def look(self: KVCache, counts: Tensor) -> None:
        take_back(self, counts)
        widest = self.slots if self.mask is None else int(self.mask.sum(1).max())
        sizes.append(self.slots)
        assert self.slots <= 2 * widest

    monkeypatch.setattr(KVCache, "take_back", look)
    model, sources = stored.model("t5"), rows(6)
    options = {"eos_token_id": [], "max_new_tokens": 60, "repetition_penalty": 1.2}
    expected = decode(model, sources, options)
    wrong = [[i for token in h.ids for i in (token, 3, 4, 3, 4)] for h in expected[:-1]]
    found = decode(model, sources, {**options, "prompt_lookup": 8}, hints=[*wrong, expected[-1].ids])
    same(found, expected)
    assert any(after < before for before, after in itertools.pairwise(sizes))


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "transfo-xl"])
def test_every_family_takes_back_what_it_read(family: str, tmp_path: Path) -> None:
    spec(family).publish("", "decoder", tmp_path)
    model = seq2seq_cli.load(tmp_path, role="decoder").model
    model.special_ids, model.generation, model.open_place = SpecialIds(), {}, None
    check_hinted(model)


def test_a_prefix_model_takes_back_what_it_wrote(tmp_path: Path) -> None:
    spec("bert").publish("", "decoder", tmp_path)
    stack = seq2seq_cli.load(tmp_path, role="decoder").model
    assert isinstance(stack, Stack)
    check_hinted(PrefixModel(stack), decoder_start_token_id=3)


def check_hinted(model: Any, **more: Any) -> None:
    sources = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]
    options = {"max_new_tokens": 10, "eos_token_id": [], "repetition_penalty": 1.2, **more}
    expected = decode(model, sources, options)
    same(decode(model, sources, {**options, "prompt_lookup": 4}, hints=hinting(expected)), expected)


def test_what_cannot_go_back_is_refused(tmp_path: Path) -> None:
    _, model = models("xlnet")
    with pytest.raises(UsageError, match="prompt_lookup needs a model that writes left to right"):
        generate_ids(model, torch.tensor([[5, 6]]), prompt_lookup=3)
    spec("transfo-xl").publish("", "decoder", tmp_path)
    forgetful: Any = seq2seq_cli.load(tmp_path, role="decoder").model
    with pytest.raises(UsageError, match="prompt_lookup needs a model that forgets nothing"):
        generate_ids(forgetful, torch.tensor([[5, 6]]), prompt_lookup=3)


def test_the_model_is_read_to_its_last_position() -> None:
    """40 positions, and one token behind them; rows that are full leave the others alone."""
    model = stored.model("gpt2")
    prompts = [[5] * 38, [6, 7] * 8, [8]]
    options = {"eos_token_id": [], "max_new_tokens": None, "prompt_lookup": 6}
    found = decode(model, prompts, options)
    assert [len(each.ids) for each in found] == [3, 25, 40]
    for prompt, each in zip(prompts, found, strict=True):
        same([each], decode(model, [prompt], {**options, "prompt_lookup": 0}))


@pytest.mark.parametrize(
    "options",
    [{"stop": ["nd", "a t"]}, {"prefix": "tea and"}, {"grammar": "regex:(tea|who){1,5} and( cake)?"}],
)
def test_texts_that_begin_end_and_allow(options: dict[str, Any]) -> None:
    tokenizer = train_tokenizer("bpe", 290, TEXTS)
    plain = generator(tokenizer, max_new_tokens=30, **options)
    quick = generator(tokenizer, max_new_tokens=30, prompt_lookup=5, **options)
    assert quick.texts(SOURCES) == plain.texts(SOURCES)
    for source in SOURCES:
        pieces: list[str] = []
        if "grammar" not in options:
            quick.stream(source, pieces.append)
            assert "".join(pieces) == plain.texts([source])[0].texts[0]
