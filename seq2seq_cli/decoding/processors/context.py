"""What a logits processor sees, and what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

FORBIDDEN = float("-inf")


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a processor may look at.

    tokens [R, L]: prompt and start id included; visible bool [R, L] or None (prompt padding is not visible);
    rows [R]: which prompt each row goes on with; the number of new tokens so far; limits [R]: how many new
    tokens each row may have.
    """

    tokens: Tensor
    visible: Tensor | None
    rows: Tensor
    new_tokens: int
    limits: Tensor

    def lengths(self) -> Tensor:
        """Tokens of each row [R], the prompt included, its padding not."""
        if self.visible is not None:
            return self.visible.sum(1)
        return torch.full_like(self.limits, self.tokens.shape[1])

    def tail(self, size: int) -> tuple[Tensor, Tensor | None]:
        """The last ``size`` tokens [R, size] and whether all of them are text [R] (None: they are)."""
        start = self.tokens.shape[1] - size
        visible = None if self.visible is None else self.visible[:, start:].all(1)
        return self.tokens[:, start:], visible


#: changes scores [R, V] in place
Processor = Callable[[Tensor, Context], None]
