"""Processes that are killed, halted or slow beside others (rows R12, R13 and R16)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.distributed import HashStore

from seq2seq_cli.checkpoint.files import checkpoints
from seq2seq_cli.training import group
from seq2seq_cli.training.group import Group, LostProcessError
from tests.training.helpers import ROOT, log_of
from tests.training.test_train_processes import CHANGES, learnt, place, run, sums

#: two processes without accumulation, so that a step is what one process does with two batches
TWO = (*(c for c in CHANGES if "accumulation" not in c), "training.ddp_timeout=5")
#: the program, with a fault in one process at its first start
FAULTY = """
import os, sys
faults = {faults!r}
if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
    os.environ["S2S_FAIL"] = faults.get(int(os.environ["RANK"]), "")
from seq2seq_cli.__main__ import program
program()
"""
#: the program, with a main that leaves a sum under way: when the interpreter begins its slow end,
#: a thread of the backend waits for its lock, to let go of the tensor
LEAVING = """
import atexit, os, sys, time
import torch
from torch import distributed
from seq2seq_cli import __main__ as entry

class Slow:
    def __del__(self, sleep=time.sleep):
        sleep(1)

def compute(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass

def main():
    rank = int(os.environ["RANK"])
    store = distributed.FileStore("meeting", 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    distributed.barrier()
    time.sleep(rank)
    value = torch.ones(1)
    distributed.all_reduce(value, async_op=True)
    sys.modules["held"] = value, distributed.group.WORLD, Slow()
    sys.setswitchinterval(60)
    atexit.register(lambda: print("called at the end"))
    atexit.register(compute, 2)
    print("written")
    return 6

entry.main = main
entry.program()
"""


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "S2S_"))}
    fixed = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    return {**kept, **fixed, **more}


def command(folder: Path, faults: dict[int, str], *options: str) -> list[str]:
    """torchrun with two processes and these faults (by rank) in them."""
    (folder / "program.py").write_text(FAULTY.format(faults=faults))
    sets = [part for change in TWO for part in ("--set", change)]
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]
    return [sys.executable, "-m", *launcher, "program.py", "finetune", "recipe.yaml", *sets]


def done(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """A command that has ended, run in ``folder``."""
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of two processes that nothing befell."""
    folder = place(tmp_path_factory.mktemp("clean"))
    code, said = run(folder, "--num-processes", "2", changes=TWO)
    assert code == 0, said
    return folder / "runs/tiny"


def processes_in(folder: Path) -> list[int]:
    """Those whose current folder this is."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if (entry / "cwd").readlink() == folder and (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_r12_torchrun_starts_killed_processes_again(clean: Path, tmp_path: Path) -> None:
    place(tmp_path)
    ended = done(tmp_path, command(tmp_path, {1: "step:8:kill"}, "--max-restarts", "1"))
    assert ended.returncode == 0, ended.stderr
    assert "lost touch with process 1 (last heard of in step 8) of 2 in step" in ended.stderr
    assert "going on after step 5" in ended.stderr
    last = checkpoints(clean)[-1][1].name
    assert sums(tmp_path / "runs/tiny" / last) == sums(clean / last)
    assert sums(tmp_path / "runs/tiny") == sums(clean)
    assert learnt(tmp_path / "runs/tiny") == learnt(clean)
    assert [line["step"] for line in log_of(tmp_path / "runs/tiny") if "loss" in line] == [
        line["step"] for line in log_of(clean) if "loss" in line
    ]
    assert not processes_in(tmp_path), "no orphans"


def test_r13_a_halted_process_is_named_within_the_limit(tmp_path: Path) -> None:
    place(tmp_path)
    started: list[subprocess.Popen[str]] = []
    given = command(tmp_path, {1: "step:4:stop"})
    try:
        for rank in (0, 1):
            group = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
            group |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20_000 + os.getpid() % 10_000)}
            started.append(
                subprocess.Popen(
                    [sys.executable, *given[given.index("program.py") :]],
                    cwd=tmp_path,
                    env=environment(**group),
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        os.waitpid(started[1].pid, os.WUNTRACED)  # it has halted
        halted = time.monotonic()
        _, said = started[0].communicate(timeout=60)
        assert time.monotonic() - halted < 5 + 10
    finally:
        for process in started:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    assert started[0].returncode == 1, said
    assert "lost touch with process 1 (last heard of in step 4) of 2 in step" in said
    assert "run the same command again" in said
    assert "Traceback" not in said


def test_of_three_processes_only_the_lost_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    board = HashStore()
    monkeypatch.setattr(group, "_board", lambda: board)
    monkeypatch.setattr(Group, "_hurry", lambda self, patience: None)

    def process(rank: int) -> LostProcessError | None:
        accelerator: Any = SimpleNamespace(num_processes=3, process_index=rank)
        member = Group(accelerator, limit=2)
        member.note(7 if rank else 6)
        if rank == 0:
            return None
        with pytest.raises(LostProcessError) as lost, member.watching():
            raise RuntimeError("Connection closed by peer")
        return lost.value

    process(0)
    with ThreadPoolExecutor(max_workers=2) as pool:
        others = list(pool.map(process, (1, 2)))
    said = [str(error) for error in others]
    assert all("lost touch with process 0 (last heard of in step 6) of 3 in step 7" in line for line in said)
    assert [error is not None and error.speaks for error in others] == [True, False]


def test_r16_others_wait_for_one_that_saves_or_evaluates(clean: Path, tmp_path: Path) -> None:
    place(tmp_path)
    ended = done(tmp_path, command(tmp_path, {0: "save:before-rename:sleep7", 1: "evaluation:sleep7"}))
    assert ended.returncode == 0, ended.stderr
    assert sums(tmp_path / "runs/tiny") == sums(clean)


def two(folder: Path, *more: str) -> subprocess.Popen[str]:
    """A start with --num-processes 2 that would go on for long."""
    given = [*TWO, "training.num_train_epochs=5000", "training.save_steps=5", *more]
    sets = [part for change in given for part in ("--set", change)]
    command = [sys.executable, "-m", "seq2seq_cli", "finetune", "recipe.yaml", "--num-processes", "2", *sets]
    return subprocess.Popen(command, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True)


def until(happened: Callable[[], object], *, seconds: float = 60) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_processes_end_with_the_one_that_launched_them(tmp_path: Path) -> None:
    place(tmp_path)
    with two(tmp_path) as parent:
        until(lambda: checkpoints(tmp_path / "runs/tiny"))
        parent.kill()
        until(lambda: not processes_in(tmp_path))
    assert not (tmp_path / "runs/tiny/run.lock").exists(), "they ended as after a SIGTERM"


def test_a_killed_process_ends_the_run_with_exit_code_1(tmp_path: Path) -> None:
    place(tmp_path)
    with two(tmp_path) as parent:
        until(lambda: checkpoints(tmp_path / "runs/tiny"))
        workers = sorted(set(processes_in(tmp_path)) - {parent.pid})
        os.kill(workers[-1], signal.SIGKILL)
        _, said = parent.communicate(timeout=60)
    assert parent.returncode == 1, said
    assert said.count("lost touch with process") == 1


@pytest.mark.parametrize("output", ["afile", "afile/below"])
def test_what_the_first_process_refuses_is_said_once(tmp_path: Path, output: str) -> None:
    place(tmp_path)
    (tmp_path / "afile").touch()
    with two(tmp_path, f"output={output}") as parent:
        _, said = parent.communicate(timeout=60)
    assert parent.returncode == 2, said
    assert said == f"a file is in the way of the run's folder · {output} · name another --output\n"


def test_a_disk_that_is_full_is_not_a_lost_process(tmp_path: Path) -> None:
    place(tmp_path)
    given = [part for change in TWO for part in ("--set", change)]
    command = [sys.executable, "-m", "seq2seq_cli", "finetune", "recipe.yaml", "--num-processes", "2", *given]
    failing = environment(S2S_FAIL="save:before-rename:ENOSPC")
    ended = subprocess.run(command, cwd=tmp_path, env=failing, capture_output=True, text=True, timeout=90)
    assert ended.returncode == 6, ended.stderr
    assert "lost touch" not in ended.stderr
    assert ended.stderr.count("cannot write") == 1, ended.stderr


def test_a_process_that_ends_while_its_group_still_works_has_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(LEAVING)
    both = [
        subprocess.Popen(
            [sys.executable, "program.py"],
            cwd=tmp_path,
            env=environment(RANK=rank),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    for process in both:
        written, said = process.communicate(timeout=60)
        assert process.returncode == 6, said
        assert written == "written\ncalled at the end\n"
