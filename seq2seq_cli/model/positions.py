"""Positions as waves (Vaswani et al. 2017, 3.5), in the two orders that published models use."""

from __future__ import annotations

import torch
from torch import Tensor


def _angles(places: Tensor, size: int) -> Tensor:
    """places [...] -> angles [..., size / 2]: wavelengths from 2 pi to 10000 times that."""
    exponents = torch.arange(0, size, 2, device=places.device, dtype=torch.float32) / size
    return places.float()[..., None] / 10000.0**exponents


def sinusoids(places: Tensor, size: int) -> Tensor:
    """places [...] -> [..., size]: all sines, then all cosines."""
    angles = _angles(places, size)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def interleaved_sinusoids(rows: int, size: int) -> Tensor:
    """The table [rows, size] of places 0, 1, ...: sine and cosine of each wavelength side by side."""
    angles = _angles(torch.arange(rows), size)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :size]
