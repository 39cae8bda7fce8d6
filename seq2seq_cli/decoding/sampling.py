"""Sampling: draw the next token from what the filters leave of the model's distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from seq2seq_cli.decoding import warpers
from seq2seq_cli.decoding.largest import BLOCK, largest
from seq2seq_cli.decoding.options import Decoding

_SEED_PRIME = 0x9E3779B97F4A7C15
_GONE = float("-inf")
#: filters that keep the likeliest tokens, as many as there may be
_CUTS_THE_TAIL = (warpers.top_p, warpers.min_p, warpers.epsilon)


class Sampler:
    """Draws by inverting the cumulative distribution at one uniform number a row and step.

    Each row has its own stream of numbers, from (seed, key): its draws do not depend on which rows are
    beside it, so the same seed gives the same text at any batch size. Where top-k, or a filter that cuts
    the tail, comes first, everything behind it works on the few tokens that can be drawn.
    """

    def __init__(self, decoding: Decoding, *, keys: Sequence[int], steps: int) -> None:
        self._temperature = decoding.temperature
        self._top_k = decoding.top_k
        self._filters = warpers.build_filters(decoding)
        self._uniform = torch.stack([_uniform_stream(decoding.seed, key, steps) for key in keys])

    def __call__(self, scores: Tensor, rows: Tensor, step: int) -> Tensor:
        """scores [R, V] of the original rows [R] -> tokens [R]."""
        drawn = self._uniform[rows.cpu(), step].to(scores.device)
        if 0 < self._top_k < scores.shape[1]:
            return self._among_top_k(scores, drawn)
        if self._filters and self._filters[0].func in _CUTS_THE_TAIL:
            values, ids = self._without_tail(scores)
            for warp in self._filters[1:]:
                warp(values)
            return _draw(values, ids, drawn)
        return self._among_all(scores, drawn)

    def _among_top_k(self, scores: Tensor, drawn: Tensor) -> Tensor:
        k = self._top_k
        values, ids = largest(scores, k + 1)
        # what equals the least of the k stays too: such rows, rare but in half precision, take the long way
        tied = (values[:, k] == values[:, k - 1]) & (values[:, k] > _GONE)
        kept = values[:, :k] / self._temperature
        for warp in self._filters:
            warp(kept)
        tokens = _draw(kept, ids[:, :k], drawn)
        if bool(tied.any()):
            tokens[tied] = self._among_all(scores[tied], drawn[tied])
        return tokens

    def _among_all(self, scores: Tensor, drawn: Tensor) -> Tensor:
        scaled = scores / self._temperature
        if self._top_k:
            warpers.top_k(scaled, k=self._top_k)
        for warp in self._filters:
            warp(scaled)
        return _draw(scaled, None, drawn)

    def _without_tail(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Scores over temperature and ids [R, K] of the tokens that the first filter keeps and some more,
        which are forbidden; the likeliest first."""
        first = self._filters[0]
        size, vocabulary = min(warpers.FIRST_LOOK, scores.shape[1]), scores.shape[1]
        scaled = scores if self._temperature == 1.0 else scores / self._temperature
        total = None if first.func is warpers.min_p else scaled.logsumexp(-1, keepdim=True)
        while True:
            values, ids = largest(scaled, size)
            if total is None:
                gone = values < values[:, :1] + math.log(first.keywords["share"])
            elif first.func is warpers.epsilon:
                gone = (values - total).exp() < first.keywords["cutoff"]
            else:
                probabilities = (values - total).exp()
                gone = probabilities.cumsum(-1) - probabilities >= first.keywords["p"]
            gone[:, 0] = False
            if size == vocabulary or bool(gone[:, -1].all()):
                return values.masked_fill(gone, _GONE), ids
            size = min(8 * size, vocabulary)


def _draw(scores: Tensor, ids: Tensor | None, drawn: Tensor) -> Tensor:
    """The tokens [R] at the numbers ``drawn`` [R] in [0, 1) of the cumulative distributions of scores
    [R, N]; ids [R, N] are the tokens that the scores belong to (None: all, in their own order)."""
    probabilities = scores.softmax(-1)
    columns = probabilities.shape[1]
    if columns < 2 * BLOCK:
        place, _ = _locate(probabilities, drawn)
    else:  # first the block of columns, then the column in it: one pass over the whole
        whole = columns - columns % BLOCK
        sums = probabilities[:, :whole].view(len(scores), -1, BLOCK).sum(-1)
        if whole < columns:
            sums = torch.cat([sums, probabilities[:, whole:].sum(-1, keepdim=True)], dim=1)
        block, inside = _locate(sums, drawn)
        near = block * BLOCK + torch.arange(BLOCK, device=scores.device)
        part = probabilities.gather(1, near.clamp(max=columns - 1)).masked_fill(near >= columns, 0.0)
        place = block * BLOCK + _locate(part, inside)[0]
    tokens: Tensor = place if ids is None else ids.gather(1, place)
    return tokens[:, 0]


def _locate(weights: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """The columns [R, 1] where weights [R, N], added up, pass the share ``drawn`` [R] of their sum, and how
    far into each column that is, as a share [R]."""
    cumulative = weights.double().cumsum(-1)
    target = drawn[:, None] * cumulative[:, -1:]
    place = torch.searchsorted(cumulative, target, right=True)
    # rounding must not reach past the last column that can be drawn
    positions = torch.arange(weights.shape[-1], device=weights.device)
    place = place.minimum(torch.where(weights > 0, positions, 0).amax(-1, keepdim=True))
    weight = weights.gather(1, place).double()
    before = cumulative.gather(1, place) - weight
    return place, ((target - before) / weight).clamp(0.0, 1.0 - 1e-12)[:, 0]


def _uniform_stream(seed: int, key: int, steps: int) -> Tensor:
    """``steps`` numbers in [0, 1) that belong to (seed, key) alone."""
    mixed = (seed * _SEED_PRIME + key + 1) * _SEED_PRIME % 2**63
    generator = torch.Generator().manual_seed(mixed)
    return torch.rand(steps, dtype=torch.float64, generator=generator)
