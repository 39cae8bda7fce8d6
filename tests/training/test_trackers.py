"""Figures handed on to trackers, and trackers that fail (R19)."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seq2seq_cli.errors import UsageError
from seq2seq_cli.recipe import Recipe
from seq2seq_cli.training import trackers
from seq2seq_cli.training.run import finetune
from tests.training.helpers import log_of
from tests.training.test_train_processes import learnt, sums

Make = Callable[..., Recipe]
RUN = Path("runs/tiny")
SHORT = (
    "training.max_steps=4",
    "training.logging_steps=1",
    "training.eval_steps=2",
    "training.eval_samples=2",
)
TO_WANDB = (*SHORT, "training.report_to=wandb")
#: a package that writes down what it is told
WANDB = """
import json, pathlib
LOG = pathlib.Path("wandb.log")
def note(**facts):
    with LOG.open("a") as file: file.write(json.dumps(facts) + "\\n")
class Config:
    def update(self, values, allow_val_change): note(config=values)
config = Config()
class Run:
    def log(self, values, step): note(log=values, step=step)
    def finish(self): note(finish=True)
def init(project, name, dir):
    print("a greeting")
    note(project=project, name=name)
    return Run()
"""


@pytest.fixture
def wandb(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the package of that name, first on the path."""
    (workplace / "packages").mkdir()
    (workplace / "packages/wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(workplace / "packages")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    yield workplace / "wandb.log"  # type: ignore[misc]
    sys.modules.pop("wandb", None)


def test_a_tracker_gets_the_numbers_of_the_log(
    wandb: Path, recipe: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    finetune(recipe(*TO_WANDB))
    told = [json.loads(line) for line in wandb.read_text().splitlines()]
    assert told[0] == {"project": "s2s", "name": "tiny"}
    assert told[1]["config"]["training.learning_rate"] == 3e-3
    assert told[-1] == {"finish": True}
    got = [(each["step"], each["log"]) for each in told if "log" in each]
    log = log_of(RUN)
    assert [step for step, _ in got] == [line["step"] for line in log] == [1, 2, 2, 3, 4, 4]
    assert got[0][1]["loss"] == log[0]["loss"]
    assert got[0][1]["grad_norm/cross_attention"] == log[0]["grad_norm"]["cross_attention"]
    assert got[2][1]["evaluation/loss"] == log[2]["evaluation"]["loss"]
    assert got[2][1]["evaluation/source_sensitivity"] == log[2]["evaluation"]["source_sensitivity"]
    out = capsys.readouterr()
    assert out.out == "", "what a tracker prints is not a result"
    assert "a greeting" in out.err


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
@pytest.mark.filterwarnings("ignore")
def test_tensorboard_files_are_in_the_run(recipe: Make) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    finetune(recipe(*SHORT, "training.report_to=[tensorboard]"))
    events = EventAccumulator(str(RUN / "tensorboard"))
    events.Reload()
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    assert losses == [(s, pytest.approx(loss)) for s, loss, _ in learnt(RUN)]
    finetune(recipe(*SHORT, "training.report_to=[tensorboard]"), overwrite=True)
    assert len(list((RUN / "tensorboard").glob("events*"))) == 1


def test_missing_packages_are_named_all_at_once(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as error:
        finetune(recipe("training.report_to=[tensorboard, mlflow]"))
    assert [finding.remedy for finding in error.value.findings] == [
        *("pip install tensorboard", "pip install mlflow")
    ]
    assert "report_to" in error.value.findings[0].where
    assert not RUN.exists()


@pytest.mark.parametrize(
    ("written", "read"),
    [("wandb", ["wandb"]), ("none", []), ("[wandb, mlflow, wandb]", ["wandb", "mlflow"]), ("[]", [])],
)
def test_one_name_or_several(recipe: Make, written: str, read: list[str]) -> None:
    assert recipe(f"training.report_to={written}").training.report_to == read


@pytest.mark.parametrize("written", ["comet", "[tensorboard, 3]", "true"])
def test_unknown_trackers_are_refused(recipe: Make, written: str) -> None:
    with pytest.raises(UsageError, match="report_to"):
        recipe(f"training.report_to={written}")


class Broken:
    """A tracker that does as it is told at one of its calls."""

    def __init__(self, where: str, act: Callable[[], None]) -> None:
        self._where, self._act = where, act
        self._call("init")

    def _call(self, name: str) -> None:
        if name == self._where:
            self._act()

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self._call("config")

    def log(self, values: dict[str, float], step: int | None) -> None:
        self._call("log")

    def finish(self) -> None:
        self._call("finish")


def fail() -> None:
    raise SystemExit("no\nlogin")


@pytest.mark.parametrize("where", ["init", "config", "log", "finish"])
@pytest.mark.parametrize("how", ["raises", "blocks"])
def test_r19_a_tracker_that_fails_costs_one_warning(
    wandb: Path,
    recipe: Make,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
    how: str,
) -> None:
    release = threading.Event()
    act = fail if how == "raises" else lambda: release.wait(60) and None
    monkeypatch.setattr(trackers, "LIMIT", 0.3)
    monkeypatch.setattr(trackers, "make_backend", lambda name, run: Broken(where, act))
    started = time.monotonic()
    results = finetune(recipe(*TO_WANDB))
    assert results["steps"] == 4
    assert time.monotonic() - started < 30
    said = [line for line in capsys.readouterr().err.split("\n") if "tracker wandb" in line]
    expected = "failed (SystemExit: no login)" if how == "raises" else "has not answered for 0.3 s"
    assert len(said) == 1
    assert expected in said[0]
    release.set()


def test_a_tracker_changes_no_number(wandb: Path, recipe: Make) -> None:
    finetune(recipe(*TO_WANDB))
    finetune(recipe(*SHORT, "output=runs/plain"))
    assert sums(RUN) == sums(Path("runs/plain"))
