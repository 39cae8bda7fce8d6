"""What the rows of a run look like: lengths, cuts and padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seq2seq_cli.data.batches import padding_share

if TYPE_CHECKING:
    from seq2seq_cli.training.datasets import Dataset
    from seq2seq_cli.training.setup import Prepared

#: bars of a histogram, at most
_BARS = 24


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many rows have how many tokens: (middle of a bar, rows)."""

    title: str
    bars: list[tuple[float, float]]


def data_facts(prepared: Prepared) -> tuple[list[tuple[str, str, str]], list[Histogram]]:
    """(rows of a table: what, of the training data, of the validation data), and the lengths' histograms."""
    train, validation = prepared.train, prepared.validation
    first, second = _facts(train), _facts(validation) if validation is not None else {}
    plan = prepared.plan
    first["padding, share of all positions"] = f"{padding_share(train.lengths, plan.epoch(0)):.1%}"
    first["batches an epoch"] = f"{len(plan.epoch(0)):,}"
    if validation is not None:
        share = padding_share(validation.lengths, prepared.validation_batches)
        second["padding, share of all positions"] = f"{share:.1%}"
        second["batches an epoch"] = f"{len(prepared.validation_batches):,}"
    histograms = [
        Histogram(title=f"{side} lengths, {name}", bars=histogram(data.lengths[:, column]))
        for name, data in (("training", train), ("validation", validation))
        if data is not None
        for column, side in enumerate(("Source", "Target"))
        if data.lengths[:, column].any()
    ]
    return [(what, told, second.get(what, "")) for what, told in first.items()], histograms


def _facts(data: Dataset) -> dict[str, str]:
    summary = data.summary
    facts = {
        "rows": f"{summary.rows:,}",
        "rows used": f"{summary.kept:,}",
        "left out: empty target": f"{summary.empty_targets:,}",
        "sources cut to the longest length": f"{summary.truncated_sources:,}",
        "targets cut to the longest length": f"{summary.truncated_targets:,}",
        "tokens": f"{summary.tokens:,}",
    }
    for column, side in enumerate(("source", "target")):
        lengths = data.lengths[:, column]
        if lengths.any():
            middle, most = np.quantile(lengths, (0.5, 1.0))
            facts[f"{side} tokens a row: mean, median, most"] = (
                f"{lengths.mean():.1f}, {middle:.0f}, {most:.0f}"
            )
    return facts


def histogram(lengths: NDArray[np.int64]) -> list[tuple[float, float]]:
    """(middle, count) of bars of one whole width from the shortest length to the longest."""
    low, high = int(lengths.min()), int(lengths.max())
    width = -(-(high - low + 1) // _BARS)
    counts = np.bincount((lengths - low) // width)
    return [(low + (bar + 0.5) * width - 0.5, float(count)) for bar, count in enumerate(counts)]
