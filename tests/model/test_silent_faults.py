"""Faults that no error message shows: each is looked for in the numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from seq2seq_cli.combiner import Side, combine
from seq2seq_cli.model import Encoded, EncoderDecoder, KVCache
from seq2seq_cli.model.attention import safe_mask, source_mask
from tests import tiny

IDS = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
PAIRS = [("bert", "gpt2"), ("bert", "bert"), ("roberta", "roberta"), ("gpt2", "bert")]
SOURCES = [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15], [20, 21]]
TARGETS = torch.tensor([[1, 30, 31, 32], [1, 33, 34, 35], [1, 36, 37, 38]])


def pair(encoder: str, decoder: str, **changes: Any) -> EncoderDecoder:
    sides = [Side(family=f, config={**tiny.base(f), **changes.get(f, {})}) for f in (encoder, decoder)]
    model = combine(*sides, settings=IDS).model
    assert isinstance(model, EncoderDecoder)
    return tiny.scramble(model)  # type: ignore[no-any-return]


@pytest.fixture(params=PAIRS, ids="-".join)
def model(request: pytest.FixtureRequest) -> EncoderDecoder:
    return pair(*request.param, bert={"hidden_size": 48} if request.param[1] == "gpt2" else {})


def run(model: EncoderDecoder, source: Tensor, mask: Tensor | None, target: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(source, mask, target)
    return logits


def test_cross_attention_is_there_and_looks(model: EncoderDecoder) -> None:
    for layer in model.decoder.layers:
        assert layer.cross_attention is not None
    assert all(layer.cross_attention is None for layer in model.encoder.layers)
    source = torch.tensor([SOURCES[1]])
    first = run(model, source, None, TARGETS[:1])
    for place in range(source.shape[1]):  # each source token counts for each target position
        changed = source.clone()
        changed[0, place] = 50
        moved = (run(model, changed, None, TARGETS[:1]) - first).abs().amax(-1)
        assert bool((moved > 1e-4).all())


def test_every_layer_attends_to_the_source(model: EncoderDecoder) -> None:
    source = torch.tensor([SOURCES[1]])
    first = run(model, source, None, TARGETS[:1])
    for layer in model.decoder.layers:
        kept = layer.cross_attention.value.weight.data.clone()
        layer.cross_attention.value.weight.data.zero_()
        assert float((run(model, source, None, TARGETS[:1]) - first).abs().max()) > 1e-3
        layer.cross_attention.value.weight.data = kept


def test_padding_the_source_changes_nothing(model: EncoderDecoder) -> None:
    right, right_mask = tiny.padded(SOURCES, pad=0)
    left, left_mask = tiny.padded(SOURCES, pad=44, left=True)
    wide = torch.cat([right, right.new_full((3, 5), 50)], 1)
    wide_mask = torch.cat([right_mask, right_mask.new_zeros(3, 5)], 1)
    expected = run(model, right, right_mask, TARGETS)
    for ids, mask in ((left, left_mask), (wide, wide_mask), (right, right_mask.bool())):
        assert tiny.relative_error(run(model, ids, mask, TARGETS), expected) < 1e-5
    for row, source in enumerate(SOURCES):
        alone = run(model, torch.tensor([source]), None, TARGETS[row : row + 1])
        assert tiny.relative_error(expected[row : row + 1], alone) < 1e-5


def test_padding_the_target_changes_nothing(model: EncoderDecoder) -> None:
    source, mask = tiny.padded(SOURCES)
    expected = run(model, source, mask, TARGETS)
    for left in (False, True):
        extra = torch.full((3, 3), 40)
        parts = [extra, TARGETS] if left else [TARGETS, extra]
        target_mask = torch.cat([torch.full_like(p, p is TARGETS) for p in parts], 1)
        with torch.no_grad():
            got = model(source, mask, torch.cat(parts, 1), target_mask)
        got = got[:, 3:] if left else got[:, :4]
        assert tiny.relative_error(got, expected) < 1e-5


def test_the_decoder_does_not_see_the_future(model: EncoderDecoder) -> None:
    source = torch.tensor([SOURCES[0]])
    target = torch.tensor([[1, 30, 31, 32, 33]])
    first = run(model, source, None, target)
    for place in range(1, 5):
        changed = target.clone()
        changed[0, place] = 50
        moved = (run(model, source, None, changed) - first).abs().amax(-1)[0]
        assert float(moved[:place].max()) == 0.0
        assert bool((moved[place:] > 1e-4).all())


def test_bert_encoders_see_both_ways_and_gpt2_one() -> None:
    source = torch.tensor([[5, 6, 7, 8]])
    changed = torch.tensor([[5, 6, 7, 9]])
    for family, sees in (("bert", True), ("roberta", True), ("gpt2", False)):
        encoder = pair(family, "bert").encoder
        with torch.no_grad():
            moved = float((encoder(source) - encoder(changed))[0, 0].abs().max())
        assert (moved > 1e-4) is sees


def test_a_row_without_a_visible_token_is_finite(model: EncoderDecoder) -> None:
    source, mask = tiny.padded(SOURCES)
    mask[1] = 0
    logits = run(model, source, mask, TARGETS)
    assert bool(torch.isfinite(logits).all())
    others = [0, 2]
    alone = run(model, source[others], mask[others], TARGETS[others])
    assert tiny.relative_error(logits[others], alone) < 1e-5


def test_a_query_that_may_see_nothing_sees_everything() -> None:
    """Whatever kernel computes the attention: some give NaN for such a row, others zeros."""
    mask = torch.tensor([[[True, False], [False, False]]])
    assert safe_mask(mask).tolist() == [[[True, False], [True, True]]]
    assert source_mask(torch.tensor([[0, 0], [1, 0]]).bool()).tolist() == [  # type: ignore[union-attr]
        [[[True, True]]],
        [[[True, False]]],
    ]
    assert source_mask(torch.ones(2, 2, dtype=torch.bool)) is None


@pytest.mark.parametrize("steps", [(1, 1, 1, 1), (2, 2), (1, 3)], ids=str)
def test_cached_decoding_is_uncached(model: EncoderDecoder, steps: tuple[int, ...]) -> None:
    source, mask = tiny.padded(SOURCES)
    expected = run(model, source, mask, TARGETS)
    with torch.no_grad():
        encoded, cache = model.encode(source, mask), model.decoder.new_cache(2)
        parts, start = [], 0
        for step in steps:
            parts.append(model.decoder(TARGETS[:, start : start + step], encoded=encoded, cache=cache))
            start += step
    assert tiny.relative_error(torch.cat(parts, 1), expected) < 1e-5


def test_cache_rows_move_with_their_beams(model: EncoderDecoder) -> None:
    """Two beams a source that share its keys; then swapped, repeated, and a source dropped."""
    source, mask = tiny.padded(SOURCES)
    rows, order = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([3, 2, 5, 5])
    first, then = TARGETS[rows, :2], torch.tensor([[40], [41], [42], [43]])
    first[1::2, 1] = 55
    with torch.no_grad():
        encoded, cache = model.encode(source, mask), model.decoder.new_cache(8)
        model.decoder(first, encoded=encoded, cache=cache)
        kept = torch.tensor([1, 2])
        cache.select(order, sources=kept)
        fewer = Encoded(states=encoded.states[kept], mask=encoded.mask[kept])
        got = model.decoder(then, encoded=fewer, cache=cache)[:, 0]
    picked = rows[order]
    expected = run(model, source[picked], mask[picked], torch.cat([first[order], then], 1))[:, -1]
    assert tiny.relative_error(got, expected) < 1e-5


def test_cache_rows_move_in_place_without_mixing() -> None:
    cache = KVCache(num_layers=1, capacity=2)
    keys = torch.arange(4.0).view(4, 1, 1, 1)
    cache.append(0, keys, -keys)
    cache.advance(None, steps=1, rows=4, device=torch.device("cpu"))
    cache.select(torch.tensor([1, 0, 3, 3]))
    got = cache.append(0, keys, keys)
    assert got[0][:, 0, 0, 0].tolist() == [1, 0, 3, 3]
    assert got[1][:, 0, 0, 0].tolist() == [-1, 0, -3, -3]
    assert got[0][:, 0, 1, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("names", [*PAIRS, ("bert", "roberta")], ids="-".join)
def test_every_parameter_gets_a_gradient(names: tuple[str, str], tied: bool) -> None:
    """In one backward pass. Within a table, only the rows that were looked up; the key's bias adds the same
    to all scores of a query, so softmax takes it out and its gradient is rounding alone."""
    changes = {family: {"tie_word_embeddings": tied} for family in set(names)}
    if names == ("bert", "gpt2"):
        changes["bert"]["hidden_size"] = 48
    model = pair(*names, **changes)
    for name, parameter in model.named_parameters():  # gains near zero would hide what lies before them
        if "norm" in name and name.endswith("weight"):
            parameter.data.fill_(1.0)
    source, mask = tiny.padded(SOURCES)
    logits = model(source, mask, TARGETS[:, :-1])
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), TARGETS[:, 1:].flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        size = float(parameter.grad.abs().max())
        assert size > (0.0 if name.endswith("key.bias") else 1e-6), name
    for stack, seen in ((model.encoder, 7), (model.decoder, 3)):
        assert stack.position_embedding is not None
        offset = stack.config.embedding.position_offset
        used = stack.position_embedding.weight.grad.abs().sum(1).nonzero()[:, 0]  # type: ignore[union-attr]
        assert used.tolist() == list(range(offset, offset + seen))
        if stack.token_type_embedding is not None:
            grad = stack.token_type_embedding.weight.grad
            assert grad is not None
            assert bool(grad[0].any())
            assert not bool(grad[1:].any())


def test_dropout_works_in_training_and_only_there(model: EncoderDecoder) -> None:
    source, mask = tiny.padded(SOURCES)
    torch.manual_seed(0)
    assert torch.equal(run(model, source, mask, TARGETS), run(model, source, mask, TARGETS))
    model.train()
    noisy = [run(model, source, mask, TARGETS) for _ in range(2)]
    assert float((noisy[0] - noisy[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("which", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_each_kind_of_dropout(which: str) -> None:
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    for rate, same in ((0.0, True), (0.5, False)):
        model = pair("bert", "bert", bert={**off, which: rate}).train()
        source = torch.tensor([SOURCES[0]])
        torch.manual_seed(0)
        one, two = (run(model, source, None, TARGETS[:1]) for _ in range(2))
        assert torch.equal(one, two) is same
