"""Runs on a stream: the same as on the rows in memory where all fit into a window, resumed to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from seq2seq_cli.errors import UsageError
from seq2seq_cli.recipe import Recipe
from seq2seq_cli.training.dry_run import dry_run
from seq2seq_cli.training.run import finetune
from tests.training.helpers import RECIPE, log_of
from tests.training.test_objectives import MASKED, digest

Make = Callable[..., Recipe]
STEPS = ["training.max_steps=24", "training.save_steps=5", "training.dropout=0.1"]
STREAM = [*STEPS, "data.streaming=true", "data.buffer_size=20"]


def test_a_window_of_all_rows_is_an_epoch(workplace: Path, recipe: Make) -> None:
    finetune(recipe(*STEPS, text=RECIPE))
    finetune(recipe(*STEPS, "data.streaming=true", "output=runs/stream", text=RECIPE))
    assert digest("runs/stream") == digest("runs/tiny")


@pytest.mark.parametrize(("text", "run"), [(RECIPE, "runs/tiny"), (MASKED, "runs/one")])
def test_a_stream_resumes_to_the_bit(workplace: Path, recipe: Make, text: str, run: str) -> None:
    """48 rows in windows of 20: the run goes through the stream more than once."""
    finetune(recipe(*STREAM, text=text))
    epochs = [record["epoch"] for record in log_of(Path(run))]
    assert epochs[-1] > 3
    assert epochs == sorted(epochs)
    for step in (5, 15):
        again = recipe(*STREAM, f"output=runs/again{step}", text=text)
        finetune(again, resume=str(Path(run) / f"checkpoint-{step}"))
        assert digest(f"runs/again{step}") == digest(run)


def test_windows_differ_from_whole_epochs(workplace: Path, recipe: Make) -> None:
    finetune(recipe(*STEPS, text=RECIPE))
    finetune(recipe(*STREAM, "output=runs/stream", text=RECIPE))
    assert digest("runs/stream") != digest("runs/tiny")


def test_r10_another_window_is_another_run(workplace: Path, recipe: Make) -> None:
    finetune(recipe(*STREAM, text=RECIPE))
    (workplace / "runs/tiny/all_results.json").unlink()
    with pytest.raises(UsageError, match=r"training rows: no longer the same: .* window changed"):
        finetune(recipe(*STREAM[:-1], "data.buffer_size=21", text=RECIPE))


def test_a_dry_run_tells_of_the_first_window(
    workplace: Path, recipe: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    dry_run(recipe(*STREAM, text=RECIPE))
    told = capsys.readouterr().err
    assert "training rows, first window: 20 of 20 rows" in told


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.streaming=true"], "a stream has no number of epochs"),
        (["data.buffer_size=50"], "buffer_size belongs to streaming"),
        (
            ["data.streaming=true", "training.max_steps=3", "training.auto_find_batch_size=true"],
            "auto_find_batch_size has to see all rows",
        ),
    ],
)
def test_what_does_not_go_is_refused(workplace: Path, recipe: Make, changes: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recipe(*changes, text=RECIPE)


def test_a_row_that_the_run_does_not_need_cannot_end_it(workplace: Path, recipe: Make) -> None:
    """The last step is the last of a window: the next one, with a bad row, is not begun."""
    lines = (workplace / "train.jsonl").read_text().splitlines()
    lines[20] = "no JSON"
    (workplace / "train.jsonl").write_text("\n".join(lines) + "\n")
    window = ["data.streaming=true", "data.buffer_size=16", "training.per_device_train_batch_size=8"]
    given = recipe(*window, "training.tokens_per_batch=null", "training.max_steps=2", text=RECIPE)
    assert finetune(given)["steps"] == 2
