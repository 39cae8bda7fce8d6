"""Token ids in, hypotheses out: resolve the options, run the prompt, hand over to a strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from seq2seq_cli.decoding.beam import beam_search
from seq2seq_cli.decoding.beam_sampling import BeamSampler
from seq2seq_cli.decoding.constrained import constrained_beam_search
from seq2seq_cli.decoding.contrastive import contrastive_search
from seq2seq_cli.decoding.greedy import choose_greedily, needed
from seq2seq_cli.decoding.groups import group_beam_search
from seq2seq_cli.decoding.lookup import look_up
from seq2seq_cli.decoding.options import Decoding, check_ids, resolve_options
from seq2seq_cli.decoding.processors import build_processors
from seq2seq_cli.decoding.sampling import Sampler
from seq2seq_cli.decoding.search import Search
from seq2seq_cli.decoding.single import Choose, follow
from seq2seq_cli.decoding.stepper import Hypothesis, OpenStepper, Stepper, Steps, left_padded
from seq2seq_cli.decoding.wording import refuse_unspelled, spell
from seq2seq_cli.errors import CheckpointError, UsageError
from seq2seq_cli.model import Encoded, Seq2Seq, Stack
from seq2seq_cli.text.tokenizer import Tokenizer

#: hears the tokens [R] of a step
Tell = Callable[[Tensor], None]


def generate_ids(
    model: Seq2Seq | Stack,
    ids: Tensor,
    mask: Tensor | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    token_scores: bool = False,
    **options: Any,
) -> list[list[Hypothesis]]:
    """Hypotheses of each row of ids [B, L], the best first.

    ids are the sources of an encoder-decoder, the prompts of a single stack; mask [B, L] (true or 1 =
    visible), padding on either side. Options have the names and meanings of transformers'
    GenerationConfig; unset ones come from the checkpoint. Those that are texts (bad_words, prefix, stop)
    need the target's ``tokenizer``. ``token_scores`` asks for the log-probability of each token. UsageError
    for unknown or impossible ones.
    """
    decoding = resolve_options(options, model.generation, model.special_ids)
    if tokenizer is not None:
        decoding = spell(decoding, tokenizer)
    return run(model, ids, mask, decoding, token_scores=token_scores)


@torch.inference_mode()
def run(
    model: Seq2Seq | Stack,
    ids: Tensor,
    mask: Tensor | None,
    decoding: Decoding,
    *,
    keys: Sequence[int] | None = None,
    with_scores: bool = True,
    tell: Tell | None = None,
    token_scores: bool = False,
    source: tuple[Tensor, Tensor] | None = None,
    prefixes: Sequence[Sequence[int]] | None = None,
) -> list[list[Hypothesis]]:
    """``generate_ids`` with resolved options. ``keys`` number the rows for sampling: a row's draws depend
    on the seed and its key alone. Without ``with_scores`` the scores of single paths stay 0. ``source``:
    the sources in the target's ids, with their mask, where ``ids`` are not. ``prefixes``: what each row
    begins with, instead of ``decoding.prefix_ids``. ``tell`` hears each step's tokens of single paths, as
    they are chosen."""
    was_training = model.training
    model.eval()
    try:
        return _run(
            model,
            ids,
            mask,
            decoding,
            keys=keys,
            with_scores=with_scores,
            tell=tell,
            token_scores=token_scores,
            source=source or (ids, mask),
            prefixes=prefixes,
        )
    finally:
        model.train(was_training)


def _run(
    model: Seq2Seq | Stack,
    ids: Tensor,
    mask: Tensor | None,
    decoding: Decoding,
    *,
    keys: Sequence[int] | None,
    with_scores: bool,
    tell: Tell | None,
    token_scores: bool,
    source: tuple[Tensor, Tensor | None],
    prefixes: Sequence[Sequence[int]] | None,
) -> list[list[Hypothesis]]:
    _check_input(model, ids, mask)
    refuse_unspelled(decoding)
    decoder = model.decoder if isinstance(model, Seq2Seq) else model
    vocab_size = decoder.config.vocab_size
    check_ids(decoding, vocab_size)
    if decoding.prompt_lookup:
        _refuse_lookup(decoder)
    encoded, prompt, visible = _read(model, ids, mask, decoding)
    firsts = keys if keys is not None else range(ids.shape[0])
    past = encoded.mask.sum(1) if encoded is not None and encoded.memory is not None else None
    limits = _limits(decoder, prompt, visible, decoding, past=past)
    stepper: Steps = OpenStepper(decoder)
    if decoder.open_place is None:
        stepper = Stepper(
            *(decoder, encoded),
            capacity=prompt.shape[1] + min(int(limits.max()), 256),
            likeliest=None if with_scores or token_scores else needed(decoding),
        )
    scores = stepper.start(prompt, visible)
    copies = decoding.num_return_sequences if decoding.do_sample and decoding.num_beams == 1 else 1
    processors = build_processors(
        decoding, source=source, vocab_size=vocab_size, prefixes=prefixes, copies=copies
    )
    strategy = _strategy(decoding, decoder, firsts)
    if decoding.prompt_lookup:
        strategy = partial(look_up, source=source, with_scores=with_scores or token_scores, tell=tell)
    if strategy is not None:
        search = Search(
            stepper=stepper,
            scores=scores,
            prompt=prompt,
            visible=visible,
            limits=limits,
            decoding=decoding,
            processors=processors,
            token_scores=token_scores,
        )
        return strategy(search)
    if copies > 1:
        rows = torch.arange(prompt.shape[0], device=prompt.device).repeat_interleave(copies)
        stepper.select(rows, sources=rows)
        prompt, scores, limits = prompt[rows], scores[rows], limits[rows]
        visible = None if visible is None else visible[rows]
    choose: Choose = choose_greedily
    if decoding.do_sample:
        streams = [key * copies + copy for key in firsts for copy in range(copies)]
        choose = Sampler(decoding, keys=streams, steps=int(limits.max()))
    if tell is not None:
        choose = _telling(choose, tell)
    flat = follow(
        stepper,
        scores,
        prompt,
        visible,
        choose=choose,
        processors=processors,
        eos=decoding.eos,
        stop=decoding.stop,
        limits=limits,
        length_penalty=decoding.length_penalty,
        with_scores=with_scores or token_scores or copies > 1,
        token_scores=token_scores,
    )
    groups = [flat[i : i + copies] for i in range(0, len(flat), copies)]
    return [sorted(group, key=lambda h: -h.score) for group in groups]


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


def _refuse_lookup(decoder: Stack) -> None:
    """UsageError for a decoder that cannot take back what it has read."""
    if decoder.open_place is not None:
        raise UsageError("prompt_lookup needs a model that writes left to right", remedy="remove it")
    if decoder.memory:
        raise UsageError("prompt_lookup needs a model that forgets nothing", remedy="remove it")


def _telling(choose: Choose, tell: Tell) -> Choose:
    """``choose`` that tells its tokens."""

    def choose_and_tell(scores: Tensor, rows: Tensor, step: int) -> Tensor:
        tokens = choose(scores, rows, step)
        tell(tokens)
        return tokens

    return choose_and_tell


def _strategy(
    decoding: Decoding, decoder: Stack, keys: Sequence[int]
) -> Callable[[Search], list[list[Hypothesis]]] | None:
    """The strategy that looks at several ways on of a row at once; None for those that follow one."""
    if decoding.penalty_alpha:
        if decoder.open_place is not None:  # its tokens have no lasting states to be unlike of
            raise UsageError("penalty_alpha needs a model that writes left to right", remedy="remove it")
        return contrastive_search
    if decoding.force_words_ids:
        return constrained_beam_search
    if decoding.num_beam_groups > 1:
        return group_beam_search
    if decoding.num_beams > 1:
        return partial(beam_search, draw=BeamSampler(decoding, keys=keys) if decoding.do_sample else None)
    return None


def _check_input(model: Seq2Seq | Stack, ids: Tensor, mask: Tensor | None) -> None:
    """UsageError for ids [B, L] that the model lacks, and for sources with more tokens than positions."""
    reader = model.encoder if isinstance(model, Seq2Seq) else model
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < reader.config.vocab_size:
        wrong = int(ids.max()) if int(ids.min()) >= 0 else int(ids.min())
        raise UsageError(
            f"the token id {wrong} is not one of the model's {reader.config.vocab_size}",
            remedy="use its own tokenizer; what stands at padding must be an id, too",
        )
    longest = ids.shape[1] if mask is None else int(mask.sum(1).max())
    most = reader.config.max_positions
    if isinstance(model, Seq2Seq) and reader.position_embedding is not None and longest > most:
        raise UsageError(
            f"a source of {longest} tokens is longer than the {most} that the model takes",
            remedy="shorten it",
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
