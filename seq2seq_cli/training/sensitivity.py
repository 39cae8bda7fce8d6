"""Does the output depend on the source? What a model that was joined from two must learn first."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seq2seq_cli.data.batch import IGNORED
from seq2seq_cli.model import Seq2Seq

if TYPE_CHECKING:
    from seq2seq_cli.data.batch import Batch
    from seq2seq_cli.training.datasets import Dataset

#: below this many nats a token the output is as good as independent of the source
LITTLE = 0.01
#: rows that are compared, of how many candidates, and how many at once
_ROWS, _CANDIDATES, _AT_ONCE = 16, 64, 4
#: target tokens that are looked at in each group of rows, and how many distributions exist at once
_PLACES, _DISTRIBUTIONS = 64, 32


def source_sensitivity(
    model: Seq2Seq, data: Dataset, *, device: torch.device, precision: AbstractContextManager[object]
) -> float | None:
    """How much the distribution of a target token changes when the row is given another row's source: the
    mean Kullback-Leibler divergence in nats over target tokens spread evenly over at most 16 rows. 0: the
    source is not listened to. None where the rows have fewer than two different sources.

    The rows are the same at every call, and no random number is drawn.
    """
    rows = _rows(data)
    if len(rows) < 2:
        return None
    others = [*rows[1:], rows[0]]
    total, count = 0.0, 0
    with torch.inference_mode(), precision:
        for first in range(0, len(rows), _AT_ONCE):
            own = data.batch(rows[first : first + _AT_ONCE]).to(device)
            other = data.batch(others[first : first + _AT_ONCE]).to(device)
            places = (own.labels != IGNORED).flatten().nonzero().squeeze(1)
            places = places[:: max(1, len(places) // _PLACES)]
            states = [_states(model, own, batch).index_select(0, places) for batch in (own, other)]
            for start in range(0, len(places), _DISTRIBUTIONS):
                total += _divergence(model, *(each[start : start + _DISTRIBUTIONS] for each in states))
            count += len(places)
    return total / count


def _rows(data: Dataset) -> list[int]:
    """Rows whose sources all differ, drawn evenly from the whole."""
    found: dict[tuple[int, ...], int] = {}
    for row in range(0, len(data), max(1, len(data) // _CANDIDATES)):
        source = data.batch([row]).source_ids
        if source is None:
            return []
        found.setdefault(tuple(source[0].tolist()), row)
        if len(found) == _ROWS:
            break
    return list(found.values())


def _states(model: Seq2Seq, batch: Batch, sources: Batch) -> Tensor:
    """The decoder's states [B * T, D] for the targets of ``batch`` behind the sources of another."""
    assert sources.source_ids is not None
    return model.target_states(sources.source_ids, sources.source_mask, batch.target_ids).flatten(0, 1)


def _divergence(model: Seq2Seq, own: Tensor, other: Tensor) -> float:
    head = model.decoder.head
    assert head is not None
    told, instead = (head(states).float().log_softmax(-1) for states in (own, other))
    gap = torch.where(told.isneginf(), 0.0, told.exp() * (told - instead))
    return float(gap.sum().item())
