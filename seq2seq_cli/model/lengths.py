"""Rows of like length together: a batch with one long row does not pay for the padding of all the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: groups that the rows of a batch are worked on in; each has to be worth a call of its own
_GROUPS = 4


@dataclass(frozen=True, kw_only=True)
class Compact:
    """States [B, W, D] whose padding stands on the right, visible where ``mask`` bool [B, W] is true, and
    which place of the original row each came from [B, L], the visible ones first."""

    states: Tensor
    mask: Tensor
    places: Tensor

    def put_back(self) -> Tensor:
        """The states where their tokens stood [B, L, D]; what is where padding did means nothing."""
        rows, length = self.places.shape
        where = self.places[:, : self.mask.shape[1], None].expand_as(self.states)
        return self.states.new_zeros(rows, length, self.states.shape[2]).scatter(1, where, self.states)


def pays(ids: Tensor, mask: Tensor | None) -> bool:
    """Whether a batch [B, L] has enough rows, and padding, to be worked on in groups."""
    return mask is not None and ids.shape[0] >= 2 * _GROUPS and not bool(mask.all())


def by_length(states_of: Callable[[Tensor, Tensor], Tensor], ids: Tensor, mask: Tensor) -> Compact:
    """``states_of`` (ids, mask) of a batch [B, L], padded on either side, in groups of like length."""
    places = (mask == 0).long().sort(dim=1, stable=True).indices
    lengths = mask.bool().sum(1)
    width = max(1, int(lengths.max()))
    ids = ids.gather(1, places[:, :width])
    visible = torch.arange(width, device=ids.device) < lengths[:, None]
    states: Tensor | None = None
    for rows in lengths.argsort(descending=True).tensor_split(_GROUPS):
        longest = max(1, int(lengths[rows].max()))
        part = states_of(ids[rows, :longest], visible[rows, :longest])
        if states is None:
            states = part.new_zeros(ids.shape[0], width, part.shape[2])
        states[rows, :longest] = part
    assert states is not None  # a batch has at least one row
    return Compact(states=states, mask=visible, places=places)
