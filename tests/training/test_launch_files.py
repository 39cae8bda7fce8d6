"""Accelerate's launch files: those for a CPU are run, the others ask for what they say."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import prepare_multi_gpu_env

from seq2seq_cli import resources
from seq2seq_cli.training import sharding
from seq2seq_cli.training.sharding import Sharding
from tests.training.helpers import log_of
from tests.training.test_lost_processes import done
from tests.training.test_train_processes import place

FILES = resources.folder("configs") / "accelerate"
WANTED = {"one_cpu", "two_cpu_processes", "one_gpu", "several_gpus", "fsdp2", "several_machines"}


def test_every_kind_of_launch_has_a_file() -> None:
    assert {path.stem for path in FILES.glob("*.yaml")} == WANTED


@pytest.mark.parametrize(("name", "processes"), [("one_cpu", 1), ("two_cpu_processes", 2)])
def test_launch_files_for_a_cpu_train(tmp_path: Path, name: str, processes: int) -> None:
    place(tmp_path)
    launcher = ["accelerate.commands.launch", "--config_file", str(FILES / f"{name}.yaml")]
    sets = ["--set", "training.max_steps=1", "--set", "training.eval_samples=0"]
    ended = done(
        tmp_path, [sys.executable, "-m", *launcher, "-m", "seq2seq_cli", "finetune", "recipe.yaml", *sets]
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("training rows:") == 1, "one process speaks"
    one_step = [line["tokens_seen"] for line in log_of(tmp_path / "runs/tiny") if "loss" in line]
    assert len(one_step) == 1
    assert (one_step[0] > 50) is (processes == 2), "a batch of 96 tokens a process, of which half are targets"


@pytest.mark.parametrize("name", sorted(WANTED - {"one_cpu", "two_cpu_processes", "one_gpu"}))
def test_what_the_launcher_tells_its_processes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate's own way from a file to the environment of the processes, and what s2s makes of it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    parsed = launch_command_parser().parse_args(
        ["--config_file", str(FILES / f"{name}.yaml"), "-m", "seq2seq_cli"]
    )
    arguments, *_ = _validate_launch_command(parsed)
    told = prepare_multi_gpu_env(arguments)
    monkeypatch.setattr(os, "environ", {**os.environ, **{k: str(v) for k, v in told.items()}})
    assert sharding.asked() == (Sharding() if name == "fsdp2" else None)
    assert arguments.num_processes == {"several_machines": 16}.get(name, 8)
