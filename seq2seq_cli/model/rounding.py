"""Numbers in whole numbers of eight bits, one scale a row (Dettmers et al. 2022, 2.1)."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 127
#: below this a row of zeros would be divided by nothing
_LEAST_SCALE = 1e-30


def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers [M, N] -> the nearest whole numbers of eight bits [M, N], and the scale of each row [M, 1]."""
    scale = rows.abs().amax(1, keepdim=True).clamp_(min=_LEAST_SCALE) / LARGEST
    return (rows / scale).round_().to(torch.int8), scale
