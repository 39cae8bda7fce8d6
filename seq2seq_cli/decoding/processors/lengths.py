"""Processors for how outputs begin and end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seq2seq_cli.decoding.processors.context import FORBIDDEN, Context


def min_new_tokens(scores: Tensor, context: Context, *, least: int, eos: Sequence[int]) -> None:
    """Forbid eos before ``least`` new tokens."""
    if context.new_tokens < least:
        scores[:, list(eos)] = FORBIDDEN


def min_length(scores: Tensor, context: Context, *, least: int, eos: Sequence[int]) -> None:
    """Forbid eos before ``least`` tokens, the prompt included."""
    short = context.lengths() < least
    for token in eos:
        scores[short, token] = FORBIDDEN


def forced_bos(scores: Tensor, context: Context, *, token: int) -> None:
    """The first new token behind a start id is ``token``."""
    first = context.lengths() == 1
    scores[first] = FORBIDDEN
    scores[first, token] = 0.0


def forced_eos(scores: Tensor, context: Context, *, token: int) -> None:
    """The last token that a row may have is ``token``."""
    last = context.limits == context.new_tokens + 1
    scores[last] = FORBIDDEN
    scores[last, token] = 0.0


def prefixes(rows: Sequence[Tensor]) -> Tensor:
    """What each prompt's output begins with [B, P]; -1 behind shorter ones."""
    return torch.nn.utils.rnn.pad_sequence([row.long() for row in rows], batch_first=True, padding_value=-1)


def prefix(scores: Tensor, context: Context, *, ids: Tensor, behind_bos: bool) -> None:
    """The first new tokens of prompt b are ids[b] (see ``prefixes``), behind a forced bos where there is one.

    Their scores stay, so that the log-probability of an output is that of the model; one that was forbidden
    becomes 0.
    """
    place = torch.full_like(context.rows, context.new_tokens)
    if behind_bos:
        place = place - (context.lengths() - context.new_tokens == 1).long()
    wanted = ids[context.rows, place.clamp(0, ids.shape[1] - 1)][:, None]
    active = ((place >= 0) & (place < ids.shape[1]))[:, None] & (wanted >= 0)
    if not bool(active.any()):
        return
    wanted = wanted.clamp(min=0)
    kept = scores.gather(1, wanted)
    kept = torch.where(active & ~kept.isfinite(), 0.0, kept)
    scores.masked_fill_(active, FORBIDDEN)
    scores.scatter_(1, wanted, kept)
