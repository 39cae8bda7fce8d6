"""Which processors the options ask for, in transformers' order (``_get_logits_processor``, version 5.23).

    sequence_bias · encoder_repetition_penalty · repetition_penalty · no_repeat_ngram_size ·
    encoder_no_repeat_ngram_size · bad_words · min_length · min_new_tokens · forced_bos_token_id ·
    forced_eos_token_id · remove_invalid_values · exponential_decay_length_penalty · suppress_tokens ·
    begin_suppress_tokens · prefix · grammar

and behind them, when sampling, the filters of ``warpers.py``; ``renormalize_logits`` is the very last.
``prefix`` and ``grammar`` stand where transformers puts processors of one's own: nothing undoes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from seq2seq_cli.decoding.options import Decoding
from seq2seq_cli.decoding.processors import bans, lengths, penalties
from seq2seq_cli.decoding.processors.context import FORBIDDEN, Processor
from seq2seq_cli.decoding.processors.grammar import FollowGrammar


def build_processors(
    decoding: Decoding,
    *,
    source: tuple[Tensor, Tensor | None],
    vocab_size: int,
    prefixes: Sequence[Sequence[int]] | None = None,
    copies: int = 1,
) -> list[Processor]:
    """The processors that the options ask for, in their order.

    source: ids [B, S] and mask, padding on either side: of an encoder-decoder what its encoder reads, of a
    single stack the prompts. prefixes: one for each of the B rows, instead of ``decoding.prefix_ids``.
    ``Context.rows`` counts each of the B rows ``copies`` times.
    """
    chosen: list[Processor] = []
    ids, mask = (None if each is None else each.repeat_interleave(copies, dim=0) for each in source)
    assert ids is not None
    device = ids.device

    def add(function: Callable[..., None], **settings: object) -> None:
        chosen.append(partial(function, **settings))

    _reweigh(decoding, add, ids, mask, vocab_size)
    _shape(decoding, add)
    if decoding.remove_invalid_values:
        add(penalties.remove_invalid_values)
    if decoding.exponential_decay and decoding.eos:
        start, factor = decoding.exponential_decay
        add(penalties.exponential_decay, start=start, factor=factor, eos=decoding.eos)
    behind_bos = decoding.forced_bos is not None
    if decoding.suppress_tokens:
        add(bans.suppress_tokens, ids=torch.tensor(decoding.suppress_tokens, device=device))
    if decoding.begin_suppress_tokens:
        first = torch.tensor(decoding.begin_suppress_tokens, device=device)
        add(bans.begin_suppress_tokens, ids=first, behind_bos=behind_bos)
    wanted = prefixes if prefixes is not None else [decoding.prefix_ids] * source[0].shape[0]
    if any(wanted):
        rows = [torch.tensor(each, device=device) for each in wanted for _ in range(copies)]
        add(lengths.prefix, ids=lengths.prefixes(rows), behind_bos=behind_bos)
    if decoding.language is not None:
        chosen.append(FollowGrammar(decoding.language, behind_bos=behind_bos))
    if _may_forbid_all(decoding):
        add(bans.a_way_out, eos=decoding.eos)
    if decoding.renormalize_logits and decoding.num_beams > 1 and not decoding.do_sample:
        add(penalties.renormalize)  # with sampling it comes behind the filters; elsewhere it changes nothing
    return chosen


def _reweigh(
    decoding: Decoding, add: Callable[..., None], source: Tensor, mask: Tensor | None, vocab_size: int
) -> None:
    """What depends on the tokens of the output and of the source."""
    if decoding.sequence_bias:
        add(penalties.sequence_bias, groups=penalties.phrases(decoding.sequence_bias, source.device))
    if decoding.encoder_repetition_penalty != 1.0:
        own = penalties.words_of(source, mask, vocab_size=vocab_size)
        add(
            penalties.encoder_repetition_penalty,
            penalty=decoding.encoder_repetition_penalty,
            source=own,
        )
    if decoding.repetition_penalty != 1.0:
        add(penalties.repetition_penalty, penalty=decoding.repetition_penalty)
    if decoding.no_repeat_ngram_size:
        add(bans.no_repeat_ngram, size=decoding.no_repeat_ngram_size)
    if decoding.encoder_no_repeat_ngram_size:
        found = bans.grams(source, mask, size=decoding.encoder_no_repeat_ngram_size, vocab_size=vocab_size)
        if found is not None:
            add(bans.encoder_no_repeat_ngram, source=found)
    words = [word for word in decoding.bad_words_ids if not (len(word) == 1 and word[0] in decoding.eos)]
    if words:
        forbidden = [(word, FORBIDDEN) for word in words]
        add(penalties.sequence_bias, groups=penalties.phrases(forbidden, source.device))


def _shape(decoding: Decoding, add: Callable[..., None]) -> None:
    """How outputs begin and end."""
    if decoding.min_length and decoding.eos:
        add(lengths.min_length, least=decoding.min_length, eos=decoding.eos)
    if decoding.min_new_tokens and decoding.eos:
        add(lengths.min_new_tokens, least=decoding.min_new_tokens, eos=decoding.eos)
    if decoding.forced_bos is not None:
        add(lengths.forced_bos, token=decoding.forced_bos)
    if decoding.forced_eos is not None:
        add(lengths.forced_eos, token=decoding.forced_eos)


def _may_forbid_all(decoding: Decoding) -> bool:
    """Whether the options together can leave a row without a token."""
    return bool(
        decoding.no_repeat_ngram_size
        or decoding.encoder_no_repeat_ngram_size
        or decoding.bad_words_ids
        or decoding.suppress_tokens
        or decoding.begin_suppress_tokens
        or decoding.min_length
        or decoding.min_new_tokens
        or decoding.language is not None
    )
