"""What is said when the numbers of a step are no longer finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seq2seq_cli.errors import DivergedError, Finding

if TYPE_CHECKING:
    from torch import Tensor

    from seq2seq_cli.data.batch import Batch

#: rows that an error about a batch names
_NAMED_ROWS = 8


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """A step without finite numbers: its gradient norm, and the loss and the rows of the batches to blame."""

    step: int
    norm: float
    batches: tuple[tuple[float, str], ...]


def divergence(
    step: int,
    norm: float,
    batches: Sequence[Batch],
    losses: Sequence[Tensor],
    where: Callable[[int], str],
) -> Divergence:
    """Which of the ``batches`` of ``step`` have no finite loss; the only one when there is but one."""
    found = []
    for batch, loss in zip(batches, losses, strict=True):
        if not math.isfinite(loss.item()) or len(batches) == 1:
            places = [where(row) for row in batch.rows[:_NAMED_ROWS]]
            more = f" and {len(batch.rows) - _NAMED_ROWS} more" if len(batch.rows) > _NAMED_ROWS else ""
            found.append((loss.item(), f"rows {', '.join(places)}{more}"))
    return Divergence(step=step, norm=norm, batches=tuple(found))


def diverged(found: Divergence, *, skipped: int, run: str) -> DivergedError:
    """The error that ends a run, after ``skipped`` such steps that were passed over."""
    what = (
        f"training diverged at step {found.step}: gradient norm {found.norm:g}, the weights were not changed"
    )
    if skipped:
        what += f"; {skipped} such steps were skipped before"
    remedy = "lower learning_rate or raise warmup_steps; a few such steps are skipped with --skip-nan N"
    batches = [Finding(f"the batch with loss {loss:g}", rows) for loss, rows in found.batches]
    return DivergedError(findings=[Finding(what, run, remedy), *batches])
