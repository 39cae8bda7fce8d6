"""From hidden states to vocabulary logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2seq_cli.model.activation import ACTIVATIONS
from seq2seq_cli.model.config import StackConfig


class Head(nn.Module):
    """logits = transform(states) @ weight.T + bias.

    ``transform`` (dense, activation, norm) is BERT's (Devlin et al. 2019, masked LM head); others have
    none. The matrix is the token embedding itself when it is tied, so there is one copy of it.
    """

    def __init__(self, config: StackConfig, embedding: nn.Embedding) -> None:
        super().__init__()
        self.dense: nn.Linear | None = None
        self.norm: nn.LayerNorm | None = None
        if config.head == "transform":
            self.dense = nn.Linear(config.hidden_size, config.hidden_size)
            self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.activation = ACTIVATIONS[config.head_activation]
        if config.tie_head:
            self.weight = embedding.weight
        else:
            self.weight = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.head_bias else None

    def transform(self, states: Tensor) -> Tensor:
        """States [..., D] as the vocabulary matrix wants them."""
        if self.dense is None or self.norm is None:
            return states
        transformed: Tensor = self.norm(self.activation(self.dense(states)))
        return transformed

    def forward(self, states: Tensor) -> Tensor:
        """[..., D] -> [..., V]."""
        return F.linear(self.transform(states), self.weight, self.bias)
