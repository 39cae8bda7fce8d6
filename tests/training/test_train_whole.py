"""Published encoder-decoders are fine-tuned as what they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.checkpoint.saving import save_bundle
from seq2seq_cli.evaluation.run import loss
from seq2seq_cli.model import EncoderDecoder
from seq2seq_cli.recipe import Recipe
from seq2seq_cli.text.training import train_tokenizer
from seq2seq_cli.training.run import finetune
from seq2seq_cli.training.setup import prepare
from tests.families.spec import spec
from tests.training.helpers import WORDS, log_of

TEXT = """
model: {encoder: whole}
data: {train: train.jsonl, validation: dev.jsonl}
training: {max_steps: 12, tokens_per_batch: 96, save_steps: 6, learning_rate: 5e-3, logging_steps: 2,
           dropout: 0}
output: runs/tiny
"""
CLASSES = {
    "bart": transformers.BartForConditionalGeneration,
    "t5": transformers.T5ForConditionalGeneration,
}


@pytest.fixture(params=CLASSES)
def family(request: pytest.FixtureRequest, workplace: Path) -> str:
    """A folder ``whole`` of a family, with a tokenizer that begins and ends texts with 2 and 3."""
    config = {**spec(request.param).base, "eos_token_id": 3, "forced_eos_token_id": None}
    made = transformers.AutoConfig.for_model(config.pop("model_type"), **config)
    torch.manual_seed(0)
    model = CLASSES[request.param](made)
    if request.param == "bart":
        model.generation_config.forced_bos_token_id = 2
        model.final_logits_bias[0, 7] = 0.5
    model.save_pretrained(workplace / "whole")
    train_tokenizer("wordpiece", 60, WORDS).save(workplace / "whole")
    return str(request.param)


def test_a_whole_goes_through(family: str, recipe: Callable[..., Recipe]) -> None:
    """It learns, keeps its one table and its published kind, and either program loads the result."""
    before = load_bundle("whole").model
    finetune(recipe(text=TEXT))
    losses = [line["loss"] for line in log_of(Path("runs/tiny")) if "loss" in line]
    assert losses[-1] < 0.9 * losses[0]
    bundle = load_bundle("runs/tiny")
    model = bundle.model
    assert isinstance(model, EncoderDecoder)
    assert isinstance(before, EncoderDecoder)
    assert model.encoder.embedding.weight is model.decoder.embedding.weight
    assert model.decoder.head is not None
    assert model.decoder.head.weight is model.decoder.embedding.weight
    assert bundle.config["s2s"]["trained"]
    assert json.loads(Path("runs/tiny/config.json").read_text())["model_type"] == family
    assert model.special_ids == before.special_ids
    assert model.generation == before.generation
    moved = [n for n, p in model.named_parameters() if not torch.equal(p, before.get_parameter(n))]
    still = {"decoder.head.bias"} if family == "bart" else set()
    assert {n for n, _ in model.named_parameters()} - set(moved) == still
    theirs = CLASSES[family].from_pretrained("runs/tiny").eval()
    ids, target = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[model.special_ids.start or 0, 9, 10]])
    with torch.no_grad():
        expected = theirs(input_ids=ids, decoder_input_ids=target).logits
        torch.testing.assert_close(model(ids, None, target), expected, rtol=1e-4, atol=1e-4)
    again = prepare(recipe("output=b", "model.encoder=runs/tiny/checkpoint-6", text=TEXT))
    assert again.bundle.config["model_type"] == family


def test_targets_begin_as_decoding_does(family: str, recipe: Callable[..., Recipe]) -> None:
    """BART's decoding is forced to write its bos first, so that is what it learns to write."""
    prepared = prepare(recipe("data.max_target_length=4", text=TEXT))
    batch = prepared.train.batch([0, 1, 2])
    first = {"bart": 2, "t5": None}[family]
    assert prepared.bundle.first_id == first
    if first is not None:
        assert set(batch.labels[:, 0].tolist()) == {first}
    assert set(batch.target_ids[:, 0].tolist()) == {2 if family == "bart" else 0}
    assert batch.labels.shape[1] == 4
    rows = prepared.train_rows[:4]
    scored = loss(prepared.bundle, rows)["loss"]
    prepared.bundle.model.generation.pop("forced_bos_token_id", None)
    assert (loss(prepared.bundle, rows)["loss"] == scored) is (first is None)


def test_sides_of_a_whole_in_a_pair(family: str, recipe: Callable[..., Recipe]) -> None:
    """With another setting, or another half, it is combined; the result is a pair's folder."""
    made = recipe(f"model.decoder={family}2", text=TEXT)
    save_bundle(load_bundle("whole"), Path(f"{family}2"))
    finetune(made)
    assert json.loads(Path("runs/tiny/config.json").read_text())["model_type"] == "encoder-decoder"
    assert load_bundle("runs/tiny").target_tokenizer is not None
