"""The memory that a run will need, worked out before it starts, beside what it then takes."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from seq2seq_cli import cli
from seq2seq_cli.data.batch import Batch
from seq2seq_cli.errors import ResourceError, UsageError
from seq2seq_cli.recipe import Recipe
from seq2seq_cli.training import dry_run as dry
from seq2seq_cli.training import machine, memory
from seq2seq_cli.training.loop import Trainer
from seq2seq_cli.training.machine import room
from seq2seq_cli.training.memory import Estimate, _Meter, _part, _step, estimate
from seq2seq_cli.training.stepper import StepResult
from tests.training.helpers import GPT2, ONE_SIDED
from tests.training.test_train_loop import trainer_of
from tests.training.test_train_processes import environment, place

Make = Callable[..., Recipe]
ROWS = "training.tokens_per_batch=null", "training.per_device_train_batch_size=16"


def test_the_meter_counts_what_lives_at_one_time() -> None:
    there = torch.zeros(1000)
    meter = _Meter()
    with meter:
        first = there + 1
        del first
        view = there[10:]
        view.add_(1)
        second, third = there * 2, there * 3
        assert meter.restart() == 8000, "of the first nothing is left when the others come"
        del second
        assert meter.restart() == 8000
        assert meter.restart() == 4000
        del third


def foretold(trainer, rows: list[int]) -> Estimate:  # type: ignore[no-untyped-def]
    """The estimate, of the tensors alone."""
    return replace(estimate(trainer, rows), scattered=1.0)


@pytest.mark.parametrize("fit", [2, 0])
def test_fewer_rows_are_tried_where_an_eighth_of_them_does_not_fit(
    recipe: Make, monkeypatch: pytest.MonkeyPatch, fit: int
) -> None:
    rows, tried = list(range(40)), list[int]()
    expected = estimate(trainer_of(recipe(*ROWS)), rows)

    def step(trainer: Trainer, batch: Batch) -> tuple[float, ...]:
        tried.append(len(batch.rows))
        if len(batch.rows) > fit:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return _step(trainer, batch)

    monkeypatch.setattr(memory, "_step", step)
    trainer = trainer_of(recipe(*ROWS))
    if fit:
        assert estimate(trainer, rows).step(40) == pytest.approx(expected.step(40), rel=0.1)
        assert tried == [5, 2, 2, 4, 1, 1, 2]
    else:
        with pytest.raises(RuntimeError, match="allocate"):
            estimate(trainer, rows)
        assert tried == [5, 2, 1]


def whole(trainer, rows: list[int]) -> float:  # type: ignore[no-untyped-def]
    """The most bytes of a step on these rows, measured."""
    batch = trainer.prepared.collate(rows, 0)
    _step(trainer, _part(batch, len(rows)))
    return max(_step(trainer, batch))


@pytest.mark.parametrize(
    "changes", [(), ("training.gradient_accumulation_steps=2",), ("training.gradient_checkpointing=true",)]
)
def test_two_small_steps_foretell_a_whole_one(recipe: Make, changes: tuple[str, ...]) -> None:
    sizes = ("model.encoder.config.num_hidden_layers=3", "model.decoder.config.n_layer=3")
    trainer = trainer_of(recipe(*ROWS, *sizes, *changes))
    rows = list(range(32))
    found = foretold(trainer, rows)
    assert found.step(32) == pytest.approx(whole(trainer, rows), rel=0.05)
    assert found.step(16) < 0.7 * found.step(32)
    model = trainer.prepared.bundle.model
    assert found.weights == sum(p.nbytes for p in model.parameters())
    assert found.gradients == found.weights
    assert found.optimizer == pytest.approx(2 * found.weights, rel=0.01)


def test_what_is_frozen_has_neither_gradient_nor_moments(recipe: Make) -> None:
    trainer = trainer_of(recipe(*ROWS, "model.freeze=[encoder]", "training.ema_decay=0.9"))
    found = estimate(trainer, list(range(8)))
    encoder = sum(p.nbytes for p in trainer.prepared.bundle.model.encoder.parameters())  # type: ignore[union-attr]
    assert found.gradients == found.average == found.weights - encoder
    assert found.optimizer == pytest.approx(2 * found.gradients, rel=0.01)


def test_one_sided_models_have_estimates_too(recipe: Make) -> None:
    text = ONE_SIDED.format(side="decoder", family="gpt2", config=GPT2, objective="causal_lm")
    trainer = trainer_of(recipe(text=text))
    rows = list(range(16))
    assert foretold(trainer, rows).step(16) == pytest.approx(whole(trainer, rows), rel=0.05)


ESTIMATE = Estimate(
    rows=100, program=300.0, weights=40.0, gradients=40.0, optimizer=80.0, average=0.0,
    base=(0.0, 40.0, 45.0), by_row=(1.0, 0.9, 0.0), unit=10.0,
)  # fmt: skip


def test_the_highest_phase_counts_and_processes_share() -> None:
    assert ESTIMATE.peak() == 300 + 120 + 130
    assert ESTIMATE.peak(2) == 300 + 120 + 45
    assert replace(ESTIMATE, scattered=1.5).peak() == 300 + 120 + 195
    ddp = replace(ESTIMATE, processes=4)
    assert ddp.peak() == ESTIMATE.peak() + 40, "the buckets"
    fsdp = replace(ESTIMATE, processes=4, strategy="fsdp2")
    assert fsdp.peak() == 300 + (120 + 40) / 4 + 100 + 2 * 10
    assert replace(fsdp, processes=8).peak() < fsdp.peak()


@pytest.mark.parametrize(("there", "rows"), [(551, 100), (520, 66), (466, 6), (464, 0)])
def test_what_would_fit(there: float, rows: int) -> None:
    fits = ESTIMATE.fitting(there)
    assert fits == pytest.approx(rows, abs=1)
    assert not fits or ESTIMATE.peak(fits) <= there


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (("training.tokens_per_batch=480",), r"tokens_per_batch: (\d+) would fit"),
        (ROWS, r"per_device_train_batch_size: (\d+) would fit"),
    ],
)
def test_a_run_that_cannot_fit_says_which_batch_would(
    recipe: Make, monkeypatch: pytest.MonkeyPatch, changes: tuple[str, ...], says: str
) -> None:

    def enormous(trainer: object, rows: list[int]) -> Estimate:
        return replace(ESTIMATE, rows=len(rows), by_row=(1e9 / len(rows),) * 3)

    monkeypatch.setattr(dry, "estimate", enormous)
    monkeypatch.setattr(dry, "room", lambda processes: 0.51e9)
    with pytest.raises(ResourceError, match="about 1,000 MB a device, and there are 510 MB") as error:
        dry.dry_run(recipe(*changes))
    assert error.value.exit_code == 6
    found = re.search(says, str(error.value))
    assert found
    whole = 16 if changes == ROWS else 480
    assert int(found[1]) == pytest.approx(whole / 2, abs=whole / 8)
    monkeypatch.setattr(dry, "room", lambda processes: 1.0)
    with pytest.raises(ResourceError, match="not even one row fits"):
        dry.dry_run(recipe(*changes))


def test_the_time_is_that_of_one_process(
    recipe: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learnt: list[int] = []
    step = Trainer.step

    def counted(trainer: Trainer, batches: list[list[int]]) -> StepResult:
        learnt.append(len(batches))
        return step(trainer, batches)

    monkeypatch.setattr(Trainer, "step", counted)
    dry.dry_run(recipe("training.tokens_per_batch=48"), processes=2)
    assert len(learnt) == 1 + 4
    assert set(learnt) == {1}, "a step of two processes has two batches"
    assert re.search(r"s a step on cpu for one process's share of 2", capsys.readouterr().err)


def test_what_does_not_go_with_slices_is_refused_before_the_run(recipe: Make) -> None:
    still = ("model.freeze=[encoder]", "training.dropout=0", "training.encoder_cache_mb=9")
    asked = recipe("training.optim=adafactor", "training.ema_decay=0.9", *still)
    dry.dry_run(asked, processes=2)
    with pytest.raises(UsageError, match="optim: adafactor does not go with FSDP") as refused:
        dry.dry_run(asked, processes=2, strategy="fsdp2")
    assert len(refused.value.findings) == 3
    assert any("encoder_cache_mb" in str(finding) for finding in refused.value.findings)


def test_limits_of_the_process_count(monkeypatch: pytest.MonkeyPatch) -> None:
    free = room()
    assert 0 < free < 2**45
    assert room(2) == pytest.approx(free / 2, rel=0.05)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    monkeypatch.setattr(machine.resource, "getrlimit", lambda which: (taken + 10_000_000, -1))
    held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    assert room() == pytest.approx(held + 10_000_000, rel=0.01)


def test_files_that_a_control_group_keeps_are_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_GROUP", tmp_path)
    for name, text in {
        "max": "3000000",
        "current": "2900000",
        "stat": "anon 9\ninactive_file 700000",
    }.items():
        (tmp_path / f"memory.{name}").write_text(f"{text}\n")
    assert machine.available() == 800_000
    (tmp_path / "memory.stat").unlink()
    assert machine.available() == 100_000
    (tmp_path / "memory.max").write_text("max\n")
    assert (machine.available() or 0) > 3_000_000, "the system's"


# -- the real thing ------------------------------------------------------------------------------------------

#: a pair, a masked and a causal model, of different sizes, batches, optimizers: all far above the 0.4 GB of
#: the program itself
REAL = {
    "pair": """
model:
  encoder: {family: bert, config: {hidden_size: 384, num_hidden_layers: 6, num_attention_heads: 12,
            intermediate_size: 1536}, tokenizer: {train: wordpiece, vocab_size: 8000}}
  decoder: {family: gpt2, config: {n_embd: 384, n_layer: 6, n_head: 6, n_positions: 256},
            tokenizer: {train: bpe, vocab_size: 8000}}
data: {train: train.jsonl}
training: {max_steps: 4, tokens_per_batch: 4096}
output: runs/real
""",
    "masked": """
model:
  encoder: {family: bert, config: {hidden_size: 512, num_hidden_layers: 4, num_attention_heads: 8,
            intermediate_size: 2048}, tokenizer: {train: wordpiece, vocab_size: 8000}}
data: {train: text.txt}
training: {objective: masked_lm, max_steps: 4, per_device_train_batch_size: 32, optim: adafactor,
           gradient_accumulation_steps: 2}
output: runs/real
""",
    "causal": """
model:
  decoder: {family: gpt2, config: {n_embd: 768, n_layer: 6, n_head: 12, n_positions: 256},
            tokenizer: {train: bpe, vocab_size: 8000}}
data: {train: text.txt}
training: {objective: causal_lm, max_steps: 4, tokens_per_batch: 2048, ema_decay: 0.99}
output: runs/real
""",
}
CODE = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "seq2seq_cli", "finetune", "recipe.yaml", *sys.argv[1:]])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6)
sys.exit(done.returncode)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "processes"), [("pair", 1), ("masked", 1), ("causal", 1), ("pair", 2)])
def test_the_estimate_is_within_a_fifth_of_the_peak(tmp_path: Path, name: str, processes: int) -> None:
    write_texts(tmp_path)
    (tmp_path / "recipe.yaml").write_text(REAL[name])
    several = ["--num-processes", str(processes)] if processes > 1 else []

    def peak(*options: str) -> tuple[float, str]:
        done = subprocess.run(
            [sys.executable, "-c", CODE, *options, *several], cwd=tmp_path, env=environment(),
            capture_output=True, text=True, timeout=800,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return float(done.stdout.split()[-1]), done.stderr

    _, said = peak("--dry-run")
    found = re.search(r"about ([\d,]+) MB with the largest batch", said)
    assert found, said
    told = float(found[1].replace(",", ""))
    measured, _ = peak()
    print(f"{name}, {processes} processes: estimated {told:,.0f} MB, measured {measured:,.0f} MB")
    assert told == pytest.approx(measured, rel=0.2)


def write_texts(folder: Path) -> None:
    """Rows of 20 to 120 words out of 3,000."""
    import json
    import random

    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 8))) for _ in range(3000)]
    texts = [" ".join(draw.choices(words, k=draw.randint(20, 120))) for _ in range(400)]
    rows = [
        json.dumps({"source": a, "target": b}) + "\n" for a, b in zip(texts, reversed(texts), strict=True)
    ]
    (folder / "train.jsonl").write_text("".join(rows))
    (folder / "text.txt").write_text("\n".join(texts) + "\n")


def test_strategies_belong_to_dry_runs_of_several_processes(tmp_path: Path) -> None:
    place(tmp_path)
    for options in (["--strategy", "ddp"], ["--strategy", "fsdp2", "--dry-run"]):
        with pytest.raises(UsageError, match="what several processes would need"):
            cli.run(["finetune", str(tmp_path / "recipe.yaml"), *options])
