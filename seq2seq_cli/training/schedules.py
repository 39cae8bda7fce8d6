"""How the learning rate moves over a run: a factor of the peak rate as a function of the step.

The formulas are those of transformers' schedules of the same names, so that published recipes carry over, and
two of papers whose rates fall with the root of the step.
"""

from __future__ import annotations

import math

#: transformers' polynomial schedule ends at this rate, in absolute terms, whatever the peak
_POLYNOMIAL_END = 1e-7


def warmup_count(warmup: int | float, total: int) -> int:
    """Steps of warm-up: a whole number as it stands, a share below 1 of ``total`` steps rounded up."""
    return math.ceil(warmup * total) if warmup < 1 else int(warmup)


def learning_rate(name: str, peak: float, step: int, *, warmup: int, total: int) -> float:
    """The rate for optimizer step ``step`` (from 0) of ``total``, with ``warmup`` rising steps before.

    name: linear, cosine, constant, constant_with_warmup, inverse_sqrt, polynomial; noam (Vaswani et al. 2017,
    5.3, without the width: ``peak`` is a factor, not the highest rate) or relative_step (Shazeer and Stern
    2018, 8: ``peak`` is the most).
    """
    if name == "noam":
        return peak * min(1 / math.sqrt(step + 1), (step + 1) / max(1, warmup) / math.sqrt(max(1, warmup)))
    if name == "relative_step":
        return min(peak * min(1.0, (step + 1) / max(1, warmup)), 1 / math.sqrt(step + 1))
    if name == "constant":
        return peak
    if step < warmup:
        return peak * step / max(1, warmup)
    if name == "constant_with_warmup":
        return peak
    if name == "inverse_sqrt":
        # without warm-up the published schedule takes 10,000 steps as its time scale
        scale = warmup or 10_000
        return peak / math.sqrt((step + scale - warmup) / scale)
    if name == "linear":
        return peak * max(0.0, (total - step) / max(1, total - warmup))
    if name == "cosine":
        progress = (step - warmup) / max(1, total - warmup)
        return peak * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
    if name == "polynomial":
        end = min(peak, _POLYNOMIAL_END)
        remaining = 0.0 if step > total else 1.0 - (step - warmup) / max(1, total - warmup)
        return (peak - end) * remaining + end
    raise ValueError(f"unknown schedule {name!r}")
