"""What every position of a stack may see, and how far off it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seq2seq_cli.model.attention import left_to_right, safe_mask
from seq2seq_cli.model.cache import KVCache
from seq2seq_cli.model.config import RelativePositions, StackConfig
from seq2seq_cli.model.distances import Distances
from seq2seq_cli.model.positions import sinusoids


@dataclass(frozen=True)
class Sight:
    """``mask`` bool [B or 1, 1, Q, K], None where the plain mask of the stack (full or causal) is meant;
    ``distances`` where the stack's positions are relative."""

    mask: Tensor | None
    distances: Distances | None


def sight(
    config: StackConfig,
    ids: Tensor,
    mask: Tensor | None,
    cache: KVCache | None,
    *,
    prefix: int = 0,
    hidden: int = 0,
    blanks: int = 0,
    window: int = 0,
    dropout: nn.Module,
) -> Sight:
    """For new tokens ids [B, L] with their mask, behind those in the cache and ``blanks`` visible slots.

    ``prefix``: so many of the first places see each other both ways. ``hidden``: so many of the last ones
    are seen by none, not by themselves either. ``window``: each place sees so many at
    most, itself among them; 0 = all. ``dropout`` is what distances go through.
    """
    keys = _visible_keys(ids, mask, cache, blanks)
    length = ids.shape[1]
    total = length + blanks + (0 if cache is None else cache.slots)
    visible = None if keys is None else keys[:, None, None, :]
    partial = keys is not None or config.relative is not None or total > length
    if config.causal and (prefix or (partial and length > 1)):
        causal = left_to_right(length, total, ids.device)
        if prefix:
            causal = causal | (torch.arange(total, device=ids.device) < blanks + prefix)
        visible = causal if visible is None else visible & causal
    if hidden:
        shown = torch.arange(total, device=ids.device) < total - hidden
        visible = shown.expand(length, -1) if visible is None else visible & shown
    relative, distances = config.relative, None
    if relative is not None:
        distances = Distances(
            queries=length,
            keys=total,
            causal=config.causal and not prefix,
            exact=None if keys is None else _exact(keys, length),
            waves=lambda span: dropout(_waves(span, relative, config.hidden_size)),
            device=ids.device,
        )
        if window:
            near = distances.within(window)[:, None]
            visible = near if visible is None else visible & near
    return Sight(None if visible is None else safe_mask(visible), distances)


def _visible_keys(ids: Tensor, mask: Tensor | None, cache: KVCache | None, blanks: int) -> Tensor | None:
    """bool [B, K] over earlier slots and these tokens; None when all are visible."""
    past_mask = None if cache is None else cache.mask
    if mask is None and past_mask is None:
        return None
    past = blanks + (0 if cache is None else cache.slots)
    now = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    if not past:
        return now
    before = past_mask if past_mask is not None else now.new_ones(ids.shape[0], past)
    return torch.cat([before, now], dim=1)


def _exact(keys: Tensor, length: int) -> Tensor | None:
    """int [B, Q, K]: the distances by what is visible; None where in no row anything hidden stands between
    visible places, so that these differ as the slots do."""
    begins = (keys[:, 1:] & ~keys[:, :-1]).sum(1) + keys[:, 0]
    if bool((begins <= 1).all()):
        return None
    places = keys.long().cumsum(1) - 1
    return places[:, -length:, None] - places[:, None, :]


def _waves(distances: Tensor, relative: RelativePositions, size: int) -> Tensor:
    """[R] -> [R, D]."""
    if relative.furthest:
        distances = distances.clamp(-relative.furthest, relative.furthest)
    return sinusoids(distances, size)
