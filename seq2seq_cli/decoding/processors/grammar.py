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
        written = [tuple(row) for row in context.tokens[:, start:].tolist()]
        if self._behind_bos:
            bare = (context.lengths() - context.new_tokens == 1).tolist()
            if context.new_tokens == 0 and all(bare):
                return
            written = [row[1:] if forced else row for row, forced in zip(written, bare, strict=True)]
        known = {path: self._at(path) for path in set(written)}
        masks = {path: self._language.allowed(at) for path, at in known.items() if at is not None}
        rows = [number for number, path in enumerate(written) if path in masks]
        if rows:
            packed = bytearray(b"".join(masks[written[number]] for number in rows))
            bits = _BITS[torch.frombuffer(packed, dtype=torch.uint8).long()].view(len(rows), -1)
            allowed = torch.zeros(len(rows), scores.shape[1], dtype=torch.bool)
            width = min(scores.shape[1], bits.shape[1])
            allowed[:, :width] = bits[:, :width]
            where = torch.tensor(rows, device=scores.device)
            scores[where] = scores[where].masked_fill(~allowed.to(scores.device), FORBIDDEN)
        self._known = {(): self._language.start(), **known}

    def _at(self, path: tuple[int, ...]) -> Any:
        if path in self._known:
            return self._known[path]
        return self._language.after(self._known.get(path[:-1]), path[-1])
