"""Validation in the middle of a run: loss over all rows, generated text for the first few."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from seq2seq_cli import console
from seq2seq_cli.checkpoint.failpoints import failpoint
from seq2seq_cli.decoding.engine import TextGenerator
from seq2seq_cli.evaluation.metrics import METRICS, score
from seq2seq_cli.model import Seq2Seq
from seq2seq_cli.recipe import PAIRED
from seq2seq_cli.training.module import tensors_of
from seq2seq_cli.training.samples import SHOWN, Sample
from seq2seq_cli.training.sensitivity import LITTLE, source_sensitivity

if TYPE_CHECKING:
    from seq2seq_cli.recipe.sections import TrainingSection
    from seq2seq_cli.training.loop import Trainer
    from seq2seq_cli.training.state import RunState

#: rows generated between two looks at the signals
_AT_ONCE = 16
#: computed for generated samples, beside the metric that chooses the best
_METRICS = ("exact_match", "chrf")


class InterruptedEvaluationError(Exception):
    """A signal came during an evaluation; nothing of it counts."""


def evaluate(
    trainer: Trainer, *, say: Callable[[str], None]
) -> tuple[dict[str, float], list[dict[str, str]]]:
    """(metrics, samples) of the model as it is. The loss is the plain cross-entropy, without smoothing, a
    mean over all real target tokens of the validation rows. Every process does its share and gets the same
    metrics. InterruptedEvaluationError when a signal comes meanwhile."""
    failpoint("evaluation")
    trainer.module.eval()
    model = trainer.prepared.bundle.model
    model.eval()
    try:
        loss = _loss(trainer)
        values = {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), **_sensitivity(trainer)}
        samples = trainer.prepared.samples
        if not samples:
            return values, []
        predictions = _predict(trainer, samples)
    finally:
        trainer.module.train()
    if trainer.training.objective in PAIRED:
        values |= _scores(trainer, samples, predictions)
    return values, _told(samples, predictions, say=say, reads=isinstance(model, Seq2Seq))


def judge(state: RunState, value: float, training: TrainingSection) -> bool:
    """Take down in ``state`` how an evaluation came out; True when it is the best so far."""
    best = state.best_value
    better = math.isfinite(value) and (
        best is None or (value > best if training.greater_is_better else value < best)
    )
    if better:
        state.best_step, state.best_value, state.bad_evaluations = state.step, value, 0
    else:
        state.bad_evaluations += 1
    return better


def _loss(trainer: Trainer) -> float:
    accelerator, data = trainer.accelerator, trainer.prepared.validation
    assert data is not None
    world, rank = accelerator.num_processes, accelerator.process_index
    batches = trainer.prepared.validation_batches
    total, tokens = 0.0, 0
    for first in range(0, len(batches), world):  # every process makes as many rounds, so that they can talk
        _check(trainer)
        if first + rank < len(batches):
            batch = data.batch(batches[first + rank])
            with torch.inference_mode():
                # not through DDP: its hooks expect every process to come along
                inner = accelerator.unwrap_model(trainer.module, keep_fp32_wrapper=True)
                total += float(inner(*tensors_of(batch, accelerator.device)).item())
            tokens += batch.label_count
    return trainer.group.sum(total) / max(1.0, trainer.group.sum(float(tokens)))


def _sensitivity(trainer: Trainer) -> dict[str, float]:
    """How much the output depends on the source, and a warning while that is next to nothing. Every process
    works it out on the same few rows, so that none has to wait."""
    model, data = trainer.prepared.bundle.model, trainer.prepared.validation
    if not isinstance(model, Seq2Seq) or data is None:
        return {}
    accelerator = trainer.accelerator
    value = source_sensitivity(model, data, device=accelerator.device, precision=accelerator.autocast())
    if value is None:
        return {}
    if value < LITTLE and trainer.warmed_up():
        console.warn(
            f"source sensitivity {value:.1e} at step {trainer.state.step}, after the warm-up: the output "
            "hardly depends on the source. A fresh cross-attention often needs a higher learning rate of "
            "its own (training.groups.cross_attention)"
        )
    return {"source_sensitivity": value}


def _predict(trainer: Trainer, samples: Sequence[Sample]) -> list[str]:
    """A prediction for each sample, in order; the processes share them."""
    accelerator, bundle = trainer.accelerator, trainer.prepared.bundle
    world, rank = accelerator.num_processes, accelerator.process_index
    generator = TextGenerator(
        bundle.model,
        source_tokenizer=bundle.source_tokenizer,
        target_tokenizer=bundle.target_tokenizer,
        decoding=trainer.prepared.decoding,
    )
    mine: list[tuple[int, str]] = []
    for first in range(0, len(samples), _AT_ONCE * world):
        _check(trainer)
        start = first + rank * _AT_ONCE
        share = samples[start : start + _AT_ONCE]
        found = generator.texts([each.read for each in share], ids=[each.ids for each in share])
        mine += [(start + index, output.texts[0]) for index, output in enumerate(found)]
    return [text for _, text in sorted(trainer.group.gather(mine))]


def _check(trainer: Trainer) -> None:
    if trainer.stopping():
        raise InterruptedEvaluationError


def _scores(trainer: Trainer, samples: Sequence[Sample], predictions: Sequence[str]) -> dict[str, float]:
    wanted = trainer.training.metric_for_best_model
    names = [name for name in METRICS if name in (*_METRICS, wanted)]
    scored: dict[str, Any] = score(predictions, [each.references for each in samples], names=names)
    return {name: float(scored[name]) for name in names}


def _told(
    samples: Sequence[Sample], predictions: Sequence[str], *, say: Callable[[str], None], reads: bool
) -> list[dict[str, str]]:
    """The first few samples as they are shown and stored; a warning when all outputs of a model that reads
    sources are one."""
    sources = {each.source for each in samples}
    if reads and len(sources) > 1 and len(set(predictions)) == 1:
        console.warn(
            f"the output is the same for all {len(samples)} validation samples ({_short(predictions[0])!r}): "
            "the decoder does not listen to the source yet"
        )
    told = [
        {"source": each.source, "prediction": prediction, "reference": each.references[0]}
        for each, prediction in zip(samples[:SHOWN], predictions, strict=False)
    ]
    for row in told:
        say("  " + " | ".join(f"{name}: {_short(text)}" for name, text in row.items()))
    return told


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 70 else line[:67] + "..."
