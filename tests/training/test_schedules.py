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


def test_noam_is_the_schedule_of_presumm() -> None:
    """Liu and Lapata 2019, 3.2: factors 2e-3 and 0.1, warm-ups 20,000 and 10,000, steps from 1."""
    for factor, warmup in ((2e-3, 20_000), (0.1, 10_000)):
        for step in (1, 9_999, 10_000, 20_000, 150_000):
            published = factor * min(step**-0.5, step * warmup**-1.5)
            ours = learning_rate("noam", factor, step - 1, warmup=warmup, total=200_000)
            assert ours == pytest.approx(published, rel=1e-12)


@pytest.mark.parametrize("warmup_init", [False, True])
def test_relative_steps_are_adafactors(warmup_init: bool) -> None:
    """Its warm-up from 1e-6 a step on meets the highest rate, 1e-2, after 10,000 steps."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    theirs = transformers.Adafactor([parameter], scale_parameter=False, warmup_init=warmup_init)
    for step in (1, 7, 5_000, 10_000, 10_001, 90_000):
        published = theirs._get_lr(theirs.param_groups[0], {"step": step})
        warmup = 10_000 if warmup_init else 0
        ours = learning_rate("relative_step", 1e-2, step - 1, warmup=warmup, total=100_000)
        assert ours == pytest.approx(published, rel=1e-12), step
