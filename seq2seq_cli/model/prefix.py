"""One stack as a sequence-to-sequence model: UniLM's prefix mask (Dong et al. 2019, 2.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seq2seq_cli.model.config import SpecialIds
from seq2seq_cli.model.stack import Encoded, Stack


class PrefixModel(nn.Module):
    """p(target | source) by one stack that reads source and target as one sequence.

    The source's places see each other both ways, the target's see the source and what was written before.
    Positions run on from the source into the target, so both have to fit into the stack's positions.
    Called, trained and decoded like ``EncoderDecoder``.
    """

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        if stack.head is None or not stack.config.causal:
            raise TypeError("a prefix model needs a causal stack with a head")
        self.stack = stack
        stack.memory = 0  # source and target are one whole, behind nothing
        stack.open_place = None  # and the target is written from left to right
        self.special_ids = SpecialIds()
        self.generation: dict[str, object] = {}

    @property
    def encoder(self) -> Stack:
        """The stack that reads: the only one."""
        return self.stack

    @property
    def decoder(self) -> Stack:
        """The stack that writes: the only one."""
        return self.stack

    @property
    def longest_source(self) -> int:
        """The most tokens of a source where nothing else is asked for: three quarters of the positions."""
        return self.stack.config.max_positions - self.longest_target

    @property
    def longest_target(self) -> int:
        """The most tokens of a target where nothing else is asked for."""
        return self.stack.config.max_positions // 4

    def encode(self, source_ids: Tensor, source_mask: Tensor | None = None) -> Encoded:
        """Source ids [B, S] and mask [B, S] -> the source as the stack's own past."""
        if source_mask is None:
            source_mask = torch.ones_like(source_ids, dtype=torch.bool)
        memory = self.stack.new_cache(2 * source_ids.shape[1] + 32)
        states = self.stack.states(source_ids, source_mask, cache=memory, prefix=source_ids.shape[1])
        return Encoded(states=states, mask=source_mask.bool(), memory=memory)

    def target_states(
        self,
        source_ids: Tensor,
        source_mask: Tensor | None,
        target_ids: Tensor,
        target_mask: Tensor | None = None,
    ) -> Tensor:
        """[B, S], [B, S], [B, T] -> the stack's states [B, T, D] over the target."""
        ids = torch.cat([source_ids, target_ids], dim=1)
        if source_mask is None:
            source_mask = torch.ones_like(source_ids, dtype=torch.bool)
        if target_mask is None:
            target_mask = torch.ones_like(target_ids, dtype=torch.bool)
        mask = torch.cat([source_mask.bool(), target_mask.bool()], dim=1)
        width = source_ids.shape[1]
        return self.stack.states(ids, mask, prefix=width)[:, width:]

    def forward(
        self,
        source_ids: Tensor,
        source_mask: Tensor | None,
        target_ids: Tensor,
        target_mask: Tensor | None = None,
    ) -> Tensor:
        """[B, S], [B, S], [B, T] -> logits [B, T, V]; target_ids begin with the start id."""
        return self.stack.logits(self.target_states(source_ids, source_mask, target_ids, target_mask))
