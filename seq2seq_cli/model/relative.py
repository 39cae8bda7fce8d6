"""Positions as distances: what attention adds to its scores for how far a key stands from a query."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from seq2seq_cli.model.cache import KVCache
from seq2seq_cli.model.config import RelativePositions, StackConfig
from seq2seq_cli.model.distances import Distances
from seq2seq_cli.model.linear import Linear


class BucketBias(nn.Module):
    """One learned number per head and bucket of distances, the same at every depth (Raffel et al. 2020)."""

    def __init__(self, config: RelativePositions, *, num_heads: int, causal: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(config.rows, num_heads, _weight=torch.empty(config.rows, num_heads))
        self.furthest = config.furthest
        self.causal = causal

    def forward(self, distances: Distances) -> Tensor:
        """Bias [B or 1, N, Q, K]."""
        return distances.spread(self.table(self.buckets(distances.span)).t())

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

    def forward(
        self,
        query: Tensor,
        keys: Tensor,
        distances: Distances,
        *,
        cache: KVCache | None = None,
        depth: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """query [B, N, Q, H] and keys [B, N, K, H] -> query as it is, and what to add to the scaled scores
        [B, N, Q, K]. Nothing of it is worth keeping in ``cache``."""
        vectors = self.table((distances.span + self.reach).clamp(0, 2 * self.reach))
        scores = distances.of_queries((query * self.scale) @ vectors.t())
        if self.with_keys:
            scores = scores + distances.of_keys((keys * self.scale) @ vectors.flip(0).t())
        return query, scores


class DistanceWaves(nn.Module):
    """Sines and cosines of the distance through a map of their own, multiplied with the queries; queries get
    one learned bias for what stands at a key and another for how far off it is (Dai et al. 2019, 3.3).

    With ``segments``, the layer holds what tells the query's text from others (Yang et al. 2019, 2.5). Where
    there is one text, as always here, that adds the same to all of a query's scores and so changes nothing:
    these parameters are frozen, and kept for whoever reads the saved folder.
    """

    def __init__(self, stack: StackConfig, config: RelativePositions, *, scale: float) -> None:
        super().__init__()
        heads, size = stack.num_heads, stack.head_size
        self.position = Linear(stack.hidden_size, heads * size, bias=False)
        self.content_bias = nn.Parameter(torch.empty(heads, size))
        self.position_bias = nn.Parameter(torch.empty(heads, size))
        self.segment_bias: nn.Parameter | None = None
        self.segment_embedding: nn.Parameter | None = None
        if config.segments:
            self.segment_bias = nn.Parameter(torch.empty(heads, size), requires_grad=False)
            self.segment_embedding = nn.Parameter(
                torch.empty(config.segments, heads, size), requires_grad=False
            )
        self.scale = scale

    def forward(
        self,
        query: Tensor,
        keys: Tensor,
        distances: Distances,
        *,
        cache: KVCache | None = None,
        depth: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """query [B, N, Q, H] -> query with its content bias, and what to add to the scaled scores
        [B, N, Q, K]. ``keys`` play no part in it; ``cache`` keeps the mapped waves from step to step."""
        rows, heads, length, size = query.shape
        waves = self._mapped(distances, cache, depth).to(query.dtype)
        asking = (query + self.position_bias[:, None].to(query.dtype)) * self.scale
        # one product a head over all rows of the batch: the waves are the same for each
        scores = torch.bmm(asking.transpose(0, 1).reshape(heads, rows * length, size), waves.transpose(1, 2))
        by_row = scores.view(heads, rows, length, -1).transpose(0, 1)
        return query + self.content_bias[:, None].to(query.dtype), distances.of_queries(by_row)

    def _mapped(self, distances: Distances, cache: KVCache | None, depth: int) -> Tensor:
        """[N, R, H]."""
        if cache is None or not distances.causal:
            return self._map(distances.waves(distances.keys - 1))
        wanted = distances.keys - distances.lowest
        kept = cache.waves.get(depth)
        if kept is None or kept.shape[1] < wanted:
            kept = cache.waves[depth] = self._map(distances.waves(2 * distances.keys))
        return kept[:, -wanted:]

    def _map(self, waves: Tensor) -> Tensor:
        heads, size = self.content_bias.shape
        mapped: Tensor = self.position(waves.to(self.position.weight.dtype))
        return mapped.view(-1, heads, size).transpose(0, 1)


Relative = DistanceVectors | DistanceWaves


def make_relative(stack: StackConfig, *, scale: float) -> Relative | None:
    """What a layer holds of the stack's relative positions; None where that is nothing."""
    config = stack.relative
    if config is None or config.kind == "buckets":
        return None
    if config.kind == "waves":
        return DistanceWaves(stack, config, scale=scale)
    return DistanceVectors(config, head_size=stack.head_size, scale=scale)
