"""Tokenized rows, as compact arrays: pairs, and texts for language modelling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from seq2seq_cli.data.cache import tokenized
from seq2seq_cli.data.rows import Row
from seq2seq_cli.data.sequences import Cut, content_hash, room
from seq2seq_cli.errors import DataError, UsageError
from seq2seq_cli.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from seq2seq_cli.data.batch import Batch


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What became of the rows; ``blocks`` is what they were packed into."""

    rows: int
    kept: int
    empty_targets: int
    truncated_sources: int
    truncated_targets: int
    tokens: int
    blocks: int | None = None

    def __str__(self) -> str:
        notes = (
            (self.empty_targets, "left out: empty target"),
            (self.truncated_sources, "sources cut to the longest length"),
            (self.truncated_targets, "targets cut to the longest length"),
        )
        packed = "" if self.blocks is None else f" in {self.blocks} blocks"
        parts = [f"{self.kept} of {self.rows} rows, {self.tokens} tokens{packed}"]
        return "; ".join(parts + [f"{count} {what}" for count, what in notes if count])


class PairDataset:
    """Pairs for seq2seq: source ids with the tokenizer's template, target ids without start and eos.

    A source is cut to ``max_source_length`` tokens in all; its closing special tokens stay. A target is cut
    so that it and the eos id are ``max_target_length`` tokens. ``first_id`` is put before every target: the
    token that decoding is forced to write first, which the model has to have seen there. Rows with an empty
    target are left out unless ``keep_empty``. ``row_numbers[i]`` is the place in ``rows`` of what is here
    number i. Raises :class:`DataError` when nothing is left.
    """

    def __init__(
        self,
        *,
        rows: Sequence[Row],
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        start_id: int,
        eos_id: int,
        first_id: int | None = None,
        max_source_length: int | None = None,
        max_target_length: int | None = None,
        source_prefix: str = "",
        keep_empty: bool = False,
    ) -> None:
        self.start_id, self.eos_id = start_id, eos_id
        self.source_pad_id = source_tokenizer.pad_id or 0
        self.target_pad_id = target_tokenizer.pad_id or 0
        self.row_numbers, empty = kept_rows(rows, keep_empty)
        kept = partial(picked, rows, self.row_numbers)
        sources = Cut(source_tokenizer, max_source_length, special=True)
        self._sources = tokenized(lambda: (source_prefix + row.source for row in kept()), sources)
        first = [] if first_id is None else [first_id]
        space = room(max_target_length, "max_target_length", beside=1 + len(first))
        targets = Cut(target_tokenizer, space, special=False, before=first)
        self._targets = tokenized(lambda: (row.target for row in kept()), targets)
        #: (source, target) tokens of each pair, the eos id included: [N, 2].
        self.lengths: NDArray[np.int64] = np.stack((self._sources.lengths, self._targets.lengths + 1), axis=1)
        self.summary = Summary(
            rows=len(rows),
            kept=len(self),
            empty_targets=empty,
            truncated_sources=sources.count,
            truncated_targets=targets.count,
            tokens=int(self.lengths.sum()),
        )

    def __len__(self) -> int:
        return len(self.row_numbers)

    def __getitem__(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(source ids, target ids) of one pair."""
        return self._sources[index], self._targets[index]

    def batch(self, indices: Sequence[int], *, epoch: int = 0) -> Batch:
        """The pairs ``indices`` as one batch; the same in every epoch."""
        from seq2seq_cli.data.batch import pair_batch

        return pair_batch(
            [self._sources[i] for i in indices],
            [self._targets[i] for i in indices],
            rows=self.row_numbers[list(indices)].tolist(),
            start_id=self.start_id,
            eos_id=self.eos_id,
            source_pad_id=self.source_pad_id,
            target_pad_id=self.target_pad_id,
        )

    @property
    def content_hash(self) -> str:
        """SHA-256 of all ids in their order: the same for a resumed run on the same data."""
        return content_hash(self.start_id, self.eos_id, self._sources, self._targets)


class TextDataset:
    """Texts (the rows' targets) for language modelling.

    ``causal_lm``: ids without the template; start and eos id are added in the batch, and a text and its eos
    id are at most ``max_length`` tokens. ``masked_lm``: ids with the template, at most ``max_length`` in all;
    with ``whole_word`` all pieces of a word are masked together.
    Raises :class:`UsageError` when the tokenizer or the ids do not fit the objective, :class:`DataError` when
    no text is left.
    """

    def __init__(
        self,
        *,
        rows: Sequence[Row],
        tokenizer: Tokenizer,
        objective: Literal["causal_lm", "masked_lm"],
        start_id: int | None = None,
        eos_id: int | None = None,
        max_length: int | None = None,
        whole_word: bool = False,
        seed: int = 0,
    ) -> None:
        self._causal = objective == "causal_lm"
        if self._causal and (start_id is None or eos_id is None):
            raise UsageError("causal_lm needs a start and an eos id")
        if not self._causal and tokenizer.mask_id is None:
            raise UsageError("masked_lm needs a tokenizer with a mask token", remedy="use causal_lm")
        self.start_id, self.eos_id, self.seed = start_id, eos_id, seed
        self._tokenizer = tokenizer
        self.row_numbers, empty = kept_rows(rows)
        limit = room(max_length, "max_length", beside=1) if self._causal else max_length
        texts = Cut(tokenizer, limit, special=not self._causal, whole_words=whole_word)
        self._texts = tokenized(lambda: (row.target for row in picked(rows, self.row_numbers)), texts)
        lengths = self._texts.lengths + self._causal
        #: (0, tokens) of each text, the eos id included: [N, 2].
        self.lengths: NDArray[np.int64] = np.stack((np.zeros_like(lengths), lengths), axis=1)
        self.summary = Summary(
            rows=len(rows),
            kept=len(self),
            empty_targets=empty,
            truncated_sources=0,
            truncated_targets=texts.count,
            tokens=int(lengths.sum()),
        )

    def __len__(self) -> int:
        return len(self.row_numbers)

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        """The ids of one text; with ``whole_word`` a piece inside a word is ``~id``."""
        return self._texts[index]

    def batch(self, indices: Sequence[int], *, epoch: int = 0) -> Batch:
        """The texts ``indices`` as one batch; ``masked_lm`` masks anew in each epoch."""
        from seq2seq_cli.data.batch import causal_batch, masked_batch

        texts = [self._texts[i] for i in indices]
        rows = self.row_numbers[list(indices)].tolist()
        pad_id = self._tokenizer.pad_id or 0
        if self._causal:
            assert self.start_id is not None
            assert self.eos_id is not None
            return causal_batch(texts, rows=rows, start_id=self.start_id, eos_id=self.eos_id, pad_id=pad_id)
        assert self._tokenizer.mask_id is not None
        return masked_batch(
            texts,
            rows=rows,
            mask_id=self._tokenizer.mask_id,
            vocab_size=self._tokenizer.vocab_size,
            special_ids=self._tokenizer.special_ids,
            seed=self.seed,
            epoch=epoch,
            pad_id=pad_id,
        )

    @property
    def content_hash(self) -> str:
        """SHA-256 of all ids in their order: the same for a resumed run on the same data."""
        return content_hash(self.start_id, self.eos_id, self._texts)


def kept_rows(rows: Sequence[Row], keep_empty: bool = False) -> tuple[NDArray[np.int64], int]:
    """(numbers of the rows that have a target, how many have none). DataError when nothing is left."""
    kept = np.flatnonzero([keep_empty or bool(row.target.strip()) for row in rows])
    if not len(kept):
        where = rows[0].where if rows else ""
        raise DataError("no row has a target text", where=where, remedy="check the field named as target")
    return kept.astype(np.int64), len(rows) - len(kept)


def picked(rows: Sequence[Row], numbers: NDArray[np.int64]) -> Iterator[Row]:
    """The rows of these rising numbers, read from the first to the last."""
    wanted = np.zeros(len(rows), bool)
    wanted[numbers] = True
    return compress(rows, wanted)
