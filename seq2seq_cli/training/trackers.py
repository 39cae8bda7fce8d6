"""Trackers (TensorBoard, W&B, trackio, MLflow) through Accelerate: none of them can stop or delay a run."""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from seq2seq_cli import console
from seq2seq_cli.errors import Finding, UsageError
from seq2seq_cli.recipe import where_of

if TYPE_CHECKING:
    from seq2seq_cli.recipe import Recipe

#: tracker -> packages of which one has to be there; the first is the one to install
PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
    "mlflow": ("mlflow",),
}
#: seconds that one call of a tracker may take
LIMIT = 30.0


class Backend(Protocol):
    """What is used of Accelerate's ``GeneralTracker``."""

    def store_init_configuration(self, values: dict[str, Any]) -> None: ...

    def log(self, values: dict[str, float], step: int | None) -> None: ...

    def finish(self) -> None: ...


def require_trackers(recipe: Recipe) -> None:
    """UsageError with a line for each tracker that the recipe asks for and whose package is missing."""
    where = where_of(recipe, "training.report_to")
    findings = [
        Finding(
            f"report_to: {name} needs the package {PACKAGES[name][0]}",
            where,
            f"pip install {PACKAGES[name][0]}",
        )
        for name in recipe.training.report_to
        if not any(importlib.util.find_spec(package) for package in PACKAGES[name])
    ]
    if findings:
        raise UsageError(findings=findings)


class Trackers:
    """All trackers of a run. To be closed; until then whatever they print goes to stderr."""

    def __init__(self, names: Sequence[str], *, run: Path, settings: Mapping[str, Any]) -> None:
        self._stack = ExitStack()
        if names:
            self._stack.enter_context(redirect_stdout(sys.stderr))
        plain = {key: _plain(value) for key, value in settings.items()}
        self._trackers = [
            Tracker(name, lambda name=name: make_backend(name, run), plain)  # type: ignore[misc]
            for name in names
        ]

    def log(self, record: Mapping[str, Any]) -> None:
        """Hand on the numbers of a log line, as ``evaluation/loss`` and the like."""
        values = dict(numbers(record))
        for tracker in self._trackers if values else ():
            tracker.log(values, record["step"])

    def close(self) -> None:
        """Wait, but not for ever, until everything has been handed on."""
        for tracker in self._trackers:
            tracker.close()
        self._stack.close()


class Tracker:
    """One tracker in a thread of its own. When it raises, or a call takes more than ``LIMIT`` seconds, that
    is said once and it gets nothing more."""

    def __init__(self, name: str, make: Callable[[], Backend], settings: Mapping[str, Any]) -> None:
        self._name, self._make, self._settings = name, make, dict(settings)
        self._jobs: queue.SimpleQueue[tuple[dict[str, float], int] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._since: float | None = time.monotonic()  # when the call under way began
        self._lost = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def log(self, values: dict[str, float], step: int) -> None:
        """Hand on some numbers; returns at once."""
        self._look()
        if not self._lost:
            self._jobs.put((values, step))

    def close(self) -> None:
        """Hand on what is left."""
        self._jobs.put(None)
        if not self._lost:
            self._thread.join(LIMIT)
        self._look(ended=True)

    def _look(self, *, ended: bool = False) -> None:
        if self._lost:
            return
        since = self._since
        if self._error is not None:
            self._lost = True
            what = " ".join(str(self._error).split())[:200]
            console.warn(
                f"tracker {self._name} failed ({type(self._error).__name__}: {what}); training goes on"
            )
        elif (ended and self._thread.is_alive()) or (since and time.monotonic() - since > LIMIT):
            self._lost = True
            console.warn(
                f"tracker {self._name} has not answered for {LIMIT:g} s; training goes on without it"
            )

    def _work(self) -> None:
        try:
            backend = self._make()
            backend.store_init_configuration(self._settings)
            self._since = None
            while (job := self._jobs.get()) is not None:
                self._since = time.monotonic()
                backend.log(job[0], step=job[1])
                self._since = None
            self._since = time.monotonic()
            backend.finish()
        except BaseException as error:  # a tracker may raise anything, SystemExit too
            self._error = error


def make_backend(name: str, run: Path) -> Backend:
    """Accelerate's tracker of that name, begun. TensorBoard's files go into the run's folder, W&B's too; the
    others' go where their own environment variables say."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    project = {"wandb": "WANDB_PROJECT", "trackio": "TRACKIO_PROJECT"}.get(name, "")
    project = os.environ.get(project, "s2s")
    options: dict[str, dict[str, Any]] = {
        "tensorboard": {"run_name": "tensorboard", "logging_dir": str(run)},
        "wandb": {"run_name": project, "name": run.name, "dir": str(run)},
        "trackio": {"run_name": project, "name": run.name},
        "mlflow": {"experiment_name": project, "run_name": run.name},
    }
    tracker = LOGGER_TYPE_TO_CLASS[name](**options[name])
    if hasattr(tracker, "start"):  # Accelerate 1.9 and before begin while they are made
        tracker.start()
    return tracker  # type: ignore[no-any-return]


def numbers(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """The numbers of a log line under flat names; the step is their place, not one of them."""
    found: list[tuple[str, float]] = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            found += numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and (prefix or name != "step"):
            found.append((prefix + name, float(value)))
    return found


def _plain(value: Any) -> Any:
    """A setting as trackers take it: a number, a truth value or a text."""
    return value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
