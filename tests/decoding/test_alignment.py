"""What a target's tokens saw of the source: the published cross-attentions, for every family and strategy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.combiner import Side, combine, combine_single
from seq2seq_cli.decoding.alignment import source_attention
from seq2seq_cli.decoding.stepper import Stepper
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.model import EncoderDecoder, PrefixModel
from tests import tiny

SOURCE, TARGET, START = [5, 6, 7, 8, 9, 10, 11], [30, 31, 32, 33, 2], 1
IDS = {"decoder_start_token_id": START, "eos_token_id": 2, "pad_token_id": 0}


def published(names: tuple[str, ...]) -> Any:
    if len(names) == 2:
        wide = {"hidden_size": 48} if names[0] != names[1] else {}
        return tiny.pair(*names, seed=2, encoder_changes=wide)
    import transformers

    config = tiny.config(names[0])
    return tiny.scramble(transformers.AutoModelForSeq2SeqLM.from_config(config))


@pytest.mark.parametrize("names", [("bert", "gpt2"), ("bert", "bert"), ("bart",), ("t5",)], ids="-".join)
def test_equal_to_the_published_cross_attentions(names: tuple[str, ...], tmp_path: Path) -> None:
    theirs = published(names)
    theirs.save_pretrained(tmp_path)
    ours = load_bundle(str(tmp_path)).model
    assert isinstance(ours, EncoderDecoder)
    for side in (theirs, getattr(theirs, "encoder", theirs), getattr(theirs, "decoder", theirs)):
        if hasattr(side, "set_attn_implementation"):
            side.set_attn_implementation("eager")
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor([SOURCE]),
            decoder_input_ids=torch.tensor([[START, *TARGET[:-1]]]),
            output_attentions=True,
        ).cross_attentions
    found = source_attention(ours, SOURCE, TARGET, start=START)
    assert found.shape == (len(expected), expected[0].shape[1], len(TARGET), len(SOURCE))
    for layer, weights in zip(found, expected, strict=True):
        assert tiny.relative_error(layer, weights[0]) < 1e-5


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What attention saw in each of its calls, told by attention itself: with the unit matrix as values its
    output is its weights."""
    calls: list[Tensor] = []
    attend = F.scaled_dot_product_attention

    def spy(query: Tensor, keys: Tensor, values: Tensor, **options: Any) -> Tensor:
        calls.append(attend(query, keys, torch.eye(keys.shape[2]).expand(*keys.shape[:3], -1), **options))
        return attend(query, keys, values, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return calls


def pair_of(decoder: str) -> EncoderDecoder:
    ids = {} if FAMILIES[decoder].lacks_special_tokens else IDS
    options = FAMILIES[decoder].options
    left = Side(family="bert", config=tiny.base("bert"))
    right = Side(family=decoder, config={k: v for k, v in tiny.base(decoder).items() if k in options})
    model = tiny.scramble(combine(left, right, settings=ids).model, std=0.2)
    assert isinstance(model, EncoderDecoder)
    return model


@pytest.mark.parametrize("decoder", FAMILIES)
def test_every_decoder_tells_what_it_attended_to(decoder: str, seen: list[Tensor]) -> None:
    model = pair_of(decoder)
    found = source_attention(model, SOURCE, TARGET, start=START)
    depths = model.decoder.config.num_layers
    assert found.shape[0] == depths > 1
    for layer, expected in zip(
        found, seen[-2 * depths :][1::2], strict=True
    ):  # self, cross, self, cross, ...
        assert tiny.relative_error(layer, expected[0]) < 1e-5
    assert float(found.std(dim=-1).max()) > 1e-3, "all alike would hide a mistake"
    assert not torch.equal(found[0], found[-1])
    stepped = by_steps(model)
    assert tiny.relative_error(stepped, found) < 1e-5


def by_steps(model: EncoderDecoder) -> Tensor:
    """As ``source_attention``, told while one token after another is written."""
    with torch.no_grad():
        encoded = model.encode(torch.tensor([SOURCE]))
        stepper = Stepper(model.decoder, encoded, capacity=8)
        cache, parts = stepper._cache, []
        for step, token in enumerate([START, *TARGET[:-1]]):
            cache.seen_of_source = []
            tokens = torch.tensor([token])
            stepper.step(tokens) if step else stepper.start(tokens[None], None)
            parts.append(torch.cat(cache.seen_of_source))
    return torch.cat(parts, dim=2)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_stack_tells_how_its_target_saw_the_source(family: str, seen: list[Tensor]) -> None:
    ids = {} if FAMILIES[family].lacks_special_tokens else IDS
    config = {key: value for key, value in tiny.base(family).items() if key in FAMILIES[family].options}
    model = tiny.scramble(combine_single(Side(family=family, config=config), settings=ids).model, std=0.2)
    assert isinstance(model, PrefixModel)
    found = source_attention(model, SOURCE, TARGET, start=START)
    depths = model.stack.config.num_layers
    assert found.shape[0] == depths
    for layer, expected in zip(found, seen[-depths:], strict=True):
        assert tiny.relative_error(layer, expected[0, :, :, : len(SOURCE)]) < 1e-5
    assert bool((found.sum(-1) < 1).all()), "a target sees itself, too"


@torch.no_grad()
def test_hidden_places_get_nothing() -> None:
    model = pair_of("gpt2")
    source, mask = tiny.padded([SOURCE, SOURCE[:3]], pad=44)
    encoded = model.encode(source, mask)
    cache = model.decoder.new_cache(8)
    cache.seen_of_source, cache.seen_of_self = [], []
    model.decoder.states(torch.tensor([[START, *TARGET]] * 2), encoded=encoded, cache=cache)
    for weights in cache.seen_of_source:
        assert bool((weights[1, :, :, 3:] == 0).all())
        torch.testing.assert_close(weights[1].sum(-1), torch.ones(weights.shape[1:3]))
    for weights in cache.seen_of_self:
        assert bool((weights.triu(1) == 0).all())
    alone = source_attention(model, SOURCE[:3], TARGET, start=START)
    assert tiny.relative_error(torch.stack(cache.seen_of_source)[:, 1, :, :-1, :3], alone) < 1e-5


def test_nothing_is_kept_unless_asked_for() -> None:
    model = pair_of("bert")
    with torch.no_grad():
        encoded = model.encode(torch.tensor([SOURCE]))
        cache = model.decoder.new_cache(8)
        model.decoder.states(torch.tensor([[START]]), encoded=encoded, cache=cache)
    assert cache.seen_of_source is None
    assert cache.seen_of_self is None
