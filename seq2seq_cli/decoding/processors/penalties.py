"""Logits processors: small callables that forbid or reweigh next tokens, shared by all strategies.

Each changes scores [R, V] in place, seeing the tokens so far [R, L] (prompt and start id included). They run
in transformers' order: repetition penalty, no-repeat n-gram, bad words, minimum lengths, forced bos and eos.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seq2seq_cli.decoding.options import Decoding

_FORBIDDEN = float("-inf")


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a processor may look at: tokens [R, L]; visible bool [R, L] or None (prompt padding is not
    visible); the number of new tokens so far; how many tokens each row may have [R]."""

    tokens: Tensor
    visible: Tensor | None
    new_tokens: int
    limits: Tensor


Processor = Callable[[Tensor, Context], None]


def repetition_penalty(scores: Tensor, context: Context, *, penalty: float) -> None:
    """Make tokens that occurred less likely (Keskar et al. 2019, 4.1): divide their positive scores by the
    penalty, multiply their negative ones."""
    tokens = context.tokens
    if context.visible is not None:  # the last token is always visible: let it stand for the padding
        tokens = torch.where(context.visible, tokens, tokens[:, -1:])
    seen = scores.gather(1, tokens)
    scores.scatter_(1, tokens, torch.where(seen < 0, seen * penalty, seen / penalty))


def no_repeat_ngram(scores: Tensor, context: Context, *, size: int) -> None:
    """Forbid every token that would complete an n-gram which occurred already (Paulus et al. 2018)."""
    tokens = context.tokens
    if tokens.shape[1] < size:
        return
    windows = tokens.unfold(1, size, 1)  # [R, L - size + 1, size]
    same = (windows[..., :-1] == tokens[:, None, tokens.shape[1] - size + 1 :]).all(-1)
    if context.visible is not None:
        same = same & context.visible.unfold(1, size, 1).all(-1)
    rows, starts = same.nonzero(as_tuple=True)
    scores[rows, windows[rows, starts, -1]] = _FORBIDDEN


def bad_words(scores: Tensor, context: Context, *, words: Sequence[Sequence[int]]) -> None:
    """Forbid the last token of each word (a sequence of ids) where the ones before it stand already."""
    tokens = context.tokens
    for *start, last in words:
        if len(start) > tokens.shape[1]:
            continue
        begun = torch.ones(tokens.shape[0], dtype=torch.bool, device=tokens.device)
        for back, token in enumerate(reversed(start), start=1):
            begun &= tokens[:, -back] == token
            if context.visible is not None:
                begun &= context.visible[:, -back]
        scores[begun, last] = _FORBIDDEN


def min_new_tokens(scores: Tensor, context: Context, *, least: int, eos: Sequence[int]) -> None:
    """Forbid eos before ``least`` new tokens."""
    if context.new_tokens < least:
        scores[:, list(eos)] = _FORBIDDEN


def _lengths(context: Context) -> Tensor:
    """Tokens of each row [R], the prompt included, its padding not."""
    if context.visible is not None:
        return context.visible.sum(1)
    return torch.full_like(context.limits, context.tokens.shape[1])


def min_length(scores: Tensor, context: Context, *, least: int, eos: Sequence[int]) -> None:
    """Forbid eos before ``least`` tokens, the prompt included."""
    short = _lengths(context) < least
    for token in eos:
        scores[short, token] = _FORBIDDEN


def forced_bos(scores: Tensor, context: Context, *, token: int) -> None:
    """The first new token behind a start id is ``token``."""
    first = _lengths(context) == 1
    scores[first] = _FORBIDDEN
    scores[first, token] = 0.0


def forced_eos(scores: Tensor, context: Context, *, token: int) -> None:
    """The last token that a row may have is ``token``."""
    last = context.limits == context.new_tokens + 1
    scores[last] = _FORBIDDEN
    scores[last, token] = 0.0


def build_processors(decoding: Decoding) -> list[Processor]:
    """The processors that the options ask for, in their order."""
    chosen: list[Processor] = []

    def add(function: Callable[..., None], **settings: object) -> None:
        chosen.append(lambda scores, context: function(scores, context, **settings))

    words = [word for word in decoding.bad_words_ids if not (len(word) == 1 and word[0] in decoding.eos)]
    if decoding.repetition_penalty != 1.0:
        add(repetition_penalty, penalty=decoding.repetition_penalty)
    if decoding.no_repeat_ngram_size:
        add(no_repeat_ngram, size=decoding.no_repeat_ngram_size)
    if words:
        add(bad_words, words=words)
    if decoding.min_length and decoding.eos:
        add(min_length, least=decoding.min_length, eos=decoding.eos)
    if decoding.min_new_tokens and decoding.eos:
        add(min_new_tokens, least=decoding.min_new_tokens, eos=decoding.eos)
    if decoding.forced_bos is not None:
        add(forced_bos, token=decoding.forced_bos)
    if decoding.forced_eos is not None:
        add(forced_eos, token=decoding.forced_eos)
    return chosen
