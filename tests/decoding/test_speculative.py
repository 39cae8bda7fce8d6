"""A draft model guesses: the output is that without one, in fewer passes where it is right."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import seq2seq_cli
from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.combiner import Side, combine
from seq2seq_cli.decoding import generate_ids, resolve_options
from seq2seq_cli.decoding.draft import Draft, Drafter, begin_draft
from seq2seq_cli.decoding.engine import TextGenerator, draft_generator
from seq2seq_cli.decoding.speculative import Paths
from seq2seq_cli.errors import UsageError
from seq2seq_cli.model import PrefixModel, SpecialIds, Stack
from seq2seq_cli.text.training import train_tokenizer
from tests import tiny
from tests.decoding import stored
from tests.decoding.guessing import PROCESSORS, SAMPLING, decode, rows, same, widths
from tests.decoding.test_grammar import SOURCES, TEXTS, generator
from tests.decoding.test_open_place import models
from tests.families.spec import spec

MODELS = (*stored.MODELS, "prefix")


@cache
def model(name: str) -> Any:
    """The stored ones, and one stack that writes targets for sources."""
    if name != "prefix":
        return stored.model(name)
    made = PrefixModel(copy.deepcopy(stored.model("gpt2")))
    made.special_ids = SpecialIds(start=1, eos=(2,), pad=0)
    return made.eval()


@cache
def draft(name: str, noise: float) -> Any:
    """A model that often agrees with the one of that name; without noise always, with much of it seldom."""
    made = copy.deepcopy(model(name))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * noise * parameter.std())
    return made


@pytest.mark.parametrize("sampling", [{}, SAMPLING[1]], ids=str)
@pytest.mark.parametrize("options", PROCESSORS, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_the_tokens_are_those_without_a_draft(
    name: str, options: dict[str, Any], sampling: dict[str, Any]
) -> None:
    sources, options = rows(8), {**options, **sampling}
    expected = decode(model(name), sources, options)
    same(decode(model(name), sources, options, draft=draft(name, 0.1), left=bool(sampling)), expected)


@pytest.mark.parametrize("options", [{}, SAMPLING[2]], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_a_row_is_written_as_if_it_were_alone(name: str, options: dict[str, Any]) -> None:
    sources, options = rows(), {**options, "repetition_penalty": 1.2}
    expected = decode(model(name), sources, options)
    for tokens, noise in ((1, 0.0), (2, 2.0), (3, 0.1), (9, 0.0), (9, 0.1)):
        guessing = {**options, "draft_tokens": tokens}
        same(decode(model(name), sources, guessing, draft=draft(name, noise)), expected)
    alone = [
        decode(model(name), [source], options, draft=draft(name, 0.1), keys=[n])[0]
        for n, source in enumerate(sources)
    ]
    same(alone, expected)


@pytest.mark.parametrize("name", MODELS)
def test_several_samples_of_a_source(name: str) -> None:
    options = {"do_sample": True, "num_return_sequences": 3, "encoder_repetition_penalty": 1.2}
    expected = decode(model(name), rows(4), options)
    assert len({tuple(h.ids) for h in expected}) > 4
    same(decode(model(name), rows(4), options, draft=draft(name, 0.1)), expected)


@pytest.mark.parametrize("options", [{}, {"top_k": 5, "seed": 2}], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_a_perfect_draft_is_always_right(
    name: str, options: dict[str, Any], passes: list[tuple[Stack, int]]
) -> None:
    """24 tokens: the first one, then five guesses and the one behind them. A bad draft is seldom right."""
    options, sources = {**options, "eos_token_id": []}, rows(5)
    expected = decode(model(name), sources, options)
    read = 2 if name == "prefix" else 1  # the source goes through the same stack
    for noise, least, most in ((0.0, 5, 5), (0.02, 5, 22), (3.0, 12, 24)):
        passes.clear()
        same(decode(model(name), sources, options, draft=draft(name, noise)), expected)
        taken = widths(passes, model(name))[read - 1 :]
        assert least <= len(taken) <= most, noise
        assert max(taken[1:]) == 6
        # the draft reads its prompts, and a guess fewer than it makes each time
        assert max(widths(passes, draft(name, noise))[read:]) <= 2
        if noise == 0.0:
            assert taken[1:] == [6, 6, 6, 5]
            assert len(widths(passes, draft(name, noise))) == read + 3 * 5 + 4


def test_a_draft_stops_at_an_end(passes: list[tuple[Stack, int]]) -> None:
    name = "bert-gpt2"
    free = decode(model(name), [[5, 6, 7]], {"eos_token_id": [], "no_repeat_ngram_size": 1})[0].ids
    passes.clear()
    options = {"eos_token_id": free[3], "no_repeat_ngram_size": 1, "draft_tokens": 9}
    (found,) = decode(model(name), [[5, 6, 7]], options, draft=draft(name, 0.0))
    assert found.ids == free[:4]
    assert widths(passes, model(name)) == [1, 4]
    assert widths(passes, draft(name, 0.0)) == [1, 1, 1, 1]


def shortened(folder: Path, positions: int) -> Any:
    """The stored GPT-2 with fewer positions."""
    source = stored.FOLDER / "gpt2"
    config = {**json.loads((source / "config.json").read_text()), "n_positions": positions}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(source / "model.safetensors")
    weights = {name: w[:positions] if name.endswith("wpe.weight") else w for name, w in weights.items()}
    save_file({name: w.contiguous() for name, w in weights.items()}, folder / "model.safetensors")
    return load_bundle(str(folder)).model


def test_either_model_ends_at_its_last_position(tmp_path: Path, passes: list[tuple[Stack, int]]) -> None:
    """40 positions, and one token behind them; a draft with 16 stops to guess at its own end, row by row."""
    large, small = model("gpt2"), shortened(tmp_path, 16)
    prompts = [[5] * 38, [6, 7] * 5, [8], [9] * 13]
    options = {"eos_token_id": [], "max_new_tokens": None, "draft_tokens": 3}
    expected = decode(large, prompts, options)
    assert [len(each.ids) for each in expected] == [3, 31, 40, 28]
    for other in (small, large, draft("gpt2", 0.1)):
        for left in (False, True):
            same(decode(large, prompts, options, draft=other, left=left), expected)
    for prompt, each in zip(prompts, expected, strict=True):
        same(decode(large, [prompt], options, draft=small), [each])
    passes.clear()
    decode(large, [[8]], options, draft=small)
    # a token, four times 4, and the draft has read 16; then one by one
    assert widths(passes, large) == [1, 4, 4, 4, 4, *[1] * 23]
    assert sum(widths(passes, small)) == 16


def test_a_source_is_cut_for_a_smaller_draft() -> None:
    """On the right, padding on either side; the one of a prefix model leaves room for a target."""
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 40}
    left = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    small: Any = combine(
        Side(family="bert", config={**left, "vocab_size": 40, "max_position_embeddings": 6}),
        Side(family="gpt2", config={**sizes, "n_positions": 12}),
        settings={"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    ).model
    sources = rows()
    assert max(map(len, sources)) > 6
    for name, other in (("bert-gpt2", small), ("bert-gpt2", model("prefix")), ("prefix", small)):
        expected = decode(model(name), sources, {})
        for side in (False, True):
            same(decode(model(name), sources, {}, draft=other, left=side), expected)


@torch.inference_mode()
def test_a_draft_begins_with_its_own_start() -> None:
    """Unless somebody asks for another one than the model's."""
    small = copy.deepcopy(model("prefix"))
    small.special_ids = SpecialIds(start=4, eos=(2,))
    ids = torch.tensor([[5, 6]])
    for asked, start in (({}, 4), ({"decoder_start_token_id": 9}, 9)):
        large = model("bert-gpt2")
        decoding = resolve_options({**asked, "max_new_tokens": 3}, {}, large.special_ids)
        begun = begin_draft(Draft(model=small, ids=ids, mask=None), decoding, large.special_ids)
        assert begun.prompt.tolist() == [[start]]


@torch.inference_mode()
def test_a_guess_that_nothing_can_follow_is_the_last() -> None:
    """The options may leave no token behind a text that is never written: that is no error."""
    decoding = resolve_options({"max_new_tokens": 9}, {}, SpecialIds())
    begun = begin_draft(
        Draft(model=model("gpt2"), ids=torch.tensor([[5], [6]]), mask=None), decoding, SpecialIds()
    )

    def choose(scores: Tensor, rows: Tensor, steps: Tensor) -> Tensor:
        if int(steps.max()) == 3:
            raise UsageError("the options leave no token")
        return scores.argmax(-1)

    paths = Paths(begun.prompt, None, processors=[], limits=torch.tensor([9, 9]))
    paths.counts += 1
    guesses = Drafter(begun, choose).guess(torch.arange(2), paths, torch.tensor([5, 5]))
    assert guesses.shape == (2, 2)
    assert int(guesses.min()) >= 0


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    ids = torch.tensor([[5, 6]])
    gpt2, pair = model("gpt2"), model("bert-gpt2")
    _, xlnet = models("xlnet")
    spec("transfo-xl").publish("", "decoder", tmp_path)
    forgetful: Any = seq2seq_cli.load(tmp_path, role="decoder").model
    wider = tiny.scramble(load_bundle(str(stored.FOLDER / "gpt2")).model)
    for large, small, message in (
        (xlnet, gpt2, "draft_model needs a model that writes left to right"),
        (gpt2, xlnet, "draft_model needs a draft that writes left to right"),
        (forgetful, gpt2, "draft_model needs a model that forgets nothing"),
        (gpt2, forgetful, "draft_model needs a draft that forgets nothing"),
        (gpt2, pair, "the draft model is an encoder-decoder, the model a language model"),
        (pair, gpt2, "the draft model is a language model, the model an encoder-decoder"),
    ):
        with pytest.raises(UsageError, match=message):
            generate_ids(large, ids, draft=small, max_new_tokens=3)
    assert wider.config.vocab_size == 40
    with pytest.raises(UsageError, match="the draft model writes 60 tokens, the model 40"):
        generate_ids(gpt2, ids, draft=tiny_stack(60), max_new_tokens=3)
    with pytest.raises(UsageError, match="draft_model is a reference"):
        generate_ids(gpt2, ids, draft_model="gpt2")
    with pytest.raises(UsageError, match="prompt_lookup 3 does not go with draft_model"):
        generate_ids(gpt2, ids, draft=gpt2, prompt_lookup=3)
    with pytest.raises(UsageError, match="does not go with num_beams 2"):
        generate_ids(gpt2, ids, draft=gpt2, num_beams=2)
    with pytest.raises(UsageError, match="draft_tokens has no effect without a draft model"):
        generate_ids(gpt2, ids, draft_tokens=2)


def tiny_stack(vocab_size: int) -> Any:
    from tests.decoding.test_grammar import stack

    return stack(vocab_size)


def test_no_guesses_are_none(passes: list[tuple[Stack, int]]) -> None:
    options = {"eos_token_id": [], "draft_tokens": 0}
    decode(model("gpt2"), [[5, 6]], options, draft=draft("gpt2", 0.0))
    assert widths(passes, draft("gpt2", 0.0)) == []
    assert len(widths(passes, model("gpt2"))) == 24


def test_training_mode_comes_back() -> None:
    small = copy.deepcopy(model("gpt2")).train()
    ids = torch.tensor([[5, 6]])
    plain = generate_ids(model("gpt2"), ids, max_new_tokens=9)
    assert generate_ids(model("gpt2"), ids, max_new_tokens=9, draft=small)[0][0].ids == plain[0][0].ids
    assert small.training
    assert not model("gpt2").training


@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "seed": 3}], ids=str)
@pytest.mark.parametrize(
    "options",
    [{"stop": ["nd", "a t"]}, {"prefix": "tea and"}, {"grammar": "regex:(tea|who){1,5} and( cake)?"}],
    ids=str,
)
def test_texts_that_begin_end_and_allow(options: dict[str, Any], sampling: dict[str, Any]) -> None:
    tokenizer = train_tokenizer("bpe", 290, TEXTS)
    plain = generator(tokenizer, max_new_tokens=30, **options, **sampling)
    small = generator(tokenizer)
    small._model = copy.deepcopy(small._model)
    with torch.no_grad():
        small._model.head.weight.add_(torch.randn_like(small._model.head.weight) * 0.05)
    quick = generator(tokenizer, max_new_tokens=30, draft_model="x", **options, **sampling)
    quick._draft = small
    for _ in range(2):  # numbers go on
        assert quick.texts(SOURCES) == plain.texts(SOURCES)


def test_a_draft_reads_sources_in_its_own_tokens() -> None:
    """Two encoders with tokenizers of their own, one vocabulary of targets."""
    letters = train_tokenizer("bpe", 262, TEXTS)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    bundles = [
        combine(
            Side(family="bert", config=sizes, tokenizer=train_tokenizer("wordpiece", size, TEXTS)),
            Side(family="gpt2", config={"n_embd": 16, "n_layer": 1, "n_head": 2}, tokenizer=letters),
            seed=3,
        )
        for size in (51, 40)
    ]
    large, small = map(seq2seq_cli.Pair, bundles)
    sizes_of_sources = [each.encoder.config.vocab_size for each in (large.model, small.model)]
    assert sizes_of_sources == [51, 40]
    for options in ({"max_new_tokens": 12}, {"max_new_tokens": 12, "top_p": 0.9, "seed": 4}):
        assert large.generate(SOURCES, draft=small, **options) == large.generate(SOURCES, **options)
        reading = [
            TextGenerator(
                each.model,
                source_tokenizer=each.source_tokenizer,
                target_tokenizer=letters,
                decoding=resolve_options({**options, "draft_model": "x"}, {}, large.model.special_ids),
            )
            for each in (large, small)
        ]
        reading[1]._encode = lambda texts, places: [[] for _ in texts]  # type: ignore[method-assign]
        reading[0]._draft = reading[1]
        texts = [[output.texts[0]] for output in reading[0].texts(SOURCES)]
        assert texts == large.generate(SOURCES, **options), "a text that the draft cannot spell"
    with pytest.raises(UsageError, match="draft_model is a reference"):
        large.generate(SOURCES, draft_model="x")


def test_another_target_tokenizer_is_refused() -> None:
    first, second = (train_tokenizer("bpe", 270, TEXTS[start:]) for start in (0, 1))
    stack = tiny_stack(300)
    small = draft_generator(stack, source_tokenizer=second, target_tokenizer=second, name="small")
    decoding = resolve_options({"max_new_tokens": 3}, {}, SpecialIds(eos=(2,)))
    with pytest.raises(UsageError, match="the draft model has another target tokenizer"):
        TextGenerator(stack, source_tokenizer=first, target_tokenizer=first, decoding=decoding, draft=small)
