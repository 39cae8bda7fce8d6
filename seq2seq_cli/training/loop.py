"""The training loop: steps, evaluations and checkpoints in the order that makes a run repeatable."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from seq2seq_cli.checkpoint.failpoints import failpoint
from seq2seq_cli.errors import StoppedError
from seq2seq_cli.training import optimizer as optim
from seq2seq_cli.training.compiling import stepping
from seq2seq_cli.training.diverged import diverged, divergence
from seq2seq_cli.training.encoder_cache import encoder_cache
from seq2seq_cli.training.fitting import explained
from seq2seq_cli.training.group import Group
from seq2seq_cli.training.learnt import Learnt
from seq2seq_cli.training.module import TrainingModule, tensors_of
from seq2seq_cli.training.optimizer_state import restore, state_tensors
from seq2seq_cli.training.record import Recorder, StepResult
from seq2seq_cli.training.sharding import Shards, asked, check
from seq2seq_cli.training.state import (
    OPTIMIZER_FILE,
    RunState,
    checkpoint_folder,
    remove_old,
    write_checkpoint,
)
from seq2seq_cli.training.steps import mixed_seed
from seq2seq_cli.training.validation import InterruptedEvaluationError, evaluate, judge

if TYPE_CHECKING:
    from accelerate import Accelerator

    from seq2seq_cli.data.batch import Batch
    from seq2seq_cli.training.setup import Prepared
    from seq2seq_cli.training.signals import StopRequest


class Trainer:
    """One run from ``state`` on. ``run`` is the run's folder; None keeps everything in memory."""

    def __init__(
        self,
        prepared: Prepared,
        *,
        accelerator: Accelerator,
        stop: StopRequest,
        state: RunState,
        run: Path | None,
    ) -> None:
        self.prepared = prepared
        self.training = prepared.recipe.training
        self.accelerator = accelerator
        self.stop = stop
        self.state = state
        self.run_folder = run
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
        self.names: dict[torch.Tensor, str] = {
            p: name for part in self.parts.parts for name, p in part.parameters
        }
        self.learnt = Learnt(self.parts, decay=self.training.ema_decay, apart=bool(prepared.bundle.adapter))
        self.encoder_cache = encoder_cache(prepared, autocast=accelerator.autocast)
        self.saved_step: int | None = None
        written = run if accelerator.is_main_process else None
        self.recorder = Recorder(prepared, state, run=written)

    # -- the run ---------------------------------------------------------------------------------------

    def resume(self, folder: Path) -> None:
        """Take over the optimizer's state, and weights that are not the result, from a checkpoint folder."""
        self.learnt.restore(folder)
        restore(folder / OPTIMIZER_FILE, self.plain_optimizer, self.names)
        self.saved_step = self.state.step

    def run(self) -> None:
        """Train until the run is over (``state.finished`` says why). StoppedError after a signal, with the
        state saved; DivergedError when the numbers are no longer finite."""
        self.recorder.open()
        try:
            with self.group.watching(), explained(self.prepared, self.accelerator, self.plain_optimizer):
                if self.state.evaluation_pending:
                    self._settle(evaluate=True, save=True, reason=self._end())
                else:  # an earlier start may have died between its last checkpoint and its results
                    self.state.finished = self._over(self._end())
                while not self.state.finished:
                    self._advance()
        finally:
            self.recorder.close()

    def _advance(self) -> None:
        """One step and whatever is due after it."""
        state, plan = self.state, self.prepared.plan
        result = self.step(plan.step(state.epoch, state.position))
        state.step += 1
        state.position += 1
        self.recorder.step(result)
        epoch = state.epoch + state.position / plan.steps_in(state.epoch)
        epoch_ends = state.position == plan.steps_in(state.epoch)
        if epoch_ends:
            state.epoch, state.position = state.epoch + 1, 0
        reason = self._end()
        if reason or state.step % self.training.logging_steps == 0:
            self.recorder.log_steps(epoch)

        def due(every: int | None) -> bool:
            return bool(reason) or (epoch_ends if every is None else state.step % every == 0)

        failpoint(f"step:{state.step}")
        evaluate = self.prepared.validation is not None and due(self.training.eval_steps)
        self._settle(evaluate=evaluate, save=due(self.training.save_steps), reason=reason)

    def _settle(self, *, evaluate: bool, save: bool, reason: str) -> None:
        """After a step: evaluate, see whether the run is over (``reason``: it is), save, obey a signal."""
        state = self.state
        better = False
        if evaluate:
            try:
                better = self._evaluate()
                state.evaluation_pending = False
            except InterruptedEvaluationError:
                state.evaluation_pending = True
        stopped = self.stopping()
        if not state.evaluation_pending:
            state.finished = self._over(reason)
        if state.finished and state.window_tokens:
            self.recorder.log_steps(self._epoch())
        keep_best = better and bool(self.training.load_best_model_at_end)
        if save or keep_best or state.finished or stopped:
            self.save()
        if stopped and not state.finished:
            self._raise_stopped()

    def _over(self, reason: str) -> str:
        """``reason``, or that the evaluations have stopped getting better."""
        patience = self.training.early_stopping_patience
        tired = patience is not None and self.state.bad_evaluations >= patience
        return reason or ("early_stopping" if tired else "")

    def _end(self) -> str:
        """Why this step is the last one; "" when it is not."""
        if self.state.step >= self.prepared.plan.total:
            return "steps"
        limit = self.training.max_minutes
        return "max_minutes" if limit is not None and self.group.any(self.state.seconds >= 60 * limit) else ""

    def _raise_stopped(self) -> None:
        number = self.stop.signal_number or 15  # another process got the signal
        where = f", saved in {checkpoint_folder(self.run_folder, self.state.step)}" if self.run_folder else ""
        raise StoppedError(
            f"stopped after step {self.state.step} of {self.prepared.plan.total}{where}",
            signal_number=number,
            remedy="run the same command again to go on",
        )

    def warmed_up(self) -> bool:
        """True when every part that learns has reached its highest rate, and a tenth of the run is over."""
        step, total = self.state.step, self.prepared.plan.total
        return step >= total / 10 and all(part.warmed_up(step, total) for part in self.parts.parts)

    def stopping(self) -> bool:
        """True when any process was asked to stop."""
        return self.group.any(bool(self.stop))

    # -- one step --------------------------------------------------------------------------------------

    def step(self, batches: Sequence[Sequence[int]]) -> StepResult:
        """One optimizer step over ``batches`` of rows, shared out among the processes.

        The loss is the mean over the real target tokens of all of them together. In a single process a
        signal ends the step between two batches, with nothing changed.
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
        if not math.isfinite(loss) or not (math.isfinite(norms["total"]) or self._may_overflow()):
            self._skip([batch for batch, weight, _ in mine if weight], losses, norms["total"])
            loss, tokens = 0.0, 0
        else:
            optim.clip_gradients(self.parts, norms["total"], self.training.max_grad_norm)
            self.optimizer.step()
            self.learnt.update(state.step)
        self.optimizer.zero_grad(set_to_none=True)
        spent = time.monotonic() - started
        state.seconds += spent
        state.window_seconds += spent
        return StepResult(loss=loss, tokens=tokens, rates=rates, norms=norms)

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
                self._drop_step()
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

    def _drop_step(self) -> None:
        """A signal came between two batches: forget the step that was begun, save what was done before."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.state.step == 0:
            self.stop.raise_if_set("stopped in the first step", "nothing was learnt yet; run it again")
        if self.saved_step != self.state.step:
            self.save()
        self._raise_stopped()

    def _norms(self) -> dict[str, float]:
        if self._may_overflow():
            self.accelerator.unscale_gradients(self.optimizer)
        total, by_part = optim.gradient_norms(
            self.parts, total_of=None if self.shards is None else self.accelerator.reduce
        )
        values = torch.stack([total.cpu(), *(norm.cpu() for norm in by_part.values())]).tolist()
        return dict(zip(("total", *by_part), values, strict=True))

    def _skip(self, batches: Sequence[Batch], losses: Sequence[torch.Tensor], norm: float) -> None:
        """Pass over a step without finite numbers; DivergedError when the recipe allows no more of them."""
        state = self.state
        found = divergence(state.step + 1, norm, batches, losses, self.prepared.where)
        if state.skipped >= self.training.skip_nan:
            raise diverged(found, skipped=state.skipped, run=str(self.run_folder or ""))
        state.skipped += 1
        self.recorder.log_skipped(found, epoch=self._epoch())
        if self.accelerator.scaler is not None:  # it looks at the gradients anew in the next step
            self.accelerator.scaler.update()

    def _may_overflow(self) -> bool:
        """In fp16 gradients overflow now and then; the loss scaler skips such a step by itself."""
        return bool(self.accelerator.mixed_precision == "fp16")

    def _evaluate(self) -> bool:
        """Evaluate and log; True when this is the best so far."""
        with self.group.patiently(), self._whole(), self.learnt.as_result():
            values, samples = evaluate(self, say=self.recorder.say)
        better = judge(self.state, values[self.training.metric_for_best_model], self.training)
        self.recorder.log_evaluation(values, samples, epoch=self._epoch(), better=better)
        return better

    def _epoch(self) -> float:
        return round(
            self.state.epoch + self.state.position / self.prepared.plan.steps_in(self.state.epoch), 6
        )

    def _whole(self) -> AbstractContextManager[None]:
        """A block in which every process has all of the model."""
        return nullcontext() if self.shards is None else self.shards.whole()

    def save(self) -> None:
        """Write the checkpoint of this step, then delete those that are no longer to be kept."""
        if self.run_folder is None:
            return
        with self.group.patiently(), self._whole():
            if self.accelerator.is_main_process:
                with self.learnt.as_result() as weights:
                    write_checkpoint(
                        self.run_folder,
                        bundle=self.prepared.bundle,
                        optimizer=self.plain_optimizer,
                        names=self.names,
                        state=self.state,
                        identity=self.prepared.identity,
                        fresh=self.prepared.fresh,
                        weights=weights,
                        shards=self.shards,
                    )
                limit = self.training.save_total_limit
                remove_old(self.run_folder, limit=limit, best_step=self.state.best_step)
            elif self.shards is not None:
                self.shards.write_along(state_tensors(self.plain_optimizer, self.names), OPTIMIZER_FILE)
        self.saved_step = self.state.step
