"""What strategies are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seq2seq_cli.decoding.options import Decoding
from seq2seq_cli.decoding.processors import Processor
from seq2seq_cli.decoding.stepper import Steps


@dataclass(frozen=True, kw_only=True)
class Search:
    """B rows with their prompts read, and how to go on with them."""

    stepper: Steps
    scores: Tensor  # [B, V] of what comes behind the prompts
    prompt: Tensor  # [B, P]
    visible: Tensor | None  # [B, P], padding on the left; None: there is none
    limits: Tensor  # [B] the most new tokens a row may have
    decoding: Decoding
    processors: Sequence[Processor]
    token_scores: bool  #: hypotheses are to tell the log-probability of each token

    @property
    def longest(self) -> int:
        """The most new tokens of any row."""
        return int(self.limits.max())

    def copied(self, copies: int) -> Search:
        """Each row so many times, side by side; the processors count them so already."""
        if copies == 1:
            return self
        rows = torch.arange(self.prompt.shape[0], device=self.prompt.device).repeat_interleave(copies)
        self.stepper.select(rows, sources=rows)
        return replace(
            self,
            scores=self.scores[rows],
            prompt=self.prompt[rows],
            visible=None if self.visible is None else self.visible[rows],
            limits=self.limits[rows],
        )
