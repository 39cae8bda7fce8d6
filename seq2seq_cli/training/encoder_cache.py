"""States of an encoder that stands still, kept from epoch to epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from seq2seq_cli import console
from seq2seq_cli.data.batch import Batch
from seq2seq_cli.data.dataset import PairDataset
from seq2seq_cli.errors import UsageError
from seq2seq_cli.model import EncoderDecoder, Stack
from seq2seq_cli.model.attention import Attention
from seq2seq_cli.recipe import Recipe, changed, where_of
from seq2seq_cli.training.optimizer import Parts

if TYPE_CHECKING:
    from seq2seq_cli.training.setup import Prepared

#: rows of equal length that are encoded together
_TOGETHER = 16


class EncoderCache:
    """The last hidden states of each source, worked out when a batch first asks for them.

    A row's states must not depend on the batch that asked first, or a resumed run would round otherwise: rows
    are encoded in groups of equal length that the data set alone decides, without padding. ``autocast`` makes
    the context of the products. The states are kept in float32 in the main memory.
    """

    def __init__(
        self, encoder: Stack, rows: PairDataset, *, autocast: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self._encoder, self._rows, self._autocast = encoder, rows, autocast
        lengths = rows.lengths[:, 0]
        order = np.lexsort((np.arange(len(lengths)), lengths))
        edges = np.flatnonzero(np.diff(lengths[order])) + 1
        groups = [g[i : i + _TOGETHER] for g in np.split(order, edges) for i in range(0, len(g), _TOGETHER)]
        self._groups = groups
        self._group_of = np.empty(len(lengths), np.int64)
        for number, group in enumerate(groups):
            self._group_of[group] = number
        self._kept: dict[int, Tensor] = {}

    def states(self, batch: Batch) -> Tensor:
        """[B, S, E] on the batch's device, zero where the source is padding."""
        assert batch.source_ids is not None
        places = np.searchsorted(self._rows.row_numbers, batch.rows)
        rows = [self._row(int(place)) for place in places]
        states = rows[0].new_zeros(*batch.source_ids.shape, rows[0].shape[-1])
        for row, own in zip(states, rows, strict=True):
            row[: len(own)] = own
        return states.to(next(self._encoder.parameters()).device, non_blocking=True)

    def _row(self, place: int) -> Tensor:
        number = int(self._group_of[place])
        members = self._groups[number]
        if number not in self._kept:
            self._kept[number] = self._encode(members)
        return self._kept[number][int(np.searchsorted(members, place))]

    @torch.no_grad()
    def _encode(self, members: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
        """Rows of equal length -> [N, L, E]."""
        device = next(self._encoder.parameters()).device
        ids = torch.from_numpy(np.stack([self._rows[int(place)][0] for place in members]).astype(np.int64))
        if not ids.shape[1]:
            return torch.zeros(len(ids), 0, self._encoder.config.hidden_size)
        with self._autocast():
            return self._encoder.states(ids.to(device)).float().cpu()


def encoder_cache(
    prepared: Prepared, *, autocast: Callable[[], AbstractContextManager[object]]
) -> EncoderCache | None:
    """The cache of a run; None where it has none."""
    model, rows = prepared.bundle.model, prepared.train
    if (
        not prepared.keeps_states
        or not isinstance(model, EncoderDecoder)
        or not isinstance(rows, PairDataset)
    ):
        return None
    size = _megabytes(model.encoder, rows)
    console.say(f"the encoder stands still: its states are kept once known ({size:,.1f} MB)")
    return EncoderCache(model.encoder, rows, autocast=autocast)


def _megabytes(encoder: Stack, rows: PairDataset) -> float:
    return 4e-6 * int(rows.lengths[:, 0].sum()) * encoder.config.hidden_size


def keeps_states(recipe: Recipe, model: nn.Module, rows: object, parts: Parts) -> bool:
    """Whether a cache changes nothing but the time, and was not declined: the encoder neither learns nor has
    dropout, and ``training.encoder_cache_mb`` is enough. UsageError where the recipe asks for one, or says
    how large it may be, in vain."""
    asked, most = recipe.training.cache_encoder_states, recipe.training.encoder_cache_mb
    if asked is False:
        return False
    reason, remedy = _obstacle(model, rows, parts)
    if reason and "encoder_cache_mb" in changed(recipe.training):
        where = where_of(recipe, "training.encoder_cache_mb")
        raise UsageError(f"encoder_cache_mb has no effect: {reason}", where=where, remedy=remedy)
    if not reason and isinstance(model, EncoderDecoder) and isinstance(rows, PairDataset):
        size = _megabytes(model.encoder, rows)
        if size > most:
            reason = f"the encoder's states take {size:,.1f} MB, and encoder_cache_mb is {most:,}"
            remedy = f"write encoder_cache_mb: {math.ceil(size)}, where the memory allows it"
    if reason and asked:
        where = where_of(recipe, "training.cache_encoder_states")
        raise UsageError(f"cache_encoder_states: {reason}", where=where, remedy=remedy)
    if reason:
        console.say(f"the encoder's states are not kept: {reason}", level=1)
    return not reason


def _obstacle(model: nn.Module, rows: object, parts: Parts) -> tuple[str, str]:
    """Why an encoder's states are not the same in every epoch, and what to do; "" when they are."""
    if not isinstance(model, EncoderDecoder):
        return "the model has no encoder of its own", "remove it"
    if type(rows) is not PairDataset:
        return "what the encoder reads changes from epoch to epoch", "remove it"
    learning = {id(p) for part in parts.parts if not part.frozen for _, p in part.parameters}
    if any(id(parameter) in learning for parameter in model.encoder.parameters()):
        return "the encoder learns", "write model.freeze: [encoder], and share nothing that learns"
    rates = [m.dropout for m in model.encoder.modules() if isinstance(m, Attention)]
    rates += [m.p for m in model.encoder.modules() if isinstance(m, nn.Dropout)]
    if any(rates):
        remedy = "set its rates to 0 in model.set (encoder_hidden_dropout_prob, ...), or training.dropout"
        return "the encoder has dropout", remedy
    return "", ""
