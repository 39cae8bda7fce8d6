"""Cross-entropy over a large vocabulary without ever holding the logits of a whole batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seq2seq_cli.model.adaptive import AdaptiveHead
from seq2seq_cli.model.head import Head

#: Labels with this value do not count.
IGNORED = -100
#: Logits that exist at one time: 256 rows of a vocabulary of 50,000 (51 MB in float32).
_CHUNK_ELEMENTS = 256 * 50_257
#: Fewer rows than this make the matrix products slow.
_FEWEST_ROWS = 64

#: One buffer for each device and dtype, kept between steps: blocks of this size go back to the system at
#: every free and cost page faults when they are taken again.
_buffers: dict[tuple[torch.device, torch.dtype], Tensor] = {}


def summed_loss(
    head: Head | AdaptiveHead, states: Tensor, labels: Tensor, *, smoothing: float = 0.0
) -> Tensor:
    """Sum of the cross-entropies of states [B, T, D] at labels [B, T], those of -100 left out; a float32
    scalar."""
    labelled = (labels != IGNORED).flatten().nonzero().squeeze(1)
    chosen = states.flatten(0, 1).index_select(0, labelled)
    loss = torch.zeros((), device=states.device)
    for part in head.label_parts(chosen, labels.flatten().index_select(0, labelled)):
        loss = loss + label_loss(part.states, part.weight, part.bias, part.labels, smoothing=smoothing)
    return loss


def label_loss(
    states: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, *, smoothing: float = 0.0
) -> Tensor:
    """Sum of the cross-entropies of softmax(states @ weight.T + bias) at ``labels``; a scalar, float32.

    states [N, D], weight [V, D], bias [V] or None, labels [N] in [0, V). ``smoothing`` spreads that much
    of the target probability evenly over the vocabulary (Szegedy et al. 2016, section 7), exactly as
    ``F.cross_entropy(label_smoothing=..., reduction="sum")``. The gradients are worked out on the way
    forward, chunk by chunk (two products instead of keeping N x V logits for later), and only where they
    are wanted.
    """
    gradients = torch.is_grad_enabled()
    loss: Tensor = _LabelLoss.apply(states, weight, bias, labels, smoothing, gradients)  # type: ignore[no-untyped-call]
    return loss


class _LabelLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        smoothing: float,
        gradients: bool,
    ) -> Tensor:
        for_states, for_weight, for_bias = (gradients and ctx.needs_input_grad[i] for i in range(3))
        with torch.autocast(states.device.type, enabled=False):
            matrix = weight.detach().to(states.dtype)  # mixed precision: the products in the states' format
            d_states = torch.empty_like(states) if for_states else None
            d_weight = torch.empty_like(weight) if for_weight else None
            d_bias = torch.zeros_like(bias) if bias is not None and for_bias else None
            total = torch.zeros((), dtype=torch.float32, device=states.device)
            rows = max(_FEWEST_ROWS, _CHUNK_ELEMENTS // len(matrix))
            for start in range(0, len(states), rows):
                part = slice(start, start + rows)
                scores = _scores(states[part], matrix, bias)
                total += _softmax_minus_target(scores, labels[part], smoothing)
                scores = scores.to(states.dtype)
                if d_states is not None:
                    torch.mm(scores, matrix, out=d_states[part])
                if d_weight is not None:
                    _add_product(d_weight, scores.t(), states[part], first=start == 0)
                if d_bias is not None:
                    d_bias += scores.sum(0)
            if d_weight is not None and not len(states):
                d_weight.zero_()
        ctx.gradients = (d_states, d_weight, d_bias)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        # in place and handed over: autograd may then keep them as the parameters' gradients without a copy
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("a second backward through the same label_loss")
        scaled = [None if d is None else d.mul_(d_loss) for d in gradients]
        return (*scaled, None, None, None)


def _add_product(total: Tensor, left: Tensor, right: Tensor, *, first: bool) -> None:
    """total += left @ right (= for the first), in total's format."""
    if total.dtype == left.dtype:
        total.addmm_(left, right, beta=0 if first else 1)
    elif first:
        total.copy_(left @ right)
    else:
        total.add_(left @ right)


def _scores(states: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """Logits [C, V] in float32, in the kept buffer."""
    key = (states.device, states.dtype)
    size = len(states) * len(matrix)
    if key not in _buffers or _buffers[key].numel() < size:
        with torch.inference_mode(False):  # a tensor made in inference mode may not be written to outside
            _buffers[key] = torch.empty(size, dtype=states.dtype, device=states.device)
    scores = _buffers[key][:size].view(len(states), len(matrix))
    torch.mm(states, matrix.t(), out=scores)
    if scores.dtype != torch.float32:
        scores = scores.float()
    return scores if bias is None else scores.add_(bias.detach())


def _softmax_minus_target(scores: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Turn logits [C, V] into the loss's gradient by them, in place; return the summed loss."""
    column = labels.unsqueeze(1)
    highest = scores.amax(dim=1, keepdim=True)
    hit = scores.gather(1, column)
    mean = scores.mean(dim=1, keepdim=True) if smoothing else None
    torch.softmax(scores, dim=1, out=scores)
    # the likeliest entry is never below 1 / V, so its logarithm is safe where the label's is not
    normaliser = highest - scores.amax(dim=1, keepdim=True).log()
    scores.scatter_add_(1, column, torch.full_like(hit, smoothing - 1.0))
    if mean is None:
        return (normaliser - hit).sum()
    scores.sub_(smoothing / scores.shape[1])
    return (normaliser - (1.0 - smoothing) * hit - smoothing * mean).sum()
