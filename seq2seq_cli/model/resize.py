"""More rows for a stack's vocabulary."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from seq2seq_cli.model.adaptive import AdaptiveHead
from seq2seq_cli.model.stack import Stack


def add_tokens(stack: Stack, count: int, *, generator: torch.Generator | None = None) -> dict[str, int]:
    """Lengthen token embedding and head by ``count`` fresh rows, behind those that are there.

    Returns the number of fresh values per parameter. A tied head stays tied. TypeError for an embedding
    that is not one plain table.
    """
    if not isinstance(stack.embedding, nn.Embedding) or isinstance(stack.head, AdaptiveHead):
        raise TypeError("only a plain embedding table can grow")
    config = stack.config
    std = config.embedding.init_std or config.init_std

    def longer(old: Tensor, spread: float) -> nn.Parameter:
        rows = torch.empty(count, *old.shape[1:]).normal_(0.0, 1.0, generator=generator) * spread
        return nn.Parameter(torch.cat([old.detach(), rows.to(old.dtype)]))

    tied = stack.head is not None and stack.head.weight is stack.embedding.weight
    stack.embedding.weight = longer(stack.embedding.weight, std)
    stack.embedding.num_embeddings += count
    fresh = {"embedding.weight": stack.embedding.weight[-count:].numel()}
    if stack.head is not None:
        if tied:
            stack.head.weight = stack.embedding.weight
        else:
            stack.head.weight = longer(stack.head.weight, config.init_std)
            fresh["head.weight"] = stack.head.weight[-count:].numel()
        if stack.head.bias is not None:
            stack.head.bias = longer(stack.head.bias, 0.0)
            fresh["head.bias"] = count
    stack.config = replace(config, vocab_size=config.vocab_size + count)
    return fresh
