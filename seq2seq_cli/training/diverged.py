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
#: batches that it names
_NAMED_BATCHES = 8


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """A step without finite numbers: its gradient norm, and the loss and the rows of the batches to blame."""

    step: int
    norm: float
    batches: tuple[tuple[float, str], ...]


def looked_at(
    batches: Sequence[Batch], losses: Sequence[Tensor], where: Callable[[int], str]
) -> list[tuple[float, str]]:
    """(loss, its rows in words) of the batches of one process."""
    found = []
    for batch, loss in zip(batches, losses, strict=True):
        places = [where(row) for row in batch.rows[:_NAMED_ROWS]]
        more = f" and {len(batch.rows) - _NAMED_ROWS} more" if len(batch.rows) > _NAMED_ROWS else ""
        found.append((loss.item(), f"rows {', '.join(places)}{more}"))
    return found


def divergence(step: int, norm: float, batches: Sequence[tuple[float, str]]) -> Divergence:
    """Which of the ``batches`` of all processes in ``step`` have no finite loss; where all have one, it was
    lost on the way back, and any of the first few may be to blame."""
    guilty = [(loss, rows) for loss, rows in batches if not math.isfinite(loss)]
    return Divergence(step=step, norm=norm, batches=tuple((guilty or batches)[:_NAMED_BATCHES]))


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
