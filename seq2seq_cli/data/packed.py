"""Texts joined into blocks of one length, for left-to-right modelling without padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seq2seq_cli.data.cache import tokenized
from seq2seq_cli.data.dataset import Summary, kept_rows, picked
from seq2seq_cli.data.rows import Row
from seq2seq_cli.data.sequences import Cut, content_hash, room
from seq2seq_cli.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from seq2seq_cli.data.batch import Batch


class PackedDataset:
    """Texts (the rows' targets) one behind another, cut into blocks of ``block_length`` tokens.

    Each text is read as start, t1..tn and said as t1..tn, eos, just as it would be alone; a block holds as
    many such pairs as fit and a text goes on in the next one: nothing is cut off, and only the last block is
    shorter. What a text sees of the one before it in its block is not masked, as GPT-2 was trained (Radford
    et al. 2019): its start id tells it where to stop looking. The blocks are the same in every epoch.
    ``row_numbers[i]`` is the row that block i begins in.
    """

    def __init__(
        self, *, rows: Sequence[Row], tokenizer: Tokenizer, start_id: int, eos_id: int, block_length: int
    ) -> None:
        room(block_length, "max_target_length", beside=1)
        self.start_id, self.eos_id = start_id, eos_id
        self._pad_id = tokenizer.pad_id or 0
        kept, empty = kept_rows(rows)
        texts = Cut(tokenizer, None, special=False, before=[start_id])
        self._texts = tokenized(lambda: (row.target for row in picked(rows, kept)), texts)
        tokens = len(self._texts.flat)
        self._edges = np.append(np.arange(0, tokens, block_length), tokens)
        first = np.searchsorted(self._texts.ends, self._edges[:-1], side="right")
        self.row_numbers = kept[first]
        lengths = np.diff(self._edges)
        #: (0, tokens) of each block: [N, 2].
        self.lengths: NDArray[np.int64] = np.stack((np.zeros_like(lengths), lengths), axis=1)
        self.summary = Summary(
            rows=len(rows),
            kept=len(kept),
            empty_targets=empty,
            truncated_sources=0,
            truncated_targets=0,
            tokens=tokens,
            blocks=len(lengths),
        )

    def __len__(self) -> int:
        return len(self.row_numbers)

    def __getitem__(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What is read and what is said in one block."""
        start, end = int(self._edges[index]), int(self._edges[index + 1])
        flat, ends = self._texts.flat, self._texts.ends
        said = np.full(end - start, self.eos_id, np.int64)
        following = flat[start + 1 : end + 1]
        said[: len(following)] = following
        last = ends[np.searchsorted(ends, start, side="right") : np.searchsorted(ends, end, side="right")]
        said[last - 1 - start] = self.eos_id
        return flat[start:end].astype(np.int64), said

    def batch(self, indices: Sequence[int], *, epoch: int = 0) -> Batch:
        """The blocks ``indices`` as one batch; the same in every epoch."""
        from seq2seq_cli.data.batch import stream_batch

        rows = self.row_numbers[list(indices)].tolist()
        return stream_batch([self[i] for i in indices], rows=rows, pad_id=self._pad_id)

    @property
    def content_hash(self) -> str:
        """SHA-256 of all ids in their order: the same for a resumed run on the same data."""
        return content_hash(self.start_id, self.eos_id, self._texts)
