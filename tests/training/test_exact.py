"""One step's gradient is that of the mean over its target tokens, however its rows are shared out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seq2seq_cli.recipe import Recipe
from tests.training.helpers import THIRTY_TWO, start_ranks
from tests.training.test_train_loop import gradients, trainer_of

Make = Callable[..., Recipe]


def test_one_batch_accumulation_and_two_processes_give_one_gradient(
    recipe: Make, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 x 32, 4 x 8 accumulated and 2 processes x 16, to 1e-6: batches with other padding, and other numbers
    of target tokens, so that a mean of means would be far off."""
    trainer = trainer_of(recipe("training.dropout=0", "training.max_grad_norm=0"))
    lengths = trainer.prepared.train.lengths[THIRTY_TWO]
    assert lengths[:16, 1].sum() < 0.7 * lengths[16:, 1].sum()
    assert lengths[:16, 1].max() > 2 * lengths[:8, 1].min()
    whole = gradients(trainer, [THIRTY_TWO], monkeypatch)
    fours = gradients(trainer, [THIRTY_TWO[i : i + 8] for i in range(0, 32, 8)], monkeypatch)
    start_ranks("gradient", workplace)
    both = [load_file(workplace / f"gradient-{rank}.safetensors") for rank in (0, 1)]
    learning = {name: gradient for name, gradient in whole.items() if gradient is not None}
    assert set(learning) == set(both[0]) == set(both[1])
    largest = max(gradient.abs().max().item() for gradient in learning.values())
    assert largest > 0.05
    for name, gradient in learning.items():
        for other in (fours[name], both[0][name], both[1][name]):
            torch.testing.assert_close(other, gradient, rtol=1e-6, atol=1e-6, msg=name)
    assert all(torch.equal(both[0][name], both[1][name]) for name in learning)
