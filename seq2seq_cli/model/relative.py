"""Positions as distances: what attention adds to its scores for how far a key stands from a query.

Distances are int [B or 1, Q, K], query's place minus key's: positive for keys that come before.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from seq2seq_cli.model.config import RelativePositions


class BucketBias(nn.Module):
    """One learned number per head and bucket of distances, the same at every depth (Raffel et al. 2020)."""

    def __init__(self, config: RelativePositions, *, num_heads: int, causal: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(config.rows, num_heads, _weight=torch.empty(config.rows, num_heads))
        self.furthest = config.furthest
        self.causal = causal

    def forward(self, distances: Tensor) -> Tensor:
        """[B or 1, Q, K] -> bias [B or 1, N, Q, K]."""
        bias: Tensor = self.table(self.buckets(distances))
        return bias.permute(0, 3, 1, 2)

    def buckets(self, distances: Tensor) -> Tensor:
        """Half of the buckets hold one near distance each, the others ever wider ranges up to ``furthest``.
        Without a causal mask the upper half of all buckets is for keys behind the query."""
        count = self.table.num_embeddings
        behind: Tensor | int = 0
        if self.causal:
            distances = distances.clamp(min=0)
        else:
            count //= 2
            behind = (distances < 0) * count
            distances = distances.abs()
        near = count // 2
        steps = torch.log(distances.clamp(min=1).float() / near) / math.log(self.furthest / near)
        far = (near + (steps * (count - near)).long()).clamp(max=count - 1)
        return behind + torch.where(distances < near, distances, far)


class DistanceVectors(nn.Module):
    """A learned vector per distance, multiplied with queries and, by choice, with keys (Shaw et al. 2018)."""

    def __init__(self, config: RelativePositions, *, head_size: int, scale: float) -> None:
        super().__init__()
        rows = 2 * config.rows - 1
        self.table = nn.Embedding(rows, head_size, _weight=torch.empty(rows, head_size))
        self.with_keys = config.kind == "key_query"
        self.reach = config.rows - 1
        self.scale = scale

    def forward(self, query: Tensor, keys: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
        """query [B, N, Q, H] and keys [B, N, K, H] -> query as it is, and what to add to the scaled scores
        [B, N, Q, K]."""
        vectors = self.table(distances + self.reach)
        scores = torch.einsum("bnqh,bqkh->bnqk", query, vectors.expand(query.shape[0], -1, -1, -1))
        if self.with_keys:
            scores = scores + torch.einsum("bnkh,bqkh->bnqk", keys, vectors.expand(keys.shape[0], -1, -1, -1))
        return query, scores * self.scale
