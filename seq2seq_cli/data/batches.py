"""Which rows go into one batch, and in which order: pure functions of the lengths, the seed and the epoch.

Rows of like length share a batch, so that little is padded. Rows have two lengths; sorting by one of them
leaves the other ragged. So the rows are halved again and again, each time by that length and at that place
where the two parts take the fewest padded positions in whole batches, until each part is a batch.

Batches of a fixed number of rows are drawn at random instead, as transformers does. They are padded more, but
hold all kinds of rows: where length goes with content (SQL of one form is equally long), batches of like
length teach a decoder that form without ever making it look at the source.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_Ints = NDArray[np.int64]

#: More rows than this are parted within their middle half, so that a million rows take seconds.
_MANY = 4096
#: What a batch more counts, as a share of a full one: of parts that waste alike the fuller ones win.
_BATCH = 0.5


def plan_epoch(
    lengths: Sequence[tuple[int, int]] | NDArray[np.integer],
    *,
    seed: int,
    epoch: int,
    tokens_per_batch: int | None,
    batch_size: int | None,
    batches_per_step: int = 1,
) -> list[list[int]]:
    """The batches of one epoch, each a list of row numbers; every row exactly once.

    ``lengths`` are (source, target) tokens of each row. A batch costs rows × (longest source + longest
    target) and stays within ``tokens_per_batch``; a row that is longer has a batch to itself. With
    ``batch_size`` every batch has as many rows, but the last. With both, both hold. Batches come in an order
    drawn from (seed, epoch), which also decides which of equally long rows meet. The ``batches_per_step``
    token batches that follow one another in a step cost about the same, for processes that share them wait
    for the slowest.
    """
    rng = np.random.default_rng([seed, epoch])
    sizes = _checked(lengths, tokens_per_batch, batch_size)
    if not len(sizes):
        return []
    order = rng.permutation(len(sizes))
    if tokens_per_batch is None:
        return _cut(sizes, order, None, batch_size)
    batches = [order[part] for part in _parted(sizes[order], tokens_per_batch, batch_size)]
    by_cost = np.argsort([-len(batch) * sizes[batch].max(axis=0).sum() for batch in batches], kind="stable")
    whole = len(batches) // batches_per_step * batches_per_step
    steps = by_cost[:whole].reshape(-1, batches_per_step)
    steps = rng.permuted(steps[rng.permutation(len(steps))], axis=1)
    return [batches[i].tolist() for i in (*steps.flat, *by_cost[whole:])]


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


def _parted(sizes: _Ints, budget: int, rows: int | None) -> list[_Ints]:
    """The row numbers, parted into batches."""
    waiting, done = [np.arange(len(sizes))], []
    most_rows = len(sizes) if rows is None else rows
    while waiting:
        part = waiting.pop()
        inside = len(part) <= most_rows and len(part) * sizes[part].max(axis=0).sum() <= budget
        if inside or len(part) == 1:
            done.append(part)
        else:
            waiting += _halves(sizes, part, budget, most_rows)
    return done


def _halves(sizes: _Ints, part: _Ints, budget: int, most_rows: int) -> tuple[_Ints, _Ints]:
    """``part`` in two, by one length, where the two together take the least room."""
    count = len(part)
    first, last = (count // 4, count - count // 4) if count > _MANY else (1, count)
    left = np.arange(first, last)
    found = []
    for by in (0, 1):
        order = part[np.lexsort((-sizes[part, 1 - by], -sizes[part, by]))]
        widths = sizes[order]
        before = np.maximum.accumulate(widths).sum(axis=1)[first - 1 : last - 1]
        behind = np.maximum.accumulate(widths[::-1])[::-1].sum(axis=1)[first:last]
        costs = (left * before, (count - left) * behind)
        batches = sum(
            np.maximum(-(-cost // budget), -(-many // most_rows))
            for cost, many in zip(costs, (left, count - left), strict=True)
        )
        total = costs[0] + costs[1] + _BATCH * budget * batches
        best = int(np.argmin(total))
        found.append((float(total[best]), by, order, first + best))
    _, _, order, place = min(found, key=lambda each: each[:2])
    return order[:place], order[place:]


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
