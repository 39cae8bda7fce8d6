"""Runs that end in the middle, at every place where they can: R1 to R5 of the list of faults. The oracle is
the SHA-256 of every tensor of a run that nothing befell."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq_cli.checkpoint import folder as folders
from seq2seq_cli.checkpoint.files import checkpoints
from seq2seq_cli.data.dataset import PairDataset
from seq2seq_cli.errors import StoppedError, UsageError
from seq2seq_cli.recipe import load_recipe
from seq2seq_cli.training import loop, run, runfolder, state, validation
from seq2seq_cli.training.run import finetune
from seq2seq_cli.training.setup import prepare
from seq2seq_cli.training.signals import StopRequest
from seq2seq_cli.training.state import read_checkpoint
from tests.training.helpers import log_of
from tests.training.test_train_processes import CHANGES, command, environment, learnt, place, run_here, sums
from tests.training.test_train_processes import run as start_and_wait

RUN = Path("runs/tiny")
#: the saves of that run: every fifth step, and the last one
FILES = ("model.safetensors", "optimizer.safetensors", "trainer_state.json", "config.json", "manifest.json")


class PowerCut(BaseException):
    """Nothing catches it."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run: three epochs, accumulation, dropout, shuffling, a part that waits."""
    folder = place(tmp_path_factory.mktemp("whole"))
    run_here(folder)
    return folder / RUN


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same recipe and data in the current folder, and one thread, as in ``run_here``."""
    monkeypatch.chdir(place(tmp_path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def train(*more: str) -> dict[str, Any]:
    return finetune(load_recipe(Path("recipe.yaml"), [*CHANGES, *more]))


def same_as(whole: Path, run_folder: Path = RUN) -> None:
    """Every tensor, the optimizer's too, and every line of the log, each step once."""
    last = checkpoints(whole)[-1][1].name
    assert sums(run_folder / last) == sums(whole / last)
    assert sums(run_folder) == sums(whole)
    assert learnt(run_folder) == learnt(whole)
    steps = [line["step"] for line in log_of(run_folder) if "loss" in line]
    assert steps == sorted(set(steps))
    assert [path.name for path in run_folder.iterdir() if path.name.startswith(".")] == []


def cut_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The power goes before anything of this step is saved."""

    def failpoint(point: str) -> None:
        if point == f"step:{step}":
            raise PowerCut

    monkeypatch.setattr(loop, "failpoint", failpoint)


# -- R3: places between two steps --------------------------------------------------------------------------


def last_step(whole: Path) -> int:
    return checkpoints(whole)[-1][0]


def test_r3_after_the_last_step_of_an_epoch_the_next_one_runs_whole(
    whole: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = last_step(whole) // 3
    with monkeypatch.context() as patch:
        cut_at(patch, ends + 1)
        with pytest.raises(PowerCut):
            train(f"training.save_steps={ends}")
    (checkpoint,) = checkpoints(RUN)
    found = read_checkpoint(checkpoint[1]).state
    assert (found.step, found.epoch, found.position) == (ends, 1, 0)
    train()
    same_as(whole)


@pytest.mark.parametrize("place_of", ["publish", "write_file"])
def test_r3_after_the_last_step_only_the_result_is_made_good(
    whole: Path, here: Path, monkeypatch: pytest.MonkeyPatch, place_of: str
) -> None:
    """The last checkpoint was written, the run's own folder was not: no step more is taken."""
    original: Callable[..., Any] = getattr(runfolder, place_of)

    def cut(*given: Any, **named: Any) -> Any:
        if place_of == "publish" or given[0].name == runfolder.RESULTS_FILE:
            raise PowerCut
        return original(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(run.runfolder, place_of, cut)
        with pytest.raises(PowerCut):
            train()
    assert train()["steps"] == last_step(whole)
    same_as(whole)


def test_r3_a_finished_run_takes_no_step(whole: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train()
    monkeypatch.setattr(loop.Trainer, "step", lambda *given: pytest.fail("a step was taken"))
    assert train() == first
    same_as(whole)


def test_r3_early_stopping_stays_stopped(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("training.early_stopping_patience=1", "training.eval_steps=1", "training.eval_samples=0")
    values = iter([1.0, 2.0])
    monkeypatch.setattr(validation, "_loss", lambda trainer: next(values))
    with monkeypatch.context() as patch:
        patch.setattr(run.runfolder, "publish", lambda *given: (_ for _ in ()).throw(PowerCut))
        with pytest.raises(PowerCut):
            train(*asked)
    results = train(*asked)
    assert (results["steps"], results["stopped_by"], results["model_of_step"]) == (2, "early_stopping", 1)


# -- R4, R5: signals ---------------------------------------------------------------------------------------


def signals_in(
    monkeypatch: pytest.MonkeyPatch, where: str, number: int = signal.SIGTERM, *, nth: int = 1, times: int = 1
) -> None:
    """The ``nth`` time that a place is passed, signals come while it is at work."""
    owner, name = {
        "tokenising": (PairDataset, "__init__"),
        "first batch": (loop.Trainer, "_accumulate"),
        "step": (loop.Trainer, "_norms"),
        "evaluation": (validation, "_loss"),
        "save": (state, "write_model"),
    }[where]
    if where == "save":  # imported where it is used
        from seq2seq_cli.checkpoint import saving

        owner = saving
    original = getattr(owner, name)
    passed = 0

    def signalled(*given: Any, **named: Any) -> Any:
        nonlocal passed
        passed += 1
        if passed == nth:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return original(*given, **named)

    monkeypatch.setattr(owner, name, signalled)


@pytest.mark.parametrize(
    ("where", "nth", "saved"),
    [
        ("tokenising", 1, []),
        ("first batch", 1, []),
        ("step", 7, [5, 7]),
        ("evaluation", 1, [5, 10]),
        ("save", 2, [5, 10]),
    ],
)
def test_r4_a_signal_anywhere_loses_at_most_the_step_that_was_begun(
    whole: Path, here: Path, monkeypatch: pytest.MonkeyPatch, where: str, nth: int, saved: list[int]
) -> None:
    with monkeypatch.context() as patch:
        signals_in(patch, where, nth=nth)
        with pytest.raises(StoppedError) as error:
            train()
    assert error.value.exit_code == 143
    assert [step for step, _ in checkpoints(RUN)] == saved
    train()
    same_as(whole)


def test_r5_a_second_sigint_in_a_save_leaves_the_checkpoint_before(
    whole: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        signals_in(patch, "save", signal.SIGINT, nth=2, times=2)
        with pytest.raises(StoppedError, match="at once") as error:
            train()
    assert error.value.exit_code == 130
    assert "again to stop at once" in capsys.readouterr().err
    assert [read_checkpoint(folder).state.step for _, folder in checkpoints(RUN)] == [5]
    train()
    same_as(whole)


# -- R8: what has to stay -----------------------------------------------------


def test_r8_a_cut_in_a_save_leaves_the_best_and_the_last(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("training.save_steps=1", "training.eval_steps=1", "training.save_total_limit=1")
    asked += ("training.eval_samples=0", "training.max_steps=4")
    values = iter([1.0, 2.0, 3.0, 3.0, 3.0])
    monkeypatch.setattr(validation, "_loss", lambda trainer: next(values))
    passed = 0

    def failpoint(point: str) -> None:
        nonlocal passed
        passed += point == "save:before-rename"
        if passed == 3:
            raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(folders, "failpoint", failpoint)
        with pytest.raises(PowerCut):
            train(*asked)
    assert [read_checkpoint(folder).state.step for _, folder in checkpoints(RUN)] == [1, 2]
    results = train(*asked)
    assert (results["steps"], results["model_of_step"]) == (4, 1)
    assert [read_checkpoint(folder).state.step for _, folder in checkpoints(RUN)] == [1, 4]


# -- R10: going on with something else -----------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("training.tokens_per_batch=128", "training.tokens_per_batch: 96 then, 128 now"),
        ("training.gradient_accumulation_steps=1", r"accumulation × processes\): 2 then, 1 now"),
        ("model.decoder.tokenizer.vocab_size=59", "model.decoder"),
        ("training.groups.encoder.learning_rate=1e-4", "training.groups"),
    ],
)
def test_r10_an_interrupted_run_says_what_differs(here: Path, change: str, says: str) -> None:
    train("training.max_minutes=0.000001")
    with pytest.raises(UsageError, match=says) as error:
        train(change)
    assert error.value.exit_code == 2
    assert [step for step, _ in checkpoints(RUN)] == [1]


def test_r10_other_data_are_named_not_their_checksums(here: Path) -> None:
    train("training.max_minutes=0.000001")
    rows = Path("train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    Path("train.jsonl").write_text("".join(rows[:-3]), encoding="utf-8")
    with pytest.raises(UsageError) as error:
        train()
    assert [finding.what for finding in error.value.findings] == [
        "training rows: no longer the same: texts, tokenizer, lengths or window changed",
        "this run was started with other values",
    ]


def test_r10_another_number_of_processes_is_another_batch(here: Path) -> None:
    train("training.max_minutes=0.000001")
    recipe = load_recipe(Path("recipe.yaml"), CHANGES)
    before = read_checkpoint(checkpoints(RUN)[0][1])
    with pytest.raises(UsageError, match=r"processes\): 2 then, 4 now"):
        runfolder.refuse_differences(
            before.identity,
            prepare(recipe, processes=2, checkpoint=before).identity,
            what="",
            where=RUN,
            remedy="",
        )


# -- D5: a batch with nothing to learn -----------------------------------------------------


def test_d5_a_step_without_labels_changes_nothing(here: Path) -> None:
    recipe = load_recipe(Path("recipe.yaml"), CHANGES)
    prepared = prepare(recipe)

    def nothing(rows: Any, epoch: int) -> Any:
        batch = prepared.train.batch(rows)
        return replace(batch, labels=torch.full_like(batch.labels, -100))

    class Silent(type(prepared)):  # type: ignore[misc]
        collate = staticmethod(nothing)

    silent = Silent(**vars(prepared))
    trainer = run.start(silent, accelerator=run.make_accelerator(recipe), stop=StopRequest())
    before = [p.detach().clone() for p in prepared.bundle.model.parameters()]
    result = trainer.step([[0, 1], [2]])
    assert (result.loss, result.tokens, result.norms["total"]) == (0.0, 0, 0.0)
    assert all(map(torch.equal, before, prepared.bundle.model.parameters()))


# -- R1, R2: SIGKILL, twenty times each: scripts/test -m slow -k twenty --------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("lot", range(20))
def test_r1_twenty_kills_at_random_steps_and_moments(whole: Path, tmp_path: Path, lot: int) -> None:
    """First after a random step, then at a random moment of the second start, from its first breath on."""
    draw = random.Random(lot)
    place(tmp_path)
    code, _ = start_and_wait(tmp_path, fail=f"step:{draw.randint(1, last_step(whole))}:kill")
    assert code == -signal.SIGKILL
    with subprocess.Popen(
        command(), cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(draw.uniform(0.2, 8))
        process.kill()
        process.communicate()
    run_here(tmp_path)
    same_as(whole, tmp_path / RUN)


@pytest.mark.slow
@pytest.mark.parametrize("lot", range(20))
def test_r2_twenty_kills_inside_a_save(
    whole: Path, tmp_path: Path, lot: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """After each file and around the rename, of the first save (nothing to fall back to), the second (one
    checkpoint there), and so on."""
    points = [*(f"save:after:{name}" for name in FILES), "save:before-rename", "save:after-rename"]
    point, count = points[lot % len(points)], 1 + lot // len(points)
    place(tmp_path)
    code, said = start_and_wait(tmp_path, fail=f"{point}:kill:{count}")
    assert code == -signal.SIGKILL, said
    there = [step for step, _ in checkpoints(tmp_path / RUN)]
    assert there == [5, 10, 15][: count if point == "save:after-rename" else count - 1]
    for _, folder in checkpoints(tmp_path / RUN):
        read_checkpoint(folder)
    run_here(tmp_path)
    assert ("left behind by a run that died" in capsys.readouterr().err) == (point != "save:after-rename")
    same_as(whole, tmp_path / RUN)
