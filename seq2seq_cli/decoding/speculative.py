"""Guess what comes next, and check all guesses in one pass of the decoder (Leviathan et al. 2023).

At each place the token is chosen as ever, and the first one that is not the guess ends the step. The output
is that of greedy decoding or sampling without guesses, sooner where the guesses hold: a draw depends on the
seed, the row and the place alone. (The paper keeps the distribution; the same random number at each place
keeps the very draw.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq_cli.decoding.options import Decoding
from seq2seq_cli.decoding.processors import Context, Processor
from seq2seq_cli.decoding.search import Search
from seq2seq_cli.decoding.single import Choose
from seq2seq_cli.decoding.stepper import Hypothesis, Stepper, is_any_of

#: behind a row's last guess
NOTHING = -1


class Guesser(Protocol):
    """What guesses: it sees all that is written, and never has to be right."""

    def guess(self, rows: Tensor, paths: Paths, most: Tensor) -> Tensor:
        """Guesses [R, G] of what these rows [R] write next, at most ``most`` [R] of each; -1 behind a row's
        last one. A row that is left out once does not come again."""
        ...


class Paths:
    """What R rows have written behind their prompts [R, P], each at its own pace."""

    def __init__(
        self, prompt: Tensor, visible: Tensor | None, *, processors: Sequence[Processor], limits: Tensor
    ) -> None:
        """``limits`` [R]: the most new tokens of each row."""
        self._prompt, self._visible, self._processors = prompt, visible, processors
        self.limits = limits
        self.tokens = prompt.new_zeros(prompt.shape[0], int(limits.max()))  #: [R, T]
        self.counts = torch.zeros_like(limits)  #: [R] of the tokens that count; guesses may stand behind them

    def choose(self, choose: Choose, rows: Tensor, counts: Tensor, scores: Tensor) -> Tensor:
        """The tokens [R] that these rows get behind their first ``counts`` [R] ones, of scores [R, V], which
        the processors change in place."""
        if self._processors:
            for at, context in self.contexts(rows, counts):
                part = scores[at]
                for process in self._processors:
                    process(part, context)
                scores[at] = part
        return choose(scores, rows, counts)

    def contexts(self, rows: Tensor, counts: Tensor) -> Iterator[tuple[Tensor, Context]]:
        """Places in ``rows`` of those with equally many tokens, and their context: processors know one number
        of new tokens."""
        for count in sorted(set(counts.tolist())):
            at = (counts == count).nonzero()[:, 0]
            which = rows[at]
            visible = None if self._visible is None else F.pad(self._visible[which], (0, count), value=True)
            yield (
                at,
                Context(
                    tokens=torch.cat([self._prompt[which], self.tokens[which, :count]], dim=1),
                    visible=visible,
                    rows=which,
                    new_tokens=count,
                    limits=self.limits[which],
                ),
            )


def speculate(
    search: Search, *, choose: Choose, guesser: Guesser, most: int, with_scores: bool
) -> list[Hypothesis]:
    """Extend each prompt until eos, a stop text or its limit.

    At most ``most`` guesses are checked at once, and never so many that the token behind them would have no
    place. A row leaves the batch as soon as it is done.
    """
    stepper, decoding, prompt = search.stepper, search.decoding, search.prompt
    assert isinstance(stepper, Stepper)  # others cannot take back what they have read
    paths = Paths(prompt, search.visible, processors=search.processors, limits=search.limits)
    logs = torch.zeros(prompt.shape[0], search.longest if with_scores else 0, device=prompt.device)
    rows = torch.arange(prompt.shape[0], device=prompt.device)
    read, guesses = search.scores[:, None], prompt.new_full((prompt.shape[0], 0), NOTHING)
    while True:
        gained, done = _extend(paths, rows, read, guesses, decoding=decoding, choose=choose, logs=logs)
        kept = (~done).nonzero()[:, 0]
        if not kept.numel():
            return _hypotheses(paths, logs, decoding.length_penalty, search.token_scores)
        stepper.take_back(read.shape[1] - gained)
        if kept.shape[0] < rows.shape[0]:
            stepper.select(kept, sources=kept)
            rows = rows[kept]
        counts = paths.counts[rows]
        guesses = guesser.guess(rows, paths, (paths.limits[rows] - counts - 1).clamp(max=most))
        tokens = torch.cat([paths.tokens[rows, counts - 1][:, None], guesses], dim=1)
        read = stepper.read(tokens.clamp(min=0), tokens != NOTHING)


def _extend(
    paths: Paths,
    rows: Tensor,
    scores: Tensor,
    guesses: Tensor,
    *,
    decoding: Decoding,
    choose: Choose,
    logs: Tensor,
) -> tuple[Tensor, Tensor]:
    """Write on as long as the guesses [R, G] hold, and one token behind them. scores [R, 1 + G, V] are those
    before and behind each guess -> tokens gained [R], which rows have ended [R]. logs [all rows, T] take in
    the log-probabilities, where they are as wide."""
    gained, done = torch.zeros_like(rows), torch.zeros_like(rows, dtype=torch.bool)
    at = torch.arange(rows.shape[0], device=rows.device)
    for place in range(scores.shape[1]):
        which, here = rows[at], scores[at, place]
        counts = paths.counts[which]
        chosen = paths.choose(choose, which, counts, here)
        paths.tokens[which, counts] = chosen
        if logs.shape[1]:
            logs[which, counts] = -F.cross_entropy(here, chosen, reduction="none").to(logs.dtype)
        paths.counts[which] += 1
        ended = is_any_of(chosen, decoding.eos) | (paths.limits[which] <= counts + 1)
        if decoding.stop is not None:
            for part, context in paths.contexts(which, counts + 1):
                ended[part] |= decoding.stop.hits(context.tokens, context.visible)
        gained[at] += 1
        done[at] = ended
        if place < guesses.shape[1]:
            at = at[~ended & (chosen == guesses[at, place])]
            if not at.numel():
                break
    return gained, done


def _hypotheses(paths: Paths, logs: Tensor, length_penalty: float, token_scores: bool) -> list[Hypothesis]:
    """The one of each row."""
    means = logs.sum(1) / paths.counts.float() ** length_penalty
    found = zip(paths.tokens.tolist(), paths.counts.tolist(), means.tolist(), logs.tolist(), strict=True)
    return [
        Hypothesis(ids=ids[:size], score=score, token_scores=each[:size] if token_scores else None)
        for ids, size, score, each in found
    ]
