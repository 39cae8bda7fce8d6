"""How far queries stand from keys, arranged so that each distance is worked out once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


class Distances:
    """Q queries, which are the last of K places, and their distances to all K: the query's place minus the
    key's, positive for keys that come before, counting visible tokens only.

    Whatever depends on distances alone is worked out for ``span``, all R distances in falling order, and
    then put where query and key meet. Where the visible tokens of a row follow each other (padding on
    either side at most), that is a view, because distances run the same way in every row; where hidden
    tokens stand between visible ones (a cache of prompts that were padded on the right), ``exact``
    [B, Q, K] says how far off each key is. Distances below -1 are left out where the mask is ``causal``:
    what then stands at later keys means nothing.
    """

    def __init__(
        self,
        *,
        queries: int,
        keys: int,
        causal: bool,
        exact: Tensor | None,
        waves: Callable[[Tensor], Tensor],
        device: torch.device,
    ) -> None:
        self.queries, self.keys, self.causal, self.exact = queries, keys, causal, exact
        # one row more than is asked for, so that shifting the rows of a matrix against each other is a view
        self.lowest = -1 if causal else -queries
        self._waves = waves
        self._device = device
        self._known: dict[int, Tensor] = {}

    @property
    def span(self) -> Tensor:
        """int [R]: keys - 1, ..., lowest."""
        return self._down_from(self.keys - 1)

    def _down_from(self, furthest: int) -> Tensor:
        return torch.arange(furthest, self.lowest - 1, -1, device=self._device)

    def waves(self, furthest: int) -> Tensor:
        """[furthest - lowest + 1, D]: what stands for each distance from ``furthest`` down, the same for all
        layers (under dropout as well)."""
        if furthest not in self._known:
            self._known[furthest] = self._waves(self._down_from(furthest))
        return self._known[furthest]

    def within(self, window: int) -> Tensor:
        """bool [B or 1, Q, K]: the key is less than ``window`` places before the query."""
        if self.exact is not None:
            return self.exact < window
        first = self.keys - self.queries - window + 1
        near = torch.ones(self.queries, self.keys, dtype=torch.bool, device=self._device).triu(first)
        return near[None]

    def spread(self, values: Tensor) -> Tensor:
        """Numbers for each distance [N, R] -> [B or 1, N, Q, K]."""
        if self.exact is not None:
            return values[:, self._columns(self.exact, values.shape[1])].transpose(0, 1)
        missing = max(0, self.keys + self.queries - 1 - values.shape[1])  # distances that no mask shows
        return F.pad(values, (0, missing)).unfold(1, self.keys, 1)[:, : self.queries].flip(1)[None]

    def of_queries(self, scores: Tensor) -> Tensor:
        """Scores of each query with each distance [B, N, Q, R] -> with each key [B, N, Q, K]."""
        rows = scores.shape[-1]
        if self.exact is not None:
            columns = self._columns(self.exact, rows)[:, None]
            return scores.gather(3, columns.expand(-1, scores.shape[1], -1, -1))
        return self._shifted(scores, self.queries - 1)[..., : self.keys]

    def of_keys(self, scores: Tensor) -> Tensor:
        """Scores of each key with each distance in rising order [B, N, K, R] -> [B, N, Q, K]."""
        rows = scores.shape[-1]
        if self.exact is not None:
            columns = rows - 1 - self._columns(self.exact, rows)[:, None]
            return scores.transpose(2, 3).gather(2, columns.expand(-1, scores.shape[1], -1, -1))
        return self._shifted(scores, rows - self.queries)[..., : self.queries].transpose(2, 3)

    def _columns(self, exact: Tensor, rows: int) -> Tensor:
        """Where in the span a distance stands; those outside it (never visible) anywhere."""
        return (self.keys - 1 - exact).clamp(0, rows - 1)

    @staticmethod
    def _shifted(scores: Tensor, first: int) -> Tensor:
        """[..., X, R] -> [..., X, R - 1], whose row x begins ``first - x`` columns further right (Dai et al.
        2019, appendix B): in memory each row is one number shorter than it was."""
        count, rows = scores.shape[-2:]
        end = first + count * (rows - 1)
        return scores.flatten(-2)[..., first:end].view(*scores.shape[:-1], rows - 1)
