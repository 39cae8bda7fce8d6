"""One stack: embeddings, layers, final norm, optional head. Encoder, decoder or language model by config."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from seq2seq_cli.model.adaptive import AdaptiveEmbedding, AdaptiveHead
from seq2seq_cli.model.attention import hidden_from, source_mask
from seq2seq_cli.model.cache import KVCache
from seq2seq_cli.model.config import OpenPlace, SpecialIds, StackConfig
from seq2seq_cli.model.dropout import Dropout
from seq2seq_cli.model.errors import InputError
from seq2seq_cli.model.head import Head, Room
from seq2seq_cli.model.layer import Layer, make_norm
from seq2seq_cli.model.lengths import by_length, pays
from seq2seq_cli.model.linear import Linear
from seq2seq_cli.model.positions import sinusoids
from seq2seq_cli.model.relative import BucketBias, DistanceWaves
from seq2seq_cli.model.sight import sight


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What a decoder attends to: states [B, S, D] and mask bool [B, S] (true = visible).

    ``memory``: for one stack that reads the source as its own past, the cache that holds it.
    """

    states: Tensor
    mask: Tensor
    memory: KVCache | None = None


def _table(rows: int, size: int) -> nn.Embedding:
    """An embedding whose values come later. The plain constructor draws normal numbers, which on the meta
    device imports torch's compiler (seconds, and 70 MB, at every start)."""
    return nn.Embedding(rows, size, _weight=torch.empty(rows, size))


class Stack(nn.Module):
    """Token ids in, hidden states (or logits, when there is a head) out."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        self.special_ids = SpecialIds()
        self.generation: dict[str, object] = {}
        #: where it writes, when it was trained to fill gaps; None = each place foretells the next one
        self.open_place: OpenPlace | None = None
        embedding = config.embedding
        width = embedding.size or config.hidden_size
        self.embedding: nn.Embedding | AdaptiveEmbedding
        if embedding.adaptive is None:
            self.embedding = _table(config.vocab_size, width)
        else:
            self.embedding = AdaptiveEmbedding(config, embedding.adaptive)
        self.mask_embedding: nn.Parameter | None = None
        if embedding.mask_row:
            self.mask_embedding = nn.Parameter(torch.empty(1, 1, width), requires_grad=False)
        self.position_embedding: nn.Embedding | None = None
        if embedding.positions in ("learned", "fixed"):
            self.position_embedding = _table(config.max_positions + embedding.position_offset, width)
            self.position_embedding.requires_grad_(embedding.positions == "learned")
        self.token_type_embedding = _table(embedding.token_types, width) if embedding.token_types else None
        self.language_embedding: nn.Embedding | None = None
        if embedding.languages:
            self.language_embedding = _table(embedding.languages, width)
            self.language_embedding.requires_grad_(embedding.language is not None)
        self.embedding_norm = make_norm(config, width) if embedding.norm else None
        self.embedding_projection: Linear | None = None
        if embedding.size is not None and embedding.adaptive is None:
            self.embedding_projection = Linear(width, config.hidden_size)
        self.embedding_dropout = Dropout(embedding.dropout)
        self.order = config.layer_order or tuple(range(config.num_layers))
        self.layers = nn.ModuleList(Layer(config, depth) for depth in range(max(self.order) + 1))
        self.relative_bias: BucketBias | None = None
        relative = config.relative
        if relative is not None and relative.kind == "buckets":
            self.relative_bias = BucketBias(relative, num_heads=config.num_heads, causal=config.causal)
        if relative is not None and relative.shared_biases:
            self._share_biases()
        self.distance_dropout = Dropout(0.0 if relative is None else relative.dropout)
        #: blank states before a sequence, and those that a cache keeps. A target is read and written as one
        #: whole behind its source, with nothing before it and nothing forgotten.
        self.memory = 0 if relative is None or config.cross_attention else relative.memory
        self.final_norm: nn.Module | None = None
        self.final_dropout: nn.Module = nn.Identity()
        if config.final_norm is not None:
            if config.final_norm.norm:
                self.final_norm = make_norm(config, eps=config.final_norm.eps)
            if config.final_norm.dropout:
                self.final_dropout = Dropout(config.final_norm.dropout)
        #: training works each layer out again on the way back instead of keeping what it computed
        self.recomputes = False
        self.head: Head | AdaptiveHead | None = None
        if config.head is not None and isinstance(self.embedding, AdaptiveEmbedding):
            self.head = AdaptiveHead(config, config.head, self.embedding)
        elif config.head is not None and isinstance(self.embedding, nn.Embedding):
            self.head = Head(config, config.head, self.embedding)

    def _share_biases(self) -> None:
        """Give every layer the first one's biases of the queries."""
        waves = [module for module in self.layers.modules() if isinstance(module, DistanceWaves)]
        for other in waves[1:]:
            other.content_bias, other.position_bias = waves[0].content_bias, waves[0].position_bias

    def new_cache(self, capacity: int) -> KVCache:
        """An empty cache for sequences of about ``capacity`` tokens (it grows when they are longer)."""
        most = min(capacity, self.config.max_positions)
        return KVCache(num_layers=self.config.num_layers, capacity=most, memory=self.memory)

    def embed(
        self, ids: Tensor, mask: Tensor | None, seen: Tensor | int, *, place: OpenPlace | None = None
    ) -> Tensor:
        """ids [B, L] -> [B, L, D]. Positions count visible tokens, so padding on either side changes
        nothing; ``seen`` [B, 1] (or one number) tokens came before, in a cache. ``place``: what the last
        one is. InputError for ids that the vocabulary lacks and for more tokens than positions."""
        try:
            x: Tensor = self.embedding(ids)
        except IndexError:
            raise InputError(f"token ids must be from 0 to {self.config.vocab_size - 1}") from None
        if place is not None and place.token is None:
            assert self.mask_embedding is not None
            x = torch.cat([x[:, :-1], self.mask_embedding.expand(x.shape[0], -1, -1)], dim=1)
        if self.config.embedding.scale != 1.0:
            x = x * self.config.embedding.scale
        if self.token_type_embedding is not None:
            x = x + self.token_type_embedding.weight[0]
        language = self.config.embedding.language if place is None else place.language
        if self.language_embedding is not None and language is not None:
            x = x + self.language_embedding.weight[language]
        if self.config.embedding.positions != "none":
            x = x + self._positions(ids, mask, seen)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        x = self.embedding_dropout(x)
        return x if self.embedding_projection is None else self.embedding_projection(x)

    def _positions(self, ids: Tensor, mask: Tensor | None, seen: Tensor | int) -> Tensor:
        """[B or 1, L, D]: what stands for each token's place."""
        if mask is None:
            places = torch.arange(ids.shape[1], device=ids.device)[None] + seen
        else:
            places = (mask.long().cumsum(1) + seen - 1).clamp(min=0)  # hidden ones take no new place
        if self.position_embedding is None:
            return sinusoids(places, self.config.embedding.size or self.config.hidden_size)
        try:
            looked_up: Tensor = self.position_embedding(places + self.config.embedding.position_offset)
        except IndexError:
            limit = self.config.max_positions
            raise InputError(f"{int(places.max()) + 1} tokens are more than the {limit} positions") from None
        return looked_up

    def states(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        *,
        encoded: Encoded | None = None,
        cache: KVCache | None = None,
        prefix: int = 0,
        place: OpenPlace | None = None,
    ) -> Tensor:
        """Last hidden states [B, L, D] of ids [B, L].

        mask: [B, L], true or 1 = visible; None = all visible. ``encoded``: the source to attend to.
        ``cache``: earlier tokens of the same rows; it takes in these ones as well. ``prefix``: so many of a
        row's first places see each other both ways, whatever the stack is (Dong et al. 2019, 2.3).
        ``place``: what the last place of every row is.
        """
        if mask is not None:
            mask = None if bool(mask.all()) else mask.bool()
        past = 0 if cache is None else cache.length
        seen: Tensor | int = past
        if cache is not None and cache.mask is not None:
            seen = cache.mask.sum(1, keepdim=True)
        x = self.embed(ids, mask, seen, place=place)
        starts = cache is None or not cache.slots
        blanks = x.new_zeros(1, self.memory, x.shape[2]) if self.memory and starts else None
        relative = self.config.relative
        seen_sight = sight(
            self.config,
            ids,
            mask,
            cache,
            prefix=prefix,
            hidden=1 if place is not None and place.token is None else 0,
            blanks=0 if blanks is None else self.memory,
            window=self.memory if relative is not None and relative.same_length else 0,
            dropout=self.distance_dropout,
        )
        attention_mask, distances = seen_sight.mask, seen_sight.distances
        if self.relative_bias is not None and distances is not None:
            attention_mask = hidden_from(self.relative_bias(distances), attention_mask)
        plain_causal = self.config.causal and attention_mask is None and ids.shape[1] > 1
        states = None if encoded is None else encoded.states
        states_mask = None if encoded is None else source_mask(encoded.mask)
        recomputes = self.recomputes and self.training and cache is None and torch.is_grad_enabled()
        if recomputes and relative is not None and relative.kind == "waves" and distances is not None:
            distances.waves(distances.keys - 1)  # drawn once for all layers, and so outside of each
        for depth, which in enumerate(self.order):
            layer = partial(
                self.layers[which],
                mask=attention_mask,
                causal=plain_causal,
                distances=distances,
                blanks=blanks,
                states=states,
                states_mask=states_mask,
                cache=cache,
                depth=depth,
            )
            # dropout falls on the same places the second time: the generator's state is kept for it
            x = checkpoint(layer, x, use_reentrant=False) if recomputes else layer(x)
        if cache is not None:
            cache.advance(mask, steps=ids.shape[1], rows=ids.shape[0], device=ids.device)
        if self.final_norm is not None:
            x = self.final_norm(x)
        dropped: Tensor = self.final_dropout(x)
        return dropped

    def open_states(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """States [B, D] of the open place behind ids [B, L], padded on the left. The one that nothing sees is
        the query stream of Yang et al. (2019, 2.3), for this place alone."""
        if self.open_place is None:
            raise TypeError("this stack has no open place")
        ids = F.pad(ids, (0, 1), value=self.open_place.token or 0)
        mask = None if mask is None else F.pad(mask.bool(), (0, 1), value=True)
        return self.states(ids, mask, prefix=ids.shape[1], place=self.open_place)[:, -1]

    def logits(self, states: Tensor, *, likeliest: int | None = None, room: Room | None = None) -> Tensor:
        """[..., D] -> [..., V]; the stack must have a head, which says what the others are."""
        if self.head is None:
            raise TypeError("this stack has no language model head")
        logits: Tensor = self.head(states, likeliest=likeliest, room=room)
        return logits

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        *,
        encoded: Encoded | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Logits [B, L, V] when the stack has a head, else hidden states [B, L, D]."""
        plain = self.head is None and encoded is None and cache is None and not self.training
        if plain and mask is not None and pays(ids, mask):
            return by_length(self.states, ids, mask).put_back()
        states = self.states(ids, mask, encoded=encoded, cache=cache)
        return states if self.head is None else self.logits(states)
