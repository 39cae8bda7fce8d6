"""Guesses by copying: where the last words of a row stand in its source, its prompt or earlier in what it
wrote, the tokens behind them are guessed to come again."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq_cli.decoding.speculative import NOTHING, Paths
from seq2seq_cli.decoding.stepper import left_padded

#: so many of the last tokens are looked for, then fewer of them
LONGEST_MATCH = 3
#: steps that a row guesses nothing after guesses that did not hold
PAUSE = 8


class Lookup:
    """The guesser that needs no model. A row whose guesses do not hold makes fewer of them, then none for a
    while: checking them costs time, and some texts do not copy."""

    def __init__(self, source: tuple[Tensor, Tensor | None], *, vocab_size: int, copies: int = 1) -> None:
        """source: ids [B, S] and their mask, where guesses are looked for first of all; those that the
        decoder's vocabulary lacks are no text. Rows are the sources, each so many times."""
        ids, mask = left_padded(*source)
        known = ids < vocab_size
        ids = ids.masked_fill(~known if mask is None else ~(known & mask), NOTHING)
        self._source = ids.repeat_interleave(copies, dim=0)
        none = ids.new_zeros(len(self._source))
        self._most = 0  # never more guesses at once than the first time
        self._trust: Tensor | None = None  # [all rows]: how many guesses each may make; below 1: none yet
        self._offered, self._before = none, none.clone()  # what each did last time, and had written then

    def guess(self, rows: Tensor, paths: Paths, most: Tensor) -> Tensor:
        """What stands behind the longest match of the last tokens, the latest of equal ones."""
        counts = paths.counts[rows]
        most = self._trusted(rows, counts, most)
        text = torch.cat([self._source[rows], paths.tokens[rows, : int(counts.max())]], dim=1)
        ends, width = self._source.shape[1] + counts, text.shape[1]
        places = torch.arange(width, device=text.device)
        text = text.masked_fill(places >= ends[:, None], NOTHING)
        agreeing, length = torch.ones_like(text, dtype=torch.bool), torch.zeros_like(text)
        for back in range(min(LONGEST_MATCH, width)):
            wanted = text.gather(1, (ends[:, None] - 1 - back).clamp(min=0))
            agreeing = agreeing & (F.pad(text, (back, 0), value=NOTHING)[:, :width] == wanted)
            length += agreeing
        length.masked_fill_(places >= ends[:, None] - 1, 0)
        best = (length * width + places).argmax(1, keepdim=True)
        found = length.gather(1, best) > 0
        ahead = torch.arange(int(most.max()), device=text.device)
        text = F.pad(text, (0, 1 + ahead.shape[0]), value=NOTHING)
        guesses = text.gather(1, best + 1 + ahead)
        usable = found & (guesses != NOTHING) & (ahead < most[:, None])
        usable = usable.long().cumprod(1).bool()
        self._offered[rows], self._before[rows] = usable.sum(1), counts
        return guesses.masked_fill(~usable, NOTHING)[:, : int(usable.sum(1).max())]

    def _trusted(self, rows: Tensor, counts: Tensor, most: Tensor) -> Tensor:
        """At most how many guesses [R] each of these rows makes now, after those of the last time."""
        if self._trust is None:
            self._most = int(most.max())
            self._trust = torch.full_like(self._before, self._most)
        trust, offered = self._trust[rows], self._offered[rows]
        held = counts - self._before[rows] - 1
        less = torch.where(trust > 1, trust // 2, 1 - PAUSE)
        after = torch.where(held < offered, torch.where(held > 0, trust, less), 2 * trust)
        rested = torch.where(trust < 1, trust + 1, trust)
        trust = torch.where(held < 0, trust, torch.where(offered > 0, after, rested))
        self._trust[rows] = trust = trust.clamp(max=self._most)
        return most.minimum(trust.clamp(min=0))
