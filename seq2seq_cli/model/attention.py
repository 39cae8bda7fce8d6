"""Multi-head attention (Vaswani et al. 2017, 3.2): one module, one call of scaled_dot_product_attention, or
of our own where that is slow."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2seq_cli.model.attention_dropout import attend_dropping
from seq2seq_cli.model.cache import KVCache
from seq2seq_cli.model.distances import Distances
from seq2seq_cli.model.dropout import draws_here
from seq2seq_cli.model.linear import Linear
from seq2seq_cli.model.relative import Relative


def safe_mask(mask: Tensor) -> Tensor:
    """Let a query that may see nothing see everything, so that its (unused) row is finite, not NaN.

    mask: bool [..., Q, K], true = visible.
    """
    return mask | ~mask.any(dim=-1, keepdim=True)


def hidden_from(scores: Tensor, visible: Tensor | None) -> Tensor:
    """Numbers to add to attention scores [..., Q, K], minus infinity where ``visible`` (bool) is false."""
    return scores if visible is None else scores.masked_fill(~visible, float("-inf"))


def source_mask(mask: Tensor | None) -> Tensor | None:
    """Key mask [B, S] -> [B, 1, 1, S] for attention over a source; None when everything is visible."""
    if mask is None or bool(mask.all()):
        return None
    return safe_mask(mask[:, None, None, :])


class Attention(nn.Module):
    """Projections and one attention call; self-attention or cross-attention by which method is called."""

    def __init__(
        self,
        *,
        hidden_size: int,
        num_heads: int,
        head_size: int,
        scale: float,
        dropout: float,
        bias: bool = True,
        key_value_size: int | None = None,
        relative: Relative | None = None,
    ) -> None:
        super().__init__()
        inner = num_heads * head_size
        self.query = Linear(hidden_size, inner, bias=bias)
        self.key = Linear(key_value_size or hidden_size, inner, bias=bias)
        self.value = Linear(key_value_size or hidden_size, inner, bias=bias)
        self.output = Linear(inner, hidden_size, bias=bias)
        self.relative = relative
        self.num_heads = num_heads
        self.head_size = head_size
        self.scale = scale
        self.dropout = dropout

    def _split(self, x: Tensor) -> Tensor:
        """[B, L, N * H] -> [B, N, L, H]."""
        return x.view(*x.shape[:-1], self.num_heads, self.head_size).transpose(1, 2)

    def _attend(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        *,
        causal: bool = False,
        record: list[Tensor] | None = None,
    ) -> Tensor:
        """Queries [B, N, Q, H] over keys and values [B, N, K, H] -> [B, Q, N * H] before the output.
        ``record`` takes in how much each query sees of each key."""
        if record is not None:
            record.append(attention_weights(query, keys, mask, causal=causal, scale=self.scale))
        rate = self.dropout if self.training else 0.0
        if draws_here(query, rate):
            if causal:
                mask = left_to_right(query.shape[2], keys.shape[2], query.device)[None, None]
            mixed = attend_dropping(query, keys, values, mask, rate=rate, scale=self.scale)
        else:
            mixed = F.scaled_dot_product_attention(
                query, keys, values, attn_mask=mask, dropout_p=rate, is_causal=causal, scale=self.scale
            )
        return mixed.transpose(1, 2).flatten(2)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None,
        causal: bool = False,
        distances: Distances | None = None,
        blanks: Tensor | None = None,
        cache: KVCache | None = None,
        depth: int = 0,
    ) -> Tensor:
        """Self-attention of x [B, L, D]. ``mask`` [B, 1 or N, Q, K], bool or numbers to add to the scores
        (None = all visible, or the plain left-to-right mask when ``causal``); ``distances`` for relative
        positions; ``blanks`` [1, M, D] stand before the first place of every row, to be seen only; with a
        cache, keys and values of earlier steps join in."""
        query, keys, values = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        if blanks is not None:
            keys, values = self._behind(blanks, self.key, keys), self._behind(blanks, self.value, values)
        if cache is not None:
            keys, values = cache.append(depth, keys, values)
        if self.relative is not None and distances is not None:
            query, scores = self.relative(query, keys, distances, cache=cache, depth=depth)
            mask = hidden_from(scores, mask)
        record = None if cache is None else cache.seen_of_self
        mixed = self._attend(query, keys, values, mask, causal=causal, record=record)
        attended: Tensor = self.output(mixed)
        return attended

    def _behind(self, blanks: Tensor, project: nn.Module, projected: Tensor) -> Tensor:
        """Keys or values [B, N, L, H] -> [B, N, M + L, H], with those of ``blanks`` [1, M, D] before them."""
        before = self._split(project(blanks)).expand(projected.shape[0], -1, -1, -1)
        return torch.cat([before, projected], dim=2)

    def cross_attend(
        self,
        x: Tensor,
        states: Tensor,
        *,
        mask: Tensor | None,
        cache: KVCache | None = None,
        depth: int = 0,
    ) -> Tensor:
        """Attention of x [R, Q, D] over the source's states [B, S, E]; ``mask`` bool [B, 1, 1, S].

        R is B times the number of beams: the beams of a source become more query rows of that source, so
        its keys and values are projected once and never copied per beam.
        """
        stored = None if cache is None else cache.cross(depth)
        if stored is None:
            stored = self._split(self.key(states)), self._split(self.value(states))
            if cache is not None:
                cache.set_cross(depth, *stored)
        keys, values = stored
        rows, length = x.shape[:2]
        query = self._split(self.query(x).view(keys.shape[0], -1, self.num_heads * self.head_size))
        record = None if cache is None else cache.seen_of_source
        mixed = self._attend(query, keys, values, mask, record=record)
        attended: Tensor = self.output(mixed.reshape(rows, length, -1))
        return attended


def attention_weights(
    query: Tensor, keys: Tensor, mask: Tensor | None, *, causal: bool, scale: float
) -> Tensor:
    """What scaled_dot_product_attention mixes values by and keeps to itself: [B, N, Q, K], float32, each row
    adding up to 1. Queries [B, N, Q, H], keys [B, N, K, H]; ``mask`` is bool or numbers to add."""
    scores = (query @ keys.transpose(-2, -1)).float() * scale
    if causal:
        mask = left_to_right(query.shape[2], keys.shape[2], query.device)
    if mask is not None:
        scores = hidden_from(scores, mask) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(dim=-1)


def left_to_right(queries: int, keys: int, device: torch.device) -> Tensor:
    """bool [Q, K]: the last ``queries`` of ``keys`` positions, each seeing itself and what came before."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
