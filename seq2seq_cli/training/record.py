"""What a run leaves behind while it trains: log lines on disk, figures on stderr, and when they are due."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seq2seq_cli import console
from seq2seq_cli.training.diverged import Divergence
from seq2seq_cli.training.progress import Display, append_log
from seq2seq_cli.training.runfolder import LOG_FILE
from seq2seq_cli.training.state import RunState


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one optimizer step gave: summed loss, real target tokens, rates and gradient norms by part."""

    loss: float
    tokens: int
    rates: dict[str, float]
    norms: dict[str, float] = field(default_factory=dict)


class Recorder:
    """Writes the log of one run and shows its progress.

    ``run`` is the folder that this process writes to; None where it writes nothing. The sums since the last
    log line are in ``state``, so that a resumed run writes the same lines.
    """

    def __init__(self, state: RunState, *, run: Path | None, total: int) -> None:
        self._state = state
        self._run = run
        self._total = total
        self._last: StepResult | None = None
        self._display: Display | None = None

    def open(self) -> None:
        """Begin to show progress."""
        self._display = Display(total=self._total, done=self._state.step)

    def close(self) -> None:
        """Leave the display as it stands."""
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
        record = {"step": self._state.step, "epoch": epoch, "evaluation": dict(values), "best": better}
        self._append({**record, **({"samples": list(samples)} if samples else {})})
        shown = " · ".join(f"{name} {value:.4f}" for name, value in values.items())
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
