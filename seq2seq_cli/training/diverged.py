"""What is said when the numbers of a step are no longer finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from seq2seq_cli.errors import DivergedError, Finding

if TYPE_CHECKING:
    from torch import Tensor

    from seq2seq_cli.data.batch import Batch

#: rows that an error about a batch names
_NAMED_ROWS = 8


def diverged(
    step: int,
    norm: float,
    batches: Sequence[Batch],
    losses: Sequence[Tensor],
    where: Callable[[int], str],
    *,
    run: str,
) -> DivergedError:
    """The error of ``step``: which of its ``batches`` have no finite loss, and the places of their rows."""
    findings = []
    for batch, loss in zip(batches, losses, strict=True):
        if not math.isfinite(loss.item()) or len(batches) == 1:
            places = [where(row) for row in batch.rows[:_NAMED_ROWS]]
            more = f" and {len(batch.rows) - _NAMED_ROWS} more" if len(batch.rows) > _NAMED_ROWS else ""
            findings.append(
                Finding(f"the batch with loss {loss.item():g}", f"rows {', '.join(places)}{more}")
            )
    what = f"training diverged at step {step}: gradient norm {norm:g}, the weights were not changed"
    remedy = "lower learning_rate or raise warmup_steps"
    return DivergedError(findings=[Finding(what, run, remedy), *findings])
