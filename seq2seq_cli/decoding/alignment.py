"""Which tokens of the source each token of a target looked at while it was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seq2seq_cli.model import EncoderDecoder, Seq2Seq
from seq2seq_cli.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """``weights`` float32 [layers, N, T, S]: how much of each source token was seen when a target token was
    chosen. Over the source they add up to 1 in an encoder-decoder, to less in a prefix model, whose targets
    see what was written before as well. Tokens are in a form to be read (see ``Tokenizer.pieces``)."""

    weights: Tensor
    source_ids: list[int]
    target_ids: list[int]
    source_tokens: list[str]
    target_tokens: list[str]


def align(
    model: Seq2Seq,
    source_ids: Sequence[int],
    target_ids: Sequence[int],
    *,
    start: int,
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
) -> Alignment:
    """What a target [T], without its ``start`` id, saw of its source [S]; both are complete and unpadded."""
    return Alignment(
        weights=source_attention(model, source_ids, target_ids, start=start),
        source_ids=list(source_ids),
        target_ids=list(target_ids),
        source_tokens=source_tokenizer.pieces(source_ids),
        target_tokens=target_tokenizer.pieces(target_ids),
    )


@torch.inference_mode()
def source_attention(
    model: Seq2Seq, source_ids: Sequence[int], target_ids: Sequence[int], *, start: int
) -> Tensor:
    """float32 [layers, N, T, S] on the CPU, from one pass over the whole target: whichever way a hypothesis
    was found, this is what its tokens were chosen by."""
    device = next(model.parameters()).device
    source = torch.tensor([list(source_ids)], device=device)
    begun = torch.tensor([[start, *target_ids[:-1]]], device=device)
    was_training = model.training
    model.eval()
    try:
        encoded = model.encode(source)
        cache = encoded.memory or model.decoder.new_cache(begun.shape[1])
        seen: list[Tensor] = []
        if isinstance(model, EncoderDecoder):
            cache.seen_of_source = seen
        else:
            cache.seen_of_self = seen
        model.decoder.states(begun, encoded=encoded, cache=cache)
    finally:
        model.train(was_training)
    # one stack sees the source first, as its own past, and then what was written
    return torch.cat(seen)[..., : source.shape[1]].cpu()
