"""Learning rates against transformers' schedules of the same names."""

from __future__ import annotations

import pytest
import torch
import transformers

from seq2seq_cli.training.schedules import learning_rate, warmup_count

NAMES = ["linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt", "polynomial"]


@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_rates_equal_transformers(name: str, warmup: int) -> None:
    total, peak = 40, 3e-4
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    theirs = transformers.get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    ours_warmup = 0 if name == "constant" else warmup
    for step in range(total):
        ours = learning_rate(name, peak, step, warmup=ours_warmup, total=total)
        assert ours == pytest.approx(theirs.get_last_lr()[0], rel=1e-12, abs=1e-20), step
        theirs.step()


def test_a_share_of_the_steps_is_rounded_up() -> None:
    assert [warmup_count(w, 95) for w in (0, 0.1, 5, 0.999)] == [0, 10, 5, 95]
