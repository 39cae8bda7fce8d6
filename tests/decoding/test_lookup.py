"""Prompt lookup writes what greedy decoding and sampling write, in fewer passes where the guesses hold."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import seq2seq_cli
from seq2seq_cli.combiner import Side, combine
from seq2seq_cli.decoding import Hypothesis, generate_ids, resolve_options
from seq2seq_cli.decoding.engine import TextGenerator
from seq2seq_cli.decoding.lookup import PAUSE, Lookup
from seq2seq_cli.decoding.speculative import Paths
from seq2seq_cli.errors import UsageError
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.model import KVCache, PrefixModel, SpecialIds, Stack
from seq2seq_cli.text.training import train_tokenizer
from tests import tiny
from tests.decoding import stored
from tests.decoding.guessing import PROCESSORS, SAMPLING, decode, rows, same, widths
from tests.decoding.test_grammar import SOURCES, TEXTS, generator
from tests.decoding.test_open_place import models
from tests.families.spec import spec


def hinting(outputs: list[Hypothesis]) -> list[list[int]]:
    """Texts that are right about some outputs, wrong here and there about others."""
    texts = [[1, *output.ids] for output in outputs]
    return [
        [5 if n % 3 and place % 4 == n % 4 else i for place, i in enumerate(t)] for n, t in enumerate(texts)
    ]


def test_what_stands_behind_the_longest_match_is_guessed() -> None:
    """In the source or in what is written; nothing behind the end, nothing without a match."""
    source = tiny.padded([[5, 6, 7, 8, 9, 6, 3], [7, 7, 4]], left=True)
    lookup = Lookup(source, vocab_size=9, copies=2)
    paths = Paths(torch.ones(4, 1, dtype=torch.long), None, processors=[], limits=torch.tensor([9, 9, 9, 9]))
    written = [[4, 5, 6], [6], [0, 8, 0], [4, 4]]
    for row, tokens in enumerate(written):
        paths.tokens[row, : len(tokens)] = torch.tensor(tokens)
        paths.counts[row] = len(tokens)
    # 9 is not one of the decoder's tokens; [6] stands there twice, the later one counts; 4 4 only once
    rows, most = torch.arange(4), torch.tensor([3, 3, 3, 3])
    assert lookup.guess(rows, paths, most).tolist() == [[7, 8], [3, 6], [8, 0], [4, -1]]
    assert lookup.guess(rows[1:3], paths, most[1:3] - 2).tolist() == [[3], [8]]
    paths.tokens[:, 3] = 2  # one row has written more; in the others a guess stands there that was wrong
    paths.counts[0] += 1
    assert lookup.guess(rows[[0, 2]], paths, most[[0, 2]]).tolist() == [[-1, -1], [8, 0]]


def test_a_row_whose_guesses_fail_makes_fewer_then_none_for_a_while() -> None:
    """One row copies its source, the other every fifth token of it: what stands behind never comes."""
    source = torch.arange(10, 110)
    lookup = Lookup((source.expand(2, -1), None), vocab_size=999)
    paths = Paths(torch.ones(2, 1, dtype=torch.long), None, processors=[], limits=torch.full((2,), 99))
    paths.tokens[0], paths.tokens[1, :20] = source[:99], source[::5]
    paths.counts[:] = 1
    offered = []
    for _ in range(14):
        guesses = lookup.guess(torch.arange(2), paths, torch.tensor([4, 4]))
        offered.append((guesses != -1).sum(1).tolist())
        paths.counts += torch.tensor([1 + offered[-1][0], 1])
    assert [one for one, _ in offered] == [4] * 14
    assert [two for _, two in offered] == [4, 2, 1, *[0] * PAUSE, 1, 0, 0]


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


@pytest.mark.parametrize("sampling", SAMPLING[:2], ids=str)
@pytest.mark.parametrize("name", stored.MODELS)
def test_the_tokens_are_those_of_sampling(name: str, sampling: dict[str, Any]) -> None:
    """With the same seed: the very draws, whatever is guessed, alone and side by side."""
    model, sources = stored.model(name), rows()
    for options in ({}, {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 6}):
        options = {**options, **sampling}
        expected = decode(model, sources, options)
        assert len({h.ids[0] for h in expected}) > 1
        same(decode(model, sources, {**options, "prompt_lookup": 4}, left=True), expected)
        for ahead in (1, 30):
            found = decode(model, sources, {**options, "prompt_lookup": ahead}, hints=hinting(expected))
            same(found, expected)
        quick = {**options, "prompt_lookup": 4}
        alone = [decode(model, [source], quick, keys=[n])[0] for n, source in enumerate(sources)]
        same(alone, expected)


@pytest.mark.parametrize("name", stored.MODELS)
def test_several_samples_of_a_source(name: str) -> None:
    model, sources = stored.model(name), rows(4)
    options = {"do_sample": True, "num_return_sequences": 3, "encoder_repetition_penalty": 1.2}
    expected = decode(model, sources, options)
    assert len(expected) == 12
    found = decode(model, sources, {**options, "prompt_lookup": 5})
    same(found, expected)


def test_samples_end_where_their_prompt_lets_them() -> None:
    prompts = [[5] * 38, [6, 7] * 8]
    options = {"do_sample": True, "num_return_sequences": 2, "eos_token_id": [], "max_new_tokens": None}
    for more in ({}, {"prompt_lookup": 5}):
        found = decode(stored.model("gpt2"), prompts, {**options, **more})
        assert [len(each.ids) for each in found] == [3, 3, 25, 25]


@pytest.mark.parametrize("name", stored.MODELS)
@pytest.mark.parametrize("sampling", [{}, {"top_k": 3, "seed": 1}], ids=str)
def test_copies_take_fewer_passes(
    name: str, sampling: dict[str, Any], passes: list[tuple[Stack, int]]
) -> None:
    options = {"eos_token_id": [], "repetition_penalty": 1.3, **sampling}
    model, sources = stored.model(name), rows(5)
    expected = decode(model, sources, options)
    assert len(passes) == 24
    passes.clear()
    found = decode(
        model, sources, {**options, "prompt_lookup": 10}, hints=[[h.ids[0], *h.ids] for h in expected]
    )
    same(found, expected)
    assert len(passes) <= 12
    assert max(widths(passes, model)[1:]) == 11


def test_an_end_inside_the_guesses_ends_the_row(passes: list[tuple[Stack, int]]) -> None:
    model = stored.model("bert-gpt2")
    free = decode(model, [[5, 6, 7]], {"eos_token_id": [], "no_repeat_ngram_size": 1})[0].ids
    assert len(set(free[:8])) == 8
    passes.clear()
    options = {"eos_token_id": free[5], "no_repeat_ngram_size": 1, "prompt_lookup": 12}
    (found,) = decode(model, [[5, 6, 7]], options, hints=[free])
    assert found.ids == free[:6]
    assert widths(passes, model) == [1, 13]


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


def test_a_source_of_another_vocabulary_is_respelled(passes: list[tuple[Stack, int]]) -> None:
    """What is looked up are the target's tokens of the source, not the encoder's ids."""
    pieces, letters = train_tokenizer("wordpiece", 75, TEXTS), train_tokenizer("bpe", 262, TEXTS)
    left = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = combine(
        Side(family="bert", config=left, tokenizer=pieces),
        Side(family="gpt2", config={"n_embd": 16, "n_layer": 1, "n_head": 2}, tokenizer=letters),
    ).model
    sources = ["who sells 0123456789", "and cake 9876543210", '{"name": 3141592653}']

    def write(**options: Any) -> list[str]:
        """Outputs that are the beginnings of their sources: there is much to copy."""
        passes.clear()
        decoding = resolve_options({"max_new_tokens": 14, **options}, {}, model.special_ids)
        writer = TextGenerator(model, source_tokenizer=pieces, target_tokenizer=letters, decoding=decoding)
        return [output.texts[0] for output in writer.texts(sources, prefixes=sources)]

    for options in ({}, {"do_sample": True}):
        plain = write(**options)
        assert all(source.startswith(text) for text, source in zip(plain, sources, strict=True))
        assert len(passes) == 14
        assert write(prompt_lookup=30, **options) == plain
        assert len(passes) <= 4
