"""Token ids → tensors of one batch. Targets are shifted here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Labels with this value do not count in the loss (see ``model.losses``, which this room may not import).
IGNORED = -100

Ids = Sequence[int] | NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch. Shapes: B rows, S longest source, T longest target.

    ``source_ids`` int64 and ``source_mask`` bool [B, S] are None for language modelling. ``target_ids`` int64
    [B, T] is what the decoder reads: the start id, then the target (for ``masked_lm`` the corrupted text);
    ``labels`` int64 [B, T] what it is to say at each place, -100 = ignored. Masks are true where a token is.
    ``rows`` are row numbers in the data set, for messages.
    """

    source_ids: Tensor | None
    source_mask: Tensor | None
    target_ids: Tensor
    target_mask: Tensor
    labels: Tensor
    rows: tuple[int, ...]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return Batch(
            source_ids=move(self.source_ids),
            source_mask=move(self.source_mask),
            target_ids=self.target_ids.to(device, non_blocking=True),
            target_mask=self.target_mask.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            rows=self.rows,
        )

    @property
    def label_count(self) -> int:
        """How many labels count in the loss."""
        return int((self.labels != IGNORED).sum())


def pad(sequences: Sequence[Ids], value: int) -> tuple[Tensor, Tensor]:
    """(ids int64 [B, L], mask bool [B, L]): the sequences, padded on the right to the longest.

    The mask comes from the lengths; ``value`` may be any id. L is at least 1, so that a batch of empty
    sequences is a column that nobody sees.
    """
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    width = max(1, int(lengths.max(initial=0)))
    mask = np.arange(width) < lengths[:, None]
    ids = np.full(mask.shape, value, np.int64)
    if lengths.sum():
        ids[mask] = np.concatenate([np.asarray(sequence, np.int64) for sequence in sequences])
    return torch.from_numpy(ids), torch.from_numpy(mask)


def pair_batch(
    sources: Sequence[Ids],
    targets: Sequence[Ids],
    *,
    rows: Sequence[int],
    start_id: int,
    eos_id: int,
    source_pad_id: int = 0,
    target_pad_id: int = 0,
) -> Batch:
    """A batch of pairs. ``sources`` are complete; ``targets`` are t1..tn without start and eos id."""
    source_ids, source_mask = pad(sources, source_pad_id)
    target = causal_batch(targets, rows=rows, start_id=start_id, eos_id=eos_id, pad_id=target_pad_id)
    return Batch(
        source_ids=source_ids,
        source_mask=source_mask,
        target_ids=target.target_ids,
        target_mask=target.target_mask,
        labels=target.labels,
        rows=target.rows,
    )


def causal_batch(
    texts: Sequence[Ids], *, rows: Sequence[int], start_id: int, eos_id: int, pad_id: int = 0
) -> Batch:
    """A batch of texts t1..tn for left-to-right modelling: read start, t1..tn; say t1..tn, eos."""
    read, mask = pad([np.concatenate(([start_id], np.asarray(text, np.int64))) for text in texts], pad_id)
    said, _ = pad([np.concatenate((np.asarray(text, np.int64), [eos_id])) for text in texts], IGNORED)
    return Batch(
        source_ids=None, source_mask=None, target_ids=read, target_mask=mask, labels=said, rows=tuple(rows)
    )


def stream_batch(pairs: Sequence[tuple[Ids, Ids]], *, rows: Sequence[int], pad_id: int = 0) -> Batch:
    """A batch of pieces of a stream for left-to-right modelling: (ids to read, ids to say), equally long."""
    read, mask = pad([read for read, _ in pairs], pad_id)
    said, _ = pad([said for _, said in pairs], IGNORED)
    return Batch(
        source_ids=None, source_mask=None, target_ids=read, target_mask=mask, labels=said, rows=tuple(rows)
    )


def masked_batch(
    texts: Sequence[Ids],
    *,
    rows: Sequence[int],
    mask_id: int,
    vocab_size: int,
    special_ids: frozenset[int],
    seed: int,
    epoch: int,
    pad_id: int = 0,
) -> Batch:
    """A batch for BERT's masked language modelling (Devlin et al. 2019, section 3.1).

    15 % of the tokens that are not special, and at least one, are to be told. Of them 80 % are read as the
    mask token, 10 % as a random token that is not special and 10 % as they are. What falls to which row is
    drawn from (seed, epoch, row) alone: it does not depend on the batch. A piece given as ``~id`` goes on
    with the word before it and shares its lot: whole words are masked, as in BERT's later release.
    """
    ordinary = np.setdiff1d(np.arange(vocab_size), np.fromiter(special_ids, np.int64, len(special_ids)))
    read, said = [], []
    for text, row in zip(texts, rows, strict=True):
        ids, word_of = words_of(text)
        labels = np.full_like(ids, IGNORED)
        places = np.flatnonzero(np.isin(ids, ordinary))
        if len(places):
            rng = np.random.default_rng([seed, epoch, row])
            wanted = max(1, round(0.15 * len(places)))
            if word_of[-1] + 1 == len(ids):
                chosen = rng.permutation(places)[:wanted]
            else:
                chosen = _whole_words(places, word_of, wanted, rng)
            labels[chosen] = ids[chosen]
            lot = rng.random(len(chosen))
            ids[chosen[lot < 0.8]] = mask_id
            other = chosen[(lot >= 0.8) & (lot < 0.9)]
            ids[other] = rng.choice(ordinary, len(other))
        read.append(ids)
        said.append(labels)
    target_ids, target_mask = pad(read, pad_id)
    return Batch(
        source_ids=None,
        source_mask=None,
        target_ids=target_ids,
        target_mask=target_mask,
        labels=pad(said, IGNORED)[0],
        rows=tuple(rows),
    )


def words_of(text: Ids) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(ids, number of the word that each belongs to) of a text whose pieces inside words are ``~id``."""
    ids = np.array(text, np.int64)
    goes_on = ids < 0
    ids[goes_on] = ~ids[goes_on]
    return ids, np.cumsum(~goes_on) - 1


def _whole_words(
    places: NDArray[np.int64], word_of: NDArray[np.int64], wanted: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Places of words drawn at random that together have up to ``wanted`` pieces: a word that would be too
    much is passed over, but one word there is at least."""
    words, pieces = np.unique(word_of[places], return_counts=True)
    order = rng.permutation(len(words))
    taken: list[int] = []
    left = wanted
    for word in order.tolist():
        if pieces[word] <= left:
            taken.append(word)
            left -= int(pieces[word])
        if not left:
            break
    return places[np.isin(word_of[places], words[taken or order[:1]])]
