"""Guesses by a draft: a smaller model writes on, the way the larger one does."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seq2seq_cli.decoding.greedy import needed
from seq2seq_cli.decoding.options import Decoding
from seq2seq_cli.decoding.prompt import begin, check_known
from seq2seq_cli.decoding.search import Search
from seq2seq_cli.decoding.single import Choose
from seq2seq_cli.decoding.speculative import NOTHING, Paths
from seq2seq_cli.decoding.stepper import Stepper, is_any_of, left_padded
from seq2seq_cli.errors import UsageError
from seq2seq_cli.model import Seq2Seq, SpecialIds, Stack
from seq2seq_cli.text.tokenizer import Tokenizer

#: whether a model writes targets for sources, and the tokenizer of what it writes
Kind = tuple[bool, Tokenizer | None]


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A model that guesses, and what it reads: sources of an encoder-decoder in its own tokens, prompts of a
    single stack; ids [B, L] and their mask."""

    model: Seq2Seq | Stack
    ids: Tensor
    mask: Tensor | None

    @property
    def writer(self) -> Stack:
        """The stack that writes."""
        return self.model.decoder if isinstance(self.model, Seq2Seq) else self.model


def check_draft(draft: Draft, model: Seq2Seq | Stack) -> None:
    """UsageError for a draft that cannot guess for the model."""
    _refuse_another_kind(isinstance(draft.model, Seq2Seq), isinstance(model, Seq2Seq), "")
    writer = model.decoder if isinstance(model, Seq2Seq) else model
    size, wanted = draft.writer.config.vocab_size, writer.config.vocab_size
    if size != wanted:
        what = f"the draft model writes {size} tokens, the model {wanted}"
        raise UsageError(what, remedy="take one with the same target vocabulary")
    reader = draft.model.encoder if isinstance(draft.model, Seq2Seq) else draft.writer
    check_known(draft.ids, reader, "the draft model")


def refuse_unlike(small: Kind, large: Kind, *, draft: str) -> None:
    """The same where no weights are known yet; ``draft`` is what the draft is called."""
    _refuse_another_kind(small[0], large[0], draft)
    prints = [None if tokenizer is None else tokenizer.fingerprint for _, tokenizer in (small, large)]
    if prints[0] != prints[1]:
        what = "the draft model has another target tokenizer than the model"
        raise UsageError(what, where=draft, remedy="take one that was trained with the same")


def _refuse_another_kind(draft_has_source: bool, has_source: bool, where: str) -> None:
    if draft_has_source != has_source:
        kinds = ("a language model", "an encoder-decoder")
        what = f"the draft model is {kinds[draft_has_source]}, the model {kinds[has_source]}"
        raise UsageError(what, where=where, remedy="take one of the same kind")


def begin_draft(draft: Draft, decoding: Decoding, ids: SpecialIds) -> Search:
    """The draft behind its prompts, with as many new tokens as it has places for.

    ``ids`` are those of the model: where that begins with its own start id, so does the draft. What is longer
    than the draft reads is cut for it, a source on the right, a prompt on the left.
    """
    own = draft.model.special_ids.start
    start = own if own is not None and decoding.start == ids.start else decoding.start
    if isinstance(draft.model, Seq2Seq):
        mask = None if draft.mask is None else draft.mask.flip(1)
        tokens, mask = _last(draft.ids.flip(1), mask, draft.model.longest_source)
        tokens, mask = tokens.flip(1), None if mask is None else mask.flip(1)
    else:
        tokens, mask = _last(draft.ids, draft.mask, draft.writer.config.max_positions * 3 // 4)
    wanted = replace(decoding, start=start, max_new_tokens=None, max_length=None)
    return begin(draft.model, tokens, mask, wanted, likeliest=needed(decoding))


def _last(ids: Tensor, mask: Tensor | None, most: int) -> tuple[Tensor, Tensor | None]:
    """The last visible tokens of each row, at most so many."""
    ids, mask = left_padded(ids, mask)
    return ids[:, -most:], None if mask is None else mask[:, -most:]


class Drafter:
    """The guesser that writes on token by token, by the same rules and random numbers as the model.

    Between two calls the draft has read some of a row's tokens and, behind those, guesses of its own; as many
    of them as were right stay read.
    """

    def __init__(self, begun: Search, choose: Choose) -> None:
        assert isinstance(begun.stepper, Stepper)  # others cannot take back what they have read
        self._stepper, self._choose, self._eos = begun.stepper, choose, begun.decoding.eos
        self._limits = begun.limits  #: of all rows: the most tokens that the draft can write
        self._rows = torch.arange(begun.prompt.shape[0], device=begun.prompt.device)
        self._read = torch.zeros_like(self._rows)  #: tokens that count
        self._ahead = torch.zeros_like(self._rows)  #: guesses that were read behind them
        self._slots = 0  #: places of the cache that those take up

    def guess(self, rows: Tensor, paths: Paths, most: Tensor) -> Tensor:
        """As many guesses as the draft has places for, none behind an eos."""
        wanted = most.minimum(self._limits[rows] - paths.counts[rows])
        at = (wanted > 0).nonzero()[:, 0]
        guesses = rows.new_full((rows.shape[0], int(wanted.max().clamp(min=0))), NOTHING)
        if not at.numel():
            return guesses
        wanted = wanted[at]
        self._settle(rows[at], paths)
        counts, scores = paths.counts[self._rows], self._catch_up(paths)
        latest, live = torch.zeros_like(counts), torch.arange(at.shape[0], device=at.device)
        for place in range(guesses.shape[1]):
            if place:
                scores = self._go_on(latest, live)
            which, count = self._rows[live], counts[live] + place
            try:
                chosen = paths.choose(self._choose, which, count, scores[live])
            except UsageError:  # a text that nobody has written yet is nobody's mistake
                return guesses[:, :place]
            guesses[at[live], place] = latest[live] = paths.tokens[which, count] = chosen
            live = live[~is_any_of(chosen, self._eos) & (wanted[live] > place + 1)]
            if not live.numel():
                return guesses[:, : place + 1]
        return guesses

    def _settle(self, rows: Tensor, paths: Paths) -> None:
        """Forget the guesses that were wrong, and all but these rows."""
        right = (paths.counts[self._rows] - 1 - self._read).minimum(self._ahead)
        self._stepper.take_back(self._slots - right)
        self._read = self._read + right
        kept = torch.isin(self._rows, rows).nonzero()[:, 0]
        if kept.shape[0] < self._rows.shape[0]:
            self._stepper.select(kept, sources=kept)
            self._rows, self._read = self._rows[kept], self._read[kept]

    def _catch_up(self, paths: Paths) -> Tensor:
        """Read what has been written since -> scores [R, V] behind it."""
        counts = paths.counts[self._rows]
        width = int((counts - self._read).max())
        places = counts[:, None] + torch.arange(-width, 0, device=counts.device)
        tokens = paths.tokens[self._rows[:, None], places.clamp(min=0)]
        scores = self._stepper.go_on(tokens, places >= self._read[:, None])
        self._read, self._ahead, self._slots = counts, torch.zeros_like(counts), 0
        return scores

    def _go_on(self, guesses: Tensor, live: Tensor) -> Tensor:
        """Read a guess [R] of the rows at the places ``live`` -> scores [R, V] behind it."""
        mask = torch.zeros_like(guesses, dtype=torch.bool)
        mask[live] = True
        self._slots += 1
        self._ahead[live] += 1
        return self._stepper.go_on(guesses[:, None], mask[:, None])
