"""Token ids in, hypotheses out: resolve the options, run the prompt, hand over to a strategy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from seq2seq_cli.decoding.beam import beam_search
from seq2seq_cli.decoding.beam_sampling import BeamSampler
from seq2seq_cli.decoding.constrained import constrained_beam_search
from seq2seq_cli.decoding.contrastive import contrastive_search
from seq2seq_cli.decoding.draft import Draft, Drafter, begin_draft, check_draft
from seq2seq_cli.decoding.greedy import choose_greedily, needed
from seq2seq_cli.decoding.groups import group_beam_search
from seq2seq_cli.decoding.lookup import Lookup
from seq2seq_cli.decoding.options import Decoding, check_ids, resolve_options
from seq2seq_cli.decoding.processors import build_processors
from seq2seq_cli.decoding.prompt import begin, check_input
from seq2seq_cli.decoding.sampling import Sampler
from seq2seq_cli.decoding.search import Search
from seq2seq_cli.decoding.single import Choose, follow
from seq2seq_cli.decoding.speculative import speculate
from seq2seq_cli.decoding.stepper import Hypothesis
from seq2seq_cli.decoding.wording import refuse_unspelled, spell
from seq2seq_cli.errors import UsageError
from seq2seq_cli.model import Seq2Seq, Stack
from seq2seq_cli.text.tokenizer import Tokenizer

#: hears the tokens [R] of a step
Tell = Callable[[Tensor], None]


def generate_ids(
    model: Seq2Seq | Stack,
    ids: Tensor,
    mask: Tensor | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    draft: Seq2Seq | Stack | None = None,
    token_scores: bool = False,
    **options: Any,
) -> list[list[Hypothesis]]:
    """Hypotheses of each row of ids [B, L], the best first.

    ids are the sources of an encoder-decoder, the prompts of a single stack; mask [B, L] (true or 1 =
    visible), padding on either side. Options have the names and meanings of transformers'
    GenerationConfig; unset ones come from the checkpoint. Those that are texts (bad_words, prefix, stop)
    need the target's ``tokenizer``. ``token_scores`` asks for the log-probability of each token. ``draft``
    is a smaller model of the same vocabularies, which guesses ``draft_tokens`` ahead; it changes nothing in
    the output. UsageError for unknown or impossible ones.
    """
    options = naming_draft(options, draft is not None)
    decoding = resolve_options(options, model.generation, model.special_ids)
    if tokenizer is not None:
        decoding = spell(decoding, tokenizer)
    guessing = None if draft is None else Draft(model=draft, ids=ids, mask=mask)
    return run(model, ids, mask, decoding, token_scores=token_scores, draft=guessing)


def naming_draft(options: Mapping[str, Any], is_given: bool) -> dict[str, Any]:
    """Options beside which a draft is given as a model: it has no reference, and no other one is loaded."""
    if options.get("draft_model") is not None:
        raise UsageError("draft_model is a reference", remedy="load it, and give it as draft")
    return {**options, "draft_model": "draft"} if is_given else dict(options)


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
    draft: Draft | None = None,
) -> list[list[Hypothesis]]:
    """``generate_ids`` with resolved options. ``keys`` number the rows for sampling: a row's draws depend
    on the seed and its key alone. Without ``with_scores`` the scores of single paths stay 0. ``source``:
    the sources in the target's ids, with their mask, where ``ids`` are not. ``prefixes``: what each row
    begins with, instead of ``decoding.prefix_ids``. ``tell`` hears each step's tokens of single paths, as
    they are chosen. Where there is no ``draft``, nothing guesses in its place."""
    models = [model] if draft is None else [model, draft.model]
    were_training = [each.training for each in models]
    for each in models:
        each.eval()
    try:
        return _run(
            model,
            ids,
            mask,
            decoding,
            keys=keys if keys is not None else range(ids.shape[0]),
            with_scores=with_scores or token_scores,
            tell=tell,
            token_scores=token_scores,
            source=source or (ids, mask),
            prefixes=prefixes,
            draft=draft if decoding.draft_tokens else None,
        )
    finally:
        for each, was_training in zip(models, were_training, strict=True):
            each.train(was_training)


def _run(
    model: Seq2Seq | Stack,
    ids: Tensor,
    mask: Tensor | None,
    decoding: Decoding,
    *,
    keys: Sequence[int],
    with_scores: bool,
    tell: Tell | None,
    token_scores: bool,
    source: tuple[Tensor, Tensor | None],
    prefixes: Sequence[Sequence[int]] | None,
    draft: Draft | None,
) -> list[list[Hypothesis]]:
    writer = model.decoder if isinstance(model, Seq2Seq) else model
    vocab_size = writer.config.vocab_size
    check_input(model, ids, mask)
    refuse_unspelled(decoding)
    check_ids(decoding, vocab_size)
    _check_guessing(model, writer, decoding, draft)
    strategy = _strategy(decoding, writer, keys)
    copies = decoding.num_return_sequences if decoding.do_sample and strategy is None else 1
    processors = build_processors(
        decoding, source=source, vocab_size=vocab_size, prefixes=prefixes, copies=copies
    )
    search = begin(
        model,
        ids,
        mask,
        decoding,
        processors=processors,
        likeliest=None if with_scores else needed(decoding),
        token_scores=token_scores,
    ).copied(copies)
    if strategy is not None:
        return strategy(search)
    choose: Choose = choose_greedily
    if decoding.do_sample:
        streams = [key * copies + copy for key in keys for copy in range(copies)]
        choose = Sampler(decoding, keys=streams, steps=search.longest)
    follow_rows = _follower(model, decoding, draft, source=source, choose=choose, copies=copies)
    told = choose if tell is None else _telling(choose, tell)
    flat = follow_rows(search, choose=told, with_scores=with_scores or copies > 1)
    groups = [flat[i : i + copies] for i in range(0, len(flat), copies)]
    return [sorted(group, key=lambda h: -h.score) for group in groups]


def _check_guessing(model: Seq2Seq | Stack, writer: Stack, decoding: Decoding, draft: Draft | None) -> None:
    """UsageError for guesses with a model that cannot take back what it has read, and for a draft that does
    not fit."""
    name = "prompt_lookup" if decoding.prompt_lookup else "draft_model"
    stacks = {f"{name} needs a model": writer} if decoding.prompt_lookup or draft else {}
    if draft is not None:
        stacks["draft_model needs a draft"] = draft.writer
    for needs, stack in stacks.items():
        if stack.open_place is not None:
            raise UsageError(f"{needs} that writes left to right", remedy=f"remove {name}")
        if stack.memory:
            raise UsageError(f"{needs} that forgets nothing", remedy=f"remove {name}")
    if draft is not None:
        check_draft(draft, model)


def _follower(
    model: Seq2Seq | Stack,
    decoding: Decoding,
    draft: Draft | None,
    *,
    source: tuple[Tensor, Tensor | None],
    choose: Choose,
    copies: int,
) -> Callable[..., list[Hypothesis]]:
    """What follows one path a row: token by token, or by guesses of so many at once."""
    if draft is not None:
        begun = begin_draft(draft, decoding, model.special_ids).copied(copies)
        drafter = Drafter(begun, choose)
        return partial(speculate, guesser=drafter, most=decoding.draft_tokens)
    if decoding.prompt_lookup:
        writer = model.decoder if isinstance(model, Seq2Seq) else model
        lookup = Lookup(source, vocab_size=writer.config.vocab_size, copies=copies)
        return partial(speculate, guesser=lookup, most=decoding.prompt_lookup)
    return follow


def _telling(choose: Choose, tell: Tell) -> Choose:
    """``choose`` that tells its tokens."""

    def choose_and_tell(scores: Tensor, rows: Tensor, steps: Tensor) -> Tensor:
        tokens = choose(scores, rows, steps)
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
