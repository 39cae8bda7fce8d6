"""Where all strategies begin: the prompts are read, and it is known how far each row may go."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from seq2seq_cli.decoding.options import Decoding
from seq2seq_cli.decoding.processors import Processor
from seq2seq_cli.decoding.search import Search
from seq2seq_cli.decoding.stepper import OpenStepper, Stepper, Steps, left_padded
from seq2seq_cli.errors import CheckpointError, UsageError
from seq2seq_cli.model import Encoded, Seq2Seq, Stack

#: so many new tokens have room in the cache from the start; for more it grows
_FIRST_CAPACITY = 256


def begin(
    model: Seq2Seq | Stack,
    ids: Tensor,
    mask: Tensor | None,
    decoding: Decoding,
    *,
    processors: Sequence[Processor] = (),
    likeliest: int | None = None,
    token_scores: bool = False,
) -> Search:
    """Encode sources [B, L] and read the start id, or read prompts [B, L]; ``likeliest``: see ``Stepper``.
    CheckpointError without a start id, UsageError where a prompt leaves no room."""
    encoded, prompt, visible = _read(model, ids, mask, decoding)
    decoder = model.decoder if isinstance(model, Seq2Seq) else model
    past = encoded.mask.sum(1) if encoded is not None and encoded.memory is not None else None
    limits = _limits(decoder, prompt, visible, decoding, past=past)
    stepper: Steps = OpenStepper(decoder)
    if decoder.open_place is None:
        capacity = prompt.shape[1] + min(int(limits.max()), _FIRST_CAPACITY)
        stepper = Stepper(decoder, encoded, capacity=capacity, likeliest=likeliest)
    return Search(
        stepper=stepper,
        scores=stepper.start(prompt, visible),
        prompt=prompt,
        visible=visible,
        limits=limits,
        decoding=decoding,
        processors=processors,
        token_scores=token_scores,
    )


def _read(
    model: Seq2Seq | Stack, ids: Tensor, mask: Tensor | None, decoding: Decoding
) -> tuple[Encoded | None, Tensor, Tensor | None]:
    """The sources encoded, where there are any, and the prompts [B, P] with their mask (None = all true)."""
    if not isinstance(model, Seq2Seq):
        return None, *left_padded(ids, mask)
    if decoding.start is None:
        raise CheckpointError(
            "the checkpoint has no decoder_start_token_id",
            remedy="give decoder_start_token_id, or write it into its generation_config.json",
        )
    return model.encode(ids, mask), ids.new_full((ids.shape[0], 1), decoding.start), None


def check_input(model: Seq2Seq | Stack, ids: Tensor, mask: Tensor | None) -> None:
    """UsageError for ids [B, L] that the model lacks, and for sources with more tokens than positions."""
    reader = model.encoder if isinstance(model, Seq2Seq) else model
    check_known(ids, reader, "the model")
    longest = ids.shape[1] if mask is None else int(mask.sum(1).max())
    most = reader.config.max_positions
    if isinstance(model, Seq2Seq) and reader.position_embedding is not None and longest > most:
        raise UsageError(
            f"a source of {longest} tokens is longer than the {most} that the model takes",
            remedy="shorten it",
        )


def check_known(ids: Tensor, reader: Stack, who: str) -> None:
    """UsageError for ids [B, L] that the vocabulary of ``reader`` lacks."""
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < reader.config.vocab_size:
        wrong = int(ids.max()) if int(ids.min()) >= 0 else int(ids.min())
        raise UsageError(
            f"the token id {wrong} is not one of {who}'s {reader.config.vocab_size}",
            remedy="use its own tokenizer; what stands at padding must be an id, too",
        )


def _limits(
    decoder: Stack, prompt: Tensor, visible: Tensor | None, decoding: Decoding, *, past: Tensor | None
) -> Tensor:
    """The most new tokens of each row [B]: as asked for, and never past the decoder's last position.

    The last token that is written needs no position, because nothing comes after it; but an open place that
    it is written at does, and contrastive search reads it all the same.
    """
    lengths = prompt.new_full((prompt.shape[0],), prompt.shape[1])
    if visible is not None:
        lengths = visible.sum(1)
    room = decoder.config.max_positions - lengths
    if past is not None:  # places that the source [B] takes up in the stack that writes
        room = room - past
    if int(room.min()) < 1:
        read = lengths if past is None else lengths + past
        raise UsageError(
            f"a prompt of {int(read.max())} tokens leaves no room in the model's "
            f"{decoder.config.max_positions} positions",
            remedy="shorten it",
        )
    if decoder.open_place is None and not decoding.penalty_alpha:
        room = room + 1
    if decoding.max_new_tokens is not None:
        room = room.clamp(max=decoding.max_new_tokens)
    elif decoding.max_length is not None:
        room = room.minimum((decoding.max_length - lengths).clamp(min=1))
    return room
