"""Sampling: draw the next token from what the filters leave of the model's distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

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
    beside it, so the same seed gives the same text at any batch size.
    """

    def __init__(self, decoding: Decoding, *, keys: Sequence[int], steps: int) -> None:
        self._decoding = decoding
        self._uniform = torch.stack([uniform_numbers(decoding.seed, key, count=steps) for key in keys])

    def __call__(self, scores: Tensor, rows: Tensor, steps: Tensor) -> Tensor:
        """scores [R, V] of the original rows [R], each at its own step [R] -> tokens [R]."""
        drawn = self._uniform[rows.cpu(), steps.cpu()].to(scores.device)
        k = self._decoding.top_k
        if not 0 < k < scores.shape[1]:
            return _draw(*candidates(scores, self._decoding), drawn)
        values, ids = largest(scores, k + 1)
        tokens = _draw(_behind_top_k(values[:, :k], self._decoding, keep=1), ids[:, :k], drawn)
        # what equals the least of the k stays too: such rows, rare but in half precision, take the long way
        tied = (values[:, k] == values[:, k - 1]) & (values[:, k] > _GONE)
        if bool(tied.any()):
            tokens[tied] = _draw(_filtered(scores[tied], self._decoding, keep=1), None, drawn[tied])
        return tokens


def candidates(scores: Tensor, decoding: Decoding, *, keep: int = 1) -> tuple[Tensor, Tensor | None]:
    """Scores [R, V] over temperature of the tokens to draw from [R, C], -inf where filtered, and their ids
    (None: all tokens in their own order). The filters leave at least the ``keep`` likeliest.

    Where top-k, or a filter that cuts the tail, comes first, everything behind it works on the few tokens
    that can be drawn.
    """
    filters, vocabulary = warpers.build_filters(decoding, keep=keep), scores.shape[1]
    ids: Tensor | None = None
    if 0 < decoding.top_k < vocabulary:
        values, ids = largest(scores, min(max(decoding.top_k, keep), vocabulary))
        values = _behind_top_k(values, decoding, keep=keep)
    elif filters and filters[0].func in _CUTS_THE_TAIL:
        values, ids = _without_tail(scores / decoding.temperature, filters[0], keep=keep)
        for warp in filters[1:]:
            warp(values)
    else:
        values = _filtered(scores, decoding, keep=keep)
    if decoding.renormalize_logits:
        values = values - values.logsumexp(-1, keepdim=True)
    return values, ids


def _behind_top_k(values: Tensor, decoding: Decoding, *, keep: int) -> Tensor:
    """The largest scores over temperature, -inf where filtered."""
    values = values / decoding.temperature
    for warp in warpers.build_filters(decoding, keep=keep):
        warp(values)
    return values


def _filtered(scores: Tensor, decoding: Decoding, *, keep: int) -> Tensor:
    """All scores [R, V] over temperature, -inf where filtered."""
    scaled = scores / decoding.temperature
    if decoding.top_k:
        warpers.top_k(scaled, k=decoding.top_k, keep=keep)
    for warp in warpers.build_filters(decoding, keep=keep):
        warp(scaled)
    return scaled


def _without_tail(scaled: Tensor, first: partial[None], *, keep: int) -> tuple[Tensor, Tensor]:
    """Scores and ids [R, C] of the tokens that the filter ``first`` keeps and some more, which are -inf; the
    likeliest first."""
    size, vocabulary = min(max(warpers.FIRST_LOOK, keep), scaled.shape[1]), scaled.shape[1]
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
        gone[:, :keep] = False
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


def uniform_numbers(seed: int, *keys: int, count: int) -> Tensor:
    """``count`` numbers in [0, 1) that belong to (seed, *keys) alone; the first ones are the same for any
    ``count``."""
    mixed = seed * _SEED_PRIME
    for key in keys:
        mixed = (mixed + key + 1) * _SEED_PRIME % 2**63
    generator = torch.Generator().manual_seed(mixed)
    return torch.rand(count, dtype=torch.float64, generator=generator)
