"""Which rows go into one batch, and in which order: pure functions of the lengths, the seed and the epoch.

Rows of like length share a batch, so that little is padded. Rows have two lengths; sorting by one of them
leaves the other ragged. So the rows, sorted by one length, are cut into slabs, and each slab is sorted by
the other length, every second one downwards, so that neighbours stay alike across slabs. How many slabs are
best, and by which length, depends on the data: a few are tried and the least padding wins.

Batches of a fixed number of rows are drawn at random instead, as transformers does. They are padded more, but
hold all kinds of rows: where length goes with content (SQL of one form is equally long), batches of like
length teach a decoder that form without ever making it look at the source.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_Ints = NDArray[np.int64]

_SLABS = (1, 2, 4, 8, 16, 32)
#: The numbers of slabs are tried on at most this many rows, with a budget that is scaled alike.
_TRIED_ROWS = 32768


def plan_epoch(
    lengths: Sequence[tuple[int, int]] | NDArray[np.integer],
    *,
    seed: int,
    epoch: int,
    tokens_per_batch: int | None,
    batch_size: int | None,
) -> list[list[int]]:
    """The batches of one epoch, each a list of row numbers; every row exactly once.

    ``lengths`` are (source, target) tokens of each row. A batch costs rows × (longest source + longest
    target) and stays within ``tokens_per_batch``; a row that is longer has a batch to itself. With
    ``batch_size`` every batch has as many rows, but the last. With both, both hold. Batches come in an order
    drawn from (seed, epoch), which also decides which of equally long rows meet.
    """
    rng = np.random.default_rng([seed, epoch])
    sizes = _checked(lengths, tokens_per_batch, batch_size)
    if not len(sizes):
        return []
    order = rng.permutation(len(sizes))
    if tokens_per_batch is None:
        return _cut(sizes, order, None, batch_size)
    sliced = _slab_order(sizes[order], *_best_slabs(sizes, tokens_per_batch, batch_size))
    batches = _cut(sizes, order[sliced], tokens_per_batch, batch_size)
    return [batches[i] for i in rng.permutation(len(batches))]


def plan_validation(
    lengths: Sequence[tuple[int, int]] | NDArray[np.integer],
    *,
    tokens_per_batch: int | None,
    batch_size: int | None,
) -> list[list[int]]:
    """The batches of a validation pass: the rows by length, the longest first; nothing is drawn by lot."""
    sizes = _checked(lengths, tokens_per_batch, batch_size)
    order = np.lexsort((np.arange(len(sizes)), -sizes[:, 0], -sizes[:, 1]))
    return _cut(sizes, order, tokens_per_batch, batch_size)


def padding_share(
    lengths: Sequence[tuple[int, int]] | NDArray[np.integer], batches: Sequence[Sequence[int]]
) -> float:
    """The share of padding among all positions of ``batches``, from 0 to 1."""
    sizes = np.asarray(lengths, np.int64).reshape(-1, 2)
    padded = sum(len(batch) * int(sizes[list(batch)].max(axis=0).sum()) for batch in batches)
    real = sum(int(sizes[list(batch)].sum()) for batch in batches)
    return 1 - real / padded if padded else 0.0


def _checked(
    lengths: Sequence[tuple[int, int]] | NDArray[np.integer], budget: int | None, rows: int | None
) -> _Ints:
    if budget is None and rows is None:
        raise ValueError("give tokens_per_batch, batch_size or both")
    for name, value in (("tokens_per_batch", budget), ("batch_size", rows)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    return np.asarray(lengths, np.int64).reshape(-1, 2)


def _slab_order(sizes: _Ints, slabs: int, by: int) -> _Ints:
    """Row numbers: cut into slabs of equal cost by one length, and sorted by the other inside a slab.

    From long to short, so that a batch's first row mostly settles what it costs and the batch fills up.
    """
    order = np.argsort(-sizes[:, by], kind="stable")
    cost = np.cumsum(sizes[order].sum(axis=1))
    edges = np.searchsorted(cost, np.linspace(0, cost[-1], slabs + 1)[1:-1])
    parts = []
    for number, part in enumerate(np.split(order, edges)):
        inner = part[np.argsort(-sizes[part, 1 - by], kind="stable")]
        parts.append(inner[::-1] if number % 2 else inner)
    return np.concatenate(parts)


def _best_slabs(sizes: _Ints, budget: int | None, rows: int | None) -> tuple[int, int]:
    """(slabs, which length) with the least padding on a sample of the rows."""
    step = -(-len(sizes) // _TRIED_ROWS)
    # Every so many of the sorted rows: a sample that has the same spread.
    sample = sizes[np.lexsort((sizes[:, 1], sizes[:, 0]))[::step]]
    budget = budget and max(1, budget // step)
    rows = rows and max(1, rows // step)
    choices = [(slabs, by) for slabs in _SLABS for by in (0, 1)]
    waste = [
        padding_share(sample, _cut(sample, _slab_order(sample, *choice), budget, rows)) for choice in choices
    ]
    return choices[int(np.argmin(waste))]


def _cut(sizes: _Ints, order: _Ints, budget: int | None, rows: int | None) -> list[list[int]]:
    """Consecutive rows of ``order`` in batches, each as large as the limits allow."""
    batches: list[list[int]] = []
    batch: list[int] = []
    longest_source = longest_target = 0
    most_rows = rows if rows is not None else len(order)
    most_tokens = budget if budget is not None else np.iinfo(np.int64).max
    for row, (source, target) in zip(order.tolist(), sizes[order].tolist(), strict=True):
        longest_source, longest_target = max(longest_source, source), max(longest_target, target)
        full = (len(batch) + 1) * (longest_source + longest_target) > most_tokens or len(batch) >= most_rows
        if batch and full:
            batches.append(batch)
            batch = []
            longest_source, longest_target = source, target
        batch.append(row)
    if batch:
        batches.append(batch)
    return batches
