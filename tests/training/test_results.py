"""What a run ends with: the best model or the last, whatever happened to its checkpoints on the way."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seq2seq_cli.checkpoint import failpoints
from seq2seq_cli.errors import UsageError
from seq2seq_cli.recipe import Recipe
from seq2seq_cli.training import loop, run, validation
from seq2seq_cli.training.run import finetune, make_accelerator, start
from seq2seq_cli.training.setup import prepare
from seq2seq_cli.training.signals import StopRequest
from seq2seq_cli.training.state import RunState, read_checkpoint
from tests.training.helpers import log_of

Make = Callable[..., Recipe]
RUN = Path("runs/tiny")
SHORT = ("training.max_steps=6", "training.save_steps=2", "training.eval_steps=2", "training.eval_samples=0")


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture
def best_at_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations that find step 2 best."""
    monkeypatch.setattr(validation, "_loss", lambda trainer: 1.0 if trainer.state.step == 2 else 2.0)


def test_a_refusal_after_everything_is_prepared_leaves_the_earlier_run(
    recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune(recipe(*SHORT))
    before = sums(RUN)

    def refuse(*given: object, **named: object) -> None:
        raise UsageError("no compiler")

    monkeypatch.setattr(loop.Trainer, "__init__", refuse)
    with pytest.raises(UsageError, match="no compiler"):
        finetune(recipe(*SHORT, "training.seed=2"), overwrite=True)
    assert sums(RUN) == before


@pytest.mark.usefixtures("best_at_two")
@pytest.mark.parametrize("step", [4, 6])
def test_a_checkpoint_of_another_run_ends_with_a_model(
    recipe: Make, step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its best step lies in the other folder; of its last there may be nothing left to do."""
    finetune(recipe(*SHORT))
    results = finetune(recipe(*SHORT, "output=runs/other"), resume=f"runs/tiny/checkpoint-{step}")
    assert "the best is sought anew" in capsys.readouterr().err
    assert results["model_of_step"] == 6
    other = Path("runs/other")
    assert (other / "model.safetensors").read_bytes() == (
        other / "checkpoint-6/model.safetensors"
    ).read_bytes()


@pytest.mark.usefixtures("best_at_two")
def test_a_best_step_of_the_run_that_is_overwritten_is_no_best(recipe: Make) -> None:
    """Both runs have a checkpoint-2; that of this folder goes before the run begins."""
    for seed, output in ((1, "runs/tiny"), (2, "runs/other")):
        finetune(recipe(*SHORT, f"training.seed={seed}", f"output={output}"))
    again = recipe(*SHORT, "training.seed=1", "output=runs/other")
    assert finetune(again, resume="runs/tiny/checkpoint-4", overwrite=True)["model_of_step"] == 6
    assert read_checkpoint(Path("runs/other/checkpoint-6")).state.best_step == 6


@pytest.mark.usefixtures("best_at_two")
def test_r9_a_damaged_best_checkpoint_is_not_the_result(
    recipe: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(recipe(*SHORT))["model_of_step"] == 2
    (RUN / "all_results.json").unlink()
    weights = RUN / "checkpoint-2/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert finetune(recipe(*SHORT))["model_of_step"] == 6
    said = capsys.readouterr().err
    assert "the last model is taken instead of the best, of step 2" in said
    assert "model.safetensors" in said
    assert (RUN / "model.safetensors").read_bytes() == (RUN / "checkpoint-6/model.safetensors").read_bytes()


def test_numbers_that_are_not_finite_are_never_best(recipe: Make) -> None:
    state, training = RunState(step=1), recipe().training
    values = (math.nan, 2.0, math.inf, 1.0)
    assert [validation.judge(state, value, training) for value in values] == [False, True, False, True]


def test_a_first_evaluation_without_a_finite_loss_spoils_no_checkpoint(
    recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "_loss", lambda trainer: math.inf if trainer.state.step == 2 else 2.0)
    assert finetune(recipe(*SHORT))["model_of_step"] == 4
    assert read_checkpoint(RUN / "checkpoint-2").state.best_step is None
    for line in (RUN / "train_log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    evaluations = [record["evaluation"] for record in log_of(RUN) if "evaluation" in record]
    assert "loss" not in evaluations[0]
    assert evaluations[1]["loss"] == 2.0


def test_max_minutes_counts_evaluations(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_point", "")  # given back at the end
    for name in ("_action", "_count", "_passed"):
        monkeypatch.setattr(failpoints, name, getattr(failpoints, name))
    failpoints._read("evaluation:sleep2")
    results = finetune(recipe(*SHORT, "training.max_steps=500", "training.max_minutes=0.03"))
    assert results["stopped_by"] == "max_minutes"
    assert results["seconds"] < 1.8, "the steps alone would not have used up the time"


def test_the_loss_scale_is_saved_and_taken_up_again(recipe: Make) -> None:
    class Scaler:
        def __init__(self) -> None:
            self.known = {"scale": 1024.0, "_growth_tracker": 7.0}

        def state_dict(self) -> dict[str, float]:
            return self.known

        def load_state_dict(self, known: dict[str, float]) -> None:
            self.known = known

        def update(self) -> None:
            pass

    made = recipe(*SHORT)
    prepared, accelerator = prepare(made), make_accelerator(made)
    trainer = start(prepared, accelerator=accelerator, stop=StopRequest(), run=RUN)
    scaler: Any = Scaler()
    accelerator.scaler = scaler
    trainer.state.step = 1
    trainer.save()
    scaler.known = {}
    checkpoint = read_checkpoint(RUN / "checkpoint-1")
    start(prepared, accelerator=accelerator, stop=StopRequest(), run=RUN, checkpoint=checkpoint)
    assert scaler.known == {"scale": 1024.0, "_growth_tracker": 7.0}


def test_processes_that_see_different_checkpoints_are_refused(
    recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import accelerate.utils

    finetune(recipe(*SHORT))
    checkpoint = read_checkpoint(RUN / "checkpoint-4")

    class Two:
        num_processes = 2

    group: Any = Two()
    monkeypatch.setattr(accelerate.utils, "gather_object", lambda items: [*items, *items])
    run._refuse_parted(group, checkpoint, RUN)
    monkeypatch.setattr(accelerate.utils, "gather_object", lambda items: [*items, None])
    with pytest.raises(UsageError, match="process 0 step 4, process 1 none"):
        run._refuse_parted(group, checkpoint, RUN)
