"""Low-rank updates of matrices that stand still (Hu et al. 2022): W x + s B A x."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2seq_cli.model.linear import Linear

#: what the parameters of an update are called, behind their module's name
LEAVES = ("lora_a", "lora_b")


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """rank r, and what the product is scaled by: alpha / r, with ``use_rslora`` alpha / sqrt(r)
    (Kalajdzievski 2023). ``dropout`` falls on what the update reads, in training."""

    r: int
    alpha: float
    dropout: float = 0.0
    use_rslora: bool = False

    @property
    def scale(self) -> float:
        """The factor before B A."""
        return self.alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


class AdaptedLinear(Linear):
    """x [..., in] -> x @ (weight + scale * lora_b @ lora_a).T + bias [..., out].

    Weight and bias are those of ``base``, the same parameters; lora_a is [r, in], lora_b [out, r].
    """

    def __init__(self, base: nn.Linear, lora_a: nn.Parameter, *, scale: float, dropout: float = 0.0) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.lora_a = lora_a
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, len(lora_a)))
        self.scale = scale
        self.lora_dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        read = F.dropout(x, self.lora_dropout, self.training)
        update = F.linear(F.linear(read, self.lora_a), self.lora_b)
        return F.linear(x, self.weight, self.bias) + update * self.scale

    def merged(self) -> Tensor:
        """The one matrix that does the same (dropout aside)."""
        return torch.addmm(self.weight.detach(), self.lora_b.detach(), self.lora_a.detach(), alpha=self.scale)


def adapt(
    model: nn.Module,
    names: Sequence[str],
    settings: LoraSettings,
    *,
    generator: torch.Generator | None = None,
) -> list[AdaptedLinear]:
    """Give the matrices ``names`` of ``model`` an update each, which is zero at first. They read the same
    input and have one lora_a, as the parts of one published matrix do."""
    bases = [base for base in map(model.get_submodule, names) if isinstance(base, nn.Linear)]
    width = bases[0].in_features
    bound = 1 / math.sqrt(width)  # as torch draws a matrix of this width, and as PEFT does
    lora_a = nn.Parameter(torch.empty(settings.r, width).uniform_(-bound, bound, generator=generator))
    made = []
    for name, base in zip(names, bases, strict=True):
        owner, _, leaf = name.rpartition(".")
        adapted = AdaptedLinear(base, lora_a, scale=settings.scale, dropout=settings.dropout)
        setattr(model.get_submodule(owner), leaf, adapted.train(base.training))
        made.append(adapted)
    return made


def merged_weights(model: nn.Module) -> dict[int, Tensor]:
    """The ``id`` of each adapted matrix of ``model`` -> the matrix with its update."""
    adapted = (module for module in model.modules() if isinstance(module, AdaptedLinear))
    return {id(module.weight): module.merged() for module in adapted}
