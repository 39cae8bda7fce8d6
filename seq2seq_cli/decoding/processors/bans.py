"""Processors that forbid tokens for what stands before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seq2seq_cli.decoding.processors.context import FORBIDDEN, Context
from seq2seq_cli.errors import UsageError


def no_repeat_ngram(scores: Tensor, context: Context, *, size: int) -> None:
    """Forbid every token that would complete an n-gram which occurred already (Paulus et al. 2018)."""
    tokens = context.tokens
    if tokens.shape[1] < size:
        return
    windows = tokens.unfold(1, size, 1)  # [R, L - size + 1, size]
    tail, _ = context.tail(size - 1)
    same = (windows[..., :-1] == tail[:, None]).all(-1)
    if context.visible is not None:
        same = same & context.visible.unfold(1, size, 1).all(-1)
    rows, starts = same.nonzero(as_tuple=True)
    scores[rows, windows[rows, starts, -1]] = FORBIDDEN


@dataclass(frozen=True, kw_only=True)
class Grams:
    """The n-grams of sources: windows [B, S - n + 1, n], and which of them are text [B, S - n + 1]."""

    windows: Tensor
    real: Tensor


def grams(source: Tensor, visible: Tensor | None, *, size: int, vocab_size: int) -> Grams | None:
    """The n-grams of the source [B, S]; None when it is shorter than one."""
    if source.shape[1] < size:
        return None
    windows = source.unfold(1, size, 1)
    real = windows[..., -1] < vocab_size
    if visible is not None:
        real = real & visible.bool().unfold(1, size, 1).all(-1)
    return Grams(windows=windows, real=real)


def encoder_no_repeat_ngram(scores: Tensor, context: Context, *, source: Grams) -> None:
    """Forbid every token that would complete an n-gram of the source."""
    size = source.windows.shape[-1]
    if context.tokens.shape[1] < size - 1:
        return
    tail, visible = context.tail(size - 1)
    windows = source.windows[context.rows]
    same = (windows[..., :-1] == tail[:, None]).all(-1) & source.real[context.rows]
    if visible is not None:
        same &= visible[:, None]
    rows, starts = same.nonzero(as_tuple=True)
    scores[rows, windows[rows, starts, -1]] = FORBIDDEN


def suppress_tokens(scores: Tensor, context: Context, *, ids: Tensor) -> None:
    """Forbid these ids."""
    scores[:, ids] = FORBIDDEN


def begin_suppress_tokens(scores: Tensor, context: Context, *, ids: Tensor, behind_bos: bool) -> None:
    """Forbid these ids as the first new token; ``behind_bos``: behind a forced bos where there is one."""
    first = torch.full_like(context.rows, context.new_tokens == 0, dtype=torch.bool)
    if behind_bos:
        forced = context.lengths() - context.new_tokens == 1
        first = torch.where(forced, torch.full_like(first, context.new_tokens == 1), first)
    if bool(first.any()):
        scores[first[:, None] & torch.isin(torch.arange(scores.shape[1], device=ids.device), ids)] = FORBIDDEN


def a_way_out(scores: Tensor, context: Context, *, eos: Sequence[int]) -> None:
    """Where the options together forbid every token, the row ends: eos becomes certain.

    UsageError when the model has no eos.
    """
    stuck = scores.amax(-1) == FORBIDDEN
    if not bool(stuck.any()):
        return
    if not eos:
        raise UsageError(
            f"the options leave no token to write behind {context.new_tokens} tokens",
            remedy="forbid less, or give eos_token_id, which ends such an output",
        )
    scores[stuck, eos[0]] = 0.0
