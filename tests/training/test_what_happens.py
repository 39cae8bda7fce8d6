"""What a run says about itself: does the output depend on the source, which steps were skipped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from seq2seq_cli.errors import DivergedError, StoppedError
from seq2seq_cli.model import EncoderDecoder
from seq2seq_cli.recipe import Recipe
from seq2seq_cli.training import validation
from seq2seq_cli.training.diverged import divergence
from seq2seq_cli.training.loop import Trainer
from seq2seq_cli.training.run import finetune
from seq2seq_cli.training.sensitivity import source_sensitivity
from seq2seq_cli.training.setup import Prepared, prepare
from seq2seq_cli.training.stepper import Stepper
from tests.training.helpers import GPT2, ONE_SIDED, log_of
from tests.training.test_train_loop import trainer_of
from tests.training.test_train_processes import learnt, sums

Make = Callable[..., Recipe]
RUN = Path("runs/tiny")
PRECISE = {"device": torch.device("cpu"), "precision": nullcontext()}


def deafened(prepared: Prepared) -> EncoderDecoder:
    """The model with a cross-attention that gives nothing."""
    model = prepared.bundle.model
    assert isinstance(model, EncoderDecoder)
    for name, parameter in model.named_parameters():
        if ".cross_attention.output." in name:
            parameter.data.zero_()
    return model.eval()


def test_r17_rows_of_every_process_are_looked_at() -> None:
    """The batch to blame may be another process's; where all losses are finite, any may be."""
    seen = [(3.0, "rows a:1"), (math.nan, "rows a:2"), (2.0, "rows a:3"), (math.inf, "rows a:4")]
    assert [rows for _, rows in divergence(5, 1.0, seen).batches] == ["rows a:2", "rows a:4"]
    assert divergence(5, math.inf, seen[::2]).batches == tuple(seen[::2])
    assert len(divergence(5, math.inf, [(1.0, f"rows a:{n}") for n in range(99)]).batches) == 8


def test_r17_a_step_gathers_the_losses_of_its_processes(
    recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(recipe("training.skip_nan=1"))
    monkeypatch.setattr(trainer.group, "gather", lambda items: [*items, (math.nan, "rows other.jsonl:7")])
    broken_at(monkeypatch, 0)
    found = Stepper.step(trainer, [[0]]).divergence
    assert found is not None
    assert [rows for _, rows in found.batches] == ["rows other.jsonl:7"]


def test_sensitivity_is_the_divergence_of_what_is_told_for_two_sources(recipe: Make) -> None:
    prepared = prepare(recipe())
    model, data = prepared.bundle.model.eval(), prepared.validation
    assert isinstance(model, EncoderDecoder)
    assert data is not None
    with torch.no_grad():  # a cross-attention that is heard
        for name, parameter in model.named_parameters():
            if "cross_attention" in name:
                parameter.mul_(20.0)
    found = source_sensitivity(model, data, **PRECISE)
    sources, total, count = [], 0.0, 0
    for row in range(len(data)):
        if (ids := data.batch([row]).source_ids.tolist()) not in [s.tolist() for s in sources]:  # type: ignore[union-attr]
            sources.append(data.batch([row]).source_ids)
    assert len(sources) == len(data) == 8, ids
    with torch.no_grad():
        for row in range(8):
            batch = data.batch([row])
            p = model(sources[row], None, batch.target_ids).log_softmax(-1)
            q = model(sources[(row + 1) % 8], None, batch.target_ids).log_softmax(-1)
            total += float((p.exp() * (p - q)).sum())
            count += batch.label_count
    assert found == pytest.approx(total / count, rel=1e-4)
    assert found is not None
    assert found > 1e-3


def test_a_model_that_does_not_listen_has_no_sensitivity(recipe: Make) -> None:
    prepared = prepare(recipe())
    assert prepared.validation is not None
    assert source_sensitivity(deafened(prepared), prepared.validation, **PRECISE) == pytest.approx(
        0, abs=1e-9
    )


def test_one_and_the_same_source_tells_nothing(recipe: Make) -> None:
    line = json.dumps({"source": "red", "target": "blue cat"}) + "\n"
    Path("same.jsonl").write_text(3 * line)
    prepared = prepare(recipe("data.validation=same.jsonl"))
    assert prepared.validation is not None
    assert source_sensitivity(prepared.bundle.model, prepared.validation, **PRECISE) is None  # type: ignore[arg-type]


def test_a_deaf_model_is_warned_about_after_the_warm_up(
    recipe: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = recipe("training.max_steps=6", "training.eval_steps=2", "training.warmup_steps=3",
                  "training.eval_samples=0", "model.freeze=[cross_attention]")  # fmt: skip
    trainer = trainer_of(made, run=RUN)
    deafened(trainer.prepared)
    trainer.run()
    said = [line for line in capsys.readouterr().err.split("\n") if "hardly depends on the source" in line]
    assert [line.split("at step ")[1][0] for line in said] == ["4", "6"], "not before the warm-up is over"
    evaluated = [line["evaluation"] for line in log_of(RUN) if "evaluation" in line]
    assert [values["source_sensitivity"] for values in evaluated] == pytest.approx([0, 0, 0], abs=1e-9)


def test_one_sided_objectives_have_no_source(recipe: Make) -> None:
    text = ONE_SIDED.format(side="decoder", family="gpt2", config=GPT2, objective="causal_lm")
    finetune(recipe("training.max_steps=2", "training.eval_steps=2", text=text))
    assert all("source_sensitivity" not in line.get("evaluation", {}) for line in log_of(Path("runs/one")))


# -- R17: steps without finite numbers ----------------------------------------------------------------------

NAN = ("training.logging_steps=1", "training.save_steps=2", "training.max_steps=6", "training.eval_samples=0")


def broken_at(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """The gradients of these steps (from 0) are not finite."""
    whole = Trainer._accumulate

    def accumulate(self: Trainer, mine: object, scale: float) -> list[torch.Tensor]:
        return whole(self, mine, float("nan") if self.state.step in steps else scale)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_accumulate", accumulate)


def test_r17_so_many_steps_are_skipped_counted_and_named(
    recipe: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken_at(monkeypatch, 1, 3)
    results = finetune(recipe(*NAN, "training.skip_nan=2"))
    assert results["skipped_steps"] == 2
    skipped = [line for line in log_of(RUN) if "skipped" in line]
    assert [(line["step"], line["skipped"]) for line in skipped] == [(2, 1), (4, 2)]
    assert all("train.jsonl:" in line["batches"][0] for line in skipped)
    assert capsys.readouterr().err.count("is skipped") == 2
    told = {line["step"]: line for line in log_of(RUN) if "tokens_seen" in line}
    assert "loss" not in told[2]
    assert told[2]["tokens_seen"] == told[1]["tokens_seen"], "nothing was learnt from"
    assert told[6]["loss"] > 0


def test_r17_one_more_ends_the_run_with_the_last_good_checkpoint(
    recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_at(monkeypatch, 1, 3)
    with pytest.raises(DivergedError, match=r"step 4.*1 such steps were skipped before") as error:
        finetune(recipe(*NAN, "training.skip_nan=1"))
    assert "train.jsonl:" in str(error.value)
    assert (RUN / "checkpoint-2").is_dir()


def test_r17_a_skipped_step_changes_no_weight_and_resuming_is_exact(
    recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_at(monkeypatch, 1, 4)
    finetune(recipe(*NAN, "training.skip_nan=2"))
    whole = sums(RUN / "checkpoint-6"), learnt(RUN)
    made = recipe(*NAN, "training.skip_nan=2", "output=runs/again")
    stops = iter([False, False, True])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "stopping", lambda self: next(stops, True))
        with pytest.raises(StoppedError):
            finetune(made)
    # the number that may be skipped is free to change: a run that diverged goes on with a larger one
    results = finetune(recipe(*NAN, "training.skip_nan=5", "output=runs/again"))
    assert results["skipped_steps"] == 2
    again = Path("runs/again")
    assert (sums(again / "checkpoint-6"), learnt(again)) == whole


def test_r17_a_model_without_numbers_is_no_result(
    recipe: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(validation, "_loss", lambda trainer: float("nan"))
    for _ in range(2):  # nor is it one when the same command is run again
        with pytest.raises(DivergedError, match="the validation loss of step 6 is not finite"):
            finetune(recipe(*NAN))
        assert not (RUN / "model.safetensors").exists()
        assert not (RUN / "all_results.json").exists()
    assert "holds the" not in capsys.readouterr().err


def test_r17_the_weights_of_a_skipped_step_stay(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_at(monkeypatch, 1)
    trainer = trainer_of(recipe(*NAN, "training.skip_nan=1"), run=RUN)
    trainer._advance()
    before = [p.detach().clone() for p in trainer.prepared.bundle.model.parameters()]
    trainer._advance()
    after = list(trainer.prepared.bundle.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    trainer._advance()
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
