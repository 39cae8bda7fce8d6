"""Processors that make tokens more or less likely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seq2seq_cli.decoding.processors.context import Context


def repetition_penalty(scores: Tensor, context: Context, *, penalty: float) -> None:
    """Make tokens that occurred less likely (Keskar et al. 2019, 4.1): divide their positive scores by the
    penalty, multiply their negative ones."""
    tokens = context.tokens
    if context.visible is not None:  # the last token is always visible: let it stand for the padding
        tokens = torch.where(context.visible, tokens, tokens[:, -1:])
    seen = scores.gather(1, tokens)
    scores.scatter_(1, tokens, torch.where(seen < 0, seen * penalty, seen / penalty))


def encoder_repetition_penalty(scores: Tensor, context: Context, *, penalty: float, source: Tensor) -> None:
    """Make tokens of the source [B, S] more likely: the repetition penalty the other way round.

    ``source`` holds no padding (see ``words_of``); a row of -1 is left as it is.
    """
    tokens = source[context.rows]
    empty = tokens[:, :1] < 0
    tokens = tokens.clamp(min=0)
    seen = scores.gather(1, tokens)
    changed = torch.where(seen < 0, seen / penalty, seen * penalty)
    scores.scatter_(1, tokens, torch.where(empty, seen, changed))


def words_of(source: Tensor, visible: Tensor | None, *, vocab_size: int) -> Tensor:
    """The source [B, S] with one of its own tokens in place of padding and of ids that the target's
    vocabulary does not have; -1 in rows with no other."""
    usable = source < vocab_size
    if visible is not None:
        usable = usable & (visible != 0)
    first = source.gather(1, usable.int().argmax(1, keepdim=True))
    first = torch.where(usable.any(1, keepdim=True), first, -1)
    return torch.where(usable, source, first)


@dataclass(frozen=True, kw_only=True)
class Phrases:
    """P phrases of one length: the tokens before the last [P, n - 1], the last [P], what is added [P]."""

    starts: Tensor
    lasts: Tensor
    biases: Tensor


def phrases(biases: Sequence[tuple[Sequence[int], float]], device: torch.device) -> list[Phrases]:
    """Phrases grouped by length; of equal ones the last counts."""
    groups: dict[int, list[tuple[tuple[int, ...], float]]] = {}
    for ids, bias in {tuple(ids): bias for ids, bias in biases}.items():
        groups.setdefault(len(ids), []).append((ids, bias))
    return [
        Phrases(
            starts=torch.tensor([ids[:-1] for ids, _ in group], dtype=torch.long, device=device),
            lasts=torch.tensor([ids[-1] for ids, _ in group], device=device),
            biases=torch.tensor([bias for _, bias in group], device=device),
        )
        for group in groups.values()
    ]


def sequence_bias(scores: Tensor, context: Context, *, groups: Sequence[Phrases]) -> None:
    """Add to the last token of each phrase where the ones before it stand already; -inf forbids it."""
    for group in groups:
        size = group.starts.shape[1]
        if size == 0:
            scores[:, group.lasts] += group.biases.to(scores.dtype)
        elif size <= context.tokens.shape[1]:
            tail, visible = context.tail(size)
            begun = (tail[:, None] == group.starts).all(-1)  # [R, P]
            if visible is not None:
                begun &= visible[:, None]
            rows, found = begun.nonzero(as_tuple=True)
            biases = group.biases[found].to(scores.dtype)
            scores.index_put_((rows, group.lasts[found]), biases, accumulate=True)


def exponential_decay(
    scores: Tensor, context: Context, *, start: int, factor: float, eos: Sequence[int]
) -> None:
    """Behind ``start`` new tokens, raise eos by its size times factor^(tokens since then) - 1."""
    if context.new_tokens > start:
        ids = list(eos)
        ends = scores[:, ids]
        grown = ends + ends.abs() * (factor ** (context.new_tokens - start) - 1)
        scores[:, ids] = torch.where(ends.isfinite(), grown, ends)


def remove_invalid_values(scores: Tensor, context: Context) -> None:
    """NaN becomes 0, infinite ones the largest and smallest finite numbers."""
    scores.nan_to_num_(nan=0.0)


def renormalize(scores: Tensor, context: Context) -> None:
    """Make scores log-probabilities again."""
    scores -= scores.logsumexp(-1, keepdim=True)
