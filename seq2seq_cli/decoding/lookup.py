"""Greedy decoding with prompt lookup: guess what comes next by copying, and check the guesses all at once.

Where the last words of a row stand in its source, its prompt or earlier in what it wrote, the tokens behind
them are guessed to come again. One pass of the decoder scores all guesses of a step, and the first of them
that greedy decoding would not write ends it (Leviathan et al. 2023, with a search in place of their small
model). What comes out is what greedy decoding writes, in fewer passes where an output copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq_cli.decoding.largest import likeliest
from seq2seq_cli.decoding.processors import Context
from seq2seq_cli.decoding.search import Search
from seq2seq_cli.decoding.stepper import Hypothesis, Stepper, is_any_of, left_padded

#: so many of the last tokens are looked for, then fewer of them
LONGEST_MATCH = 3
_NOTHING = -1


def look_up(
    search: Search,
    *,
    source: tuple[Tensor, Tensor | None],
    with_scores: bool,
    tell: Callable[[Tensor], None] | None,
) -> list[list[Hypothesis]]:
    """One hypothesis of each row, as long as eos, a stop text or its limit let it become.

    source: ids [R, S] of the decoder's vocabulary and their mask, where guesses are looked for first of all.
    A row leaves the batch as soon as it is done. ``tell`` hears the tokens of the rows that get one.
    """
    stepper, prompt = search.stepper, search.prompt
    assert isinstance(stepper, Stepper)  # others are refused: they cannot take back what they read
    paths = _Paths(search, source=source, with_scores=with_scores, tell=tell)
    rows = torch.arange(prompt.shape[0], device=prompt.device)
    read, guesses = search.scores[:, None], prompt.new_full((prompt.shape[0], 0), _NOTHING)
    while True:
        gained, done = paths.extend(rows, read, guesses)
        kept = (~done).nonzero()[:, 0]
        if not kept.numel():
            return paths.hypotheses(search.token_scores)
        stepper.take_back(read.shape[1] - gained)
        if kept.shape[0] < rows.shape[0]:
            stepper.select(kept, sources=kept)
            rows = rows[kept]
        last, guesses = paths.guess(rows, search.decoding.prompt_lookup)
        tokens = torch.cat([last[:, None], guesses], dim=1)
        read = stepper.read(tokens.clamp(min=0), tokens != _NOTHING)


class _Paths:
    """What all rows have written, behind the text that guesses come from."""

    def __init__(
        self,
        search: Search,
        *,
        source: tuple[Tensor, Tensor | None],
        with_scores: bool,
        tell: Callable[[Tensor], None] | None,
    ) -> None:
        self._prompt, self._visible, self._limits = search.prompt, search.visible, search.limits
        self._decoding, self._processors = search.decoding, search.processors
        self._with_scores, self._tell = with_scores, tell
        ids, mask = left_padded(*source)
        known = ids < search.scores.shape[1]
        ids = ids.masked_fill(~known if mask is None else ~(known & mask), _NOTHING)
        self._begin = ids.shape[1]
        longest = search.longest
        self._text = F.pad(ids, (0, longest), value=_NOTHING)
        self._counts = torch.zeros_like(search.limits)
        self._logs = torch.zeros(*self._text[:, self._begin :].shape, device=ids.device)

    def extend(self, rows: Tensor, scores: Tensor, guesses: Tensor) -> tuple[Tensor, Tensor]:
        """Write on as long as the guesses [R, G] hold, and one token behind them. scores [R, 1 + G, V] are
        those before and behind each guess -> tokens gained [R], which rows have ended [R]."""
        gained, done = torch.zeros_like(rows), torch.zeros_like(rows, dtype=torch.bool)
        at = torch.arange(rows.shape[0], device=rows.device)
        for place in range(scores.shape[1]):
            chosen, ended = self._write(rows[at], scores[at, place])
            gained[at] += 1
            done[at] = ended
            if place < guesses.shape[1]:
                at = at[~ended & (chosen == guesses[at, place])]
                if not at.numel():
                    break
        return gained, done

    def _write(self, rows: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """One more token of these rows, of scores [R, V] -> tokens [R], which rows end with them [R]."""
        if self._processors:
            for at, context in self._alike(rows):
                part = scores[at]
                for process in self._processors:
                    process(part, context)
                scores[at] = part
        chosen, counts = likeliest(scores), self._counts[rows]
        self._text[rows, self._begin + counts] = chosen
        if self._with_scores:
            self._logs[rows, counts] = -F.cross_entropy(scores, chosen, reduction="none").to(self._logs.dtype)
        self._counts[rows] += 1
        if self._tell is not None:
            self._tell(chosen)
        ended = is_any_of(chosen, self._decoding.eos) | (self._limits[rows] <= counts + 1)
        if self._decoding.stop is not None:
            for at, context in self._alike(rows):
                ended[at] |= self._decoding.stop.hits(context.tokens, context.visible)
        return chosen, ended

    def _alike(self, rows: Tensor) -> Iterator[tuple[Tensor, Context]]:
        """Places in ``rows`` of those that have written equally much, and their context: processors know one
        number of new tokens."""
        counts = self._counts[rows]
        for count in sorted(set(counts.tolist())):
            at = (counts == count).nonzero()[:, 0]
            which = rows[at]
            written = self._text[which, self._begin : self._begin + count]
            visible = None if self._visible is None else F.pad(self._visible[which], (0, count), value=True)
            yield (
                at,
                Context(
                    tokens=torch.cat([self._prompt[which], written], dim=1),
                    visible=visible,
                    rows=which,
                    new_tokens=count,
                    limits=self._limits[which],
                ),
            )

    def guess(self, rows: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """The last token of each row [R], and guesses [R, G <= ``most``] of those that follow: what stands
        behind the longest match of the last tokens, the latest of equal ones; -1 behind a row's last guess.
        They stop short of the limit: the token behind them has to fit, too."""
        ends = self._begin + self._counts[rows]
        text = self._text[rows, : int(ends.max())]
        width = text.shape[1]
        places = torch.arange(width, device=text.device)
        agreeing, length = torch.ones_like(text, dtype=torch.bool), torch.zeros_like(text)
        for back in range(min(LONGEST_MATCH, width)):
            wanted = text.gather(1, (ends[:, None] - 1 - back).clamp(min=0))
            agreeing = agreeing & (F.pad(text, (back, 0), value=_NOTHING)[:, :width] == wanted)
            length += agreeing
        length.masked_fill_(places >= ends[:, None] - 1, 0)
        best = (length * width + places).argmax(1, keepdim=True)
        found = length.gather(1, best) > 0
        behind = best + 1 + torch.arange(most, device=text.device)
        guesses = F.pad(text, (0, most), value=_NOTHING).gather(1, behind.clamp(max=width))
        room = (self._limits - self._counts)[rows, None] - 1
        usable = found & (guesses != _NOTHING) & (torch.arange(most, device=text.device) < room)
        usable = usable.long().cumprod(1).bool()
        guesses = guesses.masked_fill(~usable, _NOTHING)[:, : int(usable.sum(1).max())]
        return text.gather(1, ends[:, None] - 1)[:, 0], guesses

    def hypotheses(self, token_scores: bool) -> list[list[Hypothesis]]:
        """The one of each row."""
        means = self._logs.sum(1) / self._counts.float() ** self._decoding.length_penalty
        written = self._text[:, self._begin :].tolist()
        found = zip(written, self._counts.tolist(), means.tolist(), self._logs.tolist(), strict=True)
        return [
            [Hypothesis(ids=ids[:n], score=score, token_scores=logs[:n] if token_scores else None)]
            for ids, n, score, logs in found
        ]
