"""Batches that do not fit into memory: what is said, and how the largest that fits is found (row R18).

There are no data workers: rows are tokenized before training and batches made by the process that learns from
them, so the half of R18 that kills one has nothing to kill.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from seq2seq_cli.checkpoint.files import checkpoints
from seq2seq_cli.errors import ResourceError, UsageError
from seq2seq_cli.recipe import Recipe
from seq2seq_cli.training import fitting, machine
from seq2seq_cli.training.fitting import Cut, worst_batches
from seq2seq_cli.training.run import finetune, make_accelerator
from seq2seq_cli.training.setup import prepare
from seq2seq_cli.training.state import read_checkpoint
from tests.training.test_lost_processes import environment
from tests.training.test_train_processes import learnt, sums

Make = Callable[..., Recipe]
#: wide rows of a wide layer: a batch of all rows takes some 400 MB, one of a few next to nothing
WIDE = """
model:
  decoder:
    family: gpt2
    config: {n_embd: 32, n_layer: 1, n_head: 2, n_positions: 512, n_inner: 4096}
    tokenizer: {train: wordpiece, vocab_size: 60}
data: {train: long.txt}
training: {objective: causal_lm, max_steps: 2, tokens_per_batch: 16384, learning_rate: 1e-3}
output: runs/wide
"""
LIMITED = """
import resource, sys
import torch
from seq2seq_cli.training import loop
from seq2seq_cli.__main__ import main
begin = loop.Trainer.__init__

def limited(self, *arguments, **named):
    begin(self, *arguments, **named)
    pages = int(open("/proc/self/statm").read().split()[0])
    taken = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, -1))

loop.Trainer.__init__ = limited
torch.set_num_threads(1)
sys.exit(main())
"""


@pytest.fixture
def wide(workplace: Path) -> Path:
    lines = [" ".join(["red", "green", "blue", "cat"] * 100) + "\n"] * 32
    (workplace / "long.txt").write_text("".join(lines))
    (workplace / "recipe.yaml").write_text(WIDE)
    return workplace


def start(folder: Path, *, room: int, changes: tuple[str, ...] = ()) -> tuple[int, str]:
    """A run that may take ``room`` bytes more than when it begins to train."""
    (folder / "program.py").write_text(LIMITED.replace("ROOM", str(room)))
    sets = [part for change in changes for part in ("--set", change)]
    done = subprocess.run(
        [sys.executable, "program.py", "finetune", "recipe.yaml", *sets],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr


def test_r18_running_out_of_memory_names_the_limit_and_a_batch_that_fits(wide: Path) -> None:
    code, said = start(wide, room=400 * 2**20)
    assert code == 6, said
    (line,) = [line for line in said.split("\n") if "not enough memory" in line]
    assert "address space limited to" in line
    assert "tokens_per_batch: 16384" in line
    assert "Traceback" not in said
    suggested = line.split("write tokens_per_batch: ")[1].split(",")[0]
    assert int(suggested) < 16384
    parts = line.split("write ")[1].split("gradient_accumulation_steps: ")[1].split(",")[0]
    assert int(suggested) * int(parts) == 16384, "the step stays as large"
    changes = (f"training.tokens_per_batch={suggested}", f"training.gradient_accumulation_steps={parts}")
    code, said = start(wide, room=400 * 2**20, changes=changes)
    assert code == 0, said


def test_the_largest_batch_that_fits_is_found_once_and_learns_the_same(
    recipe: Make, wide: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step's loss is a mean over its tokens, so smaller batches and more of them learn the same."""
    asked = recipe("training.dropout=0", text=WIDE)
    finetune(asked)
    whole = learnt(wide / "runs/wide")
    monkeypatch.setattr(machine, "available", lambda: 300 * 2**20)
    auto = recipe("training.dropout=0", "training.auto_find_batch_size=true", "output=runs/auto", text=WIDE)
    finetune(auto)
    assert "the largest batch that fits: tokens_per_batch: " in capsys.readouterr().err
    found = read_checkpoint(checkpoints(wide / "runs/auto")[-1][1]).identity
    tokens, batches = found["training.tokens_per_batch"], found["batches a step (accumulation × processes)"]
    assert 512 <= tokens < 16384
    assert tokens * batches == 16384
    for (step, loss, norms), (other, other_loss, other_norms) in zip(
        learnt(wide / "runs/auto"), whole, strict=True
    ):
        assert (step, loss) == (other, pytest.approx(other_loss, rel=1e-5))
        assert norms["total"] == pytest.approx(other_norms["total"], rel=1e-4)


def test_a_resumed_run_keeps_the_batches_that_were_found(
    recipe: Make, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Cut(tokens=48, rows=None, accumulation=2)
    monkeypatch.setattr("seq2seq_cli.training.run.find_cut", lambda *_: small)
    asked = ("training.auto_find_batch_size=true", "training.save_steps=3")
    finetune(recipe(*asked, "output=runs/whole"))
    finetune(recipe(*asked, "training.max_minutes=0.000001"))
    monkeypatch.setattr("seq2seq_cli.training.run.find_cut", lambda *_: pytest.fail("looked for again"))
    finetune(recipe(*asked))
    assert sums(workplace / "runs/tiny") == sums(workplace / "runs/whole")
    assert finetune(recipe(*asked))["steps"], "a finished run is left alone"
    plain = json.loads((workplace / "runs/whole/all_results.json").read_text())
    assert plain["steps"] > 3


@pytest.mark.parametrize("name", ["tokens_per_batch", "gradient_accumulation_steps"])
def test_r10_a_resumed_run_is_asked_for_the_same_batches(
    recipe: Make, workplace: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Those that were found are kept, so others that are asked for would be passed over in silence."""
    small = Cut(tokens=48, rows=None, accumulation=2)
    monkeypatch.setattr("seq2seq_cli.training.run.find_cut", lambda *_: small)
    asked = ("training.auto_find_batch_size=true", "training.max_minutes=0.000001")
    finetune(recipe(*asked))
    before = (workplace / "runs/tiny/recipe.yaml").read_bytes()
    now = {"tokens_per_batch": 48, "gradient_accumulation_steps": 2}[name]
    then = {"tokens_per_batch": 96, "gradient_accumulation_steps": 1}[name]
    with pytest.raises(UsageError) as refused:
        finetune(recipe("training.auto_find_batch_size=true", f"training.{name}={now}"))
    assert refused.value.findings[0].what == f"training.{name} (as asked for): {then} then, {now} now"
    assert len(refused.value.findings) == 2
    assert (workplace / "runs/tiny/recipe.yaml").read_bytes() == before


def test_what_never_fits_is_said(recipe: Make, wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(fitting, "tensors_of", full)
    with pytest.raises(ResourceError, match="single row"):
        finetune(recipe("training.auto_find_batch_size=true", text=WIDE))


def test_a_step_keeps_its_size_in_any_number_of_parts() -> None:
    tokens = Cut(tokens=4096, rows=None, accumulation=4)
    assert tokens.parted(1) == Cut(tokens=16384, rows=None, accumulation=1)
    assert tokens.parted(16) == Cut(tokens=1024, rows=None, accumulation=16)
    assert tokens.parted(2**15) is None
    assert Cut(tokens=None, rows=8, accumulation=1).parted(4) == Cut(tokens=None, rows=2, accumulation=4)


def test_a_trial_leaves_room_for_the_average(
    recipe: Make, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room: list[int] = []

    def fits(*_: object, held: int) -> bool:
        room.append(held)
        return True

    monkeypatch.setattr(fitting, "_fits", fits)
    for change in ("null", "0.9"):
        made = recipe("training.auto_find_batch_size=true", f"training.ema_decay={change}")
        fitting.find_cut(prepare(made), make_accelerator(made))
    assert room[1] * 8 == room[0] * 12


def test_worst_batches_are_the_widest() -> None:
    lengths = [(3, 3)] * 8 + [(40, 2), (2, 30)]
    chosen = worst_batches(lengths, Cut(tokens=48, rows=None, accumulation=1))
    assert [8] in chosen
    assert any(9 in batch for batch in chosen)
