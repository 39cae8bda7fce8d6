"""What a search over beams chooses among, and what the chosen ones have written."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

#: the least log-probability, of forbidden tokens; far below any sum that counts, because a beam with a token
#: that is allowed goes before it, and finite, because -inf turns into NaN
FORBIDDEN = -1.0e18


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Ways on of B rows, n each: a beam to go on from and its next token."""

    total: Tensor  # [B, n] sums of log-probabilities, that of the token included
    origins: Tensor  # [B, n] the beams they go on from
    tokens: Tensor  # [B, n]
    logs: Tensor  # [B, m] log-probabilities of all tokens that were looked at
    places: Tensor  # [B, n] those of ``tokens`` among them

    def take(self, order: Tensor) -> Candidates:
        """Those at the places ``order`` [B, k]."""
        return replace(
            self,
            total=self.total.gather(1, order),
            origins=self.origins.gather(1, order),
            tokens=self.tokens.gather(1, order),
            places=self.places.gather(1, order),
        )


def best_of(logs: Tensor, running: Tensor, count: int, *, ids: Tensor | None = None) -> Candidates:
    """The ``count`` best of each row, the best first, by log-probabilities [B * W, N] of what follows the
    beams ``running`` [B, W]. ids [B * W, N] are their tokens (None: all, in their own order)."""
    batch, size = running.shape[0], logs.shape[-1]
    total = (logs + running.view(-1, 1)).view(batch, -1)
    total, places = total.topk(min(count, total.shape[1]), dim=1)
    return Candidates(
        total=total,
        origins=places // size,
        tokens=places % size if ids is None else ids.view(batch, -1).gather(1, places),
        logs=logs.view(batch, -1),
        places=places,
    )


@dataclass(frozen=True, kw_only=True)
class Written:
    """What n beams of B rows have written, L tokens at most, and the log-probability of each where that is
    asked for."""

    tokens: Tensor  # [B, n, L]
    logs: Tensor | None  # [B, n, L]

    def __getitem__(self, rows: Tensor) -> Written:
        """That of some of the rows."""
        return Written(tokens=self.tokens[rows], logs=None if self.logs is None else self.logs[rows])

    def take(self, order: Tensor) -> Written:
        """That of the beams ``order`` [B, k]."""
        logs = None if self.logs is None else _taken(self.logs, order)
        return Written(tokens=_taken(self.tokens, order), logs=logs)

    def extended(self, candidates: Candidates, *, step: int) -> Written:
        """That of the beams which the candidates go on from, and their tokens behind it."""
        found = self.take(candidates.origins)
        found.tokens[:, :, step] = candidates.tokens
        if found.logs is not None:
            picked = candidates.logs.gather(1, candidates.places)
            found.logs[:, :, step] = picked.clamp(min=FORBIDDEN)
        return found

    def beside(self, other: Written) -> Written:
        """These beams, and those of ``other``."""
        logs = None
        if self.logs is not None and other.logs is not None:
            logs = torch.cat([self.logs, other.logs], dim=1)
        return Written(tokens=torch.cat([self.tokens, other.tokens], dim=1), logs=logs)


def _taken(values: Tensor, order: Tensor) -> Tensor:
    """values [B, n, L] of the beams ``order`` [B, k] -> [B, k, L]."""
    return values.gather(1, order[:, :, None].expand(-1, -1, values.shape[-1]))


def nothing_written(prompt: Tensor, *, width: int, longest: int, token_scores: bool) -> Written:
    """Room for ``longest`` tokens of ``width`` beams of each prompt [B, P]."""
    tokens = prompt.new_zeros(prompt.shape[0], width, longest)
    return Written(
        tokens=tokens, logs=torch.zeros_like(tokens, dtype=torch.float32) if token_scores else None
    )
