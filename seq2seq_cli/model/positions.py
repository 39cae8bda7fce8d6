"""Positions as waves (Vaswani et al. 2017, 3.5), in the two orders that published models use."""

from __future__ import annotations

import torch
from torch import Tensor


def _angles(places: Tensor, size: int) -> Tensor:
    """places [...], as numbers of the precision wanted -> angles [..., half the size, rounded up]:
    wavelengths from 2 pi to 10000 times that."""
    exponents = torch.arange(0, size, 2, device=places.device, dtype=places.dtype) / size
    # in this order, as published: far out a single rounding shows in the fourth digit of the sine
    return places[..., None] * (1.0 / 10000.0**exponents)


def sinusoids(places: Tensor, size: int) -> Tensor:
    """places [...] -> [..., size]: all sines, then all cosines."""
    angles = _angles(places.float(), size)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[..., :size]


def interleaved_sinusoids(rows: int, size: int) -> Tensor:
    """The table [rows, size] of places 0, 1, ...: sine and cosine of each wavelength side by side."""
    angles = _angles(torch.arange(rows, dtype=torch.float64), size)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :size].float()
