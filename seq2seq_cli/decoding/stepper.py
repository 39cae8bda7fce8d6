"""What strategies decode with: a decoder with its cache that takes tokens and gives next-token scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq_cli.model import Encoded, Room, Stack


@dataclass(frozen=True)
class Hypothesis:
    """One output: its new token ids (eos included when it was generated; no start, prompt or padding) and
    its score, the sum of log-probabilities over length to the power of the length penalty. Where they are
    asked for, also the log-probabilities of its tokens."""

    ids: list[int]
    score: float
    token_scores: list[float] | None = None


class Stepper:
    """R rows of a decoder on their way: prompt first, then one token a step."""

    def __init__(
        self, decoder: Stack, encoded: Encoded | None, *, capacity: int, likeliest: int | None = None
    ) -> None:
        """``likeliest``: so many of a row's largest scores have to be right; None = all of them."""
        self._likeliest = likeliest
        self._room = Room()
        self._decoder = decoder
        self._encoded = encoded
        memory = None if encoded is None else encoded.memory
        self._cache = decoder.new_cache(capacity) if memory is None else memory
        self.states: Tensor  #: [R, L, D] of the tokens that were taken in last

    def start(self, prompt: Tensor, mask: Tensor | None) -> Tensor:
        """Take in prompts [R, P], padded on the left where ``mask`` [R, P] is false -> scores [R, V]."""
        return self.go_on(prompt, mask)

    def go_on(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Take in tokens [R, Q], those where ``mask`` [R, Q] is true -> scores [R, V] behind the last."""
        return self.scores(self._take(tokens, mask))

    def step(self, tokens: Tensor) -> Tensor:
        """Take in one token a row [R] -> scores [R, V] of the next."""
        return self.scores(self.look(tokens))

    def look(self, tokens: Tensor) -> Tensor:
        """Take in one token a row [R], without the scores that follow -> its states [R, D]."""
        return self._take(tokens[:, None], None)

    def read(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Take in tokens [R, Q], those where ``mask`` [R, Q] is true -> scores [R, Q, V] behind each."""
        self._take(tokens, mask)
        return self.scores(self.states)

    def take_back(self, counts: Tensor) -> None:
        """Forget the last ``counts`` [R] of the places that were taken in, masked ones counted."""
        self._cache.take_back(counts)

    def scores(self, states: Tensor) -> Tensor:
        """States [..., D] -> scores [..., V] of the next token; those of states [R, D] are overwritten by the
        next ones."""
        return self._decoder.logits(states, likeliest=self._likeliest, room=self._room)

    def _take(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        self.states = self._decoder.states(ids, mask, encoded=self._encoded, cache=self._cache)
        return self.states[:, -1]

    def select(self, rows: Tensor, *, sources: Tensor | None = None) -> None:
        """Go on with these rows only, in this order; ``sources`` does so for the sources they belong to."""
        self._cache.select(rows, sources=sources)
        if sources is not None and self._encoded is not None:
            encoded = self._encoded
            self._encoded = Encoded(states=encoded.states[sources], mask=encoded.mask[sources])


class OpenStepper:
    """Like ``Stepper``, for a stack that writes at an open place: it reads everything anew each step, because
    every token sees those that were written after it."""

    def __init__(self, decoder: Stack) -> None:
        self._decoder = decoder

    def start(self, prompt: Tensor, mask: Tensor | None) -> Tensor:
        """Take in prompts [R, P], padded on the left where ``mask`` [R, P] is false -> scores [R, V]."""
        self._ids, self._mask = prompt, mask
        return self._scores()

    def step(self, tokens: Tensor) -> Tensor:
        """Take in one token a row [R] -> scores [R, V] of the next."""
        self._ids = torch.cat([self._ids, tokens[:, None]], dim=1)
        if self._mask is not None:
            self._mask = F.pad(self._mask, (0, 1), value=True)
        return self._scores()

    def _scores(self) -> Tensor:
        return self._decoder.logits(self._decoder.open_states(self._ids, self._mask))

    def select(self, rows: Tensor, *, sources: Tensor | None = None) -> None:
        """Go on with these rows only, in this order; there are no ``sources``."""
        self._ids = self._ids[rows]
        self._mask = None if self._mask is None else self._mask[rows]


#: what strategies step with
Steps = Stepper | OpenStepper


def left_padded(ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Prompts with all their padding on the left; mask None when there is none."""
    if mask is None or bool(mask.all()):
        return ids, None
    order = mask.long().sort(dim=1, stable=True).indices
    width = int(mask.sum(1).max())
    return ids.gather(1, order)[:, -width:], mask.bool().gather(1, order)[:, -width:]


def is_any_of(tokens: Tensor, ids: tuple[int, ...]) -> Tensor:
    """bool like ``tokens``: true where the token is one of ``ids``."""
    if not ids:
        return torch.zeros_like(tokens, dtype=torch.bool)
    return torch.isin(tokens, torch.tensor(ids, device=tokens.device))
