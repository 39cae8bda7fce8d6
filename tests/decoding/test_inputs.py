"""Ids that a model lacks and sources that are too long: one clear sentence, in every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import seq2seq_cli
from seq2seq_cli.combiner import Side, combine, combine_single
from seq2seq_cli.errors import UsageError
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.model import Stack
from tests import tiny
from tests.families.spec import spec

IDS = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def side(family: str) -> Side:
    return Side(family=family, config=tiny.base(family))


@pytest.mark.parametrize("wrong", [10**6, -1])
@pytest.mark.parametrize("family", FAMILIES)
def test_ids_beyond_the_vocabulary_are_refused(family: str, wrong: int, tmp_path: Path) -> None:
    ids = torch.tensor([[5, wrong, 6]])
    for role in ("encoder", "decoder"):
        spec(family).publish("", role, tmp_path / role)
        model = seq2seq_cli.load(tmp_path / role, role=role).model  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=rf"^token ids must be from 0 to {model.config.vocab_size - 1}$"):
            model(ids)
    assert isinstance(model, Stack)
    with pytest.raises(UsageError, match=rf"the token id {wrong} is not one of the model's"):
        seq2seq_cli.generate_ids(model, ids, max_new_tokens=2)


def models() -> dict[str, Any]:
    return {
        "pair": combine(side("bert"), side("gpt2"), settings=IDS).model,
        "learned behind an offset": combine(side("roberta"), side("gpt2"), settings=IDS).model,
        "prefix": combine_single(side("bert"), settings=IDS).model,
    }


@pytest.mark.parametrize("name", ["pair", "learned behind an offset", "prefix"])
def test_sources_beyond_the_positions_are_refused(name: str) -> None:
    model = models()[name]
    most = model.encoder.config.max_positions
    ids = torch.full((2, most + 30), 7)
    mask = torch.ones_like(ids)
    mask[:, 5:] = 0
    seq2seq_cli.generate_ids(model, ids, mask, max_new_tokens=2)  # padding takes no positions
    mask[1, : most + 1] = 1
    with pytest.raises(UsageError, match=f"a source of {most + 1} tokens is longer than the {most} that"):
        seq2seq_cli.generate_ids(model, ids, mask, max_new_tokens=2)
    with pytest.raises(ValueError, match=rf"tokens are more than the {most} positions$"):
        model(ids, mask, torch.tensor([[1], [1]]))


def test_a_prefix_model_says_how_long_the_source_was() -> None:
    model = models()["prefix"]
    most = model.encoder.config.max_positions
    with pytest.raises(UsageError, match=f"a prompt of {most + 1} tokens leaves no room"):
        seq2seq_cli.generate_ids(model, torch.full((1, most), 7), max_new_tokens=2)


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "xlm", "distilbert"])
def test_a_stack_that_is_called_with_too_many_tokens(family: str, tmp_path: Path) -> None:
    tiny.save_language_model(family, tmp_path)
    for role in ("encoder", "decoder"):
        model = seq2seq_cli.load(tmp_path, role=role).model  # type: ignore[arg-type]
        assert isinstance(model, Stack)
        most = model.config.max_positions
        model(torch.full((1, most), 7))
        with pytest.raises(ValueError, match=f"^{most + 1} tokens are more than the {most} positions$"):
            model(torch.full((1, most + 1), 7))


def test_one_row_that_reaches_the_last_position_leaves_the_others(tmp_path: Path) -> None:
    """It is less than an eighth of the batch, and there is no position for its next token."""
    spec("gpt2").publish("", "decoder", tmp_path)
    model = seq2seq_cli.load(tmp_path, role="decoder").model
    most = model.config.max_positions
    ids, mask = tiny.padded([[5] * (most - 3), *[[6, 7]] * 15], left=True)
    found = seq2seq_cli.generate_ids(model, ids, mask, max_new_tokens=8, eos_token_id=[])
    assert [len(row[0].ids) for row in found] == [4, *[8] * 15]
    alone = seq2seq_cli.generate_ids(model, ids[1:2, -2:], max_new_tokens=8, eos_token_id=[])
    assert found[1][0].ids == found[15][0].ids == alone[0][0].ids
