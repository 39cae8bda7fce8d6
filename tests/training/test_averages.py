"""Running averages of the weights: what they are, that they are the result, that a kill changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.recipe import Recipe
from seq2seq_cli.training.learnt import WEIGHTS_FILE, Learnt
from seq2seq_cli.training.run import finetune, make_accelerator, start
from seq2seq_cli.training.setup import prepare
from seq2seq_cli.training.signals import StopRequest
from tests.training.helpers import log_of, same_files

Make = Callable[..., Recipe]
CHANGES = ("training.max_steps=6", "training.save_steps=3", "training.eval_steps=3", "training.ema_decay=0.6")


def test_averages_are_those_of_the_formula(recipe: Make) -> None:
    made = recipe(*CHANGES, "model.freeze=[encoder]")
    trainer = start(prepare(made), accelerator=make_accelerator(made), stop=StopRequest())
    model = trainer.prepared.bundle.model
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    for step in range(6):
        trainer._advance()
        keep = min(0.6, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            expected[name] = keep * expected[name] + (1 - keep) * parameter.detach()
    raw = {name: p.detach().clone() for name, p in model.named_parameters()}
    versions = {name: p._version for name, p in model.named_parameters()}
    with trainer.learnt.as_result():
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.detach(), expected[name], msg=name)
            # what decoding prepared for other values must not be used for these
            assert parameter._version > versions[name] or name.startswith("encoder."), name
    assert all(torch.equal(p, raw[name]) for name, p in model.named_parameters())


def test_the_average_is_what_is_evaluated_saved_and_chosen(recipe: Make) -> None:
    finetune(recipe(*CHANGES, "training.dropout=0"))
    weights = load_file(f"runs/tiny/checkpoint-6/{WEIGHTS_FILE}")
    name = "decoder.layers.0.feedforward.inner.weight"
    saved = dict(load_bundle("runs/tiny/checkpoint-6").model.named_parameters())[name]
    assert torch.equal(saved, weights[f"average.{name}"])
    assert not torch.equal(saved, weights[f"raw.{name}"])
    assert not Path("runs/tiny", WEIGHTS_FILE).exists()
    logged = [line["evaluation"]["loss"] for line in log_of(Path("runs/tiny")) if "evaluation" in line]
    made = recipe("model={encoder: runs/tiny}")
    trainer = start(prepare(made), accelerator=make_accelerator(made), stop=StopRequest())
    trainer._evaluate()
    assert trainer.state.best_value == pytest.approx(min(logged), rel=1e-6)


def test_a_run_with_averages_resumes_to_the_bit(recipe: Make) -> None:
    finetune(recipe(*CHANGES))
    finetune(recipe(*CHANGES, "output=runs/again"), resume="runs/tiny/checkpoint-3")
    same_files(Path("runs/tiny/checkpoint-6"), Path("runs/again/checkpoint-6"))


def test_weights_that_do_not_fit_are_refused(recipe: Make, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    parts = prepare(recipe()).parts
    learnt = Learnt(parts, decay=0.9)
    with pytest.raises(CheckpointError, match="is missing"):
        learnt.restore(tmp_path)
    save_file({"raw.strange": torch.zeros(1)}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match="does not fit"):
        learnt.restore(tmp_path)
