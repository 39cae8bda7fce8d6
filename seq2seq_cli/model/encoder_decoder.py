"""An encoder and a decoder as one model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seq2seq_cli.model.config import EncoderDecoderConfig, Share, SpecialIds
from seq2seq_cli.model.lengths import by_length, pays
from seq2seq_cli.model.linear import Linear
from seq2seq_cli.model.stack import Encoded, Stack


class EncoderDecoder(nn.Module):
    """p(target | source): the decoder attends to the encoder's states in every layer.

    ``projection`` maps the encoder's width to the decoder's where they differ and the decoder's
    cross-attention was not built for the encoder's width.
    """

    def __init__(self, encoder: Stack, decoder: Stack, *, share: Share = "none") -> None:
        """``share`` says what ``tie`` will make one."""
        super().__init__()
        self.config = EncoderDecoderConfig(encoder=encoder.config, decoder=decoder.config, share=share)
        self.special_ids = SpecialIds()
        self.generation: dict[str, object] = {}
        self.encoder = encoder
        self.decoder = decoder
        self.projection: Linear | None = None
        width = encoder.config.hidden_size
        wanted = decoder.config.cross_attention_size or decoder.config.hidden_size
        if width != wanted:
            self.projection = Linear(width, wanted)

    @property
    def longest_source(self) -> int:
        """The most tokens of a source."""
        return self.encoder.config.max_positions

    @property
    def longest_target(self) -> int:
        """The most tokens of a target."""
        return self.decoder.config.max_positions

    def encode(self, source_ids: Tensor, source_mask: Tensor | None = None) -> Encoded:
        """Source ids [B, S] and mask [B, S] -> what the decoder attends to, at the decoder's width.

        Padding may have moved to the right, and become less.
        """
        if source_mask is None:
            source_mask = torch.ones_like(source_ids, dtype=torch.bool)
        if self.training or not pays(source_ids, source_mask):
            return Encoded(states=self._source_states(source_ids, source_mask), mask=source_mask.bool())
        compact = by_length(self._source_states, source_ids, source_mask)
        return Encoded(states=compact.states, mask=compact.mask)

    def encoded(self, states: Tensor, source_mask: Tensor | None) -> Encoded:
        """What the decoder attends to, from the encoder's own states [B, S, E] and mask [B, S]."""
        if source_mask is None:
            source_mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        return Encoded(states=self._projected(states), mask=source_mask.bool())

    def _source_states(self, source_ids: Tensor, source_mask: Tensor) -> Tensor:
        return self._projected(self.encoder.states(source_ids, source_mask))

    def _projected(self, states: Tensor) -> Tensor:
        return states if self.projection is None else self.projection(states)

    def target_states(
        self,
        source_ids: Tensor,
        source_mask: Tensor | None,
        target_ids: Tensor,
        target_mask: Tensor | None = None,
    ) -> Tensor:
        """[B, S], [B, S], [B, T] -> the decoder's states [B, T, D]."""
        encoded = self.encode(source_ids, source_mask)
        return self.decoder.states(target_ids, target_mask, encoded=encoded)

    def forward(
        self,
        source_ids: Tensor,
        source_mask: Tensor | None,
        target_ids: Tensor,
        target_mask: Tensor | None = None,
    ) -> Tensor:
        """[B, S], [B, S], [B, T] -> logits [B, T, V]; target_ids begin with the start id."""
        return self.decoder.logits(self.target_states(source_ids, source_mask, target_ids, target_mask))

    def tie(self) -> None:
        """Make the two sides use the same parameters, as ``config.share`` says (same storage).

        KeyError for a parameter that the decoder lacks, ValueError for one of another shape there.
        """
        if self.config.share == "none":
            return
        theirs = dict(self.decoder.named_modules())
        for name, module in self.encoder.named_modules():
            if self.config.share == "embeddings" and name.split(".")[0] != "embedding":
                continue
            for leaf, parameter in list(module.named_parameters(recurse=False)):
                shared = dict(theirs[name].named_parameters(recurse=False))[leaf]
                if shared.shape != parameter.shape:
                    shapes = f"{tuple(parameter.shape)} and {tuple(shared.shape)}"
                    raise ValueError(f"{name}.{leaf} has the shapes {shapes}")
                setattr(module, leaf, shared)
