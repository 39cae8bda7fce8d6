"""One step of learning: batches to gradients to new weights, whatever number of processes shares them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from seq2seq_cli.training import optimizer as optim
from seq2seq_cli.training.compiling import stepping
from seq2seq_cli.training.diverged import Divergence, divergence, looked_at
from seq2seq_cli.training.encoder_cache import encoder_cache
from seq2seq_cli.training.group import Group
from seq2seq_cli.training.learnt import Learnt
from seq2seq_cli.training.module import TrainingModule, tensors_of
from seq2seq_cli.training.sharding import Shards, asked, check
from seq2seq_cli.training.steps import mixed_seed

if TYPE_CHECKING:
    from accelerate import Accelerator

    from seq2seq_cli.data.batch import Batch
    from seq2seq_cli.training.setup import Prepared
    from seq2seq_cli.training.signals import StopRequest
    from seq2seq_cli.training.state import RunState


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one optimizer step gave: summed loss, real target tokens, rates and gradient norms by part.
    With a ``divergence`` nothing was learnt, and the step counts no tokens."""

    loss: float
    tokens: int
    rates: dict[str, float]
    norms: dict[str, float] = field(default_factory=dict)
    divergence: Divergence | None = None


class InterruptedStepError(Exception):
    """A signal came between two batches of a step; nothing of it was learnt."""


class Stepper:
    """Weights, optimizer and everything that a step changes, from ``state`` on; knows of no files."""

    def __init__(
        self, prepared: Prepared, *, accelerator: Accelerator, stop: StopRequest, state: RunState
    ) -> None:
        self.prepared = prepared
        self.training = prepared.recipe.training
        self.accelerator = accelerator
        self.stop = stop
        self.state = state
        self.parts = prepared.parts
        module = TrainingModule(prepared.bundle.model, smoothing=self.training.label_smoothing_factor)
        # DDP wants to see everything that will ever learn; the steps below freeze what has to wait
        self.parts.set_open()
        sharding = asked() if accelerator.num_processes > 1 else None
        self.shards: Shards | None = None
        if sharding is None:
            self.module = accelerator.prepare_model(module)
        else:
            check(prepared.recipe, self.parts)
            self.module, self.shards = module, Shards(module, sharding, accelerator)
            self.parts = self.shards.parts(prepared.bundle.model, self.parts)
            # nobody may hold on to the whole parameters
            self.prepared = prepared = replace(prepared, parts=self.parts)
        self.stepping = stepping(self.module, prepared.recipe)
        self.group = Group(accelerator, limit=self.training.ddp_timeout)
        self.plain_optimizer = optim.make_optimizer(self.parts, self.training)
        self.optimizer = accelerator.prepare_optimizer(self.plain_optimizer)
        self.learnt = Learnt(self.parts, decay=self.training.ema_decay, apart=bool(prepared.bundle.adapter))
        # slices of an encoder are whole in the pass of the model alone
        sliced = self.shards is not None
        self.encoder_cache = None if sliced else encoder_cache(prepared, autocast=accelerator.autocast)

    def step(self, batches: Sequence[Sequence[int]]) -> StepResult:
        """One optimizer step over ``batches`` of rows, shared out among the processes.

        The loss is the mean over the real target tokens of all of them together. Without finite numbers
        nothing is learnt, and the result says where they were lost. In a single process a signal ends the
        step between two batches, with nothing changed: InterruptedStepError.
        """
        started = time.monotonic()
        state, accelerator = self.state, self.accelerator
        self.group.note(state.step + 1)
        rates = optim.set_rates(self.plain_optimizer, self.parts, state.step, self.prepared.plan.total)
        self.parts.set_frozen(state.step)
        self.module.train()
        mine = self._share(batches)
        tokens = sum(batch.label_count for batch, weight, _ in mine if weight)
        tokens = int(self.group.sum(float(tokens)))
        losses = self._accumulate(mine, accelerator.num_processes / max(1, tokens))
        loss = self.group.sum(float(torch.stack(losses).sum().item()) if losses else 0.0)
        norms = self._norms()
        found = None
        if not math.isfinite(loss) or not (math.isfinite(norms["total"]) or self._may_overflow()):
            real = [batch for batch, weight, _ in mine if weight]
            seen = self.group.gather(looked_at(real, losses, self.prepared.where))
            found = divergence(state.step + 1, norms["total"], seen)
            loss, tokens = 0.0, 0
            if accelerator.scaler is not None:  # it looks at the gradients anew in the next step
                accelerator.scaler.update()
        else:
            optim.clip_gradients(self.parts, norms["total"], self.training.max_grad_norm)
            self.optimizer.step()
            self.learnt.update(state.step)
        self.optimizer.zero_grad(set_to_none=True)
        spent = time.monotonic() - started
        state.seconds += spent
        state.window_seconds += spent
        return StepResult(loss=loss, tokens=tokens, rates=rates, norms=norms, divergence=found)

    def _share(self, batches: Sequence[Sequence[int]]) -> list[tuple[Batch, float, int]]:
        """This process's batches, their weight, and their number in the step. Every process gets equally
        many, because they meet at each step's end: one that runs short repeats the first at weight 0."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        rounds = math.ceil(len(batches) / world)
        mine = []
        for number in range(rank, rounds * world, world):
            real = number < len(batches)
            batch = self.prepared.collate(batches[number if real else 0], self.state.epoch)
            mine.append((batch, float(real), number))
        return mine

    def _accumulate(self, mine: Sequence[tuple[Batch, float, int]], scale: float) -> list[torch.Tensor]:
        """Add up the gradients of ``scale`` times the summed loss; the losses of the real batches."""
        losses = []
        for index, (batch, weight, number) in enumerate(mine):
            if index and self.accelerator.num_processes == 1 and self.stop:
                self.optimizer.zero_grad(set_to_none=True)
                raise InterruptedStepError
            # dropout depends on the place of a batch in the run and on nothing that came before
            torch.manual_seed(mixed_seed(self.training.seed, self.state.step, number))
            last = index == len(mine) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.module):
                states = self.encoder_cache and self.encoder_cache.states(batch)
                loss = self.stepping(*tensors_of(batch, self.accelerator.device), states)
                self.accelerator.backward(loss * (scale * weight))
            if weight:
                losses.append(loss.detach())
        return losses

    def _norms(self) -> dict[str, float]:
        if self._may_overflow():
            self.accelerator.unscale_gradients(self.optimizer)
        total, by_part = optim.gradient_norms(
            self.parts, total_of=None if self.shards is None else self.accelerator.reduce
        )
        values = torch.stack([total.cpu(), *(norm.cpu() for norm in by_part.values())]).tolist()
        return dict(zip(("total", *by_part), values, strict=True))

    def _may_overflow(self) -> bool:
        """In fp16 gradients overflow now and then; the loss scaler skips such a step by itself."""
        return bool(self.accelerator.mixed_precision == "fp16")

    def whole(self) -> AbstractContextManager[None]:
        """A block in which every process has all of the model."""
        return nullcontext() if self.shards is None else self.shards.whole()
