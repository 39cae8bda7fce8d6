"""The training loop: steps, evaluations and checkpoints in the order that makes a run repeatable."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch

from seq2seq_cli.checkpoint.failpoints import failpoint
from seq2seq_cli.errors import StoppedError
from seq2seq_cli.training.diverged import Divergence, diverged
from seq2seq_cli.training.fitting import explained
from seq2seq_cli.training.optimizer_state import restore, state_tensors
from seq2seq_cli.training.record import Recorder
from seq2seq_cli.training.state import (
    OPTIMIZER_FILE,
    RunState,
    checkpoint_folder,
    remove_old,
    write_checkpoint,
)
from seq2seq_cli.training.stepper import InterruptedStepError, Stepper, StepResult
from seq2seq_cli.training.validation import InterruptedEvaluationError, evaluate, judge

if TYPE_CHECKING:
    from accelerate import Accelerator

    from seq2seq_cli.training.setup import Prepared
    from seq2seq_cli.training.signals import StopRequest


class Trainer(Stepper):
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
        super().__init__(prepared, accelerator=accelerator, stop=stop, state=state)
        self.run_folder = run
        self.names: dict[torch.Tensor, str] = {
            p: name for part in self.parts.parts for name, p in part.parameters
        }
        self.saved_step: int | None = None
        self._before, self._begun = state.elapsed, time.monotonic()
        written = run if accelerator.is_main_process else None
        self.recorder = Recorder(self.prepared, state, run=written)

    # -- the run ---------------------------------------------------------------------------------------

    def resume(self, folder: Path) -> None:
        """Take over the optimizer's state, and weights that are not the result, from a checkpoint folder."""
        self.learnt.restore(folder)
        restore(folder / OPTIMIZER_FILE, self.plain_optimizer, self.names)
        self.saved_step = self.state.step
        if self.accelerator.scaler is not None and self.state.loss_scale is not None:
            self.accelerator.scaler.load_state_dict(self.state.loss_scale)

    def run(self) -> None:
        """Train until the run is over (``state.finished`` says why). StoppedError after a signal, with the
        state saved; DivergedError when the numbers are no longer finite."""
        self.recorder.open()
        try:
            with self.group.watching(), explained(self.prepared, self.accelerator, self.plain_optimizer):
                if self.state.evaluation_pending:
                    self._settle(evaluate=True, save=True, reason=self._end())
                else:  # an earlier start may have died between its last checkpoint and its results
                    self.state.finished = self._over(self._end(self._before))
                    if self.state.finished:
                        self._save_here()
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

    def _end(self, elapsed: float | None = None) -> str:
        """Why this step is the last one; "" when it is not. elapsed: seconds of the run; None: until now."""
        if self.state.step >= self.prepared.plan.total:
            return "steps"
        limit = self.training.max_minutes
        if limit is None:
            return ""
        seconds = self._elapsed() if elapsed is None else elapsed
        return "max_minutes" if self.group.any(seconds >= 60 * limit) else ""

    def _elapsed(self) -> float:
        """Seconds of all starts so far, evaluations and saves included."""
        return self._before + time.monotonic() - self._begun

    def _raise_stopped(self) -> NoReturn:
        number = self.stop.signal_number or 15  # another process got the signal
        where = f", saved in {checkpoint_folder(self.run_folder, self.state.step)}" if self.run_folder else ""
        raise StoppedError(
            f"stopped after step {self.state.step} of {self.prepared.plan.total}{where}",
            signal_number=number,
            remedy="run the same command again to go on",
        )

    def step(self, batches: Sequence[Sequence[int]]) -> StepResult:
        """As a Stepper's. StoppedError after a signal, DivergedError where the recipe allows no more steps
        without finite numbers."""
        try:
            result = super().step(batches)
        except InterruptedStepError:
            self._drop_step()
        if result.divergence is not None:
            self._skip(result.divergence)
        return result

    def _drop_step(self) -> NoReturn:
        """A signal came between two batches: save what was done before the step that was begun."""
        if self.state.step == 0:
            self.stop.raise_if_set("stopped in the first step", "nothing was learnt yet; run it again")
        if self.saved_step != self.state.step:
            self.save()
        self._raise_stopped()

    def _skip(self, found: Divergence) -> None:
        """Pass over a step without finite numbers; DivergedError when the recipe allows no more of them."""
        if self.state.skipped >= self.training.skip_nan:
            raise diverged(found, skipped=self.state.skipped, run=str(self.run_folder or ""))
        self.state.skipped += 1
        self.recorder.log_skipped(found, epoch=self._epoch())

    def warmed_up(self) -> bool:
        """True when every part that learns has reached its highest rate, and a tenth of the run is over."""
        step, total = self.state.step, self.prepared.plan.total
        return step >= total / 10 and all(part.warmed_up(step, total) for part in self.parts.parts)

    def stopping(self) -> bool:
        """True when any process was asked to stop."""
        return self.group.any(bool(self.stop))

    # -- evaluations and checkpoints ------------------------------------------------------------------

    def _evaluate(self) -> bool:
        """Evaluate and log; True when this is the best so far."""
        with self.group.patiently(), self.whole(), self.learnt.as_result():
            values, samples = evaluate(self, say=self.recorder.say)
        better = judge(self.state, values[self.training.metric_for_best_model], self.training)
        self.recorder.log_evaluation(values, samples, epoch=self._epoch(), better=better)
        return better

    def _epoch(self) -> float:
        if not self.state.position:  # what comes next may not have been read yet
            return float(self.state.epoch)
        return round(
            self.state.epoch + self.state.position / self.prepared.plan.steps_in(self.state.epoch), 6
        )

    def _save_here(self) -> None:
        """Save where the run's own folder has no checkpoint of this step: it may have come from another."""
        folder = self.run_folder and checkpoint_folder(self.run_folder, self.state.step)
        if self.group.any(folder is not None and not folder.is_dir()):
            self.save()

    def save(self) -> None:
        """Write the checkpoint of this step, then delete those that are no longer to be kept."""
        if self.run_folder is None:
            return
        self.state.elapsed = self._elapsed()
        if self.accelerator.scaler is not None:
            self.state.loss_scale = self.accelerator.scaler.state_dict()
        with self.group.patiently(), self.whole():
            self.group.together(partial(self._write, self.run_folder))
        self.saved_step = self.state.step

    def _write(self, run: Path) -> None:
        """This process's share of a checkpoint."""
        if self.accelerator.is_main_process:
            with self.learnt.as_result() as weights:
                write_checkpoint(
                    run,
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
            remove_old(run, limit=limit, best_step=self.state.best_step)
        elif self.shards is not None:
            self.shards.write_along(state_tensors(self.plain_optimizer, self.names), OPTIMIZER_FILE)
