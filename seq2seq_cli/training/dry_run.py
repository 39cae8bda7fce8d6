"""What a run would be: sizes, steps, padding, memory and time, found out on a few discarded steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from seq2seq_cli import console
from seq2seq_cli.data.batches import padding_share
from seq2seq_cli.errors import ResourceError
from seq2seq_cli.training import sharding
from seq2seq_cli.training.lora import is_update
from seq2seq_cli.training.machine import peak_memory, room
from seq2seq_cli.training.memory import Strategy, estimate
from seq2seq_cli.training.run import make_accelerator, start
from seq2seq_cli.training.setup import Prepared, prepare
from seq2seq_cli.training.signals import StopRequest

if TYPE_CHECKING:
    from seq2seq_cli.recipe import Recipe
    from seq2seq_cli.training.loop import Trainer

#: steps that are timed, after one that warms up
_TIMED = 4
_MB = 1e6


def dry_run(recipe: Recipe, *, processes: int = 1, strategy: Strategy = "ddp") -> None:
    """Prepare everything that ``recipe`` asks for and report on stderr; trains and writes nothing.

    ``processes`` and ``strategy`` are those of the run that is asked about; everything is found out in this
    one process. Raises whatever a real start would raise about recipe, data and model, and ResourceError
    where the run would not fit into memory.
    """
    accelerator = make_accelerator(recipe)
    prepared = prepare(recipe, processes=processes)
    if strategy == "fsdp2":
        sharding.check(recipe, prepared.parts)
    _report_parts(prepared)
    _report_steps(prepared)
    trainer = start(prepared, accelerator=accelerator, stop=StopRequest())
    lengths = prepared.train.lengths
    largest = max(prepared.plan.epoch(0), key=lambda rows: len(rows) * int(lengths[rows].max(0).sum()))
    trainer.state.step = max((part.freeze_steps for part in prepared.parts.parts), default=0)  # all learn
    _report_memory(trainer, largest, processes, strategy)
    _report_time(trainer, largest, processes)


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


def _report_memory(trainer: Trainer, largest: Sequence[int], processes: int, strategy: Strategy) -> None:
    """What the largest batch needs; ResourceError, with the batch that would fit, where that is too much."""
    found = replace(estimate(trainer, largest), processes=processes, strategy=strategy)
    available = room(processes)
    how = f", {processes} processes by {strategy.upper()}" if processes > 1 else ""
    console.say(
        f"memory a device{how}: about {found.peak() / _MB:,.0f} MB with the largest batch "
        f"({len(largest):,} rows); for one process: weights {found.weights / _MB:,.0f} MB, optimizer "
        f"{found.optimizer / _MB:,.0f} MB, "
        + (f"average {found.average / _MB:,.0f} MB, " if found.average else "")
        + f"a step {found.step(found.rows) / _MB:,.0f} MB (gradients {found.gradients / _MB:,.0f} MB of it), "
        f"the program {found.program / _MB:,.0f} MB"
    )
    if found.peak() <= available or trainer.training.auto_find_batch_size:
        return
    rows = found.fitting(available)
    training = trainer.training
    remedy = "not even one row fits: take a smaller model, shorter rows or gradient_checkpointing: true"
    if rows and training.tokens_per_batch:
        remedy = f"tokens_per_batch: {training.tokens_per_batch * rows // len(largest)} would fit"
    elif rows:
        remedy = f"per_device_train_batch_size: {rows} would fit"
    raise ResourceError(
        f"the run needs about {found.peak() / _MB:,.0f} MB a device, and there are {available / _MB:,.0f} MB",
        remedy=remedy,
    )


def _report_time(trainer: Trainer, largest: Sequence[int], processes: int) -> None:
    """How long the first of ``processes`` takes for its share of a few steps."""
    plan = trainer.prepared.plan
    trainer.step([largest])
    timed = min(_TIMED, plan.steps_in(0))
    started = time.monotonic()
    for position in range(timed):
        trainer.step(plan.step(0, position)[::processes])
    seconds = (time.monotonic() - started) / timed
    whole = int(seconds * plan.total)
    share = f" for one process's share of {processes}, exchange aside" if processes > 1 else ""
    console.say(
        f"time: {seconds:.3f} s a step on {trainer.accelerator.device}{share}, about "
        f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02} for {plan.total:,} steps, validation and "
        f"saving aside; highest memory seen here: {peak_memory() / _MB:,.0f} MB"
    )
