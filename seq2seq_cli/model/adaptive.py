"""Vocabularies in clusters: frequent tokens have wide vectors and are scored first, rare ones narrower ones
that are looked at when their cluster is asked for (Grave et al. 2017; Baevski and Auli 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2seq_cli.model.config import AdaptiveConfig, HeadConfig, StackConfig
from seq2seq_cli.model.head import LabelPart
from seq2seq_cli.model.linear import Linear


def _bounds(adaptive: AdaptiveConfig, vocab_size: int) -> tuple[tuple[int, int], ...]:
    """First token and the one behind the last, of every cluster."""
    edges = (0, *adaptive.cutoffs, vocab_size)
    return tuple(pairwise(edges))


class AdaptiveEmbedding(nn.Module):
    """Token ids -> vectors of the hidden size.

    With a ``divisor`` above 1 every cluster has a table of its own, each narrower by that factor than the
    one before, and a map to the hidden size. Else one table holds all tokens, with a map where its width is
    not the hidden size.
    """

    def __init__(self, config: StackConfig, adaptive: AdaptiveConfig) -> None:
        super().__init__()
        width, hidden = config.embedding.size or config.hidden_size, config.hidden_size
        self.bounds: tuple[tuple[int, int], ...] = ((0, config.vocab_size),)
        if adaptive.divisor > 1:
            self.bounds = _bounds(adaptive, config.vocab_size)
        sizes = [width // adaptive.divisor**number for number in range(len(self.bounds))]
        self.tables = nn.ModuleList(
            nn.Embedding(end - start, size, _weight=torch.empty(end - start, size))
            for (start, end), size in zip(self.bounds, sizes, strict=True)
        )
        maps = sizes if adaptive.divisor > 1 or width != hidden else []
        self.projections = nn.ModuleList(Linear(size, hidden, bias=False) for size in maps)
        self.hidden_size = hidden

    def forward(self, ids: Tensor) -> Tensor:
        """[...] -> [..., D]. IndexError for ids beyond the last cluster, as of a plain table."""
        if len(self.tables) == 1:
            return self._cluster(0, ids)
        flat = ids.flatten()
        if bool(((flat < 0) | (flat >= self.bounds[-1][1])).any()):
            raise IndexError("an id is in no cluster")
        weight: Tensor = self.projections[0].weight  # type: ignore[assignment]
        vectors = weight.new_zeros(flat.shape[0], self.hidden_size)
        # clusters that do not occur take part as well, so that training gives every parameter a gradient
        for number, (start, end) in enumerate(self.bounds):
            where = ((flat >= start) & (flat < end)).nonzero().squeeze(1)
            found = self._cluster(number, flat.index_select(0, where) - start)
            vectors.index_copy_(0, where, found.to(vectors.dtype))
        return vectors.view(*ids.shape, self.hidden_size)

    def _cluster(self, number: int, ids: Tensor) -> Tensor:
        vectors: Tensor = self.tables[number](ids)
        return self.projections[number](vectors) if len(self.projections) else vectors


class AdaptiveHead(nn.Module):
    """Log-probabilities of all tokens: of the first cluster's together with one score for each other
    cluster, and of the others' within their cluster times the cluster's own probability.

    Tables and maps may be the embedding's. Where that has one table, the clusters are parts of its rows.
    """

    def __init__(self, config: StackConfig, head: HeadConfig, embedding: AdaptiveEmbedding) -> None:
        super().__init__()
        assert config.embedding.adaptive is not None
        self.bounds = _bounds(config.embedding.adaptive, config.vocab_size)
        tables = [table for table in embedding.tables if isinstance(table, nn.Embedding)]
        self.outputs = nn.ModuleList(Linear(t.embedding_dim, t.num_embeddings) for t in tables)
        if head.tied:
            for output, table in zip(self.outputs, tables, strict=True):
                output.weight = table.weight
        self.projections = nn.ModuleList()
        if len(embedding.projections):
            for number in range(len(self.bounds)):
                theirs = embedding.projections[min(number, len(embedding.projections) - 1)]
                assert isinstance(theirs, Linear)
                projection = Linear(theirs.in_features, theirs.out_features, bias=False)
                if head.tied_projections[number]:
                    projection.weight = theirs.weight
                self.projections.append(projection)
        self.clusters: Linear | None = None
        if len(self.bounds) > 1:
            self.clusters = Linear(tables[0].embedding_dim, len(self.bounds) - 1)

    def forward(self, states: Tensor, *, likeliest: int | None = None, room: object = None) -> Tensor:
        """[..., D] -> [..., V]; all are right, and in new memory, whatever ``Head`` would do."""
        first = F.linear(*self._scored(0, states))
        if self.clusters is None:
            return first.log_softmax(-1)
        own = first.shape[-1]
        # copies of the small matrices: products with few columns round by where in memory a matrix lies
        others = F.linear(self._narrowed(0, states), self.clusters.weight.clone(), self.clusters.bias)
        first = torch.cat([first, others], dim=-1).log_softmax(-1)
        parts = [first[..., :own]]
        for number in range(1, len(self.bounds)):
            within = F.linear(*self._scored(number, states)).log_softmax(-1)
            parts.append(within + first[..., own + number - 1, None])
        return torch.cat(parts, dim=-1)

    def label_parts(self, states: Tensor, labels: Tensor) -> Iterator[LabelPart]:
        """States [M, D] with the tokens that they should foretell [M] as choices whose losses add up: first
        among the first cluster and the other clusters, then within the label's cluster."""
        narrowed, weight, bias = self._scored(0, states)
        edges = torch.tensor([end for _, end in self.bounds[:-1]], device=labels.device)
        cluster = torch.bucketize(labels, edges, right=True)
        if self.clusters is not None:
            choice = torch.where(cluster == 0, labels, weight.shape[0] + cluster - 1)
            weight = torch.cat([weight, self.clusters.weight])
            bias = torch.cat([bias, self.clusters.bias])
        else:
            choice = labels
        yield LabelPart(states=narrowed, weight=weight, bias=bias, labels=choice)
        for number, (start, _) in enumerate(self.bounds[1:], start=1):
            where = (cluster == number).nonzero().squeeze(1)
            narrowed, weight, bias = self._scored(number, states.index_select(0, where))
            within = labels.index_select(0, where) - start
            yield LabelPart(states=narrowed, weight=weight, bias=bias, labels=within)

    @property
    def adds_up(self) -> bool:
        """False where the loss is that of one choice among all tokens."""
        return len(self.bounds) > 1

    def _scored(self, number: int, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States as wide as the cluster's vectors, those vectors, and their biases."""
        output = self.outputs[min(number, len(self.outputs) - 1)]
        weight, bias = output.weight, output.bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        if len(self.outputs) < len(self.bounds):
            part = slice(*self.bounds[number])
            weight, bias = weight[part], bias[part]
        return self._narrowed(number, states), weight, bias

    def _narrowed(self, number: int, states: Tensor) -> Tensor:
        if not len(self.projections):
            return states
        weight = self.projections[number].weight
        assert isinstance(weight, Tensor)
        return F.linear(states, weight.t().contiguous())
