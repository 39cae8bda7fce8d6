"""Texts with holes, for denoising: text infilling (BART) and span corruption (T5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_Ints = NDArray[np.int64]
Kind = Literal["infilling", "spans"]

#: share of tokens in holes and mean length of a hole: Lewis et al. 2020, section 3.2 and table 1 (30 %,
#: Poisson of 3); Raffel et al. 2020, section 3.3.4 (15 %, 3 tokens)
DEFAULTS: dict[Kind, tuple[float, float]] = {"infilling": (0.3, 3.0), "spans": (0.15, 3.0)}


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How holes are made. ``marks``: the mask token alone (infilling), or the sentinels (spans)."""

    kind: Kind
    density: float
    mean_span_length: float
    marks: tuple[int, ...]


def infilled(ids: _Ints, noise: Noise, rng: np.random.Generator) -> _Ints:
    """``ids`` with holes, each of them one mask token (Lewis et al. 2020, section 2.2).

    The lengths of the holes are drawn from a Poisson distribution until they cover ``density`` of the tokens;
    the last is cut to fit. A hole of length 0 puts a mask token in between; those that would make the result
    longer than ``ids`` are left out. Every way to lay the holes is equally likely.
    """
    if not len(ids):
        return ids
    covered = max(1, round(noise.density * len(ids)))
    lengths = np.zeros(0, np.int64)
    while lengths.sum() < covered:
        more = max(4, round(covered / noise.mean_span_length))
        lengths = np.concatenate((lengths, rng.poisson(noise.mean_span_length, more)))
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), covered)) + 1]
    lengths[-1] -= lengths.sum() - covered
    surplus = max(0, len(lengths) - covered)
    lengths = np.delete(lengths, np.flatnonzero(lengths == 0)[:surplus])
    widths = np.ones(len(ids) - covered + len(lengths), np.int64)  # of what stands in a row: tokens and holes
    holes = np.sort(rng.choice(len(widths), len(lengths), replace=False))
    widths[holes] = rng.permutation(lengths)
    starts = np.cumsum(widths) - widths
    result: _Ints = ids[np.minimum(starts, len(ids) - 1)]
    result[holes] = noise.marks[0]
    return result


def span_counts(length: int, noise: Noise) -> tuple[int, int]:
    """(tokens in spans, number of spans) for a text of ``length`` tokens."""
    if not length:
        return 0, 0
    covered = min(max(1, round(noise.density * length)), max(1, length - 1))
    spans = max(1, round(covered / noise.mean_span_length))
    return covered, min(spans, covered, length - covered + 1)


def span_lengths(length: int, noise: Noise) -> tuple[int, int]:
    """Tokens of the (source, target) that span corruption makes of ``length`` tokens."""
    covered, spans = span_counts(length, noise)
    return length - covered + spans, covered + spans + 1


def span_limit(noise: Noise, source_room: int | None, target_room: int | None) -> int:
    """The most tokens of a text whose source and target have room, and sentinels enough."""
    length = 0
    while True:
        source, target = span_lengths(length + 1, noise)
        fits = source <= (source_room or source) and target <= (target_room or target)
        if not fits or span_counts(length + 1, noise)[1] + 1 > len(noise.marks):
            return length
        length += 1


def spans(ids: _Ints, noise: Noise, rng: np.random.Generator) -> tuple[_Ints, _Ints]:
    """(source, target): spans are taken out, a sentinel each in their place; the target has the sentinels,
    what they stand for, and one sentinel more (Raffel et al. 2020, section 3.1.4 and figure 2).

    Every way to lay that many spans, no two of them touching, is equally likely.
    """
    covered, count = span_counts(len(ids), noise)
    if not count:
        return ids, np.array(noise.marks[:1], np.int64)
    inside = _parts(covered, count, rng)
    # there may be nothing in front of the first span and nothing behind the last
    outside = _parts(len(ids) - covered + 2, count + 1, rng)
    outside[[0, -1]] -= 1
    source: list[_Ints] = []
    target: list[_Ints] = []
    place = 0
    for number in range(count):
        mark = np.array([noise.marks[number]], np.int64)
        start = place + outside[number]
        source += [ids[place:start], mark]
        place = start + inside[number]
        target += [mark, ids[start:place]]
    source.append(ids[place:])
    target.append(np.array([noise.marks[count]], np.int64))
    return np.concatenate(source), np.concatenate(target)


def _parts(total: int, count: int, rng: np.random.Generator) -> _Ints:
    """``total`` as a sum of ``count`` numbers from 1, each such sum equally likely."""
    cuts = np.sort(rng.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff(np.concatenate(([0], cuts, [total])))
