"""Filters of sampling: what is left of a distribution to draw from.

Each changes scores [R, N] in place, whatever N tokens they belong to: a filter behind top-k works on the few
tokens that top-k left. Order and meaning are transformers': temperature, top-k, top-p, min-p, typical,
epsilon, eta. ``keep`` tokens always stay: one, and in beam search one more than there are eos ids.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from seq2seq_cli.decoding.largest import largest
from seq2seq_cli.decoding.options import Decoding

_GONE = float("-inf")
#: how many of the best tokens are looked at first where a filter does not say how many it keeps
FIRST_LOOK = 256


def temperature(scores: Tensor, *, value: float) -> None:
    """Divide: below 1 sharpens, above 1 flattens."""
    scores /= value


def top_k(scores: Tensor, *, k: int, keep: int = 1) -> None:
    """Keep the k largest, and what equals the least of them."""
    least = largest(scores, min(max(k, keep), scores.shape[-1]))[0][:, -1:]
    scores.masked_fill_(scores < least, _GONE)


def top_p(scores: Tensor, *, p: float, keep: int = 1) -> None:
    """Keep the fewest tokens that together have the probability p (Holtzman et al. 2020)."""
    ordered, ids = scores.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(-1)
    gone = probabilities.cumsum(-1) - probabilities >= p
    gone[:, :keep] = False
    scores.masked_fill_(torch.empty_like(gone).scatter_(1, ids, gone), _GONE)


def min_p(scores: Tensor, *, share: float, keep: int = 1) -> None:
    """Keep tokens at least ``share`` times as likely as the likeliest (Nguyen et al. 2024)."""
    probabilities = scores.softmax(-1)
    gone = probabilities < share * probabilities.amax(-1, keepdim=True)
    gone.scatter_(1, largest(scores, min(keep, scores.shape[-1]))[1], False)
    scores.masked_fill_(gone, _GONE)


def typical(scores: Tensor, *, mass: float, keep: int = 1) -> None:
    """Keep the tokens whose surprise is nearest to the entropy, until they have this probability together
    (Meister et al. 2022)."""
    logs = scores.log_softmax(-1)
    probabilities = logs.exp()
    entropy = -(logs * probabilities).nansum(-1, keepdim=True)  # 0 log 0 = 0
    nearness = -(logs + entropy).abs()
    size, everything = min(FIRST_LOOK, scores.shape[1]), scores.shape[1]
    while True:  # the typical tokens are few: sorting all would take most of the time
        nearest, ids = largest(nearness, size)
        together = probabilities.gather(1, ids).cumsum(-1)
        if size == everything or bool((together[:, -1] >= mass).all()):
            break
        size = min(8 * size, everything)
    last = (together < mass).sum(-1, keepdim=True).clamp(max=size - 1)
    gone = nearness < nearest.gather(1, last)
    gone.scatter_(1, ids[:, :keep], False)
    scores.masked_fill_(gone, _GONE)


def epsilon(scores: Tensor, *, cutoff: float, keep: int = 1) -> None:
    """Keep tokens at least this likely (Hewitt et al. 2022)."""
    _cut(scores, scores.softmax(-1) < cutoff, keep)


def eta(scores: Tensor, *, cutoff: float, keep: int = 1) -> None:
    """Keep tokens at least as likely as the cutoff, or as its root times exp(-entropy) where that is less
    (Hewitt et al. 2022)."""
    logs = scores.log_softmax(-1)
    probabilities = logs.exp()
    entropy = -(logs * probabilities).nansum(-1, keepdim=True)
    _cut(scores, probabilities < (cutoff**0.5 * (-entropy).exp()).clamp(max=cutoff), keep)


def _cut(scores: Tensor, gone: Tensor, keep: int) -> None:
    """Forbid what is ``gone``, but not the ``keep`` largest."""
    least = largest(scores, min(keep, scores.shape[-1]))[0][:, -1:]
    scores.masked_fill_(gone & (scores < least), _GONE)


def build_filters(decoding: Decoding, *, keep: int = 1) -> list[partial[None]]:
    """The filters behind temperature and top-k that the options ask for, in their order."""
    chosen: list[partial[None]] = []
    if decoding.top_p < 1.0:
        chosen.append(partial(top_p, p=decoding.top_p, keep=keep))
    if decoding.min_p:
        chosen.append(partial(min_p, share=decoding.min_p, keep=keep))
    if decoding.typical_p < 1.0:
        chosen.append(partial(typical, mass=decoding.typical_p, keep=keep))
    if decoding.epsilon_cutoff:
        chosen.append(partial(epsilon, cutoff=decoding.epsilon_cutoff, keep=keep))
    if decoding.eta_cutoff:
        chosen.append(partial(eta, cutoff=decoding.eta_cutoff, keep=keep))
    return chosen
