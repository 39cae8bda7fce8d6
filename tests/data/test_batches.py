"""Batch plans: every row once, within the limits, little padding, a function of seed and epoch alone."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq_cli.data.batches import padding_share, plan_epoch, plan_validation

Lengths = list[tuple[int, int]]
LENGTHS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 90)), max_size=120)


def realistic(rows: int) -> Lengths:
    """Questions of 5-40 tokens; answers of 20-400 that follow some 80 patterns, as SQL does."""
    rng = random.Random(3)
    patterns = [(rng.randint(8, 37), 20 + min(378, int(rng.gammavariate(2, 60)))) for _ in range(80)]
    chosen = [rng.choice(patterns) for _ in range(rows)]
    return [(source + rng.randint(-3, 3), target + rng.randint(-2, 2)) for source, target in chosen]


def cost(lengths: Lengths, batch: list[int]) -> int:
    return len(batch) * (max(lengths[i][0] for i in batch) + max(lengths[i][1] for i in batch))


def options(tokens: int | None = None, rows: int | None = None) -> dict[str, Any]:
    return {"tokens_per_batch": tokens, "batch_size": rows}


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 400), st.integers(0, 5), st.integers(0, 3))
def test_token_batches(lengths: Lengths, tokens: int, seed: int, epoch: int) -> None:
    plan = plan_epoch(lengths, seed=seed, epoch=epoch, **options(tokens))
    assert sorted(row for batch in plan for row in batch) == list(range(len(lengths)))
    for batch in plan:
        assert cost(lengths, batch) <= tokens or len(batch) == 1


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 20))
def test_row_batches(lengths: Lengths, size: int) -> None:
    plan = plan_epoch(lengths, seed=1, epoch=2, **options(rows=size))
    assert sorted(row for batch in plan for row in batch) == list(range(len(lengths)))
    assert all(len(batch) == size for batch in plan[:-1])
    assert all(1 <= len(batch) <= size for batch in plan[-1:])


def test_row_batches_hold_all_lengths() -> None:
    """Equally long rows are often of one kind; a batch of them alone teaches little (see the module)."""
    lengths = realistic(2600)
    targets = [target for _, target in lengths]
    for batch in plan_epoch(lengths, seed=0, epoch=0, **options(rows=32))[:-1]:
        inside = [targets[row] for row in batch]
        assert max(inside) - min(inside) > (max(targets) - min(targets)) / 4


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(1, 400), st.integers(1, 20))
def test_both_limits_hold(lengths: Lengths, tokens: int, size: int) -> None:
    plan = plan_epoch(lengths, seed=1, epoch=2, **options(tokens, size))
    assert sorted(row for batch in plan for row in batch) == list(range(len(lengths)))
    assert all(len(b) <= size and (cost(lengths, b) <= tokens or len(b) == 1) for b in plan)


@pytest.mark.parametrize(
    ("limits", "most"),
    [(options(4096), 0.035), (options(1024), 0.015), (options(4096, 32), 0.035)],
)
def test_little_is_padded(limits: dict[str, Any], most: float) -> None:
    lengths = realistic(2600)
    share = padding_share(lengths, plan_epoch(lengths, seed=0, epoch=0, **limits))
    assert share < most
    by_target = padding_share(lengths, plan_validation(lengths, **limits))
    assert share < by_target  # one length alone does worse


def test_batches_are_filled() -> None:
    lengths = realistic(2600)
    plan = plan_epoch(lengths, seed=0, epoch=0, **options(4096))
    smallest_possible = sum(s + t for s, t in lengths) / 4096
    assert len(plan) < 1.2 * smallest_possible


@pytest.mark.parametrize("batches_per_step", [2, 4, 8])
def test_batches_of_a_step_cost_the_same(batches_per_step: int) -> None:
    """Processes wait for the slowest of them: less than 2 % of their time, the epoch's last step aside."""
    lengths = realistic(2600)
    plan = plan_epoch(lengths, seed=0, epoch=0, **options(4096), batches_per_step=batches_per_step)
    assert sorted(row for batch in plan for row in batch) == list(range(2600))
    costs = [cost(lengths, batch) for batch in plan]
    whole = len(plan) // batches_per_step * batches_per_step
    steps = [costs[i : i + batches_per_step] for i in range(0, whole, batches_per_step)]
    waited = 1 - sum(map(sum, steps)) / sum(batches_per_step * max(step) for step in steps)
    assert waited < 0.02
    assert max(costs[whole:], default=0) <= min(costs[:whole]), "the cheapest are left for the last step"
    assert steps != sorted(steps, key=max, reverse=True), "steps come in any order"
    assert any(step != sorted(step) and step != sorted(step, reverse=True) for step in steps) or (
        batches_per_step == 2
    )
    one = plan_epoch(lengths, seed=0, epoch=0, **options(4096))
    assert {frozenset(batch) for batch in one} == {frozenset(batch) for batch in plan}


def test_many_rows_are_planned_in_seconds() -> None:
    rng = np.random.default_rng(0)
    lengths = np.stack((rng.integers(3, 80, 150_000), rng.integers(3, 300, 150_000)), axis=1)
    started = time.process_time()
    plan = plan_epoch(lengths, seed=0, epoch=0, **options(4096))
    assert time.process_time() - started < 10
    assert padding_share(lengths, plan) < 0.015
    assert sum(map(len, plan)) == 150_000


def test_padding_share_counts() -> None:
    assert padding_share([(1, 2), (3, 2)], [[0, 1]]) == pytest.approx(1 - 8 / 10)
    assert padding_share([(1, 2), (3, 2)], [[0], [1]]) == 0
    assert padding_share([], []) == 0


def test_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = realistic(500)
    plans = {
        (seed, epoch): plan_epoch(lengths, seed=seed, epoch=epoch, **options(1024))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert plans[0, 1] == plan_epoch(lengths, seed=0, epoch=1, **options(1024))
    assert len({str(plan) for plan in plans.values()}) == 4
    firsts = [sum(lengths[plan[0][0]]) for plan in plans.values()]
    longest = max(map(sum, lengths))
    assert any(first < longest for first in firsts)


def test_order_is_the_same_in_another_process() -> None:
    code = (
        "from seq2seq_cli.data.batches import plan_epoch\n"
        "lengths = [(i * 7 % 31, i * 5 % 17 + 1) for i in range(200)]\n"
        "plan = plan_epoch(lengths, seed=5, epoch=3, tokens_per_batch=256, batch_size=None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + "print(plan)"], capture_output=True, text=True, check=True
    )
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert done.stdout == f"{scope['plan']}\n"


def test_equally_long_rows_meet_others_in_the_next_epoch() -> None:
    lengths = [(4, 4)] * 64
    one, two = (plan_epoch(lengths, seed=0, epoch=e, **options(rows=8)) for e in (0, 1))
    assert {frozenset(batch) for batch in one} != {frozenset(batch) for batch in two}


def test_validation_is_sorted_and_not_shuffled() -> None:
    lengths = realistic(100)
    plan = plan_validation(lengths, **options(1024))
    order = [row for batch in plan for row in batch]
    assert sorted(order) == list(range(100))
    assert [lengths[i][1] for i in order] == sorted((t for _, t in lengths), reverse=True)
    assert plan == plan_validation(lengths, **options(1024))
    assert plan_validation([], **options(1024)) == []


def test_refusals() -> None:
    with pytest.raises(ValueError, match="give tokens_per_batch"):
        plan_epoch([(1, 1)], seed=0, epoch=0, **options())
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        plan_validation([(1, 1)], **options(rows=0))
    assert plan_epoch([], seed=0, epoch=0, **options(5)) == []
