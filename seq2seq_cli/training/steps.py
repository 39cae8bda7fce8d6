"""Which rows each optimizer step learns from: a pure function of the recipe's numbers."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable

#: under which a run remembers how many batches a step has, in all processes, and the fingerprint of its plan
BATCHES = "batches a step (accumulation × processes)"
ORDER = "order of the first epoch (sha256)"
#: Batches of row numbers of one epoch.
Batches = list[list[int]]


class StepPlan:
    """Batches of every epoch, cut into steps.

    ``batches`` gives an epoch's batches in order; a step takes ``batches_per_step`` of them (accumulation
    times processes), the last step of an epoch what is left: no epoch runs into the next. ``epochs`` may end
    within an epoch; ``max_steps`` wins over it.
    """

    def __init__(
        self,
        batches: Callable[[int], Batches],
        *,
        batches_per_step: int,
        epochs: float,
        max_steps: int | None = None,
    ) -> None:
        self._batches = batches
        self._kept: tuple[int, Batches] = (-1, [])
        self.batches_per_step = batches_per_step
        self.total = max_steps or self._count(epochs)

    def _count(self, epochs: float) -> int:
        whole = int(epochs)
        steps = sum(self.steps_in(epoch) for epoch in range(whole))
        return max(1, steps + (math.ceil((epochs - whole) * self.steps_in(whole)) if epochs > whole else 0))

    def epoch(self, epoch: int) -> Batches:
        """All batches of ``epoch`` (from 0)."""
        if self._kept[0] != epoch:
            self._kept = (epoch, self._batches(epoch))
        return self._kept[1]

    def steps_in(self, epoch: int) -> int:
        """Optimizer steps of ``epoch``."""
        return math.ceil(len(self.epoch(epoch)) / self.batches_per_step)

    def step(self, epoch: int, position: int) -> Batches:
        """The batches of step ``position`` (from 0) of ``epoch``."""
        first = position * self.batches_per_step
        return self.epoch(epoch)[first : first + self.batches_per_step]

    def fingerprint(self, epoch: int) -> str:
        """SHA-256 of the order of an epoch."""
        return hashlib.sha256(json.dumps(self.epoch(epoch)).encode()).hexdigest()


def mixed_seed(seed: int, step: int, number: int) -> int:
    """A seed for one batch of one step: neighbours must not give related streams (Steele et al. 2014)."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + number * 0x94D049BB133111EB) % 2**64
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) % 2**64
    return (mixed ^ (mixed >> 31)) >> 1
