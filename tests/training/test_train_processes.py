"""Runs that are killed, stopped or shared among processes, through the command line."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq_cli.checkpoint.files import checkpoints
from seq2seq_cli.recipe import load_recipe
from seq2seq_cli.training.run import finetune
from tests.training.helpers import RECIPE, log_of, write_data

#: three epochs, accumulation, dropout, freezing, saves that fall inside and at the end of epochs
CHANGES = (
    *("training.num_train_epochs=3", "training.gradient_accumulation_steps=2", "training.dropout=0.2"),
    *("training.save_steps=5", "training.eval_steps=10", "training.groups.encoder.freeze_steps=3"),
)


def command(*arguments: str, changes: tuple[str, ...] = CHANGES) -> list[str]:
    sets = [part for change in changes for part in ("--set", change)]
    return [sys.executable, "-m", "seq2seq_cli", "finetune", "recipe.yaml", *sets, *arguments]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "S2S_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **more}


def run(folder: Path, *arguments: str, fail: str = "", changes: tuple[str, ...] = CHANGES) -> tuple[int, str]:
    """Exit code and stderr of one start."""
    done = subprocess.run(
        command(*arguments, changes=changes),
        cwd=folder,
        env=environment(S2S_FAIL=fail) if fail else environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every tensor of a checkpoint folder, optimizer included."""
    from safetensors.torch import load_file

    return {
        f"{file.name}:{name}": hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
        for file in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def learnt(folder: Path) -> list[tuple[int, float, dict[str, float]]]:
    """What the log says about learning: the parts of it that do not depend on the clock."""
    return [(line["step"], line["loss"], line["grad_norm"]) for line in log_of(folder) if "loss" in line]


def place(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def run_here(folder: Path) -> dict[str, Any]:
    """One start in this process, which saves the time of starting; one thread, as in the others."""
    before, threads = Path.cwd(), torch.get_num_threads()
    os.chdir(folder)
    torch.set_num_threads(1)
    try:
        return finetune(load_recipe(Path("recipe.yaml"), CHANGES))
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = place(tmp_path_factory.mktemp("whole"))
    run_here(folder)
    return folder / "runs/tiny"


@pytest.mark.parametrize(
    "fail",
    [
        "step:7:kill",
        "save:after:optimizer.safetensors:kill:2",
        "save:before-rename:kill:2",
        "save:after-rename:kill:2",
    ],
)
def test_r1_r2_a_killed_run_goes_on_as_if_nothing_had_been(
    whole: Path, tmp_path: Path, fail: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place(tmp_path)
    code, _ = run(tmp_path, fail=fail)
    assert code == -signal.SIGKILL
    assert checkpoints(tmp_path / "runs/tiny"), "there is always a whole checkpoint"
    run_here(tmp_path)
    assert "going on after step" in capsys.readouterr().err
    last = checkpoints(whole)[-1][1].name
    assert sums(tmp_path / "runs/tiny" / last) == sums(whole / last)
    assert sums(tmp_path / "runs/tiny") == sums(whole)
    assert learnt(tmp_path / "runs/tiny") == learnt(whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_r4_r5_a_stopped_run_is_saved_and_goes_on(
    whole: Path, tmp_path: Path, number: int, code: int
) -> None:
    place(tmp_path)
    log = tmp_path / "runs/tiny/train_log.jsonl"
    with subprocess.Popen(
        command(), cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "run the same command again" in said
    assert checkpoints(tmp_path / "runs/tiny")
    run_here(tmp_path)
    assert sums(tmp_path / "runs/tiny") == sums(whole)
    assert learnt(tmp_path / "runs/tiny") == learnt(whole)


def test_r14_two_processes_learn_what_one_does(whole: Path, tmp_path: Path) -> None:
    """Two processes without accumulation are one with two batches a step, dropout included."""
    place(tmp_path)
    changes = tuple(c.replace("accumulation_steps=2", "accumulation_steps=1") for c in CHANGES)
    code, said = run(tmp_path, "--num-processes", "2", changes=changes)
    assert code == 0, said
    assert said.count("training rows:") == 1, "only the first process speaks"
    assert "steps on 2 × cpu · " in said
    for (step, loss, norms), (other_step, other_loss, other_norms) in zip(
        learnt(tmp_path / "runs/tiny"), learnt(whole), strict=True
    ):
        assert step == other_step
        assert loss == pytest.approx(other_loss, rel=1e-3)
        assert norms["total"] == pytest.approx(other_norms["total"], rel=1e-2)


def test_r15_a_signal_to_two_processes_ends_both_with_one_checkpoint(tmp_path: Path) -> None:
    place(tmp_path)
    changes = (*CHANGES, "training.num_train_epochs=500")
    log = tmp_path / "runs/tiny/train_log.jsonl"
    with subprocess.Popen(
        command("--num-processes", "2", changes=changes),
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert "saved in" in said
    assert checkpoints(tmp_path / "runs/tiny")


def test_dry_run_reports_and_writes_nothing(tmp_path: Path) -> None:
    place(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        command("--dry-run"), cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for word in ("cross_attention", "fresh", "padding", "memory a device: about", "gradients", "s a step"):
        assert word in done.stderr
    assert "freeze_steps: 3" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_wrong_recipe_is_said_without_torch(tmp_path: Path) -> None:
    place(tmp_path)
    code = "import sys; sys.argv = ['s2s', 'finetune', 'recipe.yaml', '--set', 'training.sed=3']\n"
    code += "from seq2seq_cli.__main__ import main\ncode = main()\n"
    code += "assert 'torch' not in sys.modules\nsys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "training.seed" in done.stderr or "'seed'" in done.stderr


def test_r17_processes_end_together_where_the_result_has_no_numbers(tmp_path: Path) -> None:
    place(tmp_path)
    broken = ("training.learning_rate=1e30", "training.max_grad_norm=0", "training.skip_nan=50")
    changes = (*broken, "training.max_steps=3", "training.eval_samples=0")
    code, said = run(tmp_path, "--num-processes", "2", changes=changes)
    assert code == 7, said
    assert said.count("training diverged: the validation loss of step 3 is not finite") == 1
    assert "lost touch" not in said
    assert not (tmp_path / "runs/tiny/model.safetensors").exists()
