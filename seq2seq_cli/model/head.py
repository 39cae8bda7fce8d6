"""From hidden states to vocabulary logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2seq_cli.model.activation import ACTIVATIONS
from seq2seq_cli.model.config import HeadConfig, StackConfig
from seq2seq_cli.model.layer import make_norm
from seq2seq_cli.model.linear import Linear
from seq2seq_cli.model.shortlist import Preview


@dataclass(frozen=True, kw_only=True)
class LabelPart:
    """One choice among C things: states [M, E], their scores states @ weight.T + bias, and what was to be
    chosen [M]; its loss is the cross-entropy of those."""

    states: Tensor
    weight: Tensor
    bias: Tensor | None
    labels: Tensor


class Room:
    """Memory for logits that is used again at every step: new memory of their size would cost a third of the
    product that fills it."""

    def __init__(self) -> None:
        self._numbers: Tensor | None = None

    def of(self, states: Tensor, columns: int) -> Tensor:
        """[R, columns] for states [R, D]; what it held is lost."""
        numbers = self._numbers
        if numbers is None or len(numbers) < len(states):
            numbers = self._numbers = states.new_empty(len(states), columns)
        return numbers[: len(states)]


class Head(nn.Module):
    """logits = transform(states) @ weight.T + bias.

    ``transform`` (dense, activation, norm) is BERT's (Devlin et al. 2019, masked LM head); others have
    none, or a factor (T5). The matrix is the token embedding itself when it is tied, so there is one copy
    of it.
    """

    def __init__(self, config: StackConfig, head: HeadConfig, embedding: nn.Embedding) -> None:
        super().__init__()
        size = embedding.embedding_dim
        self.dense: Linear | None = None
        self.norm: nn.Module | None = None
        if head.transform:
            self.dense = Linear(config.hidden_size, size)
            self.norm = make_norm(config, size)
        self.activation = ACTIVATIONS[head.activation]
        self.scale = head.scale
        self.is_tied = head.tied
        self.product: nn.Module | None = None  #: stands in for weight and bias where they were rounded
        if head.tied:
            self.weight = embedding.weight
        else:
            self.weight = nn.Parameter(torch.empty(config.vocab_size, size))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if head.bias else None
        self._preview = Preview()

    def transform(self, states: Tensor) -> Tensor:
        """States [..., D] as the vocabulary matrix wants them."""
        if self.dense is not None and self.norm is not None:
            states = self.norm(self.activation(self.dense(states)))
        return states if self.scale == 1.0 else states * self.scale

    def train(self, mode: bool = True) -> Head:
        """As ``nn.Module.train``; before training, what is known of the matrix for decoding is dropped."""
        if mode:
            self._preview.forget()
        return super().train(mode)

    def forward(self, states: Tensor, *, likeliest: int | None = None, room: Room | None = None) -> Tensor:
        """[..., D] -> [..., V]. With ``likeliest``, so many of the largest have to be right; the others may
        be -inf. With ``room``, what it gave for states [R, D] before is overwritten."""
        states = self.transform(states)
        if likeliest is not None and self.product is None and not torch.is_grad_enabled():
            few = self._preview.scores(states, self.weight, self.bias, likeliest)
            if few is not None:
                return few
        if self.product is not None:
            rounded: Tensor = self.product(states)
            return rounded
        if room is None or states.ndim != 2:
            return F.linear(states, self.weight, self.bias)
        logits = room.of(states, len(self.weight))
        if self.bias is None:
            return torch.mm(states, self.weight.t(), out=logits)
        return torch.addmm(self.bias, states, self.weight.t(), out=logits)

    def label_parts(self, states: Tensor, labels: Tensor) -> Iterator[LabelPart]:
        """States [M, D] with the tokens that they should foretell [M] as choices whose losses add up: one."""
        yield LabelPart(states=self.transform(states), weight=self.weight, bias=self.bias, labels=labels)

    @property
    def adds_up(self) -> bool:
        """False: the loss is that of one choice among all tokens."""
        return False
