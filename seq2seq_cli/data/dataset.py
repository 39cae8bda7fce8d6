"""Tokenized rows in memory, as compact arrays."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from seq2seq_cli.data.rows import Row
from seq2seq_cli.errors import DataError, UsageError
from seq2seq_cli.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from seq2seq_cli.data.batch import Batch

#: Texts tokenized in one go: enough to keep all cores busy, little enough to keep memory flat.
_CHUNK = 4096


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What became of the rows."""

    rows: int
    kept: int
    empty_targets: int
    truncated_sources: int
    truncated_targets: int
    tokens: int

    def __str__(self) -> str:
        notes = (
            (self.empty_targets, "left out: empty target"),
            (self.truncated_sources, "sources cut to the longest length"),
            (self.truncated_targets, "targets cut to the longest length"),
        )
        parts = [f"{self.kept} of {self.rows} rows, {self.tokens} tokens"]
        return "; ".join(parts + [f"{count} {what}" for count, what in notes if count])


class _Sequences:
    """Many sequences of ids in one flat array."""

    def __init__(self, sequences: Iterable[Sequence[int]]) -> None:
        flat, lengths = array("i"), array("q")
        for sequence in sequences:
            flat.extend(sequence)
            lengths.append(len(sequence))
        self.flat: NDArray[np.int32] = np.array(flat, np.int32)
        self.lengths: NDArray[np.int64] = np.array(lengths, np.int64)
        self.ends = np.cumsum(self.lengths)

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        end = self.ends[index]
        return self.flat[end - self.lengths[index] : end]


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
        kept, empty = _kept(rows, keep_empty)
        self.row_numbers = np.asarray(kept, np.int64)
        sources = _Cut(source_tokenizer, max_source_length, special=True)
        self._sources = _Sequences(sources(source_prefix + rows[i].source for i in kept))
        first = [] if first_id is None else [first_id]
        room = _room(max_target_length, "max_target_length", beside=1 + len(first))
        targets = _Cut(target_tokenizer, room, special=False)
        self._targets = _Sequences([*first, *ids] for ids in targets(rows[i].target for i in kept))
        #: (source, target) tokens of each pair, the eos id included: [N, 2].
        self.lengths: NDArray[np.int64] = np.stack((self._sources.lengths, self._targets.lengths + 1), axis=1)
        self.summary = Summary(
            rows=len(rows),
            kept=len(kept),
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
        return _hash(self.start_id, self.eos_id, self._sources, self._targets)


class TextDataset:
    """Texts (the rows' targets) for language modelling.

    ``causal_lm``: ids without the template; start and eos id are added in the batch, and a text and its eos
    id are at most ``max_length`` tokens. ``masked_lm``: ids with the template, at most ``max_length`` in all.
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
        seed: int = 0,
    ) -> None:
        self._causal = objective == "causal_lm"
        if self._causal and (start_id is None or eos_id is None):
            raise UsageError("causal_lm needs a start and an eos id")
        if not self._causal and tokenizer.mask_id is None:
            raise UsageError("masked_lm needs a tokenizer with a mask token", remedy="use causal_lm")
        self.start_id, self.eos_id, self.seed = start_id, eos_id, seed
        self._tokenizer = tokenizer
        kept, empty = _kept(rows, False)
        self.row_numbers = np.asarray(kept, np.int64)
        limit = _room(max_length, "max_length", beside=1) if self._causal else max_length
        texts = _Cut(tokenizer, limit, special=not self._causal)
        self._texts = _Sequences(texts(rows[i].target for i in kept))
        lengths = self._texts.lengths + self._causal
        #: (0, tokens) of each text, the eos id included: [N, 2].
        self.lengths: NDArray[np.int64] = np.stack((np.zeros_like(lengths), lengths), axis=1)
        self.summary = Summary(
            rows=len(rows),
            kept=len(kept),
            empty_targets=empty,
            truncated_sources=0,
            truncated_targets=texts.count,
            tokens=int(lengths.sum()),
        )

    def __len__(self) -> int:
        return len(self.row_numbers)

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        """The ids of one text."""
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
        return _hash(self.start_id, self.eos_id, self._texts)


class _Cut:
    """Tokenizes texts and cuts what is too long, keeping the closing special tokens; counts the cuts."""

    def __init__(self, tokenizer: Tokenizer, limit: int | None, *, special: bool) -> None:
        self._tokenizer, self._limit, self._special = tokenizer, limit, special
        self._end = list(tokenizer.template[1]) if special else []
        smallest = sum(map(len, tokenizer.template)) + 1 if special else 0
        if limit is not None and limit < smallest:
            raise UsageError(f"a length of {limit} leaves no room for text", remedy=f"at least {smallest}")
        self.count = 0

    def __call__(self, texts: Iterable[str]) -> Iterable[list[int]]:
        chunk: list[str] = []
        for text in texts:
            chunk.append(text)
            if len(chunk) == _CHUNK:
                yield from self._encode(chunk)
                chunk = []
        yield from self._encode(chunk)

    def _encode(self, chunk: list[str]) -> Iterable[list[int]]:
        for ids in self._tokenizer.encode(chunk, special=self._special):
            if self._limit is not None and len(ids) > self._limit:
                self.count += 1
                yield ids[: self._limit - len(self._end)] + self._end
            else:
                yield ids


def _kept(rows: Sequence[Row], keep_empty: bool) -> tuple[list[int], int]:
    kept = [i for i, row in enumerate(rows) if keep_empty or row.target.strip()]
    if not kept:
        where = rows[0].where if rows else ""
        raise DataError("no row has a target text", where=where, remedy="check the field named as target")
    return kept, len(rows) - len(kept)


def _room(length: int | None, name: str, *, beside: int) -> int | None:
    """Room for the text beside the eos id, and whatever else has to stand there."""
    if length is not None and length <= beside:
        raise UsageError(f"{name} of {length} leaves no room for text", remedy=f"at least {beside + 1}")
    return None if length is None else length - beside


def _hash(start_id: int | None, eos_id: int | None, *parts: _Sequences) -> str:
    digest = hashlib.sha256(f"{start_id} {eos_id}".encode())
    for part in parts:
        digest.update(np.ascontiguousarray(part.lengths, "<i8").tobytes())
        digest.update(np.ascontiguousarray(part.flat, "<i4").tobytes())
    return digest.hexdigest()
