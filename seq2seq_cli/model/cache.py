"""The memory of a decoder between steps: keys and values of each depth, for itself and for the source."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Preallocated self-attention keys and values per depth, plus the source's, projected once.

    ``length`` tokens were taken in and ``slots`` are filled; ``mask`` [R, slots] says which of them each row
    may see, so that prompts padded on either side work. R (rows) may be a multiple of the source rows: beams
    of one source share its keys and values (see ``attention.cross_attend``).

    A list put into ``seen_of_self`` or ``seen_of_source`` takes in, depth after depth, how much of each key
    the queries of a step saw: [R, N, Q, K] or [B, N, R / B * Q, S].

    With a ``memory``, that many blank slots come before the first token, and between calls only so many of
    the last visible slots are kept (Dai et al. 2019, 3.2).
    """

    def __init__(self, *, num_layers: int, capacity: int, memory: int = 0) -> None:
        self.length = 0
        self.slots = 0
        self.memory = memory
        self.mask: Tensor | None = None  # None = every filled slot is visible
        self.waves: dict[int, Tensor] = {}  # depth -> see relative.DistanceWaves
        self.seen_of_self: list[Tensor] | None = None
        self.seen_of_source: list[Tensor] | None = None
        self._first = 0  # the filled slots stand from here on; what is before them was forgotten
        self._capacity = max(1, capacity + memory)
        self._self: list[tuple[Tensor, Tensor] | None] = [None] * num_layers
        self._cross: list[tuple[Tensor, Tensor] | None] = [None] * num_layers

    def append(self, depth: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store ``keys``/``values`` [R, N, Q, H] behind the filled slots; return all [R, N, slots + Q, H].

        ``slots`` moves on only in ``advance``, once a whole step went through every depth.
        """
        start = self._first + self.slots
        end = start + keys.shape[2]
        stored = self._self[depth]
        if stored is None or stored[0].shape[2] < end:
            stored = self._self[depth] = (
                self._grown(stored, 0, keys, end),
                self._grown(stored, 1, values, end),
            )
        for store, new in zip(stored, (keys, values), strict=True):
            store[:, :, start:end] = new
        return stored[0][:, :, self._first : end], stored[1][:, :, self._first : end]

    def _grown(self, stored: tuple[Tensor, Tensor] | None, which: int, like: Tensor, needed: int) -> Tensor:
        rows, heads, _, size = like.shape
        capacity = self._capacity if stored is None else 2 * stored[0].shape[2]
        fresh = like.new_empty(rows, heads, max(capacity, needed), size)
        if stored is not None:
            fresh[:, :, self._filled] = stored[which][:, :, self._filled]
        return fresh

    @property
    def _filled(self) -> slice:
        return slice(self._first, self._first + self.slots)

    def cross(self, depth: int) -> tuple[Tensor, Tensor] | None:
        """The source's keys and values [B, N, S, H] at this depth, None before the first step."""
        return self._cross[depth]

    def set_cross(self, depth: int, keys: Tensor, values: Tensor) -> None:
        """Remember the source's keys and values [B, N, S, H] at this depth."""
        self._cross[depth] = (keys, values)

    def advance(self, mask: Tensor | None, *, steps: int, rows: int, device: torch.device) -> None:
        """Count ``steps`` new slots as filled; ``mask`` [R, steps] marks the visible ones (None = all)."""
        if not self.slots:
            self.slots = self.memory
        if mask is not None or self.mask is not None:
            before = self.mask
            if before is None:
                before = torch.ones(rows, self.slots, dtype=torch.bool, device=device)
            if mask is None:
                mask = torch.ones(rows, steps, dtype=torch.bool, device=device)
            self.mask = torch.cat([before, mask], dim=1)
        self.length += steps
        self.slots += steps
        if self.memory:
            self._forget()

    def _forget(self) -> None:
        """Keep the last ``memory`` visible slots of each row. What no row sees any more is given up at the
        front, and moved over once that is as much as is kept."""
        gone = self.slots - self.memory
        if self.mask is not None:
            from_here_on = self.mask.flip(1).cumsum(1).flip(1)
            self.mask = self.mask & (from_here_on <= self.memory)
            gone = int(self.mask.any(0).long().argmax())
            self.mask = self.mask[:, gone:]
        self._first += gone
        self.slots -= gone
        if self._first < self.slots:
            return
        for stored in self._self:
            for store in stored or ():
                store[:, :, : self.slots] = store[:, :, self._filled]
        self._first = 0

    def take_back(self, counts: Tensor) -> None:
        """Hide the last ``counts`` [R] filled slots of each row. Those that all rows gave back are free
        again; once most of the others are hidden, each row's visible slots move together."""
        free = int(counts.min())
        self.length -= free
        self.slots -= free
        if self.mask is not None:
            self.mask = self.mask[:, : self.slots]
        counts = counts - free
        if self.mask is None and not bool(counts.any()):
            return
        kept = torch.arange(self.slots, device=counts.device) < self.slots - counts[:, None]
        self.mask = kept if self.mask is None else self.mask & kept
        width = int(self.mask.sum(1).max())
        if self.slots > 2 * width:
            self._close_up(self.mask.long().sort(dim=1, stable=True).indices[:, -width:])

    def _close_up(self, places: Tensor) -> None:
        """Keep the filled slots ``places`` [R, W] of each row alone, in that order."""
        assert self.mask is not None
        self.mask = self.mask.gather(1, places)
        for store in (store for stored in self._self for store in stored or ()):
            chosen = places[:, None, :, None].expand(-1, store.shape[1], -1, store.shape[3])
            store[:, :, : places.shape[1]] = store[:, :, self._filled].gather(2, chosen)
        self._first, self.slots = 0, places.shape[1]

    def select(self, rows: Tensor, *, sources: Tensor | None = None) -> None:
        """Keep the given rows [R'] of the self-attention part, in that order (beam reordering, finished
        rows leaving). ``sources`` [B'] does the same for the source's keys and values."""
        moved = (rows != torch.arange(rows.shape[0], device=rows.device)).nonzero()[:, 0]
        for depth, stored in enumerate(self._self):
            if stored is not None:
                self._self[depth] = (self._taken(stored[0], rows, moved), self._taken(stored[1], rows, moved))
        if self.mask is not None:
            self.mask = self.mask[rows]
        if sources is not None:
            self._cross = [None if c is None else (c[0][sources], c[1][sources]) for c in self._cross]

    def _taken(self, store: Tensor, rows: Tensor, moved: Tensor) -> Tensor:
        """``store[rows]``, copying the filled slots only; where the number of rows stays, in place, and only
        those that are not where they were (``moved``)."""
        if rows.shape[0] == store.shape[0]:
            part = store[:, :, self._filled]
            part[moved] = part.index_select(0, rows[moved])
            return store
        filled = store[:, :, self._filled].index_select(0, rows)
        fresh = store.new_empty(rows.shape[0], *store.shape[1:])
        fresh[:, :, self._filled] = filled
        return fresh
