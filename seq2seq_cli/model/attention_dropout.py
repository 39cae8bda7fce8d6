"""Attention with dropped weights, a piece at a time: what a CPU has no kernel of its own for.

torch's fused attention on a CPU knows no dropout; with it, it holds scores, weights, what is dropped and what
is left of all heads at once, in float32. Here they are made for as many rows or heads as a core's cache takes
in, and made again on the way back, as Dao et al. (2022) do on a GPU; all that is kept is which weights were
dropped, a byte each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from seq2seq_cli.model.dropout import kept

#: scores that are worked on together: a megabyte
_PIECE = 2**18

Piece = tuple[slice, slice]


def attend_dropping(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, *, rate: float, scale: float
) -> Tensor:
    """scaled_dot_product_attention with ``dropout_p=rate``: queries [B, N, Q, H] over keys and values
    [B, N, K, H] -> [B, N, Q, H]. ``mask`` [1 or B, 1 or N, 1 or Q, K], bool (true = visible) or numbers to
    add to the scores."""
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape).masked_fill_(~mask, float("-inf"))
    keep, share = kept((*query.shape[:3], keys.shape[2]), rate)
    mixed: Tensor = _Attending.apply(query, keys, values, mask, keep, share, scale)  # type: ignore[no-untyped-call]
    return mixed


class _Attending(torch.autograd.Function):
    """Attention over the weights that ``keep`` is 1 for, divided by ``share``."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        keep: Tensor,
        share: float,
        scale: float,
    ) -> Tensor:
        query = query * scale
        mixed = torch.empty_like(query)
        for piece in _pieces(keep.shape):
            weights = _weights(query[piece], keys[piece], mask, piece)
            mixed[piece] = weights.mul_(keep[piece]) @ values[piece]
        ctx.save_for_backward(query, keys, values, mask, keep)
        ctx.share, ctx.scale = share, scale
        return mixed.div_(share)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, keys, values, mask, keep = ctx.saved_tensors
        gradient = gradients[0] / ctx.share
        of_query, of_keys, of_values = map(torch.empty_like, (query, keys, values))
        of_mask = torch.zeros_like(mask) if ctx.needs_input_grad[3] else None
        for piece in _pieces(keep.shape):
            weights = _weights(query[piece], keys[piece], mask, piece)
            of_weights = (gradient[piece] @ values[piece].transpose(-2, -1)).mul_(keep[piece])
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            if of_mask is not None:
                part = of_mask[_within(piece, of_mask)]
                part += of_scores.sum_to_size(part.shape)
            left = weights.mul_(keep[piece])
            of_values[piece] = left.transpose(-2, -1) @ gradient[piece]
            of_query[piece] = of_scores @ keys[piece]
            of_keys[piece] = of_scores.transpose(-2, -1) @ query[piece]
        return of_query.mul_(ctx.scale), of_keys, of_values, of_mask, None, None, None


def _weights(query: Tensor, keys: Tensor, mask: Tensor | None, piece: Piece) -> Tensor:
    scores = query @ keys.transpose(-2, -1)
    if mask is not None:
        scores += mask[_within(piece, mask)]
    return scores.softmax(dim=-1)


def _pieces(shape: torch.Size) -> Iterator[Piece]:
    """(rows, heads) of scores [B, N, Q, K]: several rows with all their heads, or some heads of one row."""
    batch, count, scores = shape[0], shape[1], shape[2] * shape[3]
    rows = max(1, _PIECE // (count * scores))
    heads = count if count * scores <= _PIECE else max(1, _PIECE // scores)
    for row in range(0, batch, rows):
        for head in range(0, count, heads):
            yield slice(row, row + rows), slice(head, head + heads)


def _within(piece: Piece, mask: Tensor) -> Piece:
    """The piece of a mask that may hold for all rows or all heads alike."""
    rows, heads = piece
    return rows if mask.shape[0] > 1 else slice(None), heads if mask.shape[1] > 1 else slice(None)
