"""Beam sampling: beam search whose candidates are drawn from the model's distribution, not its likeliest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seq2seq_cli.decoding.beam import count_of
from seq2seq_cli.decoding.candidates import FORBIDDEN, Candidates
from seq2seq_cli.decoding.options import Decoding
from seq2seq_cli.decoding.sampling import candidates, uniform_numbers


class BeamSampler:
    """Draws continuations of all beams of a row without replacement, each in proportion to the probability
    of the whole beam. As in transformers, the filters see log-probabilities, and a beam's score is the sum
    of what temperature and filters left of them.

    The first numbers of a sorted list of log-probabilities plus Gumbel noise are such draws (Kool et al.
    2019, 2.3). The noise belongs to (seed, key, step, beam, candidate), so what stands beside a row, and how
    many candidates it needs, changes nothing.
    """

    def __init__(self, decoding: Decoding, *, keys: Sequence[int]) -> None:
        self._decoding = decoding
        self._keys = keys

    def __call__(self, scores: Tensor, running: Tensor, rows: Tensor, step: int) -> Candidates:
        """scores [B * W, V] of the beams ``running`` [B, W] of the original rows [B]."""
        options = self._decoding
        # a beam that may end must be able to go on as well
        values, ids = candidates(scores, options, keep=max(2, 1 + len(options.eos)))
        batch, width = running.shape
        size = values.shape[-1]
        values = values.clamp(min=FORBIDDEN).view(batch, width, size)
        total = (values + running[:, :, None]).flatten(1)
        noise = torch.stack([self._noise(row, step, size * width) for row in rows.tolist()])
        noise = noise.view(batch, size, width).transpose(1, 2).flatten(1).to(total.device)
        place = (total + noise).topk(min(count_of(options, width), total.shape[1]), dim=1).indices
        chosen = place % size if ids is None else ids.view(batch, -1).gather(1, place)
        return Candidates(
            total=total.gather(1, place),
            origins=place // size,
            tokens=chosen,
            logs=values.flatten(1),
            places=place,
        )

    def _noise(self, row: int, step: int, count: int) -> Tensor:
        """``count`` numbers of the Gumbel distribution."""
        return -(-uniform_numbers(self._decoding.seed, self._keys[row], step, count=count).log()).log()
