"""What a run would be: sizes, steps, padding, memory and time, found out on a few discarded steps."""

from __future__ import annotations

import resource
import sys
import time
from typing import TYPE_CHECKING

import torch

from seq2seq_cli import console
from seq2seq_cli.data.batches import padding_share
from seq2seq_cli.training.lora import is_update
from seq2seq_cli.training.run import make_accelerator, start
from seq2seq_cli.training.setup import Prepared, prepare
from seq2seq_cli.training.signals import StopRequest

if TYPE_CHECKING:
    from accelerate import Accelerator

    from seq2seq_cli.recipe import Recipe

#: steps that are timed, after one that warms up
_TIMED = 4
_MB = 1e6


def dry_run(recipe: Recipe, *, processes: int = 1) -> None:
    """Prepare everything that ``recipe`` asks for and report on stderr; trains and writes nothing.

    Raises whatever a real start would raise about recipe, data and model.
    """
    accelerator = make_accelerator(recipe)
    prepared = prepare(recipe, processes=processes)
    _report_parts(prepared)
    _report_steps(prepared)
    _report_cost(prepared, accelerator)


def _report_parts(prepared: Prepared) -> None:
    fresh = prepared.fresh
    console.say(f"{'part':<16}{'parameters':>14}{'loaded':>14}{'fresh':>14}{'trained':>14}  learning rate")
    for part in prepared.parts.parts:
        total = sum(p.numel() for _, p in part.parameters)
        new = sum(p.numel() for name, p in part.parameters if name in fresh or is_update(name))
        trained = 0 if part.frozen else total
        note = "frozen" if part.frozen else f"{part.peak:g}"
        if part.freeze_steps and not part.frozen:
            note += f" from step {part.freeze_steps}"
        if part.freeze_after:
            note += f" to step {part.freeze_after}"
        console.say(f"{part.name:<16}{total:>14,}{total - new:>14,}{new:>14,}{trained:>14,}  {note}")


def _report_steps(prepared: Prepared) -> None:
    plan, train = prepared.plan, prepared.train
    batches = plan.epoch(0)
    tokens = int(train.lengths.sum())
    console.say(
        f"{len(train):,} rows · {len(batches):,} batches · {plan.steps_in(0):,} steps an epoch, "
        f"{plan.total:,} in all · {tokens:,} tokens an epoch "
        f"({int(train.lengths[:, 1].sum()):,} of them targets) · "
        f"{padding_share(train.lengths, batches):.1%} of all positions are padding"
    )


def _report_cost(prepared: Prepared, accelerator: Accelerator) -> None:
    trained = sum(p.numel() for part in prepared.parts.parts if not part.frozen for _, p in part.parameters)
    weights = sum(parameter.nbytes for parameter in prepared.bundle.model.parameters())
    trainer = start(prepared, accelerator=accelerator, stop=StopRequest())
    plan = prepared.plan
    largest = max(plan.epoch(0), key=lambda rows: len(rows) * int(prepared.train.lengths[rows].max(0).sum()))
    trainer.state.step = max((part.freeze_steps for part in prepared.parts.parts), default=0)  # all learn
    trainer.step([largest])
    timed = min(_TIMED, plan.steps_in(0))
    started = time.monotonic()
    for position in range(timed):
        trainer.step(plan.step(0, position))
    seconds = (time.monotonic() - started) / timed
    console.say(
        f"memory: weights {weights / _MB:,.0f} MB, gradients {4 * trained / _MB:,.0f} MB, AdamW "
        f"{8 * trained / _MB:,.0f} MB; highest seen here, with the largest batch: {_peak() / _MB:,.0f} MB"
    )
    whole = int(seconds * plan.total)
    console.say(
        f"time: {seconds:.3f} s a step on {accelerator.device}, about {whole // 3600}:{whole // 60 % 60:02}:"
        f"{whole % 60:02} for {plan.total:,} steps, validation and saving aside"
    )


def _peak() -> float:
    """Most memory in use so far, in bytes: the GPU's, else the process's."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    scale = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale)
