"""What a run tells: one JSON line a logged step or evaluation on disk, a bar or plain lines on stderr."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2seq_cli import console

if TYPE_CHECKING:
    from rich.progress import Progress


def cut_log(path: Path, step: int) -> None:
    """Take away what was logged after ``step`` (and a line that a dying run left unfinished), so that a
    resumed run has every step once."""
    from seq2seq_cli.training.runfolder import write_file

    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int) and record["step"] <= step:
            kept.append(line + "\n")
    write_file(path, "".join(kept))


def append_log(path: Path, record: Mapping[str, Any]) -> None:
    """Add one line."""
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


class Display:
    """Progress on stderr: a bar that is redrawn on a terminal, else a line every logged step."""

    def __init__(self, *, total: int, done: int) -> None:
        self._total = total
        self._first = done
        self._started = time.monotonic()
        self._progress: Progress | None = None
        self._facts = ""
        if console.is_live():
            self._progress = _bar()
            self._task = self._progress.add_task("training", total=total, completed=done, facts="")
            self._progress.start()

    def step(self, step: int) -> None:
        """A step is done."""
        if self._progress is not None:
            self._progress.update(self._task, completed=step, facts=self._facts)

    def logged(self, record: Mapping[str, Any]) -> None:
        """A step was logged: show its figures."""
        loss = f"loss {record['loss']:.4f}" if "loss" in record else "all steps skipped"
        self._facts = (
            f"{loss} · lr {_rates(record['learning_rate'])} · "
            f"{record['tokens_per_second']:,.0f} target tokens/s"
        )
        if self._progress is None:
            left = self._left(record["step"])
            console.say(
                f"step {record['step']}/{self._total} · epoch {record['epoch']:.2f} · {self._facts} · "
                f"{left} left"
            )
        else:
            self.step(record["step"])

    def say(self, text: str) -> None:
        """A line above the bar."""
        if self._progress is None:
            console.say(text)
        elif console.verbosity >= 0:
            self._progress.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _left(self, step: int) -> str:
        done = step - self._first
        seconds = int((time.monotonic() - self._started) / done * (self._total - step)) if done else 0
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _rates(rates: Mapping[str, float]) -> str:
    """The learning rates by part; only one where all are the same."""
    if len(set(rates.values())) <= 1:
        return f"{max(rates.values(), default=0.0):.2e}"
    return ", ".join(f"{part} {rate:.2e}" for part, rate in rates.items())


def _bar() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeRemainingColumn(),
        console=console.stderr_console(),
    )
