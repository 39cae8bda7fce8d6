"""Dropout (Srivastava et al. 2014), quickly on a CPU too.

There ``bernoulli_`` takes a random number for each value, and bool is slow to multiply by.
Here one number of 64 bits decides about four values, and what is kept is a byte, 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

#: random bits that decide about one value
_BITS = 16
_STEPS = 2**_BITS


def draws_here(x: Tensor, rate: float) -> bool:
    """True where dropping from ``x`` is done here: in float32 on a CPU, at a rate that the bits can tell from
    0 and 1, and not in a graph that is compiled, for which torch writes the code."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling()
    return plain and 0 < round(rate * _STEPS) < _STEPS


def kept(shape: Sequence[int], rate: float) -> tuple[Tensor, float]:
    """(uint8 of ``shape``, 0 with the probability ``rate`` to the nearest of 65,536 steps, else 1; the share
    that is kept). Drawn from torch's own generator."""
    count, dropped = math.prod(shape), round(rate * _STEPS)
    draws = torch.empty(-(-count * _BITS // 64), dtype=torch.int64).random_(-(2**63), None)
    kept = draws.view(torch.int16)[:count].view(*shape) >= dropped - _STEPS // 2
    return kept.view(torch.uint8), 1 - dropped / _STEPS


class Dropout(nn.Dropout):
    """``nn.Dropout``; the same, but for its draws."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not draws_here(input, self.p):
            return super().forward(input)
        result: Tensor = _Dropping.apply(input, *kept(input.shape, self.p))  # type: ignore[no-untyped-call]
        return result


class _Dropping(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, share: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.share = share
        return x.mul(keep).div_(share)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return gradients[0].mul(keep).div_(ctx.share), None, None
