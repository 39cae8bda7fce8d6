"""Whole runs on disks that fill up, refuse or stumble (R6, R7), through the command line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from seq2seq_cli.checkpoint.files import checkpoints
from seq2seq_cli.errors import ResourceError
from seq2seq_cli.recipe import load_recipe
from seq2seq_cli.training.run import finetune
from seq2seq_cli.training.state import read_checkpoint
from tests.training.test_train_processes import (
    command,
    environment,
    learnt,
    place,
    run,
    run_here,
    sums,
)

RUN = "runs/tiny"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = place(tmp_path_factory.mktemp("whole"))
    run_here(folder)
    return folder / RUN


def leftovers(folder: Path) -> list[str]:
    """What a save that was broken off left behind."""
    return [path.name for path in (folder / RUN).iterdir() if "stage" in path.name or "part" in path.name]


def goes_on_as_if_nothing_had_been(folder: Path, whole: Path) -> bool:
    run_here(folder)
    return (sums(folder / RUN), learnt(folder / RUN)) == (sums(whole), learnt(whole))


def test_r6_a_disk_that_fills_up_in_a_run(whole: Path, tmp_path: Path) -> None:
    """The first checkpoint fits, the next does not: it is intact, and the run goes on once there is room."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    place(tmp_path)
    size = sum(path.stat().st_size for path in (whole / "checkpoint-5").rglob("*"))
    disk = tmp_path / "disk"
    disk.mkdir()
    # the mount goes away with the process, so what is on it is copied out first
    script = (
        f'mount -t tmpfs -o size={int(1.7 * size)} tmpfs "{disk}" || exit 77; mkdir "{disk}/runs"; '
        f'ln -s "{disk}/runs" runs; "$@"; code=$?; rm runs; cp -a "{disk}/runs" runs; exit $code'
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *command()],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("mounting is not allowed here")
    assert done.returncode == 6, done.stderr
    (line,) = (text for text in done.stderr.split("\n") if "needed" in text)
    assert "checkpoint-10" in line, "said before anything is written"
    assert "free" in line
    assert "Traceback" not in done.stderr
    assert [step for step, _ in checkpoints(tmp_path / RUN)] == [5]
    assert read_checkpoint(tmp_path / RUN / "checkpoint-5").state.step == 5
    assert not leftovers(tmp_path)
    assert goes_on_as_if_nothing_had_been(tmp_path, whole)


def test_r7_a_limit_on_the_size_of_files(whole: Path, tmp_path: Path) -> None:
    if shutil.which("prlimit") is None:
        pytest.skip("no prlimit here")
    place(tmp_path)
    assert run(tmp_path, fail="step:7:kill")[0] == -signal.SIGKILL
    most = (whole / "checkpoint-5/optimizer.safetensors").stat().st_size - 1000
    done = subprocess.run(
        ["prlimit", f"--fsize={most}", *command()],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 6, done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert [step for step, _ in checkpoints(tmp_path / RUN)] == [5]
    assert read_checkpoint(tmp_path / RUN / "checkpoint-5").state.step == 5
    assert not leftovers(tmp_path)
    assert goes_on_as_if_nothing_had_been(tmp_path, whole)


def test_r7_one_input_output_error_is_got_over(whole: Path, tmp_path: Path) -> None:
    place(tmp_path)
    code, said = run(tmp_path, fail="save:after:optimizer.safetensors:EIO:2")
    assert code == 0, said
    assert "trying once more" in said
    assert (sums(tmp_path / RUN), learnt(tmp_path / RUN)) == (sums(whole), learnt(whole))


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A place that an ordinary user may enter; the test is that user."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    folder = Path(mkdtemp(prefix="s2s-nobody-", dir="/tmp"))
    folder.chmod(0o755)
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.seteuid(0)
        os.chdir(before)
        shutil.rmtree(folder)


def test_r7_a_folder_that_may_not_be_written(nobody: Path) -> None:
    place(nobody)
    made = load_recipe(Path("recipe.yaml"), ["training.max_steps=2", "training.eval_samples=0"])
    finetune(made)  # and everything is imported that this user might not be allowed to read
    before = sums(nobody / RUN)
    os.seteuid(65534)
    with pytest.raises(ResourceError, match="cannot write: Permission denied") as error:
        finetune(made)
    assert error.value.exit_code == 6
    made = load_recipe(Path("recipe.yaml"), ["output=runs/other"])
    with pytest.raises(ResourceError, match="cannot write: Permission denied"):
        finetune(made)
    os.seteuid(0)
    assert sums(nobody / RUN) == before
    assert not (nobody / "runs/other").exists()
