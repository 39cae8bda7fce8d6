"""The processor that holds outputs to a grammar."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seq2seq_cli.decoding.grammar import Language
from seq2seq_cli.decoding.processors.context import FORBIDDEN, Context

#: byte -> its bits, the lowest first
_BITS = ((torch.arange(256)[:, None] >> torch.arange(8)) & 1).bool()


class FollowGrammar:
    """The processor: it keeps a matcher for each different output that the rows have so far."""

    def __init__(self, language: Language, *, behind_bos: bool) -> None:
        """``behind_bos``: the grammar begins behind a forced bos, where there is one."""
        self._language = language
        self._behind_bos = behind_bos
        self._known: dict[tuple[int, ...], Any] = {(): language.start()}

    def __call__(self, scores: Tensor, context: Context) -> None:
        start = context.tokens.shape[1] - context.new_tokens
        written: list[tuple[int, ...] | None] = [tuple(row) for row in context.tokens[:, start:].tolist()]
        if self._behind_bos:
            bare = (context.lengths() - context.new_tokens == 1).tolist()
            written = [
                (row[1:] if row else None) if forced else row
                for row, forced in zip(written, bare, strict=True)
            ]
        places = {path: self._at(path) for path in set(written) if path is not None}
        masks = {path: self._language.allowed(at) for path, at in places.items() if at is not None}
        rows = [number for number, path in enumerate(written) if path in masks]
        if rows:
            packed = bytearray(b"".join(masks[path] for path in written if path in masks))
            bits = _BITS[torch.frombuffer(packed, dtype=torch.uint8).long()].view(len(rows), -1)
            allowed = torch.zeros(len(rows), scores.shape[1], dtype=torch.bool)
            width = min(scores.shape[1], bits.shape[1])
            allowed[:, :width] = bits[:, :width]
            where = torch.tensor(rows, device=scores.device)
            scores[where] = scores[where].masked_fill(~allowed.to(scores.device), FORBIDDEN)
        # groups of beams come one after the other, with outputs of the same length
        least = context.new_tokens - 2
        self._known = {path: at for path, at in self._known.items() if not path or len(path) >= least}

    def _at(self, path: tuple[int, ...]) -> Any:
        size = len(path)
        while path[:size] not in self._known:
            size -= 1
        at = self._known[path[:size]]
        for token in path[size:]:
            at = self._language.after(at, token)
        self._known[path] = at
        return at
