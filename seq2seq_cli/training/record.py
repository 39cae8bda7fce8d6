"""What a run tells while it trains: log lines and the report on disk, figures on stderr and to trackers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seq2seq_cli import console
from seq2seq_cli.training.diverged import Divergence
from seq2seq_cli.training.progress import Display, append_log
from seq2seq_cli.training.report import write_report
from seq2seq_cli.training.runfolder import LOG_FILE
from seq2seq_cli.training.setup import Prepared, settings_of
from seq2seq_cli.training.state import RunState
from seq2seq_cli.training.stepper import StepResult
from seq2seq_cli.training.trackers import Trackers


class Recorder:
    """Writes the log of one run and shows its progress.

    ``run`` is the folder that this process writes to; None where it writes nothing. The sums since the last
    log line are in ``state``, so that a resumed run writes the same lines.
    """

    def __init__(self, prepared: Prepared, state: RunState, *, run: Path | None) -> None:
        self._prepared = prepared
        self._state = state
        self._run = run
        self._trackers: Trackers | None = None
        self._last: StepResult | None = None
        self._display: Display | None = None

    def open(self) -> None:
        """Begin to show progress and to hand on figures."""
        self._display = Display(total=self._prepared.plan.total, done=self._state.step)
        if self._run is not None:
            names = self._prepared.recipe.training.report_to
            self._trackers = Trackers(names, run=self._run, settings=settings_of(self._prepared.recipe))

    def close(self) -> None:
        """Leave the display as it stands, and the trackers when they have got everything."""
        if self._trackers is not None:
            self._trackers.close()
            self._trackers = None
        if self._display is not None:
            self._display.close()
            self._display = None

    def step(self, result: StepResult) -> None:
        """A step is done, and counted in the state."""
        state = self._state
        state.tokens_seen += result.tokens
        state.window_loss += result.loss
        state.window_tokens += result.tokens
        self._last = result
        if self._display is not None:
            self._display.step(state.step)

    def log_steps(self, epoch: float) -> None:
        """A line about the steps since the last one; ``epoch`` is how many have passed."""
        state, result = self._state, self._last
        if result is None:
            return
        record: dict[str, Any] = {
            "step": state.step,
            "epoch": round(epoch, 6),
            # of steps that were all skipped there is no loss
            **({"loss": state.window_loss / state.window_tokens} if state.window_tokens else {}),
            "learning_rate": result.rates,
            "grad_norm": {part: norm for part, norm in result.norms.items() if math.isfinite(norm)},
            "tokens_per_second": round(state.window_tokens / max(1e-9, state.window_seconds), 1),
            "tokens_seen": state.tokens_seen,
        }
        state.window_loss, state.window_tokens, state.window_seconds = 0.0, 0, 0.0
        self._append(record)
        if self._display is not None:
            self._display.logged(record)

    def log_skipped(self, found: Divergence, *, epoch: float) -> None:
        """A line about a step that is passed over, because its numbers are not finite."""
        rows = [rows for _, rows in found.batches]
        self._append({"step": found.step, "epoch": epoch, "skipped": self._state.skipped, "batches": rows})
        console.warn(
            f"step {found.step} is skipped (the {self._state.skipped}. of this run): gradient norm "
            f"{found.norm:g}" + "".join(f"; loss {loss:g}, {rows}" for loss, rows in found.batches)
        )

    def log_evaluation(
        self,
        values: Mapping[str, float],
        samples: Sequence[Mapping[str, str]],
        *,
        epoch: float,
        better: bool,
    ) -> None:
        """A line about an evaluation; ``better``: it is the best so far."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        record = {"step": self._state.step, "epoch": epoch, "evaluation": finite, "best": better}
        self._append({**record, **({"samples": list(samples)} if samples else {})})
        shown = " · ".join(f"{name} {value:.4f}" for name, value in values.items())
        if self._run is not None:
            write_report(self._run, self._prepared, self._state)
        self.say(f"evaluation at step {self._state.step}: {shown}" + (" · best so far" if better else ""))

    def say(self, text: str) -> None:
        """A line for the reader, above the bar where there is one."""
        if self._display is not None:
            self._display.say(text)
        else:
            console.say(text)

    def _append(self, record: Mapping[str, Any]) -> None:
        if self._run is not None:
            append_log(self._run / LOG_FILE, record)
        if self._trackers is not None:
            self._trackers.log(record)
