"""Products in whole numbers of eight bits, for decoding on a CPU: smaller, and faster where its processor has
instructions for them (Dettmers et al. 2022, 2.1: one scale a row of either matrix)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seq2seq_cli.model.attention import Attention
from seq2seq_cli.model.head import Head
from seq2seq_cli.model.layer import FeedForward
from seq2seq_cli.model.linear import Linear
from seq2seq_cli.model.rounding import rounded


class QuantizedLinear(nn.Module):
    """x [..., in] -> about x @ weight.T + bias [..., out].

    Each row of the weight is kept in eight bits with its scale; each row of x gets its own at every call.
    """

    weight: Tensor  # int8 [out, in]
    scale: Tensor  # [out]

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        whole, scale = rounded(weight.detach())
        self.register_buffer("weight", whole)
        self.register_buffer("scale", scale[:, 0])
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        whole, scale = rounded(x.reshape(-1, x.shape[-1]))
        y = (torch._int_mm(whole, self.weight.t()) * self.scale).mul_(scale)
        if self.bias is not None:
            y += self.bias
        return y.view(*x.shape[:-1], -1)


def quantize(model: nn.Module) -> None:
    """Replace the matrices of attention, feed-forward and head by their rounded form, in place.

    Embeddings keep their precision. A head that shares its matrix with them gets a rounded copy, and what is
    clustered (``adaptive``) stays as it is. The model can be used, not trained or saved.
    """
    for module in model.modules():
        if isinstance(module, (Attention, FeedForward)):
            for name, child in list(module.named_children()):
                if isinstance(child, Linear):
                    setattr(module, name, QuantizedLinear(child.weight, child.bias))
        elif isinstance(module, Head) and module.product is None:
            module.product = QuantizedLinear(module.weight, module.bias)
            if not module.is_tied:
                del module.weight


def is_quantized(model: nn.Module) -> bool:
    """Whether ``quantize`` has seen it."""
    return any(isinstance(module, QuantizedLinear) for module in model.modules())
