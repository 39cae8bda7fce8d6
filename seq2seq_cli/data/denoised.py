"""Texts to be told from what is left of them: denoising, BART's way and T5's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seq2seq_cli.data.cache import tokenized
from seq2seq_cli.data.dataset import Summary, kept_rows, picked
from seq2seq_cli.data.noise import Noise, infilled, span_lengths, span_limit, spans
from seq2seq_cli.data.rows import Row
from seq2seq_cli.data.sequences import Cut, content_hash, room
from seq2seq_cli.errors import UsageError
from seq2seq_cli.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from seq2seq_cli.data.batch import Batch


class DenoiseDataset:
    """Texts (the rows' targets) with holes as sources; what is learnt is the text, or the spans taken out.

    What is taken out of a row is drawn from (seed, epoch, row) alone. Sources have the tokenizer's template
    and at most ``max_source_length`` tokens, targets with their eos id ``max_target_length``. Where both
    sides have one tokenizer, a text is cut to what fits on both. Raises UsageError where the lengths leave no
    room, DataError when no text is left.
    """

    def __init__(
        self,
        *,
        rows: Sequence[Row],
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        noise: Noise,
        start_id: int,
        eos_id: int,
        first_id: int | None = None,
        max_source_length: int | None = None,
        max_target_length: int | None = None,
        seed: int = 0,
    ) -> None:
        self.start_id, self.eos_id, self.noise, self.seed = start_id, eos_id, noise, seed
        self._pads = source_tokenizer.pad_id or 0, target_tokenizer.pad_id or 0
        self._around = tuple(np.array(ids, np.int64) for ids in source_tokenizer.template)
        self._first = np.array([] if first_id is None else [first_id], np.int64)
        self.row_numbers, empty = kept_rows(rows)

        def texts() -> Iterator[str]:
            return (row.target for row in picked(rows, self.row_numbers))

        template, first = sum(map(len, self._around)), len(self._first)
        source_room = room(max_source_length, "max_source_length", beside=template)
        target_room = room(max_target_length, "max_target_length", beside=1 + first)
        alike = source_tokenizer.fingerprint == target_tokenizer.fingerprint
        if noise.kind == "spans":
            limit: int | None = span_limit(noise, source_room, target_room)
            if not limit:
                raise UsageError(
                    "the lengths leave no room for text and its sentinels", remedy="raise max_target_length"
                )
        else:
            limit = min(filter(None, (source_room, target_room)), default=None) if alike else source_room
        sources = Cut(source_tokenizer, limit, special=False)
        self._sources = tokenized(texts, sources)
        self._targets, cut = self._sources, 0
        if not alike:
            targets = Cut(target_tokenizer, target_room, special=False)
            self._targets = tokenized(texts, targets)
            cut = targets.count
        #: (source, target) tokens of each row, the eos id included, [N, 2]; of a text with a hole here and
        #: there the source may be shorter in one epoch or another.
        self.lengths: NDArray[np.int64] = self._lengths(template, first + 1)
        self.summary = Summary(
            rows=len(rows),
            kept=len(self),
            empty_targets=empty,
            truncated_sources=sources.count,
            truncated_targets=cut,
            tokens=int(self.lengths.sum()),
        )

    def _lengths(self, template: int, beside: int) -> NDArray[np.int64]:
        pairs = np.stack((self._sources.lengths, self._targets.lengths), axis=1)
        if self.noise.kind == "spans":
            known = {n: span_lengths(n, self.noise) for n in np.unique(pairs[:, 0]).tolist()}
            pairs = np.array([known[n] for n in pairs[:, 0].tolist()], np.int64)
        pairs += np.array((template, beside))
        return pairs

    def __len__(self) -> int:
        return len(self.row_numbers)

    def __getitem__(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(source ids, target ids) of one text in the first epoch."""
        return self.example(index, 0)

    def example(self, index: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(source ids with the template, target ids without start and eos) of one text in ``epoch``."""
        rng = np.random.default_rng([self.seed, epoch, int(self.row_numbers[index])])
        text = self._sources[index].astype(np.int64)
        if self.noise.kind == "spans":
            source, target = spans(text, self.noise, rng)
        else:
            source, target = infilled(text, self.noise, rng), self._targets[index].astype(np.int64)
        return np.concatenate((self._around[0], source, self._around[1])), np.append(self._first, target)

    def batch(self, indices: Sequence[int], *, epoch: int = 0) -> Batch:
        """The texts ``indices`` as one batch, with other holes in each epoch."""
        from seq2seq_cli.data.batch import pair_batch

        pairs = [self.example(i, epoch) for i in indices]
        return pair_batch(
            [source for source, _ in pairs],
            [target for _, target in pairs],
            rows=self.row_numbers[list(indices)].tolist(),
            start_id=self.start_id,
            eos_id=self.eos_id,
            source_pad_id=self._pads[0],
            target_pad_id=self._pads[1],
        )

    @property
    def content_hash(self) -> str:
        """SHA-256 of all ids in their order: the same for a resumed run on the same data."""
        return content_hash(self.start_id, self.eos_id, self._sources, self._targets)
