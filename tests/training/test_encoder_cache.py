"""The states of an encoder that stands still, kept: the same loss, to the bit the same after a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from seq2seq_cli.errors import UsageError
from seq2seq_cli.model import Stack
from seq2seq_cli.recipe import Recipe
from seq2seq_cli.training.loop import Trainer
from seq2seq_cli.training.run import finetune, make_accelerator, start
from seq2seq_cli.training.setup import prepare
from seq2seq_cli.training.signals import StopRequest
from tests.training.helpers import log_of, same_files

Make = Callable[..., Recipe]
STILL = ("model.freeze=[encoder]", "training.dropout=0", "training.logging_steps=1")


def trainer_of(recipe: Recipe) -> Trainer:
    return start(prepare(recipe), accelerator=make_accelerator(recipe), stop=StopRequest())


# another width of the decoder: a projection, which learns, stands behind what is kept
@pytest.mark.parametrize("width", [32, 48])
def test_the_losses_are_those_without(recipe: Make, width: int) -> None:
    losses = []
    for asked in ("true", "false"):
        changes = [*STILL, f"model.decoder.config.n_embd={width}", f"training.cache_encoder_states={asked}"]
        finetune(recipe(*changes, f"output=runs/{asked}"))
        losses.append([line["loss"] for line in log_of(Path("runs", asked)) if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][-1] < 0.95 * losses[0][0]


def test_states_are_the_encoders(recipe: Make, capsys: pytest.CaptureFixture[str]) -> None:
    prepared = prepare(recipe(*STILL))
    assert "states are kept" not in capsys.readouterr().err, "slices of an encoder have none"
    trainer = start(prepared, accelerator=make_accelerator(prepared.recipe), stop=StopRequest())
    assert "the encoder stands still: its states are kept once known" in capsys.readouterr().err
    assert trainer.encoder_cache is not None
    batch = trainer.prepared.collate([3, 40, 7, 12], 0)
    assert batch.source_ids is not None
    assert batch.source_mask is not None
    states = trainer.encoder_cache.states(batch)
    encoder = trainer.prepared.bundle.model.encoder
    with torch.no_grad():
        expected = encoder.states(batch.source_ids, batch.source_mask)
    visible = batch.source_mask[..., None]
    assert not bool(visible.all())
    torch.testing.assert_close(states, expected * visible, rtol=1e-5, atol=1e-6)


def test_each_source_is_read_once(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(recipe(*STILL))
    encoder, read = trainer.prepared.bundle.model.encoder, []
    states = Stack.states

    def counted(self: Stack, ids: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        if self is encoder:
            read.append(len(ids))
        return states(self, ids, *args, **kwargs)

    monkeypatch.setattr(Stack, "states", counted)
    plan = trainer.prepared.plan
    for epoch in range(2):
        for position in range(plan.steps_in(epoch)):
            trainer.step(plan.step(epoch, position))
    assert sum(read) == len(trainer.prepared.train)


def test_a_run_with_kept_states_resumes_to_the_bit(recipe: Make) -> None:
    changes = [*STILL, "training.max_steps=12", "training.save_steps=7"]
    finetune(recipe(*changes))
    finetune(recipe(*changes, "output=runs/again"), resume="runs/tiny/checkpoint-7")
    same_files(Path("runs/tiny/checkpoint-12"), Path("runs/again/checkpoint-12"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["model.freeze=[decoder]"], "the encoder learns"),
        (["model.freeze=[encoder]", "training.dropout=0.1"], "the encoder has dropout"),
        (["model={encoder: {family: bert, tokenizer: {train: wordpiece, vocab_size: 60}}}",
          "training.objective=prefix_lm"], "the model has no encoder of its own"),
    ],
)  # fmt: skip
def test_where_states_change_they_are_not_kept(recipe: Make, changes: list[str], says: str) -> None:
    base = ["training.dropout=0", *changes]
    assert not prepare(recipe(*base)).keeps_states
    with pytest.raises(UsageError, match=f"cache_encoder_states: {says}"):
        prepare(recipe(*base, "training.cache_encoder_states=true"))
    with pytest.raises(UsageError, match=f"encoder_cache_mb has no effect: {says}"):
        prepare(recipe(*base, "training.encoder_cache_mb=9"))


def test_more_states_than_the_limit_are_not_kept(recipe: Make) -> None:
    from seq2seq_cli.training.encoder_cache import keeps_states

    made = recipe(*STILL, "training.encoder_cache_mb=1", "training.cache_encoder_states=true")
    prepared = prepare(made)
    assert prepared.keeps_states
    train = prepared.train
    train.lengths = train.lengths * 1000
    with pytest.raises(
        UsageError, match=r"states take .* MB, and encoder_cache_mb is 1 · .* write encoder_cache_mb"
    ):
        keeps_states(made, prepared.bundle.model, train, prepared.parts)
    assert not keeps_states(
        recipe(*STILL, "training.encoder_cache_mb=1"), prepared.bundle.model, train, prepared.parts
    )
