"""Sampling: draw the next token from the model's distribution, after temperature, top-k and top-p."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: how many of the likeliest tokens are looked at first when only top-p limits them
_FIRST_LOOK = 256
_SEED_PRIME = 0x9E3779B97F4A7C15


class Sampler:
    """Draws by inverting the cumulative distribution at one uniform number a row and step.

    Each row has its own stream of numbers, from (seed, key): its draws do not depend on which rows are
    beside it, so the same seed gives the same text at any batch size.
    """

    def __init__(
        self, *, temperature: float, top_k: int, top_p: float, seed: int, keys: Sequence[int], steps: int
    ) -> None:
        self._temperature = temperature
        self._top_k = top_k
        self._top_p = top_p
        self._uniform = torch.stack([uniform_numbers(seed, key, count=steps) for key in keys])

    def __call__(self, scores: Tensor, rows: Tensor, step: int) -> Tensor:
        """scores [R, V] of the original rows [R] -> tokens [R]."""
        scaled, ids = candidates(scores, temperature=self._temperature, top_k=self._top_k, top_p=self._top_p)
        probabilities = scaled.softmax(-1)
        cumulative = probabilities.double().cumsum(-1)
        drawn = self._uniform[rows.cpu(), step].to(scores.device)[:, None] * cumulative[:, -1:]
        place = torch.searchsorted(cumulative, drawn, right=True)
        # rounding must not reach past the last token that can be drawn
        positions = torch.arange(probabilities.shape[-1], device=scores.device)
        last = torch.where(probabilities > 0, positions, 0).amax(-1, keepdim=True)
        place = place.minimum(last)
        tokens: Tensor = place if ids is None else ids.gather(1, place)
        return tokens[:, 0]


def candidates(
    scores: Tensor, *, temperature: float, top_k: int, top_p: float, least: int = 1
) -> tuple[Tensor, Tensor | None]:
    """Scores [R, V] over temperature of the tokens to draw from [R, C], -inf where filtered, and their ids
    (None: all tokens in their own order). Filters leave at least the ``least`` likeliest. Top-p counts over
    what top-k leaves, as in transformers."""
    scaled = scores / temperature
    vocabulary = scores.shape[-1]
    if not top_k and top_p >= 1.0:
        return scaled, None
    size = min(max(top_k, least) if top_k else _FIRST_LOOK, vocabulary)
    values, ids = scaled.topk(size, dim=-1)
    if top_p >= 1.0:
        return values, ids
    total = (values if top_k else scaled).logsumexp(-1, keepdim=True)
    while not top_k and size < vocabulary:
        if bool(((values - total).exp().sum(-1) >= top_p).all()):
            break
        size = min(8 * size, vocabulary)
        values, ids = scaled.topk(size, dim=-1)
    probabilities = (values - total).exp()
    before = probabilities.cumsum(-1) - probabilities
    before[:, :least] = 0.0
    return values.masked_fill(before >= top_p, float("-inf")), ids


def uniform_numbers(seed: int, *keys: int, count: int) -> Tensor:
    """``count`` numbers in [0, 1) that belong to (seed, *keys) alone; the first ones are the same for any
    ``count``."""
    mixed = seed * _SEED_PRIME
    for key in keys:
        mixed = (mixed + key + 1) * _SEED_PRIME % 2**63
    generator = torch.Generator().manual_seed(mixed)
    return torch.rand(count, dtype=torch.float64, generator=generator)
