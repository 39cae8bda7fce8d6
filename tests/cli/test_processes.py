"""Several processes write what one does, and a lost one is an error that names it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from seq2seq_cli import resources
from tests.cli.conftest import Run

ASKED = ("--max-new-tokens", "6", "--min-new-tokens", "2", "--batch-tokens", "64")  # two lines a batch
SEVEN = b"who sells tea\n\ntea and cake\nlist all the orders of may\n  \nhow many people work here\ntea"


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("options", [(), ("--top-p", "0.9", "--seed", "3", "--scores")])
def test_p8_two_processes_write_what_one_does(s2s: Run, pair_folder: Path, options: tuple[str, ...]) -> None:
    asked = ("generate", "-m", pair_folder, *ASKED, *options)
    one = s2s(*asked, stdin=SEVEN)
    two = s2s(*asked, "--num-processes", "2", stdin=SEVEN)
    assert two.returncode == 0, two.stderr
    assert two.stdout == one.stdout
    assert two.stdout.count(b"\n") == 7


@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_p8_under_a_launcher(s2s: Run, pair_folder: Path, tmp_path: Path, launcher: str) -> None:
    config = resources.folder("configs") / "accelerate" / "two_cpu_processes.yaml"
    launch = {
        "accelerate": ["accelerate.commands.launch", "--config_file", str(config)],
        "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    }[launcher]
    asked = ("generate", "-m", str(pair_folder), *ASKED, "--top-k", "9", "-o")
    (tmp_path / "in.txt").write_bytes(SEVEN)
    with (tmp_path / "in.txt").open("rb") as stdin:
        done = subprocess.run(
            [sys.executable, "-m", *launch, "-m", "seq2seq_cli", *asked, "two.txt"],
            stdin=stdin,
            capture_output=True,
            cwd=tmp_path,
            env=environment(),
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(b"never fine-tuned") == 1, "one process speaks"
    assert s2s(*asked, "one.txt", stdin=SEVEN).returncode == 0
    assert (tmp_path / "two.txt").read_bytes() == (tmp_path / "one.txt").read_bytes()


@contextmanager
def started(folder: Path, model: Path, *arguments: str, **streams: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "seq2seq_cli", "generate", "-m", str(model), *arguments]
    with subprocess.Popen(
        [*command, "--num-processes", "2"], stderr=subprocess.PIPE, cwd=folder, env=environment(), **streams
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def children(process: subprocess.Popen[bytes]) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(word) for word in path.read_text().split()]


def wait_for_lines(part: Path, count: int = 1) -> None:
    deadline = time.monotonic() + 60
    while not (part.exists() and part.read_bytes().count(b"\n") >= count):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def are_gone(numbers: Sequence[int]) -> bool:
    return not any(Path(f"/proc/{number}").exists() for number in numbers)


def test_p8_a_killed_process_is_named_and_resume_goes_on(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"tea\nwho sells tea and cake\n\n" * 700)
    asked = ("-i", "in.txt", "--max-new-tokens", "6", "--top-p", "0.9", "-o")
    with started(tmp_path, pair_folder, *asked, "out.txt", "-q") as process:
        wait_for_lines(tmp_path / "out.txt.part", 64)
        workers = children(process)
        assert len(workers) == 2
        os.kill(workers[1], signal.SIGKILL)
        assert process.wait(timeout=60) == 1
        assert process.stderr is not None
        assert process.stderr.read() == (
            b"process 1 of 2 was lost: killed by SIGKILL \xc2\xb7 run it again with --resume\n"
        )
        assert are_gone(workers)
    part = (tmp_path / "out.txt.part").read_bytes()
    assert part.endswith(b"\n")
    resumed = s2s("generate", "-m", pair_folder, *asked, "out.txt", "--resume", "--num-processes", "2")
    assert resumed.returncode == 0, resumed.stderr
    assert f"going on with line {part.count(10) + 1}".encode() in resumed.stderr
    assert s2s("generate", "-m", pair_folder, *asked, "one.txt").returncode == 0
    assert (tmp_path / "out.txt").read_bytes() == (tmp_path / "one.txt").read_bytes()


def test_p7_sigterm_ends_all_processes(pair_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"tea\n" * 50_000)
    with started(tmp_path, pair_folder, "-i", "in.txt", "-o", "out.txt") as process:
        wait_for_lines(tmp_path / "out.txt.part")
        workers = children(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    assert are_gone(workers)
    assert (tmp_path / "out.txt.part").stat().st_size


def test_p5_slow_lines_are_answered_as_they_come(pair_folder: Path, tmp_path: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with started(tmp_path, pair_folder, *ASKED, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in (b"tea\n", b"cake\n", b"\n", b"tea and cake\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline().endswith(b"\n")
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(timeout=60) == 0


def test_p1_a_reader_that_goes_away_ends_all_processes(pair_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"tea\n" * 20_000)
    pipes = {"stdout": subprocess.PIPE}
    with started(tmp_path, pair_folder, "-q", "-i", "in.txt", **pipes) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        workers = children(process)
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == b""
    assert are_gone(workers)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("-m", "./missing"), 2, b"missing"),
        (("--truncation", "error"), 3, b"stdin:2"),
        (("--stream",), 2, b"--stream does not go with --num-processes"),
        (("--recipe", "-"), 2, b"cannot share stdin"),
    ],
)
def test_errors_are_said_once(
    s2s: Run, pair_folder: Path, arguments: tuple[str, ...], code: int, says: bytes
) -> None:
    model = () if "-m" in arguments else ("-m", pair_folder)
    stdin = b"tea\n" + b"tea " * 100 + b"\n"
    done = s2s("generate", *model, "-q", "--num-processes", "2", *arguments, stdin=stdin)
    assert done.returncode == code
    assert done.stderr.count(b"\n") == 1, done.stderr
    assert says in done.stderr
