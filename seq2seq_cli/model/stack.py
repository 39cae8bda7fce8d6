"""One stack: embeddings, layers, final norm, optional head. Encoder, decoder or language model by config."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seq2seq_cli.model.attention import left_to_right, safe_mask, source_mask
from seq2seq_cli.model.cache import KVCache
from seq2seq_cli.model.config import SpecialIds, StackConfig
from seq2seq_cli.model.head import Head
from seq2seq_cli.model.layer import Layer


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What a decoder attends to: states [B, S, D] and mask bool [B, S] (true = visible)."""

    states: Tensor
    mask: Tensor


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
        self.embedding = _table(config.vocab_size, config.hidden_size)
        self.position_embedding: nn.Embedding | None = None
        if config.positions == "learned":
            rows = config.max_positions + config.position_offset
            self.position_embedding = _table(rows, config.hidden_size)
        self.token_type_embedding: nn.Embedding | None = None
        if config.token_types:
            self.token_type_embedding = _table(config.token_types, config.hidden_size)
        self.embedding_norm: nn.LayerNorm | None = None
        if config.embedding_norm:
            self.embedding_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.layers = nn.ModuleList(Layer(config, depth) for depth in range(config.num_layers))
        self.final_norm: nn.LayerNorm | None = None
        if config.norm_order == "pre":
            self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.head = Head(config, self.embedding) if config.head != "none" else None

    def new_cache(self, capacity: int) -> KVCache:
        """An empty cache for sequences of about ``capacity`` tokens (it grows when they are longer)."""
        return KVCache(num_layers=self.config.num_layers, capacity=min(capacity, self.config.max_positions))

    def embed(self, ids: Tensor, mask: Tensor | None, seen: Tensor | int) -> Tensor:
        """ids [B, L] -> [B, L, D]. Positions count visible tokens, so padding on either side changes
        nothing; ``seen`` [B, 1] (or one number) tokens came before, in a cache."""
        x: Tensor = self.embedding(ids)
        if self.token_type_embedding is not None:
            x = x + self.token_type_embedding.weight[0]
        if self.position_embedding is not None:
            if mask is None:
                positions = torch.arange(ids.shape[1], device=ids.device) + seen
            else:
                positions = (mask.long().cumsum(1) - 1).clamp(min=0) + seen
            x = x + self.position_embedding(positions + self.config.position_offset)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        dropped: Tensor = self.embedding_dropout(x)
        return dropped

    def states(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        *,
        encoded: Encoded | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Last hidden states [B, L, D] of ids [B, L].

        mask: [B, L], true or 1 = visible; None = all visible. ``encoded``: the source to attend to.
        ``cache``: earlier tokens of the same rows; it takes in these ones as well.
        """
        if mask is not None:
            mask = None if bool(mask.all()) else mask.bool()
        past = 0 if cache is None else cache.length
        seen: Tensor | int = past
        if cache is not None and cache.mask is not None:
            seen = cache.mask.sum(1, keepdim=True)
        x = self.embed(ids, mask, seen)
        attention_mask = self._self_mask(ids, mask, cache)
        plain_causal = self.config.causal and attention_mask is None and ids.shape[1] > 1
        states = None if encoded is None else encoded.states
        states_mask = None if encoded is None else source_mask(encoded.mask)
        for depth, layer in enumerate(self.layers):
            x = layer(
                x,
                mask=attention_mask,
                causal=plain_causal,
                states=states,
                states_mask=states_mask,
                cache=cache,
                depth=depth,
            )
        if cache is not None:
            cache.advance(mask, steps=ids.shape[1], rows=ids.shape[0], device=ids.device)
        if self.final_norm is not None:
            x = self.final_norm(x)
        return x

    def _self_mask(self, ids: Tensor, mask: Tensor | None, cache: KVCache | None) -> Tensor | None:
        """bool [B, 1, Q, K], or None where the plain mask of the stack (full or causal) is meant."""
        rows, length = ids.shape
        past = 0 if cache is None else cache.length
        past_mask = None if cache is None else cache.mask
        if mask is None and past_mask is None and (past == 0 or length == 1):
            return None
        keys = torch.ones(rows, length, dtype=torch.bool, device=ids.device) if mask is None else mask
        if past:
            before = past_mask if past_mask is not None else keys.new_ones(rows, past)
            keys = torch.cat([before, keys], dim=1)
        visible = keys[:, None, None, :]
        if self.config.causal:
            visible = visible & left_to_right(length, past + length, ids.device)
        return safe_mask(visible)

    def logits(self, states: Tensor) -> Tensor:
        """[..., D] -> [..., V]; the stack must have a head."""
        if self.head is None:
            raise TypeError("this stack has no language model head")
        logits: Tensor = self.head(states)
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
        states = self.states(ids, mask, encoded=encoded, cache=cache)
        return states if self.head is None else self.logits(states)


def initialise(
    module: nn.Module,
    *,
    config: StackConfig,
    only: Collection[str] | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Give the parameters named in ``only`` (default: all) their starting values, the family's way.

    normal(0, init_std) for matrices, zero biases, norms at identity; GPT-2 also shrinks the projections
    that add to the residual stream by sqrt(2 * layers) (Radford et al. 2019, 2.3).
    """
    residual_std = config.init_std / math.sqrt(2 * config.num_layers)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if only is not None and name not in only:
                continue
            owner, _, leaf = name.rpartition(".")
            if leaf == "bias":
                parameter.zero_()
            elif owner.endswith("norm"):
                parameter.fill_(1.0)
            else:
                residual = config.init_scaled_residual and owner.endswith(("output", "outer"))
                parameter.normal_(0.0, residual_std if residual else config.init_std, generator=generator)
