"""Row P5: memory is flat however many lines come. A stub stands in for the model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = r"""
import socket, sys, threading
from contextlib import ExitStack
from pathlib import Path
from seq2seq_cli.cli import generate
from seq2seq_cli.cli.inputs import Form, Line, Lines, open_source
from seq2seq_cli.processes.dealer import Dealer
from seq2seq_cli.processes.link import Link
from seq2seq_cli.processes.worker import serve
from seq2seq_cli.text.destination import Destination
from seq2seq_cli.text.lines import Counts, Output


def resident():
    fields = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0])


class Stub:
    counts, told = Counts(), 0

    def texts(self, texts, *, numbers, places, prefixes):
        if numbers[-1] > FEW and not Stub.told:
            Stub.told = resident()
        return [Output(texts=(text.upper(),), scores=(0.0,)) for text in texts]


FEW, processes = int(sys.argv[1]), int(sys.argv[2])
with ExitStack() as stack:
    source = open_source(stack, [], None, "strict")
    target = stack.enter_context(Destination(Path("out.txt"), resumable=True))
    work = Lines(Form(), name="stdin")
    if processes == 1:
        generate._generate(Stub(), work, source, target)
    else:
        dealer = stack.enter_context(Dealer())
        for number in range(processes):
            ours, theirs = socket.socketpair()
            dealer.add(f"process {number}", Link(ours, limit=60))
            threading.Thread(target=serve, args=[Link(theirs), Stub], daemon=True).start()
        groups = work.groups(source.lines, source.ready)
        answers = dealer.answers(groups, ready=source.ready, descriptor=source.descriptor)
        generate._write(answers, work, source, target)
print(Stub.told, resident())
"""


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_p5_memory_is_flat_over_a_million_lines(tmp_path: Path, processes: int) -> None:
    few, many = 100_000, 1_000_000
    line = "how many people work here and there and everywhere"
    with subprocess.Popen(f"yes '{line}' | head -{many}", shell=True, stdout=subprocess.PIPE) as lines:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(few), str(processes)],
            stdin=lines.stdout,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=True,
        )
    early, late = map(int, done.stdout.split())
    with (tmp_path / "out.txt").open() as out:
        assert sum(found == line.upper() + "\n" for found in out) == many
    assert early > 0
    assert late - early < 4096, f"{early} kB after {few} lines, {late} kB after {many}"


def test_p5_p1_an_endless_input_ends_with_its_reader(pair_folder: Path, tmp_path: Path) -> None:
    command = f"'{sys.executable}' -m seq2seq_cli generate -q -m '{pair_folder}' --max-new-tokens 4"
    done = subprocess.run(
        ["bash", "-c", f"yes tea | {command} | head -3; echo ${{PIPESTATUS[*]}}"],
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
        check=False,
    )
    assert done.stdout.split(b"\n")[3] == b"141 141 0"
    assert done.stderr == b""
