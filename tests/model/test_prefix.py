"""One stack that reads a source both ways and writes its target behind it, for every family."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import seq2seq_cli
from seq2seq_cli.checkpoint.loading import stack_config
from seq2seq_cli.combiner import Side, combine_single
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.model import PrefixModel, Stack
from tests import tiny

IDS = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SOURCES = [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15], [20, 21]]
TARGETS = torch.tensor([[1, 30, 31, 32], [1, 33, 34, 35], [1, 36, 37, 38]])


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> PrefixModel:
    family: str = request.param
    ids = {} if FAMILIES[family].lacks_special_tokens else IDS
    config = {key: value for key, value in tiny.base(family).items() if key in FAMILIES[family].options}
    made = combine_single(Side(family=family, config=config), settings=ids).model
    assert isinstance(made, PrefixModel)
    return tiny.scramble(made, std=0.2)  # type: ignore[no-any-return]


@torch.no_grad()
def run(model: PrefixModel, source: Tensor, mask: Tensor | None, target: Tensor) -> Tensor:
    logits: Tensor = model(source, mask, target)
    return logits


def test_the_source_is_seen_both_ways_and_the_target_one(model: PrefixModel) -> None:
    source = torch.tensor([SOURCES[0]])
    changed = source.clone()
    changed[0, -1] = 50
    with torch.no_grad():
        first, second = (model.encode(ids).states for ids in (source, changed))
    assert float((first - second)[0, 0].abs().max()) > 1e-4
    target = TARGETS[:1].clone()
    before = run(model, source, None, target)
    target[0, 2] = 51
    moved = (run(model, source, None, target) - before).abs().amax(-1)[0]
    assert float(moved[:2].max()) == 0.0
    assert bool((moved[2:] > 1e-4).all())
    for place in range(source.shape[1]):
        changed = source.clone()
        changed[0, place] = 50
        assert bool(((run(model, changed, None, TARGETS[:1]) - before).abs().amax(-1) > 1e-5).all())


def test_padding_changes_nothing(model: PrefixModel) -> None:
    right, right_mask = tiny.padded(SOURCES)
    left, left_mask = tiny.padded(SOURCES, pad=44, left=True)
    expected = run(model, right, right_mask, TARGETS)
    assert tiny.relative_error(run(model, left, left_mask, TARGETS), expected) < 1e-5
    for row, source in enumerate(SOURCES):
        alone = run(model, torch.tensor([source]), None, TARGETS[row : row + 1])
        assert tiny.relative_error(expected[row : row + 1], alone) < 1e-5


def test_cached_is_uncached(model: PrefixModel) -> None:
    source, mask = tiny.padded(SOURCES)
    greedy = seq2seq_cli.generate_ids(model, source, mask, max_new_tokens=6)
    target = torch.full((3, 1), model.special_ids.start or 0)
    for _ in range(6):
        target = torch.cat([target, run(model, source, mask, target)[:, -1:].argmax(-1)], dim=1)
    for row, hypotheses in enumerate(greedy):
        assert hypotheses[0].ids == target[row, 1 : 1 + len(hypotheses[0].ids)].tolist()
    beams = seq2seq_cli.generate_ids(model, source, mask, num_beams=3, max_new_tokens=5, length_penalty=0.0)
    for row, hypotheses in enumerate(beams):
        found = hypotheses[0].ids
        read = torch.tensor([[model.special_ids.start, *found[:-1]]])
        said = run(model, torch.tensor([SOURCES[row]]), None, read)[0].log_softmax(-1)
        assert hypotheses[0].score == pytest.approx(float(said[range(len(found)), found].sum()), abs=1e-4)


def test_without_a_source_it_is_the_causal_stack(model: PrefixModel) -> None:
    """The prefix changes the mask alone: with none of it, the stack is the language model it was."""
    with torch.no_grad():
        joined = model.stack.states(TARGETS, prefix=0)
        assert torch.equal(joined, model.stack.states(TARGETS))
        prefixed = model.stack.states(TARGETS, prefix=TARGETS.shape[1])
    assert float((joined - prefixed).abs().max()) > 1e-4


def test_a_source_leaves_less_room_for_the_target() -> None:
    base = {**tiny.base("gpt2"), "n_positions": 12}
    model = combine_single(Side(family="gpt2", config=base), settings=IDS).model
    assert isinstance(model, PrefixModel)
    source, mask = tiny.padded(SOURCES)
    model.special_ids = replace(model.special_ids, eos=())
    found = seq2seq_cli.generate_ids(model, source, mask)
    assert [len(row[0].ids) for row in found] == [12 - len(source) for source in SOURCES]


def test_an_encoder_cannot_write() -> None:
    config = stack_config(FAMILIES["bert"], tiny.base("bert"), "encoder", where="")
    with pytest.raises(TypeError, match="causal stack with a head"):
        PrefixModel(Stack(config))
