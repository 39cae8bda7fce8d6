"""Adafactor (Shazeer and Stern 2018): Adam's second moment of a matrix as one row and one column."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

#: added to squared gradients, and the least size that a parameter's steps are scaled by (the paper's two ε)
_SQUARE_FLOOR, _SCALE_FLOOR = 1e-30, 1e-3


class Adafactor(torch.optim.Optimizer):
    """Steps of clipped updates u / max(1, RMS(u) / clip_threshold), u = gradient / sqrt(second moment).

    The second moment's decay is 1 - t^decay_rate. ``scale_parameter`` makes a step relative to the RMS of its
    parameter (section 8), which the rate then is a share of. ``beta1`` keeps a first moment as well, of the
    size of the parameter; None does without. Weight decay is decoupled, in units of the step, as in
    transformers' optimizer of this name. All state is tensors.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]] | Iterable[Tensor],
        *,
        lr: float,
        scale_parameter: bool = False,
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta1: float | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        self.scale_parameter = scale_parameter
        self.clip_threshold = clip_threshold
        self.decay_rate = decay_rate
        self.beta1 = beta1
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, parameter.grad, group["lr"], group["weight_decay"])

    def _step(self, parameter: Tensor, gradient: Tensor, rate: float, decay: float) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state |= {name: torch.zeros(shape).to(gradient) for name, shape in moments(parameter).items()}
            if self.beta1 is not None:
                state["exp_avg"] = torch.zeros_like(gradient)
        state["step"] += 1
        keep = 1.0 - float(state["step"]) ** self.decay_rate
        square = gradient.square().add_(_SQUARE_FLOOR)
        if "row" in state:
            row, column = state["row"], state["column"]
            row.lerp_(square.mean(-1), 1.0 - keep)
            column.lerp_(square.mean(-2), 1.0 - keep)
            # the rank-one estimate of equation 4, and its inverse root
            update = (row / row.mean(-1, keepdim=True)).rsqrt_()[..., None] * column.rsqrt()[..., None, :]
        else:
            state["exp_avg_sq"].lerp_(square, 1.0 - keep)
            update = state["exp_avg_sq"].rsqrt()
        update.mul_(gradient)
        update.div_((_rms(update) / self.clip_threshold).clamp_(min=1.0))
        size = torch.as_tensor(rate, device=update.device)
        if self.scale_parameter:
            size = size * _rms(parameter).clamp_(min=_SCALE_FLOOR)
        update.mul_(size)
        if self.beta1 is not None:
            update = state["exp_avg"].lerp_(update, 1.0 - self.beta1)
        if decay:
            parameter.sub_(parameter * (decay * size))
        parameter.sub_(update)


def moments(parameter: Tensor) -> dict[str, torch.Size]:
    """What is kept of the second moment of a parameter: name -> shape."""
    shape = parameter.shape
    if len(shape) < 2:
        return {"exp_avg_sq": shape}
    return {"row": shape[:-1], "column": torch.Size((*shape[:-2], shape[-1]))}


def _rms(tensor: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(tensor)
    return length / math.sqrt(tensor.numel())
