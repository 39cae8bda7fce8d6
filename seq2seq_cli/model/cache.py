"""The memory of a decoder between steps: keys and values of each depth, for itself and for the source."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Preallocated self-attention keys and values per depth, plus the source's, projected once.

    ``length`` slots are filled; ``mask`` [R, length] says which of them each row may see, so that prompts
    padded on either side work. R (rows) may be a multiple of the source rows: beams of one source share
    its keys and values (see ``attention.cross_attend``).
    """

    def __init__(self, *, num_layers: int, capacity: int) -> None:
        self.length = 0
        self.mask: Tensor | None = None  # None = every filled slot is visible
        self._capacity = max(1, capacity)
        self._self: list[tuple[Tensor, Tensor] | None] = [None] * num_layers
        self._cross: list[tuple[Tensor, Tensor] | None] = [None] * num_layers

    def append(self, depth: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store ``keys``/``values`` [R, N, Q, H] behind the filled slots; return all [R, N, length + Q, H].

        ``length`` moves on only in ``advance``, once a whole step went through every depth.
        """
        end = self.length + keys.shape[2]
        stored = self._self[depth]
        if stored is None or stored[0].shape[2] < end:
            stored = self._self[depth] = (
                self._grown(stored, 0, keys, end),
                self._grown(stored, 1, values, end),
            )
        for store, new in zip(stored, (keys, values), strict=True):
            store[:, :, self.length : end] = new
        return stored[0][:, :, :end], stored[1][:, :, :end]

    def _grown(self, stored: tuple[Tensor, Tensor] | None, which: int, like: Tensor, needed: int) -> Tensor:
        rows, heads, _, size = like.shape
        capacity = self._capacity if stored is None else 2 * stored[0].shape[2]
        fresh = like.new_empty(rows, heads, max(capacity, needed), size)
        if stored is not None:
            fresh[:, :, : self.length] = stored[which][:, :, : self.length]
        return fresh

    def cross(self, depth: int) -> tuple[Tensor, Tensor] | None:
        """The source's keys and values [B, N, S, H] at this depth, None before the first step."""
        return self._cross[depth]

    def set_cross(self, depth: int, keys: Tensor, values: Tensor) -> None:
        """Remember the source's keys and values [B, N, S, H] at this depth."""
        self._cross[depth] = (keys, values)

    def advance(self, mask: Tensor | None, *, steps: int, rows: int, device: torch.device) -> None:
        """Count ``steps`` new slots as filled; ``mask`` [R, steps] marks the visible ones (None = all)."""
        if mask is not None or self.mask is not None:
            before = self.mask
            if before is None:
                before = torch.ones(rows, self.length, dtype=torch.bool, device=device)
            if mask is None:
                mask = torch.ones(rows, steps, dtype=torch.bool, device=device)
            self.mask = torch.cat([before, mask], dim=1)
        self.length += steps

    def select(self, rows: Tensor, *, sources: Tensor | None = None) -> None:
        """Keep the given rows [R'] of the self-attention part, in that order (beam reordering, finished
        rows leaving). ``sources`` [B'] does the same for the source's keys and values."""
        for depth, stored in enumerate(self._self):
            if stored is not None:
                self._self[depth] = (self._taken(stored[0], rows), self._taken(stored[1], rows))
        if self.mask is not None:
            self.mask = self.mask[rows]
        if sources is not None:
            self._cross = [None if c is None else (c[0][sources], c[1][sources]) for c in self._cross]

    def _taken(self, store: Tensor, rows: Tensor) -> Tensor:
        """``store[rows]``, copying the filled slots only, in place where the number of rows stays."""
        filled = store[:, :, : self.length].index_select(0, rows)
        if rows.shape[0] == store.shape[0]:
            store[:, :, : self.length] = filled
            return store
        fresh = store.new_empty(rows.shape[0], *store.shape[1:])
        fresh[:, :, : self.length] = filled
        return fresh
